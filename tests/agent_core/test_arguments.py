"""What models send for arguments, and what the tool receives."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.arguments import fitted, schema_violations, unwrapped
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.errors import ToolError
from agent_core.messages import ToolCall, ToolOutput
from agent_core.ports import Dispatch
from agent_core.tools import TOOLS, find
from tests.agent_core.fakes import DictCatalog, ScriptedTool, call

pytestmark = pytest.mark.anyio

EDIT, BASH = "str_replace_based_edit_tool", "bash"
BOTH = pytest.mark.parametrize("dispatch", [SequentialDispatch(), ParallelDispatch()])


async def say(arguments: Mapping[str, Any]) -> ToolOutput:
    return ToolOutput(True, json.dumps(dict(arguments)))


async def received(tool: str, dispatch: Dispatch, sent: ToolCall) -> tuple[Any, str]:
    """The arguments that the tool gets, and the rest of the result's text."""
    catalog = DictCatalog([ScriptedTool(tool, say, parameters=TOOLS[tool].parameters)])
    (result,) = await dispatch.run([sent], catalog)
    assert result.ok, result.text
    first, _, rest = result.text.partition("\n")
    return json.loads(first), rest


@pytest.mark.parametrize(
    ("tool", "sent", "expected"),
    [
        (BASH, {"restart": True}, {"restart": True}),
        (BASH, {"command": "ls", "timeout": 30}, {"command": "ls", "timeout": 30}),
        (BASH, {"command": "ls", "timeout": "2.5"}, {"command": "ls", "timeout": 2.5}),
        (BASH, {"cmd": "ls", "restart": "False"}, {"command": "ls", "restart": False}),
        (BASH, {"arguments": '{"command": "ls"}'}, {"command": "ls"}),
        (BASH, {"input": {"command": "ls"}}, {"command": "ls"}),
        (
            EDIT,
            {"command": "insert", "path": "f", "insert_line": 1.0, "insert_text": "x"},
            {"command": "insert", "path": "f", "insert_line": 1, "new_str": "x"},
        ),
        (
            EDIT,
            {"command": "str_replace", "file_path": "f", "old_string": "1", "newStr": "2"},
            {"command": "str_replace", "path": "f", "old_str": "1", "new_str": "2"},
        ),
        (
            EDIT,
            {"command": "view", "path": "f", "view_range": "[1, 20]"},
            {"command": "view", "path": "f", "view_range": [1, 20]},
        ),
        (
            EDIT,
            {"command": "view", "path": "f", "view_range": ["1", 2.0]},
            {"command": "view", "path": "f", "view_range": [1, 2]},
        ),
        (
            EDIT,
            {"command": "insert", "path": "f", "insert_line": "1", "new_str": "7"},
            {"command": "insert", "path": "f", "insert_line": 1, "new_str": "7"},
        ),
        (
            "json_edit_tool",
            {"operation": "set", "path": "f", "json_path": "$.a", "value": "1"},
            {"operation": "set", "file_path": "f", "json_path": "$.a", "value": "1"},
        ),
    ],
)
@BOTH
async def test_other_notations_are_understood(
    dispatch: Dispatch, tool: str, sent: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert await received(tool, dispatch, ToolCall("c", tool, sent)) == (expected, "")


@pytest.mark.parametrize(
    "text",
    [
        '"{\\"command\\": \\"ls\\"}"',
        '```json\n{"command": "ls"}\n```',
        '```\n{"command": "ls"}```',
        '  ```json\n"{\\"command\\": \\"ls\\"}"\n```\n',
    ],
    ids=["encoded twice", "fenced", "fenced without a language", "both"],
)
@BOTH
async def test_wrapped_arguments_are_unwrapped(dispatch: Dispatch, text: str) -> None:
    sent = call(BASH, malformed=text)
    assert await received(BASH, dispatch, sent) == ({"command": "ls"}, "")


async def test_null_is_an_empty_object_and_raw_line_breaks_are_kept() -> None:
    assert unwrapped("null") == {}
    assert unwrapped('{"command": "a\nb"}') == {"command": "a\nb"}


@pytest.mark.parametrize("text", ['{"command": ', "[1]", '"ls"', "```json\n{", "[" * 100_000, ""])
@BOTH
async def test_other_text_is_refused(dispatch: Dispatch, text: str) -> None:
    catalog = DictCatalog([ScriptedTool(BASH, say, parameters=TOOLS[BASH].parameters)])
    (result,) = await dispatch.run([call(BASH, malformed=text)], catalog)
    assert not result.ok
    assert "are not a JSON object" in result.text


@BOTH
async def test_unknown_arguments_are_ignored_and_named(dispatch: Dispatch) -> None:
    sent = call(BASH, command="ls", description="list", workdir="/")
    expected = (
        "[Ignored: 'description', 'workdir' are not arguments"
        " (arguments: command, restart, timeout, session).]"
    )
    assert await received(BASH, dispatch, sent) == ({"command": "ls"}, expected)


@BOTH
async def test_a_failed_call_names_unknown_arguments_too(dispatch: Dispatch) -> None:
    async def fail(arguments: Mapping[str, Any]) -> ToolOutput:
        raise ToolError("it failed")

    catalog = DictCatalog(
        [ScriptedTool("task_done", fail, parameters=TOOLS["task_done"].parameters)]
    )
    seen = []
    calls = [call("task_done", why="x")]
    (result,) = await dispatch.run(calls, catalog, lambda result, seconds: seen.append(result))
    assert result.text == "it failed\n[Ignored: 'why' is not an argument (arguments: none).]"
    assert seen == [result]


def test_an_argument_is_not_replaced_by_another_spelling() -> None:
    schema = TOOLS[EDIT].parameters
    sent = {"new_str": "kept", "insert_text": "other", "path": "p", "file": "q"}
    assert fitted(sent, schema) == ({"new_str": "kept", "path": "p"}, ["insert_text", "file"])


@pytest.mark.parametrize("value", [1.5, "x", "1.5", True, [1], "[1]", 1e300, "NaN"])
def test_other_values_are_no_integers(value: object) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    arguments, _ = fitted({"n": value}, schema)
    assert arguments == {"n": value}
    assert schema_violations(arguments, schema)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(list(TOOLS.values())), st.data())
