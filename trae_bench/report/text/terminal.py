"""The table for a terminal: 80 columns, and more to see where there is more room.

Every string that comes from a file passes `for_terminal`. Colour only repeats what the words
say already.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

from trae_bench.design.contrasts import NOISE_FLOOR, is_fixed
from trae_bench.model.experiment import Better, Metric
from trae_bench.model.result import Comparison, Estimate, Interval, NoiseEstimate, Pairs, Verdict
from trae_bench.model.run import Facts, RunFile
from trae_bench.report.escape import cut, for_terminal
from trae_bench.report.text.listing import columns, count
from trae_bench.report.text.progress import clock
from trae_bench.report.text.sparkline import ASCII, BLOCKS, sparkline
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import MAX_LOG_RATIO, Row, log_ratios
from trae_bench.stats.noise import is_biased, smallest_effect_within
from trae_bench.stats.pairs import BASE_HEAD, OFF_ON, RowKey, key_of_row

_LEFT = frozenset({"metric", "pairs", "verdict"})
WIDE, WIDEST = 120, 160
"""Columns of a terminal from which on the table has a picture of the pairs, and all it can have."""
MAX_LINE = 120
"""Of sentences; longer ones are hard to read."""
_Table = Sequence[tuple[str, ...]]
"""Texts, line by line; the first has the names of the columns."""

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
}


def run_table(
    run: RunFile,
    *,
    width: int = 80,
    colour: bool = False,
    claimed: bool = True,
    plain: bool = False,
) -> str:
    """`table` of a run, under its own names for the sides; with its pairs, where there is room."""
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
    """The comparisons, one block for each scenario and toggle; A/A rows are left out.

    `claimed` is off where a run was too short for verdicts, `plain` is on where only ASCII can
    be shown. `pairs` are shown where there is room for them.
    """
    shown = [row for row in rows if row.contrast != NOISE_FLOOR]
    if not shown:
        return "Nothing was compared."
    texts: _Table = [heads(sides), *(cells_of(row, metrics[row.metric], claimed) for row in shown)]
    texts = _with_more(texts, shown, metrics, width)
    texts = _with_pairs(texts, shown, pairs, width, plain)
    head, *cells = laid_out(texts, width)
    told = [f"{_BOLD}{head}{_PLAIN}" if colour else head]
    both = zip(shown, cells, strict=True)
    for _, block in groupby(both, key=lambda pair: (pair[0].scenario, pair[0].contrast)):
        block_rows = list(block)
        title = _title([row for row, _ in block_rows], metrics, width)
        told += ["", f"{_BOLD}{title}{_PLAIN}" if colour else title]
        told += [_tinted(row, text) if colour and claimed else text for row, text in block_rows]
        told += _reasons([row for row, _ in block_rows], min(width, MAX_LINE))
    return "\n".join([*told, *_legend(texts[0], plain, min(width, MAX_LINE))])


def heads(sides: tuple[str, str] = OFF_ON) -> tuple[str, ...]:
    """Names of the columns, one for each text of `cells_of`."""
    return ("metric", *sides, "ratio", "[interval]", "saved", "verdict")


def _tinted(row: Comparison, text: str) -> str:
    verdict = row.judgement.verdict
    tint = _COLOURS.get(verdict)
    return f"{text.removesuffix(verdict)}{tint}{verdict}{_PLAIN}" if tint else text


def side_names(run: RunFile) -> tuple[str, str]:
    """What sides A and B are: a toggle off and on, or two revisions of the subject."""
    of_revisions = any(cell.contrast.b.revision is not None for cell in run.header.cells)
    return BASE_HEAD if of_revisions else OFF_ON


LEADING = ("cpu", "wall", "peak_rss")
"""Metrics that stand for the machine, the first two that are there; the run file has the floors
of all."""


def noise_lines(run: RunFile) -> list[str]:
    """How noisy the machine was, what shows in spite of it, and what it forbids to trust."""
    return [noise_line(run), *standing_lines(run.noise)]


def noise_line(run: RunFile) -> str:
    """How noisy the machine was, by the scenario with the widest spread of each metric."""
    worst: dict[str, NoiseEstimate] = {}
    for floor in sorted(run.noise, key=lambda floor: floor.sd):
        worst[floor.metric] = floor
    told = [worst[name] for name in LEADING if name in worst][:2] or list(worst.values())[:1]
    if not told:
        return "A/A noise: unknown, for want of A/A pairs of something that varies."
    parts = [f"{for_terminal(floor.metric, 30)} {percent(floor.sd)}" for floor in told]
    shown = [_shown(run, floor) for floor in told]
    if all(shown):
        parts = [f"{part} ({what})" for part, what in zip(parts, shown, strict=True)]
        return f"A/A noise: {', '.join(parts)}"
    why = "no verdicts from so few pairs"
    if is_fixed(run.header.design):
        why = "a two-level design tests no single rows"
    return f"A/A noise: {', '.join(parts)} ({why})"


def _shown(run: RunFile, floor: NoiseEstimate) -> str:
    """What a metric with this noise is good for; empty where no single rows are tested."""
    if (effect := effect_shown(run, floor)) is None:
        return ""
    if floor.reliability == "gated":
        return f"shows effects from {percent(effect)}"
    return f"for information only in {for_terminal(floor.scenario, 40)}"


def effect_shown(run: RunFile, floor: NoiseEstimate) -> float | None:
    """Smallest effect (a fraction) that this run can show; None where it tests no single rows."""
    header = run.header
    if is_fixed(header.design):
        return None
    family = sum(row.contrast != NOISE_FLOOR for row in run.comparisons)
    return smallest_effect_within(floor, header.metrics[floor.metric], family, header.limits.pairs)


def noise_table(
    floors: Sequence[NoiseEstimate], metrics: Mapping[str, Metric], *, width: int = 80
) -> str:
    """All of it: how the pairs scatter, and the smallest effect that they can show."""
    rows = [
        (metrics[floor.metric].mode, floor.metric, *cells_of_floor(floor, floor.smallest_effect))
        for floor in floors
    ]
    head = ("mode", "metric", "pairs", "sd", "mean", "shows from", "standing")
    return textwrap.indent(columns(head, rows, width - 2), "  ")


def cells_of_floor(floor: NoiseEstimate, least: float | None) -> tuple[str, ...]:
    """Pairs, standard deviation, mean, the least effect that shows, standing."""
    return (
        str(floor.pairs),
        percent(floor.sd),
        f"{100 * math.expm1(min(floor.mean, MAX_LOG_RATIO)):+.2f} %",
        "-" if least is None else percent(least),
        floor.reliability,
    )


def standing_lines(floors: Sequence[NoiseEstimate]) -> list[str]:
    """Which metrics A/A pairs tell not to trust, and which to take for information only."""
    told = {
        "sides differ": "Not judged, for equal sides do not come out equal",
        "too noisy": "For information only, too noisy here to be gated",
    }
    return [
        f"{what}: {', '.join(names)}"
        for standing, what in told.items()
        if (names := [_floor_name(floor) for floor in floors if floor.reliability == standing])
    ]


def _floor_name(floor: NoiseEstimate) -> str:
    name = f"{for_terminal(floor.scenario, 40)} {for_terminal(floor.metric, 30)}"
    return (
        f"{name} (equal sides came out {signed(floor.mean)} % apart)" if is_biased(floor) else name
    )


def closing(run: RunFile, *, claimed: bool = True) -> str:
    """What the table comes to, on how many pairs, and why the run ended."""
    metrics = run.header.metrics
    shown = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    # By their kind, for exact metrics are read off the pairs of others.
    measured = {
        (row.scenario, row.contrast, kind_of_pairs(row, metrics[row.metric])): row.pairs.measured
        for row in shown
    }
    ended = {"interrupted": ", interrupted", "budget": ", budget spent", "error": ", broken off"}
    pairs = sum(measured.values())
    took = f"{count(pairs, 'pair')} in {clock(run.elapsed)}"
    took += ended.get(run.stopped, "")
    if is_fixed(run.header.design):
        fewest, most = min(measured.values(), default=0), max(measured.values(), default=0)
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"{took[0].upper()}{took[1:]}; {each} of each contrast."
    if not claimed:
        return f"No verdicts are claimed from so few pairs ({took}); take --profile quick for them."
    gated = [row.judgement.verdict for row in shown if row.gated]
    more = len(shown) - len(gated)
    told = [tally(gated)] if gated else []
    told += [f"{more} for information"] if more else []
    return f"{'; '.join(told)} ({took})"


def tally(verdicts: Sequence[Verdict], names: Sequence[Verdict] = VERDICTS) -> str:
    """`6 improvements, 12 equivalent`: how many of each there are."""
    counts = {name: verdicts.count(name) for name in names if name in verdicts}
    return ", ".join(f"{number} {of_so_many(name, number)}" for name, number in counts.items())


def of_so_many(verdict: str, number: int) -> str:
    """Its word beside a number: `improvements`; there is no plural of `equivalent`."""
    several = number != 1 and verdict in ("improvement", "regression")
    return f"{verdict}s" if several else verdict


def machine_name(machine: Facts) -> str:
    """`2 x its processor, 8 GB of memory, Linux 6.1, CPython 3.12`, as the file has them."""
    told = [f"{machine.get('cores') or '?'} x {machine.get('cpu') or 'unknown processor'}"]
    memory = machine.get("memory")
    told += [f"{quantity(memory, 'B')} of memory"] if isinstance(memory, int | float) else []
    for names in (("system", "kernel"), ("implementation", "python")):
        told.append(" ".join(str(machine[name]) for name in names if machine.get(name)))
    told += ["virtual"] if machine.get("virtual") is True else []
    return ", ".join(text for text in told if text)


def quantity(value: float, unit: str, *, digits: int = 3) -> str:
    """With the prefix that leaves few digits: `1.23 s`, `45.1 MB`, `12410`."""
    size = abs(value)
    steps = _PREFIXES.get(unit, ((1.0, unit.removeprefix("1")),))
    scale, name = next((step for step in steps if size >= step[0]), steps[-1])
    return f"{_digits(value / scale, digits)} {name}".rstrip()


def _digits(value: float, digits: int) -> str:
    """So many significant ones, but never fewer than stand before the point."""
    size = abs(value)
    if size < 1e-4 or size >= 1e15:
        return f"{value:.{digits}g}"
    if value == int(value):
        return str(int(value))
    # Rounded first: 9.98 in two digits is 10, not 10.0.
    rounded = float(f"{size:.{digits - 1}e}")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(rounded)))}f}"


def as_ratio(log_ratio: float) -> str:
    """`0.867`, of a natural logarithm."""
    value = math.exp(min(log_ratio, MAX_LOG_RATIO))
    if value >= 1000:
        return f"{value:.3g}"
    return f"{value:.{3 if value < 9.9995 else 1}f}"


def as_interval(interval: Interval | None) -> str:
    """`[0.816 0.921]`, of natural logarithms."""
    if interval is None:
        return ""
    return f"[{as_ratio(interval.low)} {as_ratio(interval.high)}]"


def signed(log_ratio: float) -> str:
    """The change in per cent, of a natural logarithm: `-13.3`."""
    change = 100 * math.expm1(min(log_ratio, MAX_LOG_RATIO))
    return f"{change:+.1f}" if abs(change) < 999.5 else f"{change:+.3g}"


def percent(fraction: float) -> str:
    """`2.1 %`; of a spread on the log scale, too."""
    share = 100 * fraction
    return f"{share:.0f} %" if 99.5 <= share < 10_000 else f"{share:.2g} %"


def cells_of(row: Comparison, metric: Metric, claimed: bool) -> tuple[str, ...]:
    """A row, one text for each of `heads`."""
    verdict = row.judgement.verdict if claimed or row.estimate is None else "-"
    name, unit = for_terminal(row.metric, 40), for_terminal(metric.unit, 10)
    found = row.estimate
    if found is None:
        return (name, "", "", "", "", "", verdict)
    gain = saved(found, metric.better)
    return (
        name,
        quantity(found.a, unit),
        quantity(found.b, unit),
        "" if found.log_ratio is None else as_ratio(found.log_ratio),
        "exactly" if row.mode == "exact" and not found.sd else as_interval(found.interval),
        quantity(gain, unit, digits=2) if gain else "0",
        verdict,
    )


def saved(found: Estimate, better: Better) -> float:
    """What "on" is better by, in the metric's unit; negative where it is worse."""
    return -found.difference if better == "lower" else found.difference


