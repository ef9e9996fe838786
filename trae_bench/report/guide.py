"""A document whose figures come from runs, and from nowhere else.

Between `<!-- figures: NAME -->` and `<!-- end of figures -->`, each on a line of its own, stands
what is rendered here: `summary` or another of `guide_tables`, or `claims`. All else is left as it
is. Below each table stand the runs that it is from, with commit, machine and command. A cell
that no run has a row for says `not measured`. The same runs give the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from trae_bench.errors import UsageError
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.guide_tables import SUMMARY, TABLES, Ask
from trae_bench.report.text import claims as claims_text
from trae_bench.report.text.terminal import cells_of, heads
from trae_bench.verdicts.claims import EvidenceKey, Measurement, Source, judge, newest_measurements
from trae_bench.verdicts.claims_file import ClaimsFile

BEGIN = re.compile(r"<!-- figures: (\S+) -->\s*")
END = "<!-- end of figures -->"
NOT_MEASURED = "not measured"
MAX_COMMAND = 600
"""Characters; who would repeat a run needs all of its command."""


def rendered(
    text: str, sources: Sequence[Source], claims: ClaimsFile, document: str = "<guide>"
) -> str:
    """The document with all its figures as they should be.

    Raises `UsageError`, with the line, for marks that are unknown or do not pair, and where
    there are none.
    """
    found = newest_measurements(sources)
    lines: list[str] = []
    opened = last = ""
    for number, line in enumerate(text.split("\n"), start=1):
        place = f"{document}:{number}"
        begin, end = BEGIN.fullmatch(line), line.strip() == END
        if begin and opened:
            raise UsageError(
                f"{opened}: the figures are not closed before line {number}; add {END}"
            )
        if end and not opened:
            raise UsageError(f"{place}: no figures are open here; remove the line")
        if begin:
            opened = last = place
            lines += [line, *_block(begin[1], place, found, claims)]
        elif end or not opened:
            lines.append(line)
        if end:
            opened = ""
    if opened:
        raise UsageError(f"{opened}: the figures are not closed; add {END}")
    if not last:
        raise UsageError(f"{document}: no figures in it; mark a place, `<!-- figures: summary -->`")
    return "\n".join(lines)


def first_difference(text: str, should: str) -> tuple[int, str] | None:
    """Number of the first line that differs, and what should stand there; None where none does."""
    pairs = zip_longest(text.split("\n"), should.split("\n"))
    for number, (there, line) in enumerate(pairs, start=1):
        if there != line:
            return number, line or ""
    return None


def _block(
    name: str, place: str, found: Mapping[EvidenceKey, Measurement], claims: ClaimsFile
) -> Iterator[str]:
    """A table and where it is from, with an empty line on both sides, as Markdown wants it."""
    runs = _Runs()
    if name == "summary":
        table = _summary(found, runs)
    elif name == "claims":
        table = claims_text.markdown(judge(claims.claims, found), runs.mark)
    elif name in TABLES:
        table = _table(TABLES[name], found, runs)
    else:
        known = ", ".join(["summary", "claims", *TABLES])
        raise UsageError(f"{place}: no figures {name!r}; known: {known}")
    yield from ("", *table, "", *runs.told(), "")


class _Runs:
    """The runs of one table, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def mark(self, evidence: Measurement) -> str:
        source = evidence.source
        # Not `in`: two runs are compared by all their samples.
        if not any(each is source for each in self._sources):
            self._sources.append(source)
        return str(1 + [each is source for each in self._sources].index(True))

    def told(self) -> Iterator[str]:
        if not self._sources:
            yield "No run that was given has a row of this."
        for number, source in enumerate(self._sources, start=1):
            yield f"- run {number}: {_provenance(source)}"


def _provenance(source: Source) -> str:
    header = source.run.header
    machine, code = header.machine, header.code
    commit = for_markdown(str(code.get("commit") or "unknown")[:12])
    dirty = " with changes that are not committed" if code.get("dirty") is True else ""
    kind = markdown_text(f"{machine.get('cores', '?')} x {machine.get('cpu', 'unknown')}")
    return (
        f"{for_markdown(header.command, MAX_COMMAND)} at commit {commit}{dirty}, "
        f"{markdown_text(header.created[:10])}, {kind}, "
        f"Python {markdown_text(str(machine.get('python', 'unknown')))}; "
        f"{for_markdown(source.name)}"
    )


def _table(
    asked: Sequence[Ask], found: Mapping[EvidenceKey, Measurement], runs: _Runs
) -> Iterator[str]:
    figures = heads()[1:-1]
    yield f"| scenario | switched on | metric | {' | '.join(figures)} | verdict | run |"
    yield f"|---|---|---|{'---:|' * len(figures)}---|---|"
    for ask in asked:
        evidence = found.get(ask.question)
        if evidence is None:
            cells = [*[""] * len(figures), NOT_MEASURED, ""]
        else:
            cells = [*_figures(evidence), runs.mark(evidence)]
        yield f"| `{ask.scenario}` | {_toggles(ask)} | `{ask.metric}` | {' | '.join(cells)} |"


def _figures(evidence: Measurement) -> list[str]:
    """All that a row says, but for the metric's name."""
    cells = cells_of(evidence.row, evidence.metric, evidence.source.judged)
    # An interval is nothing but numbers, and should be as legible in the source as on the page.
    return [
        text if head == "[interval]" else markdown_text(text)
        for head, text in zip(heads()[1:], cells[1:], strict=True)
    ]


def _toggles(ask: Ask) -> str:
    names = ask.toggles.split("+")
    return ", ".join(f"`{name}`" for name in names) if len(names) <= 3 else f"{len(names)} toggles"


def _summary(found: Mapping[EvidenceKey, Measurement], runs: _Runs) -> Iterator[str]:
    yield "| optimisation | where it should pay | elsewhere | install size | memory | risk |"
    yield "|---|---|---|---|---|---|"
    for one in SUMMARY:
        cells = [_cell(ask, found, runs) for ask in one.asked]
        yield f"| `{one.toggle}` | {' | '.join(cells)} | {one.risk} |"


def _cell(ask: Ask | None, found: Mapping[EvidenceKey, Measurement], runs: _Runs) -> str:
    """Ratio, interval and verdict, over the place where they were found."""
    if ask is None:
        return "-"
    evidence = found.get(ask.question)
    told = NOT_MEASURED
    if evidence is not None:
        *_, ratio, interval, _, verdict = _figures(evidence)
        told = f"{' '.join(filter(None, (ratio, interval, verdict)))} ({runs.mark(evidence)})"
    return f"{told}<br>`{ask.scenario}` `{ask.metric}`"
