"""The worker in real interpreters."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trae_bench.execution.worker import BEAT_SECONDS, Heartbeat
from trae_bench.model.sample import ChildReport

ROOT = Path(__file__).parents[3]

ENTRY = """
import sys
BEFORE = sorted(sys.modules)

class Outcome:
    def __init__(self, success, text, steps, error):
        self.success, self.final_text, self.steps, self.error = success, text, steps, error

class Pair:
    def __init__(self, *, left, right):
        self.text = f"{left}+{right}"

async def echo(text, where=None, pair=None):
    return Outcome(True, f"{text} {where!r} {pair and pair.text}", 3, None)

async def give_up(text):
    return Outcome(False, "", 1, "no model")

async def crash(text):
    raise RuntimeError("broken on purpose")

async def modules(text):
    return Outcome(True, " ".join(BEFORE), 1, None)

async def stall(text):
    import asyncio, time
    await asyncio.sleep(0.02)
    time.sleep(0.2)
    await asyncio.sleep(0.02)
    return Outcome(True, "", 1, None)

UNDER_WAY = []
MOST = 0

async def crowd(text, number):
    global MOST
    import asyncio
    UNDER_WAY.append(number)
    MOST = max(MOST, len(UNDER_WAY))
    await asyncio.sleep(0.01 * (4 - number))
    UNDER_WAY.remove(number)
    error = "no model" if number == 2 else None
    return Outcome(error is None, f"{text} {number}, most {MOST}", number, error)

LOADED = bytearray(8 << 20)

HELD = []

async def hoard(text):
    import asyncio
    for _ in range(10):
        HELD.append(bytearray(b"x" * (4 << 20)))
        await asyncio.sleep(0.03)
    del HELD[8:]
    return Outcome(True, "", 10, None)

async def clock(text):
    import time
    return Outcome(True, str(time.monotonic()), 1, None)

async def start_tool(text):
    import subprocess
    found = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, close_fds=False)
    return Outcome(True, found.stdout.decode(), 1, None)
"""


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": os.environ["PATH"]}


def run(tmp_path: Path, function: str, **work: Any) -> tuple[ChildReport | None, str, int]:
    """Return the worker's report, standard error and exit status."""
    (tmp_path / "entry.py").write_text(ENTRY)
    arguments = {"text": "hello"} | work.pop("arguments", {})
    read_end, write_end = os.pipe()
    given = {
        "entry": f"entry:{function}",
        "arguments": arguments,
        "types": {},
        "sessions": [{}],
        "concurrency": 1,
        "interval": 0.0,
        "report_fd": write_end,
        "heartbeat": False,
        "probe": "plain",
    }
    (tmp_path / "work.json").write_text(json.dumps(given | work))
    command = "from trae_bench.execution.worker import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", command, str(tmp_path / "work.json")],
        env=environment(tmp_path),
        pass_fds=(write_end,),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    report = msgspec.json.decode(said, type=ChildReport) if said else None
    return report, done.stderr, done.returncode


def reported(tmp_path: Path, function: str, **work: Any) -> ChildReport:
    report, errors, status = run(tmp_path, function, **work)
    assert status == 0, errors
    assert report is not None
    return report


def test_the_outcome_is_reported_with_the_counters(tmp_path: Path) -> None:
    report = reported(tmp_path, "echo")
    assert (report.success, report.final_text, report.steps) == (True, "hello None None", 3)
    assert report.error is None
    assert 50 < report.counters["modules_imported"] < 400
    assert 5_000_000 < report.counters["agent_rss"] < 100_000_000
    assert "event_loop_lag_max" not in report.counters


def test_arguments_are_converted_to_their_types(tmp_path: Path) -> None:
    arguments = {"where": "a/b", "pair": {"left": 1, "right": 2}}
    types = {"where": "pathlib:PurePosixPath", "pair": "entry:Pair"}
    report = reported(tmp_path, "echo", arguments=arguments, types=types)
    assert report.final_text == "hello PurePosixPath('a/b') 1+2"


def test_the_error_of_a_session_is_reported(tmp_path: Path) -> None:
    report = reported(tmp_path, "give_up")
    assert (report.success, report.error) == (False, "no model")


def test_a_crash_gives_a_traceback_and_no_report(tmp_path: Path) -> None:
    report, errors, status = run(tmp_path, "crash")
    assert report is None
    assert status == 1
    assert "broken on purpose" in errors


def test_hardly_anything_is_imported_before_the_agent(tmp_path: Path) -> None:
    """The worker imports only the package, itself and json, as imports are charged to the agent."""
    bare = subprocess.run(
        [sys.executable, "-P", "-c", "import json, sys; print(*sys.modules)"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    report = reported(tmp_path, "modules")
    added = set(report.final_text.split()) - set(bare)
    assert added == {
        "__future__",
        "entry",
        "trae_bench",
        "trae_bench.execution",
        "trae_bench.execution.worker",
    }


@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_several_sessions_are_reported_in_their_order(tmp_path: Path, concurrency: int) -> None:
    sessions = [{"number": 1}, {"number": 2}, {"number": 3}]
    report = reported(tmp_path, "crowd", sessions=sessions, concurrency=concurrency)
    texts = [each.final_text for each in report.sessions]
    assert [text.partition(",")[0] for text in texts] == ["hello 1", "hello 2", "hello 3"]
    assert max(int(text.rpartition(" ")[2]) for text in texts) == concurrency
    assert [each.success for each in report.sessions] == [True, False, True]
    assert (report.success, report.steps, report.error) == (False, 6, "no model")


def test_sessions_start_at_their_interval(tmp_path: Path) -> None:
    report = reported(tmp_path, "clock", sessions=[{}] * 4, concurrency=4, interval=0.05)
    times = [float(each.final_text) for each in report.sessions]
    assert all(later - earlier > 0.02 for earlier, later in pairwise(times))
    assert times[-1] - times[0] >= 0.14


def test_tools_do_not_inherit_the_report_pipe(tmp_path: Path) -> None:
    # 3 is the folder that `ls` reads. An inherited pipe would have a lower number.
    assert reported(tmp_path, "start_tool").final_text.split() == ["0", "1", "2", "3"]


def test_the_heartbeat_detects_a_stall(tmp_path: Path) -> None:
    counters = reported(tmp_path, "stall", heartbeat=True).counters
    assert counters["event_loop_lag_max"] > 0.15
    assert counters["event_loop_lag_p99"] <= counters["event_loop_lag_max"]


@pytest.mark.anyio
async def test_the_heartbeat_with_a_fake_clock() -> None:
    import asyncio

    now = 0.0
    heartbeat = Heartbeat(lambda: now)
    task = asyncio.create_task(heartbeat.beat())
    await asyncio.sleep(0)
    now += BEAT_SECONDS + 0.25
    await asyncio.sleep(3 * BEAT_SECONDS)
    # A delay that lasts beyond the session's end is included.
    now += BEAT_SECONDS + 0.75
    task.cancel()
    counters = heartbeat.counters()
    assert counters["event_loop_lag_max"] == pytest.approx(0.75)
    # Beats due during the stall of 0.75 s wait for decreasing times.
    assert 0.7 < counters["event_loop_lag_p99"] < 0.745
