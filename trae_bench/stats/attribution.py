"""Attributes changes to toggles: estimates effects and intervals from contrasts. Pure.

All effects are natural logarithms of ratios, so the effects of toggles that do not interact
add up. An effect is a weighted sum of the contrasts' means (see `effect_weights`). Each
contrast has its own pairs, so the contrasts are independent: the standard error of the sum is
the root of the sum of (w e)², with e the standard error of one mean, and its degrees of freedom
are those of Welch and Satterthwaite. The contrasts need not have equal variances.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from msgspec import Struct

from trae_bench.model.experiment import Contrast
from trae_bench.model.result import Interval
from trae_bench.stats.decision import Row, fit_row, is_constant, threshold_of
from trae_bench.stats.effect_weights import (
    ContrastEstimate,
    EffectWeights,
    Fits,
    Pair,
    Weights,
    combined,
    effect_weights,
)
from trae_bench.stats.student_t import t_quantile, t_tail, welch_satterthwaite

CONFIDENCE = 0.95
"""Confidence level of each single interval."""


class Effect(Struct, frozen=True):
    """A change on the log scale; below 0 is a decrease of the metric."""

    log_ratio: float
    interval: Interval | None
    """None if a contrast in the sum has a single pair."""
    p: float | None
    """Two-sided p-value of no effect, for this effect alone; None if there is no interval."""


class ToggleEffects(Struct, frozen=True):
    """Effects of one toggle. None if the contrasts do not determine them."""

    toggle: str
    alone: Effect | None
    """Toggle switched on with all others off."""
    last: Effect | None
    """Toggle switched on with all others on."""
    change: Effect | None
    """`last` minus `alone`: the interaction with all other toggles together."""
    mean: Effect | None
    """Main effect: the mean over all settings of the other toggles. If only `alone` and `last`
    were measured, their mean; it is the same unless three or more toggles interact."""


class Conditional(Struct, frozen=True):
    """Effects of one toggle with another one off and on, averaged over all others."""

    toggle: str
    given: str
    off: Effect
    on: Effect


class Interaction(Struct, frozen=True):
    """Interaction of two toggles.

    `change` is the effect of one toggle with the other on, minus its effect with the other off.
    It is the same for both toggles. (Box, Hunter and Hunter halve this difference.)
    """

    pairs: tuple[Pair, ...]
    """More than one if the design confounds them; `change` is then their sum."""
    change: Effect
    conditional: tuple[Conditional, ...] = ()
    """Effects of each toggle given the other; empty if there is more than one pair."""


class EffectSum(Struct, frozen=True):
    """Sum of single effects (product of ratios), compared with all toggles on."""

    total: Effect
    gap: Effect | None
    """Measured effect of all toggles minus `total`. None if the design makes it 0 for any data,
    so that it checks nothing."""


class CombinedEffect(Struct, frozen=True):
    """All toggles on against none, measured directly, and the sums of single effects."""

    measured: Effect
    alone: EffectSum | None
    """Sum of `alone` effects. It has a gap if toggles interact."""
    mean: EffectSum | None
    """Sum of main effects. Two-toggle interactions cancel in it, so it has a gap only if three or
    more toggles interact."""


class Attribution(Struct, frozen=True):
    """Effects of the toggles on one metric of one scenario."""

    scenario: str
    metric: str
    pairs: tuple[int, int]
    """Smallest and largest number of counted pairs of a contrast."""
    threshold: float
    """Smallest effect that counts (a fraction): the largest threshold of the contrasts; 0 for
    constant counts, of which any change counts."""
    looks: int
    """Number of looks at which the run could stop; intervals and p-values are corrected for it
    (Bonferroni). 1 if the number of pairs was fixed."""
    toggles: tuple[ToggleEffects, ...]
    interactions: tuple[Interaction, ...]
    """Strongest first; empty if the design does not estimate interactions."""
    whole: CombinedEffect | None
    """None if all toggles on against none was not measured."""
    missing: tuple[str, ...] = ()
    """Contrasts without a ratio: no pair, or values of zero."""


def attribute(
    rows: Sequence[tuple[Contrast, Row]],
    *,
    scenario: str,
    metric: str,
    looks: int = 1,
    fits: Fits | None = None,
) -> Attribution | None:
    """Attribution from the contrasts of one scenario and the rows of one metric.

    Contrasts whose sides have the same toggles (A/A, two revisions) are ignored. Returns None
    if no other contrast has a ratio. `fits` holds the fits of the same run so far.
    """
    asked = [(contrast, row) for contrast, row in rows if contrast.a.toggles != contrast.b.toggles]
    factors = _factors(contrast for contrast, _ in asked)
    estimates = {contrast.name: _estimate(contrast, row, factors) for contrast, row in asked}
    known = [estimate for estimate in estimates.values() if estimate is not None]
    if not known:
        return None
    estimator = _EffectEstimator(known, looks)
    weights = effect_weights(known, factors, fits)
    counts = [estimate.pairs for estimate in known]
    return Attribution(
        scenario=scenario,
        metric=metric,
        pairs=(min(counts), max(counts)),
        threshold=max(_threshold(row) for _, row in asked),
        looks=looks,
        toggles=tuple(_toggle_effects(name, weights, estimator) for name in factors),
        interactions=_interactions(weights, estimator),
        whole=_combined_effect(weights, factors, estimator),
        missing=tuple(name for name, estimate in estimates.items() if estimate is None),
    )


def p_values(attribution: Attribution) -> list[float]:
    """P-values of all effects of an attribution, for `holm_limit`."""
    effects = [
        effect
        for toggle in attribution.toggles
        for effect in (toggle.alone, toggle.last, toggle.change, toggle.mean)
    ]
    effects += [interaction.change for interaction in attribution.interactions]
    if attribution.whole is not None:
        effects += [attribution.whole.measured]
        effects += [s.gap for s in (attribution.whole.alone, attribution.whole.mean) if s]
    return [effect.p for effect in effects if effect is not None and effect.p is not None]


def holm_limit(p_values: Iterable[float], level: float = 1 - CONFIDENCE) -> float:
    """Largest significant p-value by Holm's step-down procedure; -1 if none is significant.

    With m hypotheses, the smallest p-value must be at most level / m, the next one at most
    level / (m - 1), and so on until the first failure. The family-wise error rate is at most
    `level`. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
    of Statistics 6 (1979).
    """
    ordered = sorted(p_values)
    limit = -1.0
    for number, p in enumerate(ordered):
        if p > level / (len(ordered) - number):
            break
        limit = p
    return limit


# From rows to estimates of contrasts


def _factors(contrasts: Iterable[Contrast]) -> tuple[str, ...]:
    """Toggles that are on in one arm and off in another."""
    settings: dict[str, set[bool]] = {}
    for contrast in contrasts:
        for arm in (contrast.a, contrast.b):
            for name, on in arm.toggles.items():
                settings.setdefault(name, set()).add(on)
    return tuple(name for name, both in settings.items() if len(both) > 1)


def _threshold(row: Row) -> float:
    exact = row.rule.exact_at and not row.minimum and is_constant(row, len(row.a))
    return 0.0 if exact else threshold_of(row)


def _estimate(contrast: Contrast, row: Row, factors: Sequence[str]) -> ContrastEstimate | None:
    n = len(row.a)
    fit = fit_row(row, n) if n else None
    if fit is None:
        return None
    a, b = (
        frozenset(name for name in factors if arm.toggles.get(name))
        for arm in (contrast.a, contrast.b)
    )
    return ContrastEstimate(a, b, fit.mean, fit.error, fit.df, n)


# From weights to effects


class _EffectEstimator:
    """Computes weighted sums of contrasts, with intervals and p-values."""

    def __init__(self, contrasts: Sequence[ContrastEstimate], looks: int) -> None:
        self._contrasts = contrasts
        self._looks = looks

    def effect(self, weights: Weights | None) -> Effect | None:
        """None for no weights, and for weights that are all 0."""
        if weights is None or not any(weights):
            return None
        used = [(w, contrast) for w, contrast in zip(weights, self._contrasts, strict=True) if w]
        value = fsum(w * contrast.mean for w, contrast in used)
        if any(not contrast.df for _, contrast in used):
            return Effect(value, None, None)
        error, df = welch_satterthwaite((w * contrast.error, contrast.df) for w, contrast in used)
        if not error:
            # A rounding error must not look like an effect on constant counts.
            value = value if abs(value) > 1e-9 else 0.0
            return Effect(value, Interval(value, value), float(value == 0))
        half = t_quantile((1 - CONFIDENCE) / 2 / self._looks, df) * error
        p = min(1.0, 2 * t_tail(abs(value) / error, df) * self._looks)
        return Effect(value, Interval(value - half, value + half), p)


def _toggle_effects(
    name: str, weights: EffectWeights, estimator: _EffectEstimator
) -> ToggleEffects:
    alone, last = weights.alone.get(name), weights.last.get(name)
    return ToggleEffects(
        toggle=name,
        alone=estimator.effect(alone),
        last=estimator.effect(last),
        change=estimator.effect(combined((1.0, last), (-1.0, alone))),
        mean=estimator.effect(weights.mean.get(name)),
    )


def _interactions(weights: EffectWeights, estimator: _EffectEstimator) -> tuple[Interaction, ...]:
    interactions = []
    for pairs, half in weights.pairs.items():
        change = estimator.effect(combined((2.0, half)))
        if change is None:
            continue
        conditional: tuple[Conditional, ...] = ()
        if len(pairs) == 1:
            ((first, second),) = pairs
            both = (
                _conditional(first, second, weights.mean[first], half, estimator),
                _conditional(second, first, weights.mean[second], half, estimator),
            )
            conditional = tuple(effects for effects in both if effects is not None)
        interactions.append(Interaction(pairs, change, conditional))
    return tuple(sorted(interactions, key=lambda found: -abs(found.change.log_ratio)))


def _conditional(
    toggle: str, given: str, mean: Weights, pair: Weights, estimator: _EffectEstimator
) -> Conditional | None:
    off = estimator.effect(combined((1.0, mean), (-1.0, pair)))
    on = estimator.effect(combined((1.0, mean), (1.0, pair)))
    return Conditional(toggle, given, off, on) if off is not None and on is not None else None


def _combined_effect(
    weights: EffectWeights, factors: Sequence[str], estimator: _EffectEstimator
) -> CombinedEffect | None:
    measured = estimator.effect(weights.whole)
    if measured is None or len(factors) < 2:
        return None

    def effect_sum(of_toggles: Mapping[str, Weights]) -> EffectSum | None:
        sum_weights = combined(*((1.0, of_toggles.get(name)) for name in factors))
        total = estimator.effect(sum_weights)
        gap = estimator.effect(combined((1.0, weights.whole), (-1.0, sum_weights)))
        return EffectSum(total, gap) if total is not None else None

    return CombinedEffect(measured, effect_sum(weights.alone), effect_sum(weights.mean))
