"""Which estimate of the step overhead is precise on a busy machine?

    python -m tests.studies.step_times --scenario bugfix --load 2 --pairs 60 --out steps.jsonl

Takes A/A duets and keeps the times of every step. `--report FILE ...` compares estimates of one
side's step overhead on the same pairs, each less the time that others took:

median        median of the steps (`step_overhead_net`)
mean          mean of the steps: their sum over their number (`session_overhead_net`)
trimmed       mean without the shortest and longest tenth of the steps
geometric     geometric mean: the log ratio of a pair is the mean over its matched steps
plain median  median without subtraction

pair sd       standard deviation of the log ratios of A/A pairs
gated         share of random sets of 8 A/A pairs that let the gate judge the metric
settled       share of these windows of 8 + 60 pairs whose row is settled at its last look
found         the same with 10 % added to every step of side B: share of regressions
zero          share of the steps whose delay is larger than they are: they count as 0
"""

import math
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean, median, stdev
from typing import Any

from msgspec import Struct, convert

from tests.studies.harness import (
    RoundLog,
    TimeLimit,
    add_load,
    add_report,
    describe_head,
    hogs,
    load_scenario,
    make_arm,
    make_parser,
    markdown_table,
    open_executor,
    print_progress,
    read_head,
    read_rounds,
    stop_on_interrupt,
)
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.execution.trial_result import TrialResult, TrialSetup
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Side, Trial
from trae_bench.model.result import Verdict
from trae_bench.model.sample import ProcessResult, SessionLog, WrittenFiles
from trae_bench.scenario import Scenario
from trae_bench.stats.decision import DUET_V1, Row, estimate, verdicts
from trae_bench.stats.noise import reliability_of
from trae_bench.stats.pairs import RowKey

FAMILY = 10
"""Rows of a gate that judges two scenarios."""
WINDOWS = 200
ADDED = 0.10
SIDES: tuple[Side, ...] = ("A", "B")


class Step(Struct, frozen=True):
    """One step. Microseconds."""

    gap: int
    """From the last byte of the reply to the last byte of the next request."""
    delay: int
    """The part of it in which others kept the trial from running."""
    late: int
    """The part of it in which the provider waited for its core."""

    @property
    def net(self) -> float:
        return max(0.0, self.gap - self.delay - self.late)


Steps = tuple[Step, ...]


class Pair(Struct, frozen=True):
    """The steps of both sides."""

    a: Steps
    b: Steps


def steps_of(log: SessionLog) -> Steps:
    """The steps of a session; none if their delays are unknown."""
    ordered = sorted(log.requests, key=lambda request: request.arrived)
    found = []
    for earlier, later in pairwise(ordered):
        if earlier.reply_delay is None or later.delay is None:
            return ()
        seconds = (
            later.arrived - earlier.replied,
            later.delay - earlier.reply_delay,
            later.read_late,
        )
        found.append(Step(*(round(1e6 * value) for value in seconds)))
    return tuple(found)


