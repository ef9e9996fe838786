"""Checkouts of revisions do not change the state of git."""

import importlib.util
import marshal
import os
import py_compile
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trae_bench.mutations import HEADS, commit, git, repository
from trae_bench._util.code_version import code_state
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.subject import revisions
from trae_bench.subject.install.environments import Installer
from trae_bench.subject.revisions import NAME_LENGTH, Repository, Revision, with_interpreters

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


# -- commits


@pytest.mark.parametrize("name", ["^HEAD", "^main"])
def test_an_excluded_commit_is_no_commit(name: str, checkout: Path) -> None:
    with pytest.raises(UsageError, match="no commit"):
        around(checkout).commit(name)


def test_the_default_base_is_the_merge_base(checkout: Path) -> None:
    fork = git(checkout, "rev-parse", "HEAD")
    git(checkout, "checkout", "--quiet", "-b", "work")
    commit(checkout, "mine")
    git(checkout, "checkout", "--quiet", "main")
    commit(checkout, "theirs")
    git(checkout, "checkout", "--quiet", "work")
    assert around(checkout / PACKAGE).merge_base() == (fork, "main")
    assert around(checkout).commit("main") != fork
    assert around(checkout).commit("main~1") == fork


def test_the_remotes_default_branch_may_have_any_name(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "branch", "--move", "trunk")
    git(tmp_path, "clone", "--quiet", str(checkout), "clone")
    clone = tmp_path / "clone"
    assert around(clone).merge_base()[1] == "origin/trunk"
    git(clone, "remote", "set-head", "origin", "--delete")
    git(clone, "branch", "--move", "other")
    with pytest.raises(UsageError, match="no default branch found") as found:
        around(clone).merge_base()
    assert "default-branch" in str(found.value)
    assert around(clone).merge_base("trunk")[1] == "origin/trunk"
    with pytest.raises(UsageError, match=r"no default branch found \(tried origin/gone, gone\)"):
        around(clone).merge_base("gone")


def test_the_error_for_a_shallow_clone_gives_the_remedy(checkout: Path, tmp_path: Path) -> None:
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


def test_unrelated_histories_have_no_base(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "--orphan", "stranger")
    commit(checkout, "another beginning")
    with pytest.raises(UsageError, match="no common commit"):
        around(checkout).merge_base()


@pytest.mark.parametrize("name", ["", "--all", "-q", "HEAD:agent_core", "a b", "\n"])
def test_an_unknown_commit_is_refused(name: str, checkout: Path) -> None:
    with pytest.raises(UsageError, match="no commit"):
        around(checkout).commit(name)


# -- files


def test_checkouts_have_paths_of_equal_length(checkout: Path, cache: Path) -> None:
    before = files(checkout / PACKAGE)
    base = around(checkout).at(git(checkout, "rev-parse", "HEAD"))
    HEADS["an import"](checkout)
    head = around(checkout).head()
    assert (base.modified, head.modified) == (False, True)
    assert base.commit == head.commit
    assert base.folder.parent == head.folder.parent == cache
    assert len(base.folder.name) == len(head.folder.name) == len(base.commit)
    assert len(base.name) == len(head.name) == NAME_LENGTH
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
    assert (head.name, head.modified) == (sha[:NAME_LENGTH], False)


def test_the_working_tree_is_copied_unchanged(checkout: Path) -> None:
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


def test_each_state_has_a_distinct_name(checkout: Path) -> None:
    names = set()
    for text in ("A = 1\n", "A = 2\n", "A = 1\n"):
        (checkout / PACKAGE / "extra.py").write_text(text)
        names.add(around(checkout).head().name)
    (checkout / PACKAGE / "extra.py").rename(checkout / PACKAGE / "other.py")
    names.add(around(checkout).head().name)
    assert len(names) == 3


def test_the_state_of_git_does_not_change(checkout: Path) -> None:
    HEADS["an import"](checkout)
    index = (checkout / ".git" / "index").read_bytes()
    state = git(checkout, "status", "--porcelain", "-uall"), git(checkout, "worktree", "list")
    around(checkout).head()
    around(checkout).at(git(checkout, "rev-parse", "HEAD"))
    assert (git(checkout, "status", "--porcelain", "-uall"), git(checkout, "worktree", "list")) == (
        state
    )
    assert len((checkout / ".git" / "index").read_bytes()) == len(index)


