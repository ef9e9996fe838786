"""How often does the complete rule call equal sides different?

    python -m tests.studies.false_alarms --minutes 12 --out false-alarms.jsonl

Each round is one run of one scenario, as by `trae-bench run`. A/A pairs come first and determine
which rows are gated. Then follow contrasts with equal arms: each toggle is on or off at random, the
same on both sides. Every regression or improvement in a gated row is a false alarm.

The next scenario is always the one with the fewest rounds, and of those the quickest. Any budget
therefore covers the catalogue evenly. Start the study again with the same --out to resume it.
Several processes can run at once and add noise to each other: give each its own --seed, --out and
TRAE_BENCH_LOCK. `--report FILE ...` reports several files together.
"""

import math
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

from msgspec import Struct, convert

from tests.studies.harness import (
    RoundLog,
    TimeLimit,
    available_scenarios,
    load_scenario,
    make_parser,
    markdown_table,
    print_progress,
    proportion_upper_bound,
    read_rounds,
    run_cells,
    stop_on_interrupt,
)
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Mode
from trae_bench.model.result import Comparison, Verdict
from trae_bench.run.runner import Bench
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.noise import noise_floor

TOO_LONG = ("throughput@500", "trajectory-long@1000", "trajectory-long@history-1000")
"""Scenarios whose trials take half a minute or more."""
VERDICTS: tuple[Verdict, ...] = (
    "regression",
    "improvement",
    "equivalent",
    "inconclusive",
    "not measured",
)
FALSE = VERDICTS[:2]


class JudgedRow(Struct, frozen=True):
    """One row of one round with equal sides."""

    contrast: str
    metric: str
    mode: str
    gated: bool
    verdict: Verdict
    pairs: int
    log_ratio: float | None
    sd: float

    @classmethod
    def of(cls, row: Comparison) -> "JudgedRow":
        return cls(
            contrast=row.contrast,
            metric=row.metric,
            mode=row.mode,
            gated=row.gated,
            verdict=row.judgement.verdict,
            pairs=row.pairs.measured,
            log_ratio=row.estimate.log_ratio if row.estimate else None,
            sd=row.estimate.sd if row.estimate else 0.0,
        )


class Round(Struct, frozen=True):
    scenario: str
    number: int
    seconds: float
    pairs: int
    """Measured pairs, including A/A and lost ones."""
    sides_differ: tuple[str, ...]
    """Metrics whose A/A pairs stop the run, another kind of false alarm."""
    rows: tuple[JudgedRow, ...]

    @property
    def false_verdicts(self) -> list[JudgedRow]:
        return [row for row in self.rows if row.gated and row.verdict in FALSE]


def equal_contrasts(scenario: Scenario, count: int, rng: Random) -> list[Contrast]:
    """Return A/A and `count` contrasts, each with equal arms and random toggles."""
    none = Arm("none", dict.fromkeys(scenario.toggles.vary, False) | scenario.toggles.hold)
    contrasts = [Contrast(NOISE_FLOOR, none, none)]
    for number in range(1, count + 1):
        toggles = {toggle: rng.random() < 0.5 for toggle in scenario.toggles.vary}
        arm = Arm(f"random {number}", toggles | scenario.toggles.hold)
        contrasts.append(Contrast(f"equal {number}", arm, arm))
    return contrasts


def cells_of_mode(
    scenario: Scenario, contrasts: Sequence[Contrast], mode: Mode | None
) -> list[Cell]:
    """Return the cells of one mode, or all cells if `mode` is None."""
    planned = cells(scenario.name, scenario.metrics, contrasts, METRICS)
    return [cell for cell in planned if mode in (None, cell.mode)]


def scenarios_with_mode(names: Sequence[str], mode: Mode | None) -> list[str]:
    """Return the scenarios that have cells of this mode."""

    def has_cells(scenario: Scenario) -> bool:
        contrasts = equal_contrasts(scenario, 0, Random(0))
        return bool(cells_of_mode(scenario, contrasts, mode))

    return [name for name in names if has_cells(load_scenario(name))]


