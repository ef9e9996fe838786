"""The table for a terminal: 80 columns, more air where there is more room.

Every string that comes from a file passes `for_terminal`. Colour only repeats what the words
say already.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

from trae_bench.compare import Floor
from trae_bench.design import NOISE_FLOOR, is_fixed
from trae_bench.records import Better, Comparison, Estimate, Interval, Metric, Pairs, Verdict
from trae_bench.report.escape import for_terminal
from trae_bench.report.listing import columns
from trae_bench.report.progress import clock
from trae_bench.store import RunFile

COLUMNS = ("metric", "off", "on", "ratio", "[interval]", "saved", "verdict")
_LEFT = frozenset({"metric", "verdict"})

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


def table(
    rows: Sequence[Comparison],
    metrics: Mapping[str, Metric],
    *,
    width: int = 80,
    colour: bool = False,
    claimed: bool = True,
) -> str:
    """The comparisons, one block for each scenario and toggle; A/A rows are left out.

    `claimed` is off where a run was too short for verdicts.
    """
    shown = [row for row in rows if row.contrast != NOISE_FLOOR]
    if not shown:
        return "Nothing was compared."
    cells = [cells_of(row, metrics[row.metric], claimed) for row in shown]
    widths = _fit([COLUMNS, *cells], width)
    head = _join(COLUMNS, widths)
    lines = [f"{_BOLD}{head}{_PLAIN}" if colour else head]
    both = zip(shown, cells, strict=True)
    for _, block in groupby(both, key=lambda pair: (pair[0].scenario, pair[0].contrast)):
        block_rows = list(block)
        title = _title([row for row, _ in block_rows], width)
        lines += ["", f"{_BOLD}{title}{_PLAIN}" if colour else title]
        for row, texts in block_rows:
            text = _join(texts, widths)
            tint = _COLOURS.get(row.judgement.verdict) if colour and claimed else None
            lines.append(f"{text[: -len(texts[-1])]}{tint}{texts[-1]}{_PLAIN}" if tint else text)
        lines += _reasons([row for row, _ in block_rows], width)
    return "\n".join(lines)


def side_names(run: RunFile) -> tuple[str, str]:
    """What sides A and B are: a toggle off and on, or two revisions of the subject."""
    of_revisions = any(cell.contrast.b.revision is not None for cell in run.header.cells)
    return ("base", "head") if of_revisions else ("off", "on")


LEADING = ("cpu", "wall", "peak_rss")
"""Metrics that stand for the machine, the first two that are there; the run file has the floors
of all."""


def noise_line(floors: Sequence[Floor]) -> str:
    """How noisy the machine was, by the scenario with the widest spread of each metric."""
    worst: dict[str, Floor] = {}
    for floor in sorted(floors, key=lambda floor: floor.sd):
        worst[floor.metric] = floor
    told = [worst[name] for name in LEADING if name in worst][:2] or list(worst.values())[:1]
    if not told:
        return "A/A noise: unknown, too few A/A pairs were measured."
    parts = (
        f"{for_terminal(floor.metric, 30)} {_percent(floor.sd)}"
        f" (shows effects from {_percent(floor.smallest_effect)})"
        for floor in told
    )
    return f"A/A noise: {', '.join(parts)}"


def noise_table(floors: Sequence[Floor], metrics: Mapping[str, Metric], *, width: int = 80) -> str:
    """All of it: how the pairs scatter, and the smallest effect that they can show."""
    rows = [
        (
            metrics[floor.metric].mode,
            floor.metric,
            str(floor.pairs),
            _percent(floor.sd),
            f"{100 * math.expm1(min(floor.mean, 700)):+.2f} %",
            _percent(floor.smallest_effect),
            floor.standing,
        )
        for floor in floors
    ]
    head = ("mode", "metric", "pairs", "sd", "mean", "shows from", "standing")
    return textwrap.indent(columns(head, rows, width - 2), "  ")


def standing_lines(floors: Sequence[Floor]) -> list[str]:
    """Which metrics A/A pairs tell not to trust, and which to take for information only."""
    told = {
        "sides differ": "Not judged, for equal sides do not come out equal",
        "too noisy": "For information only, too noisy here to be gated",
    }
    return [
        f"{what}: {', '.join(names)}"
        for standing, what in told.items()
        if (names := [_floor_name(floor) for floor in floors if floor.standing == standing])
    ]


def _floor_name(floor: Floor) -> str:
    return f"{for_terminal(floor.scenario, 40)} {for_terminal(floor.metric, 30)}"


def closing(run: RunFile, *, claimed: bool = True) -> str:
    """What the table comes to, on how many pairs, and why the run ended."""
    shown = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    measured = {(row.scenario, row.contrast, row.mode): row.pairs.measured for row in shown}
    ended = {"interrupted": ", interrupted", "budget": ", budget spent", "error": ", broken off"}
    pairs = sum(measured.values())
    took = f"{pairs} {'pair' if pairs == 1 else 'pairs'} in {clock(run.elapsed)}"
    took += ended.get(run.stopped, "")
    if is_fixed(run.header.design):
        return f"{took[0].upper()}{took[1:]}, the same number of each contrast."
    if not claimed:
        return f"No verdicts are claimed from so few pairs ({took}); take --profile quick for them."
    found = [row.judgement.verdict for row in shown]
    counts = ", ".join(f"{found.count(name)} {name}" for name in VERDICTS if name in found)
    return f"{counts} ({took})"


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


def _ratio(log_ratio: float) -> str:
    value = math.exp(min(log_ratio, 700))
    if value >= 1000:
        return f"{value:.3g}"
    return f"{value:.{3 if value < 9.9995 else 1}f}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"[{_ratio(interval.low)} {_ratio(interval.high)}]"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.995 else f"{100 * fraction:.0f} %"


def cells_of(row: Comparison, metric: Metric, claimed: bool) -> tuple[str, ...]:
    """A row, one text for each of `COLUMNS`."""
    verdict = row.judgement.verdict if claimed or row.estimate is None else "-"
    name, unit = for_terminal(row.metric, 40), for_terminal(metric.unit, 10)
    found = row.estimate
    if found is None:
        return (name, "", "", "", "", "", verdict)
    return (
        name,
        quantity(found.a, unit),
        quantity(found.b, unit),
        "" if found.log_ratio is None else _ratio(found.log_ratio),
        "exactly" if row.mode == "exact" and not found.sd else _interval(found.interval),
        _saved(found, unit, metric.better),
        verdict,
    )


def _saved(found: Estimate, unit: str, better: Better) -> str:
    """What "on" is better by, in the metric's unit; negative where it is worse."""
    gain = -found.difference if better == "lower" else found.difference
    return quantity(gain, unit, digits=2) if gain else "0"