def least_counted(row: Comparison, metric: Metric) -> float:
    """Smallest effect (a fraction) that counts: of counts that do not vary any does, unless a
    threshold was asked for."""
    exactly = row.mode == "exact" and (row.estimate is None or not row.estimate.sd)
    return (metric.threshold or 0.0) if exactly else row.threshold


def change_in(cells: Sequence[str]) -> str:
    """Of a row's cells: `1.50 s → 1.20 s, ratio 0.905 [0.887 0.923]`, or the two values alone."""
    _, a, b, ratio, interval, *_ = cells
    return f"{a} → {b}, ratio {ratio} {interval}".rstrip() if ratio else f"{a} → {b}"


# What there is beside that where the terminal is wide


_MORE: Mapping[str, tuple[int, Callable[[Comparison, Metric], str]]] = {
    "spread": (WIDE, lambda row, _: percent(row.estimate.sd) if row.estimate else ""),
    "threshold": (WIDEST, lambda row, metric: percent(least_counted(row, metric))),
    "p": (WIDEST, lambda row, _: f"{row.judgement.p:.2g}" if row.judgement.look else ""),
    "looked at": (WIDEST, lambda row, _: f"{row.judgement.look}" if row.judgement.look else ""),
}
"""Columns that come before the verdict, from so many columns of the terminal on."""
FEWEST_SIGNS = 8


