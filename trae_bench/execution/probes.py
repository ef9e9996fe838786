"""Probes that run inside the trial's process.

    memory       the unique set size at the end of each phase, and samples of the private memory
                 every 20 ms, less often in a long session
    tracemalloc  the bytes that Python's allocators hold

The unique set size is the memory of the pages that no other process maps. The callgrind probe
runs outside the process: see `callgrind.py`. A plain trial does not import this module.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
"""As in `typing`. Importing `typing` would be charged to the agent."""
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any, Protocol

    class Probe(Protocol):
        """Created before the agent is imported."""

        def imported(self) -> None:
            """Called after the agent is imported and before it runs."""

        async def watch(self, loop: AbstractEventLoop) -> None:
            """Run beside the sessions until it is cancelled at their end."""

        def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
            """Return counters, and pairs of event-loop time and memory (bytes)."""


SAMPLE_SECONDS = 0.02
MAX_SAMPLES = 4096
"""Maximum memory samples. Bounds the memory that they take and the report's size."""


def probe(name: str) -> Probe | None:
    """Return the probe of this name. None if it does not run inside the process."""
    if name == "memory":
        return MemoryProbe()
    return AllocationProbe() if name == "tracemalloc" else None


class MemoryProbe:
    """Samples the private memory of this process. It finds nothing except on Linux."""

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
            if len(self._series) == MAX_SAMPLES:
                # Drop every other sample but keep the last, so that they stay evenly spaced.
                del self._series[::2]
                pause *= 2
            await sleep(pause)

    def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
        self._note("uss_end")
        return self._counters, self._series

    def _note(self, phase: str) -> None:
        size = unique_bytes()
        if size is not None:
            self._counters[phase] = size


class AllocationProbe:
    """Traces Python's allocations from before the agent is imported, with one frame each."""

    def __init__(self) -> None:
        import tracemalloc

        self._tracemalloc: Any = tracemalloc
        tracemalloc.start()

    def imported(self) -> None:
        """Do nothing. The peak includes the import."""

    async def watch(self, loop: AbstractEventLoop) -> None:
        """Do nothing. tracemalloc records every allocation."""

    def results(self) -> tuple[dict[str, float], list[tuple[float, float]]]:
        held, peak = self._tracemalloc.get_traced_memory()
        return {"python_held": held, "python_peak": peak}, []


def unique_bytes() -> int | None:
    """Return this process's unique set size. Costly: the kernel walks all its pages."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
            sizes = [line.split() for line in file if line.startswith("Private_")]
    except OSError:
        return None
    return sum(int(size[1]) for size in sizes if size[0] != "Private_Hugetlb:") * 1024


def own_pages() -> int | None:
    """Return the resident pages without a file. Close to `unique_bytes`, and much cheaper."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return None
    return int(resident) - int(shared)
