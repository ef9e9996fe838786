"""How often does the whole rule call equal sides different?

    python -m tests.studies.false_alarms --minutes 12 --out false-alarms.jsonl

Each round is one run of one scenario as `trae-bench run` makes it: A/A pairs first, which
decide what is gated, then contrasts that are judged like any, but have equal arms: each toggle on
or off by lot, the same on both sides. Every regression or improvement in a gated row is a false
alarm.

The scenario that has had the fewest rounds is next, the quickest of them first, so that any
budget gives a fair picture of the catalogue. A run that was stopped goes on where it was when
it is started again with the same --out. Several can be at work at once, each the others' noise:
give each its own --seed, --out and TRAE_BENCH_LOCK; `--tell FILE ...` tells of them together.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import fmean, median

from msgspec import Struct, convert

from tests.studies.harness import (
    Clock,
    Log,
    arguments,
    play,
    playable,
    rounds_of,
    say,
    scenario_of,
    share_at_most,
    stoppable,
    table,
)
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Mode
from trae_bench.model.result import Comparison, Verdict
from trae_bench.run.runner import Bench
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons, noise_floor

TOO_LONG = ("throughput@500", "trajectory-long@1000", "trajectory-long@history-1000")
"""Half a minute and more for one trial."""
VERDICTS: tuple[Verdict, ...] = (
    "regression",
    "improvement",
    "equivalent",
    "inconclusive",
    "not measured",
)
FALSE = VERDICTS[:2]


class Judged(Struct, frozen=True):
    """One row of one round, both of whose sides were equal."""

    contrast: str
    metric: str
    mode: str
    gated: bool
    verdict: Verdict
    pairs: int
    log_ratio: float | None
    sd: float

    @classmethod
    def of(cls, row: Comparison) -> "Judged":
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
    """Taken, A/A and lost ones included."""
    sides_differ: tuple[str, ...]
    """Metrics whose A/A pairs stop the run: a false alarm, too, though of another kind."""
    rows: tuple[Judged, ...]

    @property
    def false(self) -> list[Judged]:
        return [row for row in self.rows if row.gated and row.verdict in FALSE]


def equal_contrasts(scenario: Scenario, count: int, draw: Random) -> list[Contrast]:
    """A/A, and contrasts that only claim to be different."""
    none = Arm("none", dict.fromkeys(scenario.toggles.vary, False) | scenario.toggles.hold)
    found = [Contrast(NOISE_FLOOR, none, none)]
    for number in range(1, count + 1):
        lots = {toggle: draw.random() < 0.5 for toggle in scenario.toggles.vary}
        both = Arm(f"lot {number}", lots | scenario.toggles.hold)
        found.append(Contrast(f"equal {number}", both, both))
    return found


def taken(scenario: Scenario, contrasts: Sequence[Contrast], mode: Mode | None) -> list[Cell]:
    """All cells, or those of one mode."""
    return [
        one
        for one in cells(scenario.name, scenario.metrics, contrasts, METRICS)
        if mode in (None, one.mode)
    ]


def with_pairs(names: Sequence[str], mode: Mode | None) -> list[str]:
    """Those that have any in this mode."""
    scenarios = [(name, scenario_of(name)) for name in names]
    return [name for name, one in scenarios if taken(one, equal_contrasts(one, 0, Random(0)), mode)]


def one_round(
    name: str, number: int, count: int, mode: Mode | None, limits: Limits, seed: int
) -> Round:
    scenario = scenario_of(name)
    draw = Random(f"{seed}|{name}|{number}")
    asked = taken(scenario, equal_contrasts(scenario, count, draw), mode)
    bench = Bench(say)
    with bench.lock(), bench.executor({scenario.name: scenario}) as executor:
        ending = play(executor, asked, limits, draw.getrandbits(32))
    rows = comparisons(ending.samples, asked, METRICS)
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
        rows=tuple(Judged.of(row) for row in rows if row.contrast != NOISE_FLOOR),
    )


# -- what comes next --------------------------------------------------------------------


def next_scenario(names: Sequence[str], done: Sequence[Round]) -> str:
    """The one with the fewest rounds; of those the quickest, as far as that is known."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for one in done:
        seconds.setdefault(one.scenario, []).append(one.seconds)

    def order(name: str) -> tuple[int, float]:
        seen = seconds[name]
        return len(seen), fmean(seen) if seen else _steps(name)

    return min(names, key=order)


def _steps(name: str) -> float:
    scenario = scenario_of(name)
    return scenario.load.sessions * sum(turn.repeat for turn in scenario.turns)


# -- what is told -----------------------------------------------------------------------


