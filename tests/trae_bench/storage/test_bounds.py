"""Tests that no accepted run file takes long: the work is linear, and its size is limited."""

import sys
from collections.abc import Callable
from types import FrameType

import msgspec
import pytest

from tests.trae_bench.runs import NOW, honest
from tests.trae_bench.worst_runs import many_cells
from trae_bench.design.contrasts import DESIGNS, NOISE_FLOOR, contrasts, count_contrasts
from trae_bench.model.experiment import Arm
from trae_bench.model.run import RunFile
from trae_bench.report.html import Source, page
from trae_bench.report.text import explanation, junit, markdown, terminal
from trae_bench.stats import effect_weights
from trae_bench.stats.effect_weights import ContrastEstimate, Fits
from trae_bench.storage.bounds import MAX_MATCHES, MAX_PLANNED, MAX_WILDCARDS
from trae_bench.storage.verify import verify

replace = msgspec.structs.replace


def calls_of(work: Callable[[], object]) -> int:
    """Count the calls of functions and the steps of generators that some work takes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def explain_one(run: RunFile) -> object:
    (key, *_) = explanation.rows(run)
    return explanation.explain(run, key, run.header.limits, claimed=True)


WORK: dict[str, Callable[[RunFile], object]] = {
    "verify": lambda run: verify(run, now=NOW),
    "text": lambda run: terminal.run_table(run, width=120),
    "markdown": markdown.comment,
    "junit": junit.junit,
    "html": lambda run: page([Source("run.json", run, True)]),
    "explain": explain_one,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize(("cells", "metrics"), [(160, 1), (20, 8)])
def test_work_grows_linearly_with_rows(name: str, cells: int, metrics: int) -> None:
    runs = [many_cells(size, 12, metrics, per_scenario=4) for size in (cells, 2 * cells, 4 * cells)]
    WORK[name](runs[0])  # Fill the caches.
    small, medium, large = (calls_of(lambda run=run: WORK[name](run)) for run in runs)
    assert large - medium < 2.4 * (medium - small) + 2000


def test_every_look_of_a_large_family_is_linear() -> None:
    """Holm's method tests the rows in one pass, sorted by p-value."""
    runs = [many_cells(size, 60, per_scenario=size) for size in (20, 40, 80)]
    small, medium, large = (calls_of(lambda run=run: verify(run, now=NOW)) for run in runs)
    assert large - medium < 2.4 * (medium - small)


def finding(run: RunFile) -> str:
    (text,) = {str(one) for one in verify(run, now=NOW) if one.place == "header"}
    return text


def test_a_plan_of_too_many_contrasts_is_not_generated() -> None:
    run = honest()
    used = run.header.scenarios["work"]
    toggles = tuple(f"toggle {number}" for number in range(100))
    many = replace(used, varied=toggles, baseline=dict.fromkeys(toggles, False))
    header = replace(run.header, scenarios={"work": many}, design="full")
    assert f"multiply to more than {MAX_PLANNED:,}" in finding(replace(run, header=header))
    thousand = {f"s{number}": many for number in range(1000)}
    for design in tuple(DESIGNS):
        header = replace(run.header, scenarios=thousand, design=design)
        assert "too large" in finding(replace(run, header=header))


def test_too_many_patterns_are_not_matched() -> None:
    run = honest()
    for filters, problem in (
        (("*",) * (MAX_MATCHES // 10), "patterns for"),
        (("*" + "x" * 7000,) * (MAX_WILDCARDS // 7000 + 1), "characters"),
    ):
        header = replace(run.header, filters=filters)
        assert problem in finding(replace(run, header=header))


def test_a_filter_without_a_match_is_not_compared_with_every_row() -> None:
    run = many_cells(400, 1, per_scenario=40)
    varied = tuple(f"t{number}" for number in range(1, 40))
    used = replace(
        run.header.scenarios["s0"],
        metrics=("m0",),
        varied=varied,
        baseline=dict.fromkeys(varied, False),
    )
    scenarios = dict.fromkeys(run.header.scenarios, used)
    header = replace(run.header, scenarios=scenarios, filters=("s0/t1/m00",))
    text = finding(replace(run, header=header))
    assert text.endswith("no comparison matches --filter 's0/t1/m00'")


@pytest.mark.parametrize("design", tuple(DESIGNS))
@pytest.mark.parametrize("varied", range(1, 9))
def test_contrasts_are_counted_without_generating_them(design: str, varied: int) -> None:
    toggles = tuple(f"t{number}" for number in range(varied))
    planned = contrasts(toggles, dict.fromkeys(toggles, False), design)
    assert len(planned) <= count_contrasts(varied, design) <= len(planned) + 2
    assert planned[0].name == NOISE_FLOOR
    assert isinstance(planned[0].a, Arm)


def test_all_fits_of_a_run_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_weights, "MAX_FIT_OPERATIONS", 100)
    fits, factors = Fits(), ("x", "y")
    full = [frozenset({"x"}), frozenset({"y"}), frozenset({"x", "y"})]
    estimates = [ContrastEstimate(frozenset(), on, 0.1, 0.1, 7, 8) for on in full]
    assert fits.weights(estimates, factors) is not None
    assert fits.operations == 4**2 * 3
    # The same contrasts need no second fit.
    assert fits.weights(estimates, factors) is not None
    assert fits.weights(estimates, ("y", "x")) is not None
    assert fits.operations == 2 * 4**2 * 3
    assert fits.weights(estimates[::-1], factors) is None
    assert fits.operations <= 100


def test_all_interactions_of_a_run_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effect_weights, "MAX_INTERACTION_OPERATIONS", 7)
    fits, factors = Fits(), ("x", "y")
    full = [frozenset({"x"}), frozenset({"y"}), frozenset({"x", "y"})]
    estimates = [ContrastEstimate(frozenset(), on, 0.1, 0.1, 7, 8) for on in full]
    results = [fits.weights(estimates, factors) for _ in range(3)]
    assert [weights is not None for weights in results] == [True, True, False]
