"""Measures the sides of a comparison with pytest-benchmark, and puts them beside each other.

pytest-benchmark knows nothing of coroutines: handed an `async def`, it times the making
of a coroutine that nobody awaits. Here they are run by an `asyncio.Runner`, whose own
cost is measured with an empty one and taken away in the table of ratios.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

from msgspec import Struct

EMPTY = "an empty coroutine"
"""The group whose figure is taken away from those of coroutines."""


class Benchmark(Protocol):
    """What is used of pytest-benchmark's fixture."""

    group: str | None
    extra_info: dict[str, Any]

    def __call__(self, target: Callable[[], object], /) -> object: ...

    def pedantic(
        self,
        target: Callable[..., object],
        *,
        setup: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
        rounds: int,
        warmup_rounds: int = 0,
    ) -> object: ...


class Meter:
    """One side of one comparison; the first side of a `group` is what others are held against."""

    def __init__(self, benchmark: Benchmark, runner: asyncio.Runner) -> None:
        self._benchmark = benchmark
        self.runner = runner

    def work(self, group: str, side: str, work: Callable[[], object]) -> None:
        self._label(group, side)
        self._benchmark(work)

    def prepared(
        self, group: str, side: str, setup: Callable[[], Any], work: Callable[[Any], object]
    ) -> None:
        """Each round works on what `setup` made for it."""
        self._label(group, side)
        self._benchmark.pedantic(work, setup=lambda: ((setup(),), {}), rounds=100, warmup_rounds=3)

    def rounds(
        self,
        group: str,
        side: str,
        rounds: int,
        work: Callable[[], object],
        *,
        coroutine: bool = False,
    ) -> None:
        """As many rounds as said, for work that must not be done as often as fits into a second.

        `coroutine` says that `work` runs one by `self.runner`.
        """
        self._label(group, side, coroutine=coroutine)
        self._benchmark.pedantic(work, rounds=rounds, warmup_rounds=min(rounds, 3))

    def coroutine(
        self, group: str, side: str, make: Callable[[], Awaitable[object]], *, times: int = 1
    ) -> None:
        """`make` does its work `times` times, where once would drown in the runner's own cost."""

        async def repeated() -> None:
            for _ in range(times):
                await make()

        self._label(group, side, times=times, coroutine=True)
        self._benchmark(lambda: self.runner.run(repeated()))

    def _label(self, group: str, side: str, *, times: int = 1, coroutine: bool = False) -> None:
        self._benchmark.group = group
        self._benchmark.extra_info |= {"side": side, "times": times, "coroutine": coroutine}


class Measured(Struct, frozen=True):
    """One finished benchmark; seconds a round."""

    group: str
    side: str
    median: float
    least: float
    times: int
    coroutine: bool

    @classmethod
    def of(cls, done: Any) -> "Measured":
        """From pytest-benchmark's own record."""
        stats = done.stats
        return cls(done.group, median=stats.median, least=stats.min, **done.extra_info)

    def less(self, empty: "Measured | None") -> "Measured":
        """Once, and without what an empty coroutine costs."""
        idle = (empty.median, empty.least) if empty is not None and self.coroutine else (0.0, 0.0)
        return Measured(
            self.group,
            self.side,
            max(0.0, self.median - idle[0]) / self.times,
            max(0.0, self.least - idle[1]) / self.times,
            1,
            self.coroutine,
        )


def ratios(done: Iterable[Measured]) -> Iterator[str]:
    """The lines of the table: each side's time, and its share of the first side's."""
    groups: dict[str, list[Measured]] = {}
    for each in done:
        groups.setdefault(each.group, []).append(each)
    empty = groups.pop(EMPTY, [None])[0]
    yield f"{'':58}{'median':>12}{'ratio':>9}{'of least':>10}"
    for sides in groups.values():
        first, *others = [side.less(empty) for side in sides]
        yield f"{_named(first)}{_microseconds(first.median)}{'1':>9}{'1':>10}"
        for other in others:
            shares = (_share(other.median, first.median), _share(other.least, first.least))
            yield f"{_named(other)}{_microseconds(other.median)}{shares[0]:>9}{shares[1]:>10}"
    if empty is None:
        yield f"Nothing was taken away for the runner: {EMPTY} was not measured."
    else:
        yield f"Taken away from every coroutine: {_microseconds(empty.median).strip()}."


def _named(side: Measured) -> str:
    return f"{side.group:36}{side.side:22}"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:9.1f} us"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:#.2g}" if whole else "-"
