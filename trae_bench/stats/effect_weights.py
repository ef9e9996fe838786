"""Weights that turn the means of contrasts into effects of toggles. Pure.

An effect is a weighted sum of the contrasts' mean log ratios, w1 y1 + w2 y2 + .... The weights
depend on the design:

- In a one-factor-at-a-time design each contrast that switches one toggle is an effect itself.
- In a two-level design, whose runs are all compared with one baseline, the weights are those of
  ordinary least squares. The model has a constant, one column of -1 and +1 for each toggle, and
  one for each pair of toggles. The baseline is the run with a log ratio of 0. In a full
  factorial the columns are orthogonal, and the result is the table of contrasts of Box, Hunter
  and Hunter (Statistics for Experimenters, 2nd ed. 2005, chapters 5 and 6). Pairs with the same
  column are confounded (aliased).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from msgspec import Struct

MAX_FIT_OPERATIONS = 5_000_000
"""Bound on columns squared times runs of all least-squares fits of a run, about a second. The full
factorial of ten toggles has 3.2 million. Untrusted files may name any number of toggles."""

MAX_INTERACTION_OPERATIONS = 200_000
"""Bound on pairs of toggles times contrasts, summed over all metrics of a run: a few seconds. The
full factorial of ten toggles has 46,000 for each metric."""

Weights = tuple[float, ...]
"""One weight per measured contrast."""
Pair = tuple[str, str]
"""Two toggles."""


class ContrastEstimate(Struct, frozen=True):
    """Mean log ratio of one contrast, with the toggles that are on in A and in B."""

    a: frozenset[str]
    b: frozenset[str]
    mean: float
    error: float
    """Standard error of the mean."""
    df: float
    """Degrees of freedom; 0 if there is one pair only, so that the error is unknown."""
    pairs: int


class EffectWeights(Struct, frozen=True):
    """Weights of each effect. Toggles whose effect cannot be estimated are left out."""

    alone: Mapping[str, Weights]
    last: Mapping[str, Weights]
    mean: Mapping[str, Weights]
    pairs: Mapping[tuple[Pair, ...], Weights]
    """Interactions as textbooks define them: half of `Interaction.change`."""
    whole: Weights | None
    """All toggles on against none."""


class Fits:
    """The least-squares fits of one run. All metrics of a scenario usually share one."""

    def __init__(self) -> None:
        self.operations = 0
        """Columns squared times runs, summed over all fits."""
        self.interactions = 0
        """Pairs of toggles times contrasts, summed over all metrics."""
        self._weights: dict[tuple[object, ...], EffectWeights | None] = {}

    def weights(
        self, contrasts: Sequence[ContrastEstimate], factors: Sequence[str]
    ) -> EffectWeights | None:
        """None if the contrasts do not allow a fit, or it would exceed a limit of the run."""
        interactions = math.comb(len(factors), 2) * len(contrasts)
        if self.interactions + interactions > MAX_INTERACTION_OPERATIONS:
            return None
        self.interactions += interactions
        key = (tuple(factors), *((contrast.a, contrast.b) for contrast in contrasts))
        if key not in self._weights:
            columns = 1 + math.comb(len(factors) + 1, 2)
            operations = columns**2 * len(contrasts)
            fits = self.operations + operations <= MAX_FIT_OPERATIONS
            self.operations += operations if fits else 0
            self._weights[key] = _fitted(contrasts, factors) if fits else None
        return self._weights[key]


def effect_weights(
    contrasts: Sequence[ContrastEstimate], factors: Sequence[str], fits: Fits | None = None
) -> EffectWeights:
    """Least-squares weights if the contrasts form a two-level design, else direct ones.

    `fits` holds the fits of the same run so far.
    """
    fits = fits or Fits()
    return fits.weights(contrasts, factors) or _direct(contrasts, factors)


def combined(*terms: tuple[float, Weights | None]) -> Weights | None:
    """Sum of weights, each times a factor; None if one of them is None."""
    known = [(factor, weights) for factor, weights in terms if weights is not None]
    if not known or len(known) < len(terms):
        return None
    columns = zip(*(weights for _, weights in known), strict=True)
    factors = [factor for factor, _ in known]
    sums = (math.fsum(f * w for f, w in zip(factors, ws, strict=True)) for ws in columns)
    # A weight that is 0 by design must not become a tiny share of a contrast by rounding.
    return tuple(0.0 if abs(total) < 1e-9 else total for total in sums)


# One factor at a time


def _direct(contrasts: Sequence[ContrastEstimate], factors: Sequence[str]) -> EffectWeights:
    """Each contrast that switches one toggle is an effect."""
    none, full = frozenset[str](), frozenset(factors)
    alone = {f: w for f in factors if (w := _select(contrasts, none, frozenset({f})))}
    # With a single toggle, `alone` and `last` are the same contrast.
    last = {f: w for f in factors if full != {f} and (w := _select(contrasts, full - {f}, full))}
    both = {f: combined((0.5, alone.get(f)), (0.5, last.get(f))) for f in factors}
    mean = {f: weights for f, weights in both.items() if weights is not None}
    return EffectWeights(alone, last, mean, {}, _select(contrasts, none, full))


def _select(
    contrasts: Sequence[ContrastEstimate], a: frozenset[str], b: frozenset[str]
) -> Weights | None:
    """Weight 1 for the contrast between these arms; None unless there is exactly one."""
    weights = tuple(float(contrast.a == a and contrast.b == b) for contrast in contrasts)
    return weights if sum(weights) == 1 else None


# Two-level designs


def _fitted(contrasts: Sequence[ContrastEstimate], factors: Sequence[str]) -> EffectWeights | None:
    """Least-squares weights of runs against one baseline; None if they do not allow a fit."""
    if len(factors) < 2 or any(contrast.a for contrast in contrasts):
        return None
    kept = _runs_to_fit([contrast.b for contrast in contrasts], factors)
    # The baseline is the first run. Its log ratio is 0, so its weights do not matter.
    runs = [frozenset[str](), *(contrasts[index].b for index in kept)]
    mains = [_column(runs, (name,)) for name in factors]
    pairs: dict[Weights, list[Pair]] = {}
    for pair in combinations(factors, 2):
        pairs.setdefault(_column(runs, pair), []).append(pair)
    coefficients = least_squares((_column(runs, ()), *mains, *pairs))
    if coefficients is None:
        return None
    # A coefficient is half an effect, because its column runs from -1 to +1.
    effects = [_spread(row[1:], kept, len(contrasts), 2.0) for row in coefficients[1:]]
    mean = dict(zip(factors, effects, strict=False))
    of_pairs = dict(zip(map(tuple, pairs.values()), effects[len(factors) :], strict=True))
    return EffectWeights(
        alone=_simple_effects(-1.0, mean, of_pairs),
        last=_simple_effects(1.0, mean, of_pairs),
        mean=mean,
        pairs=of_pairs,
        whole=_select(contrasts, frozenset(), frozenset(factors)),
    )


def _runs_to_fit(runs: Sequence[frozenset[str]], factors: Sequence[str]) -> list[int]:
    """Indices of the runs to fit: all, except an additional run with all toggles on.

    The run with all toggles on is additional, a check of the fit, if the other runs and the
    baseline are balanced without it.
    """
    full = frozenset(factors)
    rest = [index for index, on in enumerate(runs) if on != full]
    halves = (2 * sum(name in runs[index] for index in rest) for name in factors)
    balanced = all(half == len(rest) + 1 for half in halves)
    return rest if balanced else list(range(len(runs)))


def _column(runs: Sequence[frozenset[str]], names: Sequence[str]) -> Weights:
    """Product of the columns of these toggles: -1 is off, +1 is on."""
    return tuple(math.prod(1.0 if name in on else -1.0 for name in names) for on in runs)


def _spread(row: Sequence[float], kept: Sequence[int], size: int, factor: float) -> Weights:
    """Weights of all contrasts from those of the fitted runs; the others are 0."""
    weights = [0.0] * size
    for index, weight in zip(kept, row, strict=True):
        weights[index] = factor * weight
    return tuple(weights)


def _simple_effects(
    setting: float, mean: Mapping[str, Weights], pairs: Mapping[tuple[Pair, ...], Weights]
) -> dict[str, Weights]:
    """Effect of each toggle with all others off (-1) or on (+1); none if pairs are confounded."""
    if any(len(aliased) > 1 for aliased in pairs):
        return {}
    effects = {}
    for name, weights in mean.items():
        of_name = [(setting, w) for (pair,), w in pairs.items() if name in pair]
        total = combined((1.0, weights), *of_name)
        if total is not None:
            effects[name] = total
    return effects


def least_squares(columns: tuple[Weights, ...]) -> list[Weights] | None:
    """Rows of (X'X)^-1 X', by Gauss-Jordan elimination: the weights of each coefficient.

    None if the columns do not determine the coefficients.
    """
    size = len(columns)
    if size > len(columns[0]):
        return None
    table = [[*(_dot(column, other) for other in columns), *column] for column in columns]
    for step in range(size):
        pivot = max(range(step, size), key=lambda row: abs(table[row][step]))
        table[step], table[pivot] = table[pivot], table[step]
        lead = table[step][step]
        if abs(lead) < 1e-9 * len(columns[0]):
            return None
        table[step] = [value / lead for value in table[step]]
        for row in range(size):
            factor = table[row][step]
            if row != step and factor:
                table[row] = [x - factor * y for x, y in zip(table[row], table[step], strict=True)]
    return [tuple(row[size:]) for row in table]


def _dot(left: Weights, right: Weights) -> float:
    return math.fsum(x * y for x, y in zip(left, right, strict=True))
