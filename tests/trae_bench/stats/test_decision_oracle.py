"""Tests of the statistics against scipy."""

import math
from random import Random
from typing import Any

import pytest

from trae_bench.model.result import Rule
from trae_bench.stats.decision import (
    DUET_V1,
    SERIAL_V1,
    Row,
    critical_effect,
    estimate,
    looks,
    verdicts,
)
from trae_bench.stats.student_t import t_quantile, t_tail

scipy_stats: Any = pytest.importorskip("scipy.stats")
numpy: Any = pytest.importorskip("numpy")

DEGREES = (*range(1, 61), 80, 100, 119, 150, 200)
TAILS = (0.5, 0.499, 0.4, 0.25, 0.1, 0.05, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)


@pytest.mark.parametrize("tail", TAILS)
def test_t_quantile(tail: float) -> None:
    for df in DEGREES:
        expected = float(scipy_stats.t.isf(tail, df))
        assert t_quantile(tail, df) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_t_tail() -> None:
    for df in DEGREES:
        for t in (-8.0, -1.0, -0.01, 0.0, 1e-6, 0.3, 1.0, 1.7, 2.0, 4.0, 10.0, 40.0, 1e3):
            assert t_tail(t, df) == pytest.approx(float(scipy_stats.t.sf(t, df)), rel=1e-9)


def noisy_row(n: int, rule: Rule, seed: int) -> Row:
    draw = Random(seed)
    a = tuple(draw.uniform(0.5, 2.0) for _ in range(n))
    return Row(a=a, b=tuple(x * math.exp(draw.gauss(0.01, 0.05)) for x in a), rule=rule)


def p_value(row: Row) -> float:
    """P-value of a single look, over all pairs of the row."""
    rule = Rule("once", looks=(len(row.a),), threshold=0.02, margin=0.03, trim=row.rule.trim)
    return verdicts({0: Row(a=row.a, b=row.b, rule=rule)})[0].p


def log_ratios(row: Row) -> list[float]:
    return [math.log(b / a) for a, b in zip(row.a, row.b, strict=True)]


@pytest.mark.parametrize("n", DUET_V1.looks)
def test_duet_rule_is_students_t_test(n: int) -> None:
    row = noisy_row(n, DUET_V1, seed=n)
    test = scipy_stats.ttest_1samp(log_ratios(row), 0.0)
    found = estimate(row)
    assert found is not None
    assert found.interval is not None
    interval = test.confidence_interval(1 - 2 * 0.05 / 6)
    assert found.log_ratio == pytest.approx(interval.low / 2 + interval.high / 2)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(interval))
    assert p_value(row) == pytest.approx(float(test.pvalue))


@pytest.mark.parametrize("n", SERIAL_V1.looks)
def test_serial_rule_is_the_trimmed_t_test(n: int) -> None:
    row = noisy_row(n, SERIAL_V1, seed=n)
    ratios, cut = log_ratios(row), n // 10
    mean = float(scipy_stats.trim_mean(ratios, 0.1))
    spread = float(scipy_stats.mstats.winsorize(numpy.array(ratios), (0.1, 0.1)).std(ddof=1))
    sd = spread / (1 - 2 * cut / n)
    found = estimate(row)
    assert found is not None
    assert (found.log_ratio, found.sd) == pytest.approx((mean, sd))
    p = 2 * scipy_stats.t.sf(abs(mean) / sd * math.sqrt(n), n - 1 - 2 * cut)
    assert p_value(row) == pytest.approx(float(p))


def test_each_look_is_students_t_test() -> None:
    row = noisy_row(60, DUET_V1, seed=3)
    seen = [look for key, look in looks({0: row, 1: Row(a=(), b=())}) if key == 0]
    assert len(seen) > 2
    for look in seen:
        assert look.evidence is not None
        assert look.evidence.fit is not None
        ratios = log_ratios(row)[: look.judgement.look]
        side = "greater" if sum(ratios) > 0 else "less"
        test = scipy_stats.ttest_1samp(ratios, 0.0, alternative=side)
        assert look.evidence.p_direction == pytest.approx(float(test.pvalue))
        assert look.level == pytest.approx(0.01 / 6 / 2)
        # With this spread, the critical effect has a p-value equal to the level.
        error = scipy_stats.sem(ratios)
        reach = float(scipy_stats.t.isf(0.01 / 12, len(ratios) - 1) * error)
        assert critical_effect(look) == pytest.approx(math.expm1(max(reach, math.log(1.02))))
