"""Does the rule find a slowdown of known size, in how many pairs and seconds?

    python -m tests.studies.injected --shares 0,3,5,10 --rounds 10 --out injected.jsonl

Side B carries extra work (`burden.py`), a loop before each request, made at the start to cost
about so many percent of the session's CPU. Each round is one run of its own with A/A pairs and
a contrast for each share, judged as `trae-bench run` judges. What the work really added is
known from each sample's own account: the true effect on cpu and wall; session_overhead has it from
the same account, less the share of the first request, which comes before any reply.

`--metrics cpu` leaves the serial pairs out, which cost most of the time.
"""

import math
from argparse import Namespace
from collections.abc import Sequence
from random import Random
from statistics import median

from msgspec import Struct, convert

from tests.studies.harness import (
    BURDEN_WALL,
    NOISE,
    NOTHING,
    Burden,
    Clock,
    Log,
    arguments,
    bench,
    burdened,
    calibrated,
    injected,
    mean,
    pairs_of,
    play,
    say,
    scenario_of,
    share,
    stoppable,
    table,
    told,
)
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.execution.ports import Executor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Limits
from trae_bench.model.result import Verdict
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons

METRICS_ASKED = ("cpu", "wall", "session_overhead")


class Found(Struct, frozen=True):
    """What the rule said of one share and metric in one round."""

    share: float
    """Percent, as asked for."""
    metric: str
    gated: bool
    verdict: Verdict
    pairs: int
    seconds: float
    """That the pairs of its cell took, those of the cell's other metrics being the same."""
    log_ratio: float | None
    truth: tuple[float, ...]
    """The log ratio that each pair's burden brought about, by its own account."""


def truth(pair: tuple[Sample, Sample], metric: str) -> float:
    a, b = pair
    if metric in ("cpu", "wall"):
        return injected(b, metric) - injected(a, metric)
    requests = b.metrics["requests"]
    cost = b.metrics[BURDEN_WALL] * (requests - 1) / requests
    return -math.log1p(-cost / b.metrics["session_overhead"])


def found_in(samples: Sequence[Sample], asked: Sequence[Cell]) -> list[Found]:
    rows = comparisons(samples, asked, METRICS)
    return [
        Found(
            share=float(row.contrast.rstrip(" %")),
            metric=row.metric,
            gated=row.gated,
            verdict=row.judgement.verdict,
            pairs=row.pairs.measured,
            seconds=sum(_seconds(pair) for pair in pairs),
            log_ratio=row.estimate.log_ratio if row.estimate else None,
            truth=tuple(truth(pair, row.metric) for pair in pairs),
        )
        for row in rows
        if row.contrast != NOISE_FLOOR
        for pairs in [pairs_of(samples, row.contrast, row.mode)]
    ]


def _seconds(pair: tuple[Sample, Sample]) -> float:
    walls = [sample.metrics["wall"] for sample in pair]
    return max(walls) if pair[0].mode == "duet" else sum(walls)


def report(found: Sequence[Found]) -> str:
    groups: dict[tuple[str, float], list[Found]] = {}
    for one in found:
        groups.setdefault((one.metric, one.share), []).append(one)
    head = (
        *("metric", "asked", "true effect", "mean estimate", "runs", "found", "false improvement"),
        *("equivalent", "inconclusive", "not gated", "median pairs", "median seconds"),
    )
    return table(head, [_line(*key, group) for key, group in sorted(groups.items())])


def _line(metric: str, asked: float, found: Sequence[Found]) -> tuple[object, ...]:
    verdicts = [one.verdict for one in found]
    estimates = [one.log_ratio for one in found if one.log_ratio is not None]
    return (
        metric,
        f"{asked:g} %",
        told(mean([each for one in found for each in one.truth]), 2),
        told(mean(estimates), 2),
        len(found),
        share(verdicts.count("regression"), len(found)),
        verdicts.count("improvement"),
        verdicts.count("equivalent"),
        verdicts.count("inconclusive"),
        sum(not one.gated for one in found),
        f"{median(one.pairs for one in found):.0f}",
        f"{median(one.seconds for one in found):.1f}",
    )


def main(said: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "injected")
    parser.add_argument("--scenario", default=NOISE, help="default: %(default)s")
    parser.add_argument("--shares", default="0,3,5,10", help="percent of CPU; %(default)s")
    parser.add_argument("--metrics", default=",".join(METRICS_ASKED), help="%(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="in all; %(default)s")
    parser.add_argument("--minutes", type=float, help="begin no round after that")
    parser.add_argument("--pairs", type=int, help="of a cell, at most; for trying this out")
    asked = parser.parse_args(said)
    log = rounds(asked)
    found = [convert(one, Found) for each in log.rounds for one in each["found"]]
    seconds = sum(each["seconds"] for each in log.rounds)
    print(f"{asked.scenario}, {len(log.rounds)} runs, {seconds:.0f} s\n\n{report(found)}")


def rounds(asked: Namespace) -> Log:
    wishes = {name: getattr(asked, name) for name in ("scenario", "shares", "metrics", "pairs")}
    log, clock = Log(asked.out, wishes | {"seed": asked.seed}), Clock(asked.minutes)
    scenario = scenario_of(asked.scenario, asked.metrics.split(","))
    with bench(scenario) as executor, stoppable():
        burdens = {
            f"{part} %": _burden(executor, scenario, part) for part in asked.shares.split(",")
        }
        planned = cells(scenario.name, scenario.metrics, burdened(scenario, burdens), METRICS)
        while len(log.rounds) < asked.rounds and clock.left > 0:
            seed = Random(f"{asked.seed}|{len(log.rounds)}").getrandbits(32)
            ending = play(executor, planned, Limits(pairs=asked.pairs), seed)
            found = found_in(ending.samples, planned)
            log.append({"seconds": ending.elapsed, "found": found})
            say(f"{len(log.rounds)}: {ending.elapsed:.0f} s")
    return log


def _burden(executor: Executor, scenario: Scenario, percent: str) -> Burden:
    if float(percent) == 0:
        return NOTHING
    return calibrated(executor, scenario, "cpu", float(percent) / 100)


if __name__ == "__main__":
    main()
