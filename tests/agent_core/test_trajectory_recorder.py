"""Two recorders write one file, which stays readable under any failure."""

import asyncio
import fcntl
import gc
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import RecordingError
from agent_core.messages import Message, Reply, ToolCall, ToolResult, Usage
from agent_core.redaction import REPLACEMENT, Redactor
from agent_core.trajectory_journal import Journal
from agent_core.trajectory_recorder import (
    OptimizedTrajectoryRecorder,
    TrajectoryRecorder,
    recover,
)
from tests.agent_core.histories import HISTORIES, REPLIES, RESULTS, TEXTS, TOOLS
from tests.properties import examples

pytestmark = pytest.mark.anyio

Recorder = TrajectoryRecorder | OptimizedTrajectoryRecorder
Make = Callable[..., Recorder]
both_sides = pytest.mark.parametrize("make", [TrajectoryRecorder, OptimizedTrajectoryRecorder])
no_secrets = Redactor()

CALL = ToolCall("c1", "bash", {"command": "ls"})
REPLY = Reply(Message("assistant", "look", (CALL,)), Usage(7, 5, 3, 2, 1), "tool_calls", "m-1")
RESULT = ToolResult("c1", "bash", True, "a.txt")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def read(path: Path) -> dict[str, Any]:
    trajectory: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return trajectory


def journal_of(path: Path) -> Path:
    return path.with_suffix(".jsonl")


def record_steps(recorder: Recorder, count: int, text: str = "") -> None:
    for number in range(1, count + 1):
        recorder.interaction([Message("user", f"{number} {text}")], REPLY, ["bash"])
        recorder.step(number, "completed", [], REPLY, [RESULT])


# ---------------------------------------------------------------------------- equal files

Event = tuple[str, tuple[Any, ...]]
EVENTS: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(
        st.tuples(st.just("interaction"), st.tuples(HISTORIES, REPLIES, st.just(["bash"]))),
        st.tuples(
            st.just("step"),
            st.tuples(
                st.integers(1, 3),
                st.sampled_from(["thinking", "completed", "error"]),
                HISTORIES,
                st.none() | REPLIES,
                st.lists(RESULTS, max_size=2),
                st.none() | TEXTS,
            ),
        ),
        st.tuples(st.just("update_lakeview"), st.tuples(st.integers(1, 3), TEXTS)),
    ),
    max_size=8,
)


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("timestamp", "start_time", "end_time", "execution_time")
        return {
            name: type(item).__name__ if name in timed else without_time(item)
            for name, item in value.items()
        }
    return [without_time(item) for item in value] if isinstance(value, list) else value


def recorded(recorder: Recorder, events: list[Event], task: str) -> str:
    recorder.start(task, "openai", "m", 20)
    for name, arguments in events:
        getattr(recorder, name)(*arguments)
    recorder.finalize_recording(True, f"done: {task}")
    return Path(recorder.get_trajectory_path()).read_text(encoding="utf-8")


