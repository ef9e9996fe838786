"""The child's side of a trial: runs an asynchronous entry point and reports what came of it.

    python -P -c "from trae_bench.execution.worker import main; main()" WORK.json

`WORK.json` says what to run:

    entry       "package.module:function", a coroutine function
    arguments   its keyword arguments
    types       for some of them, "package.module:Type" that makes the argument of the value:
                of a table by keywords, of anything else by its one argument
    sessions    how often the entry point is called: once for each of these tables, which
                hold the arguments that differ
    concurrency how many of them may be under way at a time
    interval    seconds between the beginnings of two of them, 0 for at once
    report_fd   where the `ChildReport` goes; `records.py` says what it holds
    heartbeat   whether the event loop is watched, which costs processor time
    probe       how closely the trial is watched, see `probes.py`

A result must have `success`, `final_text`, `steps` and `error`. This module knows no
agent and imports next to nothing, because all that it does is charged to the agent. (With
`-m`, the machinery of `runpy` would be charged to it, too: 5 ms.)
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
"""As `typing` has it, whose import would be charged to the agent."""
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from trae_bench.execution.probes import Probe

BEAT_SECONDS = 0.005
"""How often a watched event loop must let the heartbeat through."""


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be charged
        work: dict[str, Any] = json.load(file)
    report_fd: int = work["report_fd"]
    # Kept from the tools that the agent starts.
    os.set_inheritable(report_fd, False)
    probe = _probe(work["probe"])
    entry: Callable[..., Awaitable[Any]] = _named(work["entry"])
    if probe is not None:
        probe.imported()
    results, counters = _run(entry, work, probe)
    counters |= {"modules_imported": len(sys.modules), "agent_rss": _peak_rss()}
    memory: list[tuple[float, float]] = []
    if probe is not None:
        found, memory = probe.results()
        counters |= found
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
            value, made = arguments[name], _named(dotted)
            arguments[name] = made(**value) if isinstance(value, dict) else made(value)
    return arguments


def _run(
    entry: Callable[..., Awaitable[Any]], work: dict[str, Any], probe: Probe | None
) -> tuple[list[Any], dict[str, float]]:
    import asyncio  # after the entry point, so that the agent's imports are the first

    sessions = [_arguments(work, session) for session in work["sessions"]]

    async def all_sessions() -> list[Any]:
        if len(sessions) == 1:
            return [await entry(**sessions[0])]
        return await _side_by_side(entry, sessions, work["concurrency"], work["interval"])

    async def run() -> tuple[list[Any], dict[str, float]]:
        loop = asyncio.get_running_loop()
        heartbeat = Heartbeat(loop.time) if work["heartbeat"] else None
        beside = [heartbeat.beat()] if heartbeat else []
        if probe is not None:
            beside.append(probe.watch(loop))
        tasks = [asyncio.create_task(watching) for watching in beside]
        try:
            results = await all_sessions()
        finally:
            for task in tasks:
                task.cancel()
        return results, heartbeat.counters() if heartbeat else {}

    return asyncio.run(run())


async def _side_by_side(
    entry: Callable[..., Awaitable[Any]],
    sessions: list[dict[str, Any]],
    concurrency: int,
    interval: float,
) -> list[Any]:
    """The results in the order of the sessions; a crash of one ends them all."""
    from asyncio import Semaphore, TaskGroup, get_running_loop, sleep

    room, clock = Semaphore(concurrency), get_running_loop().time
    begun = clock()

    async def one(arguments: dict[str, Any]) -> Any:
        async with room:
            return await entry(**arguments)

    async with TaskGroup() as group:
        tasks = []
        for number, arguments in enumerate(sessions):
            # From the beginning of all, so that a late start does not delay those after it.
            await sleep(max(0.0, begun + number * interval - clock()))
            tasks.append(group.create_task(one(arguments)))
    return [task.result() for task in tasks]


class Heartbeat:
    """Wants to be woken every `BEAT_SECONDS`, and notes how late it was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due = clock() + BEAT_SECONDS
        self._delays: list[float] = []

    async def beat(self) -> None:
        from asyncio import sleep

        while True:
            self._due = self._clock() + BEAT_SECONDS
            await sleep(BEAT_SECONDS)
            self._delays.append(max(0.0, self._clock() - self._due))

    def counters(self) -> dict[str, float]:
        """The longest delay and the 99th percentile; one that still lasts counts.

        While one beat waits, those that were due meanwhile wait, too, each a beat less. Left
        out, a long stall would be one value among few, and no percentile would say a thing.
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
    """Most resident memory that this process had (bytes).

    Linux counts the memory of whoever spawned it into `ru_maxrss`, but not into VmHWM.
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
