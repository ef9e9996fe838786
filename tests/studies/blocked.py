"""Is the metric `blocked` good enough to gate waiting?

    python -m tests.studies.blocked --pairs 40 --out blocked.json

Side B sleeps so many milliseconds longer in a session, in a few even parts; all pairs are
serial. Each amount is measured twice: on the machine as it is, and with a process on every core
that computes for 30 % of the time, in bursts of chance. The provider takes --think milliseconds
for each reply, so that both sides wait anyhow: with 0, `blocked` may be 0, which has no ratio.

A             median of side A (ms)
true          what B really slept longer (ms), by its own clock
difference    mean of B - A (ms), less the true one: the bias
sd            of the pairs' B - A (ms)
pair sd       of the pairs' log ratios; no ratio where a value is zero
found         share of windows of 8, 20 and 40 pairs, drawn from the pairs with replacement,
              that `serial-v1` calls a regression in a family of 30 rows; the spread of the
              pairs without extra sleep stands in for A/A pairs. For 0 ms: false regressions
standing      what those pairs say of the metric: gated, too noisy, sides differ
"""

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from tests.studies.harness import (
    BURDEN_WALL,
    NOISE,
    NOTHING,
    Burden,
    Mean,
    arguments,
    bench,
    burdened,
    keep,
    mean,
    pairs_of,
    play,
    scenario_of,
    table,
)
from tests.studies.injected_load import times
from tests.trae_bench.operating_characteristics import FAMILY, judge_alone
from trae_bench._util.cpu_affinity import cores
from trae_bench.execution.ports import Executor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Limits
from trae_bench.model.result import Estimate
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import MINIMUM, standing
from trae_bench.stats.decision import SERIAL_V1, Row, estimate

COMPARED = ("blocked", "wall", "session_overhead")
LOADS = {"quiet": 0.0, "load": 0.3}
"""Share of its time for which a process on each core computes."""
SIZES = (8, 20, 40)
WINDOWS = 400

_HOG = """
import os, random, sys, time
core, share = int(sys.argv[1]), float(sys.argv[2])
os.sched_setaffinity(0, {core})
draw = random.Random(core)
while True:
    burst = draw.expovariate(1 / 0.02)
    end = time.monotonic() + burst
    while time.monotonic() < end:
        pass
    time.sleep(burst * (1 - share) / share)
"""

Pair = tuple[Sample, Sample]


class Line(Struct, frozen=True):
    load: str
    asked: float
    """Milliseconds."""
    metric: str
    a: float
    """Milliseconds, as are `true` and `bias`."""
    true: float
    bias: Mean
    pair_sd: float
    found: dict[int, float]
    standing: str


@contextmanager
def hogs(share: float) -> Iterator[None]:
    """A process on each core that computes for this share of the time."""
    with ExitStack() as running:
        for core in cores() if share else ():
            argv = [sys.executable, "-I", "-S", "-c", _HOG, str(core), str(share)]
            hog = running.enter_context(subprocess.Popen(argv))
            # Before Popen's own exit, which waits for its end.
            running.callback(hog.kill)
        yield


def row_of(pairs: Sequence[Pair], metric: str, floor: Estimate | None = None) -> Row:
    return Row(
        a=tuple(a.metrics[metric] for a, _ in pairs),
        b=tuple(b.metrics[metric] for _, b in pairs),
        rule=SERIAL_V1,
        floor_sd=floor.sd if floor else 0.0,
        minimum=MINIMUM.get(metric, 0.0),
    )


def power(
    pairs: Sequence[Pair], metric: str, floor: Estimate | None, draw: Random
) -> dict[int, float]:
    found = {}
    for size in (size for size in SIZES if size <= len(pairs)):
        windows = (draw.choices(pairs, k=size) for _ in range(WINDOWS))
        judged = [judge_alone(row_of(window, metric, floor)).verdict for window in windows]
        found[size] = judged.count("regression") / WINDOWS
    return found