def test_a_commit_without_the_agent_is_refused(checkout: Path) -> None:
    git(checkout, "rm", "--quiet", "-r", PACKAGE)
    git(checkout, "commit", "--quiet", "--message=gone")
    with pytest.raises(UsageError, match="has no agent_core"):
        Repository(checkout, PACKAGE).at(git(checkout, "rev-parse", "HEAD"))


def test_a_commit_is_checked_out_byte_for_byte(checkout: Path) -> None:
    """.gitattributes and filters must not change the files."""
    package = checkout / PACKAGE
    said = "aside.py export-ignore\nid.py ident export-subst\n*.py text eol=crlf filter=other\n"
    (package / ".gitattributes").write_text(said)
    (package / "aside.py").write_text("A = 1\n")
    (package / "id.py").write_text("B = '$Id$ $Format:%H$'\n")
    (package / "tool.py").write_text("C = 1\n")
    (package / "tool.py").chmod(0o755)
    (package / "link.py").symlink_to("tool.py")
    commit(checkout, "attributes")
    git(checkout, "config", "filter.other.smudge", "sed s/1/2/")
    folder = around(checkout).at(git(checkout, "rev-parse", "HEAD")).folder / PACKAGE
    assert (folder / "aside.py").read_bytes() == b"A = 1\n"
    assert (folder / "id.py").read_bytes() == b"B = '$Id$ $Format:%H$'\n"
    assert (folder / "link.py").readlink() == Path("tool.py")
    assert os.access(folder / "tool.py", os.X_OK)
    assert not os.access(folder / "id.py", os.X_OK)


def test_a_link_out_of_the_tree_is_refused(checkout: Path) -> None:
    (checkout / PACKAGE / "out.py").symlink_to("../../outside")
    commit(checkout, "a link")
    with pytest.raises(CannotMeasure, match=r"the link agent_core/out\.py leads out"):
        around(checkout).at(git(checkout, "rev-parse", "HEAD"))


@pytest.mark.parametrize("path", ["/etc/x", "agent_core/../../x", "../x"])
def test_a_path_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(CannotMeasure, match="cannot check out"):
        revisions._Entry.of(f"100644 blob {'0' * 40}\t{path}".encode())


def test_the_variables_of_a_git_hook_are_ignored(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other")
    commit(other, "another")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    found = around(checkout)
    assert found.top == checkout
    assert found.commit("HEAD") == git(checkout, "rev-parse", "HEAD")
    assert code_state(checkout / PACKAGE)["commit"] == git(checkout, "rev-parse", "HEAD")


# -- the cache


def test_the_cache_is_private(checkout: Path, cache: Path) -> None:
    folder = around(checkout).head().folder
    assert cache.stat().st_mode & 0o777 == folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("new", [False, True])
def test_a_changed_checkout_is_refused(checkout: Path, new: bool) -> None:
    if new:
        (checkout / PACKAGE / "extra.py").write_text("")
    folder = around(checkout).head().folder
    (folder / PACKAGE / "__pycache__").mkdir()
    (folder / PACKAGE / "__pycache__" / "build.cpython-311.pyc").write_bytes(b"")
    assert around(checkout).head().folder == folder
    (folder / PACKAGE / "build.py").write_text("import antigravity\n")
    with pytest.raises(CannotMeasure, match=f"{folder} was changed"):
        around(checkout).head()


def test_bytecode_is_compiled_again(tmp_path: Path, cache: Path) -> None:
    base, head = laid_out(tmp_path / "base", None), laid_out(tmp_path / "head", None)
    source = head.folder / PACKAGE / "__init__.py"
    planted = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), str(planted), doraise=True)
    honest = planted.read_bytes()
    planted.write_bytes(honest[:16] + marshal.dumps(compile("import antigravity", "x", "exec")))
    with_interpreters(base, head, PACKAGE, print)
    assert b"antigravity" not in planted.read_bytes()


