"""Effects from contrasts: planted ones are found again, and intervals cover what they promise."""

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
    least_squares,
    p_values,
)
from trae_bench.stats.decision import DUET_V1, Row

Terms = Mapping[frozenset[str], float]
"""What is planted: each set of toggles adds this to the logarithm once all of them are on."""

LETTERS = "abcdefgh"


def planted(k: int, *sizes: int, seed: int = 1) -> dict[frozenset[str], float]:
    """An effect for every toggle, and for every set of so many of them."""
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
    """Pairs of every contrast of a design; `noise` goes round the contrasts."""
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
    (one,) = (each for each in found.toggles if each.toggle == name)
    return one


def mean_effect(name: str, terms: Terms, k: int) -> float:
    """By its definition: over all settings of the others."""
    others = frozenset(LETTERS[:k]) - {name}
    settings = [frozenset(s) for r in range(k) for s in combinations(sorted(others), r)]
    return sum(level(s | {name}, terms) - level(s, terms) for s in settings) / len(settings)


# -- what is planted is found


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_factorial_tells_toggles_and_pairs(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "factorial", k=k))
    everything = frozenset(LETTERS[:k])
    for name in LETTERS[:k]:
        one = toggle(found, name)
        alone = terms[frozenset({name})]
        last = level(everything, terms) - level(everything - {name}, terms)
        assert of(one.alone) == pytest.approx(alone)
        assert of(one.last) == pytest.approx(last)
        assert of(one.change) == pytest.approx(last - alone)
        assert of(one.mean) == pytest.approx(mean_effect(name, terms, k))
    assert len(found.interactions) == math.comb(k, 2)
    for interaction in found.interactions:
        (pair,) = interaction.pairs
        assert of(interaction.change) == pytest.approx(terms[frozenset(pair)])
    sizes = [abs(each.change.log_ratio) for each in found.interactions]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("k", [5, 7])
def test_half_a_factorial_tells_all_pairs_too(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "factorial", k=k, n=2))
    assert len(found.interactions) == math.comb(k, 2)
    for interaction in found.interactions:
        (pair,) = interaction.pairs
        assert of(interaction.change) == pytest.approx(terms[frozenset(pair)])
    assert of(toggle(found, "a").alone) == pytest.approx(terms[frozenset("a")])


def test_main_effects_mean_what_they_say_whatever_acts_together() -> None:
    """Three toggles at once are in no column; a main effect is still the mean of its settings."""
    terms = planted(4, 2, 3, 4)
    found = attributed(rows(terms, "full", k=4))
    for name in "abcd":
        assert of(toggle(found, name).mean) == pytest.approx(mean_effect(name, terms, 4))


@pytest.mark.parametrize("k", [4, 5, 7, 8])
def test_a_fraction_tells_main_effects_clear_of_pairs(k: int) -> None:
    terms = planted(k, 2)
    found = attributed(rows(terms, "fraction", k=k, n=2))
    for name in LETTERS[:k]:
        one = toggle(found, name)
        assert of(one.mean) == pytest.approx(mean_effect(name, terms, k))
        assert (one.alone, one.last, one.change) == (None, None, None)


def test_a_fraction_names_the_pairs_that_it_confuses() -> None:
    terms = planted(7, 2)
    found = attributed(rows(terms, "fraction", k=7, n=2))
    named = [frozenset(pair) for each in found.interactions for pair in each.pairs]
    assert sorted(map(sorted, named)) == [list(pair) for pair in combinations("abcdefg", 2)]
    assert {len(each.pairs) for each in found.interactions} == {3}
    for each in found.interactions:
        assert each.change.log_ratio == pytest.approx(
            sum(terms[frozenset(pair)] for pair in each.pairs)
        )
        assert each.conditional == ()
    # The defining words of E=ABC, F=ABD, G=ACD: E with D is B with G, and C with F.
    groups = [set(each.pairs) for each in found.interactions]
    assert {("d", "e"), ("b", "g"), ("c", "f")} in groups


def test_one_effect_given_another() -> None:
    """20 % alone, 3 % once the other is on."""
    terms = {
        frozenset("a"): math.log(0.80),
        frozenset("b"): math.log(0.75),
        frozenset("ab"): math.log(0.97 / 0.80),
    }
    (interaction,) = attributed(rows(terms, "factorial", k=2)).interactions
    told = {(each.toggle, each.given): each for each in interaction.conditional}
    assert math.exp(told["a", "b"].off.log_ratio) == pytest.approx(0.80)
    assert math.exp(told["a", "b"].on.log_ratio) == pytest.approx(0.97)
    assert math.exp(told["b", "a"].off.log_ratio) == pytest.approx(0.75)
    assert math.exp(told["b", "a"].on.log_ratio) == pytest.approx(0.75 * 0.97 / 0.80)


