"""The tool for each action is derived from the tools that real agents offer."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.trae_bench.scenario.tool_sets import COUNT, TEXT, TOOL_SETS, tool
from trae_bench.provider.script import expand
from trae_bench.scenario import every_scenario
from trae_bench.scenario.actions import AgentInterface, ToolMapping, ToolSchema
from trae_bench.scenario.adaptation import adapted
from trae_bench.scenario.tool_mapping import missing_actions, tools_from

PLAYED = ("bugfix", "fan-out", "startup-cold", "trajectory-long", "api-sequential", "streaming")
LOGIN_SHELL = ["bash", "-lc", "{command}"]
EXPECTED: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "mini-swe-agent": {"run": ("bash", {"command": "{command}"})},
    "trae-agent": {
        "run": ("bash", {"command": "{command}"}),
        "view": (
            "str_replace_based_edit_tool",
            {"command": "view", "path": "{path}", "view_range": "{range}"},
        ),
        "write": (
            "str_replace_based_edit_tool",
            {"command": "create", "path": "{path}", "file_text": "{text}"},
        ),
        "replace": (
            "str_replace_based_edit_tool",
            {"command": "str_replace", "path": "{path}", "old_str": "{old}", "new_str": "{new}"},
        ),
        "finish": ("task_done", {}),
    },
    "claude-code": {
        "run": ("Bash", {"command": "{command}"}),
        "view": ("Read", {"file_path": "{path}", "offset": "{first}", "limit": "{count}"}),
        "write": ("Write", {"file_path": "{path}", "content": "{text}"}),
        "replace": (
            "Edit",
            {"file_path": "{path}", "old_string": "{old}", "new_string": "{new}"},
        ),
    },
    "codex-shell": {"run": ("shell", {"command": LOGIN_SHELL})},
    "codex-exec": {"run": ("exec_command", {"cmd": "{command}"})},
    "opencode": {
        "run": ("bash", {"command": "{command}", "description": "benchmark"}),
        "view": ("read", {"filePath": "{path}", "offset": "{first}", "limit": "{count}"}),
        "write": ("write", {"filePath": "{path}", "content": "{text}"}),
        "replace": ("edit", {"filePath": "{path}", "oldString": "{old}", "newString": "{new}"}),
    },
    "gemini-cli": {
        "run": ("run_shell_command", {"command": "{command}"}),
        "view": ("read_file", {"file_path": "{path}", "offset": "{first}", "limit": "{count}"}),
        "write": ("write_file", {"file_path": "{path}", "content": "{text}"}),
        "replace": (
            "replace",
            {
                "file_path": "{path}",
                "old_string": "{old}",
                "new_string": "{new}",
                "instruction": "benchmark",
            },
        ),
    },
    "openhands": {
        "run": ("execute_bash", {"command": "{command}", "security_risk": "LOW"}),
        "view": ("str_replace_editor", {"command": "view", "path": "{path}"}),
        "write": (
            "str_replace_editor",
            {"command": "create", "path": "{path}", "file_text": "{text}"},
        ),
        "replace": (
            "str_replace_editor",
            {"command": "str_replace", "path": "{path}", "old_str": "{old}", "new_str": "{new}"},
        ),
        "finish": ("finish", {"message": "{text}", "task_completed": "true"}),
    },
    "smolagents": {
        "run": ("run_command", {"command": "{command}"}),
        "finish": ("final_answer", {"answer": "{text}"}),
    },
    "inspect": {
        "run": ("bash", {"cmd": "{command}"}),
        "finish": ("submit", {"answer": "{text}"}),
    },
    "mcp": {
        "run": ("mcp__sh__execute", {"command": "{command}"}),
        "view": ("fs__read_file", {"path": "{path}"}),
        "write": ("fs__write_file", {"path": "{path}", "content": "{text}"}),
    },
    "langchain": {
        "run": ("terminal", {"commands": "{command}"}),
        "view": ("read_file", {"file_path": "{path}"}),
        "write": ("write_file", {"file_path": "{path}", "text": "{text}"}),
    },
    "openai-strict": {
        "run": ("run_shell", {"command": "{command}", "workdir": None, "limit": None})
    },
    "agno": {
        "run": ("run_shell_command", {"args": LOGIN_SHELL}),
        "view": ("read_file", {"file_name": "{path}"}),
        "write": ("save_file", {"file_name": "{path}", "contents": "{text}"}),
    },
}


@pytest.mark.parametrize("agent", TOOL_SETS)
def test_the_tools_of_real_agents(agent: str) -> None:
    expected = {action: ToolMapping(*mapping) for action, mapping in EXPECTED[agent].items()}
    assert tools_from(TOOL_SETS[agent]) == expected


@pytest.mark.parametrize("agent", TOOL_SETS)
def test_calls_conform_to_the_schemas_of_the_tools(agent: str) -> None:
    schemas = {one.name: one.parameters for one in TOOL_SETS[agent]}
    # JSON Schema has no type `any`.
    schemas = {"final_answer": {}} if agent == "smolagents" else schemas
    interface = AgentInterface(tools=tools_from(TOOL_SETS[agent]))

    for scenario in every_scenario():
        if scenario.name in PLAYED:
            script = expand(adapted(scenario, interface), Path("/w"))
            for call in (call for turn in script.turns for call in turn.calls):
                jsonschema.validate(call.arguments, schemas.get(call.name, {}))


@pytest.mark.parametrize(
    "one",
    [
        tool("append_file", path=TEXT, content=TEXT),
        tool("write_file", path=TEXT, content=TEXT, mode={"enum": ["append"]}),
        tool("python", command=TEXT),
        tool("execute_python", code=TEXT),
        tool("run_python_script", command=TEXT),
        tool("execute", command={"type": "string", "description": "The Python code to run."}),
        tool("run_query", command=TEXT),
        tool("run", command={"enum": ["start", "stop"]}),
        tool("create_file", owner=TEXT, repo=TEXT, path=TEXT, content=TEXT),
        tool("read_url", path=TEXT),
        tool("view_image", path=TEXT),
        tool("editor", command={"enum": ["view", "create", "delete"]}, file=COUNT),
        tool("final_plan", answer=TEXT),
    ],
    ids=lambda one: str(one.name),
)
def test_tools_that_do_something_else_are_left_out(one: ToolSchema) -> None:
    made = tools_from([one])
    assert not made or one.name == "editor"
    assert "run" not in made and "write" not in made


def test_a_tool_that_may_append_is_asked_for_the_whole_file() -> None:
    mode = {"type": "string", "enum": ["append", "overwrite"]}
    append = {"type": "boolean", "default": True}
    for name, schema, value in (("mode", mode, "overwrite"), ("append", append, False)):
        made = tools_from([tool("write_file", name, path=TEXT, content=TEXT, **{name: schema})])
        assert made["write"].arguments == {"path": "{path}", "content": "{text}", name: value}


def test_a_list_of_command_lines_has_one() -> None:
    made = tools_from([tool("terminal", commands={"type": "array", "items": TEXT})])
    assert made["run"].arguments == {"commands": ["{command}"]}


def test_types_in_capitals_as_gemini_has_them() -> None:
    words = {"type": "ARRAY", "items": {"type": "STRING"}}
    others = {"flag": {"type": "BOOLEAN"}, "mood": {"type": "STRING", "nullable": True}}
    made = tools_from([tool("shell", command=words, **others)])
    assert made["run"].arguments == {"command": LOGIN_SHELL, "flag": False, "mood": None}


def test_required_parameters_without_a_role() -> None:
    others = {
        "flag": {"type": "boolean"},
        "level": {"type": "integer"},
        "tags": {"type": "array"},
        "extra": {"type": "object"},
        "kind": {"$ref": "#/$defs/Kind"},
        "cwd": TEXT,
        "timeout_ms": COUNT,
        "timeout": {"type": "number"},
        "why": {},
        "port": {"type": "integer", "enum": [8, 9]},
    }
    made = tool("bash", command=TEXT, **others)
    parameters = made.parameters | {"$defs": {"Kind": {"enum": ["a", "b"]}}}
    assert tools_from([ToolSchema("bash", parameters)])["run"].arguments == {
        "command": "{command}",
        "flag": False,
        "level": 1,
        "tags": [],
        "extra": {},
        "kind": "a",
        "cwd": "{workspace}",
        "timeout_ms": 60_000,
        "timeout": 60,
        "why": "benchmark",
        "port": 8,
    }


def test_a_tool_named_after_the_action_comes_first() -> None:
    tools = [tool("run_cmd", command=TEXT), tool("bash", command=TEXT), tool("sh", command=TEXT)]
    assert tools_from(tools)["run"].tool == "bash"
    assert tools_from([tools[0], tools[2]])["run"].tool == "run_cmd"


def test_missing_actions_say_how_they_are_done() -> None:
    assert missing_actions(tools_from(TOOL_SETS["mini-swe-agent"])) == {
        "view": "view: by `run` with cat",
        "write": "write: by `run` with printf",
        "replace": "replace: by `run` with python3",
        "finish": "finish: the last reply is plain text",
    }
    without_run = missing_actions({"finish": ToolMapping("submit")})
    assert without_run == {
        action: f"{action}: cannot be done; add [tools.{action}] to the entry"
        for action in ("run", "view", "write", "replace")
    }
    assert missing_actions(tools_from(TOOL_SETS["trae-agent"])) == {}


SCHEMA_KEYS = (
    *("type", "enum", "const", "anyOf", "oneOf", "$ref", "default", "$defs", "a"),
    *("properties", "required", "command", "path", "content", "mode", "append"),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["string", "null", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(SCHEMA_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    name=st.sampled_from(["bash", "write_file", "read", "edit", "submit", "__", "", "a:b"]),
    parameters=st.dictionaries(
        st.sampled_from(["properties", "required", "$defs"]), json_values, max_size=3
    ),
)
@examples(300)
def test_any_schema_is_read(name: str, parameters: dict[str, Any]) -> None:
    made = tools_from([ToolSchema(name, parameters)])
    assert all(mapping.tool == name for mapping in made.values())
