"""Decision rule, threshold and minimum difference of each metric. Pure."""

from collections.abc import Mapping

from trae_bench.model.experiment import Cell, Metric
from trae_bench.model.result import Rule
from trae_bench.stats.decision import RULES

MIN_DIFFERENCES: Mapping[str, float] = {"blocked": 0.005, "peak_tree": 262144.0} | dict.fromkeys(
    ("peak_rss", "agent_rss", "uss_start", "uss_end", "memory_growth", "memory_per_hour"), 65536.0
)
"""Differences up to this, in the metric's unit, count as none: the allocator, the scheduler and the
sampling cause them."""

MEMORY = frozenset({"peak_rss", "agent_rss", "uss_start", "uss_end", "python_peak", "python_held"})
"""Metrics of held memory or of its peak."""

THRESHOLDS: Mapping[str, float] = dict.fromkeys(MEMORY, 0.01)
"""Thresholds (fractions) that replace the rule's: memory has less noise than CPU time."""


def rule_of(metric: Metric) -> Rule:
    """The rule that judges this metric."""
    return RULES[metric.mode]


def stops(cell: Cell, metrics: Mapping[str, Metric]) -> tuple[int, ...]:
    """Numbers of counted pairs at which a row of this cell may be settled."""
    return tuple(sorted({n for name in cell.metrics for n in rule_of(metrics[name]).stops}))


def first_look(cell: Cell, metrics: Mapping[str, Metric]) -> int:
    """Number of counted pairs at which every row of this cell can have a verdict."""
    return max((rule_of(metrics[name]).stops[0] for name in cell.metrics), default=0)


def metric_threshold(metric: Metric) -> float:
    """Smallest effect (a fraction) of this metric that gets a verdict.

    A requested threshold (`metric.threshold`) can only raise the default one.
    """
    return max(default_threshold(metric), metric.threshold or 0.0)


def default_threshold(metric: Metric) -> float:
    """Threshold (a fraction) of this metric without settings. The margin depends on it only."""
    # Noise does not raise it: the equivalence margin would move along, and on a noisy machine
    # every row would be equivalent. Effects below the noise stay inconclusive.
    return THRESHOLDS.get(metric.name, rule_of(metric).threshold)


def metric_minimum(metric: Metric) -> float:
    """Largest difference, in the metric's unit, that counts as none."""
    return MIN_DIFFERENCES.get(metric.name, 0.0)
