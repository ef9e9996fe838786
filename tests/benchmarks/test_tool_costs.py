"""Overhead of proxies, file access, shells and dispatchers around a tool."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.messages import ToolCall
from agent_core.ports import Dispatch, Files, Shell, ToolContext
from agent_core.shell import EventShell, PollingShell
from agent_core.tools.edit import EditTool
from agent_core.workspace import Workspace
from tests.benchmarks.sessions import LINES
from tests.benchmarks.side_by_side import EMPTY, Comparison

FILES = [("on the loop", BlockingFiles), ("threads, atomic", ThreadedFiles)]
SIZES = [2 * 1024, 1024 * 1024]


def _context(folder: Path, files: Files | None = None) -> ToolContext:
    return ToolContext(files or BlockingFiles(), lambda: EventShell(folder), Workspace(folder))


def test_empty_coroutine(comparison: Comparison) -> None:
    async def nothing() -> None:
        pass

    comparison.measure_coroutine(EMPTY, "Runner.run", nothing)


@pytest.mark.parametrize(("side", "kind"), [("direct", EagerCatalog), ("proxy", LazyCatalog)])
def test_proxy(
    comparison: Comparison, tmp_path: Path, side: str, kind: type[EagerCatalog | LazyCatalog]
) -> None:
    catalog = kind(_context(tmp_path), ["task_done"])
    tool = catalog.get("task_done")
    comparison.measure_coroutine(
        "call a tool that does nothing", side, lambda: tool.execute({}), times=500
    )


@pytest.mark.parametrize(("side", "files"), FILES)
def test_edit(
    comparison: Comparison, tmp_path: Path, side: str, files: Callable[[], Files]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text(f"first\n{LINES}")
    tool = EditTool(_context(tmp_path, files()))
    edit = {"command": "str_replace", "path": str(path), "old_str": "first", "new_str": "other"}
    revert = edit | {"old_str": "other", "new_str": "first"}

    async def edit_and_revert() -> None:
        for arguments in (edit, revert):
            assert (await tool.execute(arguments)).ok

    comparison.measure_coroutine("edit a file of 2 KiB, twice", side, edit_and_revert)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "files"), FILES)
def test_read(
    comparison: Comparison, tmp_path: Path, size: int, side: str, files: Callable[[], Files]
) -> None:
    path, access = tmp_path / "file.txt", files()
    path.write_text(LINES * (size // len(LINES)))
    comparison.measure_coroutine(f"read {size // 1024} KiB", side, lambda: access.read(path))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "files"), FILES)
def test_write(
    comparison: Comparison, tmp_path: Path, size: int, side: str, files: Callable[[], Files]
) -> None:
    path, access, text = tmp_path / "file.txt", files(), LINES * (size // len(LINES))
    path.write_text(text)
    comparison.measure_coroutine(
        f"write {size // 1024} KiB", side, lambda: access.write(path, text)
    )


@pytest.mark.parametrize(
    ("side", "kind", "rounds"), [("polled", PollingShell, 2), ("woken", EventShell, 200)]
)
def test_shell(
    comparison: Comparison, tmp_path: Path, side: str, kind: Callable[[Path], Shell], rounds: int
) -> None:
    shell = kind(tmp_path)

    def round_trip() -> None:
        assert comparison.runner.run(shell.run("true", 10.0)).exit_status == 0

    comparison.measure_rounds(
        "a command that does nothing", side, rounds, round_trip, coroutine=True
    )
    comparison.runner.run(shell.close())


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize(
    ("side", "kind"), [("one by one", SequentialDispatch), ("parallel", ParallelDispatch)]
)
def test_dispatch(
    comparison: Comparison, tmp_path: Path, count: int, side: str, kind: Callable[[], Dispatch]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text(LINES)
    catalog, dispatch = EagerCatalog(_context(tmp_path)), kind()
    arguments = {"command": "view", "path": str(path)}
    calls = [ToolCall(f"c{n}", "str_replace_based_edit_tool", arguments) for n in range(count)]

    async def run() -> None:
        assert all(result.ok for result in await dispatch.run(calls, catalog))

    comparison.measure_coroutine(f"{count} small call{'s' * (count > 1)}", side, run)
