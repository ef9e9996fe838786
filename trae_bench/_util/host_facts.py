"""What the numbers depend on besides the code: the machine, its load, the versions.

Reads files and asks the kernel; needs no special rights and changes nothing.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from trae_bench import __version__
from trae_bench._util.child_env import outside_hooks

Fact = str | int | float | bool

CHANGING = frozenset({"load", "memory_available"})
"""Facts of the fingerprint that differ from one minute to the next on the same machine."""

_CPU = Path("/sys/devices/system/cpu")
_TAKING_PART = (
    "anthropic",
    "click",
    "google-genai",
    "h2",
    "httpcore",
    "httpx",
    "httpx2",
    "msgspec",
    "ollama",
    "openai",
    "psutil",
    "pytest",
    "respx",
)
MIN_MEMORY = 512 * 1024 * 1024
"""Bytes that a process of a trial may take however small the machine is."""
_GIT_SECONDS = 10.0
_BUSY = 0.3
"""A load above this, before the run, is another program's."""
_STOLEN = 0.02


class HostFinding(Struct, frozen=True):
    """Something about this machine that makes its numbers worse, and what to do about it."""

    name: str
    value: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}; {self.advice}"


# -- processors -------------------------------------------------------------------------


def cores() -> tuple[int, ...]:
    """The processors that this process may use; empty where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return ()


def duet_core() -> int | None:
    """The processor for both sides of a duet: the last, for interrupts like the first.

    None where processes cannot be pinned.
    """
    return cores()[-1] if cores() else None


def provider_core() -> int | None:
    """A processor for the provider, which shares nothing with the duet's if that can be.

    None where processes cannot be pinned.
    """
    duet = duet_core()
    if duet is None:
        return None
    others = [core for core in cores() if core != duet]
    apart = [core for core in others if core not in _siblings(duet)]
    return (apart or others or [duet])[0]


def _siblings(core: int) -> set[int]:
    """The hardware threads of this one's physical core, itself included."""
    found = {core}
    for part in _text(_CPU / f"cpu{core}/topology/thread_siblings_list").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


# -- the fingerprint --------------------------------------------------------------------


