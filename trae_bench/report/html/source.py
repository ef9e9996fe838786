"""A run for the page, and the texts of its rows."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import get_args

from trae_bench.model.result import Comparison, Verdict
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import cells_of, min_effect, quantity
from trae_bench.stats.pairs import CellKey, PairOfSamples, RowKey, group_samples, key_of, key_of_row
from trae_bench.verdicts import claims

MAX_NAME = 60
"""Maximum characters of a name."""
ORDER: tuple[Verdict, ...] = get_args(Verdict)
"""Verdicts, the most urgent first."""
OPEN = "open"
"""CSS class of a row without a claimed verdict."""

NumberedPairs = Sequence[tuple[int, PairOfSamples]]


class Source(claims.Source, frozen=True, dict=True):
    """A run to show."""

    @property
    def short_name(self) -> str:
        return self.name.removesuffix(".json")

    @cached_property
    def cells(self) -> dict[RowKey, CellKey]:
        """The cell that each row was sampled in."""
        return {
            RowKey(cell.scenario, cell.contrast.name, metric): key_of(cell)
            for cell in self.run.header.cells
            for metric in cell.metrics
        }

    @cached_property
    def pairs(self) -> dict[CellKey, NumberedPairs]:
        """Pairs in order, without the warm-up pair 0."""
        return {
            key: [(number, pair) for number, pair in sorted(of_cell.items()) if number > 0]
            for key, of_cell in group_samples(self.run.samples).items()
        }

    def cell_of(self, row: Comparison) -> CellKey | None:
        """The cell of a row; None if the plan of the file does not have the row."""
        return self.cells.get(key_of_row(row))

    def pairs_of(self, row: Comparison) -> NumberedPairs:
        key = self.cell_of(row)
        return self.pairs.get(key, ()) if key else ()

    def texts(self, row: Comparison) -> tuple[str, ...]:
        """The cells of a row: metric, both sides, ratio, interval, saved, verdict."""
        return cells_of(row, self.run.header.metrics[row.metric], self.judged)

    def figure(self, metric: str, value: float) -> str:
        """A value of a metric with its unit."""
        return quantity(value, for_terminal(self.run.header.metrics[metric].unit, 10))

    def kind(self, row: Comparison) -> str:
        """The CSS class of the row's verdict."""
        claimed = self.judged or row.estimate is None
        return css_class(row.judgement.verdict) if claimed else OPEN


def css_class(verdict: Verdict) -> str:
    return verdict.replace(" ", "-")


def place(row: Comparison, metric: str = "") -> str:
    """`scenario / toggle`, or `scenario / toggle / metric`; safe for a terminal."""
    names = (row.scenario, row.contrast, metric) if metric else (row.scenario, row.contrast)
    return " / ".join(for_terminal(name, MAX_NAME) for name in names)


def band(source: Source, row: Comparison) -> float:
    """Smallest effect that counts, on the log scale."""
    effect = min_effect(row, source.run.header.metrics[row.metric])
    return math.log1p(min(max(effect, 0.0), 1e6))