def test_one_at_a_time() -> None:
    terms = planted(3, 2, 3)
    found = attributed(rows(terms, "both", k=3))
    everything = frozenset("abc")
    for name in "abc":
        one = toggle(found, name)
        last = level(everything, terms) - level(everything - {name}, terms)
        assert of(one.alone) == pytest.approx(terms[frozenset({name})])
        assert of(one.last) == pytest.approx(last)
        assert of(one.mean) == pytest.approx((terms[frozenset({name})] + last) / 2)
    assert found.interactions == ()


@pytest.mark.parametrize(("design", "given"), [("add-one", "alone"), ("remove-one", "last")])
def test_half_of_the_question_gives_half_of_the_answer(design: str, given: str) -> None:
    one = toggle(attributed(rows(planted(3, 2), design, k=3)), "b")
    told = {name: getattr(one, name) is not None for name in ("alone", "last", "change", "mean")}
    assert told == {"alone": False, "last": False, "change": False, "mean": False} | {given: True}


# -- the whole and its parts


def gaps(terms: Terms, design: str, k: int) -> tuple[float | None, float | None]:
    """What the whole has beyond its parts: alone, mean."""
    found = attributed(rows(terms, design, k=k, n=2))
    assert found.whole is not None
    assert of(found.whole.measured) == pytest.approx(level(frozenset(LETTERS[:k]), terms))
    sums = (found.whole.alone, found.whole.mean)
    one, other = (None if s is None or s.gap is None else s.gap.log_ratio for s in sums)
    return one, other


@pytest.mark.parametrize(("design", "k"), [("both", 3), ("factorial", 3), ("factorial", 4)])
def test_parts_that_do_not_meddle_give_the_whole(design: str, k: int) -> None:
    alone, mean = gaps(planted(k), design, k)
    assert alone == pytest.approx(0, abs=1e-12)
    assert mean == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("design", "k"), [("both", 3), ("factorial", 3), ("factorial", 4)])
def test_pairs_are_missing_from_toggles_alone_but_not_from_the_means(design: str, k: int) -> None:
    terms = planted(k, 2)
    of_pairs = sum(effect for names, effect in terms.items() if len(names) == 2)
    alone, mean = gaps(terms, design, k)
    assert alone == pytest.approx(of_pairs)
    assert mean == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("design", ["both", "factorial"])
def test_three_together_are_missing_from_both(design: str) -> None:
    _, mean = gaps(planted(3, 3), design, 3)
    assert mean is not None
    assert abs(mean) > 0.01


def test_what_no_measurement_could_contradict_is_no_check() -> None:
    """With two toggles the means always give the whole; so do the 16 runs of eight."""
    assert gaps(planted(2, 2), "factorial", 2)[1] is None
    assert gaps(planted(8, 2), "fraction", 8)[1] is None


def test_a_fraction_of_seven_can_be_contradicted() -> None:
    _, mean = gaps(planted(7, 2), "fraction", 7)
    assert mean == pytest.approx(0, abs=1e-12)
    _, mean = gaps({**planted(7), frozenset("bcd"): 0.2}, "fraction", 7)
    assert mean is not None
    assert abs(mean) > 0.01


def test_what_a_fraction_mistakes_for_a_main_effect() -> None:
    """F is set as ABD: where these three act together, F gets the credit. So it is said."""
    without = toggle(attributed(rows(planted(7), "fraction", k=7, n=2)), "f").mean
    together = {**planted(7), frozenset("abd"): 0.2}
    credited = toggle(attributed(rows(together, "fraction", k=7, n=2)), "f").mean
    assert of(credited) - of(without) == pytest.approx(0.2 / 4)


def test_a_run_that_confirms_is_kept_out_of_the_fit() -> None:
    """Half a factorial of five has no run with all on; one more is a check from outside."""
    terms = planted(5, 2)
    found = rows(terms, "factorial", k=5)
    on = frozenset("abcde")
    if not any(on_in(contrast.b) == on for contrast, _ in found):
        contrast, row = found[-1]
        whole = Arm("+".join("abcde"), dict.fromkeys("abcde", True))
        found.append((Contrast(whole.name, contrast.a, whole), row))
    others = [(c, r) for c, r in found if on_in(c.b) != on]
    (whole_of,) = (c for c, _ in found if on_in(c.b) == on)
    wild = (whole_of, Row(a=(1.0,) * 4, b=(math.exp(5.0),) * 4, rule=DUET_V1))
    with_wild, without = attributed([*others, wild]), attributed(others)
    assert with_wild.toggles == without.toggles
    assert without.whole is None
    assert with_wild.whole is not None
    assert with_wild.whole.mean is not None
    assert of(with_wild.whole.mean.gap) == pytest.approx(5.0 - level(on, terms))


