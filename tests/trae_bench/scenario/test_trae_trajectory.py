"""Conversion of trajectories to scenarios; `tests/test_replay.py` replays them."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.errors import UsageError
from trae_bench.provider.script import expand
from trae_bench.scenario import parse
from trae_bench.scenario.importers.conversion import NOT_VARIED, recorded, text_files
from trae_bench.scenario.importers.reading import read_session
from trae_bench.scenario.importers.session import Document, RecordedSession
from trae_bench.scenario.importers.trae_trajectory import read
from trae_bench.subject.agent_core import toggles, tools

DONE = {"name": "task_done", "arguments": {}}


def trajectory(*responses: dict[str, Any], **changes: Any) -> RecordedSession:
    document = {
        "task": "Repair /home/me/lab/a.py, not /home/me/labshop.",
        "provider": "anthropic",
        "success": True,
        "final_result": "All is well.\n",
        "llm_interactions": [{"response": response, "timestamp": "now"} for response in responses],
        "agent_steps": [],
    }
    return read(Document(msgspec.json.encode(document | changes), "object", ()))


def test_a_session_becomes_a_scenario() -> None:
    call = {"call_id": "1", "name": "bash", "arguments": {"command": "cat /home/me/lab/a.py"}}
    made = recorded(
        trajectory(
            {"content": "I look.", "tool_calls": [call]},
            {"content": "All is well.", "tool_calls": [DONE]},
        ),
        "mine",
        toggles=("fast",),
        workspace="/home/me/lab/",
        files={"a.py": "x = 1\n"},
    )
    scenario = parse(made.text)
    assert scenario == made.scenario
    assert scenario.task == "Repair {workspace}/a.py, not /home/me/labshop."
    assert scenario.turns[0].text == "I look."
    assert scenario.turns[0].calls[0].arguments == {"command": "cat {workspace}/a.py"}
    assert scenario.provider.protocol == "anthropic_messages"
    assert scenario.workspace.files == {"a.py": "x = 1\n"}
    assert scenario.oracle.final_text == "All is well."
    assert scenario.toggles.vary == ("fast",)
    assert [note for note in made.notes if "checks the final text only" not in note] == []


@pytest.mark.parametrize(
    ("final", "last", "expected"),
    [
        ("All is well.", "So: All is well.", "All is well."),
        ("a is in /w/sub, as b is not.", "a is in /w/sub, as b is not.", "/sub, as b is not."),
        ("All is well.", "Done.", ""),
        ("All is well.", "", ""),
    ],
)
def test_the_oracle_contains_only_text_that_the_replay_repeats(
    final: str, last: str, expected: str
) -> None:
    session = trajectory({"content": last, "tool_calls": [DONE]}, final_result=final)
    made = recorded(session, "mine", toggles=(), workspace="/w")
    assert made.scenario.oracle.final_text == expected
    assert any("differs from the final result" in note for note in made.notes) == (not expected)


def test_toggles_without_effect_on_a_recording_are_not_varied() -> None:
    made = recorded(trajectory({"content": "x"}), "mine", toggles=tuple(toggles()))
    assert "batched_trajectory" in made.scenario.toggles.vary
    assert toggles().keys() > NOT_VARIED
    assert NOT_VARIED.isdisjoint(made.scenario.toggles.vary)


def test_notes_list_what_is_missing() -> None:
    made = recorded(
        trajectory({"content": ""}, {"content": "{workspace}"}, success=False), "mine", toggles=()
    )
    assert [turn.text for turn in made.scenario.turns] == [
        " ",
        "{workspace}",
        "The recording ends here.",
    ]
    assert made.scenario.oracle.final_text == ""
    notes = "\n".join(made.notes)
    for part in ("did not end with task_done", "blank", "--workspace", "--files", "[oracle]"):
        assert part in notes
    assert "a model reply contains {workspace}" in notes


def test_values_without_a_toml_form_are_kept_as_json() -> None:
    call = {"name": "view", "arguments": {"path": "/w/a", "view_range": None, "é": [None]}}
    made = recorded(
        trajectory({"tool_calls": [call]}, {"tool_calls": [DONE]}),
        "mine",
        toggles=(),
        workspace="/w",
    )
    turns = expand(parse(made.text), Path("/other")).turns
    assert turns[0].calls[0].arguments == {"path": "/other/a", "view_range": None, "é": [None]}


@pytest.mark.parametrize(
    ("responses", "problem"),
    [
        ([], "no model reply"),
        ([{"tool_calls": [DONE]}, {"content": "more"}], "continues after task_done in reply 1"),
        (
            [{"tool_calls": [{"name": "bash", "arguments": "{no"}]}],
            "reply 1: the arguments of bash",
        ),
    ],
)
def test_sessions_that_a_script_cannot_replay(
    responses: list[dict[str, Any]], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        recorded(trajectory(*responses), "mine", toggles=(), tools=tools())


@pytest.mark.parametrize("depth", [200, 700, 1000])
def test_deep_nesting_is_an_error(tmp_path: Path, depth: int) -> None:
    nested = '{"a": ' * depth + "1" + "}" * depth
    call = f'{{"name": "bash", "arguments": {nested}}}'
    path = tmp_path / "t.json"
    path.write_text(
        f'{{"task": "t", "llm_interactions": [{{"response": {{"tool_calls": [{call}]}}}}]}}'
    )
    with pytest.raises(UsageError, match=r"nested|not JSON"):
        recorded(read_session(path), "mine", toggles=(), workspace="/w")


def test_an_invalid_name() -> None:
    with pytest.raises(UsageError, match=r"^'My Session' cannot name a scenario; .*lower-case"):
        recorded(trajectory({"content": "x"}), "My Session", toggles=())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"task": "\xff", "llm_interactions": []}', "not a valid .*utf"),
        (b'{"llm_interactions": []}', "not a valid Trae Agent trajectory: .*`task`"),
        (b'{"task": "x", "llm_interactions": [{"response": {"content": 3}}]}', r"\[0\]\.response"),
    ],
)
def test_files_that_are_not_trajectories(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=problem):
        read_session(path)
    with pytest.raises(UsageError, match="No such file"):
        read_session(tmp_path / "none.json")


def test_files_of_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("é")
    assert text_files(tmp_path) == {"sub/a": "é"}
    name = tmp_path / os.fsdecode(b"\xff.txt")
    name.write_text("a")
    with pytest.raises(UsageError, match="txt is not UTF-8"):
        text_files(tmp_path)
    name.unlink()
    (tmp_path / "image").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="image is not UTF-8"):
        text_files(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.fixed_dictionaries(
    {"name": st.text(min_size=1), "arguments": st.dictionaries(st.text(), JSON, max_size=3)}
)


@given(st.lists(st.tuples(st.text(min_size=1), st.lists(CALLS, max_size=2)), max_size=3))
def test_any_session_is_replayed_unchanged(
    replies: list[tuple[str, list[dict[str, Any]]]],
) -> None:
    responses = [{"content": text, "tool_calls": calls} for text, calls in replies]
    made = recorded(trajectory(*responses, {"tool_calls": [DONE]}), "mine", toggles=())
    turns = expand(parse(made.text), Path("{workspace}")).turns
    replayed = [(turn.text, [(c.name, c.arguments) for c in turn.calls]) for turn in turns[:-1]]
    assert replayed == [
        (text, [(c["name"], c["arguments"]) for c in calls]) for text, calls in replies
    ]


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps({"task": "t", "llm_interactions": [{"response": {"content": "c"}}], "more": 1})
    )
    assert read_session(path).replies[0].text == "c"
