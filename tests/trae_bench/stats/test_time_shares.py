"""How the time of trials divides, from constructed samples."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.model.sample import Sample
from trae_bench.stats.time_shares import TimeShares, time_shares


def sample(**given: Any) -> Sample:
    fields: dict[str, Any] = {
        "scenario": "work",
        "contrast": "fast",
        "mode": "serial",
        "pair": 1,
        "side": "A",
        "slot": 0,
        "arm": "none",
        "status": "ok",
        "started": 0.0,
        "exit_status": 0,
        "pid": 1,
        "correct": True,
    }
    return Sample(**fields | given)


def times(wall: float, model: float, tools: float | None = None) -> dict[str, float]:
    found = {"wall": wall, "model_time": model}
    return (
        found if tools is None else found | {"tool_time": tools, "agent_time": wall - model - tools}
    )


def only(*samples: Sample) -> TimeShares | None:
    return time_shares(samples).get(("work", "none"))


def test_shares_are_those_of_all_trials_together() -> None:
    one, two = sample(metrics=times(1.0, 0.5, 0.25)), sample(metrics=times(3.0, 0.5, 0.75))
    assert only(one, two) == TimeShares(0.25, 0.25, 0.5, 2)


def test_without_tools_the_rest_is_told_together() -> None:
    one, two = sample(metrics=times(1.0, 0.25)), sample(metrics=times(1.0, 0.25, 0.5))
    assert only(one, two) == TimeShares(0.25, None, 0.75, 2)


def test_a_duet_divides_its_net_time() -> None:
    """The other side lengthens tools and agent to 3 s; they take 1.5 s of the net 2 s."""
    metrics = times(3.5, 0.5, 2.0) | {"wall_net": 2.0}
    assert only(sample(mode="duet", metrics=metrics)) == TimeShares(0.25, 0.5, 0.25, 1)
    assert only(sample(mode="duet", metrics=times(3.5, 0.5, 2.0))) is None


def test_serial_trials_are_preferred() -> None:
    duet = sample(mode="duet", metrics=times(4.0, 1.0, 1.0) | {"wall_net": 2.0})
    assert only(duet, sample(metrics=times(1.0, 0.0, 1.0))) == TimeShares(0.0, 1.0, 0.0, 1)
    assert only(duet, sample(metrics={"wall": 1.0})) == only(duet)


@pytest.mark.parametrize(
    "given", [{"pair": 0}, {"correct": False}, {"probe": "tree"}, {"metrics": times(0.0, 0.0, 0.0)}]
)
def test_other_trials_do_not_count(given: dict[str, Any]) -> None:
    assert only(sample(**{"metrics": times(1.0, 0.5, 0.25)} | given)) is None


numbers = st.floats(allow_nan=False)


@given(numbers, numbers, numbers, numbers)
def test_any_numbers_of_a_file_give_fractions(
    wall: float, model: float, tools: float, agent: float
) -> None:
    metrics = {"wall": wall, "model_time": model, "tool_time": tools, "agent_time": agent}
    shares = only(sample(metrics=metrics))
    if shares is not None:
        parts = (shares.model, shares.tools or 0.0, shares.agent)
        assert all(0 <= part <= 1 for part in parts)
        assert math.isclose(sum(parts), 1)
