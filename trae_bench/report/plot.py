"""Pictures of runs, as SVG or PNG, the same bytes each time. Needs matplotlib (extra `report`).

Colours are Okabe and Ito's, which colour-blind people can tell apart, and every verdict has a
mark of its own. All figures come from the run's rows and, for pairs, from its samples by way of
`compare.rows_of`.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    effect_shown,
    least_counted,
    percent,
    side_names,
)
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import Look, Row, critical_effect, log_ratios, looks
from trae_bench.stats.pairs import RowKey, key_of_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["effects", "pairs", "noise"]
Format = Literal["svg", "png"]

MAX_ROWS = 200
MAX_NAME = 40
FARTHEST = math.log(100)
"""Of a ratio that the axis still reaches."""
DOTS_PER_INCH = 150

INK, FAINT, GRID, BAND, PAPER = "#1b2430", "#5b6775", "#c9d0d8", "#e6eaef", "#ffffff"
_DARK = {INK: "#e8edf4", FAINT: "#a9b4c2", GRID: "#3b4550", BAND: "#28313c", PAPER: "#0d1117"}
"""In place of these where the page is dark; the colours of the verdicts do for both."""


class _Sign(Struct, frozen=True):
    """How a verdict is drawn."""

    colour: str
    marker: str
    filled: bool = True


_VERDICTS: Mapping[Verdict, _Sign] = {
    "improvement": _Sign("#009e73", "^"),
    "regression": _Sign("#d55e00", "v"),
    "equivalent": _Sign("#3b8fd0", "s"),
    "inconclusive": _Sign("#8a8f98", "o", filled=False),
    "not measured": _Sign("#8a8f98", "x"),
}
_UNCLAIMED = _Sign("#8a8f98", "o")


class Shown(Struct, frozen=True):
    """Which rows of a run; None is all."""

    scenario: str | None = None
    toggle: str | None = None
    metric: str | None = None

    def has(self, row: Comparison | NoiseEstimate) -> bool:
        contrast = row.contrast if isinstance(row, Comparison) else NOISE_FLOOR
        asked = (self.scenario, self.toggle, self.metric)
        named = zip(asked, (row.scenario, contrast, row.metric), strict=True)
        return all(one is None or one == other for one, other in named)


ALL = Shown()


def picture(
    runs: Mapping[str, RunFile],
    kind: Kind,
    format: Format,
    shown: Shown = ALL,
    *,
    claimed: bool = True,
) -> bytes:
    """A picture of runs, each under the name that it is to have.

    `claimed` is off where a run was too short for verdicts. Raises `UsageError` without
    matplotlib, or where there is more or less to show than the picture can.
    """
    with _style():
        drawn = _KINDS[kind](runs, shown, claimed)
        return _bytes(drawn, format)


@contextmanager
def _style() -> Iterator[None]:
    """Nothing of the user's own settings: the picture must be the same everywhere."""
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError('pictures need matplotlib; pip install "trae-bench[report]"') from error
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
    # The program's version must not be in it: another one may well draw the same.
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


def _plain(text: str, longest: int = MAX_NAME) -> str:
    """A name that the font can write, in one line."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    shown = for_terminal(text, longest)
    return "".join(char if ord(char) in known else f"\\u{ord(char):04x}" for char in shown)


# -- axes of ratios ---------------------------------------------------------------------

_BELOW = (0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_ABOVE = (1.01, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10, 20, 50, 100)
_MAX_TICKS = 11


def _ratio_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Where an axis of logarithms is marked: at plain ratios, none close beside another."""
    kept = {0.0: "1"}
    for ticks in (_BELOW, _ABOVE):
        last = 0.0
        for tick in ticks:
            place = math.log(tick)
            if abs(place - last) >= (high - low) / _MAX_TICKS and low <= place <= high:
                kept[place], last = f"{tick:g}", place
    return list(kept), list(kept.values())


