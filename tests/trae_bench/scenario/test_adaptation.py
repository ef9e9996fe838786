"""Scenarios are adapted to agents with other tools, and their commands do the same work."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.properties import examples
from tests.trae_bench.scenario.test_scenarios_play import lay_out, oracle_holds
from tests.trae_bench.scenario.tool_sets import TOOL_SETS
from trae_bench.errors import CannotMeasure
from trae_bench.provider.script import PlayedTurn, expand
from trae_bench.scenario import (
    GeneratedFiles,
    Scenario,
    ScriptedCall,
    ToggleUse,
    Turn,
    WorkspaceFixture,
    every_scenario,
    shell_actions,
)
from trae_bench.scenario.actions import Action, AgentInterface, ToolMapping
from trae_bench.scenario.adaptation import adapted
from trae_bench.scenario.steps import Step, actions_of
from trae_bench.scenario.tool_mapping import tools_from
from trae_bench.scenario.validation import contradictions

RUN = ToolMapping("sh", {"cmd": "{command}"})
SHELL = AgentInterface(tools={"run": RUN})
ONE_BY_ONE = replace(SHELL, parallel_calls=False)
NOT_ADAPTED = {
    "bugfix@respx": "transport is respx",
    "trajectory-long@respx": "transport is respx",
    "cli-help": "not a session",
    "install-size": "not a session",
    "tool-heavy-start": "json_edit_tool",
}
"""Scenarios of the catalogue that other agents cannot play, by the reason."""
EDITOR = "str_replace_based_edit_tool"
DONE = Turn(text="All done.", calls=(ScriptedCall("task_done"),))


def scenario_of(*turns: Turn, **changes: Any) -> Scenario:
    base = Scenario("small", "about", "task", turns, ToggleUse(()), ("cpu",))
    return replace(base, **changes)


def edit(command: str, path: str = "{workspace}/a", **arguments: Any) -> ScriptedCall:
    return ScriptedCall(EDITOR, {"command": command, "path": path, **arguments})


def bash(command: str) -> ScriptedCall:
    return ScriptedCall("bash", {"command": command})


def thought(text: str) -> ScriptedCall:
    return ScriptedCall("sequentialthinking", {"thought": text})


def commands(turns: tuple[Turn, ...]) -> list[list[str]]:
    return [[call.arguments["cmd"] for call in turn.calls] for turn in turns]


def reason(name: str) -> str | None:
    return NOT_ADAPTED.get(name) or NOT_ADAPTED.get(name.partition("@")[0])


# -- the catalogue


@pytest.mark.parametrize("agent", TOOL_SETS)
def test_every_session_of_the_catalogue_is_adapted(agent: str) -> None:
    tools = tools_from(TOOL_SETS[agent])
    for parallel in (True, False):
        interface = AgentInterface("ollama_chat", True, tools, parallel)
        for scenario in every_scenario():
            if problem := reason(scenario.name):
                with pytest.raises(CannotMeasure, match=f"^{scenario.name}: .*{problem}"):
                    adapted(scenario, interface)
                continue
            played = adapted(scenario, interface)
            assert not list(contradictions(played)), scenario.name
            assert parallel or all(len(turn.calls) <= 1 for turn in played.turns)
            known = {mapping.tool for mapping in tools.values()}
            assert {call.tool for turn in played.turns for call in turn.calls} <= known
            assert all(turn.calls for turn in played.turns[:-1]), "or the session would end"


SESSIONS = [
    scenario
    for scenario in every_scenario()
    if "@" not in scenario.name and not reason(scenario.name)
]


@pytest.mark.parametrize(
    ("scenario", "interface"),
    [
        *((one, SHELL) for one in SESSIONS),
        *((one, ONE_BY_ONE) for one in SESSIONS if one.name == "fan-out-one-file"),
    ],
    ids=lambda one: str(getattr(one, "name", "")),
)
def test_shell_commands_do_the_work(
    scenario: Scenario, interface: AgentInterface, tmp_path: Path
) -> None:
    if scenario.name == "trajectory-long":
        scenario = replace(scenario, turns=(replace(scenario.turns[0], repeat=3), DONE))
    lay_out(scenario, tmp_path)
    script = expand(adapted(scenario, interface), tmp_path)
    for turn in script.turns[:-1]:
        play(turn, tmp_path)
    assert not script.turns[-1].calls
    final_text = scenario.oracle.final_text if scenario.name == "trajectory-long" else ""
    assert oracle_holds(scenario.oracle, tmp_path, final_text or script.turns[-1].text)


def play(turn: PlayedTurn, workspace: Path) -> None:
    """Run the commands of a turn at once. The bugfix has tests that fail at first."""
    with ThreadPoolExecutor(5) as pool:
        for done in pool.map(lambda call: sh(call.arguments["cmd"], workspace), turn.calls):
            assert done.returncode == 0 or b"unittest" in done.args[-1].encode(), done.stderr


def sh(command: str, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True)


# -- commands


anything = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
name = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=9)
names = name.filter(lambda text: text not in (".", ".."))


@given(name=names, folder=names, before=anything, old=anything, new=anything)
@examples(20, one_fixture=True)
def test_commands_quote_any_text(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    folder: str,
    before: str,
    old: str,
    new: str,
) -> None:
    root = tmp_path_factory.mktemp("quoted")
    path = root / folder / name
    text = before + old + before
    assert sh(shell_actions.write(str(path), text), root).returncode == 0
    assert path.read_bytes() == text.encode()
    assert sh(shell_actions.view(str(path)), root).stdout == text.encode()
    assert name.encode() in sh(shell_actions.list_folder(str(path.parent)), root).stdout
    once = bool(old) and text.find(old) == text.rfind(old)
    assert (sh(shell_actions.replace(str(path), old, new), root).returncode == 0) == once
    expected = text.replace(old, new) if once else text
    assert path.read_bytes() == expected.encode()


@given(before=anything, new=anything, data=st.data())
@examples(12, one_fixture=True)
def test_lines_are_inserted_as_agent_core_does(
    tmp_path_factory: pytest.TempPathFactory, before: str, new: str, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("inserted")
    path = root / "a"
    path.write_bytes(before.encode())
    lines = before.split("\n")
    line = data.draw(st.integers(0, len(lines)))
    assert sh(shell_actions.insert(str(path), line, new), root).returncode == 0
    expected = "\n".join([*lines[:line], *new.split("\n"), *lines[line:]])
    assert path.read_bytes() == expected.encode()
    done = sh(shell_actions.insert(str(path), len(expected) + 2, "x"), root)
    assert done.returncode == 1 and b"no such line" in done.stderr


def test_some_lines_are_viewed(tmp_path: Path) -> None:
    (tmp_path / "-n").write_text("1\n2\n3\n4\n")
    assert sh(shell_actions.view("-n", [2, 3]), tmp_path).stdout == b"2\n3\n"
    assert sh(shell_actions.view("-n", [3, -1]), tmp_path).stdout == b"3\n4\n"


# -- turns


def test_calls_are_read_as_actions() -> None:
    calls = (
        bash("ls"),
        ScriptedCall("bash", {"restart": True}),
        thought("hm"),
        edit("view", "src", view_range=[3, -1]),
        edit("view", view_range=[3, 4]),
        edit("view", "{workspace}"),
        edit("create", "/a", file_text="x"),
        ScriptedCall(
            EDITOR, arguments_json='{"command": "str_replace", "path": "b", "old_str": "x"}'
        ),
    )
    assert actions_of(Turn(calls=calls), {"{workspace}"}) == (
        Step("run", {"command": "ls"}),
        Step("view", {"path": "{workspace}/src", "range": [3, -1], "first": 3}),
        Step(
            "view",
            {"path": "{workspace}/a", "range": [3, 4], "first": 3, "last": 4, "count": 2},
        ),
        Step("view", {"path": "{workspace}"}, folder=True),
        Step("write", {"path": "/a", "text": "x"}),
        Step("replace", {"path": "{workspace}/b", "old": "x", "new": ""}),
    )
    assert actions_of(Turn(calls=(bash("ls"), ScriptedCall("Read")))) is None
    done = Turn(text="bye", calls=(bash("ls"), ScriptedCall("task_done")))
    assert actions_of(done) == (Step("finish", {"text": "bye"}),), "agent_core runs no other call"


@pytest.mark.parametrize(
    "call",
    [
        ScriptedCall("bash"),
        edit("undo"),
        edit("create"),
        edit("view", view_range=[1]),
        edit("view", 1),
        edit("create", file_text=1),
    ],
)
def test_a_call_with_wrong_arguments(call: ScriptedCall) -> None:
    with pytest.raises(CannotMeasure, match=rf"^small: a call of {call.tool} is not an action"):
        adapted(scenario_of(Turn(calls=(call,)), DONE), SHELL)


def test_thoughts_are_kept_as_text_and_no_turn_before_the_last_is_empty() -> None:
    turns = (Turn(text="a", calls=(thought("b"), thought("c"))), Turn(text="d"), DONE)
    played = adapted(scenario_of(*turns), SHELL).turns
    assert [turn.text for turn in played] == ["a\n\nb\n\nc", "d", "All done."]
    assert commands(played) == [["true"], ["true"], []]


def test_one_call_a_turn_keeps_the_order_of_repeats() -> None:
    calls = (bash("echo {n}"), edit("view", "{workspace}/{n}"))
    turns = (Turn(text="look {n}", calls=calls, repeat=2), DONE)
    together = adapted(scenario_of(*turns), SHELL).turns
    assert (len(together), together[0].repeat) == (2, 2)
    played = adapted(scenario_of(*turns), ONE_BY_ONE).turns
    assert [turn.text for turn in played] == ["look 1", "", "look 2", "", "All done."]
    assert commands(played)[:4] == [
        ["echo 1"],
        ["cat -- '{workspace}/1'"],
        ["echo 2"],
        ["cat -- '{workspace}/2'"],
    ]


def test_a_session_may_end_with_text() -> None:
    text = Turn(text="Bye {n}.", repeat=2)
    played = adapted(scenario_of(text), SHELL).turns
    assert [(turn.text, len(turn.calls)) for turn in played] == [("Bye 1.", 1), ("Bye 2.", 0)]
    submit: dict[Action, ToolMapping] = {"finish": ToolMapping("submit", {"answer": "{text}"})}
    played = adapted(scenario_of(Turn(text="Bye.")), AgentInterface(tools=submit)).turns
    assert played == (Turn(text="Bye.", calls=(ScriptedCall("submit", {"answer": "Bye."}),)),)
    silent = Turn(calls=(ScriptedCall("task_done"),))
    assert adapted(scenario_of(silent), SHELL).turns == (Turn(text="Done."),)


def test_templates_are_filled_once() -> None:
    values = {"path": "{path}", "nested": [{"x": "<{text}>", "n": 1}], "stay": "{other} {n}"}
    tools: dict[Action, ToolMapping] = {"write": ToolMapping("w", values)}
    turn = Turn(calls=(edit("create", file_text="{path} {old}"),))
    played = adapted(scenario_of(turn, DONE), AgentInterface(tools=tools)).turns
    assert played[0].calls[0].arguments == {
        "path": "{workspace}/a",
        "nested": [{"x": "<{path} {old}>", "n": 1}],
        "stay": "{other} {n}",
    }


def test_a_range_is_passed_where_the_tool_has_one() -> None:
    turns = (Turn(calls=(edit("view", view_range=[2, 4]), edit("view"))), DONE)
    whole: dict[Action, ToolMapping] = {"view": ToolMapping("cat", {"file": "{path}"})}
    lines = {"range": "{range}", "from": "{first}", "count": "{count}", "to": "{last}"}
    some: dict[Action, ToolMapping] = {"view": ToolMapping("cat", lines)}

    def arguments(tools: dict[Action, ToolMapping]) -> list[dict[str, Any]]:
        played = adapted(scenario_of(*turns), AgentInterface(tools=tools)).turns
        return [call.arguments for call in played[0].calls]

    assert arguments(some) == [{"range": [2, 4], "from": 2, "count": 3, "to": 4}, {}]
    path = {"file": "{workspace}/a"}
    assert arguments(whole) == [path, path], "nothing else shows a part"
    assert arguments({**whole, "run": RUN}) == [{"cmd": "sed -n '2,4p' -- '{workspace}/a'"}, path]


def test_null_is_passed_as_json() -> None:
    tools: dict[Action, ToolMapping] = {"run": ToolMapping("sh", {"cmd": "{command}", "cwd": None})}
    scenario = adapted(scenario_of(Turn(calls=(bash('"é"'),)), DONE), AgentInterface(tools=tools))
    assert not list(contradictions(scenario))
    script = expand(scenario, Path("/w"))
    assert script.turns[0].calls[0].arguments == {"cmd": '"é"', "cwd": None}


def test_an_agent_that_reads_actions_from_the_text() -> None:
    tools: dict[Action, ToolMapping] = {
        "run": ToolMapping(text="```bash\n{command}\n```"),
        "finish": ToolMapping(text="```bash\necho {text_sh} # {text_json}\n```"),
    }
    interface = AgentInterface(tools=tools, parallel_calls=False)
    last = Turn(text='It\'s "done".', calls=(ScriptedCall("task_done"),))
    turn = Turn(text="Look.", calls=(bash("ls"), edit("view")))
    played = adapted(scenario_of(turn, last), interface).turns
    assert [turn.calls for turn in played] == [(), (), ()]
    assert [turn.text for turn in played] == [
        "Look.\n\n```bash\nls\n```",
        "```bash\ncat -- '{workspace}/a'\n```",
        'It\'s "done".\n\n```bash\necho \'It\'"\'"\'s "done".\' # "It\'s \\"done\\"."\n```',
    ]
    plain: dict[Action, ToolMapping] = {"finish": ToolMapping(text="FINAL: {text}")}
    final = adapted(scenario_of(last), AgentInterface(tools=plain)).turns
    assert final == (Turn(text='FINAL: It\'s "done".'),)


@pytest.mark.parametrize("path", ["{workspace}", "", ".", "src", "src/", "{workspace}/gen/in"])
def test_views_of_folders_list_them(path: str) -> None:
    fixture = WorkspaceFixture(
        files={"src/a.py": ""}, generate=GeneratedFiles(2, pattern="gen/in/{n}.py")
    )
    scenario = scenario_of(Turn(calls=(edit("view", path),)), DONE, workspace=fixture)
    view: dict[Action, ToolMapping] = {"view": ToolMapping("cat", {"file": "{path}"})}
    played = adapted(scenario, AgentInterface(tools={**view, "run": RUN})).turns
    assert commands(played)[0][0].startswith("ls -- '{workspace}")
    assert adapted(scenario, AgentInterface(tools=view)).turns[0].calls[0].tool == "cat"


def test_an_action_that_cannot_be_done() -> None:
    view: dict[Action, ToolMapping] = {"view": ToolMapping("cat", {"file": "{path}"})}
    turn = Turn(calls=(edit("create", file_text="x"),))
    sentence = (
        "small: the agent cannot write {workspace}/a: it has no tool for it (known: view by cat); "
        "add [tools.run] or [tools.write] to the entry"
    )
    with pytest.raises(CannotMeasure, match=f"^{re.escape(sentence)}$"):
        adapted(scenario_of(turn, DONE), AgentInterface(tools=view))
    with pytest.raises(CannotMeasure, match=r"known: none\); add \[tools.run\] to the entry"):
        adapted(scenario_of(Turn(calls=(bash("ls"),)), DONE), AgentInterface())
    nul = Turn(calls=(edit("create", file_text="\0"),))
    with pytest.raises(CannotMeasure, match=r"cannot write .* NUL .*\[tools.write\]"):
        adapted(scenario_of(nul, DONE), SHELL)


def test_calls_of_another_agent_stay() -> None:
    foreign = Turn(calls=(ScriptedCall("Read", {"file_path": "a"}), bash("ls")), repeat=2)
    assert adapted(scenario_of(foreign, DONE), ONE_BY_ONE).turns[0] == foreign
    own = scenario_of(Turn(calls=(bash("ls"),)), DONE, agent="trae-agent")
    played = adapted(own, AgentInterface("gemini", True))
    assert played.turns == own.turns
    assert (played.provider.protocol, played.provider.stream) == ("gemini", True)
