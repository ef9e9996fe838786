"""What grows with the length of a session: figures against steps, as far as the run has them."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Contrast, Metric
from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.html import svg
from trae_bench.report.html.source import MAX_NAME, NumberedPairs, Source
from trae_bench.report.text.terminal import quantity, side_names
from trae_bench.stats.pairs import pair_outcome

WITHIN = "step_overhead_growth"
"""The one metric that tells of growth from a single length. A sample has it where it was one
session long enough to speak of growth, whatever was compared."""
TIMES = ("step_overhead", "step_overhead_p95", WITHIN)
MEMORY = ("agent_rss", "peak_rss")
MAX_LINES = 400
MAX_CURVES = 60


class Line(Struct, frozen=True):
    """One row at its number of steps. Texts are as the file has them: a template escapes them."""

    scenario: str
    contrast: str
    metric: str
    steps: str
    a: str
    b: str


class Curve(Struct, frozen=True):
    """One metric of one toggle against steps."""

    title: str
    metric: str
    plot: svg.Svg


class Growth(Struct, frozen=True):
    """All that a run has of it."""

    lines: tuple[Line, ...]
    curves: tuple[Curve, ...]
    missing: tuple[str, ...]
    """What cannot be told, and why."""


class _Seen(Struct, frozen=True):
    """A row and the steps of its sessions."""

    row: Comparison
    contrast: Contrast
    point: svg.Point

    @property
    def joined_by(self) -> tuple[object, ...]:
        """Points of one line: they differ in nothing but length."""
        family = self.row.scenario.partition("@")[0]
        a, b = (tuple(sorted(arm.toggles.items())) for arm in (self.contrast.a, self.contrast.b))
        return family, self.row.contrast, self.row.metric, a, b


def growth(source: Source) -> Growth:
    run = source.run
    seen = list(_seen(source))
    lines: dict[tuple[object, ...], dict[float, _Seen]] = {}
    for one in seen:
        lines.setdefault(one.joined_by, {})[one.point.steps] = one
    long = [[of[steps] for steps in sorted(of)] for of in lines.values() if len(of) > 1]
    return Growth(
        lines=tuple(_line(one, run.header.metrics) for one in seen[:MAX_LINES]),
        curves=tuple(_curve(run, points) for points in long[:MAX_CURVES]),
        missing=tuple(_missing({one.row.metric for one in seen}, bool(long))),
    )


def _seen(source: Source) -> Iterator[_Seen]:
    cells = {(cell.scenario, cell.contrast.name): cell.contrast for cell in source.run.header.cells}
    steps = {key: _steps(pairs) for key, pairs in source.pairs.items()}
    for row in source.run.comparisons:
        contrast, found = cells.get((row.scenario, row.contrast)), row.estimate
        key = source.cell_of(row)
        count = steps.get(key) if key else None
        if row.contrast == NOISE_FLOOR or row.metric not in (*TIMES, *MEMORY):
            continue
        if found is not None and contrast is not None and count is not None:
            yield _Seen(row, contrast, svg.Point(count, found.a, found.b))


def _steps(pairs: NumberedPairs) -> float | None:
    """Requests of the sessions, where each trial was a single long one."""
    samples = [one for _, p in pairs if pair_outcome(*p)[0] == "measured" for one in p if one]
    if not samples or not all(WITHIN in one.metrics for one in samples):
        return None
    return median(one.metrics.get("requests", 0.0) for one in samples)


def _line(one: _Seen, metrics: Mapping[str, Metric]) -> Line:
    row, unit = one.row, for_terminal(metrics[one.row.metric].unit, 10)
    return Line(
        scenario=row.scenario,
        contrast=row.contrast,
        metric=row.metric,
        steps=f"{one.point.steps:g}",
        a=quantity(one.point.a, unit),
        b=quantity(one.point.b, unit),
    )


def _curve(run: RunFile, seen: Sequence[_Seen]) -> Curve:
    """From the first to the last length."""
    row, points = seen[0].row, [one.point for one in seen]
    unit = for_terminal(run.header.metrics[row.metric].unit, 10)
    most = max(value for point in points for value in (point.a, point.b))
    sides = side_names(run)
    told = "; ".join(
        f"{point.steps:g} steps: {quantity(point.a, unit)} {sides[0]}, "
        f"{quantity(point.b, unit)} {sides[1]}"
        for point in points
    )
    family = row.scenario.partition("@")[0]
    return Curve(
        title=f"{for_terminal(family, MAX_NAME)} / {for_terminal(row.contrast, MAX_NAME)}",
        metric=row.metric,
        plot=svg.curve(points, (most, quantity(most, unit)), sides, told),
    )


def _missing(metrics: set[str], curves: bool) -> Iterator[str]:
    if not metrics:
        yield (
            "This run tells nothing of growth: no single session of 20 steps or more was compared "
            "by its time a step or its memory. trae-bench run trajectory-long@history "
            "trajectory-long@history-1000 does that, with two lengths."
        )
        return
    if not curves:
        yield (
            "No curve: each session was played in one length only. It takes two variants of a "
            "scenario that differ in nothing but length."
        )
    if not metrics.intersection(MEMORY):
        yield f"No memory against steps: {', '.join(MEMORY)} were not compared in these sessions."
    if not metrics.intersection(TIMES):
        yield f"No time against steps: {', '.join(TIMES)} were not compared in these sessions."
