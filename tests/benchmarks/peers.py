"""The speed goals: agent_core beside the least that a client can do, in one run.

    python -m tests.benchmarks.peers [--steps 10,50,200] [--repeats 5] [--json]

Every figure is taken from outside: the provider's log and the kernel's accounts of a
fresh process. Each round runs every subject once, in turns; a ratio is the median of the
rounds' own ratios, so that the machine's mood of one minute is on both sides of it. For
agent_core every toggle is on and the recorder is on.

"must" are the goals that any transport has to meet, "next" those of a transport of our
own. Nothing fails where a goal is missed: it says so.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from msgspec import Struct, to_builtins

from tests.benchmarks.harness import AGENT, NAP, Load, Rig
from trae_bench.metrics import TAIL_STEPS

SINGLE = ("raw socket", "raw append", "httpx", AGENT)
MANY = ("raw socket", "raw append", "httpx", "httpx, own clients", AGENT)
THINK = 0.05
"""Seconds that the provider waits before each reply where waiting is the subject."""
NAPS = 5
_WARM_UP = Load(3)


class Row(Struct, frozen=True):
    """One figure of every subject under one load."""

    name: str
    load: Load
    figure: str
    """A metric's name, as in `trae_bench.metrics`."""
    subjects: tuple[str, ...] = SINGLE
    scale: float = 1.0
    """From the metric's unit to the one that is shown."""


class Goal(Struct, frozen=True):
    """How agent_core shall stand to another subject, or to a number where that is no name."""

    row: str
    bound: float
    against: str | float
    kind: Literal["must", "next"] = "must"
    at_least: bool = False


class Judged(Struct, frozen=True):
    """A goal and what became of it."""

    goal: Goal
    ratio: float
    """Median over the rounds."""
    low: float
    high: float
    met: bool


Values = dict[str, dict[str, list[float]]]
"""By row and subject, one value a round."""

GOALS: tuple[Goal, ...] = (
    Goal("ms/step, N=10", 1.25, "httpx"),
    Goal("ms/step, N=50", 1.2, "httpx"),
    Goal("ms/step, N=200", 0.85, "httpx"),
    Goal("growth at N=200", 2.2, 1.0),
    Goal("cold start, ms", 1.25, "httpx"),
    Goal("peak RSS, MB, N=50", 1.15, "httpx"),
    Goal("sessions/s, M=100, 0 ms", 1.7, "httpx", at_least=True),
    Goal("sessions/s, M=100, 50 ms", 0.9, "httpx, own clients", at_least=True),
    Goal("ms/step of 5 x 0.2 s", 1.03, 1000 * NAP),
    Goal("ms/step, N=10", 0.3, "httpx", "next"),
    Goal("ms/step, N=10", 2.0, "raw append", "next"),
    Goal("ms/step, N=50", 0.25, "httpx", "next"),
    Goal("ms/step, N=200", 0.16, "httpx", "next"),
    Goal("ms/step, N=200", 2.5, "raw socket", "next"),
    Goal("growth at N=200", 3.0, 1.0, "next"),
    Goal("cold start, ms", 1.5, "raw socket", "next"),
    Goal("peak RSS, MB, N=50", 1.3, "raw socket", "next"),
    Goal("sessions/s, M=100, 0 ms", 0.22, "raw socket", "next", at_least=True),
    Goal("sessions/s, M=100, 50 ms", 0.85, "raw socket", "next", at_least=True),
    Goal("ms/step of 5 x 0.2 s", 1.02, 1000 * NAP, "next"),
)
"""Each is the cost of a 100-line probe with tools, retries and a recorder, and half as much."""


def rows(steps: Sequence[int], sessions: int, naps: int = NAPS) -> Iterator[Row]:
    """What is measured; 0 `sessions` or `naps` leave their rows out."""
    for n in steps:
        yield Row(f"ms/step, N={n}", Load(n), "step_overhead", scale=1000)
    if max(steps) >= TAIL_STEPS:
        yield Row(f"growth at N={max(steps)}", Load(max(steps)), "step_overhead_growth")
    yield Row("cold start, ms", Load(min(steps)), "time_to_first_request", scale=1000)
    for n in steps:
        yield Row(f"peak RSS, MB, N={n}", Load(n), "peak_rss", scale=1e-6)
    for think in (0.0, THINK) if sessions else ():
        name = f"sessions/s, M={sessions}, {1000 * think:.0f} ms"
        yield Row(name, Load(min(steps), sessions, think), "sessions_per_second", MANY)
    if naps:
        load = Load(min(steps), naps=naps)
        yield Row(f"ms/step of {naps} x {NAP} s", load, "step_overhead", (AGENT,), 1000)


