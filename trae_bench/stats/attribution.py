"""Which toggle has which share in a change: from contrasts to effects, with intervals. Pure.

Everything here is a natural logarithm of a ratio, so that effects add up where toggles do not
meddle with each other. Every figure is a weighted sum of the contrasts' means, w1 y1 + w2 y2 +
..., and the contrasts are independent, for each has pairs of its own. So its error is the root
of the sum of (w e)², e the standard error of one mean, and its degrees of freedom are those of
Satterthwaite (An approximate distribution of estimates of variance components, Biometrics
Bulletin 2, 1946) and Welch (Biometrika 34, 1947): no contrast has to be as noisy as another.

Where the weights come from depends on what was compared:

- Contrasts that turn one toggle, alone or with all others on, are taken as they are.
- Runs of a two-level design, each against the same baseline, are fitted by ordinary least
  squares: a constant, one column of -1 and +1 for each toggle, one for each pair of toggles;
  the baseline is the run whose log ratio is 0. In a whole design the columns are orthogonal,
  and this is the table of contrasts of Box, Hunter and Hunter (Statistics for Experimenters,
  2nd ed. 2005, chapters 5 and 6). Pairs with the same column cannot be told apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations

from msgspec import Struct

from trae_bench.model.experiment import Contrast
from trae_bench.model.result import Interval
from trae_bench.stats.decision import Row, constant, fit_of, t_quantile, t_tail, threshold_of

CONFIDENCE = 0.95
"""Of each interval, taken for itself."""

MAX_WORK = 5_000_000
"""Columns squared times runs that are fitted, a second or so: the full factorial of ten toggles
has 3.2 million. A file of a stranger may name any number of them."""

Weights = tuple[float, ...]
"""One for each contrast that was seen."""
Pair = tuple[str, str]


class Effect(Struct, frozen=True):
    """A change on the log scale; below 0 is less of the metric."""

    log_ratio: float
    interval: Interval | None
    """None where a contrast that goes into it has a single pair."""
    p: float | None
    """Two-sided p-value of no change, of this effect alone; None as above."""


class ToggleEffects(Struct, frozen=True):
    """What one toggle does. None where the contrasts do not tell."""

    toggle: str
    alone: Effect | None
    """Turned on with all others off."""
    last: Effect | None
    """Turned on with all others on."""
    change: Effect | None
    """`last` less `alone`: what the others, together, make of it."""
    mean: Effect | None
    """Main effect: the mean over all settings of the others. Where only `alone` and `last` were
    measured, their mean, which is the same if toggles act on each other in pairs at most."""


class Conditional(Struct, frozen=True):
    """What one toggle does with another one off and on, the mean over the rest."""

    toggle: str
    given: str
    off: Effect
    on: Effect


class Interaction(Struct, frozen=True):
    """What one toggle makes of another one's effect.

    `change` is the effect of the one with the other on, less that with the other off; it is the
    same for both of them. (Box, Hunter and Hunter halve that difference.)
    """

    pairs: tuple[Pair, ...]
    """More than one where the design cannot tell them apart: `change` is their sum."""
    change: Effect
    conditional: tuple[Conditional, ...] = ()
    """Each of the two, given the other; empty where there is more than one pair."""


class Sum(Struct, frozen=True):
    """Effects added up (ratios multiplied), beside the whole."""

    total: Effect
    gap: Effect | None
    """The whole less the total: what adding up misses. None where the design makes it 0,
    whatever was measured, so that there is nothing to learn from it."""


class Whole(Struct, frozen=True):
    """All toggles on against none, measured as a contrast of its own, and its parts."""

    measured: Effect
    alone: Sum | None
    """Of each toggle alone. It misses the whole where toggles act on each other."""
    mean: Sum | None
    """Of the mean effects. Pairs cancel in it, for they are alike with all off and with all on:
    it misses the whole only where three or more toggles act together."""


class Attribution(Struct, frozen=True):
    """Which toggle has which share, for one metric of one scenario."""

    scenario: str
    metric: str
    pairs: tuple[int, int]
    """Fewest and most counted pairs of a contrast."""
    threshold: float
    """Smallest effect that counts (a fraction): the largest of the contrasts' own; 0 for counts
    that do not vary, of which any change counts."""
    looks: int
    """How often the run looked at the data to decide whether to go on; intervals and p-values
    allow for that. 1 where the number of pairs was fixed."""
    toggles: tuple[ToggleEffects, ...]
    interactions: tuple[Interaction, ...]
    """The strongest first; empty where pairs were not measured on their own."""
    whole: Whole | None
    """None where all on against none was not measured."""
    missing: tuple[str, ...] = ()
    """Contrasts without a ratio: no pair, or values of zero."""


class Seen(Struct, frozen=True):
    """One contrast: the toggles that are on in A and in B, and what its pairs came to."""

    a: frozenset[str]
    b: frozenset[str]
    mean: float
    error: float
    """Standard error of the mean."""
    df: float
    """0 where a single pair leaves the error unknown."""
    pairs: int


def attribute(
    rows: Sequence[tuple[Contrast, Row]], *, scenario: str, metric: str, looks: int = 1
) -> Attribution | None:
    """Attribution from the contrasts of one scenario and the rows of one metric.

    Contrasts that no toggle tells apart (A/A, two revisions) are passed over; None where no
    other one has a ratio.
    """
    asked = [(contrast, row) for contrast, row in rows if contrast.a.toggles != contrast.b.toggles]
    factors = _factors(contrast for contrast, _ in asked)
    found = {contrast.name: _see(contrast, row, factors) for contrast, row in asked}
    seen = [each for each in found.values() if each is not None]
    if not seen:
        return None
    book = _Book(seen, looks)
    parts = _fitted(seen, factors) or _direct(seen, factors)
    counts = [each.pairs for each in seen]
    return Attribution(
        scenario=scenario,
        metric=metric,
        pairs=(min(counts), max(counts)),
        threshold=max(_counts_from(row) for _, row in asked),
        looks=looks,
        toggles=tuple(_toggle(name, parts, book) for name in factors),
        interactions=_interactions(parts, book),
        whole=_whole(parts, factors, book),
        missing=tuple(name for name, each in found.items() if each is None),
    )


def p_values(attribution: Attribution) -> list[float]:
    """P-values of all that this attribution asks: its family for `holm_limit`."""
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


def welch(parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Standard error of a sum of independent figures, and its degrees of freedom, from those of
    each figure; (0, 0) where none of them has an error."""
    variances = [(error * error, df) for error, df in parts if error]
    total = math.fsum(variance for variance, _ in variances)
    if not total:
        return 0.0, 0.0
    return math.sqrt(total), total**2 / math.fsum(v * v / df for v, df in variances)


