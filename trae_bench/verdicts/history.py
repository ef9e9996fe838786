"""Series of points along a branch, and the commits at which their level changes. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from trae_bench.design.plan import HEAD
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Better
from trae_bench.model.history import Point
from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.stats.change_points import MIN_ERROR, Change, Level, change_points
from trae_bench.stats.decision import direction_of
from trae_bench.stats.metric_rules import default_threshold

MAX_COMMITS = 200
"""Newest commits of a series that are searched. The time grows with the square of their number."""
SURE = 1.645
"""Standard errors between the size of a change and what it surely stays below, one-sided 95 %."""
CONFIRM_LEVEL = 0.01
"""Largest one-sided p-value of the run that confirms a change."""
CONFIRM_SHARE = 0.5
"""Smallest effect of that run, as a share of the threshold."""

Kind = Literal["regression", "improvement", "small"]
"""`small` is a change that is surely below the threshold of its metric."""
Status = Literal["confirmed", "not confirmed", "not measured", "not checked"]


class SeriesKey(NamedTuple):
    """Points with the same key can be compared."""

    scenario: str
    metric: str
    agent: str
    anchor: str


class Measured(Struct, frozen=True):
    """What is known of one commit: all its points together."""

    commit: str
    log_ratio: float
    error: float
    pairs: int
    head: float
    """Median of the newest point, in the metric's unit."""
    points: int
    machines: tuple[str, ...]
    created: str
    """Of the newest point."""


class Series(Struct, frozen=True):
    """The commits of a branch that were compared with one anchor, oldest first."""

    key: SeriesKey
    unit: str
    better: Better
    commits: tuple[Measured, ...]
    elsewhere: int = 0
    """Commits with points that are not on the branch."""


class Shift(Struct, frozen=True):
    """A change of the level of a series."""

    key: SeriesKey
    kind: Kind
    base: str
    """The last commit that surely has the level before."""
    head: str
    """The first commit that surely has the level after."""
    likely: str
    """The most likely first commit with the level after, of those that were measured."""
    size: float
    """Log ratio of the levels."""
    error: float
    """Standard error of `size`."""
    p: float
    change: Change


class Checked(Struct, frozen=True):
    """A change, and what the comparison of its two commits says."""

    shift: Shift
    status: Status
    row: Comparison | None = None
    problem: str = ""
    """Why it was not measured."""
    run_file: str = ""


# -- series -----------------------------------------------------------------------------


def series_of(points: Iterable[Point], line: Sequence[str]) -> list[Series]:
    """Sort points into series, by scenario, metric, agent and anchor.

    `line` has the commits of the branch, oldest first; points of other commits are counted.
    """
    places = {commit: place for place, commit in enumerate(line)}
    grouped: dict[SeriesKey, dict[str, list[Point]]] = {}
    for point in points:
        key = SeriesKey(point.scenario, point.metric, point.agent, point.anchor)
        grouped.setdefault(key, {}).setdefault(point.commit, []).append(point)
    return [_series(key, grouped[key], places) for key in sorted(grouped)]


def _series(
    key: SeriesKey, commits: Mapping[str, list[Point]], places: Mapping[str, int]
) -> Series:
    newest = max((point for points in commits.values() for point in points), key=_age)
    known = METRICS.get(key.metric)
    on_line = sorted(commits.keys() & places.keys(), key=lambda commit: places[commit])
    return Series(
        key=key,
        unit=newest.unit,
        better=known.better if known else newest.better,
        commits=tuple(combined(commits[commit]) for commit in on_line),
        elsewhere=len(commits) - len(on_line),
    )


def _age(point: Point) -> tuple[str, str]:
    return point.created, point.seal


