"""Results that are computed from samples: estimates, verdicts, rows of the table."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from trae_bench.model.experiment import Mode, Name, Text

Verdict = Literal["regression", "improvement", "equivalent", "inconclusive", "not measured"]


class Interval(Struct, frozen=True, forbid_unknown_fields=True):
    """A two-sided confidence interval."""

    low: float
    high: float


class Estimate(Struct, frozen=True, forbid_unknown_fields=True):
    """The effect of side B against side A on one metric, from `n` pairs.

    `log_ratio` is the mean of ln(b/a), trimmed if the rule trims. `interval` is on the same scale.
    """

    n: int
    log_ratio: float | None
    """None if a value is zero or negative; `a`, `b` and `difference` are still set."""
    sd: float
    """Sample standard deviation of the log ratios, Winsorized if the rule trims; 0 without a
    ratio."""
    interval: Interval | None
    """None without a ratio, or with only one pair."""
    a: float
    """Median of side A, in the metric's unit."""
    b: float
    difference: float
    """Median of b - a over the pairs."""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict and its evidence."""

    verdict: Verdict
    look: int
    """Number of pairs at which it was reached; 0 if there was no look."""
    settled: bool
    """The row needs no more pairs."""
    p: float
    """Two-sided p-value at the last look; the null hypothesis is no effect."""


class Pairs(Struct, frozen=True, forbid_unknown_fields=True):
    """How many pairs of one contrast and mode count, and why others do not. Pair 0 is left out."""

    measured: int
    answers_differ: int
    not_measured: int
    reasons: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """The result of the fresh pairs that check a regression."""

    stands: bool
    """They show it as well. If not, the verdict of the row becomes `inconclusive`."""
    wanted: int
    """Number of fresh pairs that it needs: as many as the regression took to find."""
    p: float
    """One-sided p-value of a slowdown in these pairs; 1 if they are too few."""
    estimate: Estimate | None
    """From the first `wanted` pairs; None without any."""
    pairs: Pairs


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table."""

    scenario: Name
    contrast: Name
    metric: Name
    mode: Mode
    estimate: Estimate | None
    judgement: Judgement
    threshold: float
    """Smallest effect worth a verdict (a fraction: 0.02 is 2 %)."""
    pairs: Pairs
    gated: bool = True
    """The verdict counts. A/A rows, and metrics that are too noisy here, are for information."""
    confirmation: Confirmation | None = None
    """Set if the run checks regressions with fresh pairs."""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """When a row is looked at, and what a verdict needs. Raises `ValueError` if inconsistent."""

    name: str
    looks: tuple[int, ...]
    """Numbers of pairs at which the t-test is made: at least 2, increasing. The last one ends."""
    threshold: float
    """Smallest mean effect that gets a verdict (fraction)."""
    margin: float
    """Equivalence margin: effects within ±margin (fraction) count as none. Above `threshold`."""
    alpha: float = 0.01
    """Family-wise error rate of false regressions in a whole run, over all gated rows and looks;
    the same rate applies separately to false improvements."""
    alpha_equivalence: float = 0.05
    """Probability that one row is called equivalent if its true effect is on the margin."""
    trim: float = 0.0
    """Fraction of the pairs trimmed at each end, for noise with outliers; 0 is the plain mean."""
    exact_at: int = 0
    """From this many pairs on, sides without variation are compared exactly; 0 is never."""

    def __post_init__(self) -> None:
        rising = all(m < n for m, n in zip((1, *self.looks), self.looks, strict=False))
        if not self.looks or not rising:
            raise ValueError(f"{self.name}: looks must rise from 2 on: {self.looks}")
        if not (0 <= self.threshold < self.margin and 0 <= self.trim <= 0.25):
            raise ValueError(f"{self.name}: needs 0 <= threshold < margin, 0 <= trim <= 0.25")

    @property
    def level(self) -> float:
        """One-sided error rate at one look, before it is divided among the family."""
        return self.alpha / len(self.looks)

    @property
    def equivalence_level(self) -> float:
        """Error rate of each of the two one-sided tests of equivalence at one look."""
        return self.alpha_equivalence / len(self.looks)

    @property
    def stops(self) -> tuple[int, ...]:
        """Every number of pairs at which a row can be settled."""
        return tuple(sorted({*self.looks, self.exact_at} - {0}))

    def looks_within(self, max_pairs: int | None) -> tuple[int, ...]:
        """The looks of a cell that takes at most `max_pairs` pairs; all of them if None."""
        return tuple(n for n in self.looks if max_pairs is None or n <= max_pairs)

    def trimmed(self, n: int) -> int:
        """Number of values that the trimmed mean of `n` pairs leaves out at each end."""
        return int(self.trim * n)

    def df(self, n: int) -> int:
        """Degrees of freedom of the trimmed mean of `n` pairs (Yuen; see `decision.fit_row`)."""
        return n - 1 - 2 * self.trimmed(n)


Reliability = Literal["gated", "too noisy", "sides differ"]
"""What A/A pairs say about a metric.

    gated         its verdicts count
    too noisy     its verdicts are for information and not part of the run's family
    sides differ  equal sides differ significantly, so no verdict is given
"""


class NoiseEstimate(Struct, frozen=True, forbid_unknown_fields=True):
    """What A/A pairs say about this machine, for one metric of one scenario."""

    scenario: str
    metric: str
    pairs: int
    sd: float
    """Standard deviation of the log ratio of a pair."""
    mean: float
    """Mean log ratio of the two equal sides; far from 0 if the sides are not treated alike."""
    smallest_effect: float
    """Smallest effect (a fraction) that gets a verdict here: the threshold of the rule or, if
    larger, the minimum detectable effect at the last look with 95 % power."""
    reliability: Reliability = "gated"