def holm_limit(p_values: Iterable[float], level: float = 1 - CONFIDENCE) -> float:
    """The largest p-value that stands when all are asked at once; -1 where none does.

    Holm's step-down: with m questions the smallest must be at most level / m, the next one
    level / (m - 1), and so on to the first that fails. The chance that any of those up to the
    limit is no effect at all is at most `level`.
    """
    ordered = sorted(p_values)
    limit = -1.0
    for number, p in enumerate(ordered):
        if p > level / (len(ordered) - number):
            break
        limit = p
    return limit


# From rows to what was seen


def _factors(contrasts: Iterable[Contrast]) -> tuple[str, ...]:
    """Toggles that are on in one arm and off in another."""
    settings: dict[str, set[bool]] = {}
    for contrast in contrasts:
        for arm in (contrast.a, contrast.b):
            for name, on in arm.toggles.items():
                settings.setdefault(name, set()).add(on)
    return tuple(name for name, both in settings.items() if len(both) > 1)


def _counts_from(row: Row) -> float:
    exactly = row.rule.exact_at and not row.minimum and constant(row, len(row.a))
    return 0.0 if exactly else threshold_of(row)


def _see(contrast: Contrast, row: Row, factors: Sequence[str]) -> Seen | None:
    n = len(row.a)
    fit = fit_of(row, n) if n else None
    if fit is None:
        return None
    a, b = (
        frozenset(name for name in factors if arm.toggles.get(name))
        for arm in (contrast.a, contrast.b)
    )
    return Seen(a, b, fit.mean, fit.error, fit.df, n)


# Weighted sums


