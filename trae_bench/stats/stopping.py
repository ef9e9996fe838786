"""When a cell needs no more pairs. Pure.

The scheduler asks this before each pair, and `verify` asks it of a finished run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import HEAD
from trae_bench.model.experiment import Cell, Limits, Metric
from trae_bench.model.result import Comparison, Estimate
from trae_bench.model.sample import Sample
from trae_bench.stats.decision import margin_at
from trae_bench.stats.metric_rules import default_threshold, metric_minimum, rule_of, stops
from trae_bench.stats.pairs import RowKey, key_of_row
from trae_bench.stats.student_t import t_quantile

GIVE_UP = 3
"""A cell closes when its lost pairs outnumber its counted pairs by this many: after the first
three pairs if none works. More of them would waste the budget."""

NOISE_SHARE = 1 / 3
"""Maximum share of the budget for A/A pairs."""

MIN_CHANCE = 0.2
"""A row takes no more pairs if the chance that it is settled at its last look is below this."""

FOLLOW_UP = 20
"""Counted pairs that head takes at least if one pair was lost. The gate tolerates a single one.
Among the eight pairs of the first look, that would often pass an agent that fails in one run of
five."""


def target(cell: Cell, limits: Limits, metrics: Mapping[str, Metric]) -> int:
    """Maximum number of counted pairs of a cell."""
    noise = cell.contrast.name == NOISE_FLOOR
    last = limits.noise_pairs if noise else max(stops(cell, metrics), default=0)
    return last if limits.pairs is None else min(last, limits.pairs)


def asking(
    rows: Sequence[Comparison], limits: Limits, metrics: Mapping[str, Metric]
) -> set[RowKey]:
    """The rows that need more pairs. A row without values does not: more pairs have none either."""
    family = family_of(rows)
    return {
        key_of_row(row)
        for row in rows
        if row.estimate is not None
        and (
            is_suspect(row, limits)
            or (
                not answered(row, limits)
                and not is_hopeless(row, limits, metrics[row.metric], family)
            )
        )
    }


def is_suspect(row: Comparison, limits: Limits) -> bool:
    """Whether head lost one pair, so that more pairs must show how often that happens."""
    lost = row.pairs.answers_differ + row.pairs.not_measured
    verdicts_stop_it = not limits.fixed and limits.precision is None
    return (
        row.contrast == HEAD and verdicts_stop_it and lost == 1 and row.pairs.measured < FOLLOW_UP
    )


def answered(row: Comparison, limits: Limits) -> bool:
    """Whether this row has its answer: a verdict or, if asked for, a precise interval."""
    if limits.fixed:
        return False
    if limits.precision is None or row.estimate is None or row.estimate.log_ratio is None:
        return row.judgement.settled
    interval = row.estimate.interval
    width = 2 * math.log1p(limits.precision)
    return interval is not None and interval.high - interval.low <= width


# -- futility ---------------------------------------------------------------------------


def is_hopeless(row: Comparison, limits: Limits, metric: Metric, family: int) -> bool:
    """Whether more pairs of a row would very likely be wasted: see `settling_chance`."""
    if limits.fixed or limits.precision is not None or row.judgement.settled:
        return False
    chance = settling_chance(row, limits, metric, family)
    return chance is not None and chance < MIN_CHANCE


def settling_chance(row: Comparison, limits: Limits, metric: Metric, family: int) -> float | None:
    """The probability that a row gets a verdict at its last look, if its effect is as estimated.

    None before the first look, and if no look is left. This is the conditional power under the
    current trend of Lan, Simon and Halperin (Stochastically curtailed tests in long-term clinical
    trials, Sequential Analysis 1, 1982), with the observed variance taken as known. Stopping for
    futility only removes verdicts, so it cannot add false ones.
    """
    rule, estimate = rule_of(metric), row.estimate
    last = max(rule.looks_within(limits.pairs), default=0)
    if estimate is None or estimate.log_ratio is None or not rule.looks[0] <= estimate.n < last:
        return None
    error = estimate.sd / math.sqrt(last)
    df = rule.df(last)
    different = max(math.log1p(row.threshold), t_quantile(rule.level / max(family, 1), df) * error)
    margin = math.log1p(_margin(estimate, metric))
    equivalent = margin - t_quantile(rule.equivalence_level, df) * error
    # The mean at the last look: only the pairs that are still to come vary.
    spread = estimate.sd * math.sqrt(last - estimate.n) / last
    if not spread:
        return 1.0
    mean = NormalDist(estimate.log_ratio, spread)
    chance = 1 - mean.cdf(different) + mean.cdf(-different)
    if equivalent > 0:
        chance += mean.cdf(min(equivalent, different)) - mean.cdf(-min(equivalent, different))
    return min(1.0, chance)


def _margin(estimate: Estimate, metric: Metric) -> float:
    """Equivalence margin (a fraction), from the medians of the pairs so far."""
    own, smaller_side = default_threshold(metric), min(estimate.a, estimate.b)
    if smaller_side > 0:
        own = max(own, metric_minimum(metric) / smaller_side)
    return margin_at(own, rule_of(metric))


def family_of(rows: Iterable[Comparison]) -> int:
    """The number of gated rows, without A/A rows."""
    return sum(row.gated and row.contrast != NOISE_FLOOR for row in rows)


# -- time -------------------------------------------------------------------------------


def seconds_taken(samples: Iterable[Sample]) -> float:
    """Roughly how long these samples took. The sides of a duet ran at the same time."""
    walls = [(sample.mode, sample.metrics.get("wall", 0.0)) for sample in samples]
    if any(mode == "duet" for mode, _ in walls):
        return max((wall for _, wall in walls), default=0.0)
    return sum(wall for _, wall in walls)
