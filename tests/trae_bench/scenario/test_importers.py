"""Each reader on a small file of its real shape, and what becomes of the session."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench.errors import UsageError
from trae_bench.scenario import Oracle, check, parse
from trae_bench.scenario.importers.conversion import recorded
from trae_bench.scenario.importers.reading import READERS, read_session
from trae_bench.scenario.importers.session import RecordedCall, RecordedReply, RecordedSession
from trae_bench.subject.agent_core import toggles, tools

SESSIONS = Path(__file__).parent / "sessions"
TASK = "Fix the total in cart.py."
FIXED = "The total is fixed."
FOLDER = "/home/dev/shop"
FILES = sorted(path.name for path in SESSIONS.iterdir())


def session(name: str) -> RecordedSession:
    return read_session(SESSIONS / name)


def bash(command: str) -> RecordedCall:
    return RecordedCall("bash", {"command": command})


SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
REPLIES = {
    "atif.json": (
        RecordedReply("I look.", (RecordedCall("execute_bash", {"command": "cat cart.py"}),)),
        RecordedReply(FIXED),
    ),
    "claude-code.jsonl": (
        RecordedReply(
            "I look.",
            (
                RecordedCall("Read", {"file_path": f"{FOLDER}/cart.py"}),
                RecordedCall("Bash", {"command": "ls", "description": "List files"}),
            ),
        ),
        RecordedReply(FIXED),
    ),
    "codex-rollout.jsonl": (
        RecordedReply(
            "", (RecordedCall("exec_command", {"cmd": "cat cart.py", "workdir": FOLDER}),)
        ),
        RecordedReply(
            "I patch it.",
            (
                RecordedCall(
                    "apply_patch",
                    {
                        "input": "*** Begin Patch\n*** Update File: cart.py\n@@\n-total = 1 - 2\n"
                        "+total = 1 + 2\n*** End Patch\n"
                    },
                ),
            ),
        ),
        RecordedReply(FIXED),
    ),
    "messages.json": (
        RecordedReply("", (RecordedCall("read_file", {"path": f"{FOLDER}/cart.py"}),)),
        RecordedReply(FIXED),
    ),
    "mini-v1.traj.json": (
        RecordedReply(f"THOUGHT: I fix it.\n\n```bash\nsed -i 's/-/+/' {FOLDER}/cart.py\n```"),
        RecordedReply(f"Done.\n\n```bash\n{SUBMIT} && git diff\n```"),
    ),
    "mini-v2.traj.json": (
        RecordedReply("I fix it.", (bash("cat cart.py"), bash("sed -i 's/-/+/' cart.py"))),
        RecordedReply("", (bash(SUBMIT),)),
    ),
    "mini-v2-responses.traj.json": (RecordedReply("I fix it.", (bash("cat cart.py"),)),),
    "trae-agent.json": (
        RecordedReply("I look.", (bash(f"cat {FOLDER}/cart.py"),)),
        RecordedReply(FIXED, (RecordedCall("task_done"),)),
    ),
}
REPLIES["message-array.json"] = REPLIES["messages.json"]


@pytest.mark.parametrize("name", FILES)
def test_task_and_replies(name: str) -> None:
    found = session(name)
    assert found.task == TASK
    assert found.replies == REPLIES[name]


def test_protocols_agents_and_folders() -> None:
    facts = {
        name: (found.agent, found.protocol, found.stream, found.workspace, found.success)
        for name in FILES
        for found in [session(name)]
    }
    mini = "mini-swe-agent"
    assert facts == {
        "atif.json": ("openhands", "openai_chat", False, "", None),
        "claude-code.jsonl": ("claude-code", "anthropic_messages", True, FOLDER, None),
        "codex-rollout.jsonl": ("codex", "openai_responses", True, FOLDER, None),
        "messages.json": ("", "openai_chat", False, "", None),
        "message-array.json": ("", "openai_chat", False, "", None),
        "mini-v1.traj.json": (mini, "openai_chat", False, FOLDER, True),
        "mini-v2.traj.json": (mini, "openai_chat", False, FOLDER, True),
        "mini-v2-responses.traj.json": (mini, "openai_responses", False, FOLDER, False),
        "trae-agent.json": ("trae-agent", "openai_responses", False, FOLDER, True),
    }
    assert [tool.name for tool in session("messages.json").tools] == ["read_file"]
    assert [tool.name for tool in session("atif.json").tools] == ["execute_bash"]


@pytest.mark.parametrize("name", FILES)
def test_every_session_becomes_a_scenario(name: str) -> None:
    made = recorded(session(name), "mine", toggles=tuple(toggles()), tools=tools())
    scenario = parse(made.text)
    assert scenario == made.scenario
    assert FOLDER not in made.text
    assert bool(scenario.toggles.vary) == (not scenario.agent) == (name == "trae-agent.json")
    check(scenario, tools=tools(), toggles=toggles())
    assert any("--agent" in note for note in made.notes) == bool(scenario.agent)


def test_a_session_without_a_name_of_its_agent() -> None:
    assert recorded(session("messages.json"), "mine", toggles=()).scenario.agent == "recorded"
    assert recorded(session("codex-rollout.jsonl"), "mine", toggles=()).scenario.agent == "codex"
    odd = RecordedSession("x", (RecordedReply(FIXED),), agent="My_Agent v1")
    assert recorded(odd, "mine", toggles=()).scenario.agent == "my-agent-v1"


def test_the_working_folder_is_inferred_from_paths() -> None:
    made = recorded(session("messages.json"), "mine", toggles=())
    assert made.scenario.turns[0].calls[0].arguments == {"path": "{workspace}/cart.py"}
    assert any(f"taken to be {FOLDER}" in note for note in made.notes)
    near_root = RecordedSession(
        "x", (RecordedReply("", (RecordedCall("read", {"path": "/etc/hosts"}),)),)
    )
    kept = recorded(near_root, "mine", toggles=())
    assert kept.scenario.turns[0].calls[0].arguments == {"path": "/etc/hosts"}
    assert any("no --workspace" in note for note in kept.notes)


@pytest.mark.parametrize("success", [True, False, None])
def test_only_a_session_that_succeeded_has_an_oracle(success: bool | None) -> None:
    found = RecordedSession("x", (RecordedReply(FIXED),), final_text=FIXED, success=success)
    oracle = Oracle(files={"cart.py": "total = 3\n"})
    made = recorded(found, "mine", toggles=(), oracle=oracle)
    expected = Oracle(files=oracle.files, final_text=FIXED) if success else Oracle()
    assert made.scenario.oracle == expected
    notes = {
        True: "holds the files as the session left them",
        False: "did not succeed, so no [oracle]",
        None: "does not say whether the session succeeded",
    }
    assert any(notes[success] in note for note in made.notes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("no session", "not JSON"),
        ("{}", "tried: Trae Agent trajectory, ATIF"),
        ("[]", "tried: .*list of OpenAI messages"),
        ("[3]", "no known format|known format; tried"),
        ('{"type": "x"}\n{"type": "y"}\n', "known format; tried"),
        ('{"schema_version": "ATIF-v1.6", "steps": 3}', "not a valid ATIF trajectory: .*"),
        ('{"messages": [{"content": 3}]}', r"not a valid list of OpenAI messages: .*\[0\]"),
        ('{"messages": 3, "info": {}}', "not a valid mini-swe-agent trajectory"),
        ('{"timestamp": "", "type": "session_meta", "payload": 3}\n', "not a valid Codex rollout"),
        (
            '{"type": "user", "sessionId": "", "message": {"content": 3}}\n',
            "not a valid Claude Code session",
        ),
    ],
)
def test_files_that_are_no_session(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=problem):
        read_session(path)


def test_half_a_last_line_is_left_out(tmp_path: Path) -> None:
    for name in ("claude-code.jsonl", "codex-rollout.jsonl"):
        text = (SESSIONS / name).read_text()
        path = tmp_path / name
        path.write_text(text + text.splitlines()[-1][:40])
        assert read_session(path) == session(name)


@examples(200, one_fixture=True)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((SESSIONS / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        recorded(read_session(path), "mine", toggles=())
    except UsageError as error:
        assert str(error)


def test_every_reader_has_a_sample() -> None:
    assert len(READERS) == len({session(name).source for name in FILES}) == 6


def test_a_task_that_no_template_names_is_the_whole_prompt(tmp_path: Path) -> None:
    document = json.loads((SESSIONS / "mini-v1.traj.json").read_text())
    del document["info"]["config"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document))
    assert read_session(path).task.startswith("Please solve this issue: Fix the total")


def test_half_of_a_surrogate_pair_is_no_argument(tmp_path: Path) -> None:
    call = {"function": {"name": "bash", "arguments": '{"command": "\\ud800"}'}}
    messages = [{"role": "user", "content": TASK}, {"role": "assistant", "tool_calls": [call]}]
    path = tmp_path / "session.json"
    path.write_text(json.dumps(messages))
    with pytest.raises(UsageError, match="the arguments of bash are not a JSON object"):
        recorded(read_session(path), "session", toggles=())


def test_an_event_of_codex_may_have_any_message(tmp_path: Path) -> None:
    event = {"type": "user_message", "message": {"a": [1]}}
    reply = {"type": "message", "role": "assistant", "content": FIXED}
    payloads = [("event_msg", event), ("response_item", reply)]
    lines = [{"timestamp": "", "type": kind, "payload": payload} for kind, payload in payloads]
    path = tmp_path / "rollout.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_session(path).replies == (RecordedReply(FIXED),)