class _Book:
    """Works out weighted sums of what was seen."""

    def __init__(self, seen: Sequence[Seen], looks: int) -> None:
        self._seen = seen
        self._looks = looks

    def effect(self, weights: Weights | None) -> Effect | None:
        """None for no weights, and for weights that are all 0."""
        if weights is None or not any(weights):
            return None
        used = [(w, one) for w, one in zip(weights, self._seen, strict=True) if w]
        value = math.fsum(w * one.mean for w, one in used)
        if any(not one.df for _, one in used):
            return Effect(value, None, None)
        error, df = welch((w * one.error, one.df) for w, one in used)
        if not error:
            # Rounding alone must not look like an effect of counts that never vary.
            value = value if abs(value) > 1e-9 else 0.0
            return Effect(value, Interval(value, value), float(value == 0))
        half = t_quantile((1 - CONFIDENCE) / 2 / self._looks, df) * error
        p = min(1.0, 2 * t_tail(abs(value) / error, df) * self._looks)
        return Effect(value, Interval(value - half, value + half), p)


def _sum(*terms: tuple[float, Weights | None]) -> Weights | None:
    """Weights added up, each times a factor; None where one of them is not known."""
    known = [(factor, weights) for factor, weights in terms if weights is not None]
    if not known or len(known) < len(terms):
        return None
    columns = zip(*(weights for _, weights in known), strict=True)
    factors = [factor for factor, _ in known]
    sums = (math.fsum(f * w for f, w in zip(factors, ws, strict=True)) for ws in columns)
    # What is 0 by design must not come out as a tiny share of a contrast.
    return tuple(0.0 if abs(total) < 1e-9 else total for total in sums)


class _Parts(Struct, frozen=True):
    """Weights of each question; a toggle is left out where the contrasts do not answer it."""

    alone: Mapping[str, Weights]
    last: Mapping[str, Weights]
    mean: Mapping[str, Weights]
    pairs: Mapping[tuple[Pair, ...], Weights]
    """Half the change that `Interaction` tells, as the textbooks have it."""
    whole: Weights | None


def _direct(seen: Sequence[Seen], factors: Sequence[str]) -> _Parts:
    """Contrasts that turn one toggle, as they are."""
    none, full = frozenset[str](), frozenset(factors)
    alone = {f: w for f in factors if (w := _only(seen, none, frozenset({f})))}
    # A toggle without others is alone, first and last, all in one contrast.
    last = {f: w for f in factors if full != {f} and (w := _only(seen, full - {f}, full))}
    both = {f: _sum((0.5, alone.get(f)), (0.5, last.get(f))) for f in factors}
    mean = {f: weights for f, weights in both.items() if weights is not None}
    return _Parts(alone, last, mean, {}, _only(seen, none, full))


def _only(seen: Sequence[Seen], a: frozenset[str], b: frozenset[str]) -> Weights | None:
    """Picks the one contrast between these arms."""
    weights = tuple(float(each.a == a and each.b == b) for each in seen)
    return weights if sum(weights) == 1 else None


# Two-level designs


def _fitted(seen: Sequence[Seen], factors: Sequence[str]) -> _Parts | None:
    """Runs against one baseline, fitted; None where there are too few of them for that."""
    columns = 1 + math.comb(len(factors) + 1, 2)
    if columns**2 * len(seen) > MAX_WORK or len(factors) < 2 or any(each.a for each in seen):
        return None
    kept = _in_design([each.b for each in seen], factors)
    # The baseline is the first run; its log ratio is 0, so its weights are of no account.
    runs = [frozenset[str](), *(seen[index].b for index in kept)]
    mains = [_column(runs, (name,)) for name in factors]
    pairs: dict[Weights, list[Pair]] = {}
    for pair in combinations(factors, 2):
        pairs.setdefault(_column(runs, pair), []).append(pair)
    coefficients = least_squares((_column(runs, ()), *mains, *pairs))
    if coefficients is None:
        return None
    # A coefficient is half an effect: its column runs from -1 to +1.
    effects = [_placed(row[1:], kept, len(seen), 2.0) for row in coefficients[1:]]
    mean = dict(zip(factors, effects, strict=False))
    of_pairs = dict(zip(map(tuple, pairs.values()), effects[len(factors) :], strict=True))
    return _Parts(
        alone=_among_others(-1.0, mean, of_pairs),
        last=_among_others(1.0, mean, of_pairs),
        mean=mean,
        pairs=of_pairs,
        whole=_only(seen, frozenset(), frozenset(factors)),
    )