# -- what is not there


def test_nothing_that_differs_is_nothing_to_attribute() -> None:
    noise_only = rows(planted(2), "factorial", k=2)[:1]
    assert attribute(noise_only, scenario="s", metric="cpu") is None
    assert attribute([], scenario="s", metric="cpu") is None


def test_a_missing_run_is_named_and_fitted_around_where_it_can_be() -> None:
    """Sixteen runs for eleven columns can do without one, four for four cannot."""
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
    one = toggle(attributed(rows(planted(2, 2), "factorial", k=2, n=1)), "a").mean
    assert one is not None
    assert (one.interval, one.p) == (None, None)


def test_counts_that_never_vary_leave_no_doubt() -> None:
    found = attributed(rows({frozenset("a"): math.log(2), frozenset("b"): 0.0}, "both", k=2))
    a, b = toggle(found, "a").alone, toggle(found, "b").alone
    assert a is not None and b is not None and a.interval is not None
    assert (a.interval.low, a.p) == (a.log_ratio, 0.0)
    assert (b.log_ratio, b.p) == (0.0, 1.0)


# -- properties


@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), scale=st.floats(0.01, 100))
def test_units_do_not_matter(seed: int, k: int, scale: float) -> None:
    pairs = rows(planted(k, 2), "factorial", k=k, noise=(0.05,), draw=Random(seed))
    scaled = [
        (c, Row(a=tuple(scale * x for x in r.a), b=tuple(scale * x for x in r.b), rule=r.rule))
        for c, r in pairs
    ]
    for one, other in zip(attributed(pairs).toggles, attributed(scaled).toggles, strict=True):
        assert of(one.mean) == pytest.approx(of(other.mean), abs=1e-9)


@given(seed=st.integers(0, 10**6), design=st.sampled_from(["both", "factorial", "fraction"]))
def test_the_order_of_contrasts_does_not_matter(seed: int, design: str) -> None:
    pairs = rows(planted(4, 2), design, k=4, noise=(0.05, 0.01), draw=Random(seed))
    mixed = list(pairs)
    Random(seed).shuffle(mixed)
    for one in attributed(pairs).toggles:
        other = toggle(attributed(mixed), one.toggle)
        assert of(other.mean) == pytest.approx(of(one.mean), abs=1e-9)
        assert one.mean is not None and other.mean is not None
        assert other.mean.p == pytest.approx(one.mean.p, abs=1e-9)


@given(seed=st.integers(0, 10**6))
def test_an_interval_leaves_0_out_where_p_is_under_one_in_twenty(seed: int) -> None:
    found = attributed(rows(planted(3, 2), "factorial", k=3, noise=(0.1,), draw=Random(seed)))
    for each in (each.mean for each in found.toggles):
        assert each is not None and each.interval is not None and each.p is not None
        assert (each.p < 0.05) == (not each.interval.low <= 0 <= each.interval.high)


def test_looks_widen_the_interval() -> None:
    pairs = rows(planted(3), "both", k=3, n=8, noise=(0.02,))
    once, often = (toggle(attributed(pairs, looks), "a").alone for looks in (1, 6))
    assert once is not None and often is not None
    assert once.interval is not None and often.interval is not None
    assert often.interval.low < once.interval.low < once.interval.high < often.interval.high


# -- coverage, by simulation


def tail(hits: int, n: int, p: float) -> float:
    """P(X <= hits) of a binomial X: how far one can still believe in p."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(hits + 1))


def covered(effect: Effect | None, truth: float) -> bool:
    assert effect is not None and effect.interval is not None
    return effect.interval.low <= truth <= effect.interval.high


@pytest.mark.parametrize(
    ("noise", "n"), [((0.02,), 8), ((0.01, 0.04, 0.02), 4), ((0.01, 0.04, 0.02), 3)]
)
def test_intervals_cover_what_was_planted(noise: tuple[float, ...], n: int) -> None:
    """95 % of the time, however unlike the contrasts' noise: an exact binomial test each."""
    terms = planted(2, 2)
    draw = Random(20260101)
    runs = 600
    hits = {"alone": 0, "last": 0, "mean": 0, "change": 0}
    a, both = terms[frozenset("a")], terms[frozenset("ab")]
    truth = {"alone": a, "last": a + both, "mean": a + both / 2, "change": both}
    for _ in range(runs):
        one = toggle(attributed(rows(terms, "factorial", k=2, n=n, noise=noise, draw=draw)), "a")
        for name in hits:
            hits[name] += covered(getattr(one, name), truth[name])
    for name, count in hits.items():
        assert tail(count, runs, 0.95) > 1e-4, (name, count)
        # Nor are they so wide that they could not miss.
        assert tail(runs - count, runs, 0.01) > 1e-4, (name, count)


