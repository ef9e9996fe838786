"""Both shells give the same bytes, tested with real processes."""

import asyncio
import contextlib
import os
import resource
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import ToolError
from agent_core.ports import Shell, ShellResult
from agent_core.shell import MAX_OUTPUT, EventShell, PollingShell, _Stream

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("kind", [PollingShell, EventShell])
ENDED = "The shell has ended; the next command gets a new one."


@contextlib.asynccontextmanager
async def opened(kind: Callable[[Path], Shell], folder: Path) -> AsyncIterator[Shell]:
    shell = kind(folder)
    try:
        yield shell
    finally:
        await shell.close()


async def outcomes(kind: Callable[[Path], Shell], folder: Path, *script: str) -> list[ShellResult]:
    async with opened(kind, folder) as shell:
        return [await shell.run(command, 10) for command in script]


def nap(number: int) -> str:
    """A number of seconds to sleep that is unique on this machine."""
    return f"{number}.{os.getpid()}"


def alive(marker: str) -> list[int]:
    """Processes whose command line contains `marker`, without zombies."""
    pids = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if marker in (folder / "cmdline").read_text(errors="replace"):
                pids.append(int(folder.name))
    return pids


async def started(marker: str, count: int = 1) -> None:
    """Waits for that many such processes."""
    for _ in range(1000):
        if len(alive(marker)) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{marker!r} never started")


def has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


async def gone(marker: str) -> bool:
    """Whether all these processes end within the timeout."""
    for _ in range(1000):
        if not alive(marker):
            return True
        await asyncio.sleep(0.01)
    return False


STATE = ("cd /; X=1; f() { echo f$1; }", "pwd; echo $X; f 2", "false", "ls /nonexistent; echo on")
ODD = (
    "echo out; echo err >&2; exit 3",
    "echo ${X:-fresh}",
    "kill -9 $$",
    "set -e; false",
    "exec true",
    "echo 'open",
    "f() {",
    "if true; then echo still; fi",
    "cat; read x; echo $?",
    "exec >/dev/null 2>&1; echo lost",
    "echo back",
    "set -x; echo traced",
    "set +x",
    "-n",
    "# nothing",
    "",
    "printf 'no newline'",
    "printf 'two\\n\\n'",
    "cat <<END\n$((1 + 1))\nEND",
    "echo \\",
    "printf '\\001'; printf '\\303('",
)


@pytest.mark.parametrize("script", [STATE, ODD], ids=["state", "odd"])
async def test_both_shells_give_the_same_bytes(tmp_path: Path, script: tuple[str, ...]) -> None:
    polling, event = await asyncio.gather(
        outcomes(PollingShell, tmp_path, *script), outcomes(EventShell, tmp_path, *script)
    )
    assert polling == event


async def test_shell_keeps_its_state(tmp_path: Path) -> None:
    assert await outcomes(EventShell, tmp_path, *STATE) == [
        ShellResult("", "", 0),
        ShellResult("/\n1\nf2", "", 0),
        ShellResult("", "", 1),
        ShellResult("on", "ls: cannot access '/nonexistent': No such file or directory", 0),
    ]


async def test_unusual_commands_end_with_their_output(tmp_path: Path) -> None:
    results = dict(zip(ODD, await outcomes(EventShell, tmp_path, *ODD), strict=True))
    assert results[ODD[0]] == ShellResult("out", f"err\n{ENDED}", 3)
    assert results["echo ${X:-fresh}"].output == "fresh"
    assert results["kill -9 $$"] == ShellResult("", ENDED, 137)
    assert results["set -e; false"] == ShellResult("", ENDED, 1)
    assert "unexpected EOF" in results["echo 'open"].error
    assert results["echo 'open"].exit_status == 2
    assert results["if true; then echo still; fi"] == ShellResult("still", "", 0)
    assert results["cat; read x; echo $?"] == ShellResult("1", "", 0)
    assert results["echo back"] == ShellResult("back", "", 0)
    assert results["set -x; echo traced"] == ShellResult("traced", "++ echo traced", 0)
    assert results["# nothing"] == results[""] == ShellResult("", "", 0)
    assert results["printf 'two\\n\\n'"].output == "two\n"
    assert results["cat <<END\n$((1 + 1))\nEND"].output == "2"
    assert results[ODD[-1]].output == "\x01\N{REPLACEMENT CHARACTER}("


