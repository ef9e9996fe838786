"""The cores that this process may use, and which of them a duet and the provider get."""

import os
from pathlib import Path

from trae_bench._util.system_files import read_text

_CPU = Path("/sys/devices/system/cpu")


def cores() -> tuple[int, ...]:
    """Return the cores that this process may use. Empty if the system cannot pin processes."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return ()


def duet_core() -> int | None:
    """Return the core that both sides of a duet share: the last, as interrupts prefer the first.

    None if the system cannot pin processes.
    """
    return cores()[-1] if cores() else None


def provider_core() -> int | None:
    """Return a core for the provider, on another physical core than the duet's if possible.

    None if the system cannot pin processes.
    """
    duet = duet_core()
    if duet is None:
        return None
    others = [core for core in cores() if core != duet]
    separate = [core for core in others if core not in _siblings(duet)]
    return (separate or others or [duet])[0]


def _siblings(core: int) -> set[int]:
    """Return the hardware threads of a core's physical core, itself included."""
    threads = {core}
    for part in read_text(_CPU / f"cpu{core}/topology/thread_siblings_list").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            threads.update(range(int(first), int(last or first) + 1))
    return threads
