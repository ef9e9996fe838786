"""Child side of an injected load: agent_core with known extra work before each request.

The worker calls `run_task` of this module instead of agent_core's. The process records the cost of
the extra work with the clocks of the threads that do it. The true effect of every sample is
therefore known. Both sides of a pair use this module; the side without load does nothing extra.

    none      nothing
    cpu       a loop that fits into the caches of one core
    cache     reads through 32 MB, which evicts other data from a shared cache
    threads   two threads that compress data without holding the GIL
    children  a shell that counts
    sleep     a pause, in microseconds
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_CACHE_BYTES = 32 << 20
_LINE_BYTES = 64
_THREADS = 2
_COUNT = "i=0; while [ $i -lt {units} ]; do i=$((i+1)); done"


def _none(units: int) -> float:
    return 0.0


def _cpu(units: int) -> float:
    total = 0
    for number in range(units):
        total += number
    return 0.0


class _Cache:
    """Reads cache lines, continuing at the previous position so that short reads stay cold."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._position = 0

    def __call__(self, units: int) -> float:
        if not self._memory:
            # Untouched memory would map to a single page of zeros.
            self._memory = bytearray(b"\1") * _CACHE_BYTES
        left = units * _LINE_BYTES
        while left > 0:
            end = min(self._position + left, _CACHE_BYTES)
            # One byte of each cache line, copied without a Python loop.
            _ = self._memory[self._position : end : _LINE_BYTES]
            left -= end - self._position
            self._position = end % _CACHE_BYTES
        return 0.0


def _threads(units: int) -> float:
    from threading import Thread
    from zlib import compress

    # Square numbers compress slowly and need no random generator.
    text = b"".join(b"%d" % (n * n) for n in range(500))
    data = (text * (units // len(text) + 1))[:units]
    cpu_times: list[float] = []

    def work() -> None:
        compress(data)
        cpu_times.append(time.thread_time())

    threads = [Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(cpu_times)


def _children(units: int) -> float:
    # `subprocess` would be imported on one side only.
    argv = ["sh", "-c", _COUNT.format(units=units)]
    pid = os.posix_spawnp("sh", argv, os.environ)
    usage = os.wait4(pid, 0)[2]
    return usage.ru_utime + usage.ru_stime


def _sleep(units: int) -> float:
    time.sleep(units / 1e6)
    return 0.0


_WORK: dict[str, Callable[[], Callable[[int], float]]] = {
    "none": lambda: _none,
    "cpu": lambda: _cpu,
    "cache": _Cache,
    "threads": lambda: _threads,
    "children": lambda: _children,
    "sleep": lambda: _sleep,
}
"""Factories of functions that do `units` of work and return the CPU time (s) spent outside the
calling thread."""
_INTERVAL = {"threads": 5, "children": 10, "sleep": 10}
"""Kinds with a high start-up cost run before every n-th request only."""


def repetitions(kind: str, requests: int) -> int:
    """Return how often the work runs in a session with this number of requests."""
    return -(-requests // _INTERVAL.get(kind, 1))


class LoadedModel:
    """A `ports.Model` that does the extra work before its requests."""

    def __init__(self, model: Any, kind: str, units: int) -> None:
        self._model = model
        self._work = _WORK[kind]()
        self._units = units
        self._interval = _INTERVAL.get(kind, 1)
        self._requests = 0
        self.cpu = 0.0
        self.wall = 0.0

    async def reply(self, history: Sequence[Any], tools: Sequence[Any]) -> Any:
        if self._requests % self._interval == 0:
            wall, cpu = time.perf_counter(), time.thread_time()
            cpu_elsewhere = self._work(self._units)
            self.cpu += time.thread_time() - cpu + cpu_elsewhere
            self.wall += time.perf_counter() - wall
        self._requests += 1
        return await self._model.reply(history, tools)

    async def close(self) -> None:
        await self._model.close()


async def run_task(task: str, *, load: dict[str, Any], **arguments: Any) -> Any:
    """Run `agent_core.build.run_task` with an injected load.

    `load` has `kind`, `units` (before each request) and `ledger`, a file. One line is appended to
    it: process id, CPU time (s) and wall time (s) of the extra work.
    """
    from agent_core import build
    from agent_core.agent import Agent

    models: list[LoadedModel] = []

    def agent(model: Any, *others: Any, **named: Any) -> Agent:
        models.append(LoadedModel(model, load["kind"], load["units"]))
        return Agent(models[-1], *others, **named)

    names = vars(build)
    names["Agent"] = agent
    try:
        return await build.run_task(task, **arguments)
    finally:
        names["Agent"] = Agent
        cpu, wall = sum(model.cpu for model in models), sum(model.wall for model in models)
        _append(Path(load["ledger"]), f"{os.getpid()} {cpu!r} {wall!r}\n")


def _append(ledger: Path, line: str) -> None:
    with ledger.open("a") as file:
        file.write(line)
