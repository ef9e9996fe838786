"""Attribution as text: sentences agree with the figures, and lines fit the width."""

import math

import pytest
from msgspec.structs import replace

from tests.trae_bench.report.test_terminal import FORBIDDEN, NASTY
from tests.trae_bench.stats.test_attribution import LETTERS, planted, rows
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Contrast
from trae_bench.report.text.attribution import text
from trae_bench.stats.analysis import Attributions
from trae_bench.stats.attribution import Attribution, attribute, holm_limit, p_values
from trae_bench.stats.decision import EXACT_V1


def attribution_text(
    design: str,
    k: int,
    terms: dict[frozenset[str], float],
    *,
    n: int = 8,
    noise: float = 0.001,
    metric: str = "cpu",
    looks: int = 1,
) -> str:
    pairs = rows(terms, design, k=k, n=n, noise=(noise,))
    found = attribute(pairs, scenario="work", metric=metric, looks=looks)
    assert found is not None
    return of(found)


def of(found: Attribution) -> str:
    family = p_values(found)
    everything = Attributions(family=len(family), limit=holm_limit(family), found=(found,))
    return text(everything, METRICS)


def flat(shown: str) -> str:
    return " ".join(shown.split())


def renamed(contrast: Contrast, old: str, new: str) -> Contrast:
    """The same toggle under another name."""
    a, b = (
        replace(arm, toggles={new if n == old else n: on for n, on in arm.toggles.items()})
        for arm in (contrast.a, contrast.b)
    )
    return replace(contrast, a=a, b=b)


HELP = {frozenset("a"): math.log(0.8), frozenset("b"): math.log(0.75)}


def test_untrusted_metrics_are_named() -> None:
    names = (("work", "cpu"), (NASTY, "wall"))
    left_out = replace(nothing(), untrusted=names)
    shown = flat(text(left_out, METRICS))
    assert "Nothing to attribute: Left out, because the A/A sides differ: work cpu" in shown
    assert not FORBIDDEN.search(shown)


def nothing() -> Attributions:
    return Attributions(family=0, limit=-1.0, found=())


