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
"""A cell is closed where its lost pairs outnumber the counted ones by this, so after the first
three if none works: more of them would burn the budget."""


NOISE_SHARE = 1 / 3
"""Of the budget, at most this goes into A/A pairs."""


def target(cell: Cell, limits: Limits, metrics: Mapping[str, Metric]) -> int:
    """Counted pairs that this cell takes at most."""
    noise = cell.contrast.name == NOISE_FLOOR
    last = limits.noise_pairs if noise else max(stops(cell, metrics), default=0)
    return last if limits.pairs is None else min(last, limits.pairs)


def answered(row: Comparison, limits: Limits) -> bool:
    """This row asks for no more pairs."""
    if limits.fixed:
        return False
    if limits.precision is None or row.estimate is None or row.estimate.log_ratio is None:
        return row.judgement.settled
    interval = row.estimate.interval
    reach = 2 * math.log1p(limits.precision)
    return interval is not None and interval.high - interval.low <= reach


def asking(rows: Iterable[Comparison], limits: Limits) -> set[RowKey]:
    """Rows that ask for more pairs. One without any value does not: more pairs have none either."""
    return {
        key_of_row(row) for row in rows if row.estimate is not None and not answered(row, limits)
    }
