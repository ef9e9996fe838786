"""Estimates and verdicts from paired values. Pure: no clock, no file, no randomness.

A `Row` holds one metric of one contrast: the values of side A and side B, pair by pair. Its
`Rule` defines the looks (interim analyses) and the error levels. `verdicts` judges all rows of
a run together, because the significance level of one row depends on the number of rows.
docs/statistics.md explains the rules, their reasons and their limits.

Effects are log ratios, ln(b/a), inside this module. Thresholds and margins are fractions
(0.02 is 2 %).
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from statistics import fmean, median
from typing import Literal, TypeVar

from msgspec import Struct

from trae_bench.model.experiment import Better, Mode
from trae_bench.model.result import Estimate, Interval, Judgement, Rule, Verdict
from trae_bench.stats.student_t import t_quantile, t_tail

MAX_LOG_RATIO = 700.0
"""Largest log ratio that is converted to a ratio; exp() of more overflows a float."""

Key = TypeVar("Key", bound=Hashable)
Direction = Literal["regression", "improvement"]


DUET_V1 = Rule("duet-v1", looks=(8, 12, 16, 24, 36, 60), threshold=0.02, margin=0.03)
# With Gaussian noise, trimming makes the far tail of the test up to 1.2 times as heavy as
# nominal. An alpha of 0.008 keeps the family-wise error rate of a run at 1 %: see
# docs/statistics.md.
SERIAL_V1 = Rule(
    "serial-v1", looks=(8, 12, 20, 40), threshold=0.05, margin=0.10, alpha=0.008, trim=0.1
)
EXACT_V1 = Rule("exact-v1", looks=DUET_V1.looks, threshold=0.02, margin=0.03, exact_at=2)

RULES: dict[Mode, Rule] = {"duet": DUET_V1, "serial": SERIAL_V1, "exact": EXACT_V1}


class Row(Struct, frozen=True, kw_only=True):
    """One metric of one contrast: its valid pairs in order, without the warm-up pair 0.

    `a[i]` and `b[i]` belong to one pair. Raises `ValueError` if the sides differ in length or a
    value is not finite.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    rule: Rule = DUET_V1
    better: Better = "lower"
    threshold: float | None = None
    """Replaces the rule's threshold; the equivalence margin moves by the same amount."""
    requested: float = 0.0
    """Smallest effect (a fraction) that the project wants reported. It can raise the threshold,
    never the equivalence margin."""
    floor_sd: float = 0.0
    """Standard deviation of A/A log ratios on this machine; 0 if unknown."""
    floor_varies: bool = False
    """The A/A pairs have more than one value, so counts are not compared exactly."""
    minimum: float = 0.0
    """Differences up to this, in the metric's unit, count as none, whatever their ratio."""
    gated: bool = True
    """The row belongs to the run's family. Verdicts of other rows are for information."""

    def __post_init__(self) -> None:
        if len(self.a) != len(self.b):
            raise ValueError(f"{len(self.a)} values of A but {len(self.b)} of B")
        if not all(map(math.isfinite, (*self.a, *self.b))):
            raise ValueError("values must be finite")


# Estimates


def estimate(row: Row) -> Estimate | None:
    """Effect over all pairs of the row; None without a pair.

    The interval is the one of the equivalence test: each end is wrong with a probability of at
    most `rule.alpha_equivalence`, at whichever look the row stopped.
    """
    n = len(row.a)
    if not n:
        return None
    sides = {
        "a": median(row.a),
        "b": median(row.b),
        "difference": median(b - a for a, b in zip(row.a, row.b, strict=True)),
    }
    fit = fit_row(row, n)
    if fit is None:
        return Estimate(n=n, log_ratio=None, sd=0.0, interval=None, **sides)
    interval = None
    if n > 1:
        interval = Interval(low=fit.mean - fit.half_width, high=fit.mean + fit.half_width)
    return Estimate(n=n, log_ratio=fit.mean, sd=fit.sd, interval=interval, **sides)


def threshold_of(row: Row) -> float:
    """Smallest effect (a fraction) that gets a verdict in this row, from all its pairs."""
    return threshold_and_margin(row, len(row.a))[0]


def minimum_detectable_effect(
    sd: float, rule: Rule = DUET_V1, family: int = 30, look: int | None = None
) -> float:
    """Effect (a fraction) that is detected with 95 % power in a family of `family` rows.

    `sd` is the standard deviation of the pairs' log ratios; `look` is a number of pairs, by
    default that of the last look. On the log scale the effect is the sum of the t quantiles of
    the level and of 5 %, times the standard error: Bloom, Minimum detectable effects, Evaluation
    Review 19 (1995).
    """
    n = rule.looks[-1] if look is None else look
    df = rule.df(n)
    reach = t_quantile(rule.level / max(family, 1), df) + t_quantile(0.05, df)
    return math.expm1(reach * sd / math.sqrt(n))


