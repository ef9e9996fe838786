"""Which commit is meant, and its files laid out; git's own state stays as it is."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trae_bench.heads import HEADS, commit, git, repository
from trae_bench import revisions
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.installs import Installer
from trae_bench.revisions import NAME_LENGTH, Repository, Revision, interpreters

PACKAGE = "agent_core"
PROJECT = '[project]\nname = "trae-bench"\ndependencies = []\n[project.optional-dependencies]\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trae-bench" / "revisions"


@pytest.fixture
def checkout(tmp_path: Path, cache: Path) -> Path:
    return repository(tmp_path / "checkout")


def around(folder: Path) -> Repository:
    return Repository.around(folder, PACKAGE)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


# -- names


def test_the_default_base_is_where_head_left_the_default_branch(checkout: Path) -> None:
    fork = git(checkout, "rev-parse", "HEAD")
    git(checkout, "checkout", "--quiet", "-b", "work")
    commit(checkout, "mine")
    git(checkout, "checkout", "--quiet", "main")
    commit(checkout, "theirs")
    git(checkout, "checkout", "--quiet", "work")
    assert around(checkout / PACKAGE).merge_base() == (fork, "main")
    assert around(checkout).commit("main") != fork
    assert around(checkout).commit("main~1") == fork


def test_the_remotes_default_branch_is_known_by_any_name(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "branch", "--move", "trunk")
    git(tmp_path, "clone", "--quiet", str(checkout), "clone")
    clone = tmp_path / "clone"
    assert around(clone).merge_base()[1] == "origin/trunk"
    git(clone, "remote", "set-head", "origin", "--delete")
    git(clone, "branch", "--move", "other")
    with pytest.raises(UsageError, match="no default branch was found") as found:
        around(clone).merge_base()
    assert "default-branch" in str(found.value)
    assert around(clone).merge_base("trunk")[1] == "origin/trunk"
    with pytest.raises(UsageError, match=r"no default branch was found \(origin/gone, gone\)"):
        around(clone).merge_base("gone")


def test_a_shallow_clone_is_told_what_to_do(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "checkout", "--quiet", "-b", "work")
    commit(checkout, "mine")
    git(checkout, "checkout", "--quiet", "main")
    source = checkout.as_uri()
    git(tmp_path, "clone", "--quiet", "--depth=1", "--branch=work", source, "shallow")
    for ask in (lambda r: r.merge_base(), lambda r: r.commit("HEAD~1")):
        with pytest.raises(UsageError) as found:
            ask(around(tmp_path / "shallow"))
        assert "git fetch --unshallow" in str(found.value)
        assert "fetch-depth: 0" in str(found.value)
    with pytest.raises(UsageError) as found:
        around(checkout).commit("nowhere")
    assert "unshallow" not in str(found.value)


def test_histories_that_never_met_have_no_base(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "--orphan", "stranger")
    commit(checkout, "another beginning")
    with pytest.raises(UsageError, match="no commit in common"):
        around(checkout).merge_base()


@pytest.mark.parametrize("name", ["", "--all", "-q", "HEAD:agent_core", "a b", "\n"])
def test_what_names_no_commit_is_refused(name: str, checkout: Path) -> None:
    with pytest.raises(UsageError, match="no commit"):
        around(checkout).commit(name)


# -- files


def test_both_sides_lie_at_paths_of_one_length(checkout: Path, cache: Path) -> None:
    before = files(checkout / PACKAGE)
    base = around(checkout).at(git(checkout, "rev-parse", "HEAD"))
    HEADS["an import"](checkout)
    head = around(checkout).head()
    assert (base.changed, head.changed) == (False, True)
    assert base.commit == head.commit
    assert base.folder.parent == head.folder.parent == cache
    assert len(base.folder.name) == len(head.folder.name) == NAME_LENGTH
    assert base.name != head.name
    assert files(base.folder / PACKAGE) == before
    assert files(head.folder / PACKAGE) == files(checkout / PACKAGE)
    assert sorted(path.name for path in head.folder.iterdir()) == [
        PACKAGE,
        "constraints.txt",
        "pyproject.toml",
    ]


def test_an_unchanged_head_is_its_commit(checkout: Path) -> None:
    sha = git(checkout, "rev-parse", "HEAD")
    (checkout / "notes.txt").write_text("not of the subject")
    head = around(checkout).head()
    assert head == around(checkout).at(sha)
    assert (head.name, head.changed) == (sha[:NAME_LENGTH], False)


def test_what_is_not_committed_is_copied_as_it_is(checkout: Path) -> None:
    package = checkout / PACKAGE
    (package / "löwe.py").write_text("ROAR = True\n")
    (package / "link.py").symlink_to("löwe.py")
    (package / "ignored.json").write_text("{}")
    (package / "shell.py").unlink()
    (package / "tool.py").write_text("1")
    (package / "tool.py").chmod(0o755)
    git(checkout, "add", f"{PACKAGE}/tool.py")
    folder = around(checkout).head().folder / PACKAGE
    assert (folder / "löwe.py").read_text() == "ROAR = True\n"
    assert (folder / "link.py").readlink() == Path("löwe.py")
    assert os.access(folder / "tool.py", os.X_OK)
    assert not (folder / "ignored.json").exists()
    assert not (folder / "shell.py").exists()


def test_each_state_has_a_name_of_its_own(checkout: Path) -> None:
    names = set()
    for text in ("A = 1\n", "A = 2\n", "A = 1\n"):
        (checkout / PACKAGE / "extra.py").write_text(text)
        names.add(around(checkout).head().name)
    (checkout / PACKAGE / "extra.py").rename(checkout / PACKAGE / "other.py")
    names.add(around(checkout).head().name)
    assert len(names) == 3


def test_git_is_left_as_it_was(checkout: Path) -> None:
    HEADS["an import"](checkout)
    index = (checkout / ".git" / "index").read_bytes()
    state = git(checkout, "status", "--porcelain", "-uall"), git(checkout, "worktree", "list")
    around(checkout).head()
    around(checkout).at(git(checkout, "rev-parse", "HEAD"))
    assert (git(checkout, "status", "--porcelain", "-uall"), git(checkout, "worktree", "list")) == (
        state
    )
    assert len((checkout / ".git" / "index").read_bytes()) == len(index)


def test_a_commit_without_the_agent_is_no_base(checkout: Path) -> None:
    git(checkout, "rm", "--quiet", "-r", PACKAGE)
    git(checkout, "commit", "--quiet", "--message=gone")
    with pytest.raises(UsageError, match="has no agent_core"):
        Repository(checkout, PACKAGE).at(git(checkout, "rev-parse", "HEAD"))


# -- the cache


def test_half_made_folders_are_never_used(
    checkout: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = git(checkout, "rev-parse", "HEAD")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(revisions, "_unpack", full)
        with pytest.raises(CannotMeasure, match=r"No space left.*XDG_CACHE_HOME"):
            around(checkout).at(sha)
    assert list(cache.iterdir()) == []
    assert (around(checkout).at(sha).folder / PACKAGE / "build.py").is_file()


def test_two_benches_at_once_share_one_folder(checkout: Path, cache: Path) -> None:
    sha = git(checkout, "rev-parse", "HEAD")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: str(around(checkout).at(sha).folder), range(8)))
    assert found == {str(path) for path in cache.iterdir()}
    assert len(found) == 1


def test_what_was_not_used_for_long_is_removed(checkout: Path, cache: Path) -> None:
    old = around(checkout).at(git(checkout, "rev-parse", "HEAD")).folder
    os.utime(old, (0, 0))
    (checkout / PACKAGE / "extra.py").write_text("")
    new = around(checkout).head().folder
    assert list(cache.iterdir()) == [new]


def test_what_a_run_is_about_to_use_is_not_removed(checkout: Path, cache: Path) -> None:
    sha = git(checkout, "rev-parse", "HEAD")
    os.utime(around(checkout).at(sha).folder, (0, 0))
    (checkout / PACKAGE / "extra.py").write_text("")
    base, head = around(checkout).at(sha), around(checkout).head()
    assert set(cache.iterdir()) == {base.folder, head.folder}


def test_a_cache_that_cannot_be_written_is_named(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(CannotMeasure, match="XDG_CACHE_HOME"):
        around(checkout).head()


# -- environments


def laid_out(folder: Path, lock: str | None, dependencies: str = "[]") -> Revision:
    (folder / PACKAGE).mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").write_text("")
    text = PROJECT.replace("dependencies = []", f"dependencies = {dependencies}", 1)
    (folder / "pyproject.toml").write_text(text)
    if lock is not None:
        (folder / "constraints.txt").write_text(lock)
    return Revision(folder.name, "0" * 40, False, folder)


@pytest.mark.parametrize(
    ("base_lock", "head_lock", "own"),
    [
        ("a==1\n", "# a comment\na==1  # another\n", False),
        ("a==1\n", "a==2\n", True),
        (None, "a==1\n", True),
        ("a==1\n", None, False),
    ],
)
def test_each_side_gets_an_environment_where_they_declare_different_ones(
    base_lock: str | None,
    head_lock: str | None,
    own: bool,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = (sys.executable, "-m", "venv", "--without-pip", "{prefix}")
    installers = [Installer("venv", make, ("false",))]
    monkeypatch.setattr(revisions, "available", lambda: installers)
    said: list[str] = []
    base, head = laid_out(tmp_path / "base", base_lock), laid_out(tmp_path / "head", head_lock)
    pythons = interpreters(base, head, PACKAGE, said.append)
    assert bool(said) == own
    assert (pythons == (sys.executable, sys.executable)) == (not own)
    if base_lock is not None and own:
        assert pythons[0] != pythons[1]
    assert len(pythons[0]) == len(pythons[1])
    assert all(os.access(python, os.X_OK) for python in pythons)
    for revision in (base, head):
        assert list((revision.folder / PACKAGE / "__pycache__").glob("*.pyc"))


def test_an_environment_that_cannot_be_made_is_told(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = laid_out(tmp_path / "base", "a==1\n")
    head = laid_out(tmp_path / "head", "a==2\n", '["a"]')
    installers = [Installer("broken 1.0", ("false",), ("false",))]
    monkeypatch.setattr(revisions, "available", lambda: installers)
    with pytest.raises(CannotMeasure, match=r"cannot be made: broken 1\.0: exit status 1"):
        interpreters(base, head, PACKAGE, lambda text: None)
    monkeypatch.setattr(revisions, "available", list)
    with pytest.raises(CannotMeasure, match="neither uv nor pip"):
        interpreters(base, head, PACKAGE, lambda text: None)


def test_a_broken_declaration_is_named(tmp_path: Path, cache: Path) -> None:
    base, head = laid_out(tmp_path / "base", None), laid_out(tmp_path / "head", None)
    (base.folder / "pyproject.toml").write_text("[project")
    with pytest.raises(CannotMeasure, match=r"base/pyproject\.toml"):
        interpreters(base, head, PACKAGE, lambda text: None)