def _title(rows: Sequence[Comparison], width: int) -> str:
    """`scenario / toggle`, and how many pairs it rests on."""
    first = rows[0]
    name = f"{for_terminal(first.scenario, 40)} / {for_terminal(first.contrast, 60)}"
    by_mode = {"serial" if row.mode == "serial" else "duet": row.pairs for row in rows}
    counts = " + ".join(f"{pairs.measured} {mode}" for mode, pairs in by_mode.items())
    lost = sum(pairs.answers_differ + pairs.not_measured for pairs in by_mode.values())
    return _cut(f"{name}  ({counts} pairs{f'; {lost} lost' if lost else ''})", width)


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


def _fit(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Width of each column: its widest text, and more between the columns where there is room."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    spare = width - sum(widths) - len(widths)
    if spare < 0:
        widths[0] = max(8, widths[0] + spare)
    gap = 1 + min(2, max(0, spare) // (len(widths) - 1))
    return [widths[0], *(each + gap - 1 for each in widths[1:-1]), widths[-1]]


def _join(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, figures to the right; the verdict is not padded."""
    *front, last = texts
    padded = [
        _cut(text, width).ljust(width) if name in _LEFT else text.rjust(width)
        for name, text, width in zip(COLUMNS, front, widths, strict=False)
    ]
    return f" {' '.join(padded)} {last}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
