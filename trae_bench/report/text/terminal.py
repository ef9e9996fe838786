"""The table of a run for a terminal of any width.

A terminal of 80 columns shows the whole table, a wider one more columns, a narrower one fewer.
Every string from a file passes `for_terminal`. Colour repeats what the words say.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from trae_bench.design.contrasts import NOISE_FLOOR, is_fixed
from trae_bench.model.experiment import Better, Metric
from trae_bench.model.result import Comparison, Estimate, Interval, NoiseEstimate, Pairs, Verdict
from trae_bench.model.run import Facts, RunFile
from trae_bench.report.escape import cut_middle, for_terminal
from trae_bench.report.text.listing import TABLE, columns, count
from trae_bench.report.text.progress import clock
from trae_bench.report.text.sparkline import ASCII, BLOCKS, sparkline
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import MAX_LOG_RATIO, Row, log_ratios
from trae_bench.stats.noise import is_biased, smallest_effect_within
from trae_bench.stats.pairs import BASE_HEAD, FIRST_OTHER, OFF_ON, RowKey, key_of_row

_LEFT = frozenset({"metric", "pairs", "verdict"})
WIDE, VERY_WIDE = 120, 160
"""Terminal widths from which the table has a sparkline of the pairs, and all columns."""
MAX_LINE = 120
"""Maximum width of sentences; longer lines are hard to read."""
MIN_NAME = 8
"""Minimum width of the first column."""
TextTable = Sequence[tuple[str, ...]]
"""The cells of a table, line by line; the first line has the headings."""

_COLOURS: Mapping[Verdict, str] = {
    "regression": "\x1b[1;31m",
    "improvement": "\x1b[1;32m",
    "inconclusive": "\x1b[33m",
    "not measured": "\x1b[33m",
}
VERDICTS: tuple[Verdict, ...] = (
    "improvement",
    "regression",
    "equivalent",
    "inconclusive",
    "not measured",
)
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_PREFIXES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "USD": ((1e6, "MUSD"), (1e3, "kUSD"), (1.0, "USD"), (0.01, "ct")),
}


def run_table(
    run: RunFile,
    *,
    width: int = 80,
    colour: bool = False,
    claimed: bool = True,
    plain: bool = False,
) -> str:
    """The `table` of a run, with the names of its sides, and its pairs if there is room."""
    header = run.header
    pairs = rows_of(run.samples, header.cells, header.metrics) if width >= WIDE else {}
    return table(
        run.comparisons,
        header.metrics,
        width=width,
        colour=colour,
        claimed=claimed,
        sides=side_names(run),
        pairs=pairs,
        plain=plain,
    )


def table(
    rows: Sequence[Comparison],
    metrics: Mapping[str, Metric],
    *,
    width: int = 80,
    colour: bool = False,
    claimed: bool = True,
    sides: tuple[str, str] = OFF_ON,
    pairs: Mapping[RowKey, Row] = {},
    plain: bool = False,
) -> str:
    """The comparisons in blocks, one for each scenario and toggle, without A/A rows.

    `claimed` is false if the run was too short for verdicts, `plain` is true if only ASCII can
    be shown. `pairs` are drawn if there is room. Columns that do not fit a narrow terminal are
    left out and named below the table.
    """
    shown = [row for row in rows if row.contrast != NOISE_FLOOR]
    if not shown:
        return "Nothing was compared."
    texts: TextTable = [
        headings(sides),
        *(cells_of(row, metrics[row.metric], claimed) for row in shown),
    ]
    texts, left_out = fit(texts, width)
    texts = _with_extra_columns(texts, shown, metrics, width)
    texts = _with_pairs(texts, shown, pairs, width, plain)
    heading, *cells = lay_out(texts, width)
    lines = [f"{_BOLD}{heading}{_PLAIN}" if colour else heading]
    both = zip(shown, cells, strict=True)
    for _, block in groupby(both, key=lambda pair: (pair[0].scenario, pair[0].contrast)):
        block_rows = list(block)
        title = _title([row for row, _ in block_rows], metrics, width)
        lines += ["", f"{_BOLD}{title}{_PLAIN}" if colour else title]
        lines += [_tinted(row, text) if colour and claimed else text for row, text in block_rows]
        lines += _reasons([row for row, _ in block_rows], min(width, MAX_LINE))
    lines += _legend(texts[0], plain, min(width, MAX_LINE))
    return "\n".join([*lines, *left_out_note(left_out, width)])


def headings(sides: tuple[str, str] = OFF_ON) -> tuple[str, ...]:
    """The column headings, one for each text of `cells_of`."""
    return ("metric", *sides, "ratio", "[interval]", "saved", "verdict")


def _tinted(row: Comparison, text: str) -> str:
    verdict = row.judgement.verdict
    tint = _COLOURS.get(verdict)
    return f"{text.removesuffix(verdict)}{tint}{verdict}{_PLAIN}" if tint else text


def side_names(run: RunFile) -> tuple[str, str]:
    """The names of sides A and B: of a toggle, of two revisions, or of agents."""
    if any(cell.contrast.b.revision is not None for cell in run.header.cells):
        return BASE_HEAD
    return FIRST_OTHER if run.header.agents else OFF_ON


def contrast_heading(run: RunFile) -> str:
    """What the rows of a run compare with side A: a toggle, or an agent."""
    return "agent" if run.header.agents and run.header.revisions is None else "toggle"


MACHINE_METRICS = ("cpu", "wall", "peak_rss")
"""The noise line shows the first two of these. The run file has the noise of every metric."""


def noise_lines(run: RunFile, family: int | None = None) -> list[str]:
    """How noisy the machine was, and which metrics that noise affects."""
    return [noise_line(run, family), *standing_lines(run.noise)]


def noise_line(run: RunFile, family: int | None = None) -> str:
    """How noisy the machine was, from the scenario with the widest spread of each metric."""
    worst: dict[str, NoiseEstimate] = {}
    for floor in sorted(run.noise, key=lambda floor: floor.sd):
        worst[floor.metric] = floor
    floors = [worst[name] for name in MACHINE_METRICS if name in worst][:2]
    floors = floors or list(worst.values())[:1]
    if not floors:
        return "A/A noise: unknown; no metric with A/A pairs varies."
    parts = [f"{for_terminal(floor.metric, 30)} {percent(floor.sd)}" for floor in floors]
    uses = [_use(run, floor, family) for floor in floors]
    if all(uses):
        parts = [f"{part} ({use})" for part, use in zip(parts, uses, strict=True)]
        return f"A/A noise: {', '.join(parts)}"
    why = "too few pairs for verdicts"
    if is_fixed(run.header.design):
        why = "a two-level design does not test single rows"
    return f"A/A noise: {', '.join(parts)} ({why})"


def _use(run: RunFile, floor: NoiseEstimate, family: int | None) -> str:
    """What a metric with this noise can show; empty if the run does not test single rows."""
    if (effect := effect_shown(run, floor, family)) is None:
        return ""
    if floor.reliability == "gated":
        return f"shows effects from {percent(effect)}"
    return f"for information only in {for_terminal(floor.scenario, 40)}"


def count_compared(run: RunFile) -> int:
    """Number of rows without A/A rows."""
    return sum(row.contrast != NOISE_FLOOR for row in run.comparisons)


def effect_shown(run: RunFile, floor: NoiseEstimate, family: int | None = None) -> float | None:
    """Smallest effect (a fraction) that this run can show; None if it tests no single rows.

    Pass `family`, the result of `count_compared`, to a call per row: counting takes all rows.
    """
    header = run.header
    if is_fixed(header.design):
        return None
    family = count_compared(run) if family is None else family
    return smallest_effect_within(floor, header.metrics[floor.metric], family, header.limits.pairs)


def noise_table(
    floors: Sequence[NoiseEstimate], metrics: Mapping[str, Metric], *, width: int = 80
) -> str:
    """The noise of each metric: the scatter of its A/A pairs and the smallest visible effect."""
    rows = [
        (metrics[floor.metric].mode, floor.metric, *cells_of_floor(floor, floor.smallest_effect))
        for floor in floors
    ]
    heading = ("mode", "metric", "pairs", "sd", "mean", "shows from", "standing")
    return textwrap.indent(columns(heading, rows, width - 2), "  ")


def cells_of_floor(floor: NoiseEstimate, effect: float | None) -> tuple[str, ...]:
    """Pairs, standard deviation, mean, smallest visible effect, standing."""
    return (
        str(floor.pairs),
        percent(floor.sd),
        f"{100 * math.expm1(min(floor.mean, MAX_LOG_RATIO)):+.2f} %",
        "-" if effect is None else percent(effect),
        floor.reliability,
    )


def standing_lines(floors: Sequence[NoiseEstimate]) -> list[str]:
    """Which metrics are not judged, and which are for information only, by their A/A pairs."""
    texts = {
        "sides differ": "Not judged, because the A/A sides differ",
        "too noisy": "For information only, because the noise is too large to gate",
    }
    return [
        f"{text}: {', '.join(names)}"
        for standing, text in texts.items()
        if (names := [_floor_name(floor) for floor in floors if floor.reliability == standing])
    ]


def _floor_name(floor: NoiseEstimate) -> str:
    name = f"{for_terminal(floor.scenario, 40)} {for_terminal(floor.metric, 30)}"
    return f"{name} (the A/A sides differ by {signed(floor.mean)} %)" if is_biased(floor) else name


def closing(run: RunFile, *, claimed: bool = True) -> str:
    """The line below the table: counts of verdicts and pairs, the time, why the run ended."""
    metrics = run.header.metrics
    shown = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    # Exact metrics use the pairs of other metrics, so count the pairs of each kind once.
    measured = {
        (row.scenario, row.contrast, kind_of_pairs(row, metrics[row.metric])): row.pairs.measured
        for row in shown or run.comparisons
    }
    ended = {"interrupted": ", interrupted", "budget": ", budget spent", "error": ", failed"}
    pairs = sum(measured.values())
    took = f"{count(pairs, 'pair' if shown else 'A/A pair')} in {clock(run.elapsed)}"
    took += ended.get(run.stopped, "")
    if is_fixed(run.header.design):
        low, high = min(measured.values(), default=0), max(measured.values(), default=0)
        per_contrast = f"{low}" if low == high else f"{low} to {high}"
        return f"{took[0].upper()}{took[1:]}; {per_contrast} per contrast."
    if not claimed:
        return f"Too few pairs for verdicts ({took}); use --profile quick to get verdicts."
    gated = [row.judgement.verdict for row in shown if row.gated]
    more = len(shown) - len(gated)
    parts = [tally(gated)] if gated else []
    parts += [f"{more} for information"] if more else []
    return f"{'; '.join(parts)} ({took})" if parts else f"Measured {took}"


def tally(verdicts: Sequence[Verdict], names: Sequence[Verdict] = VERDICTS) -> str:
    """The number of each verdict: `6 improvements, 12 equivalent`."""
    counts = {name: verdicts.count(name) for name in names if name in verdicts}
    return ", ".join(f"{number} {pluralized(name, number)}" for name, number in counts.items())


def pluralized(verdict: str, number: int) -> str:
    """The verdict as it follows a number: `2 improvements`, but `2 equivalent`."""
    plural = number != 1 and verdict in ("improvement", "regression")
    return f"{verdict}s" if plural else verdict


def machine_name(machine: Facts) -> str:
    """`2 x PROCESSOR, 8 GB of memory, Linux 6.1, CPython 3.12`; strings are not escaped."""
    parts = [f"{machine.get('cores') or '?'} x {machine.get('cpu') or 'unknown processor'}"]
    memory = machine.get("memory")
    parts += [f"{quantity(memory, 'B')} of memory"] if isinstance(memory, int | float) else []
    for names in (("system", "kernel"), ("implementation", "python")):
        parts.append(" ".join(str(machine[name]) for name in names if machine.get(name)))
    parts += ["virtual"] if machine.get("virtual") is True else []
    return ", ".join(part for part in parts if part)


def quantity(value: float, unit: str, *, digits: int = 3) -> str:
    """A value with its unit and a fitting prefix: `1.23 s`, `45.1 MB`, `12410`."""
    size = abs(value)
    steps = _PREFIXES.get(unit, ((1.0, unit.removeprefix("1")),))
    scale, name = next((step for step in steps if size >= step[0]), steps[-1])
    return f"{_digits(value / scale, digits)} {name}".rstrip()


def _digits(value: float, digits: int) -> str:
    """Rounds to `digits` significant digits, but keeps all digits before the point."""
    size = abs(value)
    if size < 1e-4 or size >= 1e15:
        return f"{value:.{digits}g}"
    if value == int(value):
        return str(int(value))
    # Round first: 9.98 with two digits is 10, not 10.0.
    rounded = float(f"{size:.{digits - 1}e}")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(rounded)))}f}"


def as_ratio(log_ratio: float) -> str:
    """A natural logarithm as a ratio: `0.867`."""
    value = math.exp(min(log_ratio, MAX_LOG_RATIO))
    if value >= 1000:
        return f"{value:.3g}"
    return f"{value:.{3 if value < 9.9995 else 1}f}"


def as_interval(interval: Interval | None) -> str:
    """Natural logarithms as ratios: `[0.816 0.921]`. Empty for None."""
    if interval is None:
        return ""
    return f"[{as_ratio(interval.low)} {as_ratio(interval.high)}]"


def signed(log_ratio: float) -> str:
    """A natural logarithm as a change in per cent: `-13.3`."""
    change = 100 * math.expm1(min(log_ratio, MAX_LOG_RATIO))
    return f"{change:+.1f}" if abs(change) < 999.5 else f"{change:+.3g}"


def percent(fraction: float) -> str:
    """A fraction in per cent: `2.1 %`. Also for a spread on the log scale."""
    share = 100 * fraction
    return f"{share:.0f} %" if 99.5 <= share < 10_000 else f"{share:.2g} %"


def cells_of(row: Comparison, metric: Metric, claimed: bool) -> tuple[str, ...]:
    """The cells of a row, one for each of `headings`."""
    verdict = row.judgement.verdict if claimed or row.estimate is None else "-"
    name, unit = for_terminal(row.metric, 40), for_terminal(metric.unit, 10)
    estimate = row.estimate
    if estimate is None:
        return (name, "", "", "", "", "", verdict)
    gain = saved(estimate, metric.better)
    return (
        name,
        quantity(estimate.a, unit),
        quantity(estimate.b, unit),
        "" if estimate.log_ratio is None else as_ratio(estimate.log_ratio),
        "exactly" if row.mode == "exact" and not estimate.sd else as_interval(estimate.interval),
        quantity(gain, unit, digits=2) if gain else "0",
        verdict,
    )


def saved(estimate: Estimate, better: Better) -> float:
    """By how much side B is better, in the metric's unit; negative if it is worse."""
    return -estimate.difference if better == "lower" else estimate.difference


