"""Plots of runs as SVG or PNG, reproducible byte for byte. Needs matplotlib (extra `report`).

The colours are the colour-blind safe palette of Okabe and Ito; each verdict also has its own
marker. The figures come from the rows of a run, those of pairs from its samples.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.model.result import Comparison, NoiseEstimate, Verdict
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import (
    as_interval,
    as_ratio,
    count_compared,
    effect_shown,
    min_effect,
    percent,
    side_names,
)
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import Look, Row, critical_effect, log_ratios, looks
from trae_bench.stats.pairs import RowKey, key_of_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Kind = Literal["effects", "pairs", "noise"]
Format = Literal["svg", "png"]

MAX_ROWS = 200
"""Maximum rows of a plot."""
MAX_NAME = 40
"""Maximum characters of a name."""
MAX_LOG_RATIO = math.log(100)
"""The axis of ratios ends here at most."""
DOTS_PER_INCH = 150

INK, FAINT, GRID, BAND, PAPER = "#1b2430", "#5b6775", "#c9d0d8", "#e6eaef", "#ffffff"
_DARK = {INK: "#e8edf4", FAINT: "#a9b4c2", GRID: "#3b4550", BAND: "#28313c", PAPER: "#0d1117"}
"""Replacements on a dark page; the colours of verdicts suit both."""


class _MarkerStyle(Struct, frozen=True):
    """The marker of a verdict."""

    colour: str
    marker: str
    filled: bool = True


_VERDICTS: Mapping[Verdict, _MarkerStyle] = {
    "improvement": _MarkerStyle("#009e73", "^"),
    "regression": _MarkerStyle("#d55e00", "v"),
    "equivalent": _MarkerStyle("#3b8fd0", "s"),
    "inconclusive": _MarkerStyle("#8a8f98", "o", filled=False),
    "not measured": _MarkerStyle("#8a8f98", "x"),
}
_UNCLAIMED = _MarkerStyle("#8a8f98", "o")


class RowFilter(Struct, frozen=True):
    """Selects rows of a run; None selects all."""

    scenario: str | None = None
    toggle: str | None = None
    metric: str | None = None

    def has(self, row: Comparison | NoiseEstimate) -> bool:
        contrast = row.contrast if isinstance(row, Comparison) else NOISE_FLOOR
        wanted = (self.scenario, self.toggle, self.metric)
        names = (row.scenario, contrast, row.metric)
        return all(want in (None, name) for want, name in zip(wanted, names, strict=True))


ALL = RowFilter()


def picture(
    runs: Mapping[str, RunFile],
    kind: Kind,
    format: Format,
    shown: RowFilter = ALL,
    *,
    claimed: bool = True,
) -> bytes:
    """A plot of runs, given by the names to show.

    `claimed` is false if a run was too short for verdicts. Raises `UsageError` if matplotlib is
    not installed, or if the number of rows does not suit the plot.
    """
    with _style():
        return _bytes(_KINDS[kind](runs, shown, claimed), format)


@contextmanager
def _style() -> Iterator[None]:
    """Replaces the user's matplotlib settings, so that a plot is the same everywhere."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError('plots need matplotlib; pip install "trae-bench[report]"') from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": "DejaVu Sans",
                "font.size": 9.0,
                "svg.hashsalt": "trae-bench",
                "svg.fonttype": "path",
                "text.parse_math": False,
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": GRID,
                "xtick.color": FAINT,
                "ytick.color": INK,
                "figure.facecolor": PAPER,
                "axes.facecolor": PAPER,
            }
        )
        yield


def _bytes(figure: "Figure", format: Format) -> bytes:
    file = io.BytesIO()
    if format == "png":
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        return file.getvalue()
    # Without the version of matplotlib: another version may draw the same bytes.
    metadata = {"Date": None, "Creator": "trae-bench"}
    figure.savefig(file, format="svg", metadata=metadata)
    return _for_dark_pages(file.getvalue().decode()).encode()


def _for_dark_pages(svg: str) -> str:
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", lambda found: f"{found[1]}\n {style}", svg, count=1)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    return figure, axes


