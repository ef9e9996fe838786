"""Revisions of the subject: which commit is meant, and its files laid out so that they can run.

Git's own state is left alone: the files of a commit are written into the user's cache as they
were committed, and what has not been committed is copied there as it is. All of them lie at
paths of one length, with their byte-code made beforehand, so that neither side of a pair
starts with an advantage. The folders may be removed at any time but during a run.

Nothing of a revision is run here, and what is found in the cache is not taken on trust.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util import bounded_io
from trae_bench._util.child_env import environment, outside_hooks
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.model.run import RevisionId
from trae_bench.subject.install.environments import (
    NotMade,
    Workshop,
    available,
    cache_folder,
    sweep,
    used,
)

if TYPE_CHECKING:
    from trae_bench.subject.install.requirements import Requirement

CONSTRAINTS = "constraints.txt"
PROJECT = "pyproject.toml"
NAME_LENGTH = 12
"""Hexadecimal digits of a revision's name."""
BRANCHES = ("origin/main", "main", "origin/master", "master")
"""Default branches where git does not know the remote's."""
_GIT_SECONDS = 120.0
_COMPILE_SECONDS = 120.0
_MAX_HEAD = 200
"""Bytes of what `git cat-file` says before a file's content."""
_LINK, _EXECUTABLE, _SUBMODULE = "120000", "100755", "160000"
"""Modes of git's entries."""
_COMMENT = re.compile(r"(^|\s)#.*")
"""In a lock, as pip has it."""


class Revision(RevisionId, frozen=True):
    """One revision of the subject, checked out into a folder."""

    folder: Path
    python: str = sys.executable
    """The interpreter that runs it; see `with_interpreters`."""


class _Entry(Struct, frozen=True):
    """A file or link of a commit."""

    mode: str
    blob: str
    path: PurePosixPath

    @classmethod
    def of(cls, line: bytes) -> "_Entry":
        """From a line of `git ls-tree`. Raises `CannotMeasure` for a path that no git would write:
        a stranger's object may have one."""
        said, _, name = os.fsdecode(line).partition("\t")
        mode, _, blob = said.split()
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise CannotMeasure(f"a commit cannot be laid out: it has a file at {name!r}")
        return cls(mode, blob, path)


