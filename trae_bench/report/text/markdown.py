"""A run as Markdown, for a pull request comment and a CI job summary.

The verdict comes first, then the rows that stand out, then a folded table. The text stays below
GitHub's limit for a comment, however large the run.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.result import Comparison, Verdict
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text import time_shares
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import (
    cells_of,
    change_in,
    closing,
    contrast_heading,
    headings,
    kind_of_pairs,
    machine_name,
    noise_lines,
    side_names,
    tally,
)
from trae_bench.verdicts.caveats import MAX_NOTE, caveats_of

MARKER = "<!-- trae-bench report -->"
"""The first line, an invisible comment: a job finds its earlier comment by it."""

MAX_COMMENT = 65_000
"""Maximum characters of a comment; GitHub rejects more than 65,536."""
NOTHING_MEASURED = "nothing could be measured"
MAX_STANDING_OUT = 10
MAX_SENTENCE = 800
MAX_NAME = 60
"""Maximum characters of a name; a hundred such names leave room for a table."""
MAX_MACHINE = 200
_RESERVED = 500
"""Characters kept free for the lines around the table."""
STANDING_OUT: tuple[Verdict, ...] = ("regression", "improvement")
_BESIDE: tuple[Verdict, ...] = ("improvement", "inconclusive")
"""Verdicts counted after "no regression"."""


def comment(run: RunFile, *, claimed: bool = True) -> str:
    """The whole report. `claimed` is false if the run was too short for verdicts."""
    verdict = markdown_text(headline(run, claimed=claimed), MAX_SENTENCE)
    noise = [for_markdown(line, MAX_NOTE) for line in noise_lines(run)]
    head = [MARKER, f"### trae-bench: {verdict}", "", "  \n".join(noise), ""]
    foot = ["", *_foot(run, claimed)]
    room = MAX_COMMENT - length(head) - length(foot) - _RESERVED
    marked = within(_standing_out(run, claimed), room // 2)
    marked += within((f"- {markdown_text(line)}" for line in gate_text.details(run)), room // 4)
    lost = within(_lost(run), room // 8)
    table = _table(run, claimed, room - length(marked) - length(lost))
    return "\n".join([*head, *marked, *lost, *table, *foot]) + "\n"


def headline(run: RunFile, *, claimed: bool = True) -> str:
    """The verdict on the whole run in a few words; safe for a terminal."""
    if run.header.revisions is not None:
        return gate_text.sentence(run, claimed=claimed)
    rows = compared(run)
    if any(row.pairs.answers_differ and not row.pairs.measured for row in rows):
        return "the two sides give different answers"
    if not any(row.pairs.measured for row in rows):
        return NOTHING_MEASURED
    if not claimed:
        return "too few pairs for verdicts"
    gated = [row.judgement.verdict for row in rows if row.gated]
    return summary(gated) if gated else "no gated verdict, all rows are for information only"


def summary(verdicts: Sequence[Verdict]) -> str:
    """The number of regressions; if there is none, of improvements and inconclusive rows."""
    if worse := verdicts.count("regression"):
        return count(worse, "regression")
    others = tally(verdicts, _BESIDE)
    return f"no regression, {others}" if others else "no regression"


def compared(run: RunFile) -> list[Comparison]:
    """All rows except A/A rows."""
    return [row for row in run.comparisons if row.contrast != NOISE_FLOOR]


def reported_rows(run: RunFile) -> list[Comparison]:
    """Rows whose verdicts are reported: in a gate the gated ones, else all."""
    return [row for row in compared(run) if row.gated or run.header.revisions is None]


def _standing_out(run: RunFile, claimed: bool) -> Iterator[str]:
    for verdict in STANDING_OUT if claimed else ():
        rows = [row for row in reported_rows(run) if row.judgement.verdict == verdict]
        changes = (f"{_place(row)}: {change_in(_cells(run, row, claimed))}" for row in rows)
        yield from marked(verdict, changes, len(rows))


def marked(verdict: Verdict, changes: Iterable[str], number: int) -> Iterator[str]:
    """A line for each row that stands out; those over `MAX_STANDING_OUT` are counted."""
    for change in islice(changes, MAX_STANDING_OUT):
        yield f"- **{verdict}** {change}"
    if number > MAX_STANDING_OUT:
        yield f"- and {number - MAX_STANDING_OUT} more: **{verdict}**"


def _lost(run: RunFile) -> Iterable[str]:
    """Lost pairs with the first reason, once for each kind of pair."""
    seen = set()
    for row in compared(run):
        lost = row.pairs.answers_differ + row.pairs.not_measured
        kind = kind_of_pairs(row, run.header.metrics[row.metric])
        key = (row.scenario, row.contrast, kind)
        if lost and key not in seen:
            seen.add(key)
            reason = f": {for_markdown(row.pairs.reasons[0])}" if row.pairs.reasons else ""
            what = "some answers differ" if row.pairs.answers_differ else "not measured"
            yield f"- {lost} {kind} pairs lost ({what}) of {_place(row, metric=False)}{reason}"


def _table(run: RunFile, claimed: bool, room: int) -> list[str]:
    rows = compared(run)
    lines = (
        f"| {for_markdown(row.scenario, MAX_NAME)} | {for_markdown(row.contrast, MAX_NAME)}"
        f" | {' | '.join(_cells(run, row, claimed))} |"
        for row in rows
    )
    names = ("scenario", contrast_heading(run), *headings(side_names(run)))
    title, kept = count(len(rows), "comparison"), within(lines, room)
    return folded(title, names, 3, kept, len(rows), "the run file")


def folded(
    title: str,
    names: Sequence[str],
    words: int,
    kept: Sequence[str],
    number: int,
    rest: str,
    note: Sequence[str] = (),
) -> list[str]:
    """A folded table of the `kept` lines of a `number` of rows; `rest` has the others.

    The first `words` columns and the last one are words, the others are figures.
    """
    if not number:
        return []
    aligned = ["---"] * words + ["---:"] * (len(names) - words - 1) + ["---"]
    more = number - len(kept)
    return [
        "",
        f"<details><summary>{title}</summary>",
        "",
        f"| {' | '.join(map(markdown_text, names))} |",
        f"| {' | '.join(aligned)} |",
        *kept,
        *([f"\n{more} more rows are in {rest}."] if more else []),
        "",
        *note,
        "</details>",
    ]


def _cells(run: RunFile, row: Comparison, claimed: bool) -> list[str]:
    name, *figures = cells_of(row, run.header.metrics[row.metric], claimed)
    return [for_markdown(name), *map(markdown_text, figures)]


def _foot(run: RunFile, claimed: bool) -> list[str]:
    header = run.header
    machine = for_markdown(machine_name(header.machine), MAX_MACHINE)
    commit = for_markdown(str(header.code.get("commit") or "unknown"), MAX_NAME)
    dirty = " with uncommitted changes" if header.code.get("dirty") is True else ""
    return [
        *(f"{markdown_text(line, MAX_NOTE)}  " for line in time_shares.lines(run)),
        closing(run, claimed=claimed),
        "",
        *(f"{markdown_text(note, MAX_NOTE)}\n" for note in caveats_of(run)),
        f"Commit {commit}{dirty}, on {machine}, {for_markdown(header.created, MAX_NAME)}.",
    ]


def _place(row: Comparison, *, metric: bool = True) -> str:
    names = (row.scenario, row.contrast, row.metric) if metric else (row.scenario, row.contrast)
    return " / ".join(for_markdown(name, MAX_NAME) for name in names)


def within(lines: Iterable[str], room: int) -> list[str]:
    """The first lines that fit `room` characters, with their line breaks."""
    kept = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept


def length(*parts: Sequence[str]) -> int:
    """The characters of lines, with their line breaks."""
    return sum(len(line) + 1 for line in chain(*parts))