@cache
def _known_characters() -> frozenset[int]:
    """The characters that the font has. matplotlib makes this table anew at each call."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _plain(text: str, limit: int = MAX_NAME) -> str:
    """A name in one line, with escapes for characters that the font does not have."""
    known = _known_characters()
    shown = for_terminal(text, limit)
    return "".join(char if ord(char) in known else f"\\u{ord(char):04x}" for char in shown)


# -- axes of ratios ---------------------------------------------------------------------

_BELOW = (0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_ABOVE = (1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10, 20, 50, 100)
_MAX_TICKS = 11


def _ratio_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """The ticks of an axis of log ratios and their labels: round ratios that do not overlap."""
    kept = {0.0: "1"}
    for ticks in (_BELOW, _ABOVE):
        last = 0.0
        for tick in ticks:
            place = math.log(tick)
            if abs(place - last) >= (high - low) / _MAX_TICKS and low <= place <= high:
                kept[place], last = f"{tick:g}", place
    return list(kept), list(kept.values())


def _axis_limits(values: Sequence[float], min_end: float = 0.05) -> tuple[float, float]:
    """Ends of an axis that includes 0 and these log ratios, up to `MAX_LOG_RATIO`."""
    low = max(min([*values, -min_end]), -MAX_LOG_RATIO)
    high = min(max([*values, min_end]), MAX_LOG_RATIO)
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _log1p(fraction: float) -> float:
    """A fraction on the log scale, limited to what can be drawn."""
    return math.log1p(min(max(fraction, 0.0), 10.0))


def _within(log_ratio: float) -> float:
    """Limits a log ratio to twice the longest axis; matplotlib fails on huge values."""
    return min(max(log_ratio, -2 * MAX_LOG_RATIO), 2 * MAX_LOG_RATIO)


# -- effects ----------------------------------------------------------------------------


_Line = tuple[str, RunFile, Comparison]
"""One row of a plot: the name of its run if there are several, the run, and the row."""


def _effects(runs: Mapping[str, RunFile], shown: RowFilter, claimed: bool) -> "Figure":
    lines = [
        (name if len(runs) > 1 else "", run, row)
        for name, run in runs.items()
        for row in run.comparisons
        if row.contrast != NOISE_FLOOR and shown.has(row)
    ]
    _check_row_count(len(lines))
    blocks = [(heading, list(block)) for heading, block in groupby(lines, key=_heading)]
    places = len(lines) + 1.2 * len(blocks)
    figure, axes = _figure(8.6, 1.1 + 0.235 * places)
    axes.set_xlim(*_axis_limits([end for *_, row in lines for end in _ends(row)]))
    axes.set_ylim(places + 0.1, -0.2)
    place, marks = 0.0, []
    for heading, block in blocks:
        _write(axes, heading, (0, place + 0.5), 4, weight="bold")
        place += 1.2
        for _, run, row in block:
            _draw_effect(axes, run, row, place + 0.4, claimed)
            marks.append((place + 0.4, _label(row, run)))
            place += 1
    _finish_effects(figure, axes, marks, [row for *_, row in lines], runs, claimed)
    return figure


def _heading(line: _Line) -> str:
    of_run, _, row = line
    name = f"{_plain(row.scenario)} / {_plain(row.contrast)}"
    return f"{name}  ({_plain(of_run)})" if of_run else name


def _ends(row: Comparison) -> list[float]:
    """The values drawn for a row, on the log scale. A single pair has no interval."""
    estimate = row.estimate
    if estimate is None or estimate.log_ratio is None:
        return []
    interval = estimate.interval
    return [estimate.log_ratio, *((interval.low, interval.high) if interval is not None else ())]


def _label(row: Comparison, run: RunFile) -> str:
    better = run.header.metrics[row.metric].better
    return _plain(row.metric) + (" (higher is better)" if better == "higher" else "")


def _draw_effect(axes: "Axes", run: RunFile, row: Comparison, place: float, claimed: bool) -> None:
    reach = _log1p(min_effect(row, run.header.metrics[row.metric]))
    if reach:
        axes.fill_betweenx([place - 0.36, place + 0.36], -reach, reach, color=BAND, linewidth=0)
    estimate = row.estimate
    style = _VERDICTS[row.judgement.verdict] if claimed else _UNCLAIMED
    if estimate is None or estimate.log_ratio is None:
        axes.text(0, place, "no ratio", ha="center", va="center", color=FAINT)
        return
    if estimate.interval is not None:
        ends = [_within(estimate.interval.low), _within(estimate.interval.high)]
        axes.plot(ends, [place, place], color=style.colour, linewidth=1.6, zorder=3)
    axes.plot(_within(estimate.log_ratio), place, **_marker(style), zorder=4)
    text = f"{as_ratio(estimate.log_ratio)} {as_interval(estimate.interval)}".rstrip()
    _write(axes, text, (1, place), 8, color=INK if row.gated else FAINT)


def _write(axes: "Axes", text: str, at: tuple[float, float], indent: int, **style: Any) -> None:
    """Write a text at a fraction of the width and at a place, `indent` points to the right."""
    style |= {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    axes.annotate(text, at, xytext=(indent, 0), va="center", **style)


def _marker(style: _MarkerStyle, size: float = 6) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": style.marker,
        "markersize": size,
        "color": style.colour,
        "markerfacecolor": style.colour if style.filled else PAPER,
        "markeredgewidth": 1.4,
    }


def _finish_effects(
    figure: "Figure",
    axes: "Axes",
    marks: Sequence[tuple[float, str]],
    rows: Sequence[Comparison],
    runs: Mapping[str, RunFile],
    claimed: bool,
) -> None:
    axes.set_yticks([place for place, _ in marks], [name for _, name in marks])
    _ratio_axis(axes.xaxis)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    a, b = side_names(next(iter(runs.values())))
    grey = "" if all(row.gated for row in rows) else "; grey figures: for information only"
    axes.set_xlabel(f"ratio, {b} to {a}, with interval; band: below the threshold{grey}")
    used = dict.fromkeys(row.judgement.verdict for row in rows if row.estimate is not None)
    styles: dict[str, _MarkerStyle] = {name: _VERDICTS[name] for name in _VERDICTS if name in used}
    _legend(figure, styles if claimed else {"too few pairs for a verdict": _UNCLAIMED})


def _ratio_axis(axis: "Axis") -> None:
    axis.set_ticks(*_ratio_ticks(*axis.get_view_interval()))
    axis.grid(color=GRID, linewidth=0.6)
    axis.axes.set_axisbelow(True)


def _legend(figure: "Figure", styles: Mapping[str, _MarkerStyle]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **_marker(style)) for name, style in styles.items()]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.4,
    )


# -- pairs of one row -------------------------------------------------------------------


def _pairs(runs: Mapping[str, RunFile], shown: RowFilter, claimed: bool) -> "Figure":
    found = [
        (run, row)
        for run in runs.values()
        for row in run.comparisons
        if shown.has(row) and (shown.toggle or row.contrast != NOISE_FLOOR)
    ]
    if len(found) != 1:
        raise UsageError(
            f"a plot of pairs shows one row, and {len(found)} rows match; select one with "
            "--scenario, --toggle and --metric"
        )
    ((run, compared),) = found
    header = run.header
    key = key_of_row(compared)
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    # The rows of a file may be missing from its plan.
    ratios = log_ratios(all_rows[key]) if key in all_rows else None
    if not ratios:
        raise CannotMeasure("no pair of this row has a ratio, so there is nothing to draw")
    seen = [look for of, look in looks(all_rows) if of == key]
    figure, axes = _figure(8.6, 3.6)
    _draw_pairs(axes, ratios, min_effect(compared, header.metrics[compared.metric]))
    _draw_looks(axes, seen)
    _finish_pairs(figure, axes, compared, run, all_rows[key], claimed)
    return figure


def _draw_pairs(axes: "Axes", ratios: Sequence[float], threshold: float) -> None:
    numbers = range(1, len(ratios) + 1)
    reach = _log1p(threshold)
    axes.axhspan(-reach, reach, color=BAND, linewidth=0, zorder=0)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.plot(numbers, ratios, linestyle="none", marker="o", markersize=4, color=FAINT)
    axes.set_xlim(0.3, len(ratios) + 1.0)


def _draw_looks(axes: "Axes", seen: Sequence[Look]) -> None:
    """Draws the mean and interval at each look, and the mean that a change needs."""
    bars, needed = [], []
    for look in seen:
        fit = look.evidence.fit if look.evidence else None
        effect = critical_effect(look)
        if fit is None or effect is None:
            continue
        at = look.judgement.look + 0.5
        bars.append((at, fit.mean, fit.half_width))
        needed.append((at, math.log1p(effect)))
        style = _VERDICTS[look.judgement.verdict]
        axes.plot([at, at], [fit.mean - fit.half_width, fit.mean + fit.half_width],
                  color=style.colour, linewidth=2.4, zorder=3)  # fmt: skip
        axes.plot(at, fit.mean, **_marker(style), zorder=4)
    for at, reach in needed:
        axes.plot([at, at], [-reach, reach], linestyle="none", marker="_", markersize=14,
                  markeredgewidth=1.6, color=INK, zorder=2)  # fmt: skip
    ends = [abs(mean) + half for _, mean, half in bars] + [reach for _, reach in needed]
    low, high = axes.get_ylim()
    reach = min(max([*ends, -low, high]), MAX_LOG_RATIO) * 1.08
    axes.set_ylim(-reach, reach)


def _finish_pairs(
    figure: "Figure", axes: "Axes", compared: Comparison, run: RunFile, row: Row, claimed: bool
) -> None:
    from matplotlib.lines import Line2D

    verdict = compared.judgement.verdict if claimed else "too few pairs for a verdict"
    name = " / ".join(map(_plain, (compared.scenario, compared.contrast, compared.metric)))
    axes.set_title(f"{name}: {verdict}", loc="left", fontsize=10)
    _ratio_axis(axes.yaxis)
    stops = [n for n in row.rule.stops if n <= len(row.a)]
    axes.set_xticks(stops)
    a, b = side_names(run)
    axes.set_ylabel(f"ratio, {b} to {a}")
    axes.set_xlabel("pairs in order; ticks at the looks of the rule")
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=FAINT, label="pair"),
        Line2D([], [], color=_UNCLAIMED.colour, linewidth=2.4, label="mean and interval"),
        Line2D([], [], linestyle="none", marker="_", markersize=12, markeredgewidth=1.6,
               color=INK, label="mean that a change needs"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", frameon=False, ncols=3)


# -- noise ------------------------------------------------------------------------------


class _Cloud(Struct, frozen=True):
    """The A/A pairs of one metric."""

    name: str
    mode: str
    """One of `_MODES`."""
    ratios: list[float]
    sd: float
    effect: float | None
    """Smallest visible effect (a fraction); None if the run tests no single rows."""


_MODES = {
    "both at the same time (duet)": _MarkerStyle("#3b8fd0", "s"),
    "one after the other (serial)": _MarkerStyle("#c46aa0", "o"),
}


def _noise(runs: Mapping[str, RunFile], shown: RowFilter, claimed: bool) -> "Figure":
    if shown.toggle not in (None, NOISE_FLOOR):
        raise UsageError("the noise is that of A/A pairs, which have no toggle; remove --toggle")
    clouds = [
        cloud
        for name, run in runs.items()
        for cloud in _clouds(run, shown, name if len(runs) > 1 else "")
    ]
    if not clouds and not any(run.noise for run in runs.values()):
        raise UsageError("no metric with A/A pairs varies, so there is nothing to draw")
    _check_row_count(len(clouds))
    figure, axes = _figure(8.6, 1.1 + 0.42 * len(clouds))
    axes.set_xlim(*_axis_limits([ratio for cloud in clouds for ratio in cloud.ratios]))
    axes.set_ylim(len(clouds) - 0.4, -0.6)
    for place, cloud in enumerate(clouds):
        reach = _log1p(cloud.effect or 0.0)
        axes.fill_betweenx([place - 0.34, place + 0.34], -reach, reach, color=BAND, linewidth=0)
        # At different heights, because equal ratios would hide each other.
        heights = [place + 0.22 * ((nth % 5) / 2 - 1) for nth in range(len(cloud.ratios))]
        axes.plot(cloud.ratios, heights, zorder=3, **_marker(_MODES[cloud.mode], size=4.5))
        shows = f", shows {percent(cloud.effect)}" if cloud.effect else ""
        _write(axes, f"sd {percent(cloud.sd)}{shows}", (1, place), 8)
    axes.set_yticks(range(len(clouds)), [cloud.name for cloud in clouds])
    _ratio_axis(axes.xaxis)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.set_xlabel("ratio of two equal sides (A/A); band: effects too small to show")
    _legend(figure, {mode: _MODES[mode] for mode in dict.fromkeys(cloud.mode for cloud in clouds)})
    return figure


def _clouds(run: RunFile, shown: RowFilter, of_run: str) -> Iterator[_Cloud]:
    header = run.header
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    family = count_compared(run)
    for floor in run.noise:
        key = RowKey(floor.scenario, NOISE_FLOOR, floor.metric)
        ratios = log_ratios(all_rows[key]) if key in all_rows else None
        if ratios and shown.has(floor):
            name = f"{_plain(floor.scenario)}, {_plain(floor.metric)}"
            name += f" ({_plain(of_run)})" if of_run else ""
            serial = header.metrics[floor.metric].mode == "serial"
            mode = list(_MODES)[serial]
            yield _Cloud(name, mode, ratios, floor.sd, effect_shown(run, floor, family))


def _check_row_count(number: int) -> None:
    if not number:
        raise UsageError("no row matches, so there is nothing to draw")
    if number > MAX_ROWS:
        raise UsageError(
            f"{number} rows match, but a plot shows at most {MAX_ROWS}; select some with "
            "--scenario, --toggle or --metric"
        )


_KINDS: Mapping[Kind, Callable[[Mapping[str, RunFile], RowFilter, bool], "Figure"]] = {
    "effects": _effects,
    "pairs": _pairs,
    "noise": _noise,
}
