"""Tests of attribution: known effects are recovered, and intervals have the stated coverage."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.design.contrasts import contrasts
from trae_bench.model.experiment import Arm, Contrast
from trae_bench.stats.attribution import (
    Attribution,
    Effect,
    ToggleEffects,
    attribute,
    holm_limit,
    p_values,
)
from trae_bench.stats.decision import DUET_V1, Row
from trae_bench.stats.effect_weights import least_squares

Terms = Mapping[frozenset[str], float]
"""True effects: each set of toggles adds this to the log ratio if all of them are on."""

LETTERS = "abcdefgh"


def planted(k: int, *sizes: int, seed: int = 1) -> dict[frozenset[str], float]:
    """A random effect for every toggle, and for every set of toggles of these sizes."""
    draw = Random(seed)
    return {
        frozenset(names): draw.uniform(-0.3, 0.3)
        for size in (1, *sizes)
        for names in combinations(LETTERS[:k], size)
    }


def level(on: frozenset[str], terms: Terms) -> float:
    return sum(effect for names, effect in terms.items() if names <= on)


def on_in(arm: Arm) -> frozenset[str]:
    return frozenset(name for name, on in arm.toggles.items() if on)


def rows(
    terms: Terms,
    design: str,
    *,
    k: int,
    n: int = 4,
    noise: Sequence[float] = (0.0,),
    draw: Random | None = None,
) -> list[tuple[Contrast, Row]]:
    """Pairs of every contrast of a design; the contrasts cycle through `noise`."""
    draw = draw or Random(1)
    toggles = LETTERS[:k]
    found = []
    for number, contrast in enumerate(contrasts(toggles, dict.fromkeys(toggles, False), design)):
        sd = noise[number % len(noise)]
        effect = level(on_in(contrast.b), terms) - level(on_in(contrast.a), terms)
        b = tuple(math.exp(effect + draw.gauss(0, sd)) for _ in range(n))
        found.append((contrast, Row(a=(1.0,) * n, b=b, rule=DUET_V1)))
    return found


def attributed(pairs: Sequence[tuple[Contrast, Row]], looks: int = 1) -> Attribution:
    found = attribute(pairs, scenario="s", metric="cpu", looks=looks)
    assert found is not None
    return found


def of(effect: Effect | None) -> float:
    assert effect is not None
    return effect.log_ratio


def toggle(found: Attribution, name: str) -> ToggleEffects:
    (effects,) = (effects for effects in found.toggles if effects.toggle == name)
    return effects


def mean_effect(name: str, terms: Terms, k: int) -> float:
    """Main effect by definition: the mean over all settings of the other toggles."""
    others = frozenset(LETTERS[:k]) - {name}
    settings = [frozenset(s) for r in range(k) for s in combinations(sorted(others), r)]
    return sum(level(s | {name}, terms) - level(s, terms) for s in settings) / len(settings)


# -- known effects are recovered


@pytest.mark.parametrize("k", [2, 3, 4])
def test_factorial_estimates_effects_and_interactions(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "factorial", k=k))
    everything = frozenset(LETTERS[:k])
    for name in LETTERS[:k]:
        effects = toggle(found, name)
        alone = terms[frozenset({name})]
        last = level(everything, terms) - level(everything - {name}, terms)
        assert of(effects.alone) == pytest.approx(alone)
        assert of(effects.last) == pytest.approx(last)
        assert of(effects.change) == pytest.approx(last - alone)
        assert of(effects.mean) == pytest.approx(mean_effect(name, terms, k))
    assert len(found.interactions) == math.comb(k, 2)
    for interaction in found.interactions:
        (pair,) = interaction.pairs
        assert of(interaction.change) == pytest.approx(terms[frozenset(pair)])
    sizes = [abs(interaction.change.log_ratio) for interaction in found.interactions]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("k", [5, 7])
def test_half_fraction_estimates_all_interactions(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "factorial", k=k, n=2))
    assert len(found.interactions) == math.comb(k, 2)
    for interaction in found.interactions:
        (pair,) = interaction.pairs
        assert of(interaction.change) == pytest.approx(terms[frozenset(pair)])
    assert of(toggle(found, "a").alone) == pytest.approx(terms[frozenset("a")])


def test_main_effects_with_high_order_interactions() -> None:
    """The model has no column for three toggles, but main effects are still unbiased."""
    terms = planted(4, 2, 3, 4)
    found = attributed(rows(terms, "full", k=4))
    for name in "abcd":
        assert of(toggle(found, name).mean) == pytest.approx(mean_effect(name, terms, 4))


@pytest.mark.parametrize("k", [4, 5, 7, 8])
def test_fraction_estimates_main_effects(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "fraction", k=k, n=2))
    for name in LETTERS[:k]:
        effects = toggle(found, name)
        assert of(effects.mean) == pytest.approx(mean_effect(name, terms, k))
        assert (effects.alone, effects.last, effects.change) == (None, None, None)


def test_fraction_lists_confounded_pairs() -> None:
    terms = planted(7, 2)
    found = attributed(rows(terms, "fraction", k=7, n=2))
    named = [frozenset(pair) for interaction in found.interactions for pair in interaction.pairs]
    assert sorted(map(sorted, named)) == [list(pair) for pair in combinations("abcdefg", 2)]
    assert {len(interaction.pairs) for interaction in found.interactions} == {3}
    for interaction in found.interactions:
        assert interaction.change.log_ratio == pytest.approx(
            sum(terms[frozenset(pair)] for pair in interaction.pairs)
        )
        assert interaction.conditional == ()
    # From the defining words of E=ABC, F=ABD, G=ACD: DE = BG = CF.
    groups = [set(interaction.pairs) for interaction in found.interactions]
    assert {("d", "e"), ("b", "g"), ("c", "f")} in groups


def test_conditional_effects() -> None:
    """20 % less alone, 3 % less with the other toggle on."""
    terms = {
        frozenset("a"): math.log(0.80),
        frozenset("b"): math.log(0.75),
        frozenset("ab"): math.log(0.97 / 0.80),
    }
    (interaction,) = attributed(rows(terms, "factorial", k=2)).interactions
    effects = {
        (conditional.toggle, conditional.given): conditional
        for conditional in interaction.conditional
    }
    assert math.exp(effects["a", "b"].off.log_ratio) == pytest.approx(0.80)
    assert math.exp(effects["a", "b"].on.log_ratio) == pytest.approx(0.97)
    assert math.exp(effects["b", "a"].off.log_ratio) == pytest.approx(0.75)
    assert math.exp(effects["b", "a"].on.log_ratio) == pytest.approx(0.75 * 0.97 / 0.80)


def test_one_factor_at_a_time() -> None:
    terms = planted(3, 2, 3)
    found = attributed(rows(terms, "both", k=3))
    everything = frozenset("abc")
    for name in "abc":
        effects = toggle(found, name)
        last = level(everything, terms) - level(everything - {name}, terms)
        assert of(effects.alone) == pytest.approx(terms[frozenset({name})])
        assert of(effects.last) == pytest.approx(last)
        assert of(effects.mean) == pytest.approx((terms[frozenset({name})] + last) / 2)
    assert found.interactions == ()


@pytest.mark.parametrize(("design", "given"), [("add-one", "alone"), ("remove-one", "last")])
def test_one_sided_designs_estimate_one_effect(design: str, given: str) -> None:
    effects = toggle(attributed(rows(planted(3, 2), design, k=3)), "b")
    estimated = {
        name: getattr(effects, name) is not None for name in ("alone", "last", "change", "mean")
    }
    assert estimated == {"alone": False, "last": False, "change": False, "mean": False} | {
        given: True
    }


# -- all toggles on, and the sums of single effects


def gaps(terms: Terms, design: str, k: int) -> tuple[float | None, float | None]:
    """Gaps of the sums of `alone` and of `mean` effects."""
    found = attributed(rows(terms, design, k=k, n=2))
    assert found.whole is not None
    assert of(found.whole.measured) == pytest.approx(level(frozenset(LETTERS[:k]), terms))
    sums = (found.whole.alone, found.whole.mean)
    alone, mean = (None if s is None or s.gap is None else s.gap.log_ratio for s in sums)
    return alone, mean


@pytest.mark.parametrize(("design", "k"), [("both", 3), ("factorial", 3), ("factorial", 4)])
def test_no_gap_without_interactions(design: str, k: int) -> None:
    alone, mean = gaps(planted(k), design, k)
    assert alone == pytest.approx(0, abs=1e-12)
    assert mean == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("design", "k"), [("both", 3), ("factorial", 3), ("factorial", 4)])
def test_interactions_cause_a_gap_of_alone_effects_only(design: str, k: int) -> None:
    terms = planted(k, 2)
    of_pairs = sum(effect for names, effect in terms.items() if len(names) == 2)
    alone, mean = gaps(terms, design, k)
    assert alone == pytest.approx(of_pairs)
    assert mean == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("design", ["both", "factorial"])
def test_three_toggle_interaction_causes_a_gap(design: str) -> None:
    _, mean = gaps(planted(3, 3), design, 3)
    assert mean is not None
    assert abs(mean) > 0.01


def test_gap_that_is_zero_by_design_is_none() -> None:
    """With two toggles, and with the 16 runs of eight, the means always add up exactly."""
    assert gaps(planted(2, 2), "factorial", 2)[1] is None
    assert gaps(planted(8, 2), "fraction", 8)[1] is None


def test_fraction_of_seven_checks_the_sum() -> None:
    _, mean = gaps(planted(7, 2), "fraction", 7)
    assert mean == pytest.approx(0, abs=1e-12)
    _, mean = gaps({**planted(7), frozenset("bcd"): 0.2}, "fraction", 7)
    assert mean is not None
    assert abs(mean) > 0.01


def test_fraction_confounds_three_toggles_with_one() -> None:
    """F = ABD: an interaction of A, B and D biases the main effect of F."""
    without = toggle(attributed(rows(planted(7), "fraction", k=7, n=2)), "f").mean
    together = {**planted(7), frozenset("abd"): 0.2}
    credited = toggle(attributed(rows(together, "fraction", k=7, n=2)), "f").mean
    assert of(credited) - of(without) == pytest.approx(0.2 / 4)


def test_additional_run_is_not_fitted() -> None:
    """The half fraction of five has no run with all toggles on; an added one checks the fit."""
    terms = planted(5, 2)
    found = rows(terms, "factorial", k=5)
    on = frozenset("abcde")
    if not any(on_in(contrast.b) == on for contrast, _ in found):
        contrast, row = found[-1]
        whole = Arm("+".join("abcde"), dict.fromkeys("abcde", True))
        found.append((Contrast(whole.name, contrast.a, whole), row))
    others = [(c, r) for c, r in found if on_in(c.b) != on]
    (whole_of,) = (c for c, _ in found if on_in(c.b) == on)
    extreme = (whole_of, Row(a=(1.0,) * 4, b=(math.exp(5.0),) * 4, rule=DUET_V1))
    with_extreme, without = attributed([*others, extreme]), attributed(others)
    assert with_extreme.toggles == without.toggles
    assert without.whole is None
    assert with_extreme.whole is not None
    assert with_extreme.whole.mean is not None
    assert of(with_extreme.whole.mean.gap) == pytest.approx(5.0 - level(on, terms))


# -- missing data


def test_no_attribution_without_toggles() -> None:
    noise_only = rows(planted(2), "factorial", k=2)[:1]
    assert attribute(noise_only, scenario="s", metric="cpu") is None
    assert attribute([], scenario="s", metric="cpu") is None


def test_missing_run() -> None:
    """With 16 runs and 11 columns one run can be missing; with 4 and 4 none can."""
    terms = planted(4, 2)
    found = rows(terms, "factorial", k=4)
    contrast, _ = found[6]
    found[6] = (contrast, Row(a=(), b=(), rule=DUET_V1))
    result = attributed(found)
    assert result.missing == (contrast.name,)
    assert of(toggle(result, "a").alone) == pytest.approx(terms[frozenset("a")])

    found = rows(planted(2, 2), "factorial", k=2)[:-1]
    result = attributed(found)
    assert result.interactions == ()
    assert of(toggle(result, "a").alone) == pytest.approx(planted(2, 2)[frozenset("a")])
    assert toggle(result, "a").last is None


def test_values_of_zero_are_missing() -> None:
    contrast, _ = rows(planted(2), "add-one", k=2)[1]
    assert attribute([(contrast, Row(a=(0.0,), b=(1.0,)))], scenario="s", metric="requests") is None


def test_one_pair_has_no_interval() -> None:
    effect = toggle(attributed(rows(planted(2, 2), "factorial", k=2, n=1)), "a").mean
    assert effect is not None
    assert (effect.interval, effect.p) == (None, None)


def test_constant_counts_have_no_error() -> None:
    found = attributed(rows({frozenset("a"): math.log(2), frozenset("b"): 0.0}, "both", k=2))
    a, b = toggle(found, "a").alone, toggle(found, "b").alone
    assert a is not None and b is not None and a.interval is not None
    assert (a.interval.low, a.p) == (a.log_ratio, 0.0)
    assert (b.log_ratio, b.p) == (0.0, 1.0)


# -- properties


@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), scale=st.floats(0.01, 100))
def test_unit_does_not_matter(seed: int, k: int, scale: float) -> None:
    pairs = rows(planted(k, 2), "factorial", k=k, noise=(0.05,), draw=Random(seed))
    scaled = [
        (c, Row(a=tuple(scale * x for x in r.a), b=tuple(scale * x for x in r.b), rule=r.rule))
        for c, r in pairs
    ]
    for before, after in zip(attributed(pairs).toggles, attributed(scaled).toggles, strict=True):
        assert of(before.mean) == pytest.approx(of(after.mean), abs=1e-9)


@given(seed=st.integers(0, 10**6), design=st.sampled_from(["both", "factorial", "fraction"]))
def test_the_order_of_contrasts_does_not_matter(seed: int, design: str) -> None:
    pairs = rows(planted(4, 2), design, k=4, noise=(0.05, 0.01), draw=Random(seed))
    shuffled = list(pairs)
    Random(seed).shuffle(shuffled)
    for before in attributed(pairs).toggles:
        after = toggle(attributed(shuffled), before.toggle)
        assert of(after.mean) == pytest.approx(of(before.mean), abs=1e-9)
        assert before.mean is not None and after.mean is not None
        assert after.mean.p == pytest.approx(before.mean.p, abs=1e-9)


@given(seed=st.integers(0, 10**6))
def test_interval_excludes_0_if_p_is_below_5_percent(seed: int) -> None:
    found = attributed(rows(planted(3, 2), "factorial", k=3, noise=(0.1,), draw=Random(seed)))
    for effect in (effect.mean for effect in found.toggles):
        assert effect is not None and effect.interval is not None and effect.p is not None
        assert (effect.p < 0.05) == (not effect.interval.low <= 0 <= effect.interval.high)


def test_looks_widen_intervals() -> None:
    pairs = rows(planted(3), "both", k=3, n=8, noise=(0.02,))
    once, often = (toggle(attributed(pairs, looks), "a").alone for looks in (1, 6))
    assert once is not None and often is not None
    assert once.interval is not None and often.interval is not None
    assert often.interval.low < once.interval.low < once.interval.high < often.interval.high


# -- coverage, by simulation


def tail(hits: int, n: int, p: float) -> float:
    """P(X <= hits) of a binomial X."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(hits + 1))


