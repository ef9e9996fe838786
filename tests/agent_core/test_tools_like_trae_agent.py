"""What Trae Agent's own tests demand of its tools, on real files and through both dispatchers.

These are its 22 tests of bash (5), the editor (9) and the JSON editor (8). They replace the file
system by mocks there. `DIFFERENT` lists what agent_core does differently on purpose; so does
docs/agent-core.md. The words of messages are its own everywhere.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.messages import ToolCall, ToolResult
from agent_core.ports import Catalog, Dispatch, ToolContext
from agent_core.shell import EventShell
from agent_core.tools import TOOLS
from agent_core.workspace import Workspace

pytestmark = pytest.mark.anyio

BASH, EDIT, JSON = "bash", "str_replace_based_edit_tool", "json_edit_tool"

DATA = {
    "users": [{"id": 1, "name": "Alice"}, {"id": 2, "name": "Bob"}],
    "config": {"enabled": True},
}


def edit(command: str, path: str = "{root}/f", **more: Any) -> tuple[str, dict[str, Any]]:
    return EDIT, {"command": command, "path": path, **more}


def change(operation: str, json_path: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return JSON, {"operation": operation, "file_path": "{root}/f", "json_path": json_path, **more}


ONE_CALL: dict[str, tuple[str | None, tuple[str, dict[str, Any]], bool, str, str | None]] = {
    # name: file before, call, success, part of the text, file after
    "create a file": (None, edit("create", file_text="new"), True, "Created", "new"),
    "insert a line": (
        "line1\nline3",
        edit("insert", insert_line=1, new_str="line2"),
        True,
        "Edited",
        "line1\nline2\nline3",
    ),
    "an invalid command of the editor": (
        "a",
        edit("invalid"),
        False,
        "'command' must be one of view, create, str_replace, insert",
        "a",
    ),
    "an old text that occurs twice": (
        "dup\ndup\nline3",
        edit("str_replace", old_str="dup", new_str="new"),
        False,
        "more than once",
        "dup\ndup\nline3",
    ),
    "a replacement": (
        "old_content\nline2",
        edit("str_replace", old_str="old_content", new_str="new_content"),
        True,
        "Edited",
        "new_content\nline2",
    ),
    "a view of a file": ("line1\nline2\nline3", edit("view"), True, "\tline1\n", None),
    "a call without a path": (
        None,
        (EDIT, {"command": "create"}),
        False,
        "'path' is missing",
        None,
    ),
    "a failing command": (
        None,
        (BASH, {"command": "invalid_command_123"}),
        False,
        "command not found",
        None,
    ),
    "a command": (None, (BASH, {"command": "echo hello world"}), True, "hello world", None),
    "no command": (None, (BASH, {}), False, "'command' is missing", None),
    "a JSON file that does not exist": (
        None,
        (JSON, {"operation": "view", "file_path": "{root}/nonexistent.json"}),
        False,
        "No such file",
        None,
    ),
}

DIFFERENT: dict[str, tuple[str | None, tuple[str, dict[str, Any]], bool, str, str | None]] = {
    # There, a relative path is refused. Here, it starts at the workspace, since models send such.
    "a relative path": ("text", edit("view", "f"), True, "\ttext\n", None),
}

JSON_CHANGES: dict[str, tuple[tuple[str, dict[str, Any]], Any]] = {
    "set a value": (change("set", "$.config.enabled", value=False), {"config": {"enabled": False}}),
    "set a name in a list": (
        change("set", "$.users[0].name", value="Alicia"),
        {"users": [{"id": 1, "name": "Alicia"}, {"id": 2, "name": "Bob"}]},
    ),
    "add an item at the end": (
        change("add", "$.users[2]", value={"id": 3, "name": "Charlie"}),
        {"users": [*DATA["users"], {"id": 3, "name": "Charlie"}]},
    ),
    "add a key": (
        change("add", "$.config.version", value="1.1.0"),
        {"config": {"enabled": True, "version": "1.1.0"}},
    ),
    "remove an item": (change("remove", "$.users[0]"), {"users": [{"id": 2, "name": "Bob"}]}),
    "remove a key": (change("remove", "$.config.enabled"), {"config": {}}),
}

BOTH = pytest.mark.parametrize("optimised", [False, True])


async def run(root: Path, optimised: bool, *calls: tuple[str, dict[str, Any]]) -> list[ToolResult]:
    context = ToolContext(
        ThreadedFiles() if optimised else BlockingFiles(),
        lambda: EventShell(root),
        Workspace(root),
    )
    catalog: Catalog = LazyCatalog(context) if optimised else EagerCatalog(context)
    dispatch: Dispatch = ParallelDispatch() if optimised else SequentialDispatch()
    made = [
        ToolCall(str(number), name, json.loads(json.dumps(arguments).replace("{root}", str(root))))
        for number, (name, arguments) in enumerate(calls)
    ]
    try:
        return list(await dispatch.run(made, catalog))
    finally:
        await catalog.close()


@BOTH
@pytest.mark.parametrize("name", [*ONE_CALL, *DIFFERENT])
async def test_one_call(tmp_path: Path, optimised: bool, name: str) -> None:
    before, call, ok, text, after = (ONE_CALL | DIFFERENT)[name]
    if before is not None:
        (tmp_path / "f").write_text(before)
    (result,) = await run(tmp_path, optimised, call)
    assert (result.ok, text in result.text) == (ok, True), result.text
    if after is not None:
        assert (tmp_path / "f").read_text() == after


@BOTH
@pytest.mark.parametrize("name", JSON_CHANGES)
async def test_json_changes(tmp_path: Path, optimised: bool, name: str) -> None:
    call, changed = JSON_CHANGES[name]
    (tmp_path / "f").write_text(json.dumps(DATA))
    (result,) = await run(tmp_path, optimised, call)
    assert result.ok, result.text
    assert json.loads((tmp_path / "f").read_text()) == DATA | changed


def test_bash_is_described() -> None:
    spec = TOOLS[BASH].spec
    assert (spec.name, spec.description[:13]) == ("bash", "Run a command")
    assert {"command", "restart"} <= set(spec.parameters["properties"])


@BOTH
async def test_json_view(tmp_path: Path, optimised: bool) -> None:
    (tmp_path / "f").write_text(json.dumps(DATA))
    (result,) = await run(tmp_path, optimised, change("view", "$.users[0]"))
    assert json.loads(result.output) == {"id": 1, "name": "Alice"}
    assert '"id": 1' in result.output


@BOTH
async def test_restart_of_the_shell(tmp_path: Path, optimised: bool) -> None:
    commands = [{"command": "X=1"}, {"restart": True}, {"command": "echo new ${X-session}"}]
    results = await run(tmp_path, optimised, *((BASH, one) for one in commands))
    assert all(result.ok for result in results)
    assert "restarted" in results[1].output
    assert results[2].output == "new session"


@BOTH
async def test_folders(tmp_path: Path, optimised: bool) -> None:
    """Two levels, no hidden entries, no shell, and links that are shown but not entered."""
    root = tmp_path / "a;touch marker;#"
    (root / "one" / "two" / "three").mkdir(parents=True)
    for name in ("file", ".hidden", "one/visible", "one/two/too_deep"):
        (root / name).touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (root / "link").symlink_to(outside)
    (result,) = await run(tmp_path, optimised, edit("view", str(root)))
    shown = [str(root / name) for name in ("file", "link", "one", "one/two", "one/visible")]
    assert result.output.splitlines()[1:] == shown
    assert not (tmp_path / "marker").exists()
    assert not (root / "marker").exists()