def _reach(values: Sequence[float], least: float = 0.05) -> tuple[float, float]:
    """Ends of an axis with 0 on it and these logarithms, as far as any axis reaches."""
    low = max(min([*values, -least]), -FARTHEST)
    high = min(max([*values, least]), FARTHEST)
    margin = 0.04 * (high - low)
    return low - margin, high + margin


def _log1p(fraction: float) -> float:
    """On the log scale, and within what can be drawn, whatever a file says."""
    return math.log1p(min(max(fraction, 0.0), 10.0))


def _within(log_ratio: float) -> float:
    """So far beyond the end of any axis that no more can be seen of it."""
    return min(max(log_ratio, -2 * FARTHEST), 2 * FARTHEST)


# -- effects ----------------------------------------------------------------------------


class _Line(Struct, frozen=True):
    """One row of a picture."""

    heading: str
    name: str
    row: Comparison
    least: float
    """Smallest effect (a fraction) that counts."""


def _effects(runs: Mapping[str, RunFile], shown: Shown, claimed: bool) -> "Figure":
    lines = [
        _Line(
            _heading(row, name if len(runs) > 1 else ""),
            _label(row, run),
            row,
            least_counted(row, run.header.metrics[row.metric]),
        )
        for name, run in runs.items()
        for row in run.comparisons
        if row.contrast != NOISE_FLOOR and shown.has(row)
    ]
    _some_rows(len(lines))
    blocks = [list(block) for _, block in groupby(lines, key=lambda line: line.heading)]
    places = len(lines) + 1.2 * len(blocks)
    figure, axes = _figure(8.6, 1.1 + 0.235 * places)
    axes.set_xlim(*_reach([end for line in lines for end in _ends(line.row)]))
    axes.set_ylim(places + 0.1, -0.2)
    place, marks = 0.0, []
    for block in blocks:
        axes.annotate(
            block[0].heading,
            (0, place + 0.5),
            xytext=(4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            weight="bold",
        )
        place += 1.2
        for line in block:
            _draw_effect(axes, line, place + 0.4, claimed)
            marks.append((place + 0.4, line.name))
            place += 1
    _finish_effects(figure, axes, marks, [line.row for line in lines], runs, claimed)
    return figure


def _heading(row: Comparison, of_run: str) -> str:
    named = f"{_plain(row.scenario)} / {_plain(row.contrast)}"
    return f"{named}  ({_plain(of_run)})" if of_run else named


def _ends(row: Comparison) -> list[float]:
    """All that is drawn of a row, on the log scale; one pair has no interval."""
    found = row.estimate
    if found is None or found.log_ratio is None:
        return []
    interval = found.interval
    return [found.log_ratio, *((interval.low, interval.high) if interval is not None else ())]


def _label(row: Comparison, run: RunFile) -> str:
    better = run.header.metrics[row.metric].better
    return _plain(row.metric) + (" (more is better)" if better == "higher" else "")


def _draw_effect(axes: "Axes", line: _Line, place: float, claimed: bool) -> None:
    row, reach = line.row, _log1p(line.least)
    if reach:
        axes.fill_betweenx([place - 0.36, place + 0.36], -reach, reach, color=BAND, linewidth=0)
    found = row.estimate
    drawn = _VERDICTS[row.judgement.verdict] if claimed else _UNCLAIMED
    if found is None or found.log_ratio is None:
        axes.text(0, place, "no ratio", ha="center", va="center", color=FAINT)
        return
    if found.interval is not None:
        ends = [_within(found.interval.low), _within(found.interval.high)]
        axes.plot(ends, [place, place], color=drawn.colour, linewidth=1.6, zorder=3)
    _mark(axes, _within(found.log_ratio), place, drawn)
    axes.annotate(
        f"{as_ratio(found.log_ratio)} {as_interval(found.interval)}".rstrip(),
        (1, place),
        xytext=(8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        color=INK if row.gated else FAINT,
    )


def _mark(axes: "Axes", x: float, y: float, drawn: _Sign) -> None:
    axes.plot([x], [y], **_of_mark(drawn), zorder=4)


def _of_mark(drawn: _Sign, size: float = 6) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": drawn.marker,
        "markersize": size,
        "color": drawn.colour,
        "markerfacecolor": drawn.colour if drawn.filled else PAPER,
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
    _ratio_axis(axes)
    # A line across all rows, under the marks.
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    a, b = side_names(next(iter(runs.values())))
    grey = "" if all(row.gated for row in rows) else "; figures in grey: for information only"
    axes.set_xlabel(f"ratio, {b} to {a}, with its interval; band: under the threshold{grey}")
    found = dict.fromkeys(row.judgement.verdict for row in rows if row.estimate is not None)
    named: dict[str, _Sign] = {name: sign for name, sign in _VERDICTS.items() if name in found}
    _legend(figure, named if claimed else {"too few pairs for a verdict": _UNCLAIMED})


def _ratio_axis(axes: "Axes") -> None:
    places, names = _ratio_ticks(*axes.get_xlim())
    axes.set_xticks(places, names)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(figure: "Figure", named: Mapping[str, _Sign]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=name, **_of_mark(drawn)) for name, drawn in named.items()]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.4,
    )