class Repository:
    """The git repository of `top`, whose folder `package` is the subject."""

    def __init__(self, top: Path, package: str) -> None:
        self.top = top
        self._package = package
        self._paths = (package, PROJECT, CONSTRAINTS)

    @classmethod
    def around(cls, folder: Path, package: str) -> "Repository":
        """The one that `folder` lies in. Raises `UsageError` where there is none."""
        if shutil.which("git") is None:
            raise UsageError("comparing with a commit takes git, which is not installed")
        done = _run("git", "-C", str(folder), "rev-parse", "--show-toplevel")
        if done.returncode:
            raise UsageError(
                f"{folder} is in no git repository that can be read ({_said(done)}); change to the "
                "checkout whose commits are to be compared"
            )
        top = Path(os.fsdecode(done.stdout).rstrip("\n"))
        if not (top / package / "__init__.py").is_file():
            raise UsageError(f"{top} has no package {package}; change to a checkout that has it")
        return cls(top, package)

    # -- names

    def commit(self, asked: str) -> str:
        """The commit that a name stands for. Raises `UsageError`."""
        found = self._commit(asked)
        if found is None:
            raise UsageError(f"no commit {asked!r} in {self.top}{self._if_shallow()}")
        return found

    def has(self, asked: str) -> bool:
        return self._commit(asked) is not None

    def merge_base(self, branch: str | None = None) -> tuple[str, str]:
        """Where HEAD left the default branch: the commit, and the branch's name.

        `branch` is the default one, if it is known. Raises `UsageError`.
        """
        branch = self._default(branch)
        done = self._git("merge-base", "HEAD", branch)
        if done.returncode:
            raise UsageError(
                f"HEAD and {branch} have no commit in common{self._if_shallow()}; name the commit "
                "to compare with: --compare REF"
            )
        return os.fsdecode(done.stdout).strip(), branch

    def _commit(self, asked: str) -> str | None:
        done = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{asked}^{{commit}}"
        )
        return None if done.returncode else os.fsdecode(done.stdout).strip()

    def _default(self, branch: str | None) -> str:
        names: tuple[str, ...]
        if branch is not None:
            names = (f"origin/{branch}", branch)
        else:
            done = self._git("rev-parse", "--abbrev-ref", "--verify", "--quiet", "origin/HEAD")
            names = (*([] if done.returncode else [os.fsdecode(done.stdout).strip()]), *BRANCHES)
        for name in names:
            if self.has(name):
                return name
        raise UsageError(
            f"no default branch was found ({', '.join(names)}){self._if_shallow()}; name the "
            "commit to compare with (--compare REF), or the branch in pyproject.toml: "
            '[tool.trae-bench] default-branch = "NAME"'
        )

    def _if_shallow(self) -> str:
        done = self._git("rev-parse", "--is-shallow-repository")
        if done.stdout.strip() != b"true":
            return ""
        return (
            "; this is a shallow clone: get the rest with `git fetch --unshallow` "
            "(fetch-depth: 0 of actions/checkout, GIT_DEPTH: 0 on GitLab)"
        )

    # -- files

    def at(self, commit: str) -> Revision:
        """The subject as it was committed. Raises `UsageError` where it was not there yet."""
        listed = self._must("ls-tree", "-r", "-z", commit, "--", *self._paths)
        entries = [_Entry.of(line) for line in listed.split(b"\0") if line]
        if all(entry.path.parts[0] != self._package for entry in entries):
            raise UsageError(f"{commit[:NAME_LENGTH]} has no {self._package} to compare with")

        def fill(folder: Path) -> str:
            self._write(entries, folder)
            return commit

        return Revision(commit[:NAME_LENGTH], commit, False, _made(fill))

    def head(self) -> Revision:
        """The subject as it lies in the working tree: tracked files, and new ones not ignored."""
        commit = self.commit("HEAD")
        status = self._must("status", "--porcelain", "-z", "-uall", "--", *self._paths)
        if not status:
            return self.at(commit)

        def fill(folder: Path) -> str:
            self._copy(folder)
            # Of what was copied, for a file may change in between.
            return _digest(folder)[: len(commit)]

        place = _made(fill)
        return Revision(place.name[:NAME_LENGTH], commit, True, place)

    def _write(self, entries: Sequence[_Entry], folder: Path) -> None:
        """Byte for byte: `git archive` would do what .gitattributes and filters say, and lay out
        something else than what was committed. Submodules are left out, as in a copy."""
        kept = [entry for entry in entries if entry.mode != _SUBMODULE]
        # Links come last, so that nothing is written through one.
        kept.sort(key=lambda entry: entry.mode == _LINK)
        for entry, content in zip(kept, self._blobs(kept), strict=True):
            place = folder / entry.path
            place.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == _LINK:
                place.symlink_to(os.fsdecode(content))
                continue
            place.write_bytes(content)
            if entry.mode == _EXECUTABLE:
                place.chmod(0o755)
        top = Path(os.path.realpath(folder))
        for entry in kept:
            if not Path(os.path.realpath(folder / entry.path)).is_relative_to(top):
                raise CannotMeasure(f"a commit cannot be laid out: the link {entry.path} leads out")

    def _blobs(self, entries: Sequence[_Entry]) -> Iterator[bytes]:
        names = "".join(f"{entry.blob}\n" for entry in entries).encode()
        said = self._must("cat-file", "--batch", given=names)
        at = 0
        for entry in entries:
            head, _, _ = said[at : at + _MAX_HEAD].partition(b"\n")
            start = at + len(head) + 1
            try:
                size = int(head.split()[2])
            except (IndexError, ValueError) as error:
                raise CannotMeasure(
                    f"git cat-file in {self.top}: {entry.path}: {os.fsdecode(head)}"
                ) from error
            yield said[start : start + size]
            at = start + size + 1

    def _copy(self, folder: Path) -> None:
        listed = self._must(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *self._paths
        )
        for name in sorted(set(listed.split(b"\0")) - {b""}):
            source, target = self.top / os.fsdecode(name), folder / os.fsdecode(name)
            if not (source.is_file() or source.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)

    def _git(self, *arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = ("git", "-C", str(self.top), "--no-optional-locks", *arguments)
        return _run(*command, given=given)

    def _must(self, *arguments: str, given: bytes = b"") -> bytes:
        done = self._git(*arguments, given=given)
        if done.returncode:
            raise CannotMeasure(f"git {arguments[0]} in {self.top}: {_said(done)}")
        return done.stdout


def _run(*argv: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            argv,
            input=given,
            env=outside_hooks(),
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(f"{argv[0]} does not run: {error}") from error


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


# -- the cache --------------------------------------------------------------------------


def _revisions() -> Path:
    return cache_folder().with_name("revisions")


def _made(fill: Callable[[Path], str]) -> Path:
    """A folder that `fill` has filled, under the name that it gives; whole or not at all.

    Raises `CannotMeasure`, also where something else lies there by now.
    """
    folder = _revisions()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(folder)
        with TemporaryDirectory(dir=folder, prefix="making-") as scratch:
            part = Path(scratch, "revision")
            part.mkdir(mode=0o700)
            place, laid_out = folder / fill(part), _digest(part)
            # An earlier run, or another bench, may have been faster.
            with suppress(OSError):
                part.rename(place)
        # At once, for the making of the other revision sweeps the cache.
        used(place)
        if not place.is_dir():
            raise CannotMeasure(f"{place} cannot be made; name another folder with XDG_CACHE_HOME")
        if _digest(place) != laid_out:
            raise CannotMeasure(f"{place} was changed after it had been laid out; remove it")
    except OSError as error:
        raise CannotMeasure(f"{error}; name another folder with XDG_CACHE_HOME") from error
    return place


def _digest(folder: Path) -> str:
    """Of all that lies there but byte-code, which each run makes anew."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if "__pycache__" in relative.parts or (path.is_dir() and not path.is_symlink()):
            continue
        link = path.is_symlink()
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        runs, name = os.access(path, os.X_OK), os.fsencode(relative)
        found.update(b"%d %d %d %d %s" % (len(name), len(content), link, runs, name) + content)
    return found.hexdigest()


# -- what they run in -------------------------------------------------------------------


def with_interpreters(
    base: Revision, head: Revision, package: str, say: Callable[[str], None]
) -> tuple[Revision, Revision]:
    """Choose the interpreter of each revision, and compile the revision's byte-code with it.

    The interpreter is the one that runs this code, unless the revisions declare different
    dependencies and head has a lock file. Then each revision gets an environment, and both
    environments are made in the same way. Raises `CannotMeasure`.
    """
    pythons = (sys.executable, sys.executable)
    if _declared(base.folder) != _declared(head.folder) and (head.folder / CONSTRAINTS).is_file():
        pythons = _own_environments(base, head, package, say)
    for python, revision in zip(pythons, (base, head), strict=True):
        used(revision.folder)
        _compile(python, revision.folder)
    return replace(base, python=pythons[0]), replace(head, python=pythons[1])


def _declared(folder: Path) -> tuple[object, ...]:
    from trae_bench.subject.install.requirements import Project, project_of

    try:
        project = project_of(folder / PROJECT)
    except FileNotFoundError:
        project = Project()
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"{folder / PROJECT}: {error}") from error
    return project.dependencies, project.extras, _locked(folder)


def _locked(folder: Path) -> tuple[str, ...]:
    """Lines of the lock, without comments. Raises `CannotMeasure`."""
    file = folder / CONSTRAINTS
    try:
        lines = bounded_io.text(file).splitlines()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"{file}: {error}") from error
    bare = (_COMMENT.sub("", line).strip() for line in lines)
    return tuple(line for line in bare if line)


def _own_environments(
    base: Revision, head: Revision, package: str, say: Callable[[str], None]
) -> tuple[str, str]:
    say("base and head declare different dependencies: each gets an environment of its own")
    problems = []
    for installer in available():
        try:
            pythons = []
            for revision in (base, head):
                # A base without a lock gets head's versions of what it asks for.
                lock = _plain_lock(revision.folder) or _plain_lock(head.folder)
                shop = Workshop(installer, say, cache_folder(), lock)
                made = shop.environment(_requirements(revision.folder / package))
                pythons.append(str(made / "bin" / "python"))
            return pythons[0], pythons[1]
        except NotMade as error:
            problems.append(f"{installer.name}: {error}")
    raise CannotMeasure(
        "an environment for the base cannot be made: "
        + "\n".join(problems or ["neither uv nor pip is here"])
    )


def _plain_lock(folder: Path) -> Path | None:
    """The lock, if there is one. Raises `CannotMeasure` where it says more than versions: options
    and addresses would have an installer run what a stranger wrote."""
    file = folder / CONSTRAINTS
    for line in _locked(folder):
        if "@" in line or (line.startswith("-") and not line.startswith("--hash=")):
            raise CannotMeasure(f"{file}: {line!r} is no version; an environment takes no more")
    return file if file.is_file() else None


def _requirements(package: Path) -> "tuple[Requirement, ...]":
    """What a revision declares, with those of its extras that are installed here.

    Raises `CannotMeasure`, also for one by its address: what lies there would be built, and so
    be run.
    """
    from trae_bench.subject.install.requirements import declared, needed

    of = declared(package)
    always = set(needed((), of))
    extras = [extra for extra in of.extras if _all_here(set(needed((extra,), of)) - always)]
    asked = needed(extras, of)
    for one in asked:
        if one.version.startswith("@"):
            raise CannotMeasure(f"{package.with_name(PROJECT)}: {one}: only an index can be asked")
    return asked


def _all_here(asked: "Collection[Requirement]") -> bool:
    try:
        for one in asked:
            metadata.distribution(one.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _compile(python: str, folder: Path) -> None:
    """Anew, for what lies there may be of another source. What does not compile will be told by
    the trial that imports it.

    Without `site`, which would run what was installed (.pth) with more than a trial gets.
    """
    command = [python, "-I", "-S", "-m", "compileall", "-qq", "-f", str(folder)]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=environment(folder),
            capture_output=True,
            timeout=_COMPILE_SECONDS,
            check=False,
        )
