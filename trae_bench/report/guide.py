"""Fills the tables of a Markdown document with figures from runs.

A table is between `<!-- figures: NAME -->` and `<!-- end of figures -->`, each on its own line.
NAME is `claims`, `agents`, `summary` or a table of the document's tables file (`guide_tables`).
The rest of the document stays as it is. Below each table are its runs, with command, commit and
machine. A row that no run has is `not measured`. The same runs give the same bytes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from trae_bench.errors import UsageError
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_markdown, markdown_text
from trae_bench.report.guide_tables import GuideTables, RowSpec, SummaryRow
from trae_bench.report.text import agents as agents_text
from trae_bench.report.text import claims as claims_text
from trae_bench.report.text.terminal import cells_of, headings
from trae_bench.verdicts.claims import EvidenceKey, Measurement, Source, judge, newest_measurements
from trae_bench.verdicts.claims_file import ClaimsFile

BEGIN = re.compile(r"<!-- figures: (\S+) -->\s*")
END = "<!-- end of figures -->"
NOT_MEASURED = "not measured"
MAX_COMMAND = 600
"""Maximum characters of a command; a reader needs all of it to repeat the run."""

Measurements = Mapping[EvidenceKey, Measurement]
"""The newest measurement of each row."""


def rendered(
    text: str,
    sources: Sequence[Source],
    claims: ClaimsFile,
    tables: GuideTables | None = None,
    document: str = "<guide>",
) -> str:
    """Returns the document with its tables filled in.

    `document` names it in errors. Raises `UsageError`, with the line, if a block is unknown or
    not closed, or if the document has no block.
    """
    measurements = newest_measurements(sources)
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
            runs = _Runs()
            if begin[1] in agents_text.TABLES:
                name = begin[1]
                table = agents_text.markdown(_agent_runs(sources, runs, name), name)
            else:
                known = tables or GuideTables()
                table = _table_of(begin[1], place, measurements, claims, known, runs)
            # Markdown needs the empty lines around both.
            lines += [line, "", *table, "", *runs.lines(), ""]
        elif end or not opened:
            lines.append(line)
        if end:
            opened = ""
    if opened:
        raise UsageError(f"{opened}: the figures are not closed; add {END}")
    if not last:
        raise UsageError(
            f"{document}: no figures in it; add `<!-- figures: claims -->` and `{END}`"
        )
    return "\n".join(lines)


def first_difference(text: str, expected: str) -> tuple[int, str] | None:
    """The number of the first line that differs, and its expected text. None if equal."""
    pairs = zip_longest(text.split("\n"), expected.split("\n"))
    for number, (line, expected_line) in enumerate(pairs, start=1):
        if line != expected_line:
            return number, expected_line or ""
    return None


def _table_of(
    name: str,
    place: str,
    measurements: Measurements,
    claims: ClaimsFile,
    tables: GuideTables,
    runs: "_Runs",
) -> Iterator[str]:
    if name == "claims":
        return claims_text.markdown(judge(claims.claims, measurements), runs.number_of)
    if name == "summary" and tables.summary:
        return _summary(tables.summary, measurements, runs)
    if name in tables.tables:
        return _table(tables.tables[name], measurements, runs)
    known = [
        *agents_text.TABLES,
        "claims",
        *(["summary"] if tables.summary else []),
        *tables.tables,
    ]
    raise UsageError(
        f"{place}: no figures {name!r}; known: {', '.join(known)}; list the rows "
        "of a table in DOCUMENT.tables.toml, beside the document"
    )


def _agent_runs(sources: Sequence[Source], runs: "_Runs", table: str) -> list[RunFile]:
    """The runs that have figures for a table of agents, the newest first."""
    of_agents = (one for one in sources if one.run.header.agents and not one.run.header.revisions)
    found = [one for one in of_agents if agents_text.has_figures(one.run, table)]
    found.sort(key=lambda source: source.run.header.created, reverse=True)
    for source in found:
        runs.number(source)
    return [source.run for source in found]


class _Runs:
    """The runs of one table, numbered in order of first use."""

    def __init__(self) -> None:
        self._sources: list[Source] = []

    def number_of(self, evidence: Measurement) -> str:
        return self.number(evidence.source)

    def number(self, source: Source) -> str:
        # By identity: `==` compares all samples of two runs.
        for number, known in enumerate(self._sources, start=1):
            if known is source:
                return str(number)
        self._sources.append(source)
        return str(len(self._sources))

    def lines(self) -> Iterator[str]:
        if not self._sources:
            yield "None of the given runs has a row of this table."
        for number, source in enumerate(self._sources, start=1):
            yield f"- run {number}: {_provenance(source)}"


def _provenance(source: Source) -> str:
    header = source.run.header
    machine, code = header.machine, header.code
    commit = for_markdown(str(code.get("commit") or "unknown")[:12])
    dirty = " with uncommitted changes" if code.get("dirty") is True else ""
    processor = markdown_text(f"{machine.get('cores', '?')} x {machine.get('cpu', 'unknown')}")
    return (
        f"{for_markdown(header.command, MAX_COMMAND)} at commit {commit}{dirty}, "
        f"{markdown_text(header.created[:10])}, {processor}, "
        f"Python {markdown_text(str(machine.get('python', 'unknown')))}; "
        f"{for_markdown(source.name)}"
    )


def _table(specs: Sequence[RowSpec], measurements: Measurements, runs: _Runs) -> Iterator[str]:
    figures = headings()[1:-1]
    yield f"| scenario | switched on | metric | {' | '.join(figures)} | verdict | run |"
    yield f"|---|---|---|{'---:|' * len(figures)}---|---|"
    for spec in specs:
        evidence = measurements.get(spec.question)
        if evidence is None:
            cells = [*[""] * len(figures), NOT_MEASURED, ""]
        else:
            cells = [*_figures(evidence), runs.number_of(evidence)]
        yield f"| `{spec.scenario}` | {_toggles(spec)} | `{spec.metric}` | {' | '.join(cells)} |"


def _figures(evidence: Measurement) -> list[str]:
    """The cells of a row without the metric's name."""
    cells = cells_of(evidence.row, evidence.metric, evidence.source.judged)
    # An interval has numbers only. Unescaped, it stays readable in the document's source.
    return [
        text if heading == "[interval]" else markdown_text(text)
        for heading, text in zip(headings()[1:], cells[1:], strict=True)
    ]


def _toggles(spec: RowSpec) -> str:
    names = spec.toggles
    return ", ".join(f"`{name}`" for name in names) if len(names) <= 3 else f"{len(names)} toggles"


def _summary(rows: Sequence[SummaryRow], measurements: Measurements, runs: _Runs) -> Iterator[str]:
    yield "| optimisation | best case | other workload | install size | memory | risk |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        cells = [_summary_cell(spec, measurements, runs) for spec in row.specs()]
        yield f"| `{row.toggle}` | {' | '.join(cells)} | {row.risk} |"


def _summary_cell(spec: RowSpec | None, measurements: Measurements, runs: _Runs) -> str:
    """Ratio, interval and verdict above their scenario and metric."""
    if spec is None:
        return "-"
    evidence = measurements.get(spec.question)
    text = NOT_MEASURED
    if evidence is not None:
        *_, ratio, interval, _, verdict = _figures(evidence)
        text = f"{' '.join(filter(None, (ratio, interval, verdict)))} ({runs.number_of(evidence)})"
    return f"{text}<br>`{spec.scenario}` `{spec.metric}`"