def min_effect(row: Comparison, metric: Metric) -> float:
    """Smallest effect (a fraction) that counts as a change.

    Any change of a count that does not vary is one, unless the metric sets a threshold.
    """
    exactly = row.mode == "exact" and (row.estimate is None or not row.estimate.sd)
    return (metric.threshold or 0.0) if exactly else row.threshold


def change_in(cells: Sequence[str]) -> str:
    """The change in a row's cells: `1.50 s → 1.20 s, ratio 0.905 [0.887 0.923]`.

    Without a ratio, only the two values.
    """
    _, a, b, ratio, interval, *_ = cells
    return f"{a} → {b}, ratio {ratio} {interval}".rstrip() if ratio else f"{a} → {b}"


# -- columns of wide and narrow terminals

_EXTRA_COLUMNS: Mapping[str, tuple[int, Callable[[Comparison, Metric], str]]] = {
    "spread": (WIDE, lambda row, _: percent(row.estimate.sd) if row.estimate else ""),
    "threshold": (VERY_WIDE, lambda row, metric: percent(min_effect(row, metric))),
    "p": (VERY_WIDE, lambda row, _: f"{row.judgement.p:.2g}" if row.judgement.look else ""),
    "look": (VERY_WIDE, lambda row, _: f"{row.judgement.look}" if row.judgement.look else ""),
}
"""Columns before the verdict, each with the terminal width from which it is shown."""
MIN_SIGNS = 8
"""Minimum width of a sparkline."""
_OPTIONAL = (("[interval]",), ("saved", "from"), (*OFF_ON, *BASE_HEAD, *FIRST_OTHER))
"""Headings of the columns to leave out of a narrow table, the least needed first."""


