"""Reads the file that lists the rows of a guide's tables.

The file is beside the document: `performance.tables.toml` for `performance.md`. It has rows only;
the figures come from runs. docs/performance.tables.toml is an example.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from trae_bench.scenario.diagnostics import Diagnostic, raise_for
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.toml_errors import explain, read_toml
from trae_bench.verdicts.claims import EvidenceKey

RESERVED = ("summary", "claims")
"""Blocks that are not a list of rows."""
_NAME = re.compile(r"[\w.@-]+")
_TEXT = re.compile(r"[^|\n]*")


class RowSpec(NamedTuple):
    """One row of a table: what to look up in the runs."""

    scenario: str
    toggles: tuple[str, ...]
    """Toggles that are on together; all others are off."""
    metric: str

    @property
    def question(self) -> EvidenceKey:
        return EvidenceKey(self.scenario, frozenset(self.toggles), self.metric)


class RowGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of one table that have the same toggles on."""

    table: str
    toggles: Annotated[tuple[str, ...], Meta(min_length=1)]
    places: tuple[str, ...]
    """`SCENARIO METRIC`, one for each row."""

    def specs(self) -> Iterator[RowSpec]:
        return (_spec(place, self.toggles) for place in self.places)


class SummaryRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One optimisation. Places are `SCENARIO METRIC`, or empty if there is nothing to measure."""

    toggle: str
    risk: str
    best: str = ""
    """A workload that the optimisation is made for."""
    other: str = ""
    """A workload that it is not made for."""
    size: str = ""
    memory: str = ""

    def specs(self) -> list[RowSpec | None]:
        """One for each column of the summary between the toggle and the risk."""
        places = (self.best, self.other, self.size, self.memory)
        return [_spec(place, (self.toggle,)) if place else None for place in places]


class GuideTables(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a tables file."""

    summary: tuple[SummaryRow, ...] = ()
    rows: tuple[RowGroup, ...] = ()

    @property
    def tables(self) -> dict[str, list[RowSpec]]:
        """All rows by the name of their table."""
        tables: dict[str, list[RowSpec]] = {}
        for group in self.rows:
            tables.setdefault(group.table, []).extend(group.specs())
        return tables


def tables_path(document: Path) -> Path:
    """The path of a document's tables file."""
    return document.with_suffix(".tables.toml")


def load_tables(document: Path) -> GuideTables:
    """The tables of a document; without a tables file it has none.

    Raises `ScenarioError` (`file:line: path: problem; remedy`) if the file is invalid.
    """
    path = tables_path(document)
    return parse_tables(text_of(path), str(path)) if path.exists() else GuideTables()


def parse_tables(text: str, source: str = "<tables>") -> GuideTables:
    """Parses a tables file. `source` names it in errors. Raises as `load_tables` does."""
    try:
        tables = msgspec.convert(read_toml(text, source), GuideTables)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error), GuideTables)
        raise_for([(path, problem)], source, text)
        raise
    raise_for(list(_problems(tables)), source, text)
    return tables


def _spec(place: str, toggles: tuple[str, ...]) -> RowSpec:
    scenario, metric = place.split()
    return RowSpec(scenario, toggles, metric)


def _problems(tables: GuideTables) -> Iterator[Diagnostic]:
    for number, row in enumerate(tables.summary):
        if not _NAME.fullmatch(row.toggle):
            yield ("summary", number, "toggle"), _not_a_name(row.toggle)
        if not _TEXT.fullmatch(row.risk):
            yield ("summary", number, "risk"), "has `|` or a line break; remove it"
        for field in ("best", "other", "size", "memory"):
            place = getattr(row, field)
            if place and not _is_place(place):
                yield ("summary", number, field), _not_a_place(place)
    for number, group in enumerate(tables.rows):
        if group.table in RESERVED:
            yield ("rows", number, "table"), f"{group.table!r} is reserved; choose another name"
        if not _NAME.fullmatch(group.table):
            yield ("rows", number, "table"), _not_a_name(group.table)
        for index, toggle in enumerate(group.toggles):
            if not _NAME.fullmatch(toggle):
                yield ("rows", number, "toggles", index), _not_a_name(toggle)
        for index, place in enumerate(group.places):
            if not _is_place(place):
                yield ("rows", number, "places", index), _not_a_place(place)


def _is_place(text: str) -> bool:
    words = text.split()
    return len(words) == 2 and all(_NAME.fullmatch(word) for word in words)


def _not_a_place(text: str) -> str:
    return f'{text!r} is not a place; write "SCENARIO METRIC"'


def _not_a_name(text: str) -> str:
    return f"{text!r} is not a name; use letters, digits, `_`, `-`, `.` and `@`"
