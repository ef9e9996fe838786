"""Checks out revisions of the subject so that they can run.

Git's own state is not changed here; `notes` changes a ref of its own. The files of a commit are
written to the user's cache exactly as committed, and the working tree is copied. All checkouts have
paths of one length and compiled byte-code, so that neither side of a pair has an advantage. The
folders may be deleted at any time except during a run.

Code of a revision is not run here, and the content of the cache is verified before use.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util import bounded_io
from trae_bench._util.child_env import environment, outside_hooks
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.model.run import RevisionId
from trae_bench.subject.install.environments import (
    EnvironmentBuilder,
    NotMade,
    available,
    cache_folder,
    making_in,
    used,
)

if TYPE_CHECKING:
    from trae_bench.subject.install.requirements import Project, Requirement

CONSTRAINTS = "constraints.txt"
PROJECT = "pyproject.toml"
NAME_LENGTH = 12
"""Length of a revision's name in hexadecimal digits."""
BRANCHES = ("origin/main", "main", "origin/master", "master")
"""Default branches to try if git does not know that of the remote."""
_GIT_SECONDS = 120.0
_COMPILE_SECONDS = 120.0
_MAX_HEADER = 200
"""Maximum bytes of the header that `git cat-file` prints before a file's content."""
_LINK, _EXECUTABLE, _SUBMODULE = "120000", "100755", "160000"
"""File modes in git trees."""
_COMMENT = re.compile(r"(^|\s)#.*")
"""Comments in a lock file, as pip defines them."""


class Revision(RevisionId, frozen=True):
    """One revision of the subject, checked out into a folder."""

    folder: Path
    python: str = sys.executable
    """The interpreter that runs it; see `with_interpreters`."""


class _Entry(Struct, frozen=True):
    """A file, link or submodule in a commit."""

    mode: str
    blob: str
    path: PurePosixPath

    @classmethod
    def of(cls, line: bytes) -> "_Entry":
        """Parse a line of `git ls-tree`. Raises `CannotMeasure` if its path leads out of the tree.

        Git does not write such paths, but a crafted object may have one.
        """
        fields, _, name = os.fsdecode(line).partition("\t")
        mode, _, blob = fields.split()
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise CannotMeasure(f"cannot check out a commit: it has a file at {name!r}")
        return cls(mode, blob, path)


