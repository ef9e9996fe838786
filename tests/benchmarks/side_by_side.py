"""Compare the sides of an optimisation with pytest-benchmark, and print their ratios.

pytest-benchmark does not support coroutines: for an `async def` it times the creation of a
coroutine that is never awaited. Here an `asyncio.Runner` runs them. Its cost is measured with an
empty coroutine and subtracted in the table of ratios.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

from msgspec import Struct

EMPTY = "an empty coroutine"
"""Group whose time is subtracted from those of coroutines."""


class Benchmark(Protocol):
    """The part of pytest-benchmark's fixture that is used here."""

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


class Comparison:
    """Measures one side of a group. Ratios refer to the first side of the group."""

    def __init__(self, benchmark: Benchmark, runner: asyncio.Runner) -> None:
        self._benchmark = benchmark
        self.runner = runner

    def measure(self, group: str, side: str, work: Callable[[], object]) -> None:
        self._label(group, side)
        self._benchmark(work)

    def measure_with_setup(
        self, group: str, side: str, setup: Callable[[], Any], work: Callable[[Any], object]
    ) -> None:
        """Pass the result of `setup` to `work` in each round."""
        self._label(group, side)
        self._benchmark.pedantic(work, setup=lambda: ((setup(),), {}), rounds=100, warmup_rounds=3)

    def measure_rounds(
        self,
        group: str,
        side: str,
        rounds: int,
        work: Callable[[], object],
        *,
        coroutine: bool = False,
    ) -> None:
        """Run a fixed number of rounds, for work that must not be repeated for a whole second.

        Set `coroutine` if `work` uses `self.runner`.
        """
        self._label(group, side, coroutine=coroutine)
        self._benchmark.pedantic(work, rounds=rounds, warmup_rounds=min(rounds, 3))

    def measure_coroutine(
        self, group: str, side: str, make: Callable[[], Awaitable[object]], *, times: int = 1
    ) -> None:
        """Await `make()` `times` times per round, to make the cost of the runner small."""

        async def repeated() -> None:
            for _ in range(times):
                await make()

        self._label(group, side, times=times, coroutine=True)
        self._benchmark(lambda: self.runner.run(repeated()))

    def _label(self, group: str, side: str, *, times: int = 1, coroutine: bool = False) -> None:
        self._benchmark.group = group
        self._benchmark.extra_info |= {"side": side, "times": times, "coroutine": coroutine}


class Measured(Struct, frozen=True):
    """One finished benchmark, in seconds per round."""

    group: str
    side: str
    median: float
    minimum: float
    times: int
    coroutine: bool

    @classmethod
    def from_benchmark(cls, benchmark: Any) -> "Measured":
        """Convert a record of pytest-benchmark."""
        stats = benchmark.stats
        return cls(benchmark.group, median=stats.median, minimum=stats.min, **benchmark.extra_info)

    def without(self, empty: "Measured | None") -> "Measured":
        """Return the time of one execution, without the cost of an empty coroutine."""
        idle = (empty.median, empty.minimum) if empty is not None and self.coroutine else (0.0, 0.0)
        return Measured(
            self.group,
            self.side,
            max(0.0, self.median - idle[0]) / self.times,
            max(0.0, self.minimum - idle[1]) / self.times,
            1,
            self.coroutine,
        )


def ratio_table(measured: Iterable[Measured]) -> Iterator[str]:
    """Yield the lines of the table: time of each side, and its ratio to the first side."""
    groups: dict[str, list[Measured]] = {}
    for side in measured:
        groups.setdefault(side.group, []).append(side)
    empty = groups.pop(EMPTY, [None])[0]
    yield f"{'':58}{'median':>12}{'ratio':>9}{'of min':>10}"
    for sides in groups.values():
        first, *others = [side.without(empty) for side in sides]
        yield f"{_label(first)}{_microseconds(first.median)}{'1':>9}{'1':>10}"
        for other in others:
            ratio = _ratio(other.median, first.median)
            ratio_of_min = _ratio(other.minimum, first.minimum)
            yield f"{_label(other)}{_microseconds(other.median)}{ratio:>9}{ratio_of_min:>10}"
    if empty is None:
        yield f"The cost of the runner is included: {EMPTY} was not measured."
    else:
        yield f"Subtracted from every coroutine: {_microseconds(empty.median).strip()}."


def _label(side: Measured) -> str:
    return f"{side.group:36}{side.side:22}"


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:9.1f} us"


def _ratio(time: float, reference: float) -> str:
    return f"{time / reference:#.2g}" if reference else "-"
