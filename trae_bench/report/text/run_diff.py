"""Two stored runs against each other, for a terminal and as a comment on a pull request.

What the table says of each row: which kind of figure it is, and whether it is gated.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from trae_bench.model.run import RunFile
from trae_bench.report.escape import cut, for_markdown, for_terminal, markdown_text
from trae_bench.report.text.listing import TABLE, bullets, count, names
from trae_bench.report.text.markdown import (
    MAX_NAME,
    MAX_STANDING_OUT,
    MOST,
    STANDING_OUT,
    in_short,
    length,
    within,
)
from trae_bench.report.text.terminal import (
    as_interval,
    as_ratio,
    change_in,
    laid_out,
    noise_lines,
    percent,
    quantity,
    tally,
)
from trae_bench.verdicts.caveats import MAX_NOTE
from trae_bench.verdicts.change import OTHER_KIND, Change, Kind
from trae_bench.verdicts.run_diff import RunDiff, RunOrigin

MARKER = "<!-- trae-bench comparison of stored runs -->"
"""First line, not shown: by it a job finds the comment that it wrote the last time."""

HEADS = ("metric", "base", "head", "ratio", "[interval]", "from", "verdict")
ABOUT: dict[Kind, str] = {
    "toggle ratio": "toggle ratios: on to off, each taken on one machine",
    "memory": "memory: medians of an arm",
    "counter": "counters: of an arm, compared as they are",
    "absolute": "absolute figures: medians of an arm; never gated, for machines and days differ; "
    "the interval allows for that",
}
"""What a kind of row is, in the order of the table."""
READING = "Ratio: head to base. From: the smallest change that is worth a verdict, drift included."
MAX_DIFFERENCES = 20


Runs = tuple[RunFile, RunFile]
"""The base and the head that were compared."""


def text(found: RunDiff, runs: Runs, *, width: int = 80) -> str:
    """The whole report for a terminal."""
    lines = [*_origins(found, runs, width), ""]
    rows = _shown(found)
    head, *table = laid_out([HEADS, *map(_cells, rows)], max(width, TABLE))
    lines += [head] if rows else ["Nothing could be compared."]
    both = zip(rows, table, strict=True)
    for kind, section in groupby(both, key=lambda pair: pair[0].kind):
        pairs = list(section)
        lines += ["", textwrap.fill(_about(kind, [row for row, _ in pairs]), width)]
        for _, block in groupby(pairs, key=lambda pair: (pair[0].scenario, pair[0].subject)):
            block_rows = list(block)
            lines += [cut(_place(block_rows[0][0]), width), *(line for _, line in block_rows)]
            lines += _notes([row for row, _ in block_rows], width)
    lines += ["", *_rest(found, width), textwrap.fill(closing(found), width)]
    lines += [textwrap.fill(READING, width)] if rows else []
    return "\n".join(lines)


def closing(found: RunDiff) -> str:
    """What all of it comes to, in a sentence; no text of a file is in it."""
    verdicts = [change.verdict for change in found.gated]
    compared = [change for change in found.changes if change.kind in ABOUT]
    rows = count(len(verdicts), "gated row")
    gated = f"{tally(verdicts)} of {rows}" if verdicts else "no gated rows"
    return f"{gated}; {len(compared) - len(verdicts)} more for information."


def comment(found: RunDiff, runs: Runs) -> str:
    """As Markdown, however much it is under what GitHub takes as a comment."""
    head = [MARKER, f"### trae-bench, compared with a stored run: {headline(found)}", ""]
    for (name, origin), run in zip(_named(found), runs, strict=True):
        noise = (f"; {for_markdown(line, MAX_NOTE)}" for line in noise_lines(run))
        head.append(f"- {name}: {_origin(origin, for_markdown)}{''.join(noise)}")
    foot = ["", closing(found)]
    room = MOST - length(head, foot) - 1000
    marked = within(_standing_out(found), room // 3)
    beside = (f"- {for_markdown(one, MAX_NOTE)}" for one in (*_differences(found), *_aside(found)))
    told = within(beside, room // 4)
    table = _table(found, room - length(marked, told))
    return "\n".join([*head, *told, "", *marked, *table, *foot]) + "\n"


def headline(found: RunDiff) -> str:
    """The verdict on the whole, in a few words."""
    verdicts = [change.verdict for change in found.gated]
    if not set(verdicts) - {"not measured"}:
        return "nothing that is gated could be compared"
    return in_short(verdicts)


# The head: what was compared with what


def _named(found: RunDiff) -> tuple[tuple[str, RunOrigin], tuple[str, RunOrigin]]:
    return ("base", found.base), ("head", found.head)


def _origins(found: RunDiff, runs: Runs, width: int) -> Iterator[str]:
    told = {}
    for (name, origin), run in zip(_named(found), runs, strict=True):
        told[name] = "; ".join([_origin(origin, for_terminal), *noise_lines(run)])
    yield names(told, width)
    if differences := list(_differences(found)):
        yield bullets(differences, width)


def _origin(origin: RunOrigin, escaped: Callable[[str], str]) -> str:
    commit = f"commit {escaped(origin.commit[:12])}" if origin.commit else "commit unknown"
    dirty = " with changes that are not committed" if origin.dirty else ""
    return f"{escaped(origin.created)}, {commit}{dirty}, {escaped(origin.machine)}"


def _differences(found: RunDiff) -> Iterator[str]:
    if not found.same_kind:
        yield (
            "the machines are of different kinds: memory and what the interpreter counts are for"
            " information, absolute figures say nothing"
        )
    for one in found.differences[:MAX_DIFFERENCES]:
        base, head = (_fact(one.name, said) for said in (one.base, one.head))
        yield f"{one.name[:40]}: {base} in the base, {head} in the head"
    if len(found.differences) > MAX_DIFFERENCES:
        yield f"and {len(found.differences) - MAX_DIFFERENCES} more differences"


def _fact(name: str, said: str) -> str:
    return quantity(float(said), "B") if name == "memory" and said.isdecimal() else said[:60]


# Rows


def _shown(found: RunDiff) -> list[Change]:
    """Kind by kind; counters that have not changed are only counted."""
    order = list(ABOUT)
    rows = [
        change
        for change in found.changes
        if change.kind in ABOUT and not _unchanged_counter(change)
    ]
    return sorted(rows, key=lambda change: order.index(change.kind))


def _unchanged_counter(change: Change) -> bool:
    return change.kind == "counter" and change.exact and change.base == change.head


def _about(kind: Kind, rows: Sequence[Change]) -> str:
    gated = sum(row.gated for row in rows)
    told = "gated" if gated == len(rows) else f"{gated or 'none'} of {len(rows)} gated"
    return ABOUT[kind] if kind == "absolute" else f"{ABOUT[kind]}; {told}"


def _cells(change: Change) -> tuple[str, ...]:
    """A row, one text for each of `HEADS`."""
    interval = "exactly" if change.exact else as_interval(change.interval)
    return (
        for_terminal(change.metric, 40),
        _figure(change, change.base),
        _figure(change, change.head),
        "" if change.log_ratio is None else as_ratio(change.log_ratio),
        interval,
        percent(change.threshold) if change.threshold and change.kind != "absolute" else "",
        change.verdict,
    )


def _figure(change: Change, value: float | None) -> str:
    if value is None:
        return ""
    if change.kind == "toggle ratio":
        return f"{value:.3f}" if value < 1000 else f"{value:.3g}"
    return quantity(value, for_terminal(change.unit, 10))


def _place(change: Change) -> str:
    return f"{for_terminal(change.scenario, 40)} / {for_terminal(change.subject, 60)}"


def _notes(rows: Sequence[Change], width: int) -> Iterator[str]:
    """Each note once, with the metrics that it is of."""
    told: dict[str, list[str]] = {}
    for row in rows:
        # Of other kinds the report has told at its head.
        if row.note and row.note != OTHER_KIND:
            told.setdefault(row.note, []).append(for_terminal(row.metric, 40))
    for note, metrics in told.items():
        line = f"{', '.join(metrics)}: {note}"
        yield textwrap.fill(line, width, initial_indent="   ", subsequent_indent="     ")


def _rest(found: RunDiff, width: int) -> Iterator[str]:
    if told := _aside(found):
        yield bullets(told, width)
        yield ""


def _aside(found: RunDiff) -> list[str]:
    """What is in no row of the table."""
    same = sum(map(_unchanged_counter, found.changes))
    are = "is" if same == 1 else "are"
    told = [f"{count(same, 'counter')} {are} exactly the same"] if same else []
    for kind, what in (("new", "only in the head"), ("gone", "only in the base")):
        named = [_named_place(change) for change in found.changes if change.kind == kind]
        told += [f"{what}: {_list(named)}"] if named else []
    other = [change for change in found.changes if change.kind == "incompatible"]
    for note in dict.fromkeys(change.note for change in other):
        named = [_named_place(change) for change in other if change.note == note]
        told.append(f"not comparable, {note}: {_list(named)}")
    return told


def _named_place(change: Change) -> str:
    parts = (change.scenario[:40], change.subject[:60], change.metric[:40])
    return " / ".join(part for part in parts if part)


def _list(named: Sequence[str], most: int = 10) -> str:
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more


# Markdown


def _standing_out(found: RunDiff) -> Iterator[str]:
    for verdict in STANDING_OUT:
        rows = [change for change in found.gated if change.verdict == verdict]
        for change in rows[:MAX_STANDING_OUT]:
            figures = change_in([markdown_text(text) for text in _cells(change)])
            named = (change.scenario, change.subject, change.metric)
            place = " / ".join(for_markdown(name, MAX_NAME) for name in named)
            yield f"- **{verdict}** {place} ({change.kind}): {figures}"
        if len(rows) > MAX_STANDING_OUT:
            yield f"- and {len(rows) - MAX_STANDING_OUT} more: **{verdict}**"


def _table(found: RunDiff, room: int) -> list[str]:
    rows = _shown(found)
    if not rows:
        return []
    heads = ("kind", "gated", "scenario", "of", *HEADS)
    kept = within(map(_line, rows), room)
    more = (
        [f"\n{len(rows) - len(kept)} more rows are in the JSON."] if len(kept) < len(rows) else []
    )
    return [
        "",
        f"<details><summary>{count(len(rows), 'row')}</summary>",
        "",
        f"| {' | '.join(map(markdown_text, heads))} |",
        f"| {' | '.join(['---'] * 5 + ['---:'] * (len(HEADS) - 2) + ['---'])} |",
        *kept,
        *more,
        "",
        READING,
        "",
        "</details>",
    ]


def _line(change: Change) -> str:
    name, *figures = _cells(change)
    places = (change.scenario, change.subject, name)
    told = [change.kind, "yes" if change.gated else "no"]
    told += [for_markdown(place, MAX_NAME) for place in places]
    noted = f" {markdown_text(f'({change.note})')}" if change.note else ""
    return f"| {' | '.join([*told, *map(markdown_text, figures)])}{noted} |"
