"""Tests regressions again on fresh pairs, which are independent of the first ones. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from trae_bench.model.experiment import Cell
from trae_bench.model.result import Comparison, Confirmation, Verdict
from trae_bench.stats.decision import Row, estimate, fit_row, max_ignored
from trae_bench.stats.pairs import (
    PairOfSamples,
    RowKey,
    count_outcomes,
    key_of_row,
    paired_values,
    row_keys,
)
from trae_bench.stats.student_t import t_tail

CONFIRMATION_ALPHA = 0.05
"""Largest one-sided p-value at which fresh pairs confirm a regression. Their mean effect must
also reach half of the threshold."""


def regressions_to_confirm(rows: Iterable[Comparison]) -> dict[RowKey, int]:
    """Rows with a regression, and the number of fresh pairs that each one needs."""
    return {
        key_of_row(row): row.confirmation.wanted for row in rows if row.confirmation is not None
    }


def fresh_pairs_for(cell: Cell, regressions: Mapping[RowKey, int]) -> int:
    """Fresh pairs that this cell must take to confirm `regressions`; 0 if there are none."""
    if not cell.confirms:
        return 0
    return max((regressions.get(key, 0) for key in row_keys(cell)), default=0)


def confirmed(
    row: Comparison, rows: Mapping[RowKey, Row], fresh: Mapping[RowKey, Sequence[PairOfSamples]]
) -> Comparison:
    """The row with its confirmation; a gated regression without one becomes inconclusive.

    `fresh` holds the fresh pairs of each row that asks for confirmation.
    """
    key = key_of_row(row)
    if key not in fresh or not row.gated or row.judgement.verdict != "regression":
        return row
    first, needed = rows[key], row.judgement.look
    a, b = paired_values(fresh[key], row.metric)
    again = replace(first, a=tuple(a[:needed]), b=tuple(b[:needed]))
    p = _p_slower(again) if len(again.a) == needed else 1.0
    # Constant counts are compared exactly: any difference confirms.
    min_effect = 0.0 if needed == first.rule.exact_at else math.log1p(row.threshold) / 2
    effect = estimate(again)
    large = effect is None or effect.log_ratio is None or abs(effect.log_ratio) >= min_effect
    stands = p <= CONFIRMATION_ALPHA and large
    confirmation = Confirmation(stands, needed, p, effect, count_outcomes(fresh[key]))
    verdict: Verdict = "regression" if stands else "inconclusive"
    judgement = replace(row.judgement, verdict=verdict)
    return replace(row, judgement=judgement, confirmation=confirmation)


def _p_slower(row: Row) -> float:
    """One-sided p-value of no slowdown, from all pairs of a row."""
    sign = 1 if row.better == "lower" else -1
    fit = fit_row(row, len(row.a))
    if fit is None or not fit.error or len(row.a) == row.rule.exact_at:
        # There is no t statistic: all pairs must show the slowdown.
        differences = [sign * (b - a) for a, b in zip(row.a, row.b, strict=True)]
        return 0.0 if min(differences) > max_ignored(row) else 1.0
    return t_tail(sign * fit.mean / fit.error, fit.df)