def fit(table: TextTable, width: int) -> tuple[TextTable, list[str]]:
    """Removes columns until a table fits a terminal narrower than `TABLE` columns.

    Returns the table and the removed headings. The metric, the ratio and the verdict stay.
    """
    left_out: list[str] = []
    for names in _OPTIONAL:
        if width >= TABLE or sum(_widths(table)) + len(table[0]) <= width:
            break
        kept = [number for number, name in enumerate(table[0]) if name not in names]
        left_out += [name for name in table[0] if name in names]
        table = [tuple(line[number] for number in kept) for line in table]
    return table, left_out


def left_out_note(left_out: Sequence[str], width: int) -> list[str]:
    """Lines that name the columns that `fit` removed; none if it removed none."""
    if not left_out:
        return []
    text = f"Columns left out to fit {width}: {', '.join(left_out)}."
    return ["", textwrap.fill(text, width)]


def _with_extra_columns(
    table: TextTable, rows: Sequence[Comparison], metrics: Mapping[str, Metric], width: int
) -> TextTable:
    for name, (min_width, text) in _EXTRA_COLUMNS.items():
        if width >= min_width:
            table = _inserted(table, [name, *(text(row, metrics[row.metric]) for row in rows)])
    return table


def _with_pairs(
    table: TextTable,
    rows: Sequence[Comparison],
    pairs: Mapping[RowKey, Row],
    width: int,
    plain: bool,
) -> TextTable:
    """Adds a sparkline of the pairs if the other columns leave room for it."""
    room = width - sum(_widths(table)) - len(table[0]) - 1
    if width < WIDE or room < MIN_SIGNS or not pairs:
        return table
    return _inserted(table, ["pairs", *(_sparkline(row, pairs, room, plain) for row in rows)])


