"""Builds and caches the environment of an agent.

The name of a cached environment is the hash of all that decides its content: the requirements,
the commands, the lock files, the platform and the interpreter. It is built in place, because
installed scripts contain its path, and a marker file says that it is complete. It may be deleted
at any time except during a run.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from trae_bench._util import bounded_io
from trae_bench._util.child_output import last_words
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.subject.agents.entry import AgentEntry, filled
from trae_bench.subject.install.environments import (
    cache_folder,
    installer_environment,
    sweep,
    used,
)

SETUP_SECONDS = 900.0
"""Timeout of each command that builds an environment."""
_FORMAT = 2
"""Increased when environments are built differently, so that old ones are not used."""
_COMPLETE = "complete"
"""Marker file of an environment that is complete."""


class Built(Struct, frozen=True):
    """What an agent runs from."""

    folder: Path
    """Folder of its code."""
    env: Path | None = None
    """Its environment; None if its entry builds none."""


def build(
    name: str, entry: AgentEntry, folder: Path, say: Callable[[str], None], *, copy: bool = False
) -> Built:
    """Return the agent's environment, and build it if it is not cached.

    `name` is the agent's in messages. `folder` has its code. With `copy`, what builds from it gets
    a copy, because a build can write there, and a checkout must stay as it is. Raises
    `CannotMeasure` with the last lines of the command that failed.
    """
    if not entry.builds:
        return Built(folder)
    place = _cache() / _key(entry, folder)
    copied = copy and entry.builds_from_folder
    code = place / "code" if copied else folder
    try:
        with _locked(place):
            if not (place / _COMPLETE).is_file():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(mode=0o700)
                if copied:
                    shutil.copytree(folder, code, symlinks=True)
                _make(name, entry, code, place, say)
                (place / _COMPLETE).touch()
        used(place)
    except OSError as error:
        raise CannotMeasure(f"{error}; set XDG_CACHE_HOME to another folder") from error
    return Built(code, place / "env")


def _cache() -> Path:
    folder = cache_folder().with_name("agents")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(folder)
    return folder


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Hold a lock, so that two runs do not build one environment at a time."""
    with place.with_name(f"{place.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(entry: AgentEntry, folder: Path) -> str:
    """Return a name of fixed length. Raises `CannotMeasure` if a lock file is unreadable."""
    locks = {}
    for name in entry.lock_files:
        try:
            locks[name] = hashlib.sha256(bounded_io.whole(folder / name)).hexdigest()
        except OSError as error:
            raise CannotMeasure(f"{folder / name}: {error.strerror}; see lock-files") from error
    # An editable install, for example, belongs to one folder.
    place = str(folder) if entry.builds_from_folder else ""
    content = (
        *(_FORMAT, entry.requirements, entry.npm, entry.setup, sorted(locks.items()), place),
        *(sys.version, sys.base_prefix, sysconfig.get_platform()),
    )
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:32]


def _make(
    name: str, entry: AgentEntry, folder: Path, place: Path, say: Callable[[str], None]
) -> None:
    env = place / "env"
    values = {"env": str(env), "folder": str(folder), "python": str(env / "bin" / "python")}
    installed = ", ".join((*entry.requirements, *entry.npm)) or "its setup"
    say(f"agent {name}: builds its environment ({installed})")
    variables = installer_environment()
    paths = (env / "bin", env / "node_modules" / ".bin", variables.get("PATH", os.defpath))
    variables |= {"PATH": os.pathsep.join(map(str, paths))}
    with closing(LauncherClient()) as launcher:
        for number, argv in enumerate(_commands(entry, env, values)):
            log = place / f"log-{number}"
            job = Job(argv=argv, env=variables, cwd=str(folder), log=str(log))
            (result,) = launcher.run([job], SETUP_SECONDS)
            if result.failure is not None:
                raise CannotMeasure(
                    f"agent {name}: cannot build its environment: {' '.join(argv)[:200]}: "
                    f"{result.failure}{last_words(log)}"
                )


def _commands(entry: AgentEntry, env: Path, values: dict[str, str]) -> Iterator[tuple[str, ...]]:
    if entry.requirements:
        names = [word for text in entry.requirements for word in _words(filled(text, values))]
        python = values["python"]
        if uv := shutil.which("uv"):
            yield uv, "venv", "--quiet", "--python", sys.executable, str(env)
            yield uv, "pip", "install", "--quiet", "--python", python, *names
        else:
            yield sys.executable, "-m", "venv", str(env)
            yield python, "-m", "pip", "install", "--quiet", *names
    else:
        yield "mkdir", "-p", str(env)
    if entry.npm:
        options = ("--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(env))
        yield "npm", "install", *options, *entry.npm
    for text in entry.setup:
        yield "sh", "-ec", filled(text, values)


def _words(requirement: str) -> list[str]:
    """An option such as `-r FILE` or `-e FOLDER` is two words; a requirement is one."""
    option, _, value = requirement.partition(" ")
    return [option, value.strip()] if option.startswith("-") and value else [requirement]
