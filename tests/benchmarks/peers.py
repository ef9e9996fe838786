"""Performance goals of agent_core, relative to minimal clients measured in the same run.

    python -m tests.benchmarks.peers [--steps 10,50,200] [--repeats 5] [--json]

All figures are measured from outside: the provider's log and the resource usage of a fresh process.
Each round runs every subject once. A ratio is the median of the ratios of the rounds, so changes in
the speed of the machine affect both sides. agent_core runs with every toggle and the trajectory
recorder on.

"must" goals apply to any transport, "next" goals to agent_core's own transport. A missed goal is
reported and does not change the exit code.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

from msgspec import Struct, to_builtins

from tests.benchmarks.harness import AGENT, SLEEP, Rig, Workload
from trae_bench.metrics import TAIL_STEPS

SINGLE = ("raw socket", "raw append", "httpx", AGENT)
MANY = ("raw socket", "raw append", "httpx", "httpx, own clients", AGENT)
THINK = 0.05
"""Think time per reply (s) in workloads that measure waiting."""
SLEEPS = 5
SHORT = 10
"""Maximum steps of each session in workloads with many sessions or sleeping calls. With N=50, one
round of 100 sessions takes minutes.
"""
_WARM_UP = Workload(3)


class Row(Struct, frozen=True):
    """One metric of every subject under one workload."""

    name: str
    workload: Workload
    metric: str
    """Name in `trae_bench.metrics`."""
    subjects: tuple[str, ...] = SINGLE
    scale: float = 1.0
    """Factor from the metric's unit to the displayed one."""


class Goal(Struct, frozen=True):
    """Bound of agent_core's value divided by that of another subject, or by a number."""

    row: str
    bound: float
    against: str | float
    kind: Literal["must", "next"] = "must"
    at_least: bool = False


class GoalResult(Struct, frozen=True):
    """A goal and its measured ratio."""

    goal: Goal
    ratio: float
    """Median of the rounds."""
    low: float
    high: float
    met: bool


Values = dict[str, dict[str, list[float]]]
"""Values by row and subject, one per round."""

GOALS: tuple[Goal, ...] = (
    Goal("ms/step, N=10", 1.25, "httpx"),
    Goal("ms/step, N=50", 1.2, "httpx"),
    Goal("ms/step, N=200", 0.85, "httpx"),
    Goal("growth at N=200", 2.2, 1.0),
    Goal("cold start, ms", 1.25, "httpx"),
    Goal("peak RSS, MB, N=50", 1.15, "httpx"),
    Goal("sessions/s, M=100, 0 ms", 1.7, "httpx", at_least=True),
    Goal("sessions/s, M=100, 50 ms", 0.9, "httpx, own clients", at_least=True),
    Goal("ms/step of 5 x 0.2 s", 1.03, 1000 * SLEEP),
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
    Goal("ms/step of 5 x 0.2 s", 1.02, 1000 * SLEEP, "next"),
)
"""Each bound is 1.5 times the cost of a 100-line prototype with tools, retries and a recorder."""


def rows(steps: Sequence[int], sessions: int, sleeps: int = SLEEPS) -> Iterator[Row]:
    """Yield the rows to measure. With 0 `sessions` or `sleeps` their rows are omitted."""
    for n in steps:
        yield Row(f"ms/step, N={n}", Workload(n), "step_overhead", scale=1000)
    if max(steps) >= TAIL_STEPS:
        yield Row(f"growth at N={max(steps)}", Workload(max(steps)), "step_overhead_growth")
    yield Row("cold start, ms", Workload(min(steps)), "time_to_first_request", scale=1000)
    for n in steps:
        yield Row(f"peak RSS, MB, N={n}", Workload(n), "peak_rss", scale=1e-6)
    short = min(SHORT, *steps)
    for think in (0.0, THINK) if sessions else ():
        name = f"sessions/s, M={sessions}, {1000 * think:.0f} ms"
        yield Row(name, Workload(short, sessions, think), "sessions_per_second", MANY)
    if sleeps:
        workload = Workload(short, sleeps=sleeps)
        yield Row(f"ms/step of {sleeps} x {SLEEP} s", workload, "step_overhead", (AGENT,), 1000)


def _no_progress(_: str) -> None:
    pass


