"""A run as the page takes it, and how its rows are named and worded everywhere on the page."""

import math
from collections.abc import Sequence
from functools import cached_property

from trae_bench.model.result import Comparison, Verdict
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import cells_of, least_counted
from trae_bench.stats.pairs import CellKey, PairOfSamples, RowKey, group_samples, key_of, key_of_row
from trae_bench.verdicts import claims

MAX_NAME = 60
"""Characters of a name."""
ORDER: tuple[Verdict, ...] = (
    "regression",
    "improvement",
    "equivalent",
    "inconclusive",
    "not measured",
)
"""The most urgent first."""
OPEN = "open"
"""Kind of a row whose verdict is not claimed."""

NumberedPairs = Sequence[tuple[int, PairOfSamples]]


class Source(claims.Source, frozen=True, dict=True):
    """A run to show."""

    @cached_property
    def cells(self) -> dict[RowKey, CellKey]:
        """In which cell each row was sampled."""
        return {
            RowKey(cell.scenario, cell.contrast.name, metric): key_of(cell)
            for cell in self.run.header.cells
            for metric in cell.metrics
        }

    @cached_property
    def pairs(self) -> dict[CellKey, NumberedPairs]:
        """Pairs that could count, in their order: pair 0 only warms the machine."""
        return {
            key: [(number, pair) for number, pair in sorted(of_cell.items()) if number > 0]
            for key, of_cell in group_samples(self.run.samples).items()
        }

    def cell_of(self, row: Comparison) -> CellKey | None:
        """None for a row that the plan does not have: a file may say anything."""
        return self.cells.get(key_of_row(row))

    def pairs_of(self, row: Comparison) -> NumberedPairs:
        key = self.cell_of(row)
        return self.pairs.get(key, ()) if key else ()

    def texts(self, row: Comparison) -> tuple[str, ...]:
        """The row in words: metric, both sides, ratio, interval, saved, verdict."""
        return cells_of(row, self.run.header.metrics[row.metric], self.judged)

    def kind(self, row: Comparison) -> str:
        """The row's verdict as a class of the style sheet."""
        claimed = self.judged or row.estimate is None
        return row.judgement.verdict.replace(" ", "-") if claimed else OPEN


def place(row: Comparison, metric: str = "") -> str:
    names = (row.scenario, row.contrast, metric) if metric else (row.scenario, row.contrast)
    return " / ".join(for_terminal(name, MAX_NAME) for name in names)


def band(source: Source, row: Comparison) -> float:
    """Smallest effect that counts, on the log scale."""
    least = least_counted(row, source.run.header.metrics[row.metric])
    return math.log1p(min(max(least, 0.0), 1e6))
