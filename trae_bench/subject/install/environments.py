"""Creates and caches environments with the agent's requirements, whose size a trial measures.

uv or pip creates them before the first trial, with the user's installer settings (index, proxy,
certificates) and the versions of constraints.txt. `inventory.py` measures them in the trials. If
no environment can be created, as without a network, the RECORD lists of the distributions
installed here are measured.

The name of a cached environment is the hash of everything that determines its content. It is
created under another name and then moved, so its scripts do not run. It may be deleted at any
time except during a run. Environments that no run has used for `KEPT_DAYS` are deleted when
another is created.
"""

import hashlib
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from trae_bench._util.child_output import last_words, output_of
from trae_bench._util.json_tree import is_utf8
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.subject.install import inventory

if TYPE_CHECKING:
    from trae_bench.subject.install.requirements import Requirement

Extras = tuple[str, ...]

STEP_SECONDS = 300.0
"""Timeout of each step in creating an environment, for slow indexes and disks."""
_VERSION_SECONDS = 10.0
_INSTALLER_SETTINGS = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|LD_LIBRARY_PATH|NETRC|DBUS_SESSION_BUS_ADDRESS"
    r"|PIP_\w+|UV_(?!PUBLISH)\w+|NPM_CONFIG_\w+|XDG_\w+"
    r"|\w*SSL_CERT_\w+|(REQUESTS|CURL)_CA_BUNDLE|NODE_EXTRA_CA_CERTS|\w+_PROXY",
    re.IGNORECASE,
)
"""Environment variables that an installer or its connection to an index may need."""
_TARGET_SETTINGS = frozenset({"PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "PIP_USER"})
"""Settings that would install to another folder."""
_SOME_NOT_COMPILED = 1
"""Exit status of compileall. Packages may contain files for other versions of Python."""
_FORMAT = 1
"""Increased when environments are created differently, so that old ones are not used."""
KEPT_DAYS = 30.0
"""Cached folders that no run has used for this long are deleted."""


class Installer(Struct, frozen=True):
    """The commands of a tool that creates environments. `{prefix}` is the folder."""

    name: str
    """Name and version."""
    make: tuple[str, ...]
    fill: tuple[str, ...]
    """`{constraints}` is the constraints file. The requirements are appended."""


class Work(Struct, frozen=True):
    """What a trial measures; see `inventory.py`."""

    prefix: str = ""
    empty: str = ""
    records: tuple[str, ...] = ()


class Installs(Struct, frozen=True):
    """The environments of a run."""

    installer: str = ""
    """The installer that created the environments. `none` if none could be created."""
    work: dict[Extras, Work] = {}

    @property
    def facts(self) -> dict[str, str]:
        """Facts for the run's header."""
        return {"installer": self.installer} if self.installer else {}

    def command(self, extras: Extras, home: Path, report_fd: int) -> tuple[str, ...]:
        """Return the command that measures the requirements of these extras.

        It creates a file in `home`.
        """
        if extras not in self.work:
            raise CannotMeasure(
                f"no environment for the extras {', '.join(extras)}; start a new run"
            )
        work = msgspec.to_builtins(self.work[extras]) | {"report_fd": report_fd}
        path = home / "work.json"
        path.write_bytes(msgspec.json.encode(work))
        return (sys.executable, "-I", "-S", inventory.__file__, str(path))


class NotMade(Exception):
    """An environment cannot be created. The message gives the reason."""


def provide(
    wanted: Collection[Extras],
    say: Callable[[str], None],
    *,
    installers: Sequence[Installer] | None = None,
    cache: Path | None = None,
) -> Installs:
    """Create an environment for each set of extras, with the first installer that can.

    If none can, pass the reason to `say` and use the RECORD lists of the distributions installed
    here. Raises `CannotMeasure` if some of these are not installed.
    """
    # Imported here because the import takes about 30 ms.
    from trae_bench.subject.install.requirements import declared, needed

    own = declared()
    requirements = {extras: needed(extras, own) for extras in wanted}
    problems = []
    for installer in available() if installers is None else installers:
        try:
            builder = EnvironmentBuilder(installer, say, cache or cache_folder())
            empty = str(builder.environment(()))
            return Installs(
                installer.name,
                {
                    extras: Work(prefix=str(builder.environment(needs)), empty=empty)
                    for extras, needs in requirements.items()
                },
            )
        except NotMade as error:
            problems.append(f"{installer.name}: {error}")
    return _installed_here(requirements, say, problems or ["neither uv nor pip is installed"])


def _installed_here(
    requirements: dict[Extras, "tuple[Requirement, ...]"],
    say: Callable[[str], None],
    problems: Sequence[str],
) -> Installs:
    reason = "cannot create an environment to measure: " + "\n".join(problems)
    try:
        work = {extras: Work(records=_records(needs)) for extras, needs in requirements.items()}
    except (LookupError, ValueError) as error:
        raise CannotMeasure(
            f"{reason}\nthe distributions installed here cannot be measured either: {error}; make "
            "the package index reachable, or install trae-bench[all-providers] here"
        ) from error
    say(
        f"{reason}\nso there is no install_size; closure_size and distributions refer to the "
        "distributions installed here"
    )
    return Installs("none", work)


def _records(requirements: "Sequence[Requirement]") -> tuple[str, ...]:
    """Return the RECORD files of these requirements and their dependencies, as installed here."""
    from trae_bench.subject.install.requirements import closure

    records = []
    for name, distribution in sorted(closure(requirements).items()):
        record = next((f for f in distribution.files or () if f.match("*.dist-info/RECORD")), None)
        if record is None:
            raise LookupError(f"{name} has no RECORD file")
        records.append(str(record.locate()))
    return tuple(records)


def available() -> Iterator[Installer]:
    """Yield the installers on this host, the faster one first."""
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
    """Return `uv 1.2.3`. Empty if it does not run."""
    return " ".join(output_of(uv, "--version", seconds=_VERSION_SECONDS).split()[:2])


def cache_folder() -> Path:
    """Return the folder of cached environments, by the XDG Base Directory specification."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(cache) if cache.startswith("/") else Path.home() / ".cache"
    return home / "trae-bench" / "installs"


def used(place: Path) -> None:
    """Mark a cached folder as used by a run, so that `sweep` keeps it."""
    # A read-only cache is never swept.
    with suppress(OSError):
        os.utime(place)


def sweep(folder: Path) -> None:
    """Delete the cached folders that no run has used for `KEPT_DAYS`. Errors are ignored."""
    oldest = time.time() - KEPT_DAYS * 86400
    for place in folder.iterdir():
        with suppress(OSError):
            if place.stat().st_mtime < oldest:
                shutil.rmtree(place, ignore_errors=True)


@contextmanager
def making_in(folder: Path) -> Iterator[Path]:
    """Sweep a cache folder and yield a temporary folder in it. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(folder)
    with TemporaryDirectory(dir=folder, prefix="making-") as scratch:
        yield Path(scratch)


def constraints() -> Path:
    """Return the constraints file: in an installed package, or beside it in a checkout.

    Raises `CannotMeasure` if there is none.
    """
    package = Path(__file__).resolve().parents[2]
    for path in (package / "_constraints.txt", package.parent / "constraints.txt"):
        if path.is_file():
            return path
    raise CannotMeasure(f"no constraints.txt beside {package}; install the package again")


class EnvironmentBuilder:
    """Creates environments with one installer, and caches them in a folder.

    `lock` is the constraints file. By default, it is that of this release.
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

    def environment(self, requirements: "Sequence[Requirement]") -> Path:
        """Return the folder of an environment with these requirements. Raises `NotMade`."""
        target = self._folder / self._key(requirements)
        try:
            if not target.is_dir():
                with making_in(self._folder) as scratch:
                    self._make(scratch / "environment", requirements)
                    _move(scratch / "environment", target)
        except OSError as error:
            raise NotMade(f"{error}; set XDG_CACHE_HOME to another folder") from error
        used(target)
        return target

    def _key(self, requirements: "Sequence[Requirement]") -> str:
        """Return a name of fixed length, because installed scripts contain it."""
        content = (
            *(_FORMAT, self._installer, list(map(str, requirements))),
            *(self._constraints.read_text("utf-8"), sys.version, sys.base_prefix),
            sysconfig.get_platform(),
        )
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:32]

    def _make(self, prefix: Path, requirements: "Sequence[Requirement]") -> None:
        with closing(LauncherClient()) as launcher:
            self._step(launcher, prefix, self._filled(self._installer.make, prefix))
            if requirements:
                names = list(map(str, requirements))
                self._say(f"{self._installer.name} installs {', '.join(names)}")
                argv = (*self._filled(self._installer.fill, prefix), *names)
                self._step(launcher, prefix, argv)
            if missing := _missing(prefix, requirements):
                raise NotMade(
                    f"{', '.join(missing)} was installed to another folder; check its settings"
                )
            # Also the empty environment: an installer may add modules to both.
            compiled = ("-m", "compileall", "-qq", "-j", "0", "-s", str(prefix), str(prefix))
            argv = (sys.executable, "-I", *compiled)
            self._step(launcher, prefix, argv, allowed_status=_SOME_NOT_COMPILED)

    def _filled(self, argv: Sequence[str], prefix: Path) -> list[str]:
        return [
            text.replace("{prefix}", str(prefix)).replace("{constraints}", str(self._constraints))
            for text in argv
        ]

    def _step(
        self, launcher: LauncherClient, prefix: Path, argv: Sequence[str], allowed_status: int = 0
    ) -> None:
        log = prefix.with_name(f"log-{len(list(prefix.parent.iterdir()))}")
        job = Job(
            argv=tuple(argv), env=installer_environment(), cwd=str(prefix.parent), log=str(log)
        )
        (result,) = launcher.run([job], STEP_SECONDS)
        if result.failure is not None and result.exit_status != allowed_status:
            raise NotMade(f"{result.failure}{last_words(log)}")


def _missing(prefix: Path, requirements: "Sequence[Requirement]") -> list[str]:
    """Return the requirements that are missing although the installer succeeded."""
    from trae_bench.subject.install.requirements import normal

    folders = prefix.glob("lib*/python*/site-packages/*.dist-info")
    installed = {normal(path.name.partition("-")[0]) for path in folders}
    return sorted({requirement.name for requirement in requirements} - installed)


def installer_environment() -> dict[str, str]:
    """Return the user's variables that an installer needs.

    Other variables may hold API keys, which untrusted packages must not see.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if _INSTALLER_SETTINGS.fullmatch(name)
        and name not in _TARGET_SETTINGS
        and is_utf8(name)
        and is_utf8(value)
    } | {"PIP_NO_INPUT": "1"}


def _move(made: Path, target: Path) -> None:
    """Move an environment into place atomically, unless another run has created it already."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
