"""From a scenario to the turns that are played."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.script import expand, fill
from trae_bench.scenario import ProviderConditions, Scenario, ScriptedCall, ToggleUse, Turn

WORKSPACE = Path("/ws")
DONE = Turn(calls=(ScriptedCall("task_done"),))


def scenario(*turns: Turn) -> Scenario:
    conditions = ProviderConditions(protocol="gemini", think_seconds=0.25)
    return Scenario("s", "about", "task", turns, ToggleUse(()), ("cpu",), provider=conditions)


def test_conditions_come_along() -> None:
    script = expand(scenario(DONE), WORKSPACE)
    assert (script.protocol, script.think_seconds) == ("gemini", 0.25)


def test_repeats_are_played_and_counted() -> None:
    again = Turn("step {n}", (ScriptedCall("bash", {"command": "echo {n}"}),), repeat=3)
    turns = expand(scenario(again, DONE), WORKSPACE).turns
    assert [turn.text for turn in turns] == ["step 1", "step 2", "step 3", ""]
    assert [turn.calls[0].arguments for turn in turns[:3]] == [
        {"command": "echo 1"},
        {"command": "echo 2"},
        {"command": "echo 3"},
    ]


def test_the_workspace_is_filled_in_at_any_depth() -> None:
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


def test_the_braces_of_program_text_stay() -> None:
    text = 'f"{n} {x!r} {{y}}" {} { workspace }'
    assert expand(scenario(Turn(text), DONE), WORKSPACE).turns[0].text == text


@given(st.text(), st.dictionaries(st.text(st.characters(exclude_characters="{}")), st.just("v")))
def test_a_text_without_braces_is_left_alone(text: str, names: dict[str, str]) -> None:
    plain = text.replace("{", "(")
    assert fill(plain, names) == plain


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=5))
def test_length_and_ids(shape: list[tuple[int, int]]) -> None:
    turns = [Turn("t", (ScriptedCall("bash"),) * calls, repeat) for repeat, calls in shape]
    script = expand(scenario(*turns, DONE), WORKSPACE)
    ids = [call.id for turn in script.turns for call in turn.calls]
    assert len(script.turns) == 1 + sum(repeat for repeat, _ in shape)
    assert len(ids) == len(set(ids)) == 1 + sum(repeat * calls for repeat, calls in shape)
    assert script == expand(scenario(*turns, DONE), WORKSPACE)
