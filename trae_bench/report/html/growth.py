"""Growth with the length of a session: metrics by the number of steps."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Contrast
from trae_bench.model.result import Comparison
from trae_bench.report.html import svg
from trae_bench.report.html.source import NumberedPairs, Source
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.pairs import pair_outcome

WITHIN = "step_overhead_growth"
"""The metric that shows growth within one session. A sample has it if its trial was a single
session of enough steps."""
TIMES = ("step_overhead", "step_overhead_p95", WITHIN)
MEMORY = ("agent_rss", "peak_rss")
MAX_LINES = 400
MAX_CURVES = 60
"""Maximum lines and curves of a run."""


class SteppedRow(NamedTuple):
    """A row with the steps of its sessions."""

    row: Comparison
    contrast: Contrast
    point: svg.Point

    @property
    def family(self) -> str:
        """The scenario without its variant."""
        return self.row.scenario.partition("@")[0]

    @property
    def curve_key(self) -> tuple[object, ...]:
        """Equal for the points of one curve, which differ only in the number of steps."""
        a, b = (tuple(sorted(arm.toggles.items())) for arm in (self.contrast.a, self.contrast.b))
        return self.family, self.row.contrast, self.row.metric, a, b


class Curve(NamedTuple):
    """A plot of one metric of one toggle by steps."""

    last: SteppedRow
    plot: svg.Svg


class Growth(NamedTuple):
    """The growth that a run shows."""

    lines: list[SteppedRow]
    curves: list[Curve]
    missing: list[str]
    """Sentences on what the run does not show, and why."""


def growth(source: Source) -> Growth:
    rows = list(_stepped_rows(source))
    by_curve: dict[tuple[object, ...], dict[float, SteppedRow]] = {}
    for stepped in rows:
        by_curve.setdefault(stepped.curve_key, {})[stepped.point.steps] = stepped
    curves = [[of[steps] for steps in sorted(of)] for of in by_curve.values() if len(of) > 1]
    drawn = [_curve(source, of_curve) for of_curve in curves[:MAX_CURVES]]
    missing = _missing({stepped.row.metric for stepped in rows}, bool(curves))
    return Growth(rows[:MAX_LINES], drawn, list(missing))


def _stepped_rows(source: Source) -> Iterator[SteppedRow]:
    cells = {(cell.scenario, cell.contrast.name): cell.contrast for cell in source.run.header.cells}
    steps = {key: _steps(pairs) for key, pairs in source.pairs.items()}
    for row in source.run.comparisons:
        contrast, estimate = cells.get((row.scenario, row.contrast)), row.estimate
        key = source.cell_of(row)
        count = steps.get(key) if key else None
        if row.contrast == NOISE_FLOOR or row.metric not in (*TIMES, *MEMORY):
            continue
        if estimate is not None and contrast is not None and count is not None:
            yield SteppedRow(row, contrast, svg.Point(count, estimate.a, estimate.b))


def _steps(pairs: NumberedPairs) -> float | None:
    """Median requests of the sessions; None unless each trial was a single long session."""
    counted = [pair for _, pair in pairs if pair_outcome(*pair)[0] == "measured"]
    samples = [sample for pair in counted for sample in pair if sample]
    if not samples or not all(WITHIN in sample.metrics for sample in samples):
        return None
    return median(sample.metrics.get("requests", 0.0) for sample in samples)


def _curve(source: Source, rows: Sequence[SteppedRow]) -> Curve:
    """A curve through rows, which are in the order of their steps."""
    metric, points = rows[0].row.metric, [stepped.point for stepped in rows]
    top = max(value for point in points for value in (point.a, point.b))
    a, b = sides = side_names(source.run)
    label = "; ".join(
        f"{point.steps:g} steps: {source.figure(metric, point.a)} {a}, "
        f"{source.figure(metric, point.b)} {b}"
        for point in points
    )
    return Curve(rows[0], svg.curve(points, (top, source.figure(metric, top)), sides, label))


def _missing(metrics: set[str], curves: bool) -> Iterator[str]:
    if not metrics:
        yield (
            "This run does not show growth: it compared no single session of 20 steps or more by "
            "time per step or memory. trae-bench run trajectory-long@history "
            "trajectory-long@history-1000 compares two lengths."
        )
        return
    if not curves:
        yield (
            "No curve: each session has only one length. A curve needs two variants of a scenario "
            "that differ only in length."
        )
    if not metrics.intersection(MEMORY):
        yield f"No memory by steps: {', '.join(MEMORY)} were not compared in these sessions."
    if not metrics.intersection(TIMES):
        yield f"No time by steps: {', '.join(TIMES)} were not compared in these sessions."
