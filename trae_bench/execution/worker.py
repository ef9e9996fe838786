"""Runs inside the trial's process: calls a coroutine function and reports its results.

    python -P -c "from trae_bench.execution.worker import main; main()" WORK.json

Fields of `WORK.json`:

    entry       "package.module:function" of the coroutine function
    arguments   its keyword arguments
    types       maps argument names to "package.module:Type"; a table becomes the type's keyword
                arguments, any other value its only argument
    sessions    one table per call, with the arguments that differ between calls
    concurrency maximum concurrent calls
    interval    seconds between the starts of two calls; 0 starts all at once
    report_fd   file descriptor that receives the `ChildReport` (see `model/sample.py`)
    heartbeat   whether to measure the event loop's lag, which costs CPU time
    probe       name of the probe (see `probes.py`)

A result must have `success`, `final_text`, `steps` and `error`. This module knows no agent and
imports almost nothing, because its cost is charged to the agent. For that reason it is not run
with `-m`, which costs another 5 ms for `runpy`.
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
"""As in `typing`. Importing `typing` would be charged to the agent."""
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from trae_bench.execution.probes import Probe

BEAT_SECONDS = 0.005
"""Interval of the heartbeat that measures the event loop's lag."""


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be charged
        work: dict[str, Any] = json.load(file)
    report_fd: int = work["report_fd"]
    # The tools that the agent starts must not inherit it.
    os.set_inheritable(report_fd, False)
    probe = _probe(work["probe"])
    entry: Callable[..., Awaitable[Any]] = _named(work["entry"])
    if probe is not None:
        probe.imported()
    results, counters = _run(entry, work, probe)
    counters |= {"modules_imported": len(sys.modules), "agent_rss": _peak_rss()}
    memory: list[tuple[float, float]] = []
    if probe is not None:
        probe_counters, memory = probe.results()
        counters |= probe_counters
    _send(report_fd, json.dumps(_report(results, counters) | {"memory": memory}).encode())


def _probe(name: str) -> Probe | None:
    if name == "plain":
        return None
    from trae_bench.execution.probes import probe

    return probe(name)


def _report(results: list[Any], counters: dict[str, float]) -> dict[str, Any]:
    report = {
        "success": all(result.success for result in results),
        "final_text": results[0].final_text,
        "steps": sum(result.steps for result in results),
        "error": next((result.error for result in results if result.error is not None), None),
        "counters": counters,
    }
    if len(results) > 1:
        report["sessions"] = [
            {"success": result.success, "final_text": result.final_text} for result in results
        ]
    return report


def _named(dotted: str) -> Any:
    module, _, name = dotted.partition(":")
    __import__(module)
    return getattr(sys.modules[module], name)


def _arguments(work: dict[str, Any], session: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {**work["arguments"], **session}
    for name, dotted in work["types"].items():
        if name in arguments:
            value, kind = arguments[name], _named(dotted)
            arguments[name] = kind(**value) if isinstance(value, dict) else kind(value)
    return arguments


def _run(
    entry: Callable[..., Awaitable[Any]], work: dict[str, Any], probe: Probe | None
) -> tuple[list[Any], dict[str, float]]:
    import asyncio  # after the entry point, so that the agent's imports come first

    sessions = [_arguments(work, session) for session in work["sessions"]]

    async def all_sessions() -> list[Any]:
        if len(sessions) == 1:
            return [await entry(**sessions[0])]
        return await _concurrently(entry, sessions, work["concurrency"], work["interval"])

    async def run() -> tuple[list[Any], dict[str, float]]:
        loop = asyncio.get_running_loop()
        heartbeat = Heartbeat(loop.time) if work["heartbeat"] else None
        watchers = [heartbeat.beat()] if heartbeat else []
        if probe is not None:
            watchers.append(probe.watch(loop))
        tasks = [asyncio.create_task(watcher) for watcher in watchers]
        try:
            results = await all_sessions()
        finally:
            for task in tasks:
                task.cancel()
        return results, heartbeat.counters() if heartbeat else {}

    return asyncio.run(run())


async def _concurrently(
    entry: Callable[..., Awaitable[Any]],
    sessions: list[dict[str, Any]],
    concurrency: int,
    interval: float,
) -> list[Any]:
    """Return the results in the order of the sessions. An exception in one cancels all."""
    from asyncio import Semaphore, TaskGroup, get_running_loop, sleep

    limit, clock = Semaphore(concurrency), get_running_loop().time
    started = clock()

    async def call(arguments: dict[str, Any]) -> Any:
        async with limit:
            return await entry(**arguments)

    async with TaskGroup() as group:
        tasks = []
        for number, arguments in enumerate(sessions):
            # Relative to the first start, so that one late start does not delay the others.
            await sleep(max(0.0, started + number * interval - clock()))
            tasks.append(group.create_task(call(arguments)))
    return [task.result() for task in tasks]


class Heartbeat:
    """Wakes up every `BEAT_SECONDS` and records the delay of each wake-up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = clock() + BEAT_SECONDS
        self._delays: list[float] = []

    async def beat(self) -> None:
        """Record delays until it is cancelled."""
        from asyncio import sleep

        while True:
            self._due = self._clock() + BEAT_SECONDS
            await sleep(BEAT_SECONDS)
            self._delays.append(max(0.0, self._clock() - self._due))

    def counters(self) -> dict[str, float]:
        """Return the maximum delay (seconds) and the 99th percentile, the current one included.

        A stall also delays the beats that would have been due during it, each by one interval
        less. They are added, because otherwise a long stall would be a single value.
        """
        delays = [*self._delays, max(0.0, self._clock() - self._due)]
        waits = sorted(
            delay - missed * BEAT_SECONDS
            for delay in delays
            for missed in range(int(delay / BEAT_SECONDS) + 1)
        )
        return {
            "event_loop_lag_max": waits[-1],
            "event_loop_lag_p99": waits[(99 * len(waits) - 1) // 100],
        }


def _peak_rss() -> int:
    """Return the peak resident memory of this process (bytes).

    On Linux, `ru_maxrss` includes the memory of the parent at the spawn. VmHWM does not.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            peak = next(line for line in file if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak_rss if sys.platform == "darwin" else peak_rss * 1024


def _send(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main()