def test_valid_arguments_are_unchanged(entry: Any, data: st.DataObject) -> None:
    kinds = {
        "string": st.text(max_size=5),
        "integer": st.integers(),
        "number": st.integers() | st.floats(allow_nan=False),
        "boolean": st.booleans(),
        "array": st.lists(st.integers(), max_size=2),
    }
    fields = entry.parameters["properties"]
    sent = {}
    for name in data.draw(
        st.lists(st.sampled_from(sorted(fields)), unique=True) if fields else st.just([])
    ):
        field = fields[name]
        kind = field["type"]
        sent[name] = data.draw(
            st.sampled_from(field["enum"])
            if "enum" in field
            else JSON
            if isinstance(kind, list)
            else kinds[kind]
        )
    arguments, unknown = fitted(sent, entry.parameters)
    assert repr(arguments) == repr(sent)
    assert unknown == []


@pytest.mark.parametrize(
    "name",
    [
        "functions.bash",
        "functions:bash",
        "default_api.bash",
        "tools/bash",
        "mcp__shell__bash",
        "functions.bash:0",
        "bash<|channel|>commentary",
        " bash\n",
        "bash()",
    ],
)
def test_decorated_names_are_understood(name: str) -> None:
    assert find(TOOLS, name).name == "bash"


@pytest.mark.parametrize(
    "name", ["bash.exe", "", ".", "functions.", "bashful", "<|x|>", "bash; ls"]
)
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(ToolError, match="Unknown tool"):
        find(TOOLS, name)
