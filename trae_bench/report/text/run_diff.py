"""The comparison of two stored runs, for a terminal and as a pull request comment.

Rows are grouped by kind; each kind says how many of its rows are gated.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from trae_bench.model.run import RunFile
from trae_bench.report.escape import cut, for_markdown, for_terminal, markdown_text
from trae_bench.report.text.listing import bullets, count, names
from trae_bench.report.text.markdown import (
    MAX_COMMENT,
    MAX_NAME,
    STANDING_OUT,
    folded,
    length,
    marked,
    summary,
    within,
)
from trae_bench.report.text.terminal import (
    as_interval,
    as_ratio,
    change_in,
    fit,
    lay_out,
    left_out_note,
    noise_lines,
    percent,
    quantity,
    tally,
)
from trae_bench.verdicts.caveats import MAX_NOTE
from trae_bench.verdicts.change import OTHER_KIND, Change, Kind
from trae_bench.verdicts.run_diff import RunDiff, RunOrigin

MARKER = "<!-- trae-bench comparison of stored runs -->"
"""The first line, an invisible comment: a job finds its earlier comment by it."""

HEADINGS = ("metric", "base", "head", "ratio", "[interval]", "from", "verdict")
ABOUT: dict[Kind, str] = {
    "toggle ratio": "toggle ratios: on to off, both measured on one machine",
    "memory": "memory: medians of an arm",
    "counter": "counters: exact counts of an arm",
    "absolute": "absolute values: medians of an arm; never gated, because machines and days "
    "differ; the interval includes that drift",
}
"""The kinds of rows in the order of the table, with their headings."""
READING = "Ratio: head to base. From: the smallest change that gets a verdict, drift included."
MAX_DIFFERENCES = 20
MAX_LISTED = 10

Runs = tuple[RunFile, RunFile]
"""The base and the head."""


def text(found: RunDiff, runs: Runs, *, width: int = 80) -> str:
    """The whole report for a terminal."""
    lines = [*_origins(found, runs, width), ""]
    rows = _shown(found)
    texts, left_out = fit([HEADINGS, *map(_cells, rows)], width)
    heading, *table = lay_out(texts, width)
    lines += [heading] if rows else ["Nothing could be compared."]
    both = zip(rows, table, strict=True)
    for kind, section in groupby(both, key=lambda pair: pair[0].kind):
        pairs = list(section)
        lines += ["", textwrap.fill(_about(kind, [row for row, _ in pairs]), width)]
        for _, block in groupby(pairs, key=lambda pair: (pair[0].scenario, pair[0].subject)):
            block_rows = list(block)
            lines += [cut(_place(block_rows[0][0]), width), *(line for _, line in block_rows)]
            lines += _notes([row for row, _ in block_rows], width)
    remarks = _outside_the_table(found)
    lines += ["", bullets(remarks, width), ""] if remarks else [""]
    lines.append(textwrap.fill(closing(found), width))
    if rows:
        lines += [textwrap.fill(READING, width), *left_out_note(left_out, width)]
    return "\n".join(lines)


def closing(found: RunDiff) -> str:
    """The counts of verdicts in a sentence. It has no text from a file."""
    verdicts = [change.verdict for change in found.gated]
    compared = [change for change in found.changes if change.kind in ABOUT]
    rows = count(len(verdicts), "gated row")
    gated = f"{tally(verdicts)} of {rows}" if verdicts else "no gated rows"
    return f"{gated}; {len(compared) - len(verdicts)} more for information."


def comment(found: RunDiff, runs: Runs) -> str:
    """The comparison as Markdown, always below GitHub's limit for a comment."""
    head = [MARKER, f"### trae-bench, compared with a stored run: {headline(found)}", ""]
    for (name, origin), run in zip(_named(found), runs, strict=True):
        noise = (f"; {for_markdown(line, MAX_NOTE)}" for line in noise_lines(run))
        head.append(f"- {name}: {_origin(origin, for_markdown)}{''.join(noise)}")
    foot = ["", closing(found)]
    room = MAX_COMMENT - length(head, foot) - 1000
    marked = within(_standing_out(found), room // 3)
    remarks = (*_differences(found), *_outside_the_table(found))
    listed = within((f"- {for_markdown(remark, MAX_NOTE)}" for remark in remarks), room // 4)
    table = _table(found, room - length(marked, listed))
    return "\n".join([*head, *listed, "", *marked, *table, *foot]) + "\n"


def headline(found: RunDiff) -> str:
    """The verdict on the whole comparison in a few words."""
    verdicts = [change.verdict for change in found.gated]
    if not set(verdicts) - {"not measured"}:
        return "no gated row could be compared"
    return summary(verdicts)


# -- what was compared


def _named(found: RunDiff) -> tuple[tuple[str, RunOrigin], tuple[str, RunOrigin]]:
    return ("base", found.base), ("head", found.head)


def _origins(found: RunDiff, runs: Runs, width: int) -> Iterator[str]:
    described = {}
    for (name, origin), run in zip(_named(found), runs, strict=True):
        described[name] = "; ".join([_origin(origin, for_terminal), *noise_lines(run)])
    yield names(described, width)
    if differences := list(_differences(found)):
        yield bullets(differences, width)


def _origin(origin: RunOrigin, escaped: Callable[[str], str]) -> str:
    commit = f"commit {escaped(origin.commit[:12])}" if origin.commit else "commit unknown"
    dirty = " with uncommitted changes" if origin.dirty else ""
    return f"{escaped(origin.created)}, {commit}{dirty}, {escaped(origin.machine)}"


def _differences(found: RunDiff) -> Iterator[str]:
    if not found.same_kind:
        yield (
            "the machines are of different kinds: memory and interpreter counters are for "
            "information only, absolute values are not comparable"
        )
    for fact in found.differences[:MAX_DIFFERENCES]:
        base, head = (_value(fact.name, text) for text in (fact.base, fact.head))
        yield f"{fact.name[:40]}: {base} in the base, {head} in the head"
    if len(found.differences) > MAX_DIFFERENCES:
        yield f"and {len(found.differences) - MAX_DIFFERENCES} more differences"


def _value(name: str, text: str) -> str:
    return quantity(float(text), "B") if name == "memory" and text.isdecimal() else text[:60]


# -- rows


def _shown(found: RunDiff) -> list[Change]:
    """Rows by kind, without unchanged counters."""
    order = list(ABOUT)
    rows = [one for one in found.changes if one.kind in ABOUT and not _unchanged_counter(one)]
    return sorted(rows, key=lambda change: order.index(change.kind))


def _unchanged_counter(change: Change) -> bool:
    return change.kind == "counter" and change.exact and change.base == change.head


def _about(kind: Kind, rows: Sequence[Change]) -> str:
    gated = sum(row.gated for row in rows)
    share = "gated" if gated == len(rows) else f"{gated or 'none'} of {len(rows)} gated"
    return ABOUT[kind] if kind == "absolute" else f"{ABOUT[kind]}; {share}"


def _cells(change: Change) -> tuple[str, ...]:
    """The cells of a row, one for each of `HEADINGS`."""
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
    """Each note once, with its metrics."""
    metrics_by_note: dict[str, list[str]] = {}
    for row in rows:
        # The beginning of the report already says that the machines are of different kinds.
        if row.note and row.note != OTHER_KIND:
            metrics_by_note.setdefault(row.note, []).append(for_terminal(row.metric, 40))
    for note, metrics in metrics_by_note.items():
        line = f"{', '.join(metrics)}: {note}"
        yield textwrap.fill(line, width, initial_indent="   ", subsequent_indent="     ")


def _outside_the_table(found: RunDiff) -> list[str]:
    """Remarks on rows that the table does not have."""
    same = sum(map(_unchanged_counter, found.changes))
    remarks = [f"{count(same, 'counter')} unchanged"] if same else []
    for kind, where in (("new", "only in the head"), ("gone", "only in the base")):
        named = [_named_place(change) for change in found.changes if change.kind == kind]
        remarks += [f"{where}: {_list(named)}"] if named else []
    other = [change for change in found.changes if change.kind == "incompatible"]
    for note in dict.fromkeys(change.note for change in other):
        named = [_named_place(change) for change in other if change.note == note]
        remarks.append(f"not comparable, {note}: {_list(named)}")
    return remarks


def _named_place(change: Change) -> str:
    parts = (change.scenario[:40], change.subject[:60], change.metric[:40])
    return " / ".join(part for part in parts if part)


def _list(named: Sequence[str]) -> str:
    more = f" and {len(named) - MAX_LISTED} more" if len(named) > MAX_LISTED else ""
    return ", ".join(named[:MAX_LISTED]) + more


# -- Markdown


def _standing_out(found: RunDiff) -> Iterator[str]:
    for verdict in STANDING_OUT:
        rows = [change for change in found.gated if change.verdict == verdict]
        yield from marked(verdict, map(_change, rows), len(rows))


def _change(change: Change) -> str:
    named = (change.scenario, change.subject, change.metric)
    place = " / ".join(for_markdown(name, MAX_NAME) for name in named)
    return f"{place} ({change.kind}): {change_in([*map(markdown_text, _cells(change))])}"


def _table(found: RunDiff, room: int) -> list[str]:
    rows = _shown(found)
    names = ("kind", "gated", "scenario", "of", *HEADINGS)
    kept = within(map(_line, rows), room)
    title = count(len(rows), "row")
    return folded(title, names, 5, kept, len(rows), "the JSON output", [READING, ""])


def _line(change: Change) -> str:
    name, *figures = _cells(change)
    places = (change.scenario, change.subject, name)
    cells = [change.kind, "yes" if change.gated else "no"]
    cells += [for_markdown(place, MAX_NAME) for place in places]
    note = f" {markdown_text(f'({change.note})')}" if change.note else ""
    return f"| {' | '.join([*cells, *map(markdown_text, figures)])}{note} |"