@examples(40)
@given(
    events=EVENTS,
    task=TEXTS,
    batch_size=st.integers(1, 6),
    background=st.booleans(),
    newest=st.none() | st.integers(1, 3),
)
def test_both_recorders_write_the_same_file(
    events: list[Event], task: str, batch_size: int, background: bool, newest: int | None
) -> None:
    redactor = Redactor(["sk-planted-key-1"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        baseline = TrajectoryRecorder(folder / "a.json", max_interactions=newest, redactor=redactor)
        optimised = OptimizedTrajectoryRecorder(
            folder / "b.json", batch_size, newest, background, redactor=redactor
        )
        a, b = recorded(baseline, events, task), recorded(optimised, events, task)
        assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json"]
    assert without_time(json.loads(a)) == without_time(json.loads(b))
    assert "sk-planted-key-1" not in a + b
    assert [line.lstrip() for line in a.splitlines()[:2]] == [
        line.lstrip() for line in b.splitlines()[:2]
    ]
    assert len(a.splitlines()) == len(b.splitlines())


@both_sides
def test_trae_agents_format(make: Make, tmp_path: Path) -> None:
    recorder = make(tmp_path / "t.json", redactor=no_secrets)
    recorder.start_recording("Fix it", "openai", "m", 20)
    sent = [Message("system", "s"), Message("tool", result=RESULT)]
    recorder.record_llm_interaction(sent, REPLY, "openai", "m", TOOLS)
    failed = ToolResult("c1", "bash", False, "", "no such file")
    recorder.record_agent_step(
        1, "completed", sent[:1], REPLY, [CALL], [failed], "hm", error="oops"
    )
    recorder.update_lakeview(1, "It looked around.")
    recorder.finalize_recording(success=True, final_result="done")
    call = {"call_id": "c1", "name": "bash", "arguments": {"command": "ls"}, "id": None}
    result = {"call_id": "c1", "success": True, "result": "a.txt", "error": None, "id": None}
    reply: dict[str, Any] = {"content": "look", "model": "m-1", "finish_reason": "tool_calls"}
    usage: dict[str, Any] = {"input_tokens": 7, "output_tokens": 5}
    more: dict[str, Any] = {
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 2,
        "reasoning_tokens": 1,
    }
    trajectory = read(tmp_path / "t.json")
    assert list(trajectory) == [
        "task",
        "start_time",
        "end_time",
        "provider",
        "model",
        "max_steps",
        "llm_interactions",
        "agent_steps",
        "success",
        "final_result",
        "execution_time",
    ]
    assert without_time(trajectory) == {
        "task": "Fix it",
        "start_time": "str",
        "end_time": "str",
        "provider": "openai",
        "model": "m",
        "max_steps": 20,
        "llm_interactions": [
            {
                "timestamp": "str",
                "provider": "openai",
                "model": "m",
                "input_messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": None, "tool_result": result},
                ],
                "response": {**reply, "usage": {**usage, **more}, "tool_calls": [call]},
                "tools_available": ["bash", "task_done"],
            }
        ],
        "agent_steps": [
            {
                "step_number": 1,
                "timestamp": "str",
                "state": "completed",
                "llm_messages": [{"role": "system", "content": "s"}],
                "llm_response": {**reply, "usage": usage, "tool_calls": [call]},
                "tool_calls": [call],
                "tool_results": [
                    {**result, "success": False, "result": "", "error": "no such file"}
                ],
                "reflection": "hm",
                "error": "oops",
                "lakeview_summary": "It looked around.",
            }
        ],
        "success": True,
        "final_result": "done",
        "execution_time": "float",
    }


@both_sides
async def test_agent_interface(make: Make, tmp_path: Path) -> None:
    """Under a running loop, with the method names that the agent uses."""
    recorder = make(tmp_path / "deep" / "t.json", redactor=no_secrets)
    recorder.start("Fix it", "openai", "m", 20)
    record_steps(recorder, 3)
    await recorder.finish(False, None)
    trajectory = read(tmp_path / "deep" / "t.json")
    assert len(trajectory["llm_interactions"]) == len(trajectory["agent_steps"]) == 3
    assert trajectory["success"] is False
    assert trajectory["agent_steps"][0]["tool_calls"][0]["name"] == "bash"
    await recorder.finish(True, "again")
    assert read(tmp_path / "deep" / "t.json") == trajectory
    with pytest.raises(RecordingError, match="start_recording"):
        recorder.step(4, "completed", [], None, [])


@both_sides
def test_recorder_can_be_restarted(make: Make, tmp_path: Path) -> None:
    recorder = make(tmp_path / "t.json", redactor=no_secrets)
    for task in ("first", "second"):
        recorder.start(task, "openai", "m", 20)
        record_steps(recorder, 1)
    recorder.finalize_recording(True)
    assert read(tmp_path / "t.json")["task"] == "second"
    assert len(read(tmp_path / "t.json")["agent_steps"]) == 1


def test_default_path_is_outside_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise `grep -r` in the workspace finds the agent's own trajectory."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recorder = OptimizedTrajectoryRecorder(batch_size=10, background_io=True, max_interactions=1000)
    recorder.start_recording("t", "openai", "m", 1)
    recorder.finalize_recording(True)
    assert not list(workspace.iterdir())
    (path,) = (tmp_path / "home/.local/state/agent-core/trajectories").iterdir()
    assert path == Path(recorder.get_trajectory_path())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert len({TrajectoryRecorder().trajectory_path for _ in range(2)}) == 2
    assert TrajectoryRecorder().trajectory_path.is_relative_to(tmp_path / "state")