def threshold_from_noise(
    aa_mean: float, sd: float, rule: Rule = DUET_V1, family: int = 30
) -> float:
    """Threshold (a fraction) for a machine with this mean and sd of A/A log ratios.

    The maximum of the rule's threshold, three times the A/A bias, and the minimum detectable
    effect.
    """
    return max(rule.threshold, 3 * abs(aa_mean), minimum_detectable_effect(sd, rule, family))


# Verdicts


def verdicts(rows: Mapping[Key, Row]) -> dict[Key, Judgement]:
    """Judge all rows of a run. Depends on the values only, not on when they arrived.

    Pass every planned row, also rows without pairs: the plan fixes the family. Looks are taken
    by increasing number of pairs, and share alpha equally (Bonferroni). A settled row is not
    looked at again, so later pairs change nothing. At each look the rows are tested by increasing
    p-value; after k verdicts of one direction the level is divided by M - k instead of M (Holm, A
    simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6,
    1979). The order of `rows` has no influence.
    """
    judged: dict[Key, Judgement] = {
        key: _NOT_LOOKED_AT if row.a else _NOT_MEASURED for key, row in rows.items()
    }
    judged.update((key, look.judgement) for key, look in looks(rows))
    return judged


_NOT_LOOKED_AT = Judgement(verdict="inconclusive", look=0, settled=False, p=1.0)
_NOT_MEASURED = Judgement(verdict="not measured", look=0, settled=False, p=1.0)


class LookStatistics(Struct, frozen=True):
    """Test results of one row at one look. Without ratios only equivalence can be shown."""

    direction: Direction
    """Direction of the mean effect."""
    p_direction: float
    """One-sided p-value of no effect in that direction."""
    large: bool
    """The mean effect reaches the threshold."""
    within: bool
    """The interval lies within the margin; without ratios, every pair within the minimum. This
    is the test by two one-sided tests: Schuirmann, Journal of Pharmacokinetics and
    Biopharmaceutics 15 (1987)."""
    fit: "Fit | None" = None
    """None if a value has no logarithm."""
    threshold: float = 0.0
    """Threshold at this look (a fraction)."""
    margin: float = 0.0
    """Equivalence margin at this look (a fraction)."""


class Look(Struct, frozen=True):
    """One look at one row and its judgement; `judgement.look` is the number of pairs."""

    judgement: Judgement
    claims: int
    """Rows that share the rule's level: the gated rows minus the verdicts so far (Holm)."""
    level: float
    """Significance level: largest one-sided p-value that gives a verdict."""
    evidence: LookStatistics | None
    """None if constant counts were compared exactly."""


def looks(rows: Mapping[Key, Row]) -> Iterator[tuple[Key, Look]]:
    """Every look that `verdicts` takes, in order; the last look of a row is its verdict."""
    settled: set[Key] = set()
    family = max(1, sum(row.gated for row in rows.values()))
    rejected: dict[Direction, int] = {"regression": 0, "improvement": 0}
    for n in sorted({n for row in rows.values() for n in row.rule.stops}):
        tested: dict[Key, LookStatistics] = {}
        for key, row in rows.items():
            if key in settled or len(row.a) < n:
                continue
            if exact := _judge_exactly(row, n):
                settled.add(key)
                yield key, Look(exact, family, row.rule.level / family, None)
            elif n in row.rule.looks:
                tested[key] = _test(row, n)
        for key in sorted(tested, key=lambda key: tested[key].p_direction):
            row, evidence = rows[key], tested[key]
            claims = family - (rejected[evidence.direction] if row.gated else 0)
            level = row.rule.level / claims
            judgement = _judge(row, evidence, n, level)
            if judgement.settled:
                settled.add(key)
            if row.gated and judgement.verdict == evidence.direction:
                rejected[evidence.direction] += 1
            yield key, Look(judgement, claims, level, evidence)


def critical_effect(look: Look) -> float | None:
    """Smallest mean effect (a fraction) that is significant at this look, given its spread.

    None without ratios.
    """
    if look.evidence is None or (fit := look.evidence.fit) is None:
        return None
    reach = max(t_quantile(look.level, fit.df) * fit.error, math.log1p(look.evidence.threshold))
    return math.expm1(min(reach, MAX_LOG_RATIO))


def direction_of(difference: float, better: Better) -> Direction:
    """Direction of an effect: a difference or log ratio of side B to side A."""
    worse = difference > 0 if better == "lower" else difference < 0
    return "regression" if worse else "improvement"


