"""Expansion of scenarios to scripts."""

import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.script import PlayedTurn, Script, expand, expand_template
from trae_bench.scenario import (
    MAX_THINK_SECONDS,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    ToggleUse,
    Turn,
)

WORKSPACE = Path("/ws")
DONE = Turn(calls=(ScriptedCall("task_done"),))


def scenario(*turns: Turn) -> Scenario:
    conditions = ProviderConditions(protocol="gemini", think_seconds=0.25)
    return Scenario(
        name="s",
        about="about",
        task="task",
        turns=turns,
        toggles=ToggleUse(()),
        metrics=("cpu",),
        provider=conditions,
    )


def test_conditions_are_copied() -> None:
    script = expand(scenario(DONE), WORKSPACE)
    assert script.protocol == "gemini"
    assert script.think_times() == [0.25]


def test_repeats_are_expanded_and_numbered() -> None:
    again = Turn("step {n}", (ScriptedCall("bash", {"command": "echo {n}"}),), repeat=3)
    turns = expand(scenario(again, DONE), WORKSPACE).turns
    assert [turn.text for turn in turns] == ["step 1", "step 2", "step 3", ""]
    assert [turn.calls[0].arguments for turn in turns[:3]] == [
        {"command": "echo 1"},
        {"command": "echo 2"},
        {"command": "echo 3"},
    ]


def test_the_workspace_is_expanded_at_any_depth() -> None:
    arguments = {"path": "{workspace}/a", "deep": [{"x": "in {workspace}"}], "n": 3, "b": True}
    turn = Turn("see {workspace}", (ScriptedCall("view", arguments),))
    played = expand(scenario(turn, DONE), WORKSPACE).turns[0]
    assert played.text == "see /ws"
    assert played.calls[0].arguments == {
        "path": "/ws/a",
        "deep": [{"x": "in /ws"}],
        "n": 3,
        "b": True,
    }


def test_other_braces_are_unchanged() -> None:
    text = 'f"{n} {x!r} {{y}}" {} { workspace }'
    assert expand(scenario(Turn(text), DONE), WORKSPACE).turns[0].text == text


@given(st.text(), st.dictionaries(st.text(st.characters(exclude_characters="{}")), st.just("v")))
def test_text_without_braces_is_unchanged(text: str, names: dict[str, str]) -> None:
    plain = text.replace("{", "(")
    assert expand_template(plain, names) == plain


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=5))
def test_length_and_ids(shape: list[tuple[int, int]]) -> None:
    turns = [Turn("t", (ScriptedCall("bash"),) * calls, repeat) for repeat, calls in shape]
    script = expand(scenario(*turns, DONE), WORKSPACE)
    ids = [call.id for turn in script.turns for call in turn.calls]
    assert len(script.turns) == 1 + sum(repeat for repeat, _ in shape)
    assert len(ids) == len(set(ids)) == 1 + sum(repeat * calls for repeat, calls in shape)
    assert script == expand(scenario(*turns, DONE), WORKSPACE)


# -- think times --------------------------------------------------------------------------


def think_times(count: int = 4000, **conditions: Any) -> list[float]:
    turns = (PlayedTurn("t"),) * count
    return Script(turns, ProviderConditions(think_seconds=2.0, **conditions)).think_times()


def test_fixed_think_times_are_equal() -> None:
    assert think_times(3) == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_uniform_think_times_keep_within_their_width(spread: float) -> None:
    drawn = think_times(think_distribution="uniform", think_spread=spread)
    assert 2 - 2 * spread <= min(drawn) < 2 - 1.9 * spread
    assert 2 + 1.9 * spread < max(drawn) <= 2 + 2 * spread
    assert abs(fmean(drawn) - 2.0) < 0.1


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_lognormal_think_times_have_the_given_mean(spread: float) -> None:
    drawn = think_times(20_000, think_distribution="lognormal", think_spread=spread)
    assert abs(fmean(drawn) - 2.0) < 0.1
    assert abs(stdev(map(math.log, drawn)) - spread) < 0.02
    assert min(drawn) > 0


def test_the_seed_determines_think_times() -> None:
    jitter: dict[str, Any] = {"think_distribution": "lognormal", "think_spread": 0.5}
    assert think_times(5, **jitter) == think_times(5, **jitter)
    assert think_times(5, **jitter) != think_times(5, **jitter, seed=2)
    # Equal on every machine and Python version.
    assert [round(seconds, 6) for seconds in think_times(2, **jitter)] == DRAWN


DRAWN = [3.361003, 3.643228]


def test_think_times_are_limited() -> None:
    wild = ProviderConditions(think_seconds=3600, think_distribution="lognormal", think_spread=3.0)
    drawn = Script((PlayedTurn("t"),) * 2000, wild).think_times()
    assert max(drawn) == MAX_THINK_SECONDS
