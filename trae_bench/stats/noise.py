"""Noise estimates from A/A pairs, and which metrics are reliable enough to be gated. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Metric
from trae_bench.model.result import Comparison, Estimate, Judgement, NoiseEstimate, Reliability
from trae_bench.stats.decision import (
    Row,
    estimate,
    minimum_detectable_effect,
    threshold_from_noise,
)
from trae_bench.stats.metric_rules import metric_threshold, rule_of
from trae_bench.stats.pairs import RowKey, SideValues, key_of_row
from trae_bench.stats.student_t import t_tail

MAX_SD = 10.0
"""Upper bound of a standard deviation on the log scale. No machine varies by factors of 20,000,
and the threshold from a larger one would overflow."""

MAX_THRESHOLD = 0.10
"""A metric whose minimum detectable effect (a fraction) is larger than this is not gated."""

BIAS_ALPHA = 6.3e-5
"""Two-sided p-value below which the A/A sides count as different: 4 standard errors if the
spread is known. With few A/A pairs, 4 estimated standard errors are common by chance."""


class AANoise(NamedTuple):
    """Summary of the A/A pairs of one metric."""

    estimate: Estimate | None
    """Trimmed by the same rule as the rows of the metric."""
    varies: bool
    """The values are not all equal."""


NO_AA_PAIRS = AANoise(None, varies=False)


def aa_noise(sides: SideValues, metric: Metric) -> AANoise:
    row = Row(a=tuple(sides[0]), b=tuple(sides[1]), rule=rule_of(metric))
    return AANoise(estimate(row), len({*row.a, *row.b}) > 1)


def aa_key(key: RowKey) -> RowKey:
    """Key of the A/A row with the same scenario and metric."""
    return key._replace(contrast=NOISE_FLOOR)


def family_size(keys: Iterable[RowKey]) -> int:
    """Rows that are gated if no metric is too noisy. The plan fixes this number."""
    return sum(key.contrast != NOISE_FLOOR for key in keys)


def noise_floor(
    rows: Sequence[Comparison], metrics: Mapping[str, Metric], *, family: int | None = None
) -> list[NoiseEstimate]:
    """Noise estimates from the A/A rows. Counts are left out unless their sides differ.

    `family` is the number of other rows of the run, by default the number in `rows`.
    """
    if family is None:
        family = family_size(map(key_of_row, rows))
    estimates = (
        _noise_estimate(row, row.estimate, metrics[row.metric], family)
        for row in rows
        if row.contrast == NOISE_FLOOR and row.estimate is not None
    )
    return [
        noise
        for noise in estimates
        if noise is not None
        and (metrics[noise.metric].mode != "exact" or noise.reliability != "gated")
    ]


def _noise_estimate(
    row: Comparison, aa: Estimate, metric: Metric, family: int
) -> NoiseEstimate | None:
    if aa.log_ratio is None or aa.n < 2:
        return None
    detectable = minimum_detectable_effect(min(aa.sd, MAX_SD), rule_of(metric), family)
    return NoiseEstimate(
        scenario=row.scenario,
        metric=row.metric,
        pairs=aa.n,
        sd=aa.sd,
        mean=aa.log_ratio,
        smallest_effect=max(row.threshold, detectable),
        reliability=reliability_of(aa, metric, family),
    )


def smallest_effect_within(
    noise: NoiseEstimate, metric: Metric, family: int, max_pairs: int | None
) -> float | None:
    """Smallest effect (a fraction) that gets a verdict if a cell takes at most `max_pairs` pairs.

    None if `max_pairs` is less than the first look.
    """
    rule = rule_of(metric)
    looks = rule.looks_within(max_pairs)
    if not looks or looks[-1] == rule.looks[-1]:
        return noise.smallest_effect if looks else None
    # `noise.smallest_effect` is that of the last look; fewer pairs never detect a smaller one.
    detectable = minimum_detectable_effect(min(noise.sd, MAX_SD), rule, family, looks[-1])
    return max(noise.smallest_effect, detectable)


def is_biased(noise: NoiseEstimate) -> bool:
    """Whether a metric is not gated because of the A/A mean, although its spread is small."""
    return noise.reliability == "too noisy" and noise.smallest_effect <= MAX_THRESHOLD


def reliability_of(aa: Estimate | None, metric: Metric, family: int) -> Reliability:
    """Whether a metric can be gated, judged by its A/A pairs. Without A/A pairs it is gated."""
    if aa is None or aa.log_ratio is None or aa.n < 2:
        return "gated"
    if metric.mode == "exact":
        return "sides differ" if aa.log_ratio and not aa.sd else "gated"
    rule, sd = rule_of(metric), min(aa.sd, MAX_SD)
    error, df = sd / math.sqrt(aa.n), rule.df(aa.n)
    bias = abs(aa.log_ratio)
    significant = 2 * t_tail(bias / error, df) < BIAS_ALPHA if error else bias > 0
    # A significant bias that is too small to cause a verdict is harmless.
    if significant and 3 * bias > metric_threshold(metric):
        return "sides differ"
    # A user who asks only for large effects can gate the metric on a noisier machine.
    limit = max(MAX_THRESHOLD, metric.threshold or 0.0)
    too_noisy = threshold_from_noise(min(bias, MAX_SD), sd, rule, family) > limit
    return "too noisy" if too_noisy else "gated"


def clears_noise(
    judgement: Judgement, found: Estimate | None, aa: Estimate | None, metric: Metric, family: int
) -> bool:
    """Whether a verdict on a metric that is too noisy to gate counts all the same.

    Its effect must be beyond all that the noise explains: three times the A/A bias and the
    minimum detectable effect of the A/A spread, significant at the level of the whole family.
    """
    if judgement.verdict not in ("regression", "improvement"):
        return False
    if found is None or found.log_ratio is None or aa is None or aa.log_ratio is None:
        return False
    rule = rule_of(metric)
    bias, sd = (min(abs(value), MAX_SD) for value in (aa.log_ratio, aa.sd))
    needed = math.log1p(threshold_from_noise(bias, sd, rule, family))
    significant = judgement.p / 2 <= rule.level / max(family, 1)
    return significant and abs(found.log_ratio) >= needed


def reliabilities(
    rows: Mapping[RowKey, Row], metrics: Mapping[str, Metric]
) -> dict[RowKey, Reliability]:
    """Reliability of each metric of each scenario, by the key of its A/A row."""
    family = family_size(rows)
    return {
        key: reliability_of(estimate(row), metrics[key.metric], family)
        for key, row in rows.items()
        if key.contrast == NOISE_FLOOR
    }