@both_sides
@pytest.mark.parametrize("before", [None, 0o644])
def test_only_the_owner_can_read_what_is_recorded(
    make: Make, before: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    if before is not None:
        path.touch(before)
    recorder = make(path)
    recorder.start("t", "openai", "m", 1)
    during = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    recorder.finalize_recording(True)
    assert set(during.values()) == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_lone_surrogate_is_recorded_as_a_question_mark(tmp_path: Path) -> None:
    for recorder in (
        TrajectoryRecorder(tmp_path / "a.json"),
        OptimizedTrajectoryRecorder(tmp_path / "b.json"),
    ):
        recorder.start("t", "openai", "m", 1)
        recorder.step(1, "completed", [Message("user", "x\udcffy")], None, [])
        recorder.finalize_recording(True)
        (step,) = read(Path(recorder.get_trajectory_path()))["agent_steps"]
        assert step["llm_messages"][0]["content"] == "x?y"


# ------------------------------------------------------------------- during a recording


@both_sides
def test_file_exists_after_start(make: Make, tmp_path: Path) -> None:
    recorder = make(tmp_path / "t.json", redactor=no_secrets)
    recorder.start("the task", "openai", "m", 20)
    trajectory = read(tmp_path / "t.json")
    assert (trajectory["task"], trajectory["end_time"], trajectory["agent_steps"]) == (
        "the task",
        "",
        [],
    )
    recorder.finalize_recording(True)


def test_file_is_valid_json_at_any_time(tmp_path: Path) -> None:
    path, stop, reads = tmp_path / "t.json", threading.Event(), 0
    recorder = OptimizedTrajectoryRecorder(path, batch_size=2)
    recorder.start("t", "openai", "m", 20)
    errors: list[str] = []

    def watch() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                read(path)
                if journal_of(path).exists():
                    for line in journal_of(path).read_bytes().splitlines(keepends=True):
                        if line.endswith(b"\n"):
                            json.loads(line)
            except FileNotFoundError:
                pass  # the journal may disappear in between
            except ValueError as error:
                errors.append(str(error))
            reads += 1

    reader = threading.Thread(target=watch)
    reader.start()
    record_steps(recorder, 150, "x" * 3000)
    recorder.finalize_recording(True)
    stop.set()
    reader.join()
    assert reads
    assert not errors
    assert len(read(path)["agent_steps"]) == 150


@pytest.mark.parametrize("background", [False, True])
def test_records_are_written_in_batches(tmp_path: Path, background: bool) -> None:
    path = tmp_path / "t.json"
    recorder = OptimizedTrajectoryRecorder(path, batch_size=4, background_io=background)
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 3)
    assert background or recorder.get_statistics()["pending_records"] == 2
    recorder.flush()
    assert len(journal_of(path).read_bytes().splitlines()) == 7
    statistics = recorder.get_statistics()
    assert statistics["pending_records"] == statistics["lost_records"] == 0
    assert (statistics["interactions"], statistics["steps"]) == (3, 3)
    assert statistics["bytes_written"] == journal_of(path).stat().st_size
    # The start line, four records, two records; a thread may write two batches at once.
    assert statistics["batches"] == 3 or (background and statistics["batches"] == 2)
    assert statistics["queue_high_water"] >= background
    recorder.finalize_recording(True)


