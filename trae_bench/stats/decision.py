"""From paired values to an estimate and a verdict. Pure: no clock, no file, no randomness.

A `Row` holds one metric of one contrast: the values of side A and side B, pair by pair. Its
`Rule` says at which numbers of pairs it is looked at and how much doubt is allowed.
`verdicts` judges all rows of a run together, because what one row may claim depends on how
many rows there are. The rules, their reasons and their limits: docs/statistics.md.

Effects are natural logarithms of b/a inside this module; thresholds and margins are
fractions (0.02 is 2 %).
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from statistics import fmean, median, stdev
from typing import Literal, TypeVar

from msgspec import Struct

from trae_bench.model.experiment import Better, Mode
from trae_bench.model.result import Estimate, Interval, Judgement, Rule, Verdict

MAX_LOG = 700.0
"""Of ratios that are told; the exponential of more is no float."""

Key = TypeVar("Key", bound=Hashable)
Direction = Literal["regression", "improvement"]


DUET_V1 = Rule("duet-v1", looks=(8, 12, 16, 24, 36, 60), threshold=0.02, margin=0.03)
# Trimming makes the far tail of the test up to 1.2 times as heavy as nominal when the noise is
# Gaussian, so that this alpha keeps the run's 1 %: see docs/statistics.md.
SERIAL_V1 = Rule(
    "serial-v1", looks=(8, 12, 20, 40), threshold=0.05, margin=0.10, alpha=0.008, trim=0.1
)
EXACT_V1 = Rule("exact-v1", looks=DUET_V1.looks, threshold=0.02, margin=0.03, exact_at=2)

RULES: dict[Mode, Rule] = {"duet": DUET_V1, "serial": SERIAL_V1, "exact": EXACT_V1}


class Row(Struct, frozen=True, kw_only=True):
    """One metric of one contrast: valid pairs in the order of their numbers, pair 0 left out.

    `a[i]` and `b[i]` are of one pair; both are finite. Raises `ValueError` otherwise.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    rule: Rule = DUET_V1
    better: Better = "lower"
    threshold: float | None = None
    """In place of the rule's (see `threshold_from_floor`); the margin moves along."""
    floor_sd: float = 0.0
    """Standard deviation of A/A log ratios on this machine; 0 if not known."""
    floor_varies: bool = False
    """A/A pairs have more than one value, so that no count can be compared as it is."""
    minimum: float = 0.0
    """A difference up to this, in the metric's unit, is nothing, whatever its ratio."""
    gated: bool = True
    """Counts in the run's family; one that is not can still get a verdict, for information."""

    def __post_init__(self) -> None:
        if len(self.a) != len(self.b):
            raise ValueError(f"{len(self.a)} values of A but {len(self.b)} of B")
        if not all(map(math.isfinite, (*self.a, *self.b))):
            raise ValueError("values must be finite")


# Estimates


def estimate(row: Row) -> Estimate | None:
    """Effect over all pairs of the row; None without a pair.

    The interval is the one that `equivalent` rests on: each end is wrong with a chance of at
    most `rule.alpha_equivalence`, whichever look the row was stopped at.
    """
    n = len(row.a)
    if not n:
        return None
    sides = {
        "a": median(row.a),
        "b": median(row.b),
        "difference": median(b - a for a, b in zip(row.a, row.b, strict=True)),
    }
    fit = fit_of(row, n)
    if fit is None:
        return Estimate(n=n, log_ratio=None, sd=0.0, interval=None, **sides)
    interval = None
    if n > 1:
        interval = Interval(low=fit.mean - fit.half_width, high=fit.mean + fit.half_width)
    return Estimate(n=n, log_ratio=fit.mean, sd=fit.sd, interval=interval, **sides)


def threshold_of(row: Row) -> float:
    """Smallest effect (fraction) that is worth a verdict in this row, all its pairs counted."""
    return bounds_of(row, len(row.a))[0]


def smallest_effect(
    sd: float, rule: Rule = DUET_V1, family: int = 30, look: int | None = None
) -> float:
    """Effect (fraction) found with 95 % power at a look, by default the last, in a family so large.

    `sd` is the standard deviation of the pairs' log ratios: at the last look this is what a
    machine with that noise can show at all.
    """
    n = rule.looks[-1] if look is None else look
    df = n - 1 - 2 * int(rule.trim * n)
    reach = t_quantile(rule.level / max(family, 1), df) + t_quantile(0.05, df)
    return math.expm1(reach * sd / math.sqrt(n))


def threshold_from_floor(
    aa_mean: float, sd: float, rule: Rule = DUET_V1, family: int = 30
) -> float:
    """Threshold (fraction) for a machine whose A/A pairs have this mean and sd (log scale).

    Never under the rule's own, three times the bias seen, or the smallest effect visible.
    """
    return max(rule.threshold, 3 * abs(aa_mean), smallest_effect(sd, rule, family))


# Verdicts


