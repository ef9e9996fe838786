"""Plots of ratios as inline SVG, reproducible byte for byte.

The page's style sheet sets the colours by class. Ratios are natural logarithms on a log scale, so
2 and 0.5 have the same distance from 1.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from trae_bench.model.result import Interval
from trae_bench.report.escape import for_html

Mark = float | Literal["void", "lost"] | None
"""A pair: its log ratio, `void` if answers differ, `lost` if not measured, None if no ratio."""
Sides = tuple[str, str]

_NICE = (1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1e3, 1e4, 1e5, 1e6)
"""Round ratios at which a scale can end."""
_BAR, _BAR_HEIGHT = 160, 14
_PLOT, _PLOT_HEIGHT, _MARGIN = 240, 84, 40
_CURVE, _CURVE_HEIGHT = 300, 170


class Svg(str):
    """Markup with escaped texts, which the template does not escape again."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


class Scale(NamedTuple):
    """Maps log ratios from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value; a value beyond the scale is at its edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)


def limit(largest: float) -> float:
    """The round ratio, as a logarithm, that ends a scale for log ratios up to `largest`."""
    return next((math.log(n) for n in _NICE if math.log(n) >= largest - 1e-9), math.log(_NICE[-1]))


def bar_scale(intervals: Iterable[Interval]) -> Scale:
    """One scale for a whole table, on which three quarters of its intervals fit.

    Larger intervals are cut and get an arrow; otherwise they would make the others too small.
    """
    reach = sorted(max(abs(interval.low), abs(interval.high)) for interval in intervals)
    end = limit(max(reach[(len(reach) - 1) * 3 // 4], math.log(1.1)) if reach else math.log(1.1))
    return Scale(-end, end, 8, _BAR - 8)


def around(values: Iterable[float]) -> tuple[float, float]:
    """Ends of a scale that includes the ratio 1."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    return -limit(max(-low, high / 8)), limit(max(high, -low / 8))


# -- the table's bars -------------------------------------------------------------------


def axis(scale: Scale) -> Svg:
    """The ends of the scale and 1, for the heading of the column."""
    texts = "".join(
        f'<text x="{_px(scale.at(value))}" y="10">{_tick(value)}</text>'
        for value in _apart(scale, 24)
    )
    return _hidden(_BAR, _BAR_HEIGHT, texts)


def interval_bar(log_ratio: float, interval: Interval | None, band: float, scale: Scale) -> Svg:
    """A ratio with its interval. `band` is the smallest effect that counts, on the log scale."""
    left, right = _px(scale.at(-band)), _px(scale.at(band))
    parts = [
        f'<path class="band" d="M{left} 0H{right}V{_BAR_HEIGHT}H{left}z"/>',
        _one(scale),
        _whiskers(interval or Interval(log_ratio, log_ratio), scale),
    ]
    if scale.low <= log_ratio <= scale.high:
        parts.append(f'<path class="dot" d="M{_px(scale.at(log_ratio))} 7h0"/>')
    return _hidden(_BAR, _BAR_HEIGHT, "".join(parts))


def step_bar(start: float, end: float, interval: Interval | None, scale: Scale) -> Svg:
    """A step of a waterfall: from one running product to the next."""
    left, right = sorted((scale.at(start), scale.at(end)))
    parts = [
        _one(scale),
        f'<path class="step" d="M{_px(left)} 3H{_px(max(right, left + 1))}v8H{_px(left)}z"/>',
        _whiskers(interval, scale) if interval else "",
    ]
    return _hidden(_BAR, _BAR_HEIGHT, "".join(parts))


def step_scale(values: Iterable[float]) -> Scale:
    low, high = around(values)
    return Scale(low, high, 8, _BAR - 8)


def _one(scale: Scale) -> str:
    return f'<path class="zero" d="M{_px(scale.at(0.0))} 0v{_BAR_HEIGHT}"/>'


def _whiskers(interval: Interval, scale: Scale) -> str:
    """An interval, with an arrow if it extends beyond the scale."""
    left, right = _px(scale.at(interval.low)), _px(scale.at(interval.high))
    parts = [f'<path class="iv" d="M{left} 7H{right}"/>']
    if interval.low < scale.low:
        parts.append('<path class="tip" d="M9 2.5L2 7l7 4.5z"/>')
    if interval.high > scale.high:
        parts.append(f'<path class="tip" d="M{_BAR - 9} 2.5l7 4.5l-7 4.5z"/>')
    return "".join(parts)


# -- pairs in order ---------------------------------------------------------------------


def pairs_plot(
    marks: Sequence[Mark], log_ratio: float, interval: Interval | None, band: float, label: str
) -> Svg:
    """The ratio of each pair in order, with the estimate and its interval; `label` describes it."""
    known = [mark for mark in marks if isinstance(mark, float)]
    ends = (interval.low, interval.high) if interval else (log_ratio, log_ratio)
    low, high = around([log_ratio, *ends, *known, -band, band])
    # A higher value of the metric is higher in the plot.
    scale = Scale(low, high, _PLOT_HEIGHT - 8, 8)
    parts = [
        _stripe("band", -band, band, scale),
        _stripe("ci", *ends, scale),
        f'<path class="zero" d="M{_MARGIN} {scale.at(0.0):.0f}H{_PLOT}"/>',
        f'<path class="mean" d="M{_MARGIN} {_px(scale.at(log_ratio))}H{_PLOT}"/>',
        *_pair_marks(marks, scale),
        *(
            f'<text x="{_MARGIN - 5}" y="{scale.at(value) + 3:.0f}">{_tick(value)}</text>'
            for value in _apart(scale, 12)
        ),
    ]
    return _shown(_PLOT, _PLOT_HEIGHT, label, "".join(parts))


