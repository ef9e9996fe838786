"""Sequential and parallel dispatch give the same results."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.dispatch import ParallelDispatch, SequentialDispatch, conflict
from agent_core.errors import ToolError
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.messages import ToolCall, ToolOutput, ToolResult
from agent_core.ports import Access, Catalog, Dispatch, ToolContext
from agent_core.workspace import Workspace
from tests.agent_core.fakes import DictCatalog, ScriptedShell, ScriptedTool, call
from tests.properties import examples

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("dispatch", [SequentialDispatch(), ParallelDispatch()])
FILES = ("a.txt", "b.txt", "d/c.txt")


def shell(name: str) -> Access:
    return Access("shell", writes=frozenset({name}))


def files(*, reads: str = "", writes: str = "") -> Access:
    return Access("files", frozenset(reads.split()), frozenset(writes.split()))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (shell("a"), shell("a"), True),
        (shell("a"), shell("b"), False),
        (shell("a"), files(reads="/w/x"), True),
        (Access("none"), shell("a"), False),
        (Access("none", writes=frozenset("t")), Access("none", writes=frozenset("t")), True),
        (files(reads="/w/x"), files(reads="/w/x"), False),
        (files(reads="/w/x"), files(writes="/w/x"), True),
        (files(writes="/w/x"), files(writes="/w/y"), False),
        (files(reads="/w"), files(writes="/w/x"), True),
        (files(reads="/"), files(writes="/w/x"), True),
        (files(reads="/w/x"), files(writes="/w/xy"), False),
        (None, Access("none"), True),
    ],
)
def test_conflict(one: Access | None, other: Access | None, expected: bool) -> None:
    assert conflict(one, other) is conflict(other, one) is expected


class Watch:
    """A tool that records which calls overlap. `key` is the name that a call writes."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        self.started: list[str] = []

    def tool(self) -> ScriptedTool:
        return ScriptedTool(
            "watch", self.body, lambda a: Access("files", writes=frozenset({a["key"]}))
        )

    async def body(self, arguments: Mapping[str, Any]) -> ToolOutput:
        me = arguments["me"]
        self.started.append(me)
        self.running.add(me)
        for other in self.running:
            self.beside.setdefault(other, set()).add(me)
            self.beside.setdefault(me, set()).add(other)
        for _ in range(arguments.get("turns", 3)):
            await asyncio.sleep(0)
        self.running.remove(me)
        return ToolOutput(True, me)


def watch_call(me: str, key: str, **more: Any) -> ToolCall:
    return call("watch", id=me, me=me, key=key, **more)


async def test_only_independent_calls_run_concurrently() -> None:
    watch = Watch()
    calls = [watch_call("1", "x"), watch_call("2", "y"), watch_call("3", "x", turns=1)]
    results = await ParallelDispatch().run(calls, DictCatalog([watch.tool()]))
    assert [result.output for result in results] == ["1", "2", "3"]
    assert "2" in watch.beside["1"]
    assert "3" not in watch.beside["1"]


async def test_results_are_in_call_order() -> None:
    calls = [watch_call(str(n), f"k{n}", turns=20 - n) for n in range(6)]
    results = await ParallelDispatch().run(calls, DictCatalog([Watch().tool()]))
    assert [result.call_id for result in results] == [str(n) for n in range(6)]


async def test_limit_is_respected() -> None:
    watch = Watch()
    calls = [watch_call(str(n), f"k{n}", turns=n % 4 + 1) for n in range(12)]
    most = 0

    async def body(arguments: Mapping[str, Any]) -> ToolOutput:
        nonlocal most
        most = max(most, len(watch.running) + 1)
        return await watch.body(arguments)

    tool = ScriptedTool("watch", body, lambda a: Access("files", writes=frozenset({a["key"]})))
    await ParallelDispatch(limit=3).run(calls, DictCatalog([tool]))
    assert most == 3


def test_limit_below_one_is_rejected() -> None:
    with pytest.raises(ValueError, match="limit"):
        ParallelDispatch(limit=0)


async def test_waiting_call_blocks_later_conflicting_calls() -> None:
    """x waits for both. y must stay behind x, although y1 has ended."""
    watch = Watch()
    tool = ScriptedTool(
        "watch", watch.body, lambda a: Access("files", writes=frozenset(a["key"].split()))
    )
    calls = [
        watch_call("long", "x", turns=9),
        watch_call("both", "x y"),
        watch_call("late", "y"),
    ]
    await ParallelDispatch().run(calls, DictCatalog([tool]))
    assert watch.started == ["long", "both", "late"]