class StepRecorder(SubprocessExecutor[Any]):
    """Keeps the steps of the last trial of each side in `found`."""

    def __init__(self, *arguments: Any, found: dict[Side, Steps], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._found = found

    def _result(
        self, setup: TrialSetup, process: ProcessResult, files: WrittenFiles | None
    ) -> TrialResult:
        result = super()._result(setup, process, files)
        self._found[setup.trial.side] = steps_of(result.logs[0]) if result.logs else ()
        return result


def measured(scenario: Scenario, count: int) -> Iterator[Pair]:
    """Take A/A duets. A pair without the delays of its requests does not count."""
    found: dict[Side, Steps] = {}
    arm = make_arm(scenario)
    with open_executor(scenario, partial(StepRecorder, found=found)) as executor:
        for number in range(count + 1):
            trials = [
                Trial(scenario.name, "A/A", "duet", number, side, slot, arm, number)
                for slot, side in enumerate(SIDES if number % 2 else SIDES[::-1])
            ]
            executor.run(trials)
            if number and found["A"] and len(found["A"]) == len(found["B"]):
                yield Pair(found["A"], found["B"])


# -- estimates --------------------------------------------------------------------------


def _trimmed(times: Sequence[float]) -> float:
    cut = len(times) // 10
    return fmean(sorted(times)[cut : len(times) - cut])


def _geometric(times: Sequence[float]) -> float:
    # A step that counts as 0 has no logarithm.
    return math.exp(fmean(math.log(max(time, 1.0)) for time in times))


Estimator = Callable[[Steps], float]
ESTIMATORS: Mapping[str, Estimator] = {
    "median": lambda steps: median(step.net for step in steps),
    "mean": lambda steps: fmean(step.net for step in steps),
    "trimmed": lambda steps: _trimmed([step.net for step in steps]),
    "geometric": lambda steps: _geometric([step.net for step in steps]),
    "plain median": lambda steps: median(step.gap for step in steps),
}


def log_ratios(pairs: Sequence[Pair], estimator: Estimator) -> list[float]:
    values = [(estimator(pair.a), estimator(pair.b)) for pair in pairs]
    return [math.log(b / a) for a, b in values if a > 0 and b > 0]


class Window(Struct, frozen=True):
    """How the rule judges one window of pairs, after 8 others as A/A pairs."""

    gated: bool
    verdict: Verdict


def windows(ratios: Sequence[float], added: float, seed: str) -> list[Window]:
    """Judge random windows of pairs, with the labels of the sides swapped at random."""
    rng = Random(seed)

    def drawn(count: int) -> tuple[float, ...]:
        return tuple(math.exp(rng.choice((-1, 1)) * rng.choice(ratios)) for _ in range(count))

    found = []
    metric = METRICS["step_overhead_net"]
    for _ in range(WINDOWS):
        first, last = DUET_V1.looks[0], DUET_V1.looks[-1]
        aa = estimate(Row(a=(1.0,) * first, b=drawn(first)))
        b = tuple(value * (1 + added) for value in drawn(last))
        row = Row(a=(1.0,) * last, b=b, floor_sd=aa.sd if aa else 0.0)
        family = {RowKey("", str(n), ""): row for n in range(FAMILY)}
        judged = verdicts(family)[RowKey("", "0", "")]
        gated = reliability_of(aa, metric, FAMILY) == "gated"
        found.append(Window(gated, judged.verdict))
    return found


# -- command line -----------------------------------------------------------------------


def report(files: Sequence[Path]) -> str:
    groups: dict[tuple[str, int], list[Pair]] = {}
    for file in files:
        options = read_head(file)["options"]
        group = groups.setdefault((options["scenario"], options["load"]), [])
        group += convert(read_rounds(file), list[Pair])
    head = ("scenario", "load", "pairs", "steps", "zero", "estimate", "pair sd", "gated")
    lines = [line for key, pairs in groups.items() for line in _lines(*key, pairs)]
    machines = dict.fromkeys(describe_head(read_head(file)) for file in files)
    table = markdown_table((*head, "settled", f"found, +{ADDED:.0%}"), lines)
    return "\n\n".join([table, *(f"Measured on {machine}." for machine in machines)])


def _lines(scenario: str, load: int, pairs: Sequence[Pair]) -> Iterator[tuple[object, ...]]:
    steps = [step for pair in pairs for step in (*pair.a, *pair.b)]
    zero = sum(not step.net for step in steps) / len(steps)
    for name, estimator in ESTIMATORS.items():
        ratios = log_ratios(pairs, estimator)
        equal = windows(ratios, 0.0, f"{scenario} {load} {name}")
        slower = windows(ratios, ADDED, f"{scenario} {load} {name} slower")
        yield (
            *(scenario, load, len(pairs), len(pairs[0].a), f"{zero:.0%}", name),
            f"{100 * stdev(ratios):.1f} %",
            f"{fmean(one.gated for one in equal):.0%}",
            f"{fmean(one.verdict != 'inconclusive' for one in equal):.0%}",
            f"{fmean(one.verdict == 'regression' for one in slower):.0%}",
        )


def measure(options: Namespace) -> list[Pair]:
    """Take pairs until the limits of the options, and return them with those of the log."""
    fixed = ("scenario", "load", "pairs")
    log = RoundLog(options.out, {name: getattr(options, name) for name in fixed})
    pairs = convert(log.rounds, list[Pair])
    limit = TimeLimit(options.minutes)
    with hogs(options.load), stop_on_interrupt():
        for pair in measured(load_scenario(options.scenario), options.pairs - len(pairs)):
            pairs.append(pair)
            log.append(pair)
            if limit.remaining <= 0:
                break
    return pairs


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "step_times")
    parser.add_argument("--scenario", default="bugfix")
    parser.add_argument("--pairs", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, help="take no pair after this time")
    add_load(parser)
    add_report(parser)
    options = parser.parse_args(argv)
    if options.report:
        print(report(options.report))
        return
    pairs = measure(options)
    print_progress(f"{len(pairs)} pairs of {options.scenario}")


if __name__ == "__main__":
    main()