def measure(
    wanted: Sequence[Row], rounds: int, progress: Callable[[str], None] = _no_progress
) -> Values:
    """Measure every row `rounds` times. Raises `CannotMeasure` if a run fails."""
    values: Values = {row.name: {subject: [] for subject in row.subjects} for row in wanted}
    with tempfile.TemporaryDirectory() as scratch, Rig(Path(scratch)) as rig:
        for subject in SINGLE:
            rig.measure(subject, _WARM_UP)
        for number in range(rounds):
            progress(f"round {number + 1} of {rounds}")
            _run_round(rig, wanted, values, progress, reverse=bool(number % 2))
    return values


def _run_round(
    rig: Rig,
    wanted: Sequence[Row],
    values: Values,
    progress: Callable[[str], None],
    *,
    reverse: bool,
) -> None:
    for workload in dict.fromkeys(row.workload for row in wanted):
        workload_rows = [row for row in wanted if row.workload == workload]
        progress(f"  {', '.join(row.name for row in workload_rows)}")
        subjects = workload_rows[0].subjects
        # Alternating order, so that no subject always follows the same one.
        for subject in reversed(subjects) if reverse else subjects:
            metrics = rig.measure(subject, workload)
            for row in workload_rows:
                values[row.name][subject].append(row.scale * metrics[row.metric])


def judge(values: Values, goals: Sequence[Goal] = GOALS) -> list[GoalResult]:
    """Judge every goal whose row was measured."""
    return [_judge(goal, values[goal.row]) for goal in goals if goal.row in values]


def _judge(goal: Goal, values: dict[str, list[float]]) -> GoalResult:
    agent = values[AGENT]
    against = goal.against
    reference = values[against] if isinstance(against, str) else [against] * len(agent)
    ratios = [a / b for a, b in zip(agent, reference, strict=True)]
    ratio = median(ratios)
    met = ratio >= goal.bound if goal.at_least else ratio <= goal.bound
    return GoalResult(goal, ratio, min(ratios), max(ratios), met)


# -- output -----------------------------------------------------------------------------


def table(values: Values, results: Sequence[GoalResult]) -> str:
    return "\n".join([*_value_lines(values), "", *_goal_lines(results)])


def _value_lines(values: Values) -> Iterator[str]:
    subjects = list(dict.fromkeys(name for row in values.values() for name in row))
    yield f"{'median of the rounds':26}" + "".join(f"{name:>20}" for name in subjects)
    for name, row in values.items():
        cells = (f"{median(row[subject]):.3g}" if subject in row else "-" for subject in subjects)
        yield f"{name:26}" + "".join(f"{cell:>20}" for cell in cells)


def _goal_lines(results: Sequence[GoalResult]) -> Iterator[str]:
    yield f"{'agent_core':26}{'against':>20}{'ratio':>8}{'rounds':>16}{'goal':>10}"
    for result in results:
        goal = result.goal
        against = goal.against if isinstance(goal.against, str) else f"{goal.against:g}"
        bound = f"{'>=' if goal.at_least else '<='} {goal.bound:g}"
        spread = f"{result.low:.2f} to {result.high:.2f}"
        verdict = f"{goal.kind}: {'met' if result.met else 'MISSED'}"
        yield f"{goal.row:26}{against:>20}{result.ratio:8.2f}{spread:>16}{bound:>10}  {verdict}"


def _as_json(values: Values, results: Sequence[GoalResult]) -> str:
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    report = {"machine": machine, "values": values, "goals": to_builtins(results)}
    return json.dumps(report, indent=2)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--steps", default="10,50,200", help="steps per session")
    parser.add_argument("--sessions", type=int, default=100, help="concurrent sessions; 0 for none")
    parser.add_argument("--sleeps", type=int, default=SLEEPS, help="sleeping calls; 0 for none")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", action="store_true", help="print every value as JSON")
    options = parser.parse_args(argv)
    steps = [int(count) for count in options.steps.split(",")]
    wanted = list(rows(steps, options.sessions, options.sleeps))
    # Flushed, because a run takes minutes and may be cut off in a pipe.
    show = _no_progress if options.json else partial(print, flush=True)
    values = measure(wanted, options.repeats, show)
    results = judge(values)
    print(_as_json(values, results) if options.json else table(values, results))


if __name__ == "__main__":
    main()
