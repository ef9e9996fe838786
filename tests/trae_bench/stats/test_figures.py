"""Absolute figures of agents, from the samples that count."""

from collections.abc import Iterator
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trae_bench.runs import honest
from trae_bench.metrics import METRICS
from trae_bench.model.run import AgentUsed
from trae_bench.model.sample import Sample
from trae_bench.stats.figures import CONFIDENCE, MIN_VALUES, figures, median_interval


class Counted(tuple[Sample, ...]):
    """Samples that count how often they are read."""

    times = 0

    def __iter__(self) -> Iterator[Sample]:
        Counted.times += 1
        return super().__iter__()


def test_only_samples_that_count_are_taken_in_one_pass() -> None:
    """A run file of a stranger may have many scenarios, agents and samples."""
    run = honest()
    arms = {sample.arm: f"agent-{number}" for number, sample in enumerate(run.samples)}
    samples = [replace(sample, arm=f"agent {arms[sample.arm]}") for sample in run.samples]
    samples[-1] = replace(samples[-1], correct=False)
    agents = {name: AgentUsed(name, (name,), "0" * 64, "{}") for name in arms.values()}
    header = replace(run.header, agents=agents)
    found = figures(replace(run, header=header, samples=Counted(samples)))
    assert Counted.times == 1
    assert {figure.agent for figure in found} == set(agents)
    for figure in found:
        metric = METRICS[figure.metric]
        counted = [
            sample.metrics[figure.metric]
            for sample in samples
            if sample.arm == f"agent {figure.agent}"
            and sample.pair > 0
            and sample.correct
            and sample.probe == metric.probe
            and (sample.mode == "serial") == (metric.mode == "serial")
            and figure.metric in sample.metrics
        ]
        assert figure.trials == len(counted)
        assert min(counted) <= figure.low <= figure.median <= figure.high <= max(counted)


def test_the_interval_of_few_values_is_their_range() -> None:
    assert median_interval([1, 2, 3]) == (1, 3)
    assert median_interval([1, 2, 3, 4, 5, 6]) == (1, 6)
    # Binomial(20, 1/2) is below 6 with probability 0.0207: the 6th and the 15th value.
    assert median_interval(list(range(1, 21))) == (6, 15)


def coverage(count: int, first: int) -> float:
    """The chance that the median lies within the order statistics `first` and its mirror."""
    return 1 - 2 * sum(comb(count, k) for k in range(first + 1)) / 2**count


@given(st.integers(min_value=MIN_VALUES, max_value=200))
def test_the_interval_is_the_narrowest_with_the_confidence(count: int) -> None:
    low, high = median_interval(list(range(count)))
    assert high == count - 1 - low
    assert coverage(count, int(low)) >= CONFIDENCE
    assert coverage(count, int(low) + 1) < CONFIDENCE


@pytest.mark.parametrize("count", range(1, MIN_VALUES))
def test_few_values_give_their_range(count: int) -> None:
    assert median_interval(list(range(count))) == (0, count - 1)
    assert coverage(count, 0) < CONFIDENCE