def fingerprint() -> dict[str, Fact]:
    """What identifies this machine and its state. Facts that cannot be found are left out."""
    memory = _memory()
    facts: dict[str, Fact | None] = {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(cores()) or None,
        "smt": _flag(_CPU / "smt/active"),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        "turbo": _turbo(),
        "aslr": _number(Path("/proc/sys/kernel/randomize_va_space")),
        "virtual": _virtual(),
        "cpu_quota": _cpu_quota(),
        "memory": memory.get("MemTotal"),
        "memory_available": memory.get("MemAvailable"),
        "load": _load(),
        "clock": _text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
        or None,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _cpu_model() -> str | None:
    for name, value in _colon_lines(Path("/proc/cpuinfo")):
        if name in ("model name", "Model", "cpu model"):
            return value
    return platform.processor() or None


def _turbo() -> bool | None:
    """Whether a core may run faster than its nominal speed, as long as it stays cool."""
    off = _flag(_CPU / "intel_pstate/no_turbo")
    return _flag(_CPU / "cpufreq/boost") if off is None else not off


def _virtual() -> bool | None:
    """Whether this is a guest; the neighbours of a guest cannot be seen."""
    for name, value in _colon_lines(Path("/proc/cpuinfo")):
        if name == "flags":
            return "hypervisor" in value.split()
    return None


def _cpu_quota() -> float | None:
    """Processors' worth of time that a container may use; None without a limit."""
    limit, _, period = _text(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if limit.isdigit() and period.isdigit() and int(period):
        return int(limit) / int(period)
    return None


def _load() -> float | None:
    """Programs that wanted a processor, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _memory() -> dict[str, int]:
    """Bytes by the names of /proc/meminfo."""
    found = {}
    for name, value in _colon_lines(Path("/proc/meminfo")):
        number, _, unit = value.partition(" ")
        if number.isdigit() and unit == "kB":
            found[name] = int(number) * 1024
    return found


def memory_for_a_process() -> int | None:
    """Bytes that no process of a trial shall exceed: half of the machine's memory, or of the
    container's; None where the system does not tell. An agent that takes more is out of hand,
    and two sides of it would not fit.
    """
    told = [_memory().get("MemTotal"), _number(Path("/sys/fs/cgroup/memory.max"))]
    known = [size for size in told if size]
    return max(MIN_MEMORY, min(known) // 2) if known else None


def kind_of(facts: Mapping[str, object]) -> str:
    """The kind of machine that a fingerprint is of, in a word that can name a folder.

    Two machines of one kind have the same system, model and number of processors, and minor
    version of Python, as in `linux-amd-epyc-2-cores-cpython-3.11`. How much they differ beside
    that (kernel, memory, neighbours) no short name tells.
    """
    python = ".".join(str(facts.get("python", "")).split(".")[:2])
    parts = [facts.get("system"), facts.get("cpu"), f"{facts.get('cores', 'unknown')} cores"]
    parts += [facts.get("implementation"), f"{python}t" if facts.get("free_threaded") else python]
    return slug(" ".join(str(part) for part in parts if part))


def slug(text: str, longest: int = 80) -> str:
    """Lower-case letters, digits and `.+@-` only, safe as the name of a file or folder.

    A long text is cut, and ends in a part of its hash.
    """
    plain = re.sub(r"[^a-z0-9.+@]+", "-", text.lower()).strip("-.")
    if len(plain) > longest:
        mark = sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
        plain = f"{plain[: longest - 9]}-{mark}"
    return plain or "unknown"


# -- what to change ---------------------------------------------------------------------


def findings(facts: Mapping[str, Fact] | None = None) -> list[HostFinding]:
    """What makes numbers on this machine noisy, worst first; nothing here needs root to see."""
    facts = fingerprint() if facts is None else facts
    return [*_missing(facts), *_restless(facts), *_uneven(facts)]


def _missing(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    usable = facts.get("cores_usable")
    if usable is None:
        yield HostFinding(
            "pinning",
            "this system cannot pin a process to a core",
            "duets are not possible, so small effects stay inconclusive: measure on Linux",
        )
    elif usable == 1:
        yield HostFinding(
            "cores",
            "one usable core",
            "the provider takes turns with the agent: allow a second core",
        )
    quota = facts.get("cpu_quota")
    if isinstance(quota, float) and quota < 2:
        yield HostFinding(
            "cpu quota",
            f"{quota:g} cores",
            "the container is stopped when it has used that up: raise or lift the limit",
        )


def _restless(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    load = facts.get("load")
    if isinstance(load, float) and load > _BUSY:
        yield HostFinding(
            "load",
            f"{load:.2f} in the last minute",
            "something else is running: stop it, or wait until it has ended",
        )
    stolen = _stolen_share()
    if stolen > _STOLEN:
        yield HostFinding(
            "steal",
            f"{stolen:.1%} of processor time since boot",
            "the host gives it to other guests: move to a quieter or a dedicated host",
        )
    total, free = facts.get("memory"), facts.get("memory_available")
    if isinstance(total, int) and isinstance(free, int) and free < total / 10:
        yield HostFinding(
            "memory",
            f"{free / total:.0%} available",
            "the kernel drops cached files and reads them again: close what needs memory",
        )


def _uneven(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    if facts.get("virtual"):
        yield HostFinding(
            "virtual machine",
            "yes",
            "neighbours on the host cannot be seen or stopped: trust duets, not wall times, or "
            "measure on hardware of your own",
        )
    governor = facts.get("governor")
    if governor is not None and governor != "performance":
        yield HostFinding(
            "governor",
            str(governor),
            "the clock follows the load: set it with `cpupower frequency-set -g performance`",
        )
    if facts.get("turbo"):
        yield HostFinding(
            "turbo",
            "on",
            "the clock follows the temperature: turn it off in the firmware, or through "
            "/sys/devices/system/cpu/{intel_pstate/no_turbo,cpufreq/boost}",
        )
    if facts.get("smt"):
        yield HostFinding(
            "hyperthreads",
            "on",
            "two threads share a core's units: leave the sibling of the duet's core idle",
        )
    if facts.get("aslr"):
        yield HostFinding(
            "address layout",
            "random",
            "peak memory varies by some pages; trials get a fixed layout where the kernel "
            "allows it, so there is nothing to do unless a container forbids `personality`",
        )


def _stolen_share() -> float:
    """Share of the processors' time that the host gave to others while we wanted it."""
    first = _text(Path("/proc/stat")).partition("\n")[0].split()[1:9]
    ticks = [int(tick) for tick in first if tick.isdigit()]
    busy = sum(ticks) - sum(ticks[3:5])
    return ticks[7] / busy if len(ticks) == 8 and busy else 0.0


# -- the code ---------------------------------------------------------------------------


def code_state(folder: Path | None = None) -> dict[str, Fact]:
    """Commit, and whether there are changes on top of it, of the checkout that has this code.

    `folder` is the package's. Empty where git does not track that folder, as when this is
    installed, and where there is no git.
    """
    folder = folder or Path(__file__).resolve().parents[1]
    # An installed package may lie within a checkout that is not its own.
    if not _git(folder, "ls-files", "--", "."):
        return {}
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return {}
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    return {"commit": commit, "dirty": bool(_git(top, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; empty where it fails."""
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=outside_hooks(),
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def versions() -> dict[str, Fact]:
    """The installed versions of what takes part in a run."""
    # Some 30 ms, most of it for reading mail headers; only a run needs it.
    from importlib import metadata

    found: dict[str, Fact] = {"trae-bench": __version__}
    for name in _TAKING_PART:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# -- reading ----------------------------------------------------------------------------


def _text(path: Path) -> str:
    """A file's text; empty where it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _flag(path: Path) -> bool | None:
    number = _number(path)
    return None if number is None else bool(number)


def _colon_lines(path: Path) -> Iterator[tuple[str, str]]:
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()