# -- pairs of one row -------------------------------------------------------------------


def _pairs(runs: Mapping[str, RunFile], shown: Shown, claimed: bool) -> "Figure":
    found = [
        (run, row)
        for run in runs.values()
        for row in run.comparisons
        if shown.has(row) and (shown.toggle or row.contrast != NOISE_FLOOR)
    ]
    if len(found) != 1:
        raise UsageError(
            f"the pairs of one row can be drawn, and {len(found)} rows fit: name them with "
            "--scenario, --toggle and --metric"
        )
    ((run, compared),) = found
    header = run.header
    key = key_of_row(compared)
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    # A file may have rows that its plan has not.
    ratios = log_ratios(all_rows[key]) if key in all_rows else None
    if not ratios:
        raise CannotMeasure("no pair of this row has a ratio, so that there is nothing to draw")
    seen = [look for of, look in looks(all_rows) if of == key]
    figure, axes = _figure(8.6, 3.6)
    _draw_pairs(axes, ratios, least_counted(compared, header.metrics[compared.metric]))
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
    """At each look the mean with its interval, and what it would have taken."""
    bars, needed = [], []
    for look in seen:
        fit = look.evidence.fit if look.evidence else None
        least = critical_effect(look)
        if fit is None or least is None:
            continue
        at = look.judgement.look + 0.5
        bars.append((at, fit.mean, fit.half_width))
        needed.append((at, math.log1p(least)))
        drawn = _VERDICTS[look.judgement.verdict]
        axes.plot([at, at], [fit.mean - fit.half_width, fit.mean + fit.half_width],
                  color=drawn.colour, linewidth=2.4, zorder=3)  # fmt: skip
        _mark(axes, at, fit.mean, drawn)
    for at, reach in needed:
        axes.plot([at, at], [-reach, reach], linestyle="none", marker="_", markersize=14,
                  markeredgewidth=1.6, color=INK, zorder=2)  # fmt: skip
    ends = [abs(mean) + half for _, mean, half in bars] + [reach for _, reach in needed]
    low, high = axes.get_ylim()
    reach = min(max([*ends, -low, high]), FARTHEST) * 1.08
    axes.set_ylim(-reach, reach)