def covered(effect: Effect | None, truth: float) -> bool:
    assert effect is not None and effect.interval is not None
    return effect.interval.low <= truth <= effect.interval.high


@pytest.mark.parametrize(
    ("noise", "n"), [((0.02,), 8), ((0.01, 0.04, 0.02), 4), ((0.01, 0.04, 0.02), 3)]
)
def test_coverage_of_intervals(noise: tuple[float, ...], n: int) -> None:
    """Coverage is 95 %, also with unequal variances; an exact binomial test of each effect."""
    terms = planted(2, 2)
    draw = Random(20260101)
    runs = 600
    hits = {"alone": 0, "last": 0, "mean": 0, "change": 0}
    a, both = terms[frozenset("a")], terms[frozenset("ab")]
    truth = {"alone": a, "last": a + both, "mean": a + both / 2, "change": both}
    for _ in range(runs):
        effects = toggle(
            attributed(rows(terms, "factorial", k=2, n=n, noise=noise, draw=draw)), "a"
        )
        for name in hits:
            hits[name] += covered(getattr(effects, name), truth[name])
    for name, count in hits.items():
        assert tail(count, runs, 0.95) > 1e-4, (name, count)
        # The intervals are not too wide either.
        assert tail(runs - count, runs, 0.01) > 1e-4, (name, count)