@BOTH
async def test_error_becomes_the_calls_result(dispatch: Dispatch) -> None:
    async def fail(arguments: Mapping[str, Any]) -> ToolOutput:
        raise {"tool": ToolError("no such thing"), "bug": KeyError("k")}[arguments["how"]]

    async def fine(arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(True, "fine")

    def lost(arguments: Mapping[str, Any]) -> Access:
        raise RuntimeError("cannot tell")

    tools = [ScriptedTool("fail", fail), ScriptedTool("fine", fine, lost)]
    calls = [
        call("fail", id="1", how="tool"),
        call("fine", id="2"),
        call("fail", id="3", how="bug"),
        call("gone", id="4"),
    ]
    assert await dispatch.run(calls, DictCatalog(tools)) == [
        ToolResult("1", "fail", False, error="no such thing"),
        ToolResult("2", "fine", True, "fine"),
        ToolResult("3", "fail", False, error="KeyError: 'k'"),
        ToolResult("4", "gone", False, error="Unknown tool 'gone'. Known tools: fail, fine."),
    ]


SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "pair": {"type": "array", "items": {"type": "integer"}},
        "any": {"type": ["string", "null"]},
    },
    "required": ["text"],
    "additionalProperties": False,
}


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "'text' is missing"),
        ({"text": 3}, "'text' must be a string, not an integer"),
        ({"text": "a", "count": True}, "'count' must be an integer, not a boolean"),
        ({"text": "a", "count": 1.5}, "'count' must be an integer, not a number"),
        ({"text": "a", "mode": "x"}, "'mode' must be one of fast, slow, not 'x'"),
        ({"text": "a", "pair": [1, "b"]}, "'pair'[1] must be an integer, not a string"),
        ({"txt": 1}, "'text' is missing; 'txt' is not an argument (arguments: text, count, mode"),
        ({"text": None, "any": 3}, "'text' must be a string, not null; 'any' must be a string"),
    ],
)
async def test_invalid_arguments_are_reported(
    dispatch: Dispatch, arguments: dict[str, Any], message: str
) -> None:
    async def never(arguments: Mapping[str, Any]) -> ToolOutput:
        raise AssertionError("not to be run")

    catalog = DictCatalog([ScriptedTool("t", never, parameters=SCHEMA)])
    other = call("t", id="2", text="a", none=1)
    result, _ = await dispatch.run([ToolCall("1", "t", arguments), other], catalog)
    assert not result.ok
    assert message in result.text


