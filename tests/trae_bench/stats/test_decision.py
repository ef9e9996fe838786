"""Tests of estimates, verdicts and looks."""

import math
from random import Random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from trae_bench.model.experiment import Better
from trae_bench.model.result import Interval, Judgement, Rule, Verdict
from trae_bench.stats.decision import (
    DUET_V1,
    EXACT_V1,
    RULES,
    SERIAL_V1,
    Row,
    critical_effect,
    estimate,
    log_ratios,
    looks,
    minimum_detectable_effect,
    threshold_and_margin,
    threshold_from_noise,
    threshold_of,
    verdicts,
)
from trae_bench.stats.student_t import t_quantile

MIRRORED: dict[Verdict, Verdict] = {"regression": "improvement", "improvement": "regression"}


def noisy(
    effect: float,
    n: int,
    *,
    seed: int = 1,
    sd: float = 0.02,
    rule: Rule = DUET_V1,
    better: Better = "lower",
    gated: bool = True,
    minimum: float = 0.0,
) -> Row:
    """Pairs whose log ratios scatter around ln(1 + effect)."""
    draw = Random(seed)
    a = tuple(draw.uniform(90, 110) for _ in range(n))
    b = tuple(x * (1 + effect) * math.exp(draw.gauss(0, sd)) for x in a)
    return Row(a=a, b=b, rule=rule, better=better, gated=gated, minimum=minimum)


def judge(row: Row, family: int = 1) -> Judgement:
    """Judgement of the row in a family with rows that have no pairs."""
    empty = {i: Row(a=(), b=()) for i in range(1, family)}
    return verdicts({0: row, **empty})[0]


def changed(row: Row, **changes: Any) -> Row:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return Row(**{**fields, **changes})


def first(row: Row, n: int) -> Row:
    return changed(row, a=row.a[:n], b=row.b[:n])


# Estimates


def test_estimate() -> None:
    found = estimate(Row(a=(1.0, 2.0, 4.0), b=(2.0, 4.0, 8.0)))
    assert found is not None
    assert (found.n, found.a, found.b, found.difference) == (3, 2.0, 4.0, 2.0)
    assert found.log_ratio == pytest.approx(math.log(2))
    assert found.sd == pytest.approx(0, abs=1e-12)


def test_identical_pairs_have_no_spread() -> None:
    found = estimate(Row(a=(0.1,) * 7, b=(0.3,) * 7))
    assert found is not None
    assert found.sd == 0
    assert found.log_ratio == pytest.approx(math.log(3))
    assert found.interval == Interval(math.log(0.3) - math.log(0.1), math.log(0.3) - math.log(0.1))


def test_one_pair_has_no_interval() -> None:
    found = estimate(Row(a=(1.0,), b=(2.0,)))
    assert found is not None
    assert found.interval is None


@pytest.mark.parametrize("b", [(0.0, 3.0), (-1.0, 3.0)])
def test_nonpositive_values_have_no_ratio(b: tuple[float, float]) -> None:
    found = estimate(Row(a=(1.0, 2.0), b=b))
    assert found is not None
    assert (found.log_ratio, found.interval, found.a) == (None, None, 1.5)


def test_no_estimate_without_pairs() -> None:
    assert estimate(Row(a=(), b=())) is None


def test_aa_noise_widens_the_interval() -> None:
    row = noisy(0, 8, sd=0.001)
    without_aa, with_aa = estimate(row), estimate(changed(row, floor_sd=0.02))
    assert without_aa is not None
    assert with_aa is not None
    assert without_aa.interval is not None
    assert with_aa.interval is not None
    assert without_aa.sd == with_aa.sd
    width = with_aa.interval.high - with_aa.interval.low
    assert width == pytest.approx(2 * t_quantile(0.05 / 6, 7) * 0.01 / math.sqrt(8))