@pytest.mark.parametrize("background", [False, True])
async def test_no_record_waits_long_for_its_batch(
    tmp_path: Path, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model thinks, nothing else is recorded."""
    monkeypatch.setattr(Journal, "MAX_AGE", 0.05)
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json", 100, background_io=background)
    recorder.start("t", "openai", "m", 20)
    for steps in (2, 4):
        record_steps(recorder, 2)
        async with asyncio.timeout(20):
            while recorder.get_statistics()["pending_records"]:  # noqa: ASYNC110 - a thread
                await asyncio.sleep(0.01)
        assert journal_of(tmp_path / "t.json").read_bytes().count(b'"kind":"step"') == steps
    recorder.finalize_recording(True)


async def test_a_thread_starts_once_it_is_worth_its_cost(tmp_path: Path) -> None:
    """A short session needs none, and its records are whole without one."""

    def threads() -> int:
        return sum(thread.name == "trajectory" for thread in threading.enumerate())

    before = threads()
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json", 5, background_io=True)
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 20)
    assert threads() == before
    assert recorder.get_statistics()["pending_records"] < 5
    record_steps(recorder, 40, "x" * Journal.MIN_THREAD_SIZE)
    assert threads() == before + 1
    await recorder.finish(True, None)
    assert threads() == before
    assert len(read(tmp_path / "t.json")["agent_steps"]) == 60


async def test_a_closed_journal_starts_no_thread(tmp_path: Path) -> None:
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json", 5, background_io=True)
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 2, "x" * Journal.MIN_THREAD_SIZE)
    recorder.cleanup()
    record_steps(recorder, 20)
    assert recorder.get_statistics()["lost_records"] >= 35
    assert not any(thread.name == "trajectory" for thread in threading.enumerate())


def test_what_the_writer_owes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that does not write, recording waits at the limit."""
    reader, writer = os.pipe()
    filled = os.write(writer, b"-" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
    monkeypatch.setattr("agent_core.trajectory_journal._new_file", lambda path: (path, writer))
    journal = Journal(tmp_path / "t.jsonl", batch_size=1, background=True)
    line = b"x" * 99_999 + b"\n"

    def append() -> None:
        for _ in range(30):
            journal.append(line)
        journal.close()

    appending = threading.Thread(target=append)
    appending.start()
    seen = 0
    while len(line) * (seen + 1) < Journal.MAX_OWED:  # the limit is reached
        seen = journal.records
    appending.join(0.2)
    assert journal.accepted <= Journal.MAX_OWED + 2 * len(line)
    left = filled + 30 * len(line)
    while left:
        left -= len(os.read(reader, left))
    appending.join()
    os.close(reader)
    assert (journal.kept, journal.waiting, journal.lost) == (30, 0, 0)


async def test_file_is_updated_on_demand(tmp_path: Path) -> None:
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json", batch_size=100)
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 2)
    await recorder.save_trajectory_async()
    assert len(read(tmp_path / "t.json")["agent_steps"]) == 2
    record_steps(recorder, 1)
    await recorder.finish(True, None)
    assert len(read(tmp_path / "t.json")["agent_steps"]) == 3


async def test_long_recording_is_completed_off_the_loop(tmp_path: Path) -> None:
    """Also if the waiting task is cancelled."""
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json")
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 100, "x" * 5000)
    finishing = asyncio.create_task(recorder.finish(True, "done"))
    await asyncio.sleep(0)
    assert not finishing.done()
    finishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finishing
    assert read(tmp_path / "t.json")["final_result"] == "done"
    assert not journal_of(tmp_path / "t.json").exists()


@pytest.mark.parametrize("how", ["cleanup", "drop"])
def test_unfinished_recording_leaves_its_journal(tmp_path: Path, how: str) -> None:
    path = tmp_path / "t.json"
    recorder = OptimizedTrajectoryRecorder(path, batch_size=100)
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 2)
    if how == "cleanup":
        recorder.cleanup()
        recorder.cleanup()
    del recorder
    gc.collect()
    assert recover(journal_of(path)) == path
    assert len(read(path)["agent_steps"]) == 2


# -------------------------------------------------------------------------------- secrets