def _silence(_: str) -> None:
    pass


def measure(
    wanted: Sequence[Row], rounds: int, progress: Callable[[str], None] = _silence
) -> Values:
    """Every row, `rounds` times. Raises `CannotMeasure`."""
    values: Values = {row.name: {subject: [] for subject in row.subjects} for row in wanted}
    with tempfile.TemporaryDirectory() as scratch, Rig(Path(scratch)) as rig:
        for subject in SINGLE:
            rig.measure(subject, _WARM_UP)
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            _round(rig, wanted, values, backwards=bool(number % 2))
    return values


def _round(rig: Rig, wanted: Sequence[Row], values: Values, *, backwards: bool) -> None:
    for load in dict.fromkeys(row.load for row in wanted):
        told = [row for row in wanted if row.load == load]
        subjects = told[0].subjects
        # Turned round, so that none profits from always coming after the same neighbour.
        for subject in reversed(subjects) if backwards else subjects:
            figures = rig.measure(subject, load)
            for row in told:
                values[row.name][subject].append(row.scale * figures[row.figure])


def judge(values: Values, goals: Sequence[Goal] = GOALS) -> list[Judged]:
    """Every goal whose row was measured."""
    return [_judged(goal, values[goal.row]) for goal in goals if goal.row in values]


def _judged(goal: Goal, values: dict[str, list[float]]) -> Judged:
    ours = values[AGENT]
    against = goal.against
    theirs = values[against] if isinstance(against, str) else [against] * len(ours)
    ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
    ratio = median(ratios)
    met = ratio >= goal.bound if goal.at_least else ratio <= goal.bound
    return Judged(goal, ratio, min(ratios), max(ratios), met)


# -- what is shown ----------------------------------------------------------------------


def table(values: Values, judged: Sequence[Judged]) -> str:
    return "\n".join([*_figures(values), "", *_goals(judged)])


def _figures(values: Values) -> Iterator[str]:
    subjects = list(dict.fromkeys(name for row in values.values() for name in row))
    yield f"{'median of the rounds':26}" + "".join(f"{name:>20}" for name in subjects)
    for name, row in values.items():
        cells = (f"{median(row[each]):.3g}" if each in row else "-" for each in subjects)
        yield f"{name:26}" + "".join(f"{cell:>20}" for cell in cells)


def _goals(judged: Sequence[Judged]) -> Iterator[str]:
    yield f"{'agent_core':26}{'against':>20}{'ratio':>8}{'rounds':>16}{'goal':>10}"
    for each in judged:
        goal = each.goal
        against = goal.against if isinstance(goal.against, str) else f"{goal.against:g}"
        bound = f"{'>=' if goal.at_least else '<='} {goal.bound:g}"
        spread = f"{each.low:.2f} to {each.high:.2f}"
        verdict = f"{goal.kind}: {'met' if each.met else 'MISSED'}"
        yield f"{goal.row:26}{against:>20}{each.ratio:8.2f}{spread:>16}{bound:>10}  {verdict}"


def _as_json(values: Values, judged: Sequence[Judged]) -> str:
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    report = {"machine": machine, "values": values, "goals": to_builtins(judged)}
    return json.dumps(report, indent=2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", default="10,50,200", help="lengths of the sessions")
    parser.add_argument("--sessions", type=int, default=100, help="side by side; 0 for none")
    parser.add_argument("--naps", type=int, default=NAPS, help="sleeping calls; 0 for none")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", action="store_true", help="every value, for a program")
    said = parser.parse_args(arguments)
    steps = [int(each) for each in said.steps.split(",")]
    wanted = list(rows(steps, said.sessions, said.naps))
    values = measure(wanted, said.repeats, _silence if said.json else print)
    judged = judge(values)
    print(_as_json(values, judged) if said.json else table(values, judged))


if __name__ == "__main__":
    main()
