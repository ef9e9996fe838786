"""Tests of the result rows: which pairs count, and what the rows depend on."""

import math
from collections.abc import Sequence
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trae_bench.fakes import ScriptedExecutor, cell, figures, sample
from trae_bench.design.cells import trials
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Mode, Side
from trae_bench.model.result import Comparison
from trae_bench.model.sample import Sample
from trae_bench.stats.analysis import attributions, comparisons
from trae_bench.stats.decision import DUET_V1, minimum_detectable_effect
from trae_bench.stats.metric_rules import metric_threshold, stops
from trae_bench.stats.noise import noise_floor
from trae_bench.stats.pairs import pair_outcome

SIDES: tuple[Side, Side] = ("A", "B")
PLAN = (
    cell(NOISE_FLOOR, "duet", ("cpu", "peak_rss")),
    cell("fast", "duet", ("cpu", "peak_rss")),
    cell("fast", "serial", ("wall",)),
)


def run(cells: Sequence[Cell], count: int, effect: float, noise: float = 0.01) -> list[Sample]:
    executor = ScriptedExecutor(figures(effect, noise))
    return [
        result
        for planned in cells
        for pair in range(count + 1)
        for result in executor.run(trials(planned, pair, 1))
    ]


def row(rows: Sequence[Comparison], contrast: str, metric: str) -> Comparison:
    (found,) = (r for r in rows if (r.contrast, r.metric) == (contrast, metric))
    return found


@pytest.mark.parametrize(
    ("a", "b", "expected", "reason"),
    [
        (sample("A"), sample("B"), "measured", ""),
        (sample("A"), None, "not measured", "one side"),
        (None, sample("B"), "not measured", "one side"),
        (sample("A"), sample("B", transcript="other"), "answers differ", "transcripts"),
        (sample("A"), sample("B", workspace="other"), "answers differ", "files left"),
        (sample("A"), sample("B", correct=False, problem="no"), "answers differ", "on: no"),
        (sample("A", correct=False), sample("B"), "answers differ", "off: the oracle"),
        (sample("A", correct=False), sample("B", correct=False), "not measured", "both sides"),
        (sample("A", status="timeout", problem="hung"), sample("B"), "not measured", "off: hung"),
        (sample("A"), sample("B", status="garbage"), "not measured", "on: garbage"),
        # A crashed side has no answer to compare.
        (sample("A"), sample("B", status="failed", transcript=""), "not measured", "on: "),
    ],
)
def test_pair_outcome(a: Sample | None, b: Sample | None, expected: str, reason: str) -> None:
    assert pair_outcome(a, b)[0] == expected
    assert reason in pair_outcome(a, b)[1]
    assert bool(pair_outcome(a, b)[1]) == (expected != "measured")


@pytest.mark.parametrize(
    ("contrast", "arms", "names"),
    [
        ("fast", ("none", "fast"), ("off", "on")),
        ("fast@last", ("idle", "idle+fast"), ("off", "on")),
        ("head", ("base", "head"), ("base", "head")),
        ("head again", ("base", "head"), ("base", "head")),
        (NOISE_FLOOR, ("base", "base"), ("base", "base")),
        (NOISE_FLOOR, ("none", "none"), ("side A", "side B")),
    ],
)
def test_side_names_in_reasons(
    contrast: str, arms: tuple[str, str], names: tuple[str, str]
) -> None:
    a, b = (
        replace(sample(side, contrast=contrast), arm=arm)
        for side, arm in zip(SIDES, arms, strict=True)
    )
    assert pair_outcome(replace(a, status="failed"), b)[1] == f"{names[0]}: failed"
    assert pair_outcome(a, replace(b, status="failed"))[1] == f"{names[1]}: failed"


def test_warmup_pair_is_ignored() -> None:
    samples = run(PLAN, 8, 0.5)
    extreme = [
        *(s for s in samples if s.pair > 0),
        sample("A", 0, metrics={"cpu": 1e9}),
        sample("B", 0, metrics={"cpu": 1e-9}),
    ]
    assert row(comparisons(samples, PLAN, METRICS), "fast", "cpu") == row(
        comparisons(extreme, PLAN, METRICS), "fast", "cpu"
    )