# -- family-wise error rate


def test_holm_examples() -> None:
    assert holm_limit([0.01, 0.04, 0.03, 0.005]) == 0.01
    assert holm_limit([0.03, 0.03]) == -1.0
    assert holm_limit([0.02, 0.04]) == 0.04
    assert holm_limit([]) == -1.0


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_between_bonferroni_and_no_correction(ps: list[float]) -> None:
    limit = holm_limit(ps)
    assert all(p <= limit for p in ps if p <= 0.05 / len(ps))
    assert all(p > limit for p in ps if p > 0.05)


def test_family_contains_all_effects() -> None:
    found = attributed(rows(planted(2, 2), "factorial", k=2, noise=(0.02,)))
    # `alone`, `last`, `change` and `mean` of two toggles; one interaction; all toggles, one gap.
    assert len(p_values(found)) == 8 + 1 + 2


# -- against numpy


@pytest.mark.parametrize(("design", "k"), [("factorial", 4), ("factorial", 5), ("fraction", 7)])
def test_coefficients_match_numpy(design: str, k: int) -> None:
    numpy = pytest.importorskip("numpy")
    terms = planted(k, 2, 3)
    pairs = rows(terms, design, k=k, noise=(0.03, 0.01))[1:]
    fitted = [(c, r) for c, r in pairs if (k, design) != (5, "factorial") or len(on_in(c.b)) < 5]
    found = attributed(pairs)
    runs = [frozenset[str](), *(on_in(contrast.b) for contrast, _ in fitted)]
    y = [0.0, *(sum(map(math.log, row.b)) / len(row.b) for _, row in fitted)]
    groups = [estimate.pairs for estimate in found.interactions]
    x = [
        [
            1.0,
            *((1.0 if name in on else -1.0) for name in LETTERS[:k]),
            *(math.prod(1.0 if n in on else -1.0 for n in group[0]) for group in groups),
        ]
        for on in runs
    ]
    expected = numpy.linalg.lstsq(numpy.array(x), numpy.array(y), rcond=None)[0]
    mains = [of(estimate.mean) / 2 for estimate in found.toggles]
    changes = [estimate.change.log_ratio / 4 for estimate in found.interactions]
    assert [*mains, *changes] == pytest.approx(list(expected[1:]), abs=1e-12)