@both_sides
def test_planted_key_is_in_no_file(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every text of every record. The key is in the environment only."""
    key = 'sk-"planted"\\1234567890'
    monkeypatch.setenv("SOME_API_KEY", key)
    recorder = make(tmp_path / "t.json")
    recorder.start(f"task {key}", f"p {key}", f"m {key}", 20)
    call = ToolCall("c", f"bash {key}", {f"name {key}": [{"deep": key}]})
    malformed = ToolCall("c", "bash", {}, malformed=f"{{{key}")
    reply = Reply(Message("assistant", key, (call, malformed)), Usage(), key, key)
    result = ToolResult("c", "bash", False, key, f"error {key}")
    messages = [Message("user", key), reply.message, Message("tool", result=result)]
    recorder.interaction(messages, reply, [key])
    recorder.step(1, f"state {key}", messages, reply, [result], f"error {key}")
    recorder.update_lakeview(1, f"summary {key}")
    if isinstance(recorder, OptimizedTrajectoryRecorder):
        recorder.flush()
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    recorder.finalize_recording(True, f"result {key}")
    everything += b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"planted" not in everything
    assert everything.count(REPLACEMENT.encode()) > 20


# ------------------------------------------------- killed sessions, full disks, signals

CHILD = """
import os, resource, signal, sys
from pathlib import Path
from agent_core.messages import Message, Reply
from agent_core.errors import RecordingError
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder
path, background = Path(sys.argv[1]), sys.argv[2] == "True"
recorder = OptimizedTrajectoryRecorder(path, batch_size=5, background_io=background)
recorder.start("t", "openai", "m", 20)
def steps(count, text=""):
    for number in range(count):
        recorder.step(number, "completed", [Message("user", text)], None, [])
"""


def child(code: str, path: Path, background: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD + code, str(path), str(background)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )


each_writer = pytest.mark.parametrize("background", [False, True])


@each_writer
def test_killed_session_loses_at_most_one_batch(tmp_path: Path, background: bool) -> None:
    """Only the unwritten batch may be lost."""
    path = tmp_path / "t.json"
    wait = "while recorder.get_statistics()['pending_records'] > 4: pass\n"
    done = child("steps(12)\n" + wait + "os.kill(os.getpid(), 9)", path, background)
    assert done.returncode == -signal.SIGKILL
    assert read(path)["agent_steps"] == []
    with journal_of(path).open("ab") as journal:
        journal.write(b'{"kind":"step","data":{"step_num')
    recover(journal_of(path), path)
    trajectory = read(path)
    # With the start line, twelve steps are two batches and three lines.
    assert [step["step_number"] for step in trajectory["agent_steps"]] == list(range(10))
    assert (trajectory["task"], trajectory["end_time"], trajectory["success"]) == ("t", "", False)


@each_writer
@pytest.mark.parametrize("leave", ["", "sys.exit(3)", "raise ValueError"])
def test_exit_without_an_end_loses_nothing(tmp_path: Path, background: bool, leave: str) -> None:
    path = tmp_path / "t.json"
    child("steps(13)\n" + leave, path, background)
    recover(journal_of(path), path)
    assert len(read(path)["agent_steps"]) == 13


@each_writer
def test_full_disk(tmp_path: Path, background: bool) -> None:
    """A clear error, no partial line, and the earlier records stay."""
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for attempt in (lambda: steps(100, "x" * 500), lambda: recorder.finalize_recording(True)):
    try:
        attempt()
    except RecordingError as error:
        print(error)
"""
    path = tmp_path / "t.json"
    done = child(code, path, background)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) in ((1, 2) if background else (2,))
    assert "File too large" in done.stdout
    assert "records are lost" in done.stdout
    assert f"agent-core recover {journal_of(path)}" in done.stdout
    lines = journal_of(path).read_bytes().splitlines(keepends=True)
    assert all(json.loads(line) for line in lines)
    recover(journal_of(path), path)
    kept = [step["step_number"] for step in read(path)["agent_steps"]]
    assert kept == list(range(len(kept)))
    assert len(kept) == len(lines) - 1 > 10


