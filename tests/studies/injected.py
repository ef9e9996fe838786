"""Does the rule find a slowdown of known size, and in how many pairs and seconds?

    python -m tests.studies.injected --shares 0,3,5,10 --rounds 10 --out injected.jsonl

Side B carries extra work (`injected_load.py`): a loop before each request, calibrated at the
start to a share of the session's CPU time. Each round is one run with A/A pairs and one contrast
per share, judged as by `trae-bench run`. Each sample records the actual cost, which gives the
true effect on cpu and wall. For session_overhead the share of the first request is subtracted,
because that request precedes every reply. For wall_net it is the CPU time of the loop.

`--kinds cpu,sleep` adds contrasts whose side B sleeps, for a share of the session's wall_net. Their
true effect is the requested sleep, because a process that wakes up late waited for a core.

`--metrics cpu` omits the serial pairs, which take most of the time. --load runs processes that
compute all the time on the cores in turn. `--report FILE ...` reports several files together.
"""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from random import Random
from statistics import median
from typing import Any

from msgspec import Struct, convert

from tests.studies.harness import (
    INJECTED_CPU,
    INJECTED_WALL,
    NO_LOAD,
    NOISE_SCENARIO,
    InjectedLoad,
    RoundLog,
    TimeLimit,
    add_load,
    add_report,
    calibrate,
    calibrate_sleep,
    describe_head,
    format_change,
    format_proportion,
    hogs,
    injected_log_ratio,
    load_contrasts,
    load_scenario,
    make_parser,
    markdown_table,
    mean,
    measured_pairs,
    open_executor,
    print_progress,
    read_head,
    read_rounds,
    run_cells,
    stop_on_interrupt,
)
from tests.studies.injected_load import repetitions
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.execution.ports import Executor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Limits
from trae_bench.model.result import Verdict
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons

METRIC_NAMES = ("cpu", "wall", "session_overhead")


class Result(Struct, frozen=True):
    """Verdict of the rule for one share and metric in one round."""

    share: float
    """Requested percent of CPU time, or of wall_net if side B sleeps."""
    metric: str
    gated: bool
    verdict: Verdict
    pairs: int
    seconds: float
    """Duration of the cell's pairs, shared by all metrics of the cell."""
    log_ratio: float | None
    truth: tuple[float, ...]
    """True log ratio of each pair, from the recorded cost."""
    kind: str = "cpu"


def true_log_ratio(pair: tuple[Sample, Sample], metric: str, load: InjectedLoad) -> float:
    a, b = pair
    if metric == "wall_net":
        return -math.log1p(-_net_cost(b, load) / b.metrics[metric])
    if metric in ("cpu", "wall"):
        return injected_log_ratio(b, metric) - injected_log_ratio(a, metric)
    requests = b.metrics["requests"]
    cost = b.metrics[INJECTED_WALL] * (requests - 1) / requests
    return -math.log1p(-cost / b.metrics["session_overhead"])


def _net_cost(sample: Sample, load: InjectedLoad) -> float:
    """Return the cost of a load (s) if no other process takes the core."""
    if load.kind == "sleep":
        return load.units / 1e6 * repetitions("sleep", round(sample.metrics["requests"]))
    return sample.metrics[INJECTED_CPU]


def judge(
    samples: Sequence[Sample], cells: Sequence[Cell], loads: Mapping[str, InjectedLoad]
) -> list[Result]:
    """Return the verdicts on the contrasts. `loads` has their loads by name: `5 % cpu`."""
    rows = comparisons(samples, cells, METRICS)
    return [
        Result(
            share=float(row.contrast.split()[0]),
            kind=row.contrast.split()[-1],
            metric=row.metric,
            gated=row.gated,
            verdict=row.judgement.verdict,
            pairs=row.pairs.measured,
            seconds=sum(_seconds(pair) for pair in pairs),
            log_ratio=row.estimate.log_ratio if row.estimate else None,
            truth=tuple(true_log_ratio(pair, row.metric, loads[row.contrast]) for pair in pairs),
        )
        for row in rows
        if row.contrast != NOISE_FLOOR
        for pairs in [measured_pairs(samples, row.contrast, row.mode)]
    ]


def _seconds(pair: tuple[Sample, Sample]) -> float:
    walls = [sample.metrics["wall"] for sample in pair]
    return max(walls) if pair[0].mode == "duet" else sum(walls)


