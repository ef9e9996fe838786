"""Processes that a trial starts and does not wait for, with the real launcher."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.trae_bench.execution.test_subprocess_executor import (
    MIB,
    Make,
    Script,
    make,
    run_one,
    trial,
)
from trae_bench.execution import run_delay
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.model.sample import ProcessResult

__all__ = ["make"]

SECONDS = 0.4
"""CPU time that the orphan burns."""
BURN = f"""
import os, pathlib, sys, time
data = bytearray(200 << 20)
data[::4096] = b"x" * len(data[::4096])
while time.process_time() < {SECONDS}: pass
new = pathlib.Path(sys.argv[1] + ".new")
new.write_text(str(os.getpid()))
new.rename(sys.argv[1])
if sys.argv[2] == "stay": time.sleep(1000)
"""
needs_proc = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux"
)
pytestmark = needs_proc


@pytest.fixture
def burn(tmp_path: Path) -> str:
    """Return a shell command that burns CPU and memory, and then stays or ends."""
    program = tmp_path / "burn.py"
    program.write_text(BURN)
    return f"{sys.executable} -I -S {program} {tmp_path / 'done'}"


def until_done(tmp_path: Path) -> str:
    return f"while [ ! -e {tmp_path / 'done'} ]; do sleep 0.1; done"


def until_dead(tmp_path: Path) -> str:
    status = f"/proc/$(cat {tmp_path / 'done'})/status"
    wait = f"while grep -q '^State:.[^Z]' {status}; do sleep 0.1; done"
    return f"{until_done(tmp_path)}; {wait}"


@pytest.fixture
def launcher() -> Iterator[LauncherClient]:
    client = LauncherClient()
    yield client
    client.close()


def job(tmp_path: Path, name: str, text: str) -> Job:
    home = tmp_path / name
    home.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return Job(argv=("sh", "-c", text), env=environ, cwd=str(home), log=str(home / "log"))


def ran(launcher: LauncherClient, jobs: Sequence[Job]) -> tuple[ProcessResult, ...]:
    results = launcher.run(jobs, 60.0)
    assert [result.failure for result in results] == [None] * len(jobs)
    return results


@pytest.mark.parametrize("end", ["stay", "end"])
@pytest.mark.parametrize(
    "start", ["{burn} &", "( {burn} & )", "setsid {burn} &", "( setsid sh -c '{burn} &' )"]
)
def test_an_orphan_is_counted(
    launcher: LauncherClient, tmp_path: Path, burn: str, start: str, end: str
) -> None:
    text = f"{start.format(burn=f'{burn} {end}')}\n{until_done(tmp_path)}"
    (result,) = ran(launcher, [job(tmp_path, "one", text)])
    assert result.cpu >= SECONDS
    assert result.max_rss is not None
    assert result.max_rss > 200 * MIB
    assert result.minor_faults > 200 * MIB / 65536
    assert result.unattributed == 0
    (next_one,) = ran(launcher, [job(tmp_path, "two", "true")])
    assert next_one.cpu < SECONDS, "it is counted once"


@pytest.mark.parametrize("start", ["( {burn} end & )", "( setsid {burn} stay & )"])
def test_an_orphan_is_counted_for_its_side(
    launcher: LauncherClient, tmp_path: Path, burn: str, start: str
) -> None:
    """By its session; a process that left it is found by its home folder."""
    burning = f"{start.format(burn=burn)}\n{until_done(tmp_path)}"
    idle = until_done(tmp_path)
    one, other = ran(launcher, [job(tmp_path, "one", idle), job(tmp_path, "two", burning)])
    assert other.cpu >= SECONDS > one.cpu
    assert (one.unattributed, other.unattributed) == (0, 0)


def test_a_cgroup_tells_the_side_of_a_dead_orphan(make: Make, tmp_path: Path, burn: str) -> None:
    if (problem := run_delay.unavailable()) is not None:
        pytest.skip(problem)
    text = f"[ {{side}} = A ] && ( setsid {burn} end & )\n{until_dead(tmp_path)}"
    executor = make(Script(text), duet_core=max(os.sched_getaffinity(0)))
    one, other = executor.run([trial("A", "duet"), trial("B", "duet")])
    assert one.metrics["cpu"] >= SECONDS > other.metrics["cpu"]
    assert one.metrics["peak_rss"] > 200 * MIB
    assert (one.correct, other.correct) == (True, True)


def test_an_orphan_of_an_unknown_side_is_named(make: Make, tmp_path: Path, burn: str) -> None:
    """A dead process outside the session has no environment, and there is no cgroup."""
    text = f"[ {{side}} = A ] && ( setsid {burn} end & )\n{until_dead(tmp_path)}"
    for sample in make(Script(text)).run([trial("A", "duet"), trial("B", "duet")]):
        assert (sample.status, sample.correct) == ("ok", False)
        assert "processes that outlived their trial used 0." in str(sample.problem)
        assert sample.metrics["cpu"] < SECONDS


def test_orphans_of_a_trial_that_times_out_are_counted(
    launcher: LauncherClient, tmp_path: Path, burn: str
) -> None:
    text = f"( setsid {burn} stay & )\nsleep 1000"
    (result,) = launcher.run([job(tmp_path, "one", text)], 4.0)
    assert result.timed_out
    assert result.cpu > 0.1


def test_a_trial_without_orphans_is_as_before(make: Make) -> None:
    sample = run_one(make(Script("true")))
    assert sample.correct
    assert sample.metrics["cpu"] < SECONDS
