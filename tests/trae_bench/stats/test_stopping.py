"""When more pairs of a row would be wasted."""

import math
from random import Random

import msgspec
import pytest

from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Limits
from trae_bench.model.result import Comparison, Pairs
from trae_bench.stats.decision import Row, estimate, verdicts
from trae_bench.stats.stopping import asking, is_hopeless, settling_chance

CPU = METRICS["cpu"]


def comparison(mean: float, sd: float, n: int = 8, seed: int = 1) -> tuple[Comparison, Row]:
    """A row of `n` pairs with exactly this mean and standard deviation of the log ratios."""
    random = Random(seed)
    drawn = [random.gauss(0, 1) for _ in range(n)]
    center = sum(drawn) / n
    scale = math.sqrt(sum((x - center) ** 2 for x in drawn) / (n - 1))
    b = tuple(math.exp(mean + sd * (x - center) / scale) for x in drawn)
    row = Row(a=(1.0,) * n, b=b)
    found = Comparison(
        scenario="work",
        contrast="fast",
        metric="cpu",
        mode="duet",
        estimate=estimate(row),
        judgement=verdicts({"row": row})["row"],
        threshold=0.02,
        pairs=Pairs(n, 0, 0),
    )
    return found, row


def test_a_quiet_row_is_not_hopeless() -> None:
    found, _ = comparison(0.02, 0.03)
    assert not found.judgement.settled
    assert not is_hopeless(found, Limits(), CPU, 30)
    assert asking([found], Limits(), METRICS) == {("work", "fast", "cpu")}


def test_hopeless_row_takes_no_more_pairs() -> None:
    found, _ = comparison(0.03, 0.5)
    assert is_hopeless(found, Limits(), CPU, 30)
    assert asking([found], Limits(), METRICS) == set()


def test_one_lost_pair_of_head_asks_for_more_pairs() -> None:
    found, _ = comparison(0.0, 0.002)
    settled = msgspec.structs.replace(found, contrast="head")
    assert settled.judgement.settled

    def asks(*pairs: int, precision: float | None = None, contrast: str = "head") -> bool:
        row = msgspec.structs.replace(settled, contrast=contrast, pairs=Pairs(*pairs))
        return bool(asking([row], Limits(precision=precision), METRICS))

    assert asks(8, 1, 0) and asks(8, 0, 1) and asks(16, 1, 0)
    # 20 pairs are enough, and two lost pairs give a result at once.
    assert not asks(20, 1, 0) and not asks(8, 2, 0) and not asks(8, 0, 0)
    assert not asks(8, 1, 0, contrast="fast")
    assert not asks(8, 1, 0, precision=0.5)


def test_a_large_effect_in_much_noise_is_worth_more_pairs() -> None:
    found, _ = comparison(0.6, 0.5)
    assert not found.judgement.settled
    assert not is_hopeless(found, Limits(), CPU, 30)


def test_fewer_pairs_left_make_a_row_hopeless() -> None:
    found, _ = comparison(0.02, 0.04)
    assert not is_hopeless(found, Limits(), CPU, 30)
    assert is_hopeless(found, Limits(pairs=12), CPU, 30)


@pytest.mark.parametrize("limits", [Limits(fixed=True), Limits(precision=0.01)])
def test_no_row_is_hopeless_if_verdicts_do_not_stop_it(limits: Limits) -> None:
    found, _ = comparison(0.03, 0.5)
    assert not is_hopeless(found, limits, CPU, 30)


def test_settling_chance_needs_a_first_look() -> None:
    found, _ = comparison(0.03, 0.5, n=7)
    assert settling_chance(found, Limits(), CPU, 30) is None


def test_requested_threshold_leaves_a_gap_that_no_pair_settles() -> None:
    """A mean between the margin (3 %) and a threshold of 50 % stays inconclusive."""
    found, _ = comparison(0.1, 0.05)
    found = msgspec.structs.replace(found, threshold=0.5)
    metric = msgspec.structs.replace(CPU, threshold=0.5)
    chance = settling_chance(found, Limits(), metric, 1)
    assert chance is not None and chance < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.08), (0.03, 0.08), (0.02, 0.05), (0.1, 0.2)])
def test_the_chance_is_the_share_of_continuations_that_settle(mean: float, sd: float) -> None:
    """The oracle continues the row at random, with the estimate as the true mean."""
    found, row = comparison(mean, sd)
    chance = settling_chance(found, Limits(), CPU, 1)
    assert chance is not None
    last, random, settled = row.rule.looks[-1], Random(2), 0
    for _ in range(400):
        more = tuple(math.exp(random.gauss(mean, sd)) for _ in range(last - 8))
        whole = Row(a=(1.0,) * last, b=(*row.b, *more))
        # Only the last look, so that earlier ones cannot settle the row.
        only_last = msgspec.structs.replace(row.rule, looks=(last,), alpha=row.rule.level)
        tail = row.rule.alpha_equivalence / len(row.rule.looks)
        only_last = msgspec.structs.replace(only_last, alpha_equivalence=tail)
        verdict = verdicts({"row": msgspec.structs.replace(whole, rule=only_last)})["row"]
        settled += verdict.verdict != "inconclusive"
    assert chance == pytest.approx(settled / 400, abs=0.1)
