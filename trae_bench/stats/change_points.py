"""Where the level of a series of measurements changes, if each has a known error. Pure.

E-divisive finds the split of a segment that makes the energy distance of its two sides largest,
tests it by permutation, and goes on with both sides: Matteson, James, A nonparametric approach for
multiple change point analysis of multivariate data, JASA 109 (2014); for the results of benchmarks:
Daly et al., The use of change point detection to identify software performance regressions in a
continuous integration system, ICPE 2020.

It differs from the paper in three points. A point counts by the inverse of its variance. The
permutation exchanges residuals in units of their own error, so a noisy stretch of the series is no
change; with equal errors this is the permutation of the paper. Each segment is tested by itself.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from operator import add
from random import Random
from statistics import median
from typing import NamedTuple

from msgspec import Struct

LEVEL = 0.01
"""Largest p-value of a change."""
PERMUTATIONS = 199
FEWEST = 10
"""Points of a series that can show a change: permutations of fewer reach no p-value of `LEVEL`."""
MIN_POINTS = 2
"""Fewest points between two changes."""
MIN_ERROR = 1e-4
"""Least error of a point: counts do not vary at all. On a log scale it is 0.01 %."""
COVERAGE = 0.95
"""Probability of the places among which a change is."""
_CHI2_MEDIAN = 0.4549364
"""Median of the chi-square distribution with one degree of freedom."""


class Level(Struct, frozen=True):
    """The level of the points between two changes."""

    mean: float
    error: float
    """Standard error of the mean."""


class Change(Struct, frozen=True):
    """A change of the level."""

    place: int
    """The most likely first point of the new level."""
    first: int
    last: int
    """The first point of the new level is one of `first` to `last`, with 95 % probability."""
    before: Level
    after: Level
    p: float
    """Of the permutation test; at least 1 / (`PERMUTATIONS` + 1)."""

    @property
    def size(self) -> float:
        return self.after.mean - self.before.mean


class Split(NamedTuple):
    """The best split of a segment."""

    statistic: float
    place: int
    """Number of points before it; 0 if the segment is too short to split."""


def change_points(
    values: Sequence[float], errors: Sequence[float], *, level: float = LEVEL, seed: int = 0
) -> list[Change]:
    """Return the changes of a series in order. The same input gives the same result.

    `errors` are standard errors. Raises `ValueError` if the sequences differ in length.
    """
    if len(values) != len(errors):
        raise ValueError(f"{len(values)} values but {len(errors)} errors")
    sigmas = scatter(values, errors)
    found = dict(_divide(values, sigmas, 0, len(values), level, Random(seed)))
    ends = [0, *sorted(found), len(values)]
    return [
        _located(values, sigmas, ends[number - 1 : number + 2], found[place])
        for number, place in enumerate(ends[1:-1], start=1)
    ]


def scatter(values: Sequence[float], errors: Sequence[float]) -> list[float]:
    """Return the standard deviation of each point around its level.

    Points scatter more than their own errors say: each build has another memory layout. This part
    is the same for all points. It comes from the differences of neighbours, by their median, which
    changes of the level do not move.
    """
    known = [max(error, MIN_ERROR) ** 2 for error in errors]
    steps = [
        ((b - a) ** 2, v + w)
        for (a, b), (v, w) in zip(pairwise(values), pairwise(known), strict=True)
    ]
    common = _common_variance(steps) if len(steps) > 1 else 0.0
    return [math.sqrt(variance + common) for variance in known]


def _common_variance(steps: Sequence[tuple[float, float]]) -> float:
    """The variance at which the squared differences have the median that they should have."""

    def excess(common: float) -> float:
        return median(square / (known + 2 * common) for square, known in steps) - _CHI2_MEDIAN

    low, high = 0.0, max(square for square, _ in steps)
    if excess(low) <= 0:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


# -- the search -------------------------------------------------------------------------


def _divide(
    values: Sequence[float],
    sigmas: Sequence[float],
    start: int,
    end: int,
    level: float,
    random: Random,
) -> Iterator[tuple[int, float]]:
    """Yield the place and the p-value of each change of a segment."""
    segment = Segment(sigmas[start:end])
    split = segment.best_split(values[start:end])
    if not split.place:
        return
    p = _p_value(segment, values[start:end], split.statistic, level, random)
    if p > level:
        return
    place = start + split.place
    yield place, p
    yield from _divide(values, sigmas, start, place, level, random)
    yield from _divide(values, sigmas, place, end, level, random)


def _p_value(
    segment: "Segment", values: Sequence[float], found: float, level: float, random: Random
) -> float:
    """The share of permutations with a larger statistic.

    It stops when the p-value can only be above the level: Besag, Clifford, Sequential Monte Carlo
    p-values, Biometrika 78 (1991).
    """
    sigmas = segment.sigmas
    center = _level(values, sigmas).mean
    residuals = [(value - center) / sigma for value, sigma in zip(values, sigmas, strict=True)]
    # Rounding must not make a permutation that changes nothing look smaller.
    least = found * (1 - 1e-9)
    reached = 0
    for _ in range(PERMUTATIONS):
        random.shuffle(residuals)
        drawn = [center + sigma * one for sigma, one in zip(sigmas, residuals, strict=True)]
        reached += segment.best_split(drawn).statistic >= least
        if (reached + 1) / (PERMUTATIONS + 1) > level:
            break
    return (reached + 1) / (PERMUTATIONS + 1)


class Segment:
    """Points between two changes, with what depends on their errors and not on their values."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = sigmas
        least = min(sigmas, default=1.0)
        self._weights = [(least / sigma) ** 2 for sigma in sigmas]
        total = list(accumulate(self._weights, initial=0.0))
        squares = list(accumulate((weight**2 for weight in self._weights), initial=0.0))
        self._factors = [
            [_factors(total, squares, place, end) for end in self._ends(place)]
            for place in self._places
        ]

    @property
    def _places(self) -> range:
        return range(MIN_POINTS, len(self.sigmas) - MIN_POINTS + 1)

    def _ends(self, place: int) -> range:
        return range(place + MIN_POINTS, len(self.sigmas) + 1)

    def best_split(self, values: Sequence[float]) -> Split:
        """Return the split with the largest energy statistic.

        Its right side ends at the end of the segment or before, so that a second change does not
        hide the first.
        """
        distances = self._distances(values)
        best = Split(0.0, 0)
        for place, factors in zip(self._places, self._factors, strict=True):
            whole, left = distances[0][place + MIN_POINTS :], distances[0][place]
            right = distances[place][MIN_POINTS:]
            statistic = max(
                a * (both - left) - b * inner - c * left
                for both, inner, (a, b, c) in zip(whole, right, factors, strict=True)
            )
            if statistic > best.statistic:
                best = Split(statistic, place)
        return best

    def _distances(self, values: Sequence[float]) -> list[list[float]]:
        """The weighted distances within the points from a place on, by place and by their number.

        Distances within more points are those within the points after the first, and of the first.
        """
        found = [[0.0]]
        for place in range(len(values) - 1, -1, -1):
            value, weight = values[place], self._weights[place]
            own = accumulate(
                (
                    weight * w * abs(value - v)
                    for v, w in zip(values[place + 1 :], self._weights[place + 1 :], strict=True)
                ),
                initial=0.0,
            )
            found.append([0.0, *map(add, found[-1], own)])
        return found[::-1]