def test_verdicts_with_and_without_effect() -> None:
    rows = comparisons(run(PLAN, 8, 0.5), PLAN, METRICS)
    found = row(rows, "fast", "cpu")
    assert found.judgement.verdict == "improvement"
    assert found.estimate is not None
    assert found.estimate.log_ratio == pytest.approx(math.log(0.5), abs=0.02)
    assert found.estimate.n == found.pairs.measured == 8

    same = row(comparisons(run(PLAN, 8, 1.0, 0.005), PLAN, METRICS), "fast", "cpu")
    assert same.judgement.verdict == "equivalent"


def test_planned_rows_exist_without_samples() -> None:
    rows = comparisons([], PLAN, METRICS)
    assert [(r.contrast, r.metric, r.mode) for r in rows] == [
        (NOISE_FLOOR, "cpu", "duet"),
        (NOISE_FLOOR, "peak_rss", "duet"),
        ("fast", "cpu", "duet"),
        ("fast", "peak_rss", "duet"),
        ("fast", "wall", "serial"),
    ]
    assert {r.judgement.verdict for r in rows} == {"not measured"}


def test_samples_of_unplanned_cells_are_ignored() -> None:
    samples = run(PLAN, 8, 0.5)
    unplanned = [sample(side, 1, scenario="other") for side in ("A", "B")]
    assert comparisons([*samples, *unplanned], PLAN, METRICS) == comparisons(samples, PLAN, METRICS)


@given(seed=st.integers(0, 1000))
def test_sample_order_does_not_matter(seed: int) -> None:
    samples = run(PLAN, 12, 0.97, 0.02)
    shuffled = list(samples)
    Random(seed).shuffle(shuffled)
    assert comparisons(shuffled, PLAN, METRICS) == comparisons(samples, PLAN, METRICS)


def test_lost_pairs_are_counted_with_reasons() -> None:
    lost = [
        sample("A", 1),
        sample("B", 1, transcript="other"),
        *(
            sample(side, pair, status="failed", problem="exit status 1; its last lines:\n  a\n  b")
            for pair in (2, 3)
            for side in ("A", "B")
        ),
        sample("A", 4),
    ]
    pairs = row(comparisons(lost, PLAN, METRICS), "fast", "cpu").pairs
    assert (pairs.measured, pairs.answers_differ, pairs.not_measured) == (0, 1, 3)
    assert pairs.reasons == (
        "off: exit status 1; its last lines: b (2x)",
        "the transcripts differ",
        "one side is missing",
    )


def test_number_of_reasons_is_limited() -> None:
    lost = [
        sample(side, pair, status="failed", problem=f"way to fail {pair}")
        for pair in range(1, 20)
        for side in ("A", "B")
    ]
    reasons = row(comparisons(lost, PLAN, METRICS), "fast", "cpu").pairs.reasons
    assert len(reasons) == 6
    assert reasons[-1] == "and 14 more reasons"


def test_metric_needs_values_of_both_sides() -> None:
    samples = [
        sample(side, pair, metrics={"cpu": 1.0} | ({"peak_rss": 5e6} if pair < 5 else {}))
        for pair in range(1, 9)
        for side in ("A", "B")
    ]
    samples[0] = sample("A", 1, metrics={"cpu": 1.0})
    rows = comparisons(samples, PLAN, METRICS)
    memory = row(rows, "fast", "peak_rss").estimate
    cpu = row(rows, "fast", "cpu").estimate
    assert memory is not None and memory.n == 3
    assert cpu is not None and cpu.n == 8


def test_noise_does_not_widen_the_margin() -> None:
    """Otherwise everything would be equivalent on a noisy machine."""
    quiet = comparisons(run(PLAN, 8, 1.0, 0.001), PLAN, METRICS)
    noisy = comparisons(run(PLAN, 8, 1.0, 0.1), PLAN, METRICS)
    assert row(quiet, "fast", "cpu").judgement.verdict == "equivalent"
    assert row(noisy, "fast", "cpu").judgement.verdict == "inconclusive"
    assert row(quiet, "fast", "cpu").threshold == row(noisy, "fast", "cpu").threshold


def test_memory_has_a_lower_threshold() -> None:
    rows = comparisons(run(PLAN, 8, 1.0), PLAN, METRICS)
    assert row(rows, "fast", "peak_rss").threshold == 0.01
    assert row(rows, "fast", "cpu").threshold == DUET_V1.threshold


