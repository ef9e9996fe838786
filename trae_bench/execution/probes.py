"""The child's side of a watched trial: what is looked at, and what that gives.

    memory       the agent's own memory at the end of each phase, and every 20 ms between, in a
                 long session more rarely
    tracemalloc  the bytes that Python held at once

Instructions are counted by callgrind, from outside: `callgrind.py`. The memory that a process
has for itself is what its end would give back (unique set size): pages that no other process
maps. Nothing here is imported in a plain trial.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
"""As `typing` has it, whose import would be charged to the agent."""
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any, Protocol

    class Probe(Protocol):
        """Made before the agent is imported."""

        def imported(self) -> None:
            """The agent's code has been loaded, and has done nothing yet."""

        async def watch(self, loop: AbstractEventLoop) -> None:
            """Runs beside the sessions, and is cancelled at their end."""

        def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
            """Counters, and the memory (bytes) at moments (the event loop's clock)."""


SAMPLE_SECONDS = 0.02
MAX_LOOKS = 4096
"""Looks at the memory that are kept, so that neither they nor the report grow without end."""


def probe(name: str) -> Probe | None:
    """None where a trial is only looked at from outside."""
    if name == "memory":
        return MemoryProbe()
    return AllocationProbe() if name == "tracemalloc" else None


class MemoryProbe:
    """The memory that this process has for itself. Linux only; elsewhere it finds nothing."""

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._series: list[tuple[float, float]] = []

    def imported(self) -> None:
        self._note("uss_start")

    async def watch(self, loop: AbstractEventLoop) -> None:
        from asyncio import sleep

        page, pause = os.sysconf("SC_PAGE_SIZE"), SAMPLE_SECONDS
        while (pages := own_pages()) is not None:
            self._series.append((loop.time(), float(pages * page)))
            if len(self._series) == MAX_LOOKS:
                # Every other one, the last included: they stay evenly spaced.
                del self._series[::2]
                pause *= 2
            await sleep(pause)

    def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
        self._note("uss_end")
        return self._counters, self._series

    def _note(self, phase: str) -> None:
        found = unique_bytes()
        if found is not None:
            self._counters[phase] = found


class AllocationProbe:
    """What Python allocates, from before the agent is imported; one frame an allocation."""

    def __init__(self) -> None:
        import tracemalloc

        self._tracemalloc: Any = tracemalloc
        tracemalloc.start()

    def imported(self) -> None:
        """No phase of its own: the peak is of all."""

    async def watch(self, loop: AbstractEventLoop) -> None:
        """Nothing to do meanwhile."""

    def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
        held, peak = self._tracemalloc.get_traced_memory()
        return {"python_held": held, "python_peak": peak}, []


def unique_bytes() -> int | None:
    """The memory of this process that no other maps; the kernel walks all its pages for it."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
            sizes = [line.split() for line in file if line.startswith("Private_")]
    except OSError:
        return None
    return sum(int(size[1]) for size in sizes if size[0] != "Private_Hugetlb:") * 1024


def own_pages() -> int | None:
    """Pages in memory that are of no file: nearly the same, and cheap enough to ask often."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return None
    return int(resident) - int(shared)