def _with_more(
    table: _Table, rows: Sequence[Comparison], metrics: Mapping[str, Metric], width: int
) -> _Table:
    for name, (from_width, text) in _MORE.items():
        if width >= from_width:
            table = _inserted(table, [name, *(text(row, metrics[row.metric]) for row in rows)])
    return table


def _with_pairs(
    table: _Table,
    rows: Sequence[Comparison],
    pairs: Mapping[RowKey, Row],
    width: int,
    plain: bool,
) -> _Table:
    """A sign a pair, in the room that the other columns leave."""
    most = width - sum(_widths(table)) - len(table[0]) - 1
    if width < WIDE or most < FEWEST_SIGNS or not pairs:
        return table
    return _inserted(table, ["pairs", *(_drawn(row, pairs, most, plain) for row in rows)])


def _drawn(row: Comparison, pairs: Mapping[RowKey, Row], most: int, plain: bool) -> str:
    found = pairs.get(key_of_row(row))
    ratios = log_ratios(found) if found else None
    if not ratios:
        return ""
    reach = max(math.log1p(max(row.threshold, 0.0)), *map(abs, ratios))
    return sparkline(ratios, reach=reach, most=most, signs=ASCII if plain else BLOCKS)


def _legend(names: Sequence[str], plain: bool, width: int) -> list[str]:
    if "pairs" not in names:
        return []
    signs = ASCII if plain else BLOCKS
    text = (
        f"Pairs: each sign is one, or the mean of a few in turn; {signs[(len(signs) - 1) // 2]} is "
        f"a ratio of 1, {signs[0]} and {signs[-1]} are the row's threshold, or its farthest pair "
        "where that is farther away."
    )
    return ["", textwrap.fill(text, width)]