def _test(row: Row, n: int) -> LookStatistics:
    fit = fit_row(row, n)
    if fit is None:
        pairs = zip(row.a[:n], row.b[:n], strict=True)
        within = all(abs(b - a) <= row.minimum for a, b in pairs)
        return LookStatistics("regression", 1.0, large=False, within=within)
    threshold, margin = threshold_and_margin(row, n)
    # With a standard error of 0 there is no t statistic; the mean alone decides.
    p_without_error = 0.0 if fit.mean else 0.5
    return LookStatistics(
        direction=direction_of(fit.mean, row.better),
        p_direction=t_tail(abs(fit.mean) / fit.error, fit.df) if fit.error else p_without_error,
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


def _judge_exactly(row: Row, n: int) -> Judgement | None:
    """Verdict on constant counts. None if the values vary or the rule has no exact look here."""
    if n != row.rule.exact_at or not is_constant(row, n):
        return None
    difference = row.b[0] - row.a[0]
    size, p = abs(difference), 0.0 if difference else 1.0
    if size <= max(row.minimum, min(row.requested, row.rule.margin) * abs(row.a[0])):
        return Judgement("equivalent", look=n, settled=True, p=p)
    if size <= max_ignored(row):
        return Judgement("inconclusive", look=n, settled=True, p=p)
    return Judgement(direction_of(difference, row.better), look=n, settled=True, p=0.0)


def is_constant(row: Row, n: int) -> bool:
    """Whether neither side varies in the first n pairs, and the A/A pairs do not vary."""
    noisy = row.floor_varies or row.floor_sd
    return not noisy and len(set(row.a[:n])) <= 1 and len(set(row.b[:n])) <= 1


# Statistics of one row, on the log scale


class Fit(Struct, frozen=True):
    """Mean log ratio of the first pairs of a row, and its error."""

    mean: float
    """Trimmed if the rule trims."""
    sd: float
    error: float
    """Standard error of the mean; 0 only if all pairs agree and no A/A noise is known."""
    df: int
    """Degrees of freedom."""
    half_width: float
    """Half width of the interval of the equivalence test."""


def fit_row(row: Row, n: int) -> Fit | None:
    """Trimmed mean of the log ratios of the first n pairs; None if a value has no logarithm.

    The standard error of a trimmed mean uses the Winsorized values, in which each trimmed value
    is replaced by the nearest value kept: Yuen, The two-sample trimmed t for unequal population
    variances, Biometrika 61 (1974). Without trimming this is Student's t.
    """
    ratios = log_ratios(row, n)
    if ratios is None:
        return None
    ratios.sort()
    cut = row.rule.trimmed(n)
    kept = ratios[cut : n - cut]
    sd = _sd([kept[0]] * cut + kept + [kept[-1]] * cut) / (1 - 2 * cut / n)
    # The sd of few pairs can fall far below the machine's noise by chance; half the A/A sd is
    # the lower bound.
    error = max(sd, row.floor_sd / 2) / math.sqrt(n)
    df = row.rule.df(n)
    half_width = t_quantile(row.rule.equivalence_level, df) * error if error and df else 0.0
    return Fit(fmean(kept), sd, error, df, half_width)


def log_ratios(row: Row, n: int | None = None) -> list[float] | None:
    """ln(b/a) of the first n pairs, by default of all; None if a value has no logarithm."""
    a, b = row.a[:n], row.b[:n]
    if any(value <= 0 for value in (*a, *b)):
        return None
    return [math.log(of_b) - math.log(of_a) for of_a, of_b in zip(a, b, strict=True)]


def _sd(values: list[float]) -> float:
    # The sd of equal values can be a rounding error, which must not become a divisor.
    if len(set(values)) < 2:
        return 0.0
    # `statistics.stdev` computes with fractions, which takes ten times as long.
    mean = fmean(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1))


def threshold_and_margin(row: Row, n: int) -> tuple[float, float]:
    """Threshold and equivalence margin (fractions), raised if `minimum` requires it.

    `requested` raises the threshold only, so that "equivalent" keeps its meaning.
    """
    rule = row.rule
    threshold = rule.threshold if row.threshold is None else row.threshold
    if row.minimum and n:
        smaller_side = min(median(row.a[:n]), median(row.b[:n]))
        if smaller_side > 0:
            threshold = max(threshold, row.minimum / smaller_side)
    return max(threshold, row.requested), margin_at(threshold, rule)


def margin_at(threshold: float, rule: Rule) -> float:
    """Equivalence margin at a threshold without the project's part (fractions)."""
    return threshold + rule.margin - rule.threshold


def max_ignored(row: Row) -> float:
    """Largest difference, in the metric's unit, that is no change in counts compared exactly."""
    if not row.rule.exact_at or not row.a:
        return row.minimum
    return max(row.minimum, row.requested * abs(median(row.a[: row.rule.exact_at])))
