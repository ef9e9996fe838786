"""Where in a line of commits a change arises, from noisy comparisons with the first one. Pure.

Exactly one commit of the line is the first bad one. A comparison of a commit with the good revision
before the line is evidence for "this commit is bad", that is, for every first bad commit up to it.
The posterior over the commits follows by Bayes' rule from a uniform prior, and the next commit to
measure is its median: Horstein, Sequential transmission using noiseless feedback, IEEE Transactions
on Information Theory 9 (1963); Waeber, Frazier, Henderson, Bisection search with noisy responses,
SIAM Journal on Control and Optimization 51 (2013).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate

from msgspec import Struct

MIN_PAIRS, MAX_PAIRS = 2, 12
"""Pairs of one step."""
STEP_EVIDENCE = 3.0
"""Expected log likelihood ratio of one step: odds of 20 to 1."""
MIN_SD_SHARE = 0.02
"""Least standard deviation, as a share of the effect: counts do not vary at all."""
MAX_EVIDENCE = 12.0
"""Largest log likelihood ratio of one commit. No measurement excludes a mistake in the model."""
NOTHING_LEFT = 1e-4
"""A commit that splits off less probability than this is not worth a measurement."""


class Noise(Struct, frozen=True):
    """The scatter of single pairs."""

    sd: float
    df: int


def pooled_noise(groups: Collection[Sequence[float]], effect: float) -> Noise:
    """Return the scatter of pairs around the mean of their own commit."""
    squares, df = 0.0, 0
    for values in groups:
        mean = math.fsum(values) / len(values) if values else 0.0
        squares += math.fsum((value - mean) ** 2 for value in values)
        df += max(0, len(values) - 1)
    least = MIN_SD_SHARE * abs(effect)
    return Noise(max(math.sqrt(squares / df) if df else 0.0, least), max(df, 1))


def evidence(values: Sequence[float], effect: float, noise: Noise) -> float:
    """Log likelihood ratio of "has the effect" against "has none", within `MAX_EVIDENCE`.

    The mean of the values has Student's t distribution around the effect or around 0.
    """
    if not values:
        return 0.0
    mean, error = math.fsum(values) / len(values), noise.sd / math.sqrt(len(values))
    ratio = _log_t((mean - effect) / error, noise.df) - _log_t(mean / error, noise.df)
    return max(-MAX_EVIDENCE, min(MAX_EVIDENCE, ratio))


def _log_t(t: float, df: int) -> float:
    """Logarithm of the density of Student's t, without its constant."""
    return -(df + 1) / 2 * math.log1p(t * t / df)


def posterior(count: int, found: Mapping[int, float]) -> list[float]:
    """Return the probability of each of `count` commits to be the first bad one.

    `found` has the evidence that a commit is bad, by its place in the line.
    """
    # The evidence at a place counts for every first bad commit up to that place.
    own = [found.get(place, 0.0) for place in range(count)]
    logs = list(accumulate(reversed(own)))[::-1]
    top = max(logs)
    weights = [math.exp(one - top) for one in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def next_commit(chances: Sequence[float], skipped: Collection[int]) -> int | None:
    """Return the place whose measurement tells most; None if none tells anything.

    The last commit is known to be bad, and skipped ones cannot be measured.
    """
    below = list(accumulate(chances))[:-1]
    testable = {
        place: share
        for place, share in enumerate(below)
        if place not in skipped and NOTHING_LEFT < share < 1 - NOTHING_LEFT
    }
    return min(testable, key=lambda place: abs(testable[place] - 0.5), default=None)


def likely(chances: Sequence[float], confidence: float) -> list[int]:
    """Return the fewest places, in order, that together have this probability."""
    ordered = sorted(range(len(chances)), key=lambda place: -chances[place])
    total, kept = 0.0, []
    for place in ordered:
        kept.append(place)
        total += chances[place]
        if total >= confidence:
            break
    return sorted(kept)


def pairs_for(effect: float, noise: Noise) -> int:
    """Return how many pairs a step takes so that it is expected to give `STEP_EVIDENCE`."""
    needed = 2 * STEP_EVIDENCE * (noise.sd / effect) ** 2
    return max(MIN_PAIRS, min(MAX_PAIRS, math.ceil(needed)))


def steps_left(chances: Sequence[float]) -> float:
    """Return about how many steps are left, from the entropy of the posterior."""
    entropy = -math.fsum(chance * math.log2(chance) for chance in chances if chance)
    # A step with odds of 20 to 1 gives 0.71 bits of the possible one.
    return entropy / 0.71
