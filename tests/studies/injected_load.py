"""The child's side of an injected effect: agent_core, with known extra work before each request.

The worker calls `run_task` here in place of agent_core's own. What the extra work cost is
noted by the process itself, on the clocks of the threads that did it, so that the true effect
of every single sample is known. Both sides of a pair run this; the unburdened one does nothing.

    none      nothing
    cpu       a loop that stays in the core's own caches
    cache     reads through 32 MB, so that whoever shares the cache finds it cold
    threads   two threads that compress, without Python's lock
    children  a shell that counts
    sleep     nothing at all, for a while
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
    """Goes on where it stopped, so that a short walk meets other lines the next time."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._at = 0

    def __call__(self, units: int) -> float:
        if not self._memory:
            # Written to, or all of it would be one and the same page of zeros.
            self._memory = bytearray(b"\1") * _CACHE_BYTES
        left = units * _LINE_BYTES
        while left > 0:
            end = min(self._at + left, _CACHE_BYTES)
            # A copy of one byte of each line, which is made without a step of Python between.
            _ = self._memory[self._at : end : _LINE_BYTES]
            left -= end - self._at
            self._at = end % _CACHE_BYTES
        return 0.0


def _threads(units: int) -> float:
    from threading import Thread
    from zlib import compress

    # Numbers compress slowly enough to take their time, and need no generator of chance.
    text = b"".join(b"%d" % (n * n) for n in range(500))
    data = (text * (units // len(text) + 1))[:units]
    spent: list[float] = []

    def work() -> None:
        compress(data)
        spent.append(time.thread_time())

    started = [Thread(target=work) for _ in range(_THREADS)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return sum(spent)


def _children(units: int) -> float:
    # Not by `subprocess`, which would be imported on one side only.
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
"""Makes what does so many units, and returns the CPU (s) that it spent outside this thread."""
_EVERY = {"threads": 5, "children": 10, "sleep": 10}
"""Before each so-manieth request only, for what costs much to begin."""


def times(kind: str, requests: int) -> int:
    """How often the work is done in a session of so many requests."""
    return -(-requests // _EVERY.get(kind, 1))


class Burdened:
    """A model, before each of whose requests the extra work is done; see `ports.Model`."""

    def __init__(self, model: Any, kind: str, units: int) -> None:
        self._model = model
        self._work = _WORK[kind]()
        self._units = units
        self._every = _EVERY.get(kind, 1)
        self._asked = 0
        self.cpu = 0.0
        self.wall = 0.0

    async def reply(self, history: Sequence[Any], tools: Sequence[Any]) -> Any:
        if self._asked % self._every == 0:
            wall, cpu = time.perf_counter(), time.thread_time()
            elsewhere = self._work(self._units)
            self.cpu += time.thread_time() - cpu + elsewhere
            self.wall += time.perf_counter() - wall
        self._asked += 1
        return await self._model.reply(history, tools)

    async def close(self) -> None:
        await self._model.close()


async def run_task(task: str, *, burden: dict[str, Any], **arguments: Any) -> Any:
    """`agent_core.build.run_task` under a burden: `kind`, `units` before each request, and
    `ledger`, the file that gets a line of this process's number and what the work cost."""
    from agent_core import build
    from agent_core.agent import Agent

    laden: list[Burdened] = []

    def agent(model: Any, *others: Any, **named: Any) -> Agent:
        laden.append(Burdened(model, burden["kind"], burden["units"]))
        return Agent(laden[-1], *others, **named)

    names = vars(build)
    names["Agent"] = agent
    try:
        return await build.run_task(task, **arguments)
    finally:
        names["Agent"] = Agent
        cpu, wall = sum(one.cpu for one in laden), sum(one.wall for one in laden)
        _note(Path(burden["ledger"]), f"{os.getpid()} {cpu!r} {wall!r}\n")


def _note(ledger: Path, line: str) -> None:
    with ledger.open("a") as file:
        file.write(line)