# Layout


def _title(rows: Sequence[Comparison], metrics: Mapping[str, Metric], width: int) -> str:
    """`scenario / toggle`, and how many pairs it rests on."""
    first = rows[0]
    name = f"{for_terminal(first.scenario, 40)} / {for_terminal(first.contrast, 60)}"
    return cut(f"{name}  ({count_of_pairs(rows, metrics)})", width)


def count_of_pairs(rows: Sequence[Comparison], metrics: Mapping[str, Metric]) -> str:
    """`8 duet + 8 serial pairs; 1 lost`, of one contrast."""
    by_kind = {kind_of_pairs(row, metrics[row.metric]): row.pairs for row in rows}
    counts = " + ".join(f"{pairs.measured} {kind}" for kind, pairs in by_kind.items())
    noun = "pair" if sum(pairs.measured for pairs in by_kind.values()) == 1 else "pairs"
    lost = sum(pairs.answers_differ + pairs.not_measured for pairs in by_kind.values())
    return f"{counts} {noun}{f'; {lost} lost' if lost else ''}"


def kind_of_pairs(row: Comparison, metric: Metric) -> str:
    """How they were taken; those with a probe are pairs of their own."""
    mode = "serial" if row.mode == "serial" else "duet"
    return mode if metric.probe == "plain" else f"{mode} {metric.probe}"


def _reasons(rows: Sequence[Comparison], width: int) -> list[str]:
    """Why pairs of this block count for nothing, each reason once."""
    told: dict[str, None] = {}
    for pairs in (row.pairs for row in rows):
        told.update(dict.fromkeys(f"{_kind(pairs)}: {for_terminal(r)}" for r in pairs.reasons))
    return [
        textwrap.fill(text, width, initial_indent=" ", subsequent_indent="   ") for text in told
    ]


def _kind(pairs: Pairs) -> str:
    if pairs.answers_differ and pairs.not_measured:
        return "lost"
    return "answers differ" if pairs.answers_differ else "not measured"


def _inserted(table: _Table, column: Sequence[str]) -> _Table:
    """One column more, before the verdict."""
    return [(*line[:-1], text, line[-1]) for line, text in zip(table, column, strict=True)]


def _widths(table: _Table) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def laid_out(table: _Table, width: int) -> Iterator[str]:
    """Words to the left, figures to the right; the verdict is not padded.

    Columns are as wide as their widest text, and have more between them where there is room.
    """
    widths = _widths(table)
    spare = width - sum(widths) - len(widths)
    if spare < 0:
        widths[0] = max(8, widths[0] + spare)
    between = " " * (1 + min(2, max(0, spare) // (len(widths) - 1)))
    for *front, last in table:
        padded = [
            cut(text, room).ljust(room) if name in _LEFT else text.rjust(room)
            for name, text, room in zip(table[0], front, widths, strict=False)
        ]
        yield f" {between.join(padded)} {last}"