def lines_of(load: str, by_amount: dict[float, list[Pair]], draw: Random) -> Iterator[Line]:
    for metric in COMPARED:
        floor = estimate(row_of(by_amount[0.0], metric))
        for amount, pairs in by_amount.items():
            slept = [b.metrics[BURDEN_WALL] - a.metrics[BURDEN_WALL] for a, b in pairs]
            longer = [b.metrics[metric] - a.metrics[metric] for a, b in pairs]
            shown = estimate(row_of(pairs, metric))
            yield Line(
                load=load,
                asked=amount,
                metric=metric,
                a=1000 * median(a.metrics[metric] for a, _ in pairs),
                true=1000 * median(slept),
                bias=mean([1000 * (d - s) for d, s in zip(longer, slept, strict=True)]),
                pair_sd=shown.sd if shown and shown.log_ratio is not None else math.nan,
                found=power(pairs, metric, floor, draw),
                standing=standing(floor, METRICS[metric], FAMILY),
            )


def measured(
    executor: Executor, scenario: Scenario, amounts: Sequence[float], pairs: int, seed: int
) -> dict[str, list[Sample]]:
    parts = times("sleep", sum(turn.repeat for turn in scenario.turns))
    burdens = {
        f"{amount:g} ms": Burden("sleep", round(1000 * amount / parts)) if amount else NOTHING
        for amount in amounts
    }
    compared = burdened(scenario, burdens)[1:]
    planned = [Cell(scenario.name, one, "serial", COMPARED) for one in compared]
    found = {}
    for name, share in LOADS.items():
        with hogs(share):
            ending = play(executor, planned, Limits(pairs=pairs, fixed=True), seed)
        found[name] = list(ending.samples)
    return found


def report(lines: Sequence[Line]) -> str:
    head = (
        *("machine", "slept longer", "metric", "A", "true", "bias", "sd", "pair sd"),
        *(f"found in {size}" for size in SIZES),
        "standing",
    )
    return table(head, [_cells(line) for line in lines])


def _cells(line: Line) -> tuple[str, ...]:
    bias = line.bias
    return (
        line.load,
        f"{line.asked:g} ms",
        line.metric,
        f"{line.a:.0f} ms",
        f"{line.true:.1f} ms",
        f"{bias.value:+.1f} ms [{bias.low:+.1f} {bias.high:+.1f}]",
        f"{bias.sd:.1f} ms",
        "-" if math.isnan(line.pair_sd) else f"{line.pair_sd:.1%}",
        *(f"{line.found[size]:.0%}" if size in line.found else "-" for size in SIZES),
        line.reliability,
    )


def main(said: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "blocked")
    parser.add_argument("--scenario", default=NOISE, help="default: %(default)s")
    parser.add_argument("--milliseconds", default="5,10,20", help="default: %(default)s")
    parser.add_argument("--think", type=float, default=2.0, help="ms a reply; %(default)s")
    parser.add_argument("--pairs", type=int, default=40, help="default: %(default)s, at most 40")
    asked = parser.parse_args(said)
    amounts = [0.0, *map(float, asked.milliseconds.split(","))]
    scenario = scenario_of(asked.scenario, COMPARED)
    provider = replace(scenario.provider, think_seconds=asked.think / 1000)
    scenario = replace(scenario, provider=provider)
    with bench(scenario) as executor:
        samples = measured(executor, scenario, amounts, asked.pairs, asked.seed)
    draw = Random(asked.seed)
    lines = [
        line
        for load, taken in samples.items()
        for by_amount in [{each: pairs_of(taken, f"{each:g} ms", "serial") for each in amounts}]
        for line in lines_of(load, by_amount, draw)
    ]
    keep(asked, lines=lines, samples=samples)
    print(f"{asked.scenario}, {asked.pairs} pairs each\n\n{report(lines)}")


if __name__ == "__main__":
    main()
