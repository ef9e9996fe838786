"""Is the metric `blocked` precise enough to gate waiting times?

    python -m tests.studies.blocked --pairs 40 --out blocked.json

Side B sleeps longer, in a few equal parts of a session; all pairs are serial. Each amount is
measured twice: on the machine as it is, and with a process on every core that computes for 30 % of
the time in random bursts. The provider takes --think milliseconds per reply, so both sides always
wait. With 0, `blocked` can be 0, which has no ratio.

A             median of side A (ms)
true          actual extra sleep of B (ms), by its own clock
bias          mean of B - A (ms) minus the true value
sd            standard deviation of B - A (ms)
pair sd       standard deviation of the log ratios; "-" if a value is zero
found         share of bootstrap windows of 8, 20 and 40 pairs that `serial-v1` calls a regression
              in a family of 30 rows. The pairs without extra sleep take the place of A/A pairs;
              for 0 ms these are false regressions
standing      reliability according to those pairs: gated, too noisy, sides differ
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
    INJECTED_WALL,
    NO_LOAD,
    NOISE_SCENARIO,
    InjectedLoad,
    Mean,
    load_contrasts,
    load_scenario,
    make_parser,
    markdown_table,
    mean,
    measured_pairs,
    open_executor,
    run_cells,
    write_raw,
)
from tests.studies.injected_load import repetitions
from tests.trae_bench.operating_characteristics import FAMILY, judge_alone
from trae_bench._util.cpu_affinity import cores
from trae_bench.execution.ports import Executor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Limits
from trae_bench.model.result import Estimate
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.decision import SERIAL_V1, Row, estimate
from trae_bench.stats.metric_rules import MIN_DIFFERENCES
from trae_bench.stats.noise import reliability_of

METRIC_NAMES = ("blocked", "wall", "session_overhead")
BACKGROUND_LOADS = {"quiet": 0.0, "load": 0.3}
"""Share of the time for which a process on each core computes."""
SIZES = (8, 20, 40)
WINDOWS = 400

_BUSY = """
import os, random, sys, time
core, share = int(sys.argv[1]), float(sys.argv[2])
os.sched_setaffinity(0, {core})
rng = random.Random(core)
while True:
    burst = rng.expovariate(1 / 0.02)
    end = time.monotonic() + burst
    while time.monotonic() < end:
        pass
    time.sleep(burst * (1 - share) / share)