def _sparkline(row: Comparison, pairs: Mapping[RowKey, Row], room: int, plain: bool) -> str:
    of_row = pairs.get(key_of_row(row))
    ratios = log_ratios(of_row) if of_row else None
    if not ratios:
        return ""
    reach = max(math.log1p(max(row.threshold, 0.0)), *map(abs, ratios))
    return sparkline(ratios, reach=reach, max_signs=room, signs=ASCII if plain else BLOCKS)


def _legend(names: Sequence[str], plain: bool, width: int) -> list[str]:
    if "pairs" not in names:
        return []
    signs = ASCII if plain else BLOCKS
    text = (
        "Pairs: one sign is one pair, or the mean of a few consecutive pairs. "
        f"{signs[(len(signs) - 1) // 2]} is a ratio of 1; {signs[0]} and {signs[-1]} are the "
        "threshold, or the most extreme pair if it is beyond the threshold."
    )
    return ["", textwrap.fill(text, width)]


# -- layout


def _title(rows: Sequence[Comparison], metrics: Mapping[str, Metric], width: int) -> str:
    """`scenario / toggle`, and the number of its pairs."""
    first = rows[0]
    name = f"{for_terminal(first.scenario, 40)} / {for_terminal(first.contrast, 60)}"
    title = f"{name}  ({count_of_pairs(rows, metrics)})"
    return textwrap.fill(title, width, subsequent_indent="  ")


