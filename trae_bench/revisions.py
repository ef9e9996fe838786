"""Revisions of the subject: which commit is meant, and its files laid out so that they can run.

Git's own state is left alone: a commit is unpacked from `git archive` into the user's cache,
under its name, and what has not been committed is copied there as it is. All of them lie at
paths of one length, with their byte-code made beforehand, so that neither side of a pair
starts with an advantage. The folders may be removed at any time but during a run.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib import metadata
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from msgspec import Struct

from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.installs import NotMade, Workshop, available, cache_folder, sweep, used

if TYPE_CHECKING:
    from trae_bench.requirements import Requirement

CONSTRAINTS = "constraints.txt"
PROJECT = "pyproject.toml"
NAME_LENGTH = 12
"""Hexadecimal digits of a revision's name."""
BRANCHES = ("origin/main", "main", "origin/master", "master")
"""Default branches where git does not know the remote's."""
_GIT_SECONDS = 120.0
_COMPILE_SECONDS = 120.0


class Revision(Struct, frozen=True):
    """One state of the subject, laid out."""

    name: str
    """The first digits of its commit, or of a digest of its files where they differ from that."""
    commit: str
    changed: bool
    """It has changes that are not committed."""
    folder: Path


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
        listed = self._must("ls-tree", "-z", "--name-only", commit, "--", *self._paths)
        there = [os.fsdecode(name) for name in listed.split(b"\0") if name]
        if self._package not in there:
            raise UsageError(f"{commit[:NAME_LENGTH]} has no {self._package} to compare with")

        def fill(folder: Path) -> str:
            archive = self._must("archive", "--format=tar", commit, "--", *there)
            _unpack(archive, folder)
            return commit[:NAME_LENGTH]

        place = _revisions() / commit[:NAME_LENGTH]
        # At once, for the making of the other revision sweeps the cache.
        used(place)
        return Revision(place.name, commit, False, place if place.is_dir() else _made(fill))

    def head(self) -> Revision:
        """The subject as it lies in the working tree: tracked files, and new ones not ignored."""
        commit = self.commit("HEAD")
        status = self._must("status", "--porcelain", "-z", "-uall", "--", *self._paths)
        if not status:
            return self.at(commit)
        place = _made(self._copy)
        return Revision(place.name, commit, True, place)

    def _copy(self, folder: Path) -> str:
        """Its name comes from what was copied, for a file may change in between."""
        listed = self._must(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *self._paths
        )
        found = hashlib.sha256()
        for name in sorted(set(listed.split(b"\0")) - {b""}):
            source, target = self.top / os.fsdecode(name), folder / os.fsdecode(name)
            if not (source.is_file() or source.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
            content = os.fsencode(target.readlink()) if target.is_symlink() else target.read_bytes()
            runs = os.access(target, os.X_OK)
            found.update(b"%d %d %d %s" % (len(name), len(content), runs, name) + content)
        return found.hexdigest()[:NAME_LENGTH]

    def _git(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        return _run("git", "-C", str(self.top), "--no-optional-locks", *arguments)

    def _must(self, *arguments: str) -> bytes:
        done = self._git(*arguments)
        if done.returncode:
            raise CannotMeasure(f"git {arguments[0]} in {self.top}: {_said(done)}")
        return done.stdout


def _run(*argv: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(f"{argv[0]} does not run: {error}") from error


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


def _unpack(archive: bytes, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=BytesIO(archive), mode="r:") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise CannotMeasure(f"a commit cannot be unpacked: {error}") from error


# -- the cache --------------------------------------------------------------------------


def _revisions() -> Path:
    return cache_folder().with_name("revisions")


def _made(fill: Callable[[Path], str]) -> Path:
    """A folder that `fill` has filled, under the name that it gives; whole or not at all."""
    folder = _revisions()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with TemporaryDirectory(dir=folder, prefix="making-") as scratch:
            part = Path(scratch, "revision")
            part.mkdir()
            place = folder / fill(part)
            # Another bench may have been faster; then its folder is as good.
            with suppress(OSError):
                part.rename(place)
        if not place.is_dir():
            raise CannotMeasure(f"{place} cannot be made; name another folder with XDG_CACHE_HOME")
    except OSError as error:
        raise CannotMeasure(f"{error}; name another folder with XDG_CACHE_HOME") from error
    return place


# -- what they run in -------------------------------------------------------------------


def interpreters(
    base: Revision, head: Revision, package: str, say: Callable[[str], None]
) -> tuple[str, str]:
    """The Python of each side; byte-code is made for it. Raises `CannotMeasure`.

    It is the one that runs this, unless the two declare different dependencies and head locks
    its own: then each side gets an environment of its own, and both are made in the same way.
    """
    pythons = (sys.executable, sys.executable)
    if _declared(base.folder) != _declared(head.folder) and (head.folder / CONSTRAINTS).is_file():
        pythons = _own_environments(base, head, package, say)
    for python, revision in zip(pythons, (base, head), strict=True):
        used(revision.folder)
        _compile(python, revision.folder)
    return pythons


def _declared(folder: Path) -> tuple[object, ...]:
    import tomllib

    try:
        project = tomllib.loads((folder / PROJECT).read_text("utf-8")).get("project", {})
    except FileNotFoundError:
        project = {}
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"{folder / PROJECT}: {error}") from error
    tables = (project.get("dependencies", []), project.get("optional-dependencies", {}))
    return *tables, tuple(_locked(folder))


def _locked(folder: Path) -> Iterator[str]:
    """Lines of the lock, without comments."""
    with suppress(FileNotFoundError):
        for line in (folder / CONSTRAINTS).read_text("utf-8").splitlines():
            if text := line.partition("#")[0].strip():
                yield text


def _own_environments(
    base: Revision, head: Revision, package: str, say: Callable[[str], None]
) -> tuple[str, str]:
    say("base and head declare different dependencies: each gets an environment of its own")
    problems = []
    for installer in available():
        try:
            pythons = []
            for revision in (base, head):
                lock = revision.folder / CONSTRAINTS
                # A base without a lock gets head's versions of what it asks for.
                lock = lock if lock.is_file() else head.folder / CONSTRAINTS
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


def _requirements(package: Path) -> "tuple[Requirement, ...]":
    """What a revision declares, with those of its extras that are installed here."""
    from trae_bench.requirements import declared, needed

    of = declared(package)
    always = set(needed((), of))
    extras = [extra for extra in of.extras if _all_here(set(needed((extra,), of)) - always)]
    return needed(extras, of)


def _all_here(asked: "Collection[Requirement]") -> bool:
    try:
        for one in asked:
            metadata.distribution(one.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _compile(python: str, folder: Path) -> None:
    """Whatever does not compile will be told by the trial that imports it."""
    command = [python, "-I", "-m", "compileall", "-qq", str(folder)]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMPILE_SECONDS,
            check=False,
        )