"""

Pair = tuple[Sample, Sample]


class Line(Struct, frozen=True):
    """One row of the table; times in milliseconds."""

    background: str
    requested: float
    metric: str
    a: float
    true: float
    bias: Mean
    pair_sd: float
    found: dict[int, float]
    standing: str


@contextmanager
def busy_cores(share: float) -> Iterator[None]:
    """Run a process on each core that computes for this share of the time."""
    with ExitStack() as running:
        for core in cores() if share else ():
            argv = [sys.executable, "-I", "-S", "-c", _BUSY, str(core), str(share)]
            process = running.enter_context(subprocess.Popen(argv))
            # Popen's exit waits for the end of the process, so kill it first.
            running.callback(process.kill)
        yield


def row_of(pairs: Sequence[Pair], metric: str, floor: Estimate | None = None) -> Row:
    return Row(
        a=tuple(a.metrics[metric] for a, _ in pairs),
        b=tuple(b.metrics[metric] for _, b in pairs),
        rule=SERIAL_V1,
        floor_sd=floor.sd if floor else 0.0,
        minimum=MIN_DIFFERENCES.get(metric, 0.0),
    )


def power(
    pairs: Sequence[Pair], metric: str, floor: Estimate | None, rng: Random
) -> dict[int, float]:
    """Return the share of windows with a regression, by window size."""
    shares = {}
    for size in (size for size in SIZES if size <= len(pairs)):
        windows = (rng.choices(pairs, k=size) for _ in range(WINDOWS))
        verdicts = [judge_alone(row_of(window, metric, floor)).verdict for window in windows]
        shares[size] = verdicts.count("regression") / WINDOWS
    return shares


def make_lines(background: str, by_amount: dict[float, list[Pair]], rng: Random) -> Iterator[Line]:
    for metric in METRIC_NAMES:
        floor = estimate(row_of(by_amount[0.0], metric))
        for amount, pairs in by_amount.items():
            slept = [b.metrics[INJECTED_WALL] - a.metrics[INJECTED_WALL] for a, b in pairs]
            differences = [b.metrics[metric] - a.metrics[metric] for a, b in pairs]
            measured = estimate(row_of(pairs, metric))
            yield Line(
                background=background,
                requested=amount,
                metric=metric,
                a=1000 * median(a.metrics[metric] for a, _ in pairs),
                true=1000 * median(slept),
                bias=mean([1000 * (d - s) for d, s in zip(differences, slept, strict=True)]),
                pair_sd=measured.sd if measured and measured.log_ratio is not None else math.nan,
                found=power(pairs, metric, floor, rng),
                standing=reliability_of(floor, METRICS[metric], FAMILY),
            )


def measure(
    executor: Executor, scenario: Scenario, amounts: Sequence[float], pairs: int, seed: int
) -> dict[str, list[Sample]]:
    """Return the samples of each background load."""
    parts = repetitions("sleep", sum(turn.repeat for turn in scenario.turns))
    loads = {
        f"{amount:g} ms": InjectedLoad("sleep", round(1000 * amount / parts)) if amount else NO_LOAD
        for amount in amounts
    }
    contrasts = load_contrasts(scenario, loads)[1:]
    cells = [Cell(scenario.name, contrast, "serial", METRIC_NAMES) for contrast in contrasts]
    samples = {}
    for name, share in BACKGROUND_LOADS.items():
        with busy_cores(share):
            ending = run_cells(executor, cells, Limits(pairs=pairs, fixed=True), seed)
        samples[name] = list(ending.samples)
    return samples


def report(lines: Sequence[Line]) -> str:
    head = (
        *("machine", "slept longer", "metric", "A", "true", "bias", "sd", "pair sd"),
        *(f"found in {size}" for size in SIZES),
        "standing",
    )
    return markdown_table(head, [_cells(line) for line in lines])


def _cells(line: Line) -> tuple[str, ...]:
    bias = line.bias
    return (
        line.background,
        f"{line.requested:g} ms",
        line.metric,
        f"{line.a:.0f} ms",
        f"{line.true:.1f} ms",
        f"{bias.value:+.1f} ms [{bias.low:+.1f} {bias.high:+.1f}]",
        f"{bias.sd:.1f} ms",
        "-" if math.isnan(line.pair_sd) else f"{line.pair_sd:.1%}",
        *(f"{line.found[size]:.0%}" if size in line.found else "-" for size in SIZES),
        line.standing,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "blocked")
    parser.add_argument("--scenario", default=NOISE_SCENARIO, help="default: %(default)s")
    parser.add_argument("--milliseconds", default="5,10,20", help="default: %(default)s")
    parser.add_argument(
        "--think", type=float, default=2.0, help="ms per reply; default: %(default)s"
    )
    parser.add_argument("--pairs", type=int, default=40, help="default: %(default)s, at most 40")
    options = parser.parse_args(argv)
    amounts = [0.0, *map(float, options.milliseconds.split(","))]
    scenario = load_scenario(options.scenario, METRIC_NAMES)
    provider = replace(scenario.provider, think_seconds=options.think / 1000)
    scenario = replace(scenario, provider=provider)
    with open_executor(scenario) as executor:
        samples = measure(executor, scenario, amounts, options.pairs, options.seed)
    rng = Random(options.seed)
    lines: list[Line] = []
    for background, taken in samples.items():
        by_amount = {
            amount: measured_pairs(taken, f"{amount:g} ms", "serial") for amount in amounts
        }
        lines += make_lines(background, by_amount, rng)
    write_raw(options, lines=lines, samples=samples)
    print(f"{options.scenario}, {options.pairs} pairs each\n\n{report(lines)}")


if __name__ == "__main__":
    main()
