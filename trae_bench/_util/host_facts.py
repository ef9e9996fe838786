"""Facts about the host that measurements depend on: hardware, kernel, load, Python.

Reads files and asks the kernel. Needs no special rights and changes nothing.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from trae_bench._util import cpu_affinity
from trae_bench._util.system_files import read_flag, read_number, read_pairs, read_text

Fact = str | int | float | bool

CHANGING = frozenset({"load", "memory_available"})
"""Facts that change from minute to minute on one host."""
MIN_MEMORY = 512 * 1024 * 1024
"""Smallest memory limit of a trial's process (bytes), however small the host is."""

_CPU = Path("/sys/devices/system/cpu")


def fingerprint() -> dict[str, Fact]:
    """Return the facts that identify this host and its state. Unknown facts are left out."""
    memory = _memory()
    facts: dict[str, Fact | None] = {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(cpu_affinity.cores()) or None,
        "smt": read_flag(_CPU / "smt/active"),
        "governor": read_text(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        "turbo": _turbo(),
        "aslr": read_number(Path("/proc/sys/kernel/randomize_va_space")),
        "virtual": _virtual(),
        "cpu_quota": _cpu_quota(),
        "memory": memory.get("MemTotal"),
        "memory_available": memory.get("MemAvailable"),
        "load": _load(),
        "clock": read_text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource"))
        or None,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _cpu_model() -> str | None:
    for name, value in read_pairs(Path("/proc/cpuinfo")):
        if name in ("model name", "Model", "cpu model"):
            return value
    return platform.processor() or None


def _turbo() -> bool | None:
    """Return whether a core may exceed its nominal frequency."""
    off = read_flag(_CPU / "intel_pstate/no_turbo")
    return read_flag(_CPU / "cpufreq/boost") if off is None else not off


def _virtual() -> bool | None:
    """Return whether this is a virtual machine."""
    for name, value in read_pairs(Path("/proc/cpuinfo")):
        if name == "flags":
            return "hypervisor" in value.split()
    return None


def _cpu_quota() -> float | None:
    """Return the CPU limit of the container, in cores. None if there is no limit."""
    limit, _, period = read_text(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    if limit.isdigit() and period.isdigit() and int(period):
        return int(limit) / int(period)
    return None


def _load() -> float | None:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _memory() -> dict[str, int]:
    """Return the sizes (bytes) in /proc/meminfo, by name."""
    found = {}
    for name, value in read_pairs(Path("/proc/meminfo")):
        number, _, unit = value.partition(" ")
        if number.isdigit() and unit == "kB":
            found[name] = int(number) * 1024
    return found


def process_memory_limit() -> int | None:
    """Return the memory limit (bytes) of a trial's process: half of the host's or container's.

    The two sides of a duet with more would not fit. None if the system does not report its
    memory.
    """
    reported = [_memory().get("MemTotal"), read_number(Path("/sys/fs/cgroup/memory.max"))]
    sizes = [size for size in reported if size]
    return max(MIN_MEMORY, min(sizes) // 2) if sizes else None


def kind_of(facts: Mapping[str, object]) -> str:
    """Return the kind of host as a folder name: `linux-amd-epyc-2-cores-cpython-3.11`.

    Hosts of one kind have the same system, CPU model, number of cores, and Python minor version.
    They may still differ in kernel, memory and other guests.
    """
    python = ".".join(str(facts.get("python", "")).split(".")[:2])
    parts = [facts.get("system"), facts.get("cpu"), f"{facts.get('cores', 'unknown')} cores"]
    parts += [facts.get("implementation"), f"{python}t" if facts.get("free_threaded") else python]
    return slug(" ".join(str(part) for part in parts if part))


def slug(text: str, max_length: int = 80) -> str:
    """Return the text in lower-case letters, digits and `.+@-`, safe as a file name.

    A longer text is cut and ends in a part of its hash.
    """
    plain = re.sub(r"[^a-z0-9.+@]+", "-", text.lower()).strip("-.")
    if len(plain) > max_length:
        mark = sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
        plain = f"{plain[: max_length - 9]}-{mark}"
    return plain or "unknown"