def run_round(
    name: str, number: int, count: int, mode: Mode | None, limits: Limits, seed: int
) -> Round:
    scenario = load_scenario(name)
    rng = Random(f"{seed}|{name}|{number}")
    planned = cells_of_mode(scenario, equal_contrasts(scenario, count, rng), mode)
    bench = Bench(print_progress)
    with bench.lock(), bench.executor({scenario.name: scenario}) as executor:
        ending = run_cells(executor, planned, limits, rng.getrandbits(32))
    rows = comparisons(ending.samples, planned, METRICS)
    return Round(
        scenario=name,
        number=number,
        seconds=ending.elapsed,
        pairs=len(ending.samples) // 2,
        sides_differ=tuple(
            floor.metric
            for floor in noise_floor(rows, METRICS)
            if floor.reliability == "sides differ"
        ),
        rows=tuple(JudgedRow.of(row) for row in rows if row.contrast != NOISE_FLOOR),
    )


# -- schedule ---------------------------------------------------------------------------


def next_scenario(names: Sequence[str], rounds: Sequence[Round]) -> str:
    """Return the scenario with the fewest rounds, and of those the quickest.

    Before its first round, a scenario is ordered by its number of steps.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for finished in rounds:
        seconds.setdefault(finished.scenario, []).append(finished.seconds)

    def order(name: str) -> tuple[int, float]:
        durations = seconds[name]
        return len(durations), fmean(durations) if durations else _steps(name)

    return min(names, key=order)


def _steps(name: str) -> float:
    scenario = load_scenario(name)
    return scenario.load.sessions * sum(turn.repeat for turn in scenario.turns)


# -- report -----------------------------------------------------------------------------


def report(rounds: Sequence[Round]) -> str:
    rows = [row for finished in rounds for row in finished.rows]
    groups: dict[tuple[str, str], list[JudgedRow]] = {}
    for row in rows:
        groups.setdefault((row.mode, row.metric), []).append(row)
    head = ("mode", "metric", "rows", "gated", *VERDICTS, "median pairs", "median sd", "largest")
    lines = [(*key, *_figures(group)) for key, group in sorted(groups.items())]
    table = markdown_table(head, [*lines, ("all", "", *_figures(rows))])
    return "\n".join([table, "", *_summary(rounds), *_false_verdicts(rounds)])


def _figures(rows: Sequence[JudgedRow]) -> list[object]:
    """Return the number of rows, then the figures of the gated ones."""
    gated = [row for row in rows if row.gated]
    count = Counter(row.verdict for row in gated)
    largest = max((abs(row.log_ratio or 0.0) for row in gated), default=0.0)
    return [
        len(rows),
        len(gated),
        *(count[verdict] for verdict in VERDICTS),
        f"{median([row.pairs for row in gated] or [0]):.0f}",
        f"{median([row.sd for row in gated] or [0]):.1%}",
        f"{math.expm1(largest):.1%}",
    ]


def _summary(rounds: Sequence[Round]) -> list[str]:
    measured = [row for finished in rounds for row in finished.rows if row.pairs]
    gated = [row for row in measured if row.gated]
    not_gated = [row.verdict in FALSE for row in measured if not row.gated]
    false_rows = sum(len(finished.false_verdicts) for finished in rounds)
    false_runs = sum(bool(finished.false_verdicts) for finished in rounds)
    stopped = [
        f"{finished.scenario} {metric}" for finished in rounds for metric in finished.sides_differ
    ]
    return [
        f"{len(rounds)} runs of {len({finished.scenario for finished in rounds})} scenarios and "
        f"variants, {sum(finished.pairs for finished in rounds)} pairs, "
        f"{sum(finished.seconds for finished in rounds):.0f} s.",
        *_coverage(rounds),
        f"False verdicts: {false_rows} of {len(gated)} gated rows (95 % upper bound: "
        f"{proportion_upper_bound(false_rows, len(gated)):.2%}), {false_runs} of {len(rounds)} "
        f"runs (upper bound: {proportion_upper_bound(false_runs, len(rounds)):.1%}).",
        f"Of {len(not_gated)} other rows, for information only, {sum(not_gated)} were called "
        "different.",
        f"A/A pairs that would have stopped a run: {', '.join(stopped) or 'none'}.",
    ]


def _false_verdicts(rounds: Sequence[Round]) -> list[str]:
    return [
        f"- {finished.scenario}, round {finished.number}: {row.contrast} {row.metric} "
        f"{row.verdict} {math.expm1(row.log_ratio or 0.0):+.1%} in {row.pairs} pairs"
        for finished in rounds
        for row in finished.false_verdicts
    ]


def _coverage(rounds: Sequence[Round]) -> list[str]:
    """Return how often equal sides were compared, without contrasts that got no pair."""
    compared = {
        (row.mode == "serial", finished.scenario, number, row.contrast)
        for number, finished in enumerate(rounds)
        for row in finished.rows
        if row.pairs
    }
    lines = []
    for serial, pairs in ((False, "Duets"), (True, "Serial pairs")):
        times = Counter(scenario for was_serial, scenario, *_ in compared if was_serial == serial)
        if times:
            lines.append(
                f"{pairs}: {times.total()} comparisons of equal sides on {len(times)} scenarios "
                f"and variants, at least {min(times.values())} each (median "
                f"{median(times.values()):.0f})."
            )
    return lines


# -- command line -----------------------------------------------------------------------


def _parser() -> ArgumentParser:
    parser = make_parser(__doc__, "false_alarms")
    parser.add_argument("--minutes", type=float, help="start no round after this time")
    parser.add_argument("--rounds", type=int, help="total number, including an earlier run")
    parser.add_argument("--round-seconds", type=float, default=60.0, help="budget of one run")
    parser.add_argument("--contrasts", type=int, default=2, help="per run")
    parser.add_argument("--mode", choices=("duet", "serial"), help="default: both")
    parser.add_argument("--pairs", type=int, help="maximum per cell, for a short test")
    parser.add_argument("--report", type=Path, nargs="+", help="report these files and exit")
    parser.add_argument("--noise-pairs", type=int, default=8, help="A/A pairs per mode")
    parser.add_argument("scenarios", nargs="*", help="default: the whole catalogue")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.report:
        files = [convert(read_rounds(path), list[Round]) for path in options.report]
        print(report([finished for rounds in files for finished in rounds]))
        return
    if options.minutes is None and options.rounds is None:
        parser.error("give --minutes or --rounds")
    print(report(run_rounds(options)))


def run_rounds(options: Namespace) -> list[Round]:
    """Run rounds until the limits of the options, and return them with those of the log."""
    fixed = ("seed", "contrasts", "mode", "noise_pairs", "round_seconds", "pairs")
    log = RoundLog(options.out, {name: getattr(options, name) for name in fixed})
    limits = Limits(options.round_seconds, options.pairs, options.noise_pairs)
    names = scenarios_with_mode(options.scenarios or available_scenarios(TOO_LONG), options.mode)
    time_limit = TimeLimit(options.minutes)
    max_rounds = math.inf if options.rounds is None else options.rounds
    rounds = convert(log.rounds, list[Round])
    with stop_on_interrupt():
        while time_limit.remaining > 0 and len(rounds) < max_rounds:
            name = next_scenario(names, rounds)
            number = sum(finished.scenario == name for finished in rounds)
            rounds.append(
                run_round(name, number, options.contrasts, options.mode, limits, options.seed)
            )
            log.append(rounds[-1])
            print_progress(f"{len(rounds)}: {name}, {rounds[-1].seconds:.0f} s")
    return rounds


if __name__ == "__main__":
    main()