@each_writer
async def test_device_without_space(
    tmp_path: Path, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> tuple[Path, int]:
        path.touch()
        return path, os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("agent_core.trajectory_journal._new_file", full)
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json", background_io=background)
    with pytest.raises(RecordingError, match="No space left"):
        recorder.start("t", "openai", "m", 20)
    await recorder.finish(False, None)
    assert not journal_of(tmp_path / "t.json").exists(), "an empty journal is removed"


@both_sides
def test_unwritable_path(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recorder = make(tmp_path / "file" / "t.json")
    with pytest.raises(RecordingError, match=r"Not a directory|File exists"):
        recorder.start("t", "openai", "m", 20)


@each_writer
def test_signal_handler_may_flush(tmp_path: Path, background: bool) -> None:
    """At any interruption: no deadlock, and every record is written once."""
    code = """
flushes = 0
def handle(*_):
    global flushes
    flushes += 1
    recorder.flush()
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, handle)
handle()
steps(3000)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert flushes > 10
"""
    path = tmp_path / "t.json"
    done = child(code, path, background)
    assert (done.returncode, done.stderr) == (0, "")
    recover(journal_of(path), path)
    numbers = [step["step_number"] for step in read(path)["agent_steps"]]
    assert sorted(numbers) == list(range(3000))


def test_signal_handler_may_flush_before_the_writer_is_notified(tmp_path: Path) -> None:
    code = """
from collections import deque
class Interrupted(deque):
    def append(self, batch):
        super().append(batch)
        recorder.flush()
recorder._journal._queue = Interrupted()
steps(500)
"""
    done = child(code, tmp_path / "t.json", True)
    assert (done.returncode, done.stderr) == (0, "")


# ----------------------------------------------------------- two sessions with one path


def test_journal_of_a_killed_session_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.json"
    child("steps(4)\nos.kill(os.getpid(), 9)", path, False)
    left = journal_of(path).read_bytes()
    recorder = OptimizedTrajectoryRecorder(path)
    recorder.start("the next", "openai", "m", 20)
    assert recorder.journal_path == tmp_path / "t.1.jsonl"
    assert f"{journal_of(path)} is the journal of another session" in caplog.text
    recorder.finalize_recording(True)
    assert read(path)["task"] == "the next"
    assert journal_of(path).read_bytes() == left
    assert not recorder.journal_path.exists()


def test_concurrent_sessions_do_not_share_a_journal(tmp_path: Path) -> None:
    recorders = [OptimizedTrajectoryRecorder(tmp_path / "t.json") for _ in range(2)]
    for number, recorder in enumerate(recorders):
        recorder.start(str(number), "openai", "m", 20)
    for count, recorder in enumerate(recorders, 1):
        record_steps(recorder, count)
        recorder.finalize_recording(True)
        trajectory = read(tmp_path / "t.json")
        assert (trajectory["task"], len(trajectory["agent_steps"])) == (str(count - 1), count)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


# ------------------------------------------------------------------------------- recovery


@pytest.mark.parametrize("name", ["t.json", "out.traj", "plain"])
def test_recovered_trajectory_has_the_name_of_the_session(name: str, tmp_path: Path) -> None:
    recorder = OptimizedTrajectoryRecorder(tmp_path / name)
    recorder.start("t", "openai", "m", 20)
    recorder.cleanup()
    assert recover(recorder.journal_path) == tmp_path / name
    assert "file" not in read(tmp_path / name)
    moved = recorder.journal_path.rename(tmp_path / "moved.jsonl")
    assert recover(moved) == tmp_path / "moved.json"


def test_trajectory_does_not_replace_its_journal(tmp_path: Path) -> None:
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json")
    recorder.start("t", "openai", "m", 20)
    recorder.cleanup()
    journal = recorder.journal_path
    left = journal.read_bytes()
    with pytest.raises(RecordingError, match="is the journal; name another file"):
        recover(journal, tmp_path / "." / "t.jsonl")
    assert journal.read_bytes() == left


def test_file_that_is_not_a_journal(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        recover(tmp_path / "none.jsonl")
    (tmp_path / "t.jsonl").write_bytes(b'{"kind":"start","data":{oops}}\n')
    with pytest.raises(RecordingError, match="not a trajectory journal"):
        recover(tmp_path / "t.jsonl")
    assert sorted(os.listdir(tmp_path)) == ["t.jsonl"]  # noqa: PTH208


@pytest.mark.parametrize("output", [None, "t.json", "other.json"])
def test_trajectory_passed_as_journal_is_unchanged(output: str | None, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    recorder = OptimizedTrajectoryRecorder(path)
    recorder.start("precious", "openai", "m", 20)
    recorder.finalize_recording(True)
    with pytest.raises(RecordingError, match="journal"):
        recover(path, output and tmp_path / output)
    assert read(path)["task"] == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.json"]


def test_recovery_can_keep_the_newest_records(tmp_path: Path) -> None:
    recorder = OptimizedTrajectoryRecorder(tmp_path / "t.json")
    recorder.start("t", "openai", "m", 20)
    record_steps(recorder, 5)
    recorder.cleanup()
    recover(journal_of(tmp_path / "t.json"), max_interactions=2)
    trajectory = read(tmp_path / "t.json")
    assert [step["step_number"] for step in trajectory["agent_steps"]] == [4, 5]
    assert len(trajectory["llm_interactions"]) == 2
