"""Reads the prices of tokens: the file that ships, or the user's own."""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import Struct

from trae_bench.prompt.prices import PriceTable
from trae_bench.run.gate_base import GateBase
from trae_bench.scenario import Protocol
from trae_bench.scenario.diagnostics import Diagnostic, error_at, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.toml_errors import explain, read_toml
from trae_bench.subject.revisions import NAME_LENGTH

SHIPPED = "the prices of trae-bench"
"""How the file that ships is named to the user."""


class PriceFile(Struct, frozen=True):
    """A table of prices, and where it comes from."""

    table: PriceTable
    source: str
    digest: str
    """First characters of the text's SHA-256."""

    @property
    def label(self) -> str:
        """What tells two tables apart: date and digest."""
        return f"{self.table.checked.isoformat()} {self.digest}"


def load(path: Path | None = None) -> PriceFile:
    """Read a price file; by default the one that ships.

    Raises `ScenarioError`: `file:line: field: problem; remedy`.
    """
    if path is None:
        text = files("trae_bench.prompt").joinpath("prices.toml").read_text(encoding="utf-8")
        return parse(text, SHIPPED)
    return parse(text_of(path), str(path))


def for_run(name: str, base: GateBase | None) -> PriceFile:
    """Read the prices of a run; an empty name stands for those that ship.

    A file of the base comes from there: a change must not lower its own bill. Raises
    `UsageError`.
    """
    if not name:
        return load()
    text = None if base is None else base.text(name)
    if base is None or text is None:
        return load(Path(name))
    return parse(text, f"{base.commit[:NAME_LENGTH]}:{name}")


def parse(text: str, source: str) -> PriceFile:
    """Read the text of a price file. Raises `ScenarioError`."""
    document = read_toml(text, source)
    try:
        table = msgspec.convert(document, PriceTable)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error), PriceTable)
        if path == ("checked",):
            problem = "expected a date without quotes, such as 2026-11-29"
        raise error_at(source, text, path, problem) from error
    raise_for(list(_problems(table)), source, text)
    return PriceFile(table, source, hashlib.sha256(text.encode()).hexdigest()[:12])


def _problems(table: PriceTable) -> Iterator[Diagnostic]:
    protocols = get_args(Protocol)
    for protocol, model in table.standard.items():
        if protocol not in protocols:
            yield ("standard", protocol), f"no protocol{suggestion(protocol, protocols)}"
        elif table.find(model) is None:
            remedy = "add a [[prices]] table with this model"
            yield ("standard", protocol), f"{model!r} has no price; {remedy}"
    for index, price in enumerate(table.prices):
        for number, pattern in enumerate(price.models):
            if pattern != pattern.lower():
                place = ("prices", index, "models", number)
                yield place, f"{pattern!r} never matches; write it in lower case"