def verdicts(rows: Mapping[Key, Row]) -> dict[Key, Judgement]:
    """Judge all rows of a run; a function of the values only, not of when they came.

    Pass every row that was planned, also those without pairs: the family is fixed by the plan.
    Looks are taken in order of their number of pairs; a row that is settled is not looked at
    again, so pairs added to it later change nothing. At each look the rows are tried from the
    smallest p-value on; after k verdicts of one direction the level is alpha over M - k in
    place of M (Holm). The order of `rows` has no influence.
    """
    judged: dict[Key, Judgement] = {key: _UNSEEN if r.a else _MISSING for key, r in rows.items()}
    judged.update((key, look.judgement) for key, look in looks(rows))
    return judged


_UNSEEN = Judgement(verdict="inconclusive", look=0, settled=False, p=1.0)
_MISSING = Judgement(verdict="not measured", look=0, settled=False, p=1.0)


class LookStatistics(Struct, frozen=True):
    """What one look at one row shows. Without ratios it can only show that nothing differs."""

    direction: Direction
    """Where the mean points."""
    p_direction: float
    """One-sided p-value of no effect in that direction."""
    large: bool
    """The mean reaches the threshold."""
    within: bool
    """The interval lies within the margin; without ratios, every pair within the minimum."""
    fit: "Fit | None" = None
    """None where there is no ratio."""
    threshold: float = 0.0
    """A fraction, as is the margin."""
    margin: float = 0.0


class Look(Struct, frozen=True):
    """One look at one row, and what came of it; `judgement.look` is the number of pairs."""

    judgement: Judgement
    claims: int
    """Rows that shared the rule's level: those gated, less the verdicts found before (Holm)."""
    level: float
    """One-sided p-value up to which an effect is called one."""
    evidence: LookStatistics | None
    """None where sides that do not vary were compared as they are."""


def looks(rows: Mapping[Key, Row]) -> Iterator[tuple[Key, Look]]:
    """Every look that `verdicts` takes, in its order; a row's last one is its verdict."""
    settled: set[Key] = set()
    family = max(1, sum(row.gated for row in rows.values()))
    found: dict[Direction, int] = {"regression": 0, "improvement": 0}
    for n in sorted({n for row in rows.values() for n in row.rule.stops}):
        seen: dict[Key, LookStatistics] = {}
        for key, row in rows.items():
            if key in settled or len(row.a) < n:
                continue
            if exact := _exactly(row, n):
                settled.add(key)
                yield key, Look(exact, family, row.rule.level / family, None)
            elif n in row.rule.looks:
                seen[key] = _look(row, n)
        for key in sorted(seen, key=lambda key: seen[key].p_direction):
            row, evidence = rows[key], seen[key]
            claims = family - (found[evidence.direction] if row.gated else 0)
            level = row.rule.level / claims
            judgement = _judge(row, evidence, n, level)
            if judgement.settled:
                settled.add(key)
            if row.gated and judgement.verdict == evidence.direction:
                found[evidence.direction] += 1
            yield key, Look(judgement, claims, level, evidence)


def least_effect(look: Look) -> float | None:
    """Mean effect (fraction) that this look would have called one, the spread being what it was.

    None without ratios.
    """
    if look.evidence is None or (fit := look.evidence.fit) is None:
        return None
    reach = max(t_quantile(look.level, fit.df) * fit.error, math.log1p(look.evidence.threshold))
    return math.expm1(min(reach, MAX_LOG))


def _look(row: Row, n: int) -> LookStatistics:
    fit = fit_of(row, n)
    if fit is None:
        pairs = zip(row.a[:n], row.b[:n], strict=True)
        within = all(abs(b - a) <= row.minimum for a, b in pairs)
        return LookStatistics("regression", 1.0, large=False, within=within)
    threshold, margin = bounds_of(row, n)
    worse = fit.mean > 0 if row.better == "lower" else fit.mean < 0
    # Where every pair says the same there is no spread to divide by, and no doubt either.
    certain = 0.0 if fit.mean else 0.5
    return LookStatistics(
        direction="regression" if worse else "improvement",
        p_direction=t_tail(abs(fit.mean) / fit.error, fit.df) if fit.error else certain,
        large=abs(fit.mean) >= math.log1p(threshold),
        within=abs(fit.mean) + fit.half_width <= math.log1p(margin),
        fit=fit,
        threshold=threshold,
        margin=margin,
    )


def _judge(row: Row, evidence: LookStatistics, n: int, level: float) -> Judgement:
    verdict: Verdict = "inconclusive"
    if evidence.large and evidence.p_direction <= level:
        verdict = evidence.direction
    elif evidence.within:
        verdict = "equivalent"
    elif evidence.fit is None:
        # More pairs cannot help: the values without a logarithm stay.
        verdict = "not measured"
    settled = verdict != "inconclusive" or n == row.rule.looks[-1]
    return Judgement(verdict, look=n, settled=settled, p=min(1.0, 2 * evidence.p_direction))


