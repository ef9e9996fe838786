"""When a cell needs no more pairs. Pure."""

import math
from collections.abc import Iterable, Mapping

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Cell, Limits, Metric
from trae_bench.model.result import Comparison
from trae_bench.stats.analysis import (
    RowKey,
    key_of_row,
    stops,
)

GIVE_UP = 3
"""A cell closes when its lost pairs outnumber its counted pairs by this many: after the first
three pairs if none works. More of them would waste the budget."""


NOISE_SHARE = 1 / 3
"""Maximum share of the budget for A/A pairs."""


def target(cell: Cell, limits: Limits, metrics: Mapping[str, Metric]) -> int:
    """Maximum number of counted pairs of a cell."""
    noise = cell.contrast.name == NOISE_FLOOR
    last = limits.noise_pairs if noise else max(stops(cell, metrics), default=0)
    return last if limits.pairs is None else min(last, limits.pairs)


def answered(row: Comparison, limits: Limits) -> bool:
    """Whether this row needs no more pairs."""
    if limits.fixed:
        return False
    if limits.precision is None or row.estimate is None or row.estimate.log_ratio is None:
        return row.judgement.settled
    interval = row.estimate.interval
    reach = 2 * math.log1p(limits.precision)
    return interval is not None and interval.high - interval.low <= reach


def asking(rows: Iterable[Comparison], limits: Limits) -> set[RowKey]:
    """Rows that need more pairs. A row without values does not: more pairs have none either."""
    return {
        key_of_row(row) for row in rows if row.estimate is not None and not answered(row, limits)
    }