async def test_null_omits_an_optional_argument_unless_null_is_valid() -> None:
    async def say(arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(True, repr(dict(arguments)))

    catalog = DictCatalog([ScriptedTool("t", say, parameters=SCHEMA)])
    calls = [call("t", text="a", count=None, any=None)]
    (result,) = await SequentialDispatch().run(calls, catalog)
    assert result.output == "{'text': 'a', 'any': None}"


async def test_cancellation_cancels_all_calls_and_waits() -> None:
    begun, cleaned = asyncio.Event(), []

    async def hang(arguments: Mapping[str, Any]) -> ToolOutput:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            cleaned.append(arguments["n"])
        return ToolOutput(True)

    catalog = DictCatalog([ScriptedTool("hang", hang)])
    batch = asyncio.create_task(
        ParallelDispatch().run([call("hang", n=n) for n in range(3)], catalog)
    )
    await begun.wait()
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert sorted(cleaned) == [0, 1, 2]


# Property: equal results and equal files for any batch.

EDIT = "str_replace_based_edit_tool"
NAMES = st.sampled_from([*FILES, "code.py", "link.txt", "d/new.txt", "../outside.txt"])
WORDS = st.sampled_from(["one", "two", "one\n", "x", ""])


def edits(root: str) -> st.SearchStrategy[ToolCall]:
    paths = NAMES.map(lambda name: f"{root}/{name}")
    folders = st.sampled_from([root, f"{root}/d"])
    made = st.one_of(
        st.fixed_dictionaries({"command": st.just("view"), "path": paths | folders}),
        st.fixed_dictionaries(
            {"command": st.just("create"), "path": paths, "file_text": WORDS},
        ),
        st.fixed_dictionaries(
            {"command": st.just("str_replace"), "path": paths, "old_str": WORDS, "new_str": WORDS}
        ),
        st.fixed_dictionaries(
            {
                "command": st.just("insert"),
                "path": paths,
                "insert_line": st.integers(0, 3),
                "new_str": WORDS,
            }
        ),
        st.fixed_dictionaries({"command": st.just("view"), "file": paths}),
    )
    return made.map(lambda arguments: ToolCall("", EDIT, arguments))


def others(root: str) -> st.SearchStrategy[ToolCall]:
    commands = st.sampled_from(
        [f"append {name} two" for name in FILES]
        + [f"link link.txt {name}" for name in FILES]
        + ["show link.txt", "link a.txt b.txt"]
    )
    thought: dict[str, Any] = {"thought": "t", "next_thought_needed": True, "thought_number": 1}
    return st.one_of(
        commands.map(lambda command: call("bash", command=command)),
        st.just(call("sequentialthinking", **thought, total_thoughts=2)),
        st.just(call("task_done")),
        st.just(call("bash", malformed='{"command": ')),
        st.just(call("ckg", command="search_function", path=root, identifier="one")),
        st.just(call("nope")),
    )


def batches(root: str) -> st.SearchStrategy[list[ToolCall]]:
    calls = st.one_of(edits(root), edits(root), others(root))
    return st.lists(calls, min_size=2, max_size=9).map(
        lambda batch: [
            ToolCall(str(n), c.name, c.arguments, c.malformed) for n, c in enumerate(batch)
        ]
    )


def prepare(root: Path) -> None:
    (root / "d").mkdir()
    for name in FILES:
        (root / name).write_text("one\ntwo\nx\n")
    (root / "link.txt").symlink_to(root / "a.txt")
    (root / "code.py").write_text("def one():\n    pass\n")


def left(root: Path) -> dict[str, str]:
    contents = {}
    for path in sorted(root.rglob("*")):
        kind = f"-> {path.readlink()}" if path.is_symlink() else ""
        if path.is_file():
            contents[str(path.relative_to(root))] = kind + path.read_text()
    return contents


def play(
    dispatch: Dispatch, lazy: bool, batch: Sequence[ToolCall], root: Path
) -> tuple[list[ToolResult], dict[str, str]]:
    async def session() -> list[ToolResult]:
        # A thread switch for every read and write, to provoke interleaving.
        files = ThreadedFiles(inline_limit=-1, chunk=3) if lazy else BlockingFiles()
        context = ToolContext(files, lambda: ScriptedShell(root), Workspace(root))
        catalog: Catalog = LazyCatalog(context) if lazy else EagerCatalog(context)
        return list(await dispatch.run(batch, catalog))

    prepare(root)
    try:
        return asyncio.run(session()), left(root)
    finally:
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@examples(100)
@given(st.data())
def test_parallel_and_sequential_give_equal_results(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "w"
        root.mkdir()
        batch = data.draw(batches(str(root)))
        limit = data.draw(st.integers(1, 8))
        expected = play(SequentialDispatch(), False, batch, root)
        assert play(ParallelDispatch(limit), True, batch, root) == expected


def edit(command: str, path: str, **rest: Any) -> ToolCall:
    return call(EDIT, command=command, path=path, **rest)


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(
            [edit("create", "d/new.txt", file_text="n"), edit("view", "d")],
            id="a folder is viewed after a file was made in it",
        ),
        pytest.param(
            [edit("view", "d"), edit("create", "d/new.txt", file_text="n")],
            id="a folder is viewed before a file is made in it",
        ),
        pytest.param(
            [
                edit("str_replace", "code.py", old_str="one", new_str="two"),
                call("ckg", command="search_function", path=".", identifier="one"),
            ],
            id="a search sees an earlier edit",
        ),
        pytest.param(
            [
                call("bash", command="link link.txt b.txt"),
                edit("str_replace", "link.txt", old_str="x", new_str="first"),
                edit("view", "b.txt"),
            ],
            id="a command makes two paths one",
        ),
        pytest.param(
            [
                call("json_edit_tool", operation="set", file_path="n", json_path="$", value=1),
                edit("create", "n", file_text="0"),
                call("json_edit_tool", operation="set", file_path="n", json_path="$", value=2),
                edit("str_replace", "n", old_str="2", new_str="3"),
            ],
            id="two tools edit one file",
        ),
    ],
)
def test_conflicting_calls_keep_their_order(tmp_path: Path, batch: list[ToolCall]) -> None:
    expected = play(SequentialDispatch(), False, batch, tmp_path)
    assert play(ParallelDispatch(), True, batch, tmp_path) == expected
    assert all(result.ok for result in expected[0] if result.name == EDIT)