def test_a_long_heading_is_wrapped_and_one_pair_is_singular() -> None:
    found = attribute(rows({}, "add-one", k=2, n=1, noise=(0.0,)), scenario="w" * 40, metric="cpu")
    assert found is not None
    shown = of(found)
    assert "(1 pair per contrast;" in flat(shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_one_more_import_counts() -> None:
    """Any change of a count that does not vary counts."""
    terms = {frozenset("a"): math.log(301 / 300)}
    pairs = [(c, replace(r, rule=EXACT_V1)) for c, r in rows(terms, "factorial", k=2)]
    found = attribute(pairs, scenario="work", metric="modules_imported")
    assert found is not None
    shown = flat(of(found))
    assert "any change counts" in shown
    assert "a 1.003 ±0.0 %*" in shown


def test_a_factorial_of_two() -> None:
    shown = flat(attribution_text("factorial", 2, {**HELP, frozenset("ab"): math.log(0.97 / 0.8)}))
    assert "toggle alone others on on/alone on average" in shown
    assert "a 0.800 ±0.1 %* 0.970" in shown
    # The sentence is about the toggle with the larger mean effect.
    assert "a x b: 1.212" in shown
    assert "b gives -25.0 % [-25.0 -24.9] with a off, -9.0 % [-9.1 -9.0] with it on" in shown
    assert "all on is 1.212" in shown
    assert "the toggles give less together than each alone" in shown


@pytest.mark.parametrize(
    ("metric", "together", "amount"),
    [
        ("cpu", 0.2, "less"),
        ("cpu", -0.2, "more"),
        ("steps_per_second", 0.2, "more"),
        ("steps_per_second", -0.2, "less"),
    ],
)
def test_less_or_more_depends_on_the_better_direction(
    metric: str, together: float, amount: str
) -> None:
    shown = flat(
        attribution_text("factorial", 2, {**HELP, frozenset("ab"): together}, metric=metric)
    )
    assert f"the toggles give {amount} together than each alone" in shown


def test_effects_that_multiply_to_all_on() -> None:
    shown = flat(attribution_text("both", 3, HELP))
    assert shown.count("they agree within the interval") == 2
    assert "Intervals are wider" not in shown
    assert "Intervals are wider" in flat(attribution_text("both", 3, HELP, looks=6))


def test_agreement_within_a_wide_interval_is_not_reported() -> None:
    shown = flat(attribution_text("factorial", 2, HELP, n=2, noise=0.3))
    assert "the interval is too wide to tell" in shown
    assert "they agree" not in shown


def test_an_interaction_of_three_toggles_is_reported() -> None:
    shown = flat(attribution_text("factorial", 3, {**HELP, frozenset("abc"): 0.3}))
    assert "three or more toggles together cause the difference" in shown


def test_a_significant_but_small_difference_does_not_count() -> None:
    tiny = {frozenset("a"): 0.004, frozenset("b"): 0.004, frozenset("ab"): 0.004}
    shown = flat(attribution_text("factorial", 2, tiny, noise=0.0001))
    assert "* " not in shown.partition("Ratios")[0]
    assert "the difference is too small to count" in shown


def test_all_on_without_a_measurement() -> None:
    shown = flat(attribution_text("add-one", 3, HELP))
    assert "all toggles on was not measured" in shown
    assert "toggle alone a" in shown
    assert "was not measured" not in attribution_text("add-one", 1, HELP)


def test_pairs_that_share_one_figure() -> None:
    shown = flat(attribution_text("fraction", 7, planted(7, 2)))
    assert "b x g + c x f + d x e (one figure: this design cannot separate them)" in shown
    assert "and 1 weaker, 1 of them with a star" in shown
    assert "--design factorial separates the pairs" in shown


def test_one_pair_has_no_interval() -> None:
    assert "0.800 (one pair)" in attribution_text("add-one", 1, HELP, n=1, noise=0.0)


@pytest.mark.parametrize("design", ["add-one", "remove-one", "both", "fraction", "factorial"])
def test_eighty_columns_are_enough(design: str) -> None:
    pairs = rows(planted(7, 2), design, k=7, n=2, noise=(0.3,))
    for letter in LETTERS[:7]:
        pairs = [(renamed(c, letter, f"batched_trajector{letter}"), r) for c, r in pairs]
    found = attribute(pairs, scenario="work", metric="cpu")
    assert found is not None
    assert max(map(len, of(found).splitlines())) <= 80


def test_untrusted_names_are_escaped() -> None:
    pairs = [(renamed(c, "a", NASTY), r) for c, r in rows(HELP, "factorial", k=2, n=2)]
    found = attribute(pairs, scenario=NASTY, metric="cpu")
    assert found is not None
    bad = replace(found, missing=(NASTY,) * 9)
    assert not FORBIDDEN.search(of(bad).replace("\n", ""))
    assert "and 3 more" in of(bad)


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(80, ""), (70, "on/alone"), (50, "on/alone, others on"), (40, "on/alone, others on, alone")],
)
def test_a_narrow_terminal_gets_fewer_columns(width: int, left_out: str) -> None:
    found = attribute(rows(HELP, "factorial", k=2, noise=(0.001,)), scenario="work", metric="cpu")
    assert found is not None
    found = replace(found, toggles=tuple(replace(t, toggle="t" * 30) for t in found.toggles))
    shown = text(Attributions(family=0, limit=0.05, found=(found,)), METRICS, width=width)
    assert max(map(len, shown.splitlines())) <= width
    note = f"Columns left out to fit {width}: {left_out}."
    assert (note in flat(shown)) == bool(left_out)


def test_nothing_to_attribute() -> None:
    assert "Nothing to attribute" in text(Attributions(0, -1.0, ()), METRICS)