def test_aa_noise_bounds_the_standard_error() -> None:
    """Eight pairs can agree by chance, so the A/A standard deviation is a lower bound."""
    quiet = run(PLAN[1:2], 8, 1.025, 1e-6)
    alone = comparisons(quiet, PLAN, METRICS)
    with_noise = comparisons([*quiet, *run(PLAN[:1], 8, 1.0, 0.1)], PLAN, METRICS)
    assert row(alone, "fast", "cpu").judgement.verdict == "regression"
    assert row(with_noise, "fast", "cpu").judgement.verdict == "inconclusive"


def test_noise_estimate_from_aa_pairs() -> None:
    rows = comparisons(run(PLAN, 24, 0.5, 0.05), PLAN, METRICS)
    (cpu, _) = noise_floor(rows, METRICS)
    assert (cpu.scenario, cpu.metric, cpu.pairs) == ("work", "cpu", 24)
    assert cpu.sd == pytest.approx(0.05 * math.sqrt(2), rel=0.4)
    assert cpu.smallest_effect == pytest.approx(minimum_detectable_effect(cpu.sd, DUET_V1, 3))


Values = Sequence[tuple[float, float]]
"""Values of sides A and B, pair by pair."""
HALVED: Values = [(1.0, 0.5)] * 12


def with_aa_pairs(sides: Values, pairs: Values, metric: str) -> tuple[list[Sample], list[Cell]]:
    """Samples and plan of one toggle with values `pairs`, and of A/A pairs with values `sides`."""
    mode: Mode = "serial" if METRICS[metric].mode == "serial" else "duet"
    samples = [
        sample(side, number, contrast=contrast, mode=mode, metrics={metric: value})
        for contrast, values in ((NOISE_FLOOR, sides), ("fast", pairs))
        for number, both in enumerate(values, start=1)
        for side, value in zip(SIDES, both, strict=True)
    ]
    return samples, [cell(NOISE_FLOOR, mode, (metric,)), cell("fast", mode, (metric,))]


def aa_rows(sides: Values, metric: str = "cpu", pairs: Values = HALVED) -> list[Comparison]:
    return comparisons(*with_aa_pairs(sides, pairs, metric), METRICS)


def scattered(sd: float, bias: float = 0.0, count: int = 8) -> list[tuple[float, float]]:
    draw = Random(7)
    noise = [draw.gauss(0, 1) for _ in range(count)]
    middle, spread = fmean(noise), stdev(noise)
    return [(1.0, math.exp(bias + sd * (x - middle) / spread)) for x in noise]


def test_metric_is_gated_with_usual_noise() -> None:
    rows = aa_rows(scattered(0.018, bias=0.005))
    assert row(rows, "fast", "cpu").gated
    assert not row(rows, NOISE_FLOOR, "cpu").gated
    assert [floor.reliability for floor in noise_floor(rows, METRICS)] == ["gated"]


def test_too_noisy_metric_is_not_gated() -> None:
    rows = aa_rows(scattered(2.0))
    assert not row(rows, "fast", "cpu").gated
    assert [floor.reliability for floor in noise_floor(rows, METRICS)] == ["too noisy"]


def test_clear_effect_counts_however_noisy_the_metric() -> None:
    rows = aa_rows(scattered(0.3))
    found = row(rows, "fast", "cpu")
    assert (found.gated, found.judgement.verdict) == (True, "improvement")
    assert [floor.reliability for floor in noise_floor(rows, METRICS)] == ["too noisy"]


def test_biased_metric_is_not_judged() -> None:
    rows = aa_rows(scattered(0.005, bias=0.05))
    found = row(rows, "fast", "cpu")
    assert (found.gated, found.judgement.verdict) == (False, "not measured")
    assert found.judgement.settled
    assert [floor.reliability for floor in noise_floor(rows, METRICS)] == ["sides differ"]


@pytest.mark.parametrize(
    ("sd", "bias"),
    [
        # More than 4 estimated standard errors, which is common with 8 pairs.
        (0.02, 0.03),
        # Significant, but too small to cause a verdict.
        (0.0005, 0.005),
    ],
)
def test_random_or_negligible_bias_is_accepted(sd: float, bias: float) -> None:
    assert row(aa_rows(scattered(sd, bias)), "fast", "cpu").gated


def test_metric_is_gated_without_aa_pairs() -> None:
    assert row(aa_rows([]), "fast", "cpu").gated
    assert row(aa_rows([(1.0, 2.0)]), "fast", "cpu").gated


def test_aa_pairs_are_trimmed_like_rows() -> None:
    """A single outlier must not raise the noise estimate."""
    quiet = scattered(0.02, count=11)
    rows = aa_rows([*quiet, (1.0, 3.0)], "wall")
    (floor,) = noise_floor(rows, METRICS)
    assert floor.sd < 0.05
    assert row(rows, "fast", "wall").gated