def _in_design(runs: Sequence[frozenset[str]], factors: Sequence[str]) -> list[int]:
    """Which runs are fitted: all, but for one with all on that is there to confirm the rest.

    It is such a run where the others and the baseline are balanced without it.
    """
    full = frozenset(factors)
    rest = [index for index, on in enumerate(runs) if on != full]
    halves = (2 * sum(name in runs[index] for index in rest) for name in factors)
    balanced = all(half == len(rest) + 1 for half in halves)
    return rest if balanced else list(range(len(runs)))


def _column(runs: Sequence[frozenset[str]], names: Sequence[str]) -> Weights:
    """Product of the columns of these toggles: -1 is off, +1 is on."""
    return tuple(math.prod(1.0 if name in on else -1.0 for name in names) for on in runs)


def _placed(row: Sequence[float], kept: Sequence[int], size: int, factor: float) -> Weights:
    weights = [0.0] * size
    for index, weight in zip(kept, row, strict=True):
        weights[index] = factor * weight
    return tuple(weights)


def _among_others(
    setting: float, mean: Mapping[str, Weights], pairs: Mapping[tuple[Pair, ...], Weights]
) -> dict[str, Weights]:
    """Each toggle's effect with all others off (-1) or on (+1); none where pairs are confused."""
    if any(len(group) > 1 for group in pairs):
        return {}
    found = {}
    for name, weights in mean.items():
        of_name = [(setting, w) for (pair,), w in pairs.items() if name in pair]
        total = _sum((1.0, weights), *of_name)
        if total is not None:
            found[name] = total
    return found


@lru_cache(maxsize=16)  # All metrics of a scenario have the same columns.
def least_squares(columns: tuple[Weights, ...]) -> list[Weights] | None:
    """For each column, the weights that make its coefficient out of the values: (X'X)^-1 X'.

    None where the columns do not determine the coefficients.
    """
    size = len(columns)
    if size > len(columns[0]):
        return None
    table = [[*(_dot(one, other) for other in columns), *one] for one in columns]
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


def _dot(one: Weights, other: Weights) -> float:
    return math.fsum(x * y for x, y in zip(one, other, strict=True))


# From weights to what is told


def _toggle(name: str, parts: _Parts, book: _Book) -> ToggleEffects:
    alone, last = parts.alone.get(name), parts.last.get(name)
    return ToggleEffects(
        toggle=name,
        alone=book.effect(alone),
        last=book.effect(last),
        change=book.effect(_sum((1.0, last), (-1.0, alone))),
        mean=book.effect(parts.mean.get(name)),
    )


def _interactions(parts: _Parts, book: _Book) -> tuple[Interaction, ...]:
    found = []
    for pairs, weights in parts.pairs.items():
        change = book.effect(_sum((2.0, weights)))
        if change is None:
            continue
        conditional: tuple[Conditional, ...] = ()
        if len(pairs) == 1:
            (one, other) = pairs[0]
            both = (
                _conditional(one, other, parts.mean[one], weights, book),
                _conditional(other, one, parts.mean[other], weights, book),
            )
            conditional = tuple(each for each in both if each is not None)
        found.append(Interaction(pairs, change, conditional))
    return tuple(sorted(found, key=lambda each: -abs(each.change.log_ratio)))


def _conditional(
    toggle: str, given: str, mean: Weights, pair: Weights, book: _Book
) -> Conditional | None:
    off = book.effect(_sum((1.0, mean), (-1.0, pair)))
    on = book.effect(_sum((1.0, mean), (1.0, pair)))
    return Conditional(toggle, given, off, on) if off is not None and on is not None else None


def _whole(parts: _Parts, factors: Sequence[str], book: _Book) -> Whole | None:
    measured = book.effect(parts.whole)
    if measured is None or len(factors) < 2:
        return None

    def added(of_toggles: Mapping[str, Weights]) -> Sum | None:
        total = _sum(*((1.0, of_toggles.get(name)) for name in factors))
        told = book.effect(total)
        gap = book.effect(_sum((1.0, parts.whole), (-1.0, total)))
        return Sum(told, gap) if told is not None else None

    return Whole(measured, alone=added(parts.alone), mean=added(parts.mean))
