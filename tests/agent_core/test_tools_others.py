"""bash, json_edit_tool, sequentialthinking, task_done and ckg."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import ToolError
from agent_core.files import BlockingFiles
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.shell import EventShell
from agent_core.tools import TOOLS
from agent_core.tools.bash import BashTool
from agent_core.tools.code_search import CodeSearchTool
from agent_core.tools.json_edit import JSONEditTool, _dumps, _loads
from agent_core.tools.sequential_thinking import SequentialThinkingTool
from agent_core.tools.task_done import TaskDoneTool
from agent_core.workspace import Workspace
from tests.agent_core.fakes import ScriptedShell

pytestmark = pytest.mark.anyio


class Shells:
    """Opens scripted shells and keeps a list of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.opened: list[ScriptedShell] = []

    def __call__(self) -> ScriptedShell:
        self.opened.append(ScriptedShell(self._root))
        return self.opened[-1]


@pytest.fixture
def shells(tmp_path: Path) -> Shells:
    return Shells(tmp_path)


@pytest.fixture
def context(tmp_path: Path, shells: Shells) -> ToolContext:
    return ToolContext(BlockingFiles(), shells, Workspace(tmp_path))


# bash


async def test_bash_reports_failures(tmp_path: Path, context: ToolContext) -> None:
    real = ToolContext(context.files, lambda: EventShell(tmp_path), context.workspace)
    bash = BashTool(real, timeout=0.3)
    assert await bash.execute({"command": "echo a; echo b >&2"}) == ToolOutput(True, "a", "b")
    assert await bash.execute({"command": "false"}) == ToolOutput(False, "", "[exit status 1]")
    late = await bash.execute({"command": "echo a; sleep 5"})
    assert (late.ok, late.output) == (False, "a")
    assert "longer than 0.3 s" in str(late.error)
    await bash.close()


async def test_one_session_runs_one_command_at_a_time(
    context: ToolContext, shells: Shells, tmp_path: Path
) -> None:
    bash = BashTool(context)
    await asyncio.gather(
        *(bash.execute({"command": f"append log {n}"}) for n in range(8)),
        bash.execute({"command": "append other x", "session": "second"}),
    )
    assert (tmp_path / "log").read_text() == "".join(f"{n}\n" for n in range(8))
    assert [shell.most_running for shell in shells.opened] == [1, 1]


async def test_shell_works_after_restart_and_close(context: ToolContext, shells: Shells) -> None:
    bash = BashTool(context)
    assert shells.opened == []
    await bash.execute({"command": "show x", "restart": True})
    assert shells.opened[0].restarts == 1
    await bash.close()
    assert shells.opened[0].closed
    await bash.execute({"command": "show x"})
    assert [shell.closed for shell in shells.opened] == [True, False]
    restarted = await bash.execute({"restart": True})
    assert restarted == ToolOutput(True, "The shell has been restarted.")
    with pytest.raises(ToolError, match="'command' is missing"):
        await bash.execute({"command": ""})


async def test_command_with_crlf(tmp_path: Path, context: ToolContext) -> None:
    bash = BashTool(ToolContext(context.files, lambda: EventShell(tmp_path), context.workspace))
    script = "for x in a b; do\r\n  echo $x\r\ndone\r\n"
    assert await bash.execute({"command": script}) == ToolOutput(True, "a\nb")
    mixed = "printf 'a\r\nb\n'"
    assert await bash.execute({"command": mixed}) == ToolOutput(True, "a\r\nb")
    await bash.close()


@pytest.mark.parametrize("seconds", [0, -1, 600_000, float("nan")])
async def test_timeout_is_in_seconds(context: ToolContext, seconds: float) -> None:
    with pytest.raises(ToolError, match="'timeout' is in seconds, up to 3600, not"):
        await BashTool(context).execute({"command": "show x", "timeout": seconds})


async def test_timeout_of_a_call(tmp_path: Path, context: ToolContext) -> None:
    bash = BashTool(ToolContext(context.files, lambda: EventShell(tmp_path), context.workspace))
    late = await bash.execute({"command": "sleep 5", "timeout": 0.2})
    assert "longer than 0.2 s" in str(late.error)
    await bash.close()


def test_sessions_are_independent(context: ToolContext) -> None:
    bash = BashTool(context)
    assert bash.access({"command": "x"}) == Access("shell", writes=frozenset({"main"}))
    assert bash.access({"command": "x", "session": "b"}).writes == {"b"}


