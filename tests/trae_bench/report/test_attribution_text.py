"""Attributions for people: the words fit the figures, the figures fit the page."""

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


def told(
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


def test_what_cannot_be_trusted_is_named() -> None:
    names = (("work", "cpu"), (NASTY, "wall"))
    left_out = replace(nothing(), untrusted=names)
    shown = flat(text(left_out, METRICS))
    assert "Nothing to attribute: Left out, for equal sides do not come out equal: work cpu" in (
        shown
    )
    assert not FORBIDDEN.search(shown)


def nothing() -> Attributions:
    return Attributions(family=0, limit=-1.0, found=())


def test_a_head_is_wrapped_and_tells_one_pair_as_one() -> None:
    found = attribute(rows({}, "add-one", k=2, n=1, noise=(0.0,)), scenario="w" * 40, metric="cpu")
    assert found is not None
    shown = of(found)
    assert "(1 pair a contrast;" in flat(shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_one_more_import_counts() -> None:
    """Of what does not vary, any change does."""
    terms = {frozenset("a"): math.log(301 / 300)}
    pairs = [(c, replace(r, rule=EXACT_V1)) for c, r in rows(terms, "factorial", k=2)]
    found = attribute(pairs, scenario="work", metric="modules_imported")
    assert found is not None
    shown = flat(of(found))
    assert "any change counts" in shown
    assert "a 1.003 ±0.0 %*" in shown


def test_a_factorial_of_two() -> None:
    shown = flat(told("factorial", 2, {**HELP, frozenset("ab"): math.log(0.97 / 0.8)}))
    assert "toggle alone others on on/alone on average" in shown
    assert "a 0.800 ±0.1 %* 0.970" in shown
    # Of the two the one with the larger mean effect is told.
    assert "a x b: 1.212" in shown
    assert "b gives -25.0 % [-25.0 -24.9] without a, -9.0 % [-9.1 -9.0] once it is on" in shown
    assert "the whole is 1.212" in shown
    assert "together they give less than apart" in shown


@pytest.mark.parametrize(
    ("metric", "together", "said"),
    [
        ("cpu", 0.2, "less"),
        ("cpu", -0.2, "more"),
        ("steps_per_second", 0.2, "more"),
        ("steps_per_second", -0.2, "less"),
    ],
)
def test_less_or_more_depends_on_what_is_better(metric: str, together: float, said: str) -> None:
    shown = flat(told("factorial", 2, {**HELP, frozenset("ab"): together}, metric=metric))
    assert f"together they give {said} than apart" in shown


def test_parts_that_add_up() -> None:
    shown = flat(told("both", 3, HELP))
    assert shown.count("they agree within the interval") == 2
    assert "Intervals are wider" not in shown
    assert "Intervals are wider" in flat(told("both", 3, HELP, looks=6))


def test_agreement_within_a_wide_interval_is_none() -> None:
    shown = flat(told("factorial", 2, HELP, n=2, noise=0.3))
    assert "too wide an interval to tell more" in shown
    assert "they agree" not in shown


def test_three_that_act_together_are_missing() -> None:
    shown = flat(told("factorial", 3, {**HELP, frozenset("abc"): 0.3}))
    assert "what is missing comes from three or more toggles together" in shown


def test_what_is_certain_and_too_small_counts_for_nothing() -> None:
    tiny = {frozenset("a"): 0.004, frozenset("b"): 0.004, frozenset("ab"): 0.004}
    shown = flat(told("factorial", 2, tiny, noise=0.0001))
    assert "* " not in shown.partition("Ratios")[0]
    assert "what is missing is too small to count" in shown


def test_a_whole_that_was_not_measured() -> None:
    shown = flat(told("add-one", 3, HELP))
    assert "no whole to be held to" in shown
    assert "toggle alone a" in shown
    assert "no whole" not in told("add-one", 1, HELP)


def test_pairs_that_cannot_be_told_apart() -> None:
    shown = flat(told("fraction", 7, planted(7, 2)))
    assert "b x g + c x f + d x e (one figure: they cannot be told apart)" in shown
    assert "and 1 weaker, 1 of them with a star" in shown
    assert "--design factorial tells the pairs apart" in shown


def test_one_pair_and_no_interval() -> None:
    assert "0.800 (one pair)" in told("add-one", 1, HELP, n=1, noise=0.0)


@pytest.mark.parametrize("design", ["add-one", "remove-one", "both", "fraction", "factorial"])
def test_eighty_columns_are_enough(design: str) -> None:
    pairs = rows(planted(7, 2), design, k=7, n=2, noise=(0.3,))
    for letter in LETTERS[:7]:
        pairs = [(renamed(c, letter, f"batched_trajector{letter}"), r) for c, r in pairs]
    found = attribute(pairs, scenario="work", metric="cpu")
    assert found is not None
    assert max(map(len, of(found).splitlines())) <= 80


def test_nothing_of_a_strangers_file_gets_through() -> None:
    pairs = [(renamed(c, "a", NASTY), r) for c, r in rows(HELP, "factorial", k=2, n=2)]
    found = attribute(pairs, scenario=NASTY, metric="cpu")
    assert found is not None
    bad = replace(found, missing=(NASTY,) * 9)
    assert not FORBIDDEN.search(of(bad).replace("\n", ""))
    assert "and 3 more" in of(bad)


def test_nothing_to_tell() -> None:
    assert "Nothing to attribute" in text(Attributions(0, -1.0, ()), METRICS)
