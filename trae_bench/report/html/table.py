"""The table of effects."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from trae_bench.model.experiment import Metric
from trae_bench.model.result import Comparison, Estimate, Interval
from trae_bench.report.html import svg
from trae_bench.report.html.source import Source, band
from trae_bench.report.text.markdown import compared
from trae_bench.report.text.terminal import saved

MAX_ROWS = 1500
"""Maximum rows of all runs together; a full run of all scenarios has a few hundred."""


class Effect(NamedTuple):
    """One row. Its texts are unescaped; the template escapes them."""

    first: bool
    """Whether it is the first row of its scenario and contrast."""
    source: Source
    row: Comparison
    figures: list[tuple[str, float | None]]
    """Both sides, ratio, interval and saved: each text with its sort key."""
    bar: svg.Svg | None
    verdict: str
    note: str
    """A remark on the verdict."""


def effects(sources: Sequence[Source]) -> tuple[list[Effect], svg.Scale, int]:
    """Rows of all runs, the scale of their bars, and the number of rows left out."""
    rows = [(source, row) for source in sources for row in compared(source.run)]
    scale = svg.bar_scale(
        found.interval or Interval(found.log_ratio, found.log_ratio)
        for _, row in rows
        if (found := row.estimate) and found.log_ratio is not None
    )
    shown = [
        _effect(number == 0, source, row, scale)
        for _, of_contrast in groupby(rows[:MAX_ROWS], key=_contrast)
        for number, (source, row) in enumerate(of_contrast)
    ]
    return shown, scale, len(rows) - len(shown)


def _contrast(line: tuple[Source, Comparison]) -> tuple[int, str, str]:
    source, row = line
    return id(source), row.scenario, row.contrast


def _effect(first: bool, source: Source, row: Comparison, scale: svg.Scale) -> Effect:
    _, *texts, verdict = source.texts(row)
    keys = _keys(row.estimate, source.run.header.metrics[row.metric])
    bar = None
    if (found := row.estimate) is not None and found.log_ratio is not None:
        bar = svg.interval_bar(found.log_ratio, found.interval, band(source, row), scale)
    note = _note(row) if source.judged and row.estimate is not None else ""
    figures = list(zip(texts, keys, strict=True))
    return Effect(first, source, row, figures, bar, verdict, note)


def _note(row: Comparison) -> str:
    if row.confirmation is not None:
        stands = "" if row.confirmation.stands else "not "
        return f"{stands}confirmed by {row.confirmation.pairs.measured} fresh pairs"
    return "" if row.gated else "for information"


def _keys(estimate: Estimate | None, metric: Metric) -> tuple[float | None, ...]:
    """Sort keys: both sides, the ratio, the width of the interval, and the gain."""
    if estimate is None:
        return (None,) * 5
    width = estimate.interval.high - estimate.interval.low if estimate.interval else None
    gain = saved(estimate, metric.better)
    keys = (estimate.a, estimate.b, estimate.log_ratio, width, gain)
    return tuple(map(_rounded, keys))


def _rounded(value: float | None) -> float | None:
    """Four digits suffice for sorting. A difference of two finite values can be infinite."""
    return None if value is None else float(f"{min(max(value, -1e300), 1e300):.4g}")
