"""`str_replace_based_edit_tool` with both kinds of files."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from agent_core.errors import ToolError
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.ports import Access, Files, ToolContext
from agent_core.tools.edit import EditTool
from agent_core.tools.json_edit import JSONEditTool
from agent_core.workspace import Workspace
from tests.agent_core.fakes import ScriptedShell

pytestmark = pytest.mark.anyio

KINDS: dict[str, Files] = {"blocking": BlockingFiles(), "threaded": ThreadedFiles(inline_limit=-1)}


@pytest.fixture(params=list(KINDS))
def files(request: pytest.FixtureRequest) -> Files:
    return KINDS[request.param]


@pytest.fixture
def context(tmp_path: Path, files: Files) -> ToolContext:
    return ToolContext(files, lambda: ScriptedShell(tmp_path), Workspace(tmp_path))


@pytest.fixture
def tool(context: ToolContext) -> EditTool:
    return EditTool(context)


async def edit(tool: EditTool, command: str, path: Path | str, **rest: Any) -> str:
    result = await tool.execute({"command": command, "path": str(path), **rest})
    assert result.ok
    return result.output


async def test_view_numbers_lines(tmp_path: Path, tool: EditTool) -> None:
    path = tmp_path / "f"
    path.write_text("one\n\ttwo\nthree")
    head = f"{path} with line numbers:\n"
    assert await edit(tool, "view", path) == f"{head}     1\tone\n     2\t\ttwo\n     3\tthree\n"
    assert await edit(tool, "view", "f", view_range=[2, 2]) == f"{head}     2\t\ttwo\n"
    assert await edit(tool, "view", path, view_range=[3, -1]) == f"{head}     3\tthree\n"


@pytest.mark.parametrize(
    ("view_range", "message"),
    [
        ([0, 1], "is invalid: use"),
        ([2, 1], "is invalid: use"),
        ([1], "is invalid: use"),
        ([1, 9], "the file has 2 lines"),
        ([5, -1], "the file has 2 lines"),
    ],
)
async def test_invalid_range_is_reported(
    tmp_path: Path, tool: EditTool, view_range: list[int], message: str
) -> None:
    (tmp_path / "f").write_text("a\nb")
    with pytest.raises(ToolError, match=message):
        await edit(tool, "view", "f", view_range=view_range)


async def test_long_file_is_truncated(tmp_path: Path, tool: EditTool) -> None:
    (tmp_path / "f").write_text("x" * 20_000)
    shown = await edit(tool, "view", "f")
    assert shown.count("x") < 16_050
    assert "20000 characters in total" in shown


async def test_view_lists_a_folder_two_levels_deep(tmp_path: Path, tool: EditTool) -> None:
    for name in ("b/c/deep", "a", ".hidden/x", "b/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shown = (await edit(tool, "view", tmp_path)).splitlines()[1:]
    assert shown == [str(tmp_path / name) for name in ("a", "b", "b/c", "b/d")]
    with pytest.raises(ToolError, match="is a folder"):
        await edit(tool, "view", tmp_path, view_range=[1, 2])


async def test_create_makes_folders_and_rejects_an_existing_file(
    tmp_path: Path, tool: EditTool
) -> None:
    await edit(tool, "create", "new/f", file_text="text\r\n")
    assert (tmp_path / "new" / "f").read_bytes() == b"text\r\n"
    with pytest.raises(ToolError, match="exists"):
        await edit(tool, "create", "new/f", file_text="")
    with pytest.raises(ToolError, match="'file_text' is missing; the command 'create' needs it"):
        await edit(tool, "create", "other")


async def test_str_replace(tmp_path: Path, tool: EditTool) -> None:
    path = tmp_path / "f"
    path.write_text("".join(f"line {n}\n" for n in range(1, 21)))
    shown = await edit(tool, "str_replace", path, old_str="line 10\n", new_str="ten\nmore\n")
    assert path.read_text().count("ten\nmore\nline 11\n") == 1
    numbered = shown.splitlines()[1:]
    assert numbered[0] == "     6\tline 6"
    assert "    10\tten" in numbered
    assert numbered[-1] == "    16\tline 15"
    await edit(tool, "str_replace", path, old_str="ten\n")
    assert "ten" not in path.read_text()


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("nowhere", "does not occur"),
        ("same", "more than once in .*, in lines 1, 3"),
        ("", "'old_str' is empty"),
        (None, "'old_str' is missing"),
    ],
)
async def test_ambiguous_replacement_changes_nothing(
    tmp_path: Path, tool: EditTool, old: str | None, message: str
) -> None:
    path = tmp_path / "f"
    path.write_text("same\nother\nsame same\n")
    with pytest.raises(ToolError, match=message):
        await edit(tool, "str_replace", path, old_str=old, new_str="x")
    assert path.read_text() == "same\nother\nsame same\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [(0, "new\na\nb\n"), (1, "a\nnew\nb\n"), (2, "a\nb\nnew\n"), (3, "a\nb\n\nnew")],
)
async def test_insert(tmp_path: Path, tool: EditTool, line: int, expected: str) -> None:
    path = tmp_path / "f"
    path.write_text("a\nb\n")
    shown = await edit(tool, "insert", path, insert_line=line, new_str="new")
    assert path.read_text() == expected
    assert f"{line + 1:6}\tnew" in shown


@pytest.mark.parametrize("line", [-1, 4])
async def test_insert_outside_the_file_is_reported(
    tmp_path: Path, tool: EditTool, line: int
) -> None:
    (tmp_path / "f").write_text("a\nb\n")
    with pytest.raises(ToolError, match="use 0 to 3"):
        await edit(tool, "insert", "f", insert_line=line, new_str="x")


async def test_paths_outside_the_workspace_are_rejected(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, tool: EditTool, files: Files
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_text("key")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "door").symlink_to(outside.parent)
    for path in (outside, "../x", tmp_path / "link", "door/secret", "door/new"):
        for command, rest in (
            ("view", {}),
            ("create", {"file_text": "x"}),
            ("str_replace", {"old_str": "key", "new_str": "x"}),
            ("insert", {"insert_line": 0, "new_str": "x"}),
        ):
            with pytest.raises(ToolError, match="outside the workspace"):
                await edit(tool, command, path, **rest)
    assert [entry.name for entry in outside.parent.iterdir()] == ["secret"]
    assert outside.read_text() == "key"
    free = Workspace(tmp_path, confined=False)
    open_tool = EditTool(ToolContext(files, lambda: ScriptedShell(tmp_path), free))
    assert "key" in await edit(open_tool, "view", outside)


async def test_concurrent_edits_of_one_file_are_all_kept(tmp_path: Path, tool: EditTool) -> None:
    """Eight concurrent calls to the tool itself, without a dispatcher."""
    path = tmp_path / "f"
    for _ in range(5):
        path.write_text("".join(f"<{n}>\n" for n in range(8)))
        await asyncio.gather(
            *(edit(tool, "str_replace", path, old_str=f"<{n}>", new_str=f"({n})") for n in range(8))
        )
        assert path.read_text() == "".join(f"({n})\n" for n in range(8))


async def test_lock_is_shared_by_tools_and_hard_links(tmp_path: Path, context: ToolContext) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"a": "<0>", "b": 0}')
    (tmp_path / "twin.json").hardlink_to(path)
    tools, json_tool = (EditTool(context), EditTool(context)), JSONEditTool(context)
    for n in range(10):
        old = {"old_str": f"<{n}>", "new_str": f"<{n + 1}>"}
        json_edit = {"operation": "set", "file_path": "twin.json", "json_path": "b", "value": n}
        await asyncio.gather(
            edit(tools[n % 2], "str_replace", path, **old), json_tool.execute(json_edit)
        )
    assert path.read_text() == '{\n  "a": "<10>",\n  "b": 9\n}'


def test_access_names_the_target_of_a_link(tmp_path: Path, tool: EditTool) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "link").symlink_to("f")
    target = frozenset({str(tmp_path.resolve() / "f")})
    view = tool.access({"command": "view", "path": "link"})
    assert view == Access("files", reads=target)
    assert tool.access({"command": "create", "path": "f"}) == Access("files", writes=target)


@pytest.mark.parametrize(
    ("text", "old", "hint"),
    [
        ("a\nx = 1  \ny = 2\n", "x = 1\ny = 2", "Line 2 differs from it in blanks at line ends"),
        ("x = 1\ny\n", "x = 1\t\n", "Line 1 differs from it in blanks at line ends"),
        ("a\r\nb\n", "a\nb", "Line 1 differs from it in blanks at line ends"),
        ("if x:\n\ty = 2\n", "    y = 2", "Line 2 differs from it in indentation"),
        ("abc\n", "abd", ""),
        ("abc\n", " \n", ""),
    ],
)
async def test_near_miss_is_explained(
    tmp_path: Path, tool: EditTool, text: str, old: str, hint: str
) -> None:
    (tmp_path / "f").write_bytes(text.encode())
    with pytest.raises(ToolError) as failure:
        await edit(tool, "str_replace", "f", old_str=old, new_str="")
    said = str(failure.value).partition(" as given.")[2]
    assert said == (f" {hint}; view it and copy it exactly." if hint else "")
    assert (tmp_path / "f").read_bytes() == text.encode()


async def test_invalid_bytes_are_shown_and_kept(tmp_path: Path, tool: EditTool) -> None:
    path = tmp_path / "f"
    path.write_bytes("größe\n".encode() + b"bad \xff\n")
    shown = await edit(tool, "view", "f")
    note = "some bytes are not UTF-8; each is shown as U+FFFD and kept"
    assert shown.startswith(f"{path} with line numbers ({note}):\n")
    assert "bad \N{REPLACEMENT CHARACTER}\n" in shown
    assert "\N{REPLACEMENT CHARACTER}" in await edit(
        tool, "insert", "f", insert_line=1, new_str="é"
    )
    assert path.read_bytes() == "größe\né\n".encode() + b"bad \xff\n"
    with pytest.raises(ToolError, match=r"U\+FFFD stands for a byte that is not UTF-8"):
        await edit(tool, "str_replace", "f", old_str="bad \N{REPLACEMENT CHARACTER}", new_str="x")


async def test_script_with_crlf_gets_a_note(tmp_path: Path, tool: EditTool) -> None:
    made = await edit(tool, "create", "run.sh", file_text="#!/bin/sh\r\necho\r\n")
    assert made.endswith("Its lines end in CRLF, so it cannot be started as a script.")
    assert await edit(tool, "create", "f", file_text="a\r\n") == f"Created {tmp_path / 'f'}."


async def test_names_that_are_not_utf8_are_listed(tmp_path: Path, tool: EditTool) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102
    assert (await edit(tool, "view", tmp_path)).endswith("caf\N{REPLACEMENT CHARACTER}")