def _exactly(row: Row, n: int) -> Judgement | None:
    """Verdict on sides that do not vary, here or in A/A pairs; None if they do or the rule does not
    compare so."""
    if n != row.rule.exact_at or not constant(row, n):
        return None
    difference = row.b[0] - row.a[0]
    if abs(difference) <= row.minimum:
        return Judgement("equivalent", look=n, settled=True, p=1.0 if difference == 0 else 0.0)
    worse = (difference > 0) == (row.better == "lower")
    return Judgement("regression" if worse else "improvement", look=n, settled=True, p=0.0)


def constant(row: Row, n: int) -> bool:
    """Whether neither side has varied in its first n pairs, nor what is known from A/A pairs."""
    known = row.floor_varies or row.floor_sd
    return not known and len(set(row.a[:n])) <= 1 and len(set(row.b[:n])) <= 1


# One row's figures, on the log scale


class Fit(Struct, frozen=True):
    """What the first pairs of a row come to."""

    mean: float
    sd: float
    error: float
    """Standard error of the mean; 0 only where all pairs agree and no noise is known."""
    df: int
    half_width: float
    """Of the interval that `equivalent` rests on."""


def fit_of(row: Row, n: int) -> Fit | None:
    """Trimmed mean of the first n pairs' log ratios; None where a value has no logarithm.

    The error of a trimmed mean comes from the Winsorised values, those cut off replaced by
    the last ones kept: Yuen, The two-sample trimmed t for unequal population variances,
    Biometrika 61 (1974). Without trimming it is Student's t.
    """
    found = log_ratios(row, n)
    if found is None:
        return None
    ratios = sorted(found)
    cut = int(row.rule.trim * n)
    kept = ratios[cut : n - cut]
    sd = _sd([kept[0]] * cut + kept + [kept[-1]] * cut) / (1 - 2 * cut / n)
    # Few pairs can look calmer than the machine ever is; half its known noise is the least.
    error = max(sd, row.floor_sd / 2) / math.sqrt(n)
    df = n - 1 - 2 * cut
    tail = row.rule.alpha_equivalence / len(row.rule.looks)
    half_width = t_quantile(tail, df) * error if error and df else 0.0
    return Fit(fmean(kept), sd, error, df, half_width)


def log_ratios(row: Row, n: int | None = None) -> list[float] | None:
    """ln(b/a) of the first n pairs, by default of all; None where a value has no logarithm."""
    a, b = row.a[:n], row.b[:n]
    if any(value <= 0 for value in (*a, *b)):
        return None
    return [math.log(of_b) - math.log(of_a) for of_a, of_b in zip(a, b, strict=True)]


def _sd(values: list[float]) -> float:
    # stdev of equal values can come out as rounding error; that must not become a divisor.
    return stdev(values) if len(set(values)) > 1 else 0.0


def bounds_of(row: Row, n: int) -> tuple[float, float]:
    """Threshold and margin (fractions), raised where `minimum` asks for more."""
    rule = row.rule
    threshold = rule.threshold if row.threshold is None else row.threshold
    if row.minimum and n:
        smaller_side = min(median(row.a[:n]), median(row.b[:n]))
        if smaller_side > 0:
            threshold = max(threshold, row.minimum / smaller_side)
    return threshold, threshold + rule.margin - rule.threshold


# Student's t


def t_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t with `df` degrees of freedom, which need not be whole.

    By the incomplete beta function, I_x(df/2, 1/2) / 2 with x = df / (df + t²): Abramowitz
    and Stegun, Handbook of Mathematical Functions, 26.7.1 with 26.5.27.
    """
    if t < 0:
        return 1 - t_tail(-t, df)
    x = df / (df + t * t)
    return _incomplete_beta(x, t * t / (df + t * t), df / 2, 0.5) / 2


@cache
def t_quantile(tail: float, df: float) -> float:
    """The t with P(T > t) = `tail`, for a tail of at most a half.

    Newton from 0: the tail is convex there (the density falls), so the steps approach the
    root from one side and cannot leave it. Raises `ValueError` for other tails.
    """
    if not 0 < tail <= 0.5:
        raise ValueError(f"tail must be in (0, 0.5]: {tail}")
    log_peak = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    t, step = 0.0, math.inf
    while step > 1e-13 * t:
        density = math.exp(log_peak - (df + 1) / 2 * math.log1p(t * t / df))
        step = (t_tail(t, df) - tail) / density
        t += max(step, 0.0)
    return t


def _incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), y = 1 - x.

    Continued fraction DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), evaluated by Lentz's
    method as modified by Thompson and Barnett; it converges fast for x < (a+1)/(a+b+2), and
    I_x(a, b) = 1 - I_y(b, a) brings every x there.
    """
    if x <= 0 or y <= 0:
        return float(y <= 0)
    turned = x > (a + 1) / (a + b + 2)
    if turned:
        x, y, a, b = y, x, b, a
    fraction, c, d = 1.0, 1.0, 0.0
    for m in range(500):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
        for term in (odd, even):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    log_front = a * math.log(x) + b * math.log(y) - math.log(a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    value = math.exp(log_front - log_beta) / fraction
    return 1 - value if turned else value