def count_of_pairs(rows: Sequence[Comparison], metrics: Mapping[str, Metric]) -> str:
    """The pairs of one contrast: `8 duet + 8 serial pairs; 1 lost`."""
    by_kind = {kind_of_pairs(row, metrics[row.metric]): row.pairs for row in rows}
    counts = " + ".join(f"{pairs.measured} {kind}" for kind, pairs in by_kind.items())
    noun = "pair" if sum(pairs.measured for pairs in by_kind.values()) == 1 else "pairs"
    lost = sum(pairs.answers_differ + pairs.not_measured for pairs in by_kind.values())
    return f"{counts} {noun}{f'; {lost} lost' if lost else ''}"


def kind_of_pairs(row: Comparison, metric: Metric) -> str:
    """How the pairs of a row were taken; a metric with a probe has separate pairs."""
    mode = "serial" if row.mode == "serial" else "duet"
    return mode if metric.probe == "plain" else f"{mode} {metric.probe}"


def _reasons(rows: Sequence[Comparison], width: int) -> list[str]:
    """Why pairs of this block are not counted, each reason once."""
    reasons: dict[str, None] = {}
    for pairs in (row.pairs for row in rows):
        reasons.update(dict.fromkeys(f"{_loss(pairs)}: {for_terminal(r)}" for r in pairs.reasons))
    return [
        textwrap.fill(text, width, initial_indent=" ", subsequent_indent="   ") for text in reasons
    ]


def _loss(pairs: Pairs) -> str:
    if pairs.answers_differ and pairs.not_measured:
        return "lost"
    return "answers differ" if pairs.answers_differ else "not measured"


def _inserted(table: TextTable, column: Sequence[str]) -> TextTable:
    """Adds a column before the verdict."""
    return [(*line[:-1], text, line[-1]) for line, text in zip(table, column, strict=True)]


def _widths(table: TextTable) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def lay_out(table: TextTable, width: int) -> Iterator[str]:
    """The lines of a table: words left-aligned, figures right-aligned, the verdict not padded.

    A column is as wide as its widest text. If there is room, the gaps are wider; if there is not,
    the first column is cut to `MIN_NAME` characters or more.
    """
    widths = _widths(table)
    spare = width - sum(widths) - len(widths)
    if spare < 0:
        widths[0] = max(MIN_NAME, widths[0] + spare)
    between = " " * (1 + min(2, max(0, spare) // (len(widths) - 1)))
    for *front, last in table:
        padded = [
            cut_middle(text, room).ljust(room) if name in _LEFT else text.rjust(room)
            for name, text, room in zip(table[0], front, widths, strict=False)
        ]
        yield f" {between.join(padded)} {last}"
