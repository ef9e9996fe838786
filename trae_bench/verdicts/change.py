"""One change between two stored runs: its estimate, its drift and its interval. Pure.

`run_diff` describes the kinds of changes and how they are judged.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.model.experiment import Better, Metric, Mode
from trae_bench.model.result import Interval, Verdict
from trae_bench.stats.decision import (
    MAX_LOG_RATIO,
    RULES,
    Fit,
    Row,
    direction_of,
    fit_row,
    margin_at,
    threshold_and_margin,
)
from trae_bench.stats.metric_rules import MEMORY, default_threshold, metric_minimum, rule_of
from trae_bench.stats.noise import MAX_SD, reliability_of
from trae_bench.stats.pairs import RowKey
from trae_bench.stats.student_t import t_quantile, t_tail, welch_satterthwaite
from trae_bench.verdicts.run_data import RunData

Kind = Literal["counter", "toggle ratio", "memory", "absolute", "new", "gone", "incompatible"]
"""new: only in the head. gone: only in the base. incompatible: in both, but not comparable."""

TIME_DRIFT = 0.15
"""Minimum drift of times and rates between two runs on one machine, as a standard deviation on
the log scale; see `run_diff`. A/A pairs show only the drift of minutes, and can only raise it."""
MEMORY_DRIFT = 0.05
"""Minimum drift of all other metrics. Memory differed by 0.2 % between the machines described in
`run_diff`; another build of Python, or other allocator settings, can change it by some percent."""
DRIFT_DF = 7
"""Degrees of freedom of a drift, from the default of eight A/A pairs."""
FAMILY_ALPHA = 0.01
"""Family-wise error rate of all gated rows, for each direction."""
MIN_CONSTANT_VALUES = 2
"""Minimum number of equal values of each run for a count to be taken as constant."""

PORTABLE_COUNTERS = frozenset(
    {"requests", "connections", "handshakes", "request_bytes", "correct_results"}
)
"""Counters that depend only on what the agent does, not on the machine or its Python."""
ROUNDING_ERROR = 1e-9
"""Log ratios up to this count as 0: equal values, summed in a different order."""

OTHER_KIND = "another kind of machine"


class Change(Struct, frozen=True):
    """One row: a metric in the base and in the head."""

    kind: Kind
    scenario: str
    subject: str = ""
    """The contrast of a toggle ratio, the arm of any other kind; empty for all of them."""
    metric: str = ""
    """Empty for all metrics."""
    mode: Mode = "exact"
    unit: str = ""
    """Unit of `base` and `head`."""
    better: Better = "lower"
    base: float | None = None
    """Median; for a toggle ratio, the ratio."""
    head: float | None = None
    values: tuple[int, int] = (0, 0)
    """Number of values of each run; for a toggle ratio, of pairs."""
    log_ratio: float | None = None
    """ln(head / base)."""
    interval: Interval | None = None
    """Interval of `log_ratio`; for `absolute` it includes the drift."""
    threshold: float = 0.0
    """Smallest change (a fraction) that gets a verdict; for a toggle ratio it includes the
    drift."""
    margin: float = 0.0
    """Equivalence margin (a fraction)."""
    exact: bool = False
    """The values of each run are constant and were compared exactly."""
    p: float = 1.0
    """One-sided p-value of no change, corrected for the number of looks, for Holm's method at
    `FAMILY_ALPHA`. 1 if there is no test."""
    verdict: Verdict = "not measured"
    gated: bool = False
    note: str = ""
    """Why there is no verdict, or why it is for information only."""


def drift_of_ratio(log_ratio: float, drift: float) -> float:
    """Largest change of a log ratio of on to off that the drift can cause.

    Suppose off = common + extra and on = common. If the two parts drift by different factors,
    ln(on / off) changes, to first order, by the share of the extra part, 1 - on / off, times the
    difference of the logarithms of the factors, which is at most `drift`. For the session in
    the docstring of `run_diff` this is 0.12 times 0.37, or 4.5 %. The measured ratio of
    `batched_trajectory` was 0.917 on one machine and 0.878 on the other, a difference of 4.3 %.
    """
    return -math.expm1(-abs(log_ratio)) * drift


def is_time(metric: Metric) -> bool:
    """Whether the metric is a time or a rate."""
    return metric.unit not in ("", "B")


def min_drift(metric: Metric) -> float:
    return TIME_DRIFT if is_time(metric) else MEMORY_DRIFT


def toggle_ratio_change(
    key: RowKey, metric: Metric, drift: float, base: RunData, head: RunData
) -> Change:
    """Change of the ratio of on to off. `drift` widens the threshold, see `drift_of_ratio`."""
    change = _unjudged("toggle ratio", key, metric)
    rows = [row for run in (base, head) if (row := run.rows.get(key)) is not None]
    if len(rows) < 2:
        return replace(change, note="planned in one of the runs only")
    reliability = {reliability_of(run.noise_of(key), metric, run.family) for run in (base, head)}
    noisy = "too noisy" in reliability
    change = replace(
        change,
        values=(len(rows[0].a), len(rows[1].a)),
        gated=not noisy,
        note="too noisy in one of the runs" if noisy else "",
    )
    if "sides differ" in reliability:
        return replace(change, note="the A/A sides differ in one of the runs")
    fits = _fits(rows)
    if fits is None:
        return replace(change, note="no pair, or values of zero, in one of the runs")
    larger_effect = max(fits, key=lambda fit: abs(fit.mean)).mean
    limits = [threshold_and_margin(row, len(row.a)) for row in rows]
    # The drift can only widen both limits; the settings raise the threshold only.
    threshold, margin = (
        max(of) + drift_of_ratio(larger_effect, drift) for of in zip(*limits, strict=True)
    )
    ratios = [math.exp(min(fit.mean, MAX_LOG_RATIO)) for fit in fits]
    change = replace(change, base=ratios[0], head=ratios[1])
    return _with_interval(change, fits, threshold, margin)


def arm_change(
    key: RowKey, metric: Metric, base: RunData, head: RunData, same_kind: bool
) -> Change:
    """Change of the median of one arm; `key` names the arm instead of a contrast."""
    kind = _kind_of(metric)
    portable = same_kind or (kind == "counter" and metric.name in PORTABLE_COUNTERS)
    values = base.values.get(key, ()), head.values.get(key, ())
    change = replace(
        _unjudged(kind, key, metric),
        unit=metric.unit,
        values=(len(values[0]), len(values[1])),
        gated=portable and kind != "absolute",
        note="" if portable else OTHER_KIND,
    )
    if not all(values):
        return replace(change, note="no value in one of the runs")
    medians = median(values[0]), median(values[1])
    change = replace(change, base=medians[0], head=medians[1])
    definitions = [run.header.metrics[metric.name] for run in (base, head)]
    minimum = min(map(metric_minimum, definitions))
    requested = max(one.threshold or 0.0 for one in definitions)
    if kind == "counter" and len({*values[0]}) == len({*values[1]}) == 1:
        return _compared_exactly(change, minimum, requested)
    # With side A constant at 1, the ratios are the values themselves.
    fits = _fits([Row(a=(1.0,) * len(b), b=tuple(b), rule=rule_of(metric)) for b in values])
    if fits is None:
        return replace(change, note="values of zero have no ratio")
    if kind == "absolute" and not portable:
        log_ratio = fits[1].mean - fits[0].mean
        return replace(change, log_ratio=log_ratio, verdict="inconclusive")
    of_kind = MEMORY_DRIFT if kind == "memory" else 0.0
    own = max(of_kind, minimum / min(medians), *map(default_threshold, definitions))
    drift = _drift(key, metric, (base, head)) if kind == "absolute" else 0.0
    margin = margin_at(own, rule_of(metric))
    return _with_interval(change, fits, max(own, requested), margin, drift)


def _unjudged(kind: Kind, key: RowKey, metric: Metric) -> Change:
    """A row without figures and without a verdict."""
    scenario, subject, name = key
    return Change(kind, scenario, subject, name, metric.mode, better=metric.better)


def _kind_of(metric: Metric) -> Kind:
    if metric.mode == "exact":
        return "counter"
    return "memory" if metric.name in MEMORY else "absolute"


def _drift(key: RowKey, metric: Metric, runs: Iterable[RunData]) -> float:
    """Drift between two days, as a standard deviation; at least that of the A/A pairs."""
    sds = [noise.sd for run in runs if (noise := run.noise_of(key)) is not None]
    return min(MAX_SD, max([min_drift(metric), *sds]))


def _fits(rows: Sequence[Row]) -> tuple[Fit, Fit] | None:
    """Fits of the base and the head; None if one of them has no value, or one without a log."""
    if not all(row.a for row in rows):
        return None
    base, head = (fit_row(row, len(row.a)) for row in rows)
    return None if base is None or head is None else (base, head)


def _compared_exactly(change: Change, minimum: float, requested: float) -> Change:
    """Verdict on constant counts, by the rule of `decision` for them."""
    assert change.base is not None and change.head is not None
    difference = change.head - change.base
    if min(change.values) < MIN_CONSTANT_VALUES:
        return replace(change, verdict="inconclusive", note="a single value may vary")
    size, unit = abs(difference), abs(change.base)
    verdict: Verdict = direction_of(difference, change.better)
    if size <= max(minimum, min(requested, RULES[change.mode].margin) * unit):
        verdict = "equivalent"
    elif size <= requested * unit:
        verdict = "inconclusive"
    return replace(change, exact=True, p=0.0 if difference else 1.0, verdict=verdict)


def _with_interval(
    change: Change, fits: tuple[Fit, Fit], threshold: float, margin: float, drift: float = 0.0
) -> Change:
    """The change with its interval and p-value. `drift` enters once for each of the two runs."""
    base, head = fits
    rule = RULES[change.mode]
    mean = head.mean - base.mean
    change = replace(
        change,
        log_ratio=mean if abs(mean) > ROUNDING_ERROR else 0.0,
        threshold=threshold,
        margin=margin,
        verdict="inconclusive",
    )
    needed = rule.looks[0]
    if min(change.values) < needed:
        return replace(change, note=change.note or f"a verdict needs {needed} values of each run")
    error, df = welch_satterthwaite(
        [(base.error, base.df), (head.error, head.df), *[(drift, DRIFT_DF)] * 2]
    )
    # With a standard error of 0 there is no t statistic; the mean alone decides.
    half, tail = 0.0, float(change.log_ratio == 0)
    if error:
        half = error * t_quantile(rule.equivalence_level, df)
        tail = t_tail(abs(mean) / error, df)
    return replace(
        change,
        interval=Interval(mean - half, mean + half),
        p=min(1.0, tail * FAMILY_ALPHA / rule.level),
    )