def test_trimming_limits_outliers() -> None:
    def mean_with_outlier(rule: Rule) -> float:
        row = noisy(0, 20, rule=rule)
        found = estimate(Row(a=row.a, b=(row.b[0] * 5, *row.b[1:]), rule=rule))
        assert found is not None
        assert found.log_ratio is not None
        return found.log_ratio

    assert mean_with_outlier(DUET_V1) > 0.07
    assert abs(mean_with_outlier(SERIAL_V1)) < 0.01


# Single verdicts


@pytest.mark.parametrize(
    ("effect", "better", "verdict"),
    [
        (0.10, "lower", "regression"),
        (-0.10, "lower", "improvement"),
        (0.10, "higher", "improvement"),
        (-0.10, "higher", "regression"),
        (0.0, "lower", "equivalent"),
    ],
)
def test_verdicts_of_clear_cases(effect: float, better: Better, verdict: Verdict) -> None:
    found = judge(noisy(effect, 60, better=better), family=30)
    assert (found.verdict, found.settled) == (verdict, True)
    assert found.look <= 16


def test_small_effect_is_equivalent() -> None:
    found = judge(noisy(0.012, 60, sd=0.005))
    assert found.verdict == "equivalent"
    assert found.p < 0.01


def test_large_noise_is_inconclusive() -> None:
    found = judge(noisy(0.02, 60, sd=0.3))
    assert (found.verdict, found.look, found.settled) == ("inconclusive", 60, True)


def test_no_verdict_between_looks() -> None:
    row = noisy(0.10, 16, sd=0.001)
    assert judge(first(row, 7)) == Judgement("inconclusive", look=0, settled=False, p=1.0)
    assert judge(first(row, 8)).verdict == "regression"
    open_row = noisy(0.02, 14, sd=0.1)
    assert judge(open_row) == judge(first(open_row, 12))
    assert (judge(open_row).look, judge(open_row).settled) == (12, False)


def test_row_without_pairs_is_not_measured() -> None:
    assert judge(Row(a=(), b=())) == Judgement("not measured", look=0, settled=False, p=1.0)


def test_values_without_a_ratio_settle_the_row() -> None:
    row = Row(a=(1.0,) * 8, b=(0.0,) * 8)
    assert judge(row) == Judgement("not measured", look=8, settled=True, p=1.0)


def test_equal_zeros_are_equivalent() -> None:
    assert judge(Row(a=(0.0,) * 8, b=(0.0,) * 8)).verdict == "equivalent"
    small = Row(a=(0.0, 1.0) * 4, b=(1.0, 0.5) * 4)
    assert judge(small).verdict == "not measured"
    assert judge(changed(small, minimum=1.0)).verdict == "equivalent"


@pytest.mark.parametrize("minimum", [0.0, 4.0, 6.0])
def test_difference_below_the_minimum_is_equivalent(minimum: float) -> None:
    row = noisy(0.05, 60, sd=0.002)
    found = judge(changed(row, minimum=minimum))
    assert found.verdict == ("regression" if minimum < 5 else "equivalent")
    smaller_side = sorted(row.a)[30]
    assert threshold_of(changed(row, minimum=50.0)) == pytest.approx(50 / smaller_side, rel=0.02)


def test_minimum_uses_only_pairs_of_the_look() -> None:
    row = changed(noisy(0.05, 8, sd=0.002), minimum=4.0)
    smaller_later = changed(row, a=row.a + (1.0,) * 20, b=row.b + (1.0,) * 20)
    assert judge(smaller_later) == judge(row)
    assert judge(row).verdict == "regression"


def test_threshold_of_a_row_moves_the_margin() -> None:
    row = noisy(0.05, 60, sd=0.002)
    assert judge(row).verdict == "regression"
    assert judge(changed(row, threshold=0.08)).verdict == "equivalent"
    assert threshold_of(changed(row, threshold=0.08)) == 0.08


