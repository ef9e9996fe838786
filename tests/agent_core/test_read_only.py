"""Commands that provably change nothing run at the same time, and nothing else does."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.files import BlockingFiles
from agent_core.ports import Access, Dispatch, Shell, ShellResult, ToolContext
from agent_core.shell import EventShell, PollingShell
from agent_core.shell_state import StateReport
from agent_core.tools.bash import BashTool
from agent_core.tools.read_only import reading
from agent_core.workspace import Workspace
from tests.agent_core.fakes import DictCatalog, call
from tests.agent_core.test_shell import gone, nap, opened, started
from tests.properties import examples

pytestmark = pytest.mark.anyio

READS = [
    "sleep .2",
    "cat a b | head -5 | wc -l",
    "ls -la; pwd && echo done || false",
    "grep -rn 'x y' --include=\"*.py\" -A 3 -e z src",
    "sed -n '1,20p;30,$p' f",
    "find . src -name '*.py' -type f -maxdepth 2",
    "test -f README.md && echo ok",
    "sort -k1,1 -t: -u f | uniq -c",
    "tail -20 f\nhead -n 3 f",
    "'cat' \"a b\" -- -x",
    "echo 'a$x `y` > z & # \\ *'",
]
OTHERS = [
    "",
    "python x.py",
    "git status",
    "cd src && ls",
    "cat a > b",
    "cat < a",
    "cat a 2>/dev/null",
    "cat a &",
    "cat a;",
    "; cat a",
    "cat a && && cat b",
    "echo $x",
    'echo "$x"',
    "echo `x`",
    'echo "a\\b"',
    "echo a\\b",
    "cat *",
    "cat ?",
    "cat [a]",
    "cat {a,b}",
    "cat ~",
    "cat ~/x",
    "a=1 cat b",
    "PATH=. cat b",
    "! cat a",
    "(cat a)",
    "{ cat a; }",
    "cat 'a",
    "cat a # b",
    "if true; then ls; fi",
    "/tmp/cat a",
    "./ls",
    "sort -o x y",
    "sort -uo x y",
    "sort --output=x y",
    "sort --outp=x y",
    "sort -S1 -T /x y",
    "sort --compress-program=x y",
    "uniq a b",
    "uniq -c a b",
    "tail -f a",
    "tail --follow a",
    "sed -i s/a/b/ f",
    "sed -n '1w x' f",
    "sed -n 1p -i f",
    "sed -n -i 1p f",
    "sed -n 1e f",
    "sed 1,20p f",
    "find . -delete",
    "find . -exec rm x",
    "find . -fprint x",
    "find . -name",
    "find . -ok rm x",
    "grep -f x y",
    "grep -D read x y",
    "head -n",
    "ls -u",
    "sleep x",
    "sleep 1 2",
    "sleep inf",
    "test -v 'a[$(touch x)]'",
    "test 'a[$(touch x)]' -eq 1",
    "printf -v x y",
    "printf '%n' x",
    "diff -l a b",
    "cat a" + " b" * 2000,
]


@pytest.mark.parametrize("command", READS)
def test_readings(command: str) -> None:
    assert reading(command) is not None


@pytest.mark.parametrize("command", OTHERS)
def test_everything_else_is_no_reading(command: str) -> None:
    assert reading(command) is None


WORDS = (
    *("cat", "ls", "sort", "uniq", "sed", "find", "grep", "head", "tail", "echo", "test", "tr"),
    *("a", "b", "new", "x", "1,2p", "'1w b'", "'q'", '"q"', "1", "--", "--output=a"),
    *("-n", "-o", "-i", "-u", "-w", "-k", "-name", "-delete", "-exec", "rm"),
    *(";", "|", "&&", ">", ">>", "<", "&", "$x", "$(rm)", "`rm`", "*", "~", "\n"),
)


@examples(150)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join))
def test_readings_leave_the_files_as_they_are(command: str) -> None:
    if reading(command) is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "a").write_text("a\n1\n")
        (root / "b").write_text("b\n")

        async def run() -> None:
            async with opened(EventShell, root) as shell:
                await shell.run(command, 10)

        asyncio.run(run())
        assert {path.name: path.read_text() for path in root.iterdir()} == {
            "a": "a\n1\n",
            "b": "b\n",
        }


def context(root: Path, kind: Callable[[Path], Shell] = EventShell) -> ToolContext:
    return ToolContext(BlockingFiles(), lambda: kind(root), Workspace(root))


def test_access(tmp_path: Path) -> None:
    bash = BashTool(context(tmp_path))
    main = frozenset({"main"})
    assert bash.access({"command": "cat a"}) == Access("shell", reads=main)
    assert bash.access({"command": "cat a > b"}) == Access("shell", writes=main)
    assert bash.access({"command": "cat a", "restart": True}) == Access("shell", writes=main)
    assert bash.access({"command": "ls", "session": "two"}).reads == {"two"}


class Session:
    """A session with one bash tool. Replies run one after another."""

    def __init__(
        self, root: Path, dispatch: Dispatch, kind: Callable[[Path], Shell] = EventShell
    ) -> None:
        self.tool = BashTool(context(root, kind))
        self._dispatch = dispatch
        self._catalog = DictCatalog([self.tool])

    async def reply(self, *commands: str, timeout: float = 60) -> list[tuple[str, str | None]]:
        calls = [
            call("bash", id=str(n), command=one, timeout=timeout) for n, one in enumerate(commands)
        ]
        results = await self._dispatch.run(calls, self._catalog)
        return [(result.output, result.error) for result in results]


async def played(
    root: Path, dispatch: Dispatch, replies: Sequence[Sequence[str]], timeout: float = 60
) -> list[list[tuple[str, str | None]]]:
    session = Session(root, dispatch)
    try:
        return [await session.reply(*commands, timeout=timeout) for commands in replies]
    finally:
        await session.tool.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [EventShell, PollingShell])
async def test_slow_readings_run_at_the_same_time(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    session = Session(tmp_path, ParallelDispatch(), kind)
    await session.reply("mkdir d; cd d; export X=1")
    running = asyncio.create_task(session.reply(*[f"sleep {nap(91)}"] * 5))
    await started(f"sleep\0{nap(91)}", 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await gone(f"sleep\0{nap(91)}")
    await session.tool.close()


async def test_readings_wait_for_earlier_changes_and_delay_later_ones(tmp_path: Path) -> None:
    session = Session(tmp_path, ParallelDispatch())
    results = await session.reply(
        "echo one > f",
        "sleep .1; cat f",
        "sleep .1 && grep -c one f",
        "echo two >> f",
        "sleep .1 && cat f",
        "sleep .1 && wc -l f",
    )
    await session.tool.close()
    assert [output for output, _ in results] == ["", "one", "1", "", "one\ntwo", "2 f"]


SLOW = ("sleep .06 && cat f", "sleep .06 && pwd", "grep -rn x .", "sleep .01; ls", "find . -type f")
SCRIPTS = [
    ("cd d", "export LC_ALL=C X=1", "umask 077"),
    ("cat() { echo mine; }", "ls() { echo mine >> f; }"),
    ("set -x",),
    ("set -e",),
    ("set -o pipefail", "cd d"),
    ("shopt -s xpg_echo", "trap 'echo debug' DEBUG"),
    ("enable -n pwd", "PATH=$PWD/bin:$PATH"),
    ("unset PATH",),
    ("export BASH_ENV=$PWD/bin/env",),
    ("mkdir gone; cd gone; rmdir ../gone",),
    ("ulimit -n 50",),
    ("ln -s d link; cd link",),
    ("sleep 60 & :",),
]


@pytest.mark.parametrize("script", SCRIPTS, ids=[script[0][:20] for script in SCRIPTS])
async def test_both_dispatchers_give_the_same_transcript(script: tuple[str, ...]) -> None:
    """After any state of the shell, which may forbid that commands run beside each other."""
    seen = []
    for dispatch in (SequentialDispatch(), ParallelDispatch()):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "w")
            (root / "d").mkdir(parents=True)
            (root / "bin").mkdir()
            (root / "f").write_text("x 1\n")
            (root / "d" / "f").write_text("x 2\n")
            (root / "bin" / "cat").write_text("#!/bin/sh\necho fake\n")
            (root / "bin" / "cat").chmod(0o755)
            (root / "bin" / "env").write_text("echo started >> /proc/self/cwd/f\n")
            replies = [script, SLOW, ("nosuch; pwd; echo $? $_ $LINENO", *SLOW, "nosuch", "pwd")]
            results = await played(root, dispatch, replies)
            seen.append(
                [
                    (output.replace(folder, ""), error and error.replace(folder, ""))
                    for reply in results
                    for output, error in reply
                ]
            )
    assert seen[0] == seen[1]


async def test_a_timeout_has_the_same_consequences(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    replies = [("cd d",), ("sleep .05", "pwd", f"sleep {nap(92)}", "sleep .05 && pwd"), ("pwd",)]
    seen = [
        await played(tmp_path, dispatch, replies, timeout=0.6)
        for dispatch in (SequentialDispatch(), ParallelDispatch())
    ]
    assert seen[0] == seen[1]
    outputs = [[output for output, _ in reply] for reply in seen[1]]
    assert outputs == [[""], ["", f"{tmp_path}/d", "", str(tmp_path)], [str(tmp_path)]]
    assert await gone(f"sleep\0{nap(92)}")


@asynccontextmanager
async def twin_after(
    folder: Path, script: str, words: Sequence[str] = (), programs: Sequence[str] = ("cat", "pwd")
) -> AsyncIterator[tuple[Shell, Shell | None]]:
    """A shell that has run `script`, and its twin, if it can have one."""
    report = StateReport(programs, words)
    async with opened(EventShell, folder) as shell:
        await shell.run(script, 10)
        await shell.run("pwd", 10, report)
        twin = shell.twin(report, [])
        try:
            yield shell, twin
        finally:
            report.close()
            if twin is not None:
                await twin.close()


STATES = [
    ("cd /usr; export X=1 PATH=$PATH:/nowhere; Y=2; f() { :; }; umask 077", True),
    ("cat() { :; }", False),
    ("unset PWD", False),
    ("mkdir gone; cd gone; rmdir ../gone", False),
    ("set -e", False),
    ("set -f", False),
    ("shopt -s expand_aliases", False),
    ("trap : EXIT", False),
    ("enable -n pwd", False),
    ("hash -p /usr/bin/false cat", False),
    ("PATH=/nowhere", False),
    ("export LD_PRELOAD=/nowhere/x.so", False),
    ("export BASH_ENV=/nowhere", False),
    ("export POSIXLY_CORRECT=1", False),
    ("sleep 30 & :", False),
    ("(sleep 30 &)", False),
    ("ulimit -n 60", False),
]


@pytest.mark.parametrize(("script", "plain"), STATES, ids=[script for script, _ in STATES])
async def test_states_with_a_twin(tmp_path: Path, script: str, plain: bool) -> None:
    async with twin_after(tmp_path, script) as (_, twin):
        assert (twin is not None) is plain


async def test_a_twin_has_the_folder_the_variables_and_the_lines(tmp_path: Path) -> None:
    script = "mkdir -p $'a\nb'; cd $'a\nb'; export X=$'1\n2' Y=é; unset HOME"
    async with twin_after(tmp_path, script) as (shell, twin):
        assert twin is not None
        show = 'pwd; echo "$X" $Y ${HOME-none}; env | sort; nosuch'
        expected = await shell.run(show, 10)
        assert await twin.run(show, 10) == expected
        assert "line " in expected.error


@pytest.mark.parametrize("word", ["pipe", "/dev/null", "/proc/self/status", "link"])
async def test_no_twin_for_what_readers_change(tmp_path: Path, word: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "file").touch()
    async with twin_after(tmp_path, ":", ["file", "missing", "-n"]) as (_, twin):
        assert twin is not None
    async with twin_after(tmp_path, ":", [word]) as (_, twin):
        assert twin is None


async def test_shells_that_cannot_start_report_it_for_each_call(tmp_path: Path) -> None:
    session = Session(tmp_path / "missing", ParallelDispatch())
    results = await session.reply("sleep 1", "sleep 2")
    assert [error and error[:17] for _, error in results] == ["Cannot start bash"] * 2


async def test_a_bug_in_a_shell_does_not_end_the_session(tmp_path: Path) -> None:
    class Broken(EventShell):
        async def run(
            self, command: str, timeout: float, report: StateReport | None = None
        ) -> ShellResult:
            raise RuntimeError("broken")

    session = Session(tmp_path, ParallelDispatch(), Broken)
    results = await session.reply("sleep 1", "sleep 2")
    assert [error for _, error in results] == ["RuntimeError: broken"] * 2
    await session.tool.close()