def combined(points: Sequence[Point]) -> Measured:
    """Combine the points of one commit, each weighted by the inverse of its variance.

    If they differ by more than their errors allow, the error grows by Birge's ratio: Birge, The
    calculation of errors by the method of least squares, Physical Review 40 (1932).
    """
    weights = [max(point.error, MIN_ERROR) ** -2 for point in points]
    total = math.fsum(weights)
    mean = math.fsum(p.log_ratio * w for p, w in zip(points, weights, strict=True)) / total
    squares = math.fsum((p.log_ratio - mean) ** 2 * w for p, w in zip(points, weights, strict=True))
    birge = math.sqrt(squares / (len(points) - 1)) if len(points) > 1 else 0.0
    newest = max(points, key=_age)
    return Measured(
        commit=newest.commit,
        log_ratio=mean,
        error=newest.error if len(points) == 1 else max(1.0, birge) / math.sqrt(total),
        pairs=sum(point.pairs for point in points),
        head=newest.head,
        points=len(points),
        machines=tuple(sorted({point.machine for point in points})),
        created=newest.created,
    )


# -- changes ----------------------------------------------------------------------------


def shifts(series: Series, threshold: float | None = None) -> list[Shift]:
    """Return the changes of the level of a series, oldest first.

    `threshold` (a fraction) replaces the smallest effect of the metric that counts.
    """
    measured = series.commits[-MAX_COMMITS:]
    found = change_points([one.log_ratio for one in measured], [one.error for one in measured])
    least = threshold_of(series) if threshold is None else threshold
    return [_shift(series, measured, change, least) for change in found]


def threshold_of(series: Series) -> float:
    """Return the smallest effect (a fraction) that counts; 0 for an unknown metric."""
    metric = METRICS.get(series.key.metric)
    return default_threshold(metric) if metric else 0.0


def levels(series: Series, found: Sequence[Shift]) -> list[tuple[int, int, Level]]:
    """Return the levels of the searched commits: the first, the end, and the level."""
    if not found:
        return []
    offset = max(0, len(series.commits) - MAX_COMMITS)
    places = [offset, *(offset + one.change.place for one in found), len(series.commits)]
    means = [found[0].change.before, *(one.change.after for one in found)]
    return [
        (start, end, mean) for start, end, mean in zip(places[:-1], places[1:], means, strict=True)
    ]


def _shift(series: Series, measured: Sequence[Measured], change: Change, threshold: float) -> Shift:
    kind: Kind = direction_of(change.size, series.better)
    error = math.hypot(change.before.error, change.after.error)
    if abs(change.size) + SURE * error < math.log1p(threshold):
        kind = "small"
    return Shift(
        key=series.key,
        kind=kind,
        base=measured[change.first - 1].commit,
        head=measured[change.last].commit,
        likely=measured[change.place].commit,
        size=change.size,
        error=error,
        p=change.p,
        change=change,
    )


def since(found: Iterable[Shift], line: Sequence[str], commit: str) -> list[Shift]:
    """Keep the changes that can lie after a commit of the line."""
    places = {name: place for place, name in enumerate(line)}
    return [one for one in found if places[one.head] > places[commit]]


def checked(shift: Shift, run: RunFile, run_file: str = "") -> Checked:
    """What a run that compares the two commits of a change says.

    The same effect must show, at half the threshold or more: a change of just the threshold would
    fail half the time.
    """
    row = next(
        (
            row
            for row in run.comparisons
            if row.contrast == HEAD
            and (row.scenario, row.metric) == (shift.key.scenario, shift.key.metric)
        ),
        None,
    )
    if row is None or row.estimate is None or row.estimate.log_ratio is None:
        reasons = row.pairs.reasons if row else ()
        problem = reasons[0] if reasons else "no pair was measured"
        return Checked(shift, "not measured", row, problem, run_file)
    effect = row.estimate.log_ratio
    same = effect * shift.size > 0
    large = abs(effect) >= CONFIRM_SHARE * math.log1p(row.threshold)
    sure = row.judgement.p / 2 <= CONFIRM_LEVEL
    stands = row.confirmation is None or row.confirmation.stands
    status: Status = "confirmed" if same and large and sure and stands else "not confirmed"
    return Checked(shift, status, row, "", run_file)
