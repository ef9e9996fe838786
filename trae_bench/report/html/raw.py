"""The data of a page as embedded JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trae_bench.model.result import Comparison
from trae_bench.report.escape import for_json
from trae_bench.report.html.source import NumberedPairs, Source
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.pairs import CellKey, pair_outcome

FORMAT = "trae-bench report data"
VERSION = 1
DIGITS = 5
"""Significant digits of other numbers than integers. Pairs scatter by percents, so five suffice."""
MAX_VALUES = 125_000
"""Maximum values of samples: 5,000 samples with 25 values each."""
MAX_REASON = 200
"""Maximum characters of a reason."""
ROW = (
    *("verdict", "gated", "threshold", "n", "log_ratio", "low", "high", "sd"),
    *("median_a", "median_b", "difference"),
)
"""The names of the items of a `row`. Without an estimate it has the first three."""
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""Characters that could end the surrounding `script` element or begin another element."""


def document(sources: Sequence[Source]) -> tuple[str, int]:
    """The JSON of all runs, and the number of sample values that were left out.

    Each cell has the numbers of its pairs, the reasons of lost pairs, and for each metric the
    items of `ROW` and both sides' values in the order of the pairs; a missing value is null. The
    texts are unchanged; the JSON is safe in a `script` element.
    """
    budget = _ValueBudget()
    runs = [_run(source, budget) for source in sources]
    content = {"format": FORMAT, "version": VERSION, "digits": DIGITS, "row": ROW, "runs": runs}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return for_json(text).translate(_ESCAPES), budget.left_out


class _ValueBudget:
    """Limits the number of values, so that the size of a page is limited."""

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self.left_out = 0

    def take(self, values: int) -> bool:
        """Whether so many values still fit. If they do, they are counted."""
        if values > self._left:
            self.left_out += values
            return False
        self._left -= values
        return True


def _run(source: Source, budget: _ValueBudget) -> dict[str, Any]:
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
            _cell(key, of_cell, source.pairs.get(key, ()), budget) for key, of_cell in rows.items()
        ],
    }


def _cell(
    key: CellKey, rows: Sequence[Comparison], pairs: NumberedPairs, budget: _ValueBudget
) -> dict[str, Any]:
    of_metric = {row.metric: row for row in rows}
    kept = pairs if budget.take(2 * len(pairs) * len(of_metric)) else ()
    return {
        **key._asdict(),
        "pairs": [number for number, _ in kept],
        "void": dict(_void(kept)),
        "metrics": {name: _metric(row, kept) for name, row in of_metric.items()},
    }


def _void(pairs: NumberedPairs) -> Iterator[tuple[int, str]]:
    for number, pair in pairs:
        outcome, reason = pair_outcome(*pair)
        if outcome != "measured":
            yield number, f"{outcome}: {reason[:MAX_REASON]}"


def _metric(row: Comparison, pairs: NumberedPairs) -> dict[str, Any]:
    a = [sample and sample.metrics.get(row.metric) for _, (sample, _) in pairs]
    b = [sample and sample.metrics.get(row.metric) for _, (_, sample) in pairs]
    estimate, interval = row.estimate, row.estimate and row.estimate.interval
    items: list[Any] = [row.judgement.verdict, row.gated, row.threshold]
    if estimate is not None:
        items += [estimate.n, estimate.log_ratio]
        items += [interval.low, interval.high] if interval else [None, None]
        items += [estimate.sd, estimate.a, estimate.b, estimate.difference]
    return {"row": _rounded(items), "a": _rounded(a), "b": _rounded(b)}


def _rounded(value: Any) -> Any:
    """Rounds floats to `DIGITS` significant digits; integers stay exact."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    if abs(value) < 1e15 and value == int(value):
        return int(value)
    rounded = float(f"{value:.{DIGITS}g}")
    return rounded if math.isfinite(rounded) else value