class Repository:
    """The git repository at `top`, whose folder `package` is the subject.

    Without a package, the whole tree is.
    """

    def __init__(self, top: Path, package: str = "") -> None:
        self.top = top
        self.package = package
        self._paths = (package, PROJECT, CONSTRAINTS) if package else (".",)

    @classmethod
    def around(cls, folder: Path, package: str = "") -> "Repository":
        """Return the repository that contains `folder`. Raises `UsageError` if there is none."""
        if shutil.which("git") is None:
            raise UsageError("comparing with a commit needs git: install it")
        done = _run("git", "-C", str(folder), "rev-parse", "--show-toplevel")
        if done.returncode:
            raise UsageError(
                f"{folder} is not in a readable git repository ({error_of(done)}); change to the "
                "checkout whose commits you want to compare"
            )
        top = Path(os.fsdecode(done.stdout).rstrip("\n"))
        if package and not (top / package / "__init__.py").is_file():
            raise UsageError(
                f"{top} has no package {package}; change to a checkout that has it, or name the "
                "agent of this repository with --agent"
            )
        return cls(top, package)

    # -- git

    def git(self, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run git here. Raises `CannotMeasure` if it cannot be started or takes too long."""
        command = ("git", "-C", str(self.top), "--no-optional-locks", *arguments)
        return _run(*command, stdin=stdin)

    def output(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Return the output of git. Raises `CannotMeasure` if it fails."""
        done = self.git(*arguments, stdin=stdin)
        if done.returncode:
            raise CannotMeasure(f"git {arguments[0]} in {self.top}: {error_of(done)}")
        return done.stdout

    # -- commits

    def commit(self, name: str) -> str:
        """Return the commit that a name refers to. Raises `UsageError` if there is none."""
        commit = self._commit(name)
        if commit is None:
            raise UsageError(
                f"no commit {name!r} in {self.top}{self._shallow_hint()}; "
                "`git log --all` lists those that it has"
            )
        return commit

    def between(self, good: str, bad: str) -> list[str]:
        """Return the commits after `good` up to `bad` that change the subject, oldest first.

        Of a merge, only the line of the first parent counts. Raises `UsageError` if `good` is no
        ancestor of `bad`.
        """
        if self.git("merge-base", "--is-ancestor", good, bad).returncode:
            raise UsageError(
                f"{good[:NAME_LENGTH]} is no ancestor of {bad[:NAME_LENGTH]}"
                f"{self._shallow_hint()}; name a good commit that is"
            )
        listed = self.output(
            "rev-list", "--reverse", "--first-parent", f"{good}..{bad}", "--", *self._paths
        )
        return os.fsdecode(listed).split()

    def first_parents(self, tip: str) -> dict[str, str]:
        """Return the commits of a line up to `tip`, oldest first, each with its subject.

        Of a merge, only the line of the first parent counts. Raises `CannotMeasure`.
        """
        listed = self.output(
            *("log", "-z", "--first-parent", "--reverse", "--no-show-signature", "--no-color"),
            *("--no-patch", "--format=%H %s", "--end-of-options", tip, "--"),
        )
        lines = (line.decode(errors="replace") for line in listed.split(b"\0") if line)
        return {line[: (space := line.index(" "))]: line[space + 1 :].strip() for line in lines}

    def subject_of(self, commit: str) -> str:
        """Return the first line of a commit's message."""
        return os.fsdecode(self.output("show", "-s", "--format=%s", commit)).strip()

    def has(self, name: str) -> bool:
        """Return whether a name refers to a commit."""
        return self._commit(name) is not None

    def merge_base(self, branch: str | None = None) -> tuple[str, str]:
        """Return the merge base of HEAD and the default branch, and the branch's name.

        `branch` is the default branch, if it is known. Raises `UsageError`.
        """
        branch = self._default(branch)
        done = self.git("merge-base", "HEAD", branch)
        if done.returncode:
            raise UsageError(
                f"HEAD and {branch} have no common commit{self._shallow_hint()}; name the base "
                "with --compare REF"
            )
        return os.fsdecode(done.stdout).strip(), branch

    def _commit(self, name: str) -> str | None:
        done = self.git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        commit = os.fsdecode(done.stdout).strip()
        # Git answers `^HASH` for `^NAME`, which excludes a commit and names none.
        return None if done.returncode or commit.startswith("^") else commit

    def default_branch(self) -> str | None:
        """Return the default branch that git names, or the usual one that exists."""
        return next(filter(self.has, self._usual_branches()), None)

    def _usual_branches(self) -> tuple[str, ...]:
        done = self.git("rev-parse", "--abbrev-ref", "--verify", "--quiet", "origin/HEAD")
        remote = () if done.returncode else (os.fsdecode(done.stdout).strip(),)
        return (*remote, *BRANCHES)

    def _default(self, branch: str | None) -> str:
        names = self._usual_branches() if branch is None else (f"origin/{branch}", branch)
        for name in names:
            if self.has(name):
                return name
        raise UsageError(
            f"no default branch found (tried {', '.join(names)}){self._shallow_hint()}; name the "
            "commit to compare with (--compare REF), or the branch in pyproject.toml: "
            '[tool.trae-bench] default-branch = "NAME"'
        )

    def _shallow_hint(self) -> str:
        done = self.git("rev-parse", "--is-shallow-repository")
        if done.stdout.strip() != b"true":
            return ""
        return (
            "; this is a shallow clone: fetch its history with `git fetch --unshallow` "
            "(fetch-depth: 0 of actions/checkout, GIT_DEPTH: 0 on GitLab)"
        )

    # -- files

    def text(self, commit: str, path: PurePosixPath) -> str | None:
        """Return the text of a file of a commit; None if it has no such file.

        Raises `UsageError` if it is not UTF-8.
        """
        entries = [entry for entry in self._entries(commit, str(path)) if entry.path == path]
        if not entries or entries[0].mode in (_LINK, _SUBMODULE):
            return None
        try:
            return next(self.blobs([entries[0].blob])).decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{commit[:NAME_LENGTH]}:{path}: not UTF-8") from error

    def extract(self, commit: str, path: PurePosixPath, folder: Path) -> None:
        """Write a file or folder of a commit below `folder`; nothing if the commit lacks it."""
        self._write(self._entries(commit, str(path)), folder)

    def _entries(self, commit: str, *paths: str) -> list[_Entry]:
        listed = self.output("ls-tree", "-r", "-z", commit, "--", *paths)
        return [_Entry.of(line) for line in listed.split(b"\0") if line]

    def at(self, commit: str) -> Revision:
        """Check out the subject of a commit. Raises `UsageError` if the commit has none."""
        entries = self._entries(commit, *self._paths)
        if self.package and all(entry.path.parts[0] != self.package for entry in entries):
            raise UsageError(f"{commit[:NAME_LENGTH]} has no {self.package} to compare with")

        def fill(folder: Path) -> str:
            self._write(entries, folder)
            return commit

        return Revision(commit[:NAME_LENGTH], commit, False, _cached(fill))

    def head(self) -> Revision:
        """Check out the working tree: tracked files, and new files that are not ignored."""
        commit = self.commit("HEAD")
        status = self.output("status", "--porcelain", "-z", "-uall", "--", *self._paths)
        if not status:
            return self.at(commit)

        def fill(folder: Path) -> str:
            self._copy(folder)
            # The digest of the copy, because the original may change meanwhile.
            return _digest(folder)[: len(commit)]

        place = _cached(fill)
        return Revision(place.name[:NAME_LENGTH], commit, True, place)

    def _write(self, entries: Sequence[_Entry], folder: Path) -> None:
        """Write the committed bytes of each entry. Submodules are left out.

        `git archive` would apply .gitattributes and filters, and so change the files.
        """
        kept = [entry for entry in entries if entry.mode != _SUBMODULE]
        # Links come last, so that no file is written through a link.
        kept.sort(key=lambda entry: entry.mode == _LINK)
        blobs = self.blobs([entry.blob for entry in kept])
        for entry, content in zip(kept, blobs, strict=True):
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
                raise CannotMeasure(f"cannot check out a commit: the link {entry.path} leads out")

    def blobs(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the content of each object. Raises `CannotMeasure` if one is missing."""
        output = self.output("cat-file", "--batch", stdin="".join(f"{n}\n" for n in names).encode())
        position = 0
        for _ in names:
            header, _, _ = output[position : position + _MAX_HEADER].partition(b"\n")
            start = position + len(header) + 1
            try:
                size = int(header.split()[2])
            except (IndexError, ValueError) as error:
                raise CannotMeasure(f"git cat-file in {self.top}: {os.fsdecode(header)}") from error
            yield output[start : start + size]
            position = start + size + 1

    def _copy(self, folder: Path) -> None:
        listed = self.output(
            "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *self._paths
        )
        for name in sorted(set(listed.split(b"\0")) - {b""}):
            source, target = self.top / os.fsdecode(name), folder / os.fsdecode(name)
            if not (source.is_file() or source.is_symlink()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _run(*argv: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            argv,
            input=stdin,
            env=outside_hooks(),
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise CannotMeasure(f"cannot run {argv[0]}: {error}") from error


def error_of(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return the first line that git wrote to stderr."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


def _revisions() -> Path:
    return cache_folder().with_name("revisions")


def _cached(fill: Callable[[Path], str]) -> Path:
    """Return a cached folder with the files that `fill` writes. `fill` returns the folder's name.

    The folder appears atomically. Raises `CannotMeasure`, also if its content was changed.
    """
    folder = _revisions()
    try:
        with making_in(folder) as scratch:
            part = scratch / "revision"
            part.mkdir(mode=0o700)
            place, written = folder / fill(part), _digest(part)
            # Another run may have created it already.
            with suppress(OSError):
                part.rename(place)
        # At once, because checking out the other revision sweeps the cache.
        used(place)
        if not place.is_dir():
            raise CannotMeasure(f"cannot create {place}; set XDG_CACHE_HOME to another folder")
        if _digest(place) != written:
            raise CannotMeasure(f"{place} was changed after the checkout; remove it")
    except OSError as error:
        raise CannotMeasure(f"{error}; set XDG_CACHE_HOME to another folder") from error
    return place


def _digest(folder: Path) -> str:
    """Return the digest of all files and links except byte-code, which each run compiles."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if "__pycache__" in relative.parts or (path.is_dir() and not path.is_symlink()):
            continue
        link = path.is_symlink()
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        executable, name = os.access(path, os.X_OK), os.fsencode(relative)
        header = b"%d %d %d %d %s" % (len(name), len(content), link, executable, name)
        digest.update(header + content)
    return digest.hexdigest()


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


def same_code(base: Revision, head: Revision, package: str) -> bool:
    """Whether two revisions have the same package and the same dependencies.

    Raises `CannotMeasure` if a pyproject.toml is invalid.
    """
    folders = base.folder, head.folder
    (a, b), (of_a, of_b) = (map(_digest, (f / package for f in folders)), map(_declared, folders))
    return a == b and of_a == of_b


def same_files(base: Revision, head: Revision) -> bool:
    """Whether two revisions have the same files."""
    return _digest(base.folder) == _digest(head.folder)


def require_python(revision: Revision, side: str) -> None:
    """Raises `CannotMeasure` if a revision does not support the running version of Python."""
    from trae_bench.subject.install.requirements import allows_python

    required, running = _project(revision.folder).python, platform.python_version()
    try:
        allowed = allows_python(required)
    except ValueError as error:
        raise CannotMeasure(f"{side}: {PROJECT}: {error}") from error
    if not allowed:
        raise CannotMeasure(
            f"{side} requires Python {required} (requires-python in its {PROJECT}), but Python "
            f"{running} is running; run trae-bench with a version that both sides support"
        )


def _project(folder: Path) -> "Project":
    from trae_bench.subject.install.requirements import Project, project_of

    try:
        return project_of(folder / PROJECT)
    except FileNotFoundError:
        return Project()
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"{folder / PROJECT}: {error}") from error


def _declared(folder: Path) -> tuple[object, ...]:
    project = _project(folder)
    return project.dependencies, project.extras, _locked(folder)


def _locked(folder: Path) -> tuple[str, ...]:
    """Return the lines of the lock file without comments. Raises `CannotMeasure`."""
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
    say("base and head declare different dependencies: each gets its own environment")
    problems = []
    for installer in available():
        try:
            pythons = []
            for revision in (base, head):
                # A base without a lock file gets the versions of head.
                lock = _plain_lock(revision.folder) or _plain_lock(head.folder)
                builder = EnvironmentBuilder(installer, say, cache_folder(), lock)
                made = builder.environment(_requirements(revision.folder / package))
                pythons.append(str(made / "bin" / "python"))
            return pythons[0], pythons[1]
        except NotMade as error:
            problems.append(f"{installer.name}: {error}")
    raise CannotMeasure(
        "cannot make an environment for the base: "
        + "\n".join(problems or ["neither uv nor pip is installed"])
    )


def _plain_lock(folder: Path) -> Path | None:
    """Return the lock file, if there is one. Raises `CannotMeasure` if it has options or URLs.

    They would let an installer run untrusted code.
    """
    file = folder / CONSTRAINTS
    for line in _locked(folder):
        if "@" in line or (line.startswith("-") and not line.startswith("--hash=")):
            raise CannotMeasure(
                f"{file}: {line!r} is not a pinned version; only versions are allowed here"
            )
    return file if file.is_file() else None


def _requirements(package: Path) -> "tuple[Requirement, ...]":
    """Return the requirements of a revision, with those extras that are installed here.

    Raises `CannotMeasure`, also for a requirement by URL: building it would run its code.
    """
    from trae_bench.subject.install.requirements import declared, needed

    project = declared(package)
    always = set(needed((), project))
    extras = [
        extra for extra in project.extras if _all_installed(set(needed((extra,), project)) - always)
    ]
    requirements = needed(extras, project)
    for requirement in requirements:
        if requirement.version.startswith("@"):
            raise CannotMeasure(
                f"{package.with_name(PROJECT)}: {requirement}: must be a version from an index"
            )
    return requirements


def _all_installed(requirements: "Collection[Requirement]") -> bool:
    try:
        for requirement in requirements:
            metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _compile(python: str, folder: Path) -> None:
    """Compile all modules again, because cached byte-code may belong to another source.

    A module that does not compile fails the trial that imports it. `-S` keeps installed .pth
    files from running outside a trial.
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
