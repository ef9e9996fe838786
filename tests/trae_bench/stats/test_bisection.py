"""The posterior of a noisy bisection, against Bayes' rule written out, and by simulation."""

import math
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.stats.bisection import (
    MAX_EVIDENCE,
    MAX_PAIRS,
    MIN_PAIRS,
    Noise,
    evidence,
    likely,
    next_commit,
    pairs_for,
    pooled_noise,
    posterior,
    steps_left,
)

EVIDENCE = st.floats(-MAX_EVIDENCE, MAX_EVIDENCE)


@given(st.integers(1, 12), st.dictionaries(st.integers(0, 11), EVIDENCE))
def test_posterior_is_bayes_rule(count: int, found: dict[int, float]) -> None:
    found = {place: value for place, value in found.items() if place < count}
    # A commit is bad if it is at or after the first bad one.
    likelihoods = [
        math.prod(math.exp(value) for place, value in found.items() if place >= first)
        for first in range(count)
    ]
    expected = [one / math.fsum(likelihoods) for one in likelihoods]
    assert posterior(count, found) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.slow
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_evidence_is_that_of_a_t_distribution(values: list[float], sd: float) -> None:
    scipy = pytest.importorskip("scipy.stats")
    noise, effect = Noise(sd, 7), 0.1
    mean, error = math.fsum(values) / len(values), sd / math.sqrt(len(values))
    expected = scipy.t.logpdf(mean, 7, effect, error) - scipy.t.logpdf(mean, 7, 0.0, error)
    limited = max(-MAX_EVIDENCE, min(MAX_EVIDENCE, expected))
    assert evidence(values, effect, noise) == pytest.approx(limited, abs=1e-9)


def test_evidence_points_to_the_nearer_effect() -> None:
    noise = Noise(0.02, 20)
    assert evidence([0.05, 0.05], 0.05, noise) > 3
    assert evidence([0.0, 0.0], 0.05, noise) < -3
    assert evidence([0.025], 0.05, noise) == pytest.approx(0)
    assert evidence([-0.05, -0.05], -0.05, noise) > 3
    assert evidence([], 0.05, noise) == 0


def test_noise_is_pooled_within_commits() -> None:
    assert pooled_noise([[1.0, 3.0], [10.0, 12.0]], 0.1) == Noise(math.sqrt(2.0), 2)
    # Counts do not vary, and one pair says nothing of the scatter.
    assert pooled_noise([[5.0, 5.0], [7.0]], 0.5) == Noise(0.01, 1)
    assert pooled_noise([[]], -1.0) == Noise(0.02, 1)


def test_next_commit_is_the_median_that_can_be_measured() -> None:
    even = [0.125] * 8
    assert next_commit(even, set()) == 3
    assert next_commit(even, {3}) in (2, 4)
    assert next_commit(even, set(range(7))) is None
    assert next_commit([1.0], set()) is None
    # What is almost certain is not measured again.
    assert next_commit([0.0, 0.99999, 0.00001], set()) is None


def test_likely_is_the_smallest_set() -> None:
    assert likely([0.1, 0.6, 0.3], 0.5) == [1]
    assert likely([0.1, 0.6, 0.3], 0.85) == [1, 2]
    assert likely([0.1, 0.6, 0.3], 1.0) == [0, 1, 2]


@given(st.floats(0.001, 1), st.floats(0.0001, 1))
def test_pairs_of_a_step_are_within_limits(effect: float, sd: float) -> None:
    assert MIN_PAIRS <= pairs_for(effect, Noise(sd, 10)) <= MAX_PAIRS
    assert pairs_for(effect, Noise(sd, 10)) == pairs_for(-effect, Noise(sd, 10))


def test_a_known_commit_leaves_no_step() -> None:
    assert steps_left([0.0, 1.0]) == 0
    assert steps_left([0.25] * 4) > 2


@pytest.mark.parametrize(("effect", "sd"), list(product([0.03, 0.05], [0.01, 0.02])))
def test_searches_find_the_commit(effect: float, sd: float) -> None:
    """A wrong end has a probability of at most 1 %; 60 searches allow 3 (p < 0.01 for 4)."""
    random, wrong = Random(7), 0
    for _ in range(60):
        truth = random.randrange(40)
        values: dict[int, list[float]] = {}
        gate = [random.gauss(effect, sd) for _ in range(8)]
        for _ in range(60):
            noise = pooled_noise([*values.values(), gate], effect)
            chances = posterior(40, {p: evidence(v, effect, noise) for p, v in values.items()})
            place = next_commit(chances, set())
            if place is None or max(chances) >= 0.99:
                break
            true = effect if place >= truth else 0.0
            new = [random.gauss(true, sd) for _ in range(pairs_for(effect, noise))]
            values.setdefault(place, []).extend(new)
        wrong += chances.index(max(chances)) != truth
    assert wrong <= 3