# -- all at once


def test_holm_by_hand() -> None:
    assert holm_limit([0.01, 0.04, 0.03, 0.005]) == 0.01
    assert holm_limit([0.03, 0.03]) == -1.0
    assert holm_limit([0.02, 0.04]) == 0.04
    assert holm_limit([]) == -1.0


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_lies_between_bonferroni_and_none(ps: list[float]) -> None:
    limit = holm_limit(ps)
    assert all(p <= limit for p in ps if p <= 0.05 / len(ps))
    assert all(p > limit for p in ps if p > 0.05)


def test_the_family_is_all_that_is_asked() -> None:
    found = attributed(rows(planted(2, 2), "factorial", k=2, noise=(0.02,)))
    # Alone, last, change and mean of two toggles; one pair; the whole, and one sum beside it.
    assert len(p_values(found)) == 8 + 1 + 2


# -- against numpy


@pytest.mark.parametrize(("design", "k"), [("factorial", 4), ("factorial", 5), ("fraction", 7)])
def test_coefficients_are_numpys(design: str, k: int) -> None:
    numpy = pytest.importorskip("numpy")
    terms = planted(k, 2, 3)
    pairs = rows(terms, design, k=k, noise=(0.03, 0.01))[1:]
    fitted = [(c, r) for c, r in pairs if (k, design) != (5, "factorial") or len(on_in(c.b)) < 5]
    found = attributed(pairs)
    runs = [frozenset[str](), *(on_in(contrast.b) for contrast, _ in fitted)]
    y = [0.0, *(sum(map(math.log, row.b)) / len(row.b) for _, row in fitted)]
    groups = [each.pairs for each in found.interactions]
    x = [
        [
            1.0,
            *((1.0 if name in on else -1.0) for name in LETTERS[:k]),
            *(math.prod(1.0 if n in on else -1.0 for n in group[0]) for group in groups),
        ]
        for on in runs
    ]
    expected = numpy.linalg.lstsq(numpy.array(x), numpy.array(y), rcond=None)[0]
    mains = [of(each.mean) / 2 for each in found.toggles]
    changes = [each.change.log_ratio / 4 for each in found.interactions]
    assert [*mains, *changes] == pytest.approx(list(expected[1:]), abs=1e-12)


@given(seed=st.integers(0, 10**6))
def test_least_squares_is_numpys(seed: int) -> None:
    numpy = pytest.importorskip("numpy")
    draw = Random(seed)
    columns = tuple(tuple(draw.uniform(-1, 1) for _ in range(7)) for _ in range(4))
    found = least_squares(columns)
    expected = numpy.linalg.pinv(numpy.array(columns).T)
    assert found is not None
    assert numpy.array(found) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_columns_that_determine_nothing() -> None:
    assert least_squares(((1.0, 1.0), (1.0, 1.0))) is None
    assert least_squares(((1.0,), (2.0,))) is None


def test_a_design_of_no_machine_is_not_fitted() -> None:
    """Two hundred toggles would have 20,000 pairs; what was measured alone is told all the same."""
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


def test_welch_and_satterthwaite_are_scipys() -> None:
    """The change of one toggle is a Welch test between two contrasts, for k = 2 by `both`."""
    scipy_stats = pytest.importorskip("scipy.stats")
    pairs = rows(planted(2, 2), "both", k=2, n=6, noise=(0.01, 0.05, 0.02))
    ratios = {contrast.name: [math.log(x) for x in row.b] for contrast, row in pairs}
    test = scipy_stats.ttest_ind(ratios["a@last"], ratios["a"], equal_var=False)
    interval = test.confidence_interval(0.95)
    change = toggle(attributed(pairs), "a").change
    assert change is not None and change.interval is not None
    assert change.p == pytest.approx(float(test.pvalue))
    assert (change.interval.low, change.interval.high) == pytest.approx(tuple(interval))