def report(results: Sequence[Result]) -> str:
    groups: dict[tuple[str, str, float], list[Result]] = {}
    for result in results:
        groups.setdefault((result.metric, result.kind, result.share), []).append(result)
    head = (
        *(
            "metric",
            "side B",
            "true effect",
            "mean estimate",
            "runs",
            "found",
            "false improvement",
        ),
        *("equivalent", "inconclusive", "not gated", "median pairs", "median seconds"),
    )
    return markdown_table(head, [_line(*key, group) for key, group in sorted(groups.items())])


def _line(metric: str, kind: str, share: float, results: Sequence[Result]) -> tuple[object, ...]:
    verdicts = [result.verdict for result in results]
    estimates = [result.log_ratio for result in results if result.log_ratio is not None]
    return (
        metric,
        f"{share:g} % {kind}" if share else "equal",
        format_change(mean([truth for result in results for truth in result.truth]), 2),
        format_change(mean(estimates), 2),
        len(results),
        format_proportion(verdicts.count("regression"), len(results)),
        verdicts.count("improvement"),
        verdicts.count("equivalent"),
        verdicts.count("inconclusive"),
        sum(not result.gated for result in results),
        f"{median(result.pairs for result in results):.0f}",
        f"{median(result.seconds for result in results):.1f}",
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "injected")
    parser.add_argument("--scenario", default=NOISE_SCENARIO, help="default: %(default)s")
    parser.add_argument(
        "--shares", default="0,3,5,10", help="percent of CPU time; default: %(default)s"
    )
    parser.add_argument("--metrics", default=",".join(METRIC_NAMES), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="total; default: %(default)s")
    parser.add_argument("--minutes", type=float, help="start no round after this time")
    parser.add_argument("--pairs", type=int, help="maximum per cell, for a short test")
    parser.add_argument("--kinds", default="cpu", help="of load: cpu, sleep; default: %(default)s")
    add_load(parser)
    add_report(parser)
    options = parser.parse_args(argv)
    if options.report:
        for path in options.report:
            head = read_head(path)
            print(summary(head["options"]["scenario"], read_rounds(path)))
            print(f"\nMeasured on {describe_head(head)}.")
        return
    print(summary(options.scenario, run_rounds(options).rounds))


def summary(scenario: str, rounds: Sequence[Mapping[str, Any]]) -> str:
    results = [convert(result, Result) for finished in rounds for result in finished["results"]]
    seconds = sum(finished["seconds"] for finished in rounds)
    return f"{report(results)}\n\n{scenario}, {len(rounds)} runs, {seconds:.0f} s."


def run_rounds(options: Namespace) -> RoundLog:
    fixed = ("scenario", "shares", "kinds", "metrics", "pairs", "load", "seed")
    log = RoundLog(options.out, {name: getattr(options, name) for name in fixed})
    time_limit = TimeLimit(options.minutes)
    scenario = load_scenario(options.scenario, options.metrics.split(","))
    with open_executor(scenario) as executor, hogs(options.load), stop_on_interrupt():
        loads = _loads(executor, scenario, options)
        planned = cells(scenario.name, scenario.metrics, load_contrasts(scenario, loads), METRICS)
        while len(log.rounds) < options.rounds and time_limit.remaining > 0:
            seed = Random(f"{options.seed}|{len(log.rounds)}").getrandbits(32)
            ending = run_cells(executor, planned, Limits(pairs=options.pairs), seed)
            results = judge(ending.samples, planned, loads)
            log.append({"seconds": ending.elapsed, "results": results})
            print_progress(f"{len(log.rounds)}: {ending.elapsed:.0f} s")
    return log


def _loads(executor: Executor, scenario: Scenario, options: Namespace) -> dict[str, InjectedLoad]:
    """Return the load of each contrast by name. Equal sides occur once, whatever the kinds."""
    shares, kinds = options.shares.split(","), options.kinds.split(",")
    named = [(share, kind) for kind in kinds for share in shares if float(share)]
    named += [(share, kinds[0]) for share in shares if not float(share)]
    return {f"{share} % {kind}": _load(executor, scenario, share, kind) for share, kind in named}


def _load(executor: Executor, scenario: Scenario, percent: str, kind: str) -> InjectedLoad:
    if float(percent) == 0:
        return NO_LOAD
    share = float(percent) / 100
    if kind == "sleep":
        return calibrate_sleep(executor, scenario, share)
    return calibrate(executor, scenario, kind, share)


if __name__ == "__main__":
    main()
