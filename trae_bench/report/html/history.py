"""The history of a project as one self-contained page: a plot of each series over its commits.

The page has no script. As in the report of a run, its policy allows only its style sheet, and every
text is escaped. The same points give the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from trae_bench import __version__
from trae_bench.report.escape import for_html
from trae_bench.report.html.svg import Scale, Svg
from trae_bench.report.html.template import render, text_of
from trae_bench.report.text.gate import short
from trae_bench.report.text.history import change, sentence, title
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import quantity
from trae_bench.verdicts.gate import percent_change
from trae_bench.verdicts.history import Series, Shift, levels

MAX_SERIES = 60
MAX_COMMITS = 200
"""Newest commits of a plot; each is an element of the page."""
SPREAD = 1.96
"""Standard errors of a bar: it covers 95 %."""
_WIDTH, _HEIGHT = 900, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 888, 12, 200
_STEPS = (1, 2, 5)
_LEAST_STEP = 1e-4
"""Smallest step of the axis: 0.01 %."""


class Shown(Struct, frozen=True):
    """A series with its changes."""

    series: Series
    shifts: tuple[Shift, ...]


class Row(NamedTuple):
    """A commit in the table below a plot."""

    commit: str
    subject: str
    created: str
    change: str
    median: str
    pairs: int
    machines: str


def page(shown: Sequence[Shown], subjects: Mapping[str, str]) -> str:
    """Render the page. `subjects` are the first lines of the messages, by commit.

    Raises `UsageError` if jinja2 is not installed.
    """
    kept = shown[:MAX_SERIES]
    found = sum(len(each.shifts) for each in kept)
    return render(
        "history.html.jinja",
        style=Svg(text_of("page.css") + text_of("history.css")),
        version=__version__,
        headline=f"{count(len(shown), 'series', '')}, {count(found, 'change')}",
        sections=[_section(each, subjects) for each in kept],
        left_out=len(shown) - len(kept),
    )


def _section(each: Shown, subjects: Mapping[str, str]) -> dict[str, object]:
    series = each.series
    kinds = {one.kind for one in each.shifts}
    kind = next((name for name in ("regression", "improvement") if name in kinds), "")
    return {
        "title": f"{series.key.scenario} {series.key.metric}",
        "about": title(series),
        "kind": kind,
        "plot": plot(each, subjects) if series.commits else "",
        "changes": [(one.kind, sentence(one, subjects)) for one in each.shifts],
        "rows": list(_rows(series, subjects)),
        "left_out": max(0, len(series.commits) - MAX_COMMITS),
    }


def _rows(series: Series, subjects: Mapping[str, str]) -> Iterator[Row]:
    for one in reversed(series.commits[-MAX_COMMITS:]):
        yield Row(
            commit=short(one.commit),
            subject=subjects.get(one.commit, ""),
            created=one.created[:10],
            change=change(one),
            median=quantity(one.head, series.unit),
            pairs=one.pairs,
            machines=", ".join(one.machines),
        )


# -- the plot ---------------------------------------------------------------------------


def plot(each: Shown, subjects: Mapping[str, str]) -> Svg:
    """Draw the newest commits of a series, with their errors, levels and changes."""
    series = each.series
    commits = series.commits[-MAX_COMMITS:]
    first = len(series.commits) - len(commits)
    x = Scale(first - 0.5, len(series.commits) - 0.5, _LEFT, _RIGHT)
    ticks = _ticks(
        [one.log_ratio - SPREAD * one.error for one in commits],
        [one.log_ratio + SPREAD * one.error for one in commits],
    )
    y = Scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    parts = [
        *_axis(ticks, y),
        *_changes(each, x, y),
        *(
            f'<path class="level" d="M{_px(x.at(max(start, first) - 0.5))} {_px(y.at(level.mean))}'
            f'H{_px(x.at(end - 0.5))}"/>'
            for start, end, level in levels(series, each.shifts)
            if end > first
        ),
    ]
    for place, one in enumerate(commits, start=first):
        low, high = one.log_ratio - SPREAD * one.error, one.log_ratio + SPREAD * one.error
        told = f"{short(one.commit)} {change(one)} {subjects.get(one.commit, '')}"
        at = _px(x.at(place))
        parts.append(
            f"<g><title>{for_html(told, 300)}</title>"
            f'<path class="iv" d="M{at} {_px(y.at(low))}V{_px(y.at(high))}"/>'
            f'<path class="dot" d="M{at} {_px(y.at(one.log_ratio))}h0"/></g>'
        )
    ends = (("start", _LEFT, commits[0]), ("end", _RIGHT, commits[-1]))
    parts += [
        f'<text class="{side}" x="{place}" y="{_BOTTOM + 20}">'
        f"{for_html(f'{short(one.commit)}, {one.created[:10]}')}</text>"
        for side, place, one in ends[: 1 + (len(commits) > 1)]
    ]
    label = f"{title(series)}; newest {change(commits[-1])}"
    return Svg(
        f'<svg class="series" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{for_html(label, 600)}">{"".join(parts)}</svg>'
    )


def _changes(each: Shown, x: Scale, y: Scale) -> Iterator[str]:
    """A band over the commits among which each change is, with its size."""
    offset = len(each.series.commits)
    places = {one.commit: place for place, one in enumerate(each.series.commits)}
    for one in each.shifts:
        left, right = x.at(places[one.base] + 0.1), x.at(places[one.head] - 0.1)
        if places[one.head] < offset - MAX_COMMITS:
            continue
        yield (
            f'<path class="shift {one.kind}" d="M{_px(left)} {_TOP}H{_px(max(right, left + 2))}'
            f'V{_BOTTOM}H{_px(left)}z"/>'
            f'<text class="x {one.kind}" x="{_px((left + right) / 2)}" y="{_TOP - 2}">'
            f"{for_html(percent_change(one.size))}</text>"
        )


def _axis(ticks: Sequence[float], y: Scale) -> Iterator[str]:
    for tick in ticks:
        height = _px(y.at(tick))
        yield f'<path class="{"zero" if not tick else "grid"}" d="M{_LEFT} {height}H{_RIGHT}"/>'
        text = percent_change(tick) if tick else "0 %"
        yield f'<text x="{_LEFT - 6}" y="{_px(y.at(tick) + 3)}">{for_html(text)}</text>'


def _ticks(lows: Sequence[float], highs: Sequence[float]) -> list[float]:
    """Between three and eight round changes that include 0 and the values; as log ratios."""
    # Far beyond a factor of 10, percents are of no use as an axis.
    low = math.expm1(max(min(0.0, *lows), -2.3))
    high = math.expm1(min(max(0.0, *highs), 2.3))
    least = max((high - low) / 6, _LEAST_STEP)
    unit = 10.0 ** math.floor(math.log10(least))
    step = next((unit * each for each in _STEPS if unit * each >= least), 10 * unit)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    changes = [number * step for number in range(first, max(last, first + 1) + 1)]
    return [math.log1p(each) for each in changes if each > -0.999]


def _px(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