def test_incomplete_folders_are_never_used(
    checkout: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = git(checkout, "rev-parse", "HEAD")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "_write", full)
        with pytest.raises(CannotMeasure, match=r"No space left.*XDG_CACHE_HOME"):
            around(checkout).at(sha)
    assert list(cache.iterdir()) == []
    assert (around(checkout).at(sha).folder / PACKAGE / "build.py").is_file()


def test_two_concurrent_runs_share_one_checkout(checkout: Path, cache: Path) -> None:
    sha = git(checkout, "rev-parse", "HEAD")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: str(around(checkout).at(sha).folder), range(8)))
    assert found == {str(path) for path in cache.iterdir()}
    assert len(found) == 1


def test_unused_checkouts_are_deleted(checkout: Path, cache: Path) -> None:
    old = around(checkout).at(git(checkout, "rev-parse", "HEAD")).folder
    os.utime(old, (0, 0))
    (checkout / PACKAGE / "extra.py").write_text("")
    new = around(checkout).head().folder
    assert list(cache.iterdir()) == [new]


def test_a_checkout_in_use_is_not_deleted(checkout: Path, cache: Path) -> None:
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
def test_different_dependencies_give_each_side_an_environment(
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
    pair = with_interpreters(base, head, PACKAGE, said.append)
    pythons = tuple(revision.python for revision in pair)
    assert bool(said) == own
    assert (pythons == (sys.executable, sys.executable)) == (not own)
    if base_lock is not None and own:
        assert pythons[0] != pythons[1]
    assert len(pythons[0]) == len(pythons[1])
    assert all(os.access(python, os.X_OK) for python in pythons)
    for revision in (base, head):
        assert list((revision.folder / PACKAGE / "__pycache__").glob("*.pyc"))


def test_an_environment_that_cannot_be_made_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = laid_out(tmp_path / "base", "a==1\n")
    head = laid_out(tmp_path / "head", "a==2\n", '["a"]')
    installers = [Installer("broken 1.0", ("false",), ("false",))]
    monkeypatch.setattr(revisions, "available", lambda: installers)
    with pytest.raises(CannotMeasure, match=r"for the base: broken 1\.0: exit status 1"):
        with_interpreters(base, head, PACKAGE, lambda text: None)
    monkeypatch.setattr(revisions, "available", list)
    with pytest.raises(CannotMeasure, match="neither uv nor pip"):
        with_interpreters(base, head, PACKAGE, lambda text: None)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pyproject.toml", b"[project"),
        ("pyproject.toml", b"project = []"),
        ("pyproject.toml", b"[project]\ndependencies = [1]"),
        ("pyproject.toml", b"a = " + b"[" * 5000),
        ("pyproject.toml", PROJECT.replace("[]", '["???"]', 1).encode()),
        ("pyproject.toml", PROJECT.replace("[]", '["a; b"]', 1).encode()),
        ("constraints.txt", b"a==1 # \xff"),
    ],
)
def test_an_invalid_declaration_is_an_error(
    tmp_path: Path, cache: Path, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "available", lambda: [Installer("none", ("true",), ("true",))])
    base, head = laid_out(tmp_path / "base", None), laid_out(tmp_path / "head", "a==1\n")
    (base.folder / name).write_bytes(data)
    with pytest.raises(CannotMeasure, match=r"base/(pyproject|constraints)|^a: 'b'"):
        with_interpreters(base, head, PACKAGE, lambda text: None)


@pytest.mark.parametrize(
    ("lock", "dependencies", "said"),
    [
        ("a==1\n", '["evil @ file:///evil"]', "must be a version from an index"),
        ("evil @ file:///evil\n", "[]", "is not a pinned version"),
        ("  --no-binary :all:\n", "[]", "is not a pinned version"),
        ("a==1\n-r more.txt\n", "[]", "is not a pinned version"),
    ],
)
def test_a_revision_is_never_built(
    lock: str,
    dependencies: str,
    said: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "ran"
    monkeypatch.setattr(
        revisions, "available", lambda: [Installer("x", ("touch", str(run)), ("touch", str(run)))]
    )
    base = laid_out(tmp_path / "base", lock, dependencies)
    head = laid_out(tmp_path / "head", "a==2 # not @ an address\n")
    with pytest.raises(CannotMeasure, match=said):
        with_interpreters(base, head, PACKAGE, lambda text: None)
    assert not run.exists()