def report(done: Sequence[Round]) -> str:
    rows = [row for one in done for row in one.rows]
    groups: dict[tuple[str, str], list[Judged]] = {}
    for row in rows:
        groups.setdefault((row.mode, row.metric), []).append(row)
    head = ("mode", "metric", "rows", "gated", *VERDICTS, "median pairs", "median sd", "largest")
    lines = [(*key, *_figures(group)) for key, group in sorted(groups.items())]
    return "\n".join([table(head, [*lines, ("all", "", *_figures(rows))]), "", *_closing(done)])


def _figures(rows: Sequence[Judged]) -> list[object]:
    """Of gated rows, but for their number."""
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


def _closing(done: Sequence[Round]) -> list[str]:
    measured = [row for one in done for row in one.rows if row.pairs]
    gated = [row for row in measured if row.gated]
    informed = [row.verdict in FALSE for row in measured if not row.gated]
    false = sum(len(one.false) for one in done)
    hit = sum(bool(one.false) for one in done)
    stopped = [f"{one.scenario} {metric}" for one in done for metric in one.sides_differ]
    lines = [
        f"{len(done)} runs of {len({one.scenario for one in done})} scenarios and variants, "
        f"{sum(one.pairs for one in done)} pairs, {sum(one.seconds for one in done):.0f} s.",
        *_compared(done),
        f"False verdicts in {false} of {len(gated)} gated rows (95 % sure: at most "
        f"{share_at_most(false, len(gated)):.2%}), in {hit} of {len(done)} runs (at most "
        f"{share_at_most(hit, len(done)):.1%}).",
        f"Of {len(informed)} more rows, for information only, {sum(informed)} were called "
        "different.",
        f"A/A pairs that would have stopped a run: {', '.join(stopped) or 'none'}.",
    ]
    return lines + [
        f"- {one.scenario}, round {one.number}: {row.contrast} {row.metric} {row.verdict} "
        f"{math.expm1(row.log_ratio or 0.0):+.1%} in {row.pairs} pairs"
        for one in done
        for row in one.false
    ]


def _compared(done: Sequence[Round]) -> list[str]:
    """How often equal sides were compared, those of a contrast that got no pair left out."""
    seen = {
        (row.mode == "serial", one.scenario, number, row.contrast)
        for number, one in enumerate(done)
        for row in one.rows
        if row.pairs
    }
    lines = []
    for serial, how in ((False, "In duets"), (True, "One after the other")):
        times = Counter(scenario for was_serial, scenario, *_ in seen if was_serial == serial)
        if times:
            fewest, usual = min(times.values()), median(times.values())
            lines.append(
                f"{how} equal sides were compared {times.total()} times, on {len(times)} scenarios "
                f"and variants, each {fewest} times at least and {usual:.0f} in the median."
            )
    return lines


def main(said: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "false_alarms")
    parser.add_argument("--minutes", type=float, help="begin no round after that")
    parser.add_argument("--rounds", type=int, help="in all, those of an earlier run included")
    parser.add_argument("--round-seconds", type=float, default=60.0, help="budget of one run")
    parser.add_argument("--contrasts", type=int, default=2, help="of a run")
    parser.add_argument("--mode", choices=("duet", "serial"), help="of the pairs; default: both")
    parser.add_argument("--pairs", type=int, help="of a cell, at most; for trying this out")
    parser.add_argument("--tell", type=Path, nargs="+", help="measure nothing; tell of these files")
    parser.add_argument("--noise-pairs", type=int, default=8, help="A/A pairs of each mode")
    parser.add_argument("scenarios", nargs="*", help="default: the whole catalogue")
    asked = parser.parse_args(said)
    if asked.tell:
        print(report([one for path in asked.tell for one in convert(rounds_of(path), list[Round])]))
        return
    if asked.minutes is None and asked.rounds is None:
        parser.error("say when to end: --minutes or --rounds")
    fixed = ("seed", "contrasts", "mode", "noise_pairs", "round_seconds", "pairs")
    log = Log(asked.out, {name: getattr(asked, name) for name in fixed})
    limits = Limits(asked.round_seconds, asked.pairs, asked.noise_pairs)
    names = with_pairs(asked.scenarios or playable(TOO_LONG), asked.mode)
    clock = Clock(asked.minutes)
    done = convert(log.rounds, list[Round])
    with stoppable():
        while clock.left > 0 and (asked.rounds is None or len(done) < asked.rounds):
            name = next_scenario(names, done)
            number = sum(one.scenario == name for one in done)
            wishes = (asked.contrasts, asked.mode, limits, asked.seed)
            done.append(one_round(name, number, *wishes))
            log.append(done[-1])
            say(f"{len(done)}: {name}, {done[-1].seconds:.0f} s")
    print(report(done))


if __name__ == "__main__":
    main()
