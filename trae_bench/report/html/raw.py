"""The figures behind a page, as JSON that is part of it."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trae_bench.model.result import Comparison
from trae_bench.model.sample import Sample
from trae_bench.report.escape import for_json
from trae_bench.report.html.source import NumberedPairs, Source
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.pairs import CellKey, pair_outcome

FORMAT = "trae-bench report data"
VERSION = 1
DIGITS = 5
"""Of figures that are not whole numbers: a hundred-thousandth, where pairs scatter by percents."""
MAX_FIGURES = 125_000
"""Values of samples; 5,000 samples with 25 figures each."""
MAX_REASON = 200
"""Characters."""
ROW = (
    *("verdict", "gated", "threshold", "n", "log_ratio", "low", "high", "sd"),
    *("median_a", "median_b", "difference"),
)
"""Names of what stands in a `row`; the first three where there is no estimate."""
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""What could end the element that the document stands in, or begin another one."""


def document(sources: Sequence[Source]) -> tuple[str, int]:
    """All runs, and the number of samples' values that there was no room for.

    Each cell has its pairs' numbers, what became of those that do not count, and for each
    metric both sides' values in the order of the pairs, null where there is none, beside what
    `ROW` names. Texts are unchanged, and harmless within an element `script`.
    """
    book = _Book()
    runs = [_run(source, book) for source in sources]
    made = {"format": FORMAT, "version": VERSION, "digits": DIGITS, "row": ROW, "runs": runs}
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    return for_json(text).translate(_ESCAPES), book.left_out


class _Book:
    """Counts values, so that no file can make a page of any size."""

    def __init__(self) -> None:
        self._room = MAX_FIGURES
        self.left_out = 0

    def has_room(self, values: int) -> bool:
        if values > self._room:
            self.left_out += values
            return False
        self._room -= values
        return True


def _run(source: Source, book: _Book) -> dict[str, Any]:
    header = source.run.header
    used = {row.metric for row in source.run.comparisons}
    rows: dict[CellKey, list[Comparison]] = {}
    for row in source.run.comparisons:
        if key := source.cell_of(row):
            rows.setdefault(key, []).append(row)
    return {
        "file": source.name,
        "created": header.created,
        "command": header.command,
        "code": header.code,
        "machine": header.machine,
        "versions": header.versions,
        "sides": side_names(source.run),
        "metrics": {
            name: {"unit": metric.unit, "better": metric.better}
            for name, metric in header.metrics.items()
            if name in used
        },
        "cells": [
            _cell(key, of_cell, source.pairs.get(key, ()), book) for key, of_cell in rows.items()
        ],
    }


def _cell(
    key: CellKey, rows: Sequence[Comparison], pairs: NumberedPairs, book: _Book
) -> dict[str, Any]:
    of_metric = {row.metric: row for row in rows}
    kept = pairs if book.has_room(2 * len(pairs) * len(of_metric)) else ()
    return {
        **key._asdict(),
        "pairs": [number for number, _ in kept],
        "void": dict(_void(kept)),
        "metrics": {name: _metric(row, kept) for name, row in of_metric.items()},
    }


def _void(pairs: NumberedPairs) -> Iterator[tuple[int, str]]:
    for number, pair in pairs:
        fallen, reason = pair_outcome(*pair)
        if fallen != "measured":
            yield number, f"{fallen}: {reason[:MAX_REASON]}"


def _metric(row: Comparison, pairs: NumberedPairs) -> dict[str, Any]:
    a, b = ([side and side.metrics.get(row.metric) for side in sides] for sides in _sides(pairs))
    found, verdict = row.estimate, row.judgement.verdict
    told: list[Any] = [verdict, row.gated, row.threshold]
    if found is not None:
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        told += [found.n, found.log_ratio, low, high, found.sd, found.a, found.b, found.difference]
    return {"row": _short(told), "a": _short(a), "b": _short(b)}


def _sides(pairs: NumberedPairs) -> tuple[list[Sample | None], list[Sample | None]]:
    return [a for _, (a, _) in pairs], [b for _, (_, b) in pairs]


def _short(value: Any) -> Any:
    """Whole numbers as they are; of others so many digits as say anything."""
    if isinstance(value, list):
        return [_short(one) for one in value]
    if not isinstance(value, float):
        return value
    if abs(value) < 1e15 and value == int(value):
        return int(value)
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if math.isfinite(rounded) else value
