"""Environments to weigh: for each set of extras what the agent needs, installed afresh and kept.

They are made before the first trial, by uv or else pip, with what the user has set for these
(index, proxy, certificates) and the versions of constraints.txt; `inventory.py` weighs them
within the trials. Where they cannot be made, as without a network, the lists are weighed that
the distributions installed here bring along.

An environment lies in the cache under the hash of all that decides what is in it. Its scripts
do not run: it is made under another name, and moved when it is whole. It may be removed at
any time but during a run; what no run has used for `KEPT_DAYS` is removed when another is made.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from trae_bench._util.child_output import last_words
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.subject.install import inventory

if TYPE_CHECKING:
    from trae_bench.subject.install.requirements import Requirement

Extras = tuple[str, ...]

STEP_SECONDS = 300.0
"""That one step of making an environment may take: a slow index, a slow disk."""
_VERSION_SECONDS = 10.0
_HEEDED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|LD_LIBRARY_PATH|NETRC|DBUS_SESSION_BUS_ADDRESS"
    r"|PIP_\w+|UV_(?!PUBLISH)\w+|XDG_\w+|\w*SSL_CERT_\w+|(REQUESTS|CURL)_CA_BUNDLE|\w+_PROXY",
    re.IGNORECASE,
)
"""Settings that an installer, or its way to an index, may need."""
_ASTRAY = frozenset({"PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER"})
"""Settings that would send what is installed to another place."""
_SOME_NOT_COMPILED = 1
"""Exit status of compileall; packages may bring files for other versions of Python."""
_FORMAT = 1
"""Goes up when environments are made in another way, so that old ones are not taken."""
KEPT_DAYS = 30.0
"""Cached folders that no run has used for so long are removed."""


class Installer(Struct, frozen=True):
    """A tool that makes environments; its command lines, with `{prefix}` for the folder."""

    name: str
    """With its version."""
    make: tuple[str, ...]
    fill: tuple[str, ...]
    """`{constraints}` is the file; the requirements are appended."""


class Work(Struct, frozen=True):
    """What a trial counts; see `inventory.py`."""

    prefix: str = ""
    empty: str = ""
    records: tuple[str, ...] = ()


class Installs(Struct, frozen=True):
    """All that a run has to weigh."""

    installer: str = ""
    """Which made the environments; `none` where none could be made."""
    work: dict[Extras, Work] = {}

    @property
    def facts(self) -> dict[str, str]:
        """For the run's header."""
        return {"installer": self.installer} if self.installer else {}

    def command(self, extras: Extras, home: Path, report_fd: int) -> tuple[str, ...]:
        """Of a process that weighs what these extras need. Puts a file into `home`."""
        if extras not in self.work:
            raise CannotMeasure(f"no environment was made for the extras {', '.join(extras)}")
        errand = msgspec.to_builtins(self.work[extras]) | {"report_fd": report_fd}
        path = home / "work.json"
        path.write_bytes(msgspec.json.encode(errand))
        return (sys.executable, "-I", "-S", inventory.__file__, str(path))


class NotMade(Exception):
    """An environment could not be made, and why."""


def provide(
    wanted: Collection[Extras],
    say: Callable[[str], None],
    *,
    installers: Sequence[Installer] | None = None,
    cache: Path | None = None,
) -> Installs:
    """Environments for these sets of extras, by the first installer that can make them all.

    Where none can, `say` is told why, and the lists are taken that the distributions installed
    here bring along. Raises `CannotMeasure` where some are not installed here, either.
    """
    # Imported here because they cost every start some 30 ms.
    from trae_bench.subject.install.requirements import declared, needed

    own = declared()
    requirements = {extras: needed(extras, own) for extras in wanted}
    problems = []
    for installer in available() if installers is None else installers:
        try:
            made = Workshop(installer, say, cache or cache_folder())
            empty = str(made.environment(()))
            return Installs(
                installer.name,
                {
                    extras: Work(prefix=str(made.environment(asked)), empty=empty)
                    for extras, asked in requirements.items()
                },
            )
        except NotMade as error:
            problems.append(f"{installer.name}: {error}")
    return _installed_here(requirements, say, problems or ["neither uv nor pip is here"])


def _installed_here(
    requirements: dict[Extras, "tuple[Requirement, ...]"],
    say: Callable[[str], None],
    problems: Sequence[str],
) -> Installs:
    why = "no environment could be made to be weighed: " + "\n".join(problems)
    try:
        work = {extras: Work(records=_records(asked)) for extras, asked in requirements.items()}
    except (LookupError, ValueError) as error:
        raise CannotMeasure(
            f"{why}\nnor can the lists of what is installed here be weighed: {error}; make the "
            "package index reachable, or install trae-bench[all-providers] here"
        ) from error
    say(
        f"{why}\nso there is no install_size; closure_size and distributions are of what is "
        "installed here"
    )
    return Installs("none", work)


def _records(asked: "Sequence[Requirement]") -> tuple[str, ...]:
    """The `RECORD` files of all that is installed here because of these requirements."""
    from trae_bench.subject.install.requirements import closure

    found = []
    for name, distribution in sorted(closure(asked).items()):
        record = next((f for f in distribution.files or () if f.match("*.dist-info/RECORD")), None)
        if record is None:
            raise LookupError(f"{name} has no list of its files (RECORD)")
        found.append(str(record.locate()))
    return tuple(found)


