"""What samples add up to: estimates, verdicts, rows of the table."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from trae_bench.model.experiment import Mode, Name, Text

Verdict = Literal["regression", "improvement", "equivalent", "inconclusive", "not measured"]


class Interval(Struct, frozen=True, forbid_unknown_fields=True):
    """A two-sided confidence interval."""

    low: float
    high: float


class Estimate(Struct, frozen=True, forbid_unknown_fields=True):
    """Effect of B against A on one metric, from `n` pairs.

    `log_ratio` is the mean of ln(b/a), trimmed where the rule trims; `interval` is on the same
    scale.
    """

    n: int
    log_ratio: float | None
    """None where a value is zero or negative: there is no ratio, only `a`, `b`, `difference`."""
    sd: float
    """Standard deviation of the pairs' log ratios, as observed (Winsorised where the rule trims);
    0 where there is no ratio."""
    interval: Interval | None
    """None where there is no ratio, or only one pair."""
    a: float
    """Median of side A, in the metric's unit."""
    b: float
    difference: float
    """Median of the pairs' b - a."""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict and what it rests on."""

    verdict: Verdict
    look: int
    """Number of pairs at which it was reached; 0 where it was never looked at."""
    settled: bool
    """A settled metric takes no more pairs."""
    p: float
    """Two-sided p-value of no effect at the last look."""


class Pairs(Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the pairs of one contrast and mode; pair 0 is left out."""

    measured: int
    answers_differ: int
    not_measured: int
    reasons: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """What fresh pairs say of a regression that was found."""

    stands: bool
    """They show it, too. Where they do not, the row's verdict is `inconclusive`."""
    wanted: int
    """Fresh pairs that it takes: as many as it took to find it."""
    p: float
    """One-sided p-value of no slowdown in these pairs; 1 where they are too few."""
    estimate: Estimate | None
    """From the first `wanted` of them; None without any."""
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
    """Its verdict counts; that of A/A, or of a metric too noisy here, is for information only."""
    confirmation: Confirmation | None = None
    """Of a regression found in a run that asks for one."""


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """When a row is looked at, and what a verdict takes. Raises `ValueError` if inconsistent."""

    name: str
    looks: tuple[int, ...]
    """Numbers of pairs at which the t-test is made, rising, from 2 on. The last one is the end."""
    threshold: float
    """Smallest mean effect that is worth a verdict (fraction)."""
    margin: float
    """Effects within ±margin (fraction) count as none; more than `threshold`."""
    alpha: float = 0.01
    """False regressions allowed in a whole run, all gated rows and looks together (and as
    many false improvements)."""
    alpha_equivalence: float = 0.05
    """Chance, for one row, to be called equivalent with the true effect on the margin."""
    trim: float = 0.0
    """Share of the pairs left out at each end, for noise with outliers; 0 is the plain mean."""
    exact_at: int = 0
    """At this many pairs, sides that have not varied are compared exactly; 0 is never."""

    def __post_init__(self) -> None:
        rising = all(m < n for m, n in zip((1, *self.looks), self.looks, strict=False))
        if not self.looks or not rising:
            raise ValueError(f"{self.name}: looks must rise from 2 on: {self.looks}")
        if not (0 <= self.threshold < self.margin and 0 <= self.trim <= 0.25):
            raise ValueError(f"{self.name}: needs 0 <= threshold < margin, 0 <= trim <= 0.25")

    @property
    def level(self) -> float:
        """One-sided error allowed at one look, before it is shared among the family."""
        return self.alpha / len(self.looks)

    @property
    def stops(self) -> tuple[int, ...]:
        """Every number of pairs at which something may be settled."""
        return tuple(sorted({*self.looks, self.exact_at} - {0}))


Reliability = Literal["gated", "too noisy", "sides differ"]
"""What A/A pairs say of a metric. gated: its verdicts count. too noisy: they are for information
and take no part in the run's family. sides differ: equal sides do not come out equal, so no
verdict can be trusted, and none is given."""


class NoiseEstimate(Struct, frozen=True, forbid_unknown_fields=True):
    """What A/A pairs say of this machine, for one metric of one scenario."""

    scenario: str
    metric: str
    pairs: int
    sd: float
    """Standard deviation of a pair's log ratio."""
    mean: float
    """Mean log ratio of the two equal sides; far from 0 where the sides are not treated alike."""
    smallest_effect: float
    """Smallest effect (a fraction) that gets a verdict here; found with 95 % power at the last
    look where the noise sets it, not the rule."""
    reliability: Reliability = "gated"