def test_all_attributions_form_one_family() -> None:
    samples = run(PLAN, 8, 0.5)
    found = attributions(samples, PLAN, METRICS, fixed=False)
    assert [(attribution.scenario, attribution.metric) for attribution in found.found] == [
        ("work", "cpu"),
        ("work", "peak_rss"),
        ("work", "wall"),
    ]
    assert found.family == 3
    assert [attribution.looks for attribution in found.found] == [6, 6, 4]
    for attribution in found.found:
        (effects,) = attribution.toggles
        assert effects.alone is not None and effects.alone.p is not None
        assert effects.alone.log_ratio == pytest.approx(math.log(0.5), abs=0.02)
        assert effects.alone.p <= found.limit


def test_impossible_looks_do_not_widen_intervals() -> None:
    samples = run(PLAN, 8, 0.5)
    few = attributions(samples, PLAN, METRICS, fixed=False, max_pairs=12)
    assert [attribution.looks for attribution in few.found] == [2, 2, 2]
    fixed = attributions(samples, PLAN, METRICS, fixed=True)
    assert [attribution.looks for attribution in fixed.found] == [1, 1, 1]


def test_stops_include_the_exact_look() -> None:
    assert stops(cell("fast", "duet", ("cpu",)), METRICS) == DUET_V1.looks
    assert stops(cell("fast", "duet", ("requests",)), METRICS)[0] == 2


def test_constant_counts_are_compared_exactly() -> None:
    plan = [cell("fast", "duet", ("requests",))]
    samples = [
        result
        for pair in (1, 2)
        for result in (
            sample("A", pair, metrics={"requests": 15.0}),
            sample("B", pair, metrics={"requests": 16.0}),
        )
    ]
    (found,) = comparisons(samples, plan, METRICS)
    assert found.judgement.verdict == "regression"
    assert found.judgement.settled


@pytest.mark.parametrize(
    "sides",
    [
        # No logarithm, so the spread is unknown.
        [(0.0, 1.0), (1.0, 0.0)] * 4,
        # Both sides vary together.
        [(10.0, 10.0), (11.0, 11.0)] * 4,
        [(10.0, 11.0), (11.0, 10.0)] * 4,
        [(10.0, 11.0)],
    ],
)
def test_counts_that_vary_in_aa_are_not_exact(sides: Values) -> None:
    found = row(aa_rows(sides, "connections", [(10.0, 11.0)] * 2), "fast", "connections")
    assert (found.judgement.verdict, found.judgement.settled) == ("inconclusive", False)


def test_counts_that_differ_in_aa_are_not_judged() -> None:
    rows = aa_rows([(10.0, 11.0)] * 8, "connections", [(10.0, 11.0)] * 8)
    assert row(rows, "fast", "connections").judgement.verdict == "not measured"
    (floor,) = noise_floor(rows, METRICS)
    assert floor.reliability == "sides differ"
    assert noise_floor(aa_rows([(10.0, 10.0)] * 8, "connections"), METRICS) == []


def test_biased_metric_is_not_attributed() -> None:
    samples, plan = with_aa_pairs(scattered(0.005, bias=0.05), HALVED, "cpu")
    found = attributions(samples, plan, METRICS, fixed=True)
    assert (found.found, found.family, found.untrusted) == ((), 0, (("work", "cpu"),))


def test_extreme_values_do_not_crash() -> None:
    """An untrusted file may hold any number that JSON allows."""
    extremes = (5e-324, 1.7e308)
    samples = [
        sample(side, pair, contrast=contrast, metrics={"cpu": extremes[(pair + n) % 2]})
        for contrast in (NOISE_FLOOR, "fast")
        for pair in range(1, 9)
        for n, side in enumerate(SIDES)
    ]
    found = row(comparisons(samples, PLAN, METRICS), "fast", "cpu")
    assert found.judgement.verdict != "regression"


@pytest.mark.parametrize(("name", "own"), [("cpu", 0.02), ("wall", 0.05), ("peak_rss", 0.01)])
def test_requested_threshold_only_raises(name: str, own: float) -> None:
    metric = METRICS[name]
    assert metric_threshold(metric) == own
    assert metric_threshold(replace(metric, threshold=0.0)) == own
    assert metric_threshold(replace(metric, threshold=0.2)) == 0.2