def _finish_pairs(
    figure: "Figure", axes: "Axes", compared: Comparison, run: RunFile, row: Row, claimed: bool
) -> None:
    from matplotlib.lines import Line2D

    verdict = compared.judgement.verdict if claimed else "no verdict claimed"
    named = " / ".join(map(_plain, (compared.scenario, compared.contrast, compared.metric)))
    axes.set_title(f"{named}: {verdict}", loc="left", fontsize=10)
    places, names = _ratio_ticks(*axes.get_ylim())
    axes.set_yticks(places, names)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    stops = [n for n in row.rule.stops if n <= len(row.a)]
    axes.set_xticks(stops)
    a, b = side_names(run)
    axes.set_ylabel(f"ratio, {b} to {a}")
    axes.set_xlabel("pairs, in their order; marked where the rule looks")
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=FAINT, label="a pair"),
        Line2D([], [], color=_UNCLAIMED.colour, linewidth=2.4, label="mean so far, interval"),
        Line2D([], [], linestyle="none", marker="_", markersize=12, markeredgewidth=1.6,
               color=INK, label="what a change takes"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", frameon=False, ncols=3)


# -- noise ------------------------------------------------------------------------------


class _Cloud(Struct, frozen=True):
    """The A/A pairs of one metric."""

    name: str
    taken: str
    """One of `_TAKEN`."""
    ratios: list[float]
    sd: float
    least: float | None
    """Smallest effect (a fraction) that shows; None where no single rows are tested."""


_TAKEN = {
    "both at once (duet)": _Sign("#3b8fd0", "s"),
    "one after the other (serial)": _Sign("#c46aa0", "o"),
}


def _noise(runs: Mapping[str, RunFile], shown: Shown, claimed: bool) -> "Figure":
    if shown.toggle not in (None, NOISE_FLOOR):
        raise UsageError("the noise is that of A/A pairs, which no toggle has; leave out --toggle")
    clouds = [
        cloud
        for name, run in runs.items()
        for cloud in _clouds(run, shown, name if len(runs) > 1 else "")
    ]
    if not clouds and not any(run.noise for run in runs.values()):
        raise UsageError("no A/A pairs of something that varies, so that there is nothing to draw")
    _some_rows(len(clouds))
    figure, axes = _figure(8.6, 1.1 + 0.42 * len(clouds))
    axes.set_xlim(*_reach([ratio for cloud in clouds for ratio in cloud.ratios]))
    axes.set_ylim(len(clouds) - 0.4, -0.6)
    for place, cloud in enumerate(clouds):
        reach = _log1p(cloud.least or 0.0)
        axes.fill_betweenx([place - 0.34, place + 0.34], -reach, reach, color=BAND, linewidth=0)
        # One above the other, for equal ones would hide each other.
        heights = [place + 0.22 * ((nth % 5) / 2 - 1) for nth in range(len(cloud.ratios))]
        axes.plot(cloud.ratios, heights, zorder=3, **_of_mark(_TAKEN[cloud.taken], size=4.5))
        axes.annotate(
            f"sd {percent(cloud.sd)}{f', sees {percent(cloud.least)}' if cloud.least else ''}",
            (1, place),
            xytext=(8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(clouds)), [cloud.name for cloud in clouds])
    _ratio_axis(axes)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    axes.set_xlabel("ratio of two equal sides; band: effects too small to be seen here")
    _legend(figure, {name: _TAKEN[name] for name in dict.fromkeys(c.taken for c in clouds)})
    return figure


def _clouds(run: RunFile, shown: Shown, of_run: str) -> Iterator[_Cloud]:
    header = run.header
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    for floor in run.noise:
        key = RowKey(floor.scenario, NOISE_FLOOR, floor.metric)
        ratios = log_ratios(all_rows[key]) if key in all_rows else None
        if ratios and shown.has(floor):
            named = f"{_plain(floor.scenario)}, {_plain(floor.metric)}"
            name = f"{named} ({_plain(of_run)})" if of_run else named
            serial = header.metrics[floor.metric].mode == "serial"
            taken = list(_TAKEN)[serial]
            yield _Cloud(name, taken, ratios, floor.sd, effect_shown(run, floor))


def _some_rows(number: int) -> None:
    if not number:
        raise UsageError("no row fits, so that there is nothing to draw")
    if number > MAX_ROWS:
        raise UsageError(
            f"{number} rows are more than a picture can show ({MAX_ROWS}); name some with "
            "--scenario, --toggle or --metric"
        )


_KINDS: Mapping[Kind, Callable[[Mapping[str, RunFile], Shown, bool], "Figure"]] = {
    "effects": _effects,
    "pairs": _pairs,
    "noise": _noise,
}