@pytest.mark.parametrize("requested", [0.01, 0.08, 0.9])
def test_requested_threshold_never_moves_the_margin(requested: float) -> None:
    """A change between the margin and the threshold is not called equivalent."""
    for rule in RULES.values():
        assert threshold_and_margin(
            changed(noisy(0.05, 60), rule=rule, requested=requested), 60
        ) == (
            max(rule.threshold, requested),
            pytest.approx(rule.margin),
        )
    row = noisy(0.05, 60, sd=0.002)
    expected = "regression" if requested < 0.05 else "inconclusive"
    assert judge(changed(row, requested=requested)).verdict == expected
    assert judge(changed(noisy(0.0, 60, sd=0.002), requested=requested)).verdict == "equivalent"


@pytest.mark.parametrize(
    ("head", "requested", "verdict"),
    [
        (102.0, 0.0, "regression"),
        (102.0, 0.01, "regression"),
        (102.0, 0.5, "equivalent"),
        (127.0, 0.5, "inconclusive"),
        (160.0, 0.5, "regression"),
    ],
)
def test_requested_threshold_of_a_count(head: float, requested: float, verdict: str) -> None:
    row = Row(a=(100.0,) * 2, b=(head,) * 2, rule=EXACT_V1, requested=requested)
    assert judge(row) == Judgement(verdict, 2, True, 0.0)  # type: ignore[arg-type]


def test_quiet_pairs_on_a_noisy_machine_are_inconclusive() -> None:
    row = noisy(0.03, 8, sd=0.001)
    assert judge(row).verdict == "regression"
    assert judge(changed(row, floor_sd=0.08)).verdict == "inconclusive"


def test_zero_spread() -> None:
    assert judge(Row(a=(100.0,) * 8, b=(100.0,) * 8)).verdict == "equivalent"
    assert judge(Row(a=(100.0,) * 8, b=(103.0,) * 8)) == Judgement("regression", 8, True, 0.0)
    assert judge(Row(a=(100.0,) * 8, b=(101.0,) * 8)).verdict == "equivalent"


# Counts


@pytest.mark.parametrize(
    ("a", "b", "better", "verdict"),
    [
        (120, 121, "lower", "regression"),
        (121, 120, "lower", "improvement"),
        (120, 121, "higher", "improvement"),
        (120, 120, "lower", "equivalent"),
        (0, 1, "lower", "regression"),
        (0, 0, "lower", "equivalent"),
    ],
)
def test_constant_counts(a: float, b: float, better: Better, verdict: Verdict) -> None:
    found = judge(Row(a=(a, a), b=(b, b), rule=EXACT_V1, better=better), family=1000)
    assert (found.verdict, found.look, found.settled) == (verdict, 2, True)


def test_a_count_needs_two_pairs() -> None:
    assert not judge(Row(a=(1.0,), b=(2.0,), rule=EXACT_V1)).settled


def test_a_count_within_the_minimum_is_equivalent() -> None:
    assert judge(Row(a=(9, 9), b=(10, 10), rule=EXACT_V1, minimum=1)).verdict == "equivalent"


def test_varying_counts_are_judged_like_a_duet() -> None:
    row = noisy(0.10, 60)
    assert judge(Row(a=row.a, b=row.b, rule=EXACT_V1)) == judge(row)
    assert judge(Row(a=row.a[:2], b=row.b[:2], rule=EXACT_V1)).look == 0


# Families


def test_larger_family_lowers_the_level() -> None:
    row = noisy(0.04, 8, sd=0.015)
    assert judge(row, family=1).verdict == "regression"
    assert judge(row, family=1000).verdict == "inconclusive"


def test_holm_raises_the_level_of_remaining_rows() -> None:
    small_effect = noisy(0.05, 8, sd=0.03, seed=3)
    family = next(m for m in range(2, 50) if judge(small_effect, m).verdict == "inconclusive")
    clear = {i: noisy(0.5, 8, seed=i) for i in range(1, family)}
    assert verdicts({0: small_effect, **clear})[0].verdict == "regression"
    # Verdicts of the other direction do not help: each direction is a family.
    faster = {i: noisy(-0.5, 8, seed=i) for i in range(1, family)}
    assert verdicts({0: small_effect, **faster})[0].verdict == "inconclusive"