def _pair_marks(marks: Sequence[Mark], scale: Scale) -> Iterable[str]:
    """One path for all marks of a kind, because a page has tens of thousands of marks."""
    gap = (_PLOT - _MARGIN) / max(1, len(marks))
    places = [_MARGIN + gap * (number + 0.5) for number in range(len(marks))]
    bottom = _PLOT_HEIGHT - 8
    dots = [(x, scale.at(m)) for x, m in zip(places, marks, strict=True) if isinstance(m, float)]
    yield f'<path class="dot" d="{_dots(dots)}"/>'
    for kind, shape in (("void", "m0-4l4 4l-4 4l-4-4z"), ("lost", "m-3-3l6 6m0-6l-6 6")):
        found = [x for x, mark in zip(places, marks, strict=True) if mark == kind]
        if found:
            drawn = "".join(f"M{x:.0f} {bottom}{shape}" for x in found)
            yield f'<path class="{kind}" d="{drawn}"/>'


def _dots(places: Iterable[tuple[float, float]]) -> str:
    """Dots as lines of zero length with round ends, in coordinates relative to the last dot."""
    drawn, last = [], (0, 0)
    for x, y in places:
        here = (round(x), round(y))
        drawn.append(f"m{here[0] - last[0]} {here[1] - last[1]}h0".replace(" -", "-"))
        last = here
    return "".join(drawn)


def _stripe(name: str, low: float, high: float, scale: Scale) -> str:
    top, bottom = _px(scale.at(high)), _px(scale.at(low))
    return f'<path class="{name}" d="M{_MARGIN} {top}H{_PLOT}V{bottom}H{_MARGIN}z"/>'


# -- curves -----------------------------------------------------------------------------


class Point(NamedTuple):
    """The medians of both sides at one number of steps."""

    steps: float
    a: float
    b: float


def curve(points: Sequence[Point], top: tuple[float, str], sides: Sides, label: str) -> Svg:
    """Values by steps, both from 0; `top` is the end of the vertical axis and its label."""
    left, right, above, below = 52, _CURVE - 40, 12, _CURVE_HEIGHT - 24
    max_steps = max(point.steps for point in points) or 1.0
    x = Scale(0, max_steps, left, right)
    y = Scale(0, top[0] or 1.0, below, above)
    parts = [f'<path class="axis" d="M{left} {above}V{below}H{right}"/>']
    parts += [
        f'<text class="x" x="{_px(x.at(point.steps))}" y="{below + 15}">{point.steps:g}</text>'
        for point in points
    ]
    parts.append(f'<text x="{left - 5}" y="{below}">0</text>')
    parts.append(f'<text x="{left - 5}" y="{above + 5}">{for_html(top[1])}</text>')
    ends = _label_heights(y.at(points[-1].a), y.at(points[-1].b))
    for name, side, height in zip(("a", "b"), sides, ends, strict=True):
        line = [(x.at(p.steps), y.at(p.a if name == "a" else p.b)) for p in points]
        path = "L".join(f"{_px(px)} {_px(py)}" for px, py in line)
        dots = "".join(f"M{_px(px)} {_px(py)}h0" for px, py in line)
        parts.append(
            f'<path class="line {name}" d="M{path}"/><path class="dot {name}" d="{dots}"/>'
        )
        parts.append(
            f'<text class="{name}" x="{right + 8}" y="{_px(height + 4)}">{for_html(side)}</text>'
        )
    return _shown(_CURVE, _CURVE_HEIGHT, label, "".join(parts))


def _label_heights(a: float, b: float) -> tuple[float, float]:
    """Heights of the names of two lines; names that would overlap are moved apart."""
    if abs(a - b) >= 12:
        return a, b
    middle = (a + b) / 2
    return (middle - 6, middle + 6) if a <= b else (middle + 6, middle - 6)


# -- helpers ----------------------------------------------------------------------------


def _hidden(width: int, height: int, inner: str) -> Svg:
    """Hidden from screen readers, because the text beside it has the same content."""
    return Svg(f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{inner}</svg>')


def _shown(width: int, height: int, label: str, inner: str) -> Svg:
    name = for_html(label, 1000)
    return Svg(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{inner}</svg>')


def _px(value: float) -> str:
    """A pixel coordinate with one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _apart(scale: Scale, room: float) -> list[float]:
    """Ticks: at 1, and at each end that is at least `room` pixels away."""
    ends = (scale.low, scale.high)
    return [0.0, *(end for end in ends if abs(scale.at(end) - scale.at(0.0)) >= room)]


def _tick(log_ratio: float) -> str:
    """A ratio with a multiplication or division sign."""
    if not log_ratio:
        return "1"
    sign = "\N{MULTIPLICATION SIGN}" if log_ratio > 0 else "\N{DIVISION SIGN}"
    return f"{sign}{math.exp(abs(log_ratio)):.6g}"