def available() -> Iterator[Installer]:
    """Which installers are here, the faster one first."""
    uv = shutil.which("uv")
    if uv and (version := _version_of(uv)):
        options = ("--quiet", "--no-compile-bytecode", "--only-binary", ":all:")
        target = ("--python", "{prefix}/bin/python", "--constraint", "{constraints}")
        yield Installer(
            version,
            (uv, "venv", "--quiet", "--python", sys.executable, "{prefix}"),
            (uv, "pip", "install", *options, *target),
        )
    if find_spec("pip") is not None:
        from importlib.metadata import version as installed_version

        python = (sys.executable, "-I", "-m")
        options = ("--quiet", "--no-compile", "--only-binary", ":all:")
        yield Installer(
            f"pip {installed_version('pip')}",
            (*python, "venv", "--without-pip", "{prefix}"),
            (
                *(*python, "pip", "--python", "{prefix}/bin/python"),
                *("install", *options, "--constraint", "{constraints}"),
            ),
        )


def _version_of(uv: str) -> str:
    """`uv 1.2.3`; empty where it does not run."""
    try:
        done = subprocess.run(
            [uv, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.decode(errors="replace").split()[:2])


def cache_folder() -> Path:
    """Where environments are kept, as the XDG specification has it."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return home / "trae-bench" / "installs"


def used(place: Path) -> None:
    """Note that a run uses this cached folder, so that it is not swept away."""
    # Whose cache is read-only has no sweeps, either.
    with suppress(OSError):
        os.utime(place)


def sweep(folder: Path) -> None:
    """Remove the cached folders that have not been used for long; what cannot be removed does
    no harm."""
    oldest = time.time() - KEPT_DAYS * 86400
    for place in folder.iterdir():
        with suppress(OSError):
            if place.stat().st_mtime < oldest:
                shutil.rmtree(place, ignore_errors=True)


def constraints() -> Path:
    """The versions to install: inside an installed package, beside it in a checkout.

    Raises `CannotMeasure` where they are in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for path in (package / "_constraints.txt", package.parent / "constraints.txt"):
        if path.is_file():
            return path
    raise CannotMeasure(f"no constraints.txt beside {package}; install the package again")


# -- making one -------------------------------------------------------------------------


class Workshop:
    """Makes environments with one installer, and keeps them in a folder.

    `lock` has the versions to install, by default those of this release.
    """

    def __init__(
        self,
        installer: Installer,
        say: Callable[[str], None],
        folder: Path,
        lock: Path | None = None,
    ) -> None:
        self._installer = installer
        self._say = say
        self._folder = folder
        self._constraints = lock or constraints()

    def environment(self, asked: "Sequence[Requirement]") -> Path:
        """The folder of one in which this is installed. Raises `NotMade`."""
        target = self._folder / self._key(asked)
        try:
            if not target.is_dir():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sweep(self._folder)
                with TemporaryDirectory(dir=self._folder, prefix="making-") as scratch:
                    self._make(Path(scratch, "environment"), asked)
                    _move(Path(scratch, "environment"), target)
        except OSError as error:
            raise NotMade(f"{error}; name another folder with XDG_CACHE_HOME") from error
        used(target)
        return target

    def _key(self, asked: "Sequence[Requirement]") -> str:
        """Names of one length, because the length is in what is weighed."""
        decides = (
            *(_FORMAT, self._installer, list(map(str, asked))),
            *(self._constraints.read_text("utf-8"), sys.version, sys.base_prefix),
            sysconfig.get_platform(),
        )
        return hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:32]

    def _make(self, prefix: Path, asked: "Sequence[Requirement]") -> None:
        with closing(LauncherClient()) as launcher:
            self._step(launcher, prefix, self._filled(self._installer.make, prefix))
            if asked:
                self._say(f"{self._installer.name} installs {', '.join(map(str, asked))}")
                argv = (*self._filled(self._installer.fill, prefix), *map(str, asked))
                self._step(launcher, prefix, argv)
            if missing := _missing(prefix, asked):
                raise NotMade(f"{', '.join(missing)} went to another place; look at its settings")
            # The empty one, too: the installer itself may leave modules in both.
            compiled = ("-m", "compileall", "-qq", "-j", "0", "-s", str(prefix), str(prefix))
            argv = (sys.executable, "-I", *compiled)
            self._step(launcher, prefix, argv, may_end=_SOME_NOT_COMPILED)

    def _filled(self, argv: Sequence[str], prefix: Path) -> list[str]:
        return [
            text.replace("{prefix}", str(prefix)).replace("{constraints}", str(self._constraints))
            for text in argv
        ]

    def _step(
        self, launcher: LauncherClient, prefix: Path, argv: Sequence[str], may_end: int = 0
    ) -> None:
        log = prefix.with_name(f"log-{len(list(prefix.parent.iterdir()))}")
        job = Job(argv=tuple(argv), env=_environment(), cwd=str(prefix.parent), log=str(log))
        (ended,) = launcher.run([job], STEP_SECONDS)
        if ended.failure is not None and ended.exit_status != may_end:
            raise NotMade(f"{ended.failure}{last_words(log)}")


def _missing(prefix: Path, asked: "Sequence[Requirement]") -> list[str]:
    """What is not there though the installer was content."""
    from trae_bench.subject.install.requirements import normal

    found = prefix.glob("lib*/python*/site-packages/*.dist-info")
    there = {normal(path.name.partition("-")[0]) for path in found}
    return sorted({one.name for one in asked} - there)


def _environment() -> dict[str, str]:
    """What an installer needs of the user's own: no key of anything else is given to a tool that
    handles what strangers wrote."""
    return {
        name: value
        for name, value in os.environ.items()
        if _HEEDED.fullmatch(name) and name not in _ASTRAY and _is_text(name) and _is_text(value)
    } | {"PIP_NO_INPUT": "1"}


def _is_text(text: str) -> bool:
    return text.encode(errors="replace") == os.fsencode(text)


def _move(made: Path, target: Path) -> None:
    """Into its place at once, unless another bench was faster."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
