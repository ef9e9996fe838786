"""Absolute figures of each agent: the median of a metric, with its confidence interval. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import comb

from msgspec import Struct

from trae_bench.design.plan import agent_arm
from trae_bench.model.experiment import Metric
from trae_bench.model.run import RunFile, agent_names
from trae_bench.model.sample import Sample

CONFIDENCE = 0.95
MIN_VALUES = 6
"""Fewer values have no interval of the median with that confidence; their range is given."""


class Figure(Struct, frozen=True):
    """One metric of one agent in one scenario, in the metric's unit."""

    scenario: str
    agent: str
    metric: str
    median: float
    low: float
    high: float
    """The interval that contains the true median with 95 % confidence; see `median_interval`."""
    trials: int


def figures(run: RunFile) -> list[Figure]:
    """The figures of all agents of a run, in the order of its scenarios, agents and metrics.

    Only correct trials count, and of these only such of the metric's mode. The warm-up pair does
    not count.
    """
    header = run.header
    # Grouped first: a run file may have many scenarios, agents and samples.
    counted: dict[_Group, list[Sample]] = defaultdict(list)
    for sample in run.samples:
        if sample.pair > 0 and sample.correct:
            group = (sample.scenario, sample.arm, sample.probe, sample.mode == "serial")
            counted[group].append(sample)
    return [
        _figure(scenario, agent, metric.name, sorted(values))
        for scenario, used in header.scenarios.items()
        for agent in agent_names(header)
        for metric in (header.metrics[name] for name in used.metrics)
        if (values := _values(counted.get(_group(scenario, agent, metric), ()), metric.name))
    ]


_Group = tuple[str, str, str, bool]


def _group(scenario: str, agent: str, metric: Metric) -> _Group:
    """Scenario, arm, probe, and whether the pairs are serial, of the samples with a metric."""
    return scenario, agent_arm(agent).name, metric.probe, metric.mode == "serial"


def _values(samples: Iterable[Sample], metric: str) -> list[float]:
    return [sample.metrics[metric] for sample in samples if metric in sample.metrics]


def _figure(scenario: str, agent: str, metric: str, ordered: Sequence[float]) -> Figure:
    middle = len(ordered) // 2
    median = (ordered[middle] + ordered[-middle - 1]) / 2
    low, high = median_interval(ordered)
    return Figure(scenario, agent, metric, median, low, high, len(ordered))


def median_interval(ordered: Sequence[float]) -> tuple[float, float]:
    """The distribution-free confidence interval of the median, from sorted values.

    The number of values below the median is binomial with p = 1/2, so order statistics bound it
    (Conover, Practical Nonparametric Statistics, 3rd edition, 1999, section 3.2). Fewer than six
    values reach no 95 %; the interval is then their whole range.
    """
    count = len(ordered)
    # The largest k for which P(X < k) is at most half of what the confidence leaves.
    k, below = 0, 0.0
    while (below := below + comb(count, k) / 2**count) <= (1 - CONFIDENCE) / 2:
        k += 1
    first = max(k - 1, 0)
    return ordered[first], ordered[-first - 1]