@given(seed=st.integers(0, 10**6))
def test_least_squares_matches_numpy(seed: int) -> None:
    numpy = pytest.importorskip("numpy")
    draw = Random(seed)
    columns = tuple(tuple(draw.uniform(-1, 1) for _ in range(7)) for _ in range(4))
    found = least_squares(columns)
    expected = numpy.linalg.pinv(numpy.array(columns).T)
    assert found is not None
    assert numpy.array(found) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_singular_columns() -> None:
    assert least_squares(((1.0, 1.0), (1.0, 1.0))) is None
    assert least_squares(((1.0,), (2.0,))) is None


def test_oversized_design_is_not_fitted() -> None:
    """200 toggles have 20,000 interactions; the `alone` effects are still estimated."""
    names = [f"t{number}" for number in range(200)]
    none = Arm("none", dict.fromkeys(names, False))
    pairs = [
        (
            Contrast(name, none, Arm(name, {**none.toggles, name: True})),
            Row(a=(1.0, 1.0), b=(0.5, 0.5)),
        )
        for name in names
    ]
    found = attributed(pairs)
    assert found.interactions == ()
    assert of(toggle(found, "t7").alone) == pytest.approx(math.log(0.5))


def test_welch_satterthwaite_matches_scipy() -> None:
    """For k = 2 and design `both`, `change` of a toggle is a Welch test between two contrasts."""
    scipy_stats = pytest.importorskip("scipy.stats")
    pairs = rows(planted(2, 2), "both", k=2, n=6, noise=(0.01, 0.05, 0.02))
    ratios = {contrast.name: [math.log(x) for x in row.b] for contrast, row in pairs}
    test = scipy_stats.ttest_ind(ratios["a@last"], ratios["a"], equal_var=False)
    interval = test.confidence_interval(0.95)
    change = toggle(attributed(pairs), "a").change
    assert change is not None and change.interval is not None
    assert change.p == pytest.approx(float(test.pvalue))
    assert (change.interval.low, change.interval.high) == pytest.approx(tuple(interval))