# json_edit_tool

DATA = {"name": "x", "list": [1, 2, 3], "users": [{"n": "a"}, {"n": "b"}], "odd key": {"d.e": 1}}


async def change(context: ToolContext, path: Path, **arguments: Any) -> Any:
    await context.files.write(path, json.dumps(DATA))
    await JSONEditTool(context).execute({"file_path": str(path), **arguments})
    return json.loads(await context.files.read(path))


@pytest.mark.parametrize(
    ("operation", "json_path", "value", "expected"),
    [
        ("set", "$.name", "y", {"name": "y"}),
        ("set", "name", None, {"name": None}),
        ("set", "$.users[*].n", 0, {"users": [{"n": 0}, {"n": 0}]}),
        ("set", "$.list[-1]", 9, {"list": [1, 2, 9]}),
        ("set", "$['odd key'][\"d.e\"]", 2, {"odd key": {"d.e": 2}}),
        ("set", "$.list.*", 0, {"list": [0, 0, 0]}),
        ("add", "$.users[0].m", [1], {"users": [{"n": "a", "m": [1]}, {"n": "b"}]}),
        ("add", "$.list[0]", 0, {"list": [0, 1, 2, 3]}),
        ("add", "$.list[3]", 4, {"list": [1, 2, 3, 4]}),
        ("add", "$.list[-1]", 4, {"list": [1, 2, 3, 4]}),
        ("remove", "$.list[1]", None, {"list": [1, 3]}),
        ("remove", "$.list[*]", None, {"list": []}),
        ("set", "$..n", 0, {"users": [{"n": 0}, {"n": 0}]}),
        ("set", "$.list[:2]", 0, {"list": [0, 0, 3]}),
        ("set", "$.list[?@ > 1]", 0, {"list": [1, 0, 0]}),
        ("set", "$.users[?(@.n=='b')].n", 0, {"users": [{"n": "a"}, {"n": 0}]}),
        ("set", "$['name','list']", 0, {"name": 0, "list": 0}),
        ("set", "$.'odd key'", 0, {"odd key": 0}),
        ("set", "$.['name']", 0, {"name": 0}),
        ("set", "$.list.[0]", 0, {"list": [0, 2, 3]}),
        ("add", "$..users[0].m", 1, {"users": [{"n": "a", "m": 1}, {"n": "b"}]}),
        ("add", "$.users[?@.n=='b'].m", 1, {"users": [{"n": "a"}, {"n": "b", "m": 1}]}),
        ("add", "$.a:b/c", 1, {"a:b/c": 1}),
        ("remove", "$.list[2,0]", None, {"list": [2]}),
        ("remove", "$.list[0,0,-3]", None, {"list": [2, 3]}),
        ("remove", "$..list[::2]", None, {"list": [2]}),
    ],
)
async def test_json_edits(
    tmp_path: Path,
    context: ToolContext,
    operation: str,
    json_path: str,
    value: Any,
    expected: dict[str, Any],
) -> None:
    left = await change(
        context, tmp_path / "f", operation=operation, json_path=json_path, value=value
    )
    assert left == DATA | expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operation": "set", "json_path": "$.gone", "value": 1}, "Nothing in the file matches"),
        ({"operation": "set", "json_path": "$.list[7]", "value": 1}, "Nothing in the file matches"),
        ({"operation": "remove", "json_path": "$.gone"}, "Nothing in the file matches"),
        ({"operation": "add", "json_path": "$.name", "value": 1}, "The key 'name' exists"),
        ({"operation": "add", "json_path": "$.name.x", "value": 1}, "takes a key in an object"),
        ({"operation": "add", "json_path": "$.list[*]", "value": 1}, "at the end"),
        ({"operation": "add", "json_path": "$.list[4]", "value": 1}, "index 4 .* has 3 items"),
        ({"operation": "add", "json_path": "$.list[-4]", "value": 1}, "index -4 is out of range"),
        ({"operation": "remove", "json_path": "$"}, "below the root"),
        ({"operation": "set", "value": 1}, "'json_path' is missing"),
        ({"operation": "set", "json_path": "$.name"}, "'value' is missing"),
        ({"operation": "add", "json_path": "$.list[0,1]", "value": 1}, "at the end"),
        ({"operation": "add", "json_path": "$['a','b']", "value": 1}, "at the end"),
        ({"operation": "view", "json_path": "$..gone"}, "Nothing in the file matches"),
        ({"operation": "view", "json_path": "$.list["}, r"'\$.list\[' cannot be used"),
        ({"operation": "view", "json_path": "$.a|$.b c"}, "cannot be used: unexpected"),
        ({"operation": "view", "json_path": "$.list[~]"}, "cannot be used: unexpected"),
        ({"operation": "dance", "json_path": "$.name", "value": 1}, "Unknown operation 'dance'"),
    ],
)
async def test_invalid_json_edits_change_nothing(
    tmp_path: Path, context: ToolContext, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        await change(context, tmp_path / "f", **arguments)
    assert json.loads((tmp_path / "f").read_text()) == DATA


async def test_json_views_and_layout(tmp_path: Path, context: ToolContext) -> None:
    tool, path = JSONEditTool(context), tmp_path / "f.json"
    path.write_bytes('{"a": ["é", 1]}\r\n'.encode())

    async def run(**arguments: Any) -> str:
        return (await tool.execute({"file_path": "f.json", **arguments})).output

    assert await run(operation="view", json_path="$.a[0]") == '"é"'
    assert await run(operation="view", json_path="$.a[*]", pretty_print=False) == '["é", 1]'
    assert await run(operation="view", pretty_print=False) == '{"a": ["é", 1]}'
    await run(operation="set", json_path="$.a[1]", value=2)
    assert path.read_bytes() == '{\r\n  "a": [\r\n    "é",\r\n    2\r\n  ]\r\n}\r\n'.encode()
    await run(operation="set", json_path="$", value=[], pretty_print=False)
    assert path.read_bytes() == b"[]\r\n"
    path.write_text("{")
    with pytest.raises(ToolError, match="is not JSON"):
        await run(operation="view")
    with pytest.raises(ToolError, match="outside"):
        await tool.execute({"operation": "view", "file_path": "/etc/passwd"})


async def test_json_edit_keeps_other_values(tmp_path: Path, context: ToolContext) -> None:
    tool, path = JSONEditTool(context), tmp_path / "f.json"
    change = {"operation": "set", "file_path": "f.json", "json_path": "$.v", "value": 2.5}
    kept = '"a": [1e400, -0, 12345678901234567890.5, 1.10, NaN]'
    path.write_text(f'{{{kept}, "v": 1}}')
    await tool.execute({**change, "pretty_print": False})
    assert path.read_text() == f'{{{kept}, "v": 2.5}}'
    path.write_text('{"k": 1, "k": 2, "v": 1}')
    with pytest.raises(ToolError, match="has the key 'k' twice"):
        await tool.execute(change)
    assert path.read_text() == '{"k": 1, "k": 2, "v": 1}'


async def test_json_view_shows_a_list_where_several_can_match(
    tmp_path: Path, context: ToolContext
) -> None:
    (tmp_path / "f.json").write_text('{"a": [1, 2.50], "s": "{}"}')

    async def view(json_path: str) -> str:
        call = {"operation": "view", "file_path": "f.json", "json_path": json_path}
        return (await JSONEditTool(context).execute({**call, "pretty_print": False})).output

    assert await view("$.a[1]") == "2.50"
    assert await view("$.a[1:]") == "[2.50]"
    assert await view("$.a[?@ == 2.5]") == "[2.50]"
    assert await view("$.s") == '"{}"'
    (tmp_path / "f.json").write_text('"{}"')
    with pytest.raises(ToolError, match="Nothing in the file matches"):
        await view("$.*")


def test_plain_json_paths_need_no_library() -> None:
    code = (
        "import sys; from agent_core.tools import json_edit, json_path as j;"
        "j.parse('$.a[0]').find({'a': [1]}); print('jsonpath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from([None, 2]))
def test_json_layout_equals_json_dumps(data: Any, indent: int | None) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    assert _dumps(_loads(text, Path("f")), indent) == text


# sequentialthinking and task_done


async def test_thoughts_are_counted(context: ToolContext) -> None:
    tool = SequentialThinkingTool(context)
    thought = {"thought": "t", "next_thought_needed": True, "thought_number": 1}
    await tool.execute({**thought, "total_thoughts": 2})
    branch = {"branch_from_thought": 1, "branch_id": "b", "thought_number": 3}
    output = await tool.execute({**thought, **branch, "total_thoughts": 2})
    assert json.loads(output.output.partition("Status:\n")[2]) == {
        "thought_number": 3,
        "total_thoughts": 3,
        "next_thought_needed": True,
        "branches": ["b"],
        "thought_history_length": 2,
    }
    with pytest.raises(ToolError, match="'thought_number' counts from 1, not 0"):
        await tool.execute({**thought, "thought_number": 0, "total_thoughts": 2})


async def test_task_done_output(context: ToolContext) -> None:
    tool = TaskDoneTool(context)
    assert await tool.execute({}) == ToolOutput(True, "Task done.")
    assert tool.access({}) == Access("none")


# ckg

CODE = '''\
import os

@cache
def find(x):
    """Finds."""
    return x

class Box:
    def find(self):
        def find():
            return "inner"
        return find

    async def other(self): ...

if os:
    class Late(Box):
        pass
'''


async def search(context: ToolContext, command: str, identifier: str, **rest: Any) -> str:
    tool = CodeSearchTool(context)
    arguments = {"command": command, "path": ".", "identifier": identifier, **rest}
    return (await tool.execute(arguments)).output


async def test_code_search(tmp_path: Path, context: ToolContext) -> None:
    path = tmp_path / "code.py"
    path.write_text(CODE)
    for folder in (".git", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(CODE)
    report = await search(context, "search_function", "find")
    assert report.startswith("function 'find': 2 found.\n")
    assert f"1. {path}:3-6\n@cache\ndef find(x):" in report
    assert f"2. {path}:10-11 in Box.find\n        def find():" in report
    method = await search(context, "search_class_method", "find", print_body=False)
    assert method == f"method 'find': 1 found.\n1. {path}:9-12 in Box"
    box = await search(context, "search_class", "Box", path="code.py", print_body=False)
    assert box == f"class 'Box': 1 found.\n1. {path}:8-14; methods: find, other"
    late = await search(context, "search_class", "Late")
    assert "methods: none\n    class Late(Box):\n        pass" in late
    assert await search(context, "search_class", "find") == "class 'find': none found."


async def test_code_search_survives_broken_files(tmp_path: Path, context: ToolContext) -> None:
    (tmp_path / "bad.py").write_text("def find(:")
    (tmp_path / "odd.py").write_text("def find():\n    return '\\d'\n")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    report = await search(context, "search_function", "find")
    assert "1 found" in report and "odd.py:1-2" in report
    assert f"Not readable as Python: {tmp_path}/bad.py." in report
    with pytest.raises(ToolError, match="does not exist"):
        await search(context, "search_function", "x", path="no")
    with pytest.raises(ToolError, match="outside"):
        await search(context, "search_function", "x", path="/etc")


# the table


def test_schemas_equal_trae_agents() -> None:
    """Names, types and required arguments are Trae Agent's, except for bash.

    Its `session` and `timeout` are additions, and a restart needs no command.
    """
    shapes = {
        name: (
            {key: field["type"] for key, field in entry.parameters["properties"].items()},
            entry.parameters["required"],
        )
        for name, entry in TOOLS.items()
    }
    text, number, flag = "string", "integer", "boolean"
    assert shapes == {
        "bash": (
            {"command": text, "restart": flag, "timeout": "number", "session": text},
            [],
        ),
        "str_replace_based_edit_tool": (
            {
                "command": text,
                "path": text,
                "file_text": text,
                "old_str": text,
                "new_str": text,
                "insert_line": number,
                "view_range": "array",
            },
            ["command", "path"],
        ),
        "json_edit_tool": (
            {
                "operation": text,
                "file_path": text,
                "json_path": text,
                "value": ["object", "array", text, "number", flag, "null"],
                "pretty_print": flag,
            },
            ["operation", "file_path"],
        ),
        "sequentialthinking": (
            {
                "thought": text,
                "next_thought_needed": flag,
                "thought_number": number,
                "total_thoughts": number,
                "is_revision": flag,
                "revises_thought": number,
                "branch_from_thought": number,
                "branch_id": text,
                "needs_more_thoughts": flag,
            },
            ["thought", "next_thought_needed", "thought_number", "total_thoughts"],
        ),
        "task_done": ({}, []),
        "ckg": (
            {"command": text, "path": text, "identifier": text, "print_body": flag},
            ["command", "path", "identifier"],
        ),
    }