def test_ungated_rows_are_outside_the_family() -> None:
    small_effect = noisy(0.05, 8, sd=0.03, seed=3)
    family = next(m for m in range(2, 50) if judge(small_effect, m).verdict == "inconclusive")
    for_information = {i: noisy(0.5, 8, seed=i, gated=False) for i in range(1, family)}
    found = verdicts({0: small_effect, **for_information})
    assert {judgement.verdict for judgement in found.values()} == {"regression"}
    empty = {i: Row(a=(), b=()) for i in range(family + 1, 2 * family)}
    assert verdicts({0: small_effect, **for_information, **empty})[0].verdict == "inconclusive"


def test_rules_share_one_family() -> None:
    rows = {
        "cpu": noisy(0.10, 60),
        "wall": noisy(0.50, 40, sd=0.1, rule=SERIAL_V1),
        "imports": Row(a=(10, 10), b=(11, 11), rule=EXACT_V1),
    }
    assert {judgement.verdict for judgement in verdicts(rows).values()} == {"regression"}


# Thresholds


def test_threshold_from_noise_estimate() -> None:
    assert threshold_from_noise(0.0, 0.018) == 0.02
    assert threshold_from_noise(-0.01, 0.018) == pytest.approx(0.03)
    assert threshold_from_noise(0.0, 0.04) == pytest.approx(0.75 * 0.04, rel=0.03)
    assert threshold_from_noise(0.0, 0.02, SERIAL_V1) == 0.05


def test_minimum_detectable_effect_has_95_percent_power() -> None:
    sd = 0.1
    effect = minimum_detectable_effect(sd, family=10)
    found = [judge(noisy(effect, 60, seed=i, sd=sd), 10).verdict for i in range(100)]
    assert 88 <= found.count("regression") <= 100


@pytest.mark.parametrize(
    ("looks", "threshold", "trim"),
    [((), 0.02, 0), ((1, 2), 0.02, 0), ((8, 8), 0.02, 0), ((8,), 0.03, 0), ((8,), 0.02, 0.3)],
)
def test_invalid_rules(looks: tuple[int, ...], threshold: float, trim: float) -> None:
    with pytest.raises(ValueError, match="odd: "):
        Rule("odd", looks=looks, threshold=threshold, margin=0.03, trim=trim)


@pytest.mark.parametrize(("a", "b"), [((1.0,), ()), ((1.0,), (math.nan,)), ((math.inf,), (1.0,))])
def test_invalid_rows(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="values"):
        Row(a=a, b=b)


def test_quantile_rejects_tails_above_one_half() -> None:
    with pytest.raises(ValueError, match=r"0\.6"):
        t_quantile(0.6, 5)


# Properties of all rows. Effects and noise are chosen so that every verdict occurs. No effect
# equals a threshold or margin, at which rounding would decide.

noisy_rows = st.builds(
    noisy,
    effect=st.sampled_from([-0.3, -0.06, -0.025, 0.0, 0.012, 0.025, 0.06, 0.3]),
    n=st.integers(0, 60),
    seed=st.integers(0, 2**16),
    sd=st.sampled_from([0.0, 0.005, 0.02, 0.06, 0.2]),
    rule=st.sampled_from([DUET_V1, SERIAL_V1, EXACT_V1]),
    better=st.sampled_from(["lower", "higher"]),
    gated=st.booleans(),
    minimum=st.sampled_from([0.0, 0.0, 0.5, 2.2, 5.5, 20.0]),
)
families = st.lists(noisy_rows, min_size=1, max_size=6).map(lambda rows: dict(enumerate(rows)))