@BOTH
async def test_background_processes_do_not_delay_a_command(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    async with opened(kind, tmp_path) as shell:
        assert await shell.run(f"sleep {nap(71)} & echo started", 10) == ShellResult(
            "started", "", 0
        )
        await started(f"sleep\0{nap(71)}")
        ended = await shell.run(f"sleep {nap(72)} & exit 4", 10)
        assert (ended.exit_status, ended.error) == (4, ENDED)
    assert await gone(f"sleep\0{nap(71)}")
    assert await gone(f"sleep\0{nap(72)}")


@BOTH
async def test_timeout_kills_the_group_and_starts_a_new_shell(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    async with opened(kind, tmp_path) as shell:
        await shell.run("X=old", 10)
        result = await shell.run(f"echo begun; echo bad >&2; sleep {nap(73)} | cat", 0.3)
        assert (result.output, result.exit_status) == ("begun", None)
        assert result.error.startswith("bad\nThe command ran longer than 0.3 s.")
        assert await gone(f"sleep\0{nap(73)}")
        assert await shell.run("echo ${X:-new}", 10) == ShellResult("new", "", 0)


@BOTH
@pytest.mark.parametrize(
    "command", ["timeout 600 {}", "(set -m; {} & wait)", "setsid {}; true", "sh -c '{} & wait'"]
)
async def test_processes_in_other_groups_are_killed(
    tmp_path: Path, kind: Callable[[Path], Shell], command: str
) -> None:
    async with opened(kind, tmp_path) as shell:
        running = asyncio.create_task(shell.run(command.format(f"sleep {nap(76)}"), 3600))
        await started(f"sleep\0{nap(76)}")
        await shell.restart()
        await asyncio.wait_for(running, 30)
    assert await gone(f"sleep\0{nap(76)}")


async def test_unrelated_processes_are_not_killed(tmp_path: Path) -> None:
    beside = await asyncio.create_subprocess_exec("sleep", nap(77))
    async with opened(EventShell, tmp_path) as shell:
        await shell.run(f"set -m; sleep {nap(78)} & :", 10)
        await started(f"sleep\0{nap(78)}")
    assert await gone(f"sleep\0{nap(78)}")
    beside.terminate()
    assert await beside.wait() == -15, "terminated by the test, not killed with SIGKILL"


async def test_command_that_ends_just_before_the_timeout_has_ended(
    tmp_path: Path,
) -> None:
    async with opened(PollingShell, tmp_path) as shell:
        assert await shell.run("echo quick", 0.05) == ShellResult("quick", "", 0)


@BOTH
async def test_stopped_shell_is_continued(tmp_path: Path, kind: Callable[[Path], Shell]) -> None:
    async with opened(kind, tmp_path) as shell:
        for _ in range(2):
            stopped = await shell.run("kill -STOP $$; echo on", 60)
            assert stopped == ShellResult("on", "", 0)


async def test_stopped_shell_is_killed_at_the_end(tmp_path: Path) -> None:
    async with opened(EventShell, tmp_path) as shell:
        pid = (await shell.run("echo $$", 10)).output
        await shell.run("(sleep 0.05; kill -STOP $$) & :", 10)
        await asyncio.sleep(0.3)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@BOTH
async def test_cancellation_leaves_no_process(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    async with opened(kind, tmp_path) as shell:
        running = asyncio.create_task(shell.run(f"sleep {nap(74)} & sleep {nap(74)}", 60))
        await started(f"sleep\0{nap(74)}", 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await gone(f"sleep\0{nap(74)}")
        assert (await shell.run("echo again", 10)).output == "again"


@BOTH
async def test_closing_ends_a_running_command(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    shell = kind(tmp_path)
    running = asyncio.create_task(shell.run(f"echo begun; sleep {nap(75)}", 3600))
    await started(f"sleep\0{nap(75)}")
    await shell.close()
    assert (await asyncio.wait_for(running, 30)).exit_status == 137
    assert await gone(f"sleep\0{nap(75)}")
    await shell.close()


async def test_closing_reaps_the_shell(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    async with opened(EventShell, tmp_path) as shell:
        await shell.run("for ((i = 0; i < 200000; i++)); do :; done", 60)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before
    assert not has_children()


@BOTH
async def test_large_output_is_truncated_and_not_kept(
    tmp_path: Path, kind: Callable[[Path], Shell]
) -> None:
    async with opened(kind, tmp_path) as shell:
        await shell.run(":", 10)
        tracemalloc.start()
        try:
            result = await shell.run("seq 1000000; seq 3 >&2", 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    full = "".join(f"{n}\n" for n in range(1, 1_000_001))
    half = MAX_OUTPUT // 2
    note = f"\n[... cut here: {len(full)} bytes in all ...]\n"
    assert result.output == (full[:half] + note + full[-half:]).removesuffix("\n")
    assert result.error == "1\n2\n3"
    assert peak < 4_000_000 < len(full)


@pytest.mark.parametrize("count", [MAX_OUTPUT, MAX_OUTPUT + 1, 200_000])
async def test_characters_are_not_split(tmp_path: Path, count: int) -> None:
    (result,) = await outcomes(
        EventShell, tmp_path, f"head -c {count} /dev/zero | sed 's/\\x00/\N{GRINNING FACE}/g'"
    )
    if count == MAX_OUTPUT:
        assert result.output == "\N{GRINNING FACE}" * MAX_OUTPUT
    else:
        face = "\N{GRINNING FACE}" * (MAX_OUTPUT // 2)
        assert result.output == f"{face}\n[... cut here: {4 * count} bytes in all ...]\n{face}"


async def test_output_cannot_forge_the_end_of_a_command(tmp_path: Path) -> None:
    """Prints everything that a command can learn about its marker."""
    nosy = (
        'trap \'echo "$BASH_COMMAND"; echo "$BASH_COMMAND" >&2\' DEBUG; set -xv; echo here;'
        " printf '\\001%032d:0\\002' 0; tr '\\0' '\\n' </proc/$$/cmdline; sleep 0.1; echo end"
    )
    (result,) = await outcomes(EventShell, tmp_path, nosy)
    assert "\x01" + 32 * "0" + ":0\x02" in result.output
    assert result.exit_status == 0
    assert result.output.rstrip().endswith("end") or "\nend\n" in result.output


@given(st.lists(st.integers(1, 40), max_size=12), st.sampled_from([b"", b"\1", b"\1t", b"\2x\n"]))
def test_chunk_boundaries_do_not_matter(cuts: list[int], text: bytes) -> None:
    arriving, stream, completed = text + b"\1token:17\2late", _Stream(), 0
    stream.expect(b"token")
    for size in [*cuts, len(arriving)]:
        completed += stream.feed(arriving[:size])
        arriving = arriving[size:]
    assert (completed, stream.status) == (1, 17)
    assert stream.text() == text.decode().removesuffix("\n")
    stream.expect(b"next")
    assert stream.text() == "late"


async def test_long_commands_are_accepted(tmp_path: Path) -> None:
    word = "x" * 300_000
    (result,) = await outcomes(EventShell, tmp_path, f"w={word}; echo ${{#w}}")
    assert result == ShellResult("300000", "", 0)


async def test_late_output_belongs_to_the_next_command(tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    async with opened(EventShell, tmp_path) as shell:
        assert (await shell.run("(read line <go; echo late) & :", 10)).output == ""
        assert (await shell.run("echo now >go; wait; echo next", 10)).output == "late\nnext"


async def test_command_that_cannot_run_raises_tool_error(tmp_path: Path) -> None:
    shell = EventShell(tmp_path / "missing")
    with pytest.raises(ToolError, match="Cannot start bash"):
        await shell.run("true", 10)
    async with opened(EventShell, tmp_path) as other:
        with pytest.raises(ToolError, match="NUL"):
            await other.run("echo \0", 10)
        with pytest.raises(ToolError, match="not text"):
            await other.run("echo \ud800", 10)
        first = asyncio.create_task(other.run("sleep 0.1; echo one", 10))
        await asyncio.sleep(0)
        with pytest.raises(ToolError, match="busy"):
            await other.run("echo two", 10)
        assert (await first).output == "one"


async def test_nothing_starts_before_the_first_command(tmp_path: Path) -> None:
    shell = EventShell(tmp_path / "missing")
    await shell.restart()
    await shell.close()


def test_shell_outlives_the_loop_that_started_it(tmp_path: Path) -> None:
    shell = EventShell(tmp_path)
    asyncio.run(shell.run("X=kept", 10))
    assert asyncio.run(shell.run("echo $X", 10)).output == "kept"
    asyncio.run(shell.close())