def _factors(
    total: Sequence[float], squares: Sequence[float], place: int, end: int
) -> tuple[float, float, float]:
    """Factors of the distances between both sides, within the right one, and within the left one.

    The statistic is `xy / (x + y) * (2 * cross / xy - right / pairs - left / pairs)`, where x and y
    are the weights of both sides, and `pairs` the products of two different weights of one side.
    """
    x, y = total[place], total[end] - total[place]
    both = x * y / (x + y)
    cross = 2 / (x + y)
    right = both / _pairs(y, squares[end] - squares[place])
    return cross, cross + right, both / _pairs(x, squares[place])


def _pairs(total: float, squares: float) -> float:
    """The sum of the products of two different weights."""
    return (total * total - squares) / 2


# -- what was found ---------------------------------------------------------------------


def _located(
    values: Sequence[float], sigmas: Sequence[float], ends: Sequence[int], p: float
) -> Change:
    """The change between two others, with the places that it can have."""
    start, _, end = ends
    chances = _chances(values[start:end], sigmas[start:end])
    order = sorted(chances, key=lambda place: -chances[place])
    kept: list[int] = []
    while math.fsum(chances[place] for place in kept) < COVERAGE and len(kept) < len(order):
        kept.append(order[len(kept)])
    place = start + order[0]
    return Change(
        place=place,
        first=start + min(kept),
        last=start + max(kept),
        before=_level(values[start:place], sigmas[start:place]),
        after=_level(values[place:end], sigmas[place:end]),
        p=p,
    )


def _chances(values: Sequence[float], sigmas: Sequence[float]) -> dict[int, float]:
    """The probability of each place of one change, with normal errors and a uniform prior."""
    losses = {
        place: _loss(values[:place], sigmas[:place]) + _loss(values[place:], sigmas[place:])
        for place in range(1, len(values))
    }
    least = min(losses.values())
    likelihoods = {place: math.exp((least - loss) / 2) for place, loss in losses.items()}
    total = math.fsum(likelihoods.values())
    return {place: one / total for place, one in likelihoods.items()}


def _loss(values: Sequence[float], sigmas: Sequence[float]) -> float:
    center = _level(values, sigmas).mean
    return math.fsum(((v - center) / s) ** 2 for v, s in zip(values, sigmas, strict=True))


def _level(values: Sequence[float], sigmas: Sequence[float]) -> Level:
    weights = [sigma**-2 for sigma in sigmas]
    total = math.fsum(weights)
    mean = math.fsum(v * w for v, w in zip(values, weights, strict=True)) / total
    return Level(mean, total**-0.5)