@given(families, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(rows: dict[int, Row], draw: Random) -> None:
    keys = list(rows)
    draw.shuffle(keys)
    assert verdicts({key: rows[key] for key in keys}) == verdicts(rows)


@given(noisy_rows, st.randoms(use_true_random=False))
def test_pair_order_within_a_look_does_not_matter(row: Row, draw: Random) -> None:
    row = first(row, row.rule.looks[0])
    pairs = list(zip(row.a, row.b, strict=True))
    draw.shuffle(pairs)
    shuffled = changed(row, a=tuple(a for a, _ in pairs), b=tuple(b for _, b in pairs))
    assert judge(shuffled) == judge(row)


@given(families, st.sampled_from([2.0**-20, 0.5, 2.0, 1024.0]))
def test_unit_does_not_matter(rows: dict[int, Row], factor: float) -> None:
    scaled = {
        key: changed(
            row,
            a=tuple(factor * x for x in row.a),
            b=tuple(factor * x for x in row.b),
            minimum=factor * row.minimum,
        )
        for key, row in rows.items()
    }
    before, after = verdicts(rows), verdicts(scaled)
    for key in rows:
        assert after[key].verdict == before[key].verdict
        assert after[key].look == before[key].look
        assert after[key].p == pytest.approx(before[key].p, abs=1e-9)


@given(families)
def test_swapped_sides_mirror_the_verdict(rows: dict[int, Row]) -> None:
    before = verdicts(rows)
    after = verdicts({key: changed(row, a=row.b, b=row.a) for key, row in rows.items()})
    for key, judgement in before.items():
        assert after[key].verdict == MIRRORED.get(judgement.verdict, judgement.verdict)
        assert after[key].look == judgement.look


@given(families)
def test_pairs_after_settling_change_nothing(rows: dict[int, Row]) -> None:
    whole = verdicts(rows)
    until_settled = {
        key: first(row, whole[key].look) if whole[key].settled else row for key, row in rows.items()
    }
    assert verdicts(until_settled) == whole


@given(families, st.integers(0, 60))
def test_verdicts_persist_as_pairs_arrive(rows: dict[int, Row], n: int) -> None:
    early = verdicts({key: first(row, n) for key, row in rows.items()})
    late = verdicts(rows)
    for key, judgement in early.items():
        if judgement.settled:
            assert late[key].settled
            assert late[key].look <= judgement.look
        if judgement.verdict in MIRRORED:
            assert late[key].verdict == judgement.verdict


@given(families)
def test_holm_rejects_all_that_bonferroni_rejects(rows: dict[int, Row]) -> None:
    together = verdicts(rows)
    family = sum(row.gated for row in rows.values())
    for key, row in rows.items():
        alone = judge(row, family if row.gated else family + 1)
        if alone.verdict in MIRRORED:
            assert together[key].verdict == alone.verdict


@given(noisy_rows, st.sampled_from([0.05, 0.2, 1.0]))
def test_aa_noise_never_helps_a_verdict(row: Row, floor_sd: float) -> None:
    before, after = judge(row), judge(changed(row, floor_sd=floor_sd))
    if after.verdict in (*MIRRORED, "equivalent") and after.look > 2:
        assert before.look <= after.look
        assert before.verdict != "inconclusive"


@given(noisy_rows)
def test_the_interval_agrees_with_the_verdict(row: Row) -> None:
    row = changed(row, minimum=0.0)
    found = judge(row)
    shown = estimate(first(row, found.look))
    if shown is None or shown.interval is None or found.look == 2:
        return
    low, high = shown.interval.low, shown.interval.high
    if found.verdict in MIRRORED:
        assert low > 0 or high < 0
    if found.verdict == "equivalent":
        margin = math.log1p(row.rule.margin)
        assert -margin <= low <= high <= margin


# Family-wise error rate of a run


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X binomial."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def gaussian(draw: Random) -> float:
    return draw.gauss(0, 0.05)


def heavy(draw: Random) -> float:
    """The standard deviation of one pair in ten is six times as large."""
    return draw.gauss(0, 0.3 if draw.random() < 0.1 else 0.05)


@pytest.mark.parametrize("noise", [gaussian, heavy])
@pytest.mark.parametrize("rule", [DUET_V1, SERIAL_V1], ids=lambda rule: rule.name)
def test_family_wise_error_rate(rule: Rule, noise: object) -> None:
    # With a threshold of 0, only the test limits the error rate, over all looks and two rows.
    assert callable(noise)
    draw, runs, false = Random(2), 1000, {"regression": 0, "improvement": 0}
    for _ in range(runs):
        rows = {
            key: Row(
                a=(1.0,) * rule.looks[-1],
                b=tuple(math.exp(noise(draw)) for _ in range(rule.looks[-1])),
                rule=rule,
                threshold=0.0,
            )
            for key in range(2)
        }
        seen = {judgement.verdict for judgement in verdicts(rows).values()}
        for direction in false:
            false[direction] += direction in seen
    for count in false.values():
        assert binomial_tail(count, runs, 0.01) > 1e-4


def test_each_mode_has_its_rule() -> None:
    assert {mode: rule.name for mode, rule in RULES.items()} == {
        "duet": "duet-v1",
        "serial": "serial-v1",
        "exact": "exact-v1",
    }


# Looks


@given(seed=st.integers(0, 500), effect=st.floats(-0.1, 0.1))
def test_looks_are_in_order_until_settled(seed: int, effect: float) -> None:
    rows = {
        "one": noisy(effect, 60, seed=seed, sd=0.05),
        "few": noisy(-effect, 20, seed=seed + 1),
        "serial": noisy(effect, 40, seed=seed + 2, sd=0.1, rule=SERIAL_V1),
        "none": Row(a=(), b=()),
    }
    for key, judgement in verdicts(rows).items():
        of_row = [look.judgement for of, look in looks(rows) if of == key]
        assert [taken.look for taken in of_row] == list(rows[key].rule.looks[: len(of_row)])
        assert not any(taken.settled for taken in of_row[:-1])
        assert not of_row or of_row[-1] == judgement
        assert bool(of_row) == (len(rows[key].a) >= 8)


def test_level_rises_after_each_verdict() -> None:
    rows = {seed: noisy(0.5, 8, seed=seed) for seed in range(3)} | {"empty": Row(a=(), b=())}
    claims = [(look.claims, look.level) for _, look in looks(rows)]
    assert claims == [(4, 0.01 / 6 / 4), (3, 0.01 / 6 / 3), (2, 0.01 / 6 / 2)]


@given(seed=st.integers(0, 500), sd=st.floats(0.001, 0.3))
def test_critical_effect_separates_verdicts(seed: int, sd: float) -> None:
    """A row just above it is a regression, and a row just below it is not."""
    row = noisy(0.0, 8, seed=seed, sd=sd)
    ((_, look),) = looks({0: row})
    critical, mean = critical_effect(look), fmean(log_ratios(row) or ())
    assert critical is not None
    for share, found in ((1.001, True), (0.999, False)):
        moved = math.exp(math.log1p(critical) * share - mean)
        verdict = judge(changed(row, b=tuple(b * moved for b in row.b))).verdict
        assert (verdict == "regression") == found


def test_no_critical_effect_without_ratios() -> None:
    ((_, look),) = looks({0: Row(a=(0.0,) * 8, b=(1.0,) * 8)})
    assert critical_effect(look) is None
    assert log_ratios(Row(a=(0.0,), b=(1.0,))) is None
    assert log_ratios(Row(a=(1.0, 0.0), b=(1.0, 1.0)), 1) == [0.0]
    assert log_ratios(Row(a=(), b=())) == []


def test_counts_that_vary_in_aa_are_not_constant() -> None:
    row = Row(a=(10.0, 10.0), b=(11.0, 11.0), rule=EXACT_V1, floor_sd=0.05)
    assert verdicts({"requests": row})["requests"].verdict == "inconclusive"
    steady = replace(row, floor_sd=0.0)
    assert verdicts({"requests": steady})["requests"].verdict == "regression"
