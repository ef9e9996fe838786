"""Delay readings: parsing, checks, and the cgroups of this machine if it allows them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from trae_bench._util.cpu_affinity import duet_core
from trae_bench.execution import run_delay
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.execution.run_delay import (
    LEVELS,
    PressureGroups,
    cgroup_folder,
    full_microseconds,
    with_delays,
)
from trae_bench.model.sample import ProcessResult, RequestLog, SessionLog

MOUNTS = """\
24 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID = """\
31 23 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 23 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
SUBTREE = "30 23 0:26 /docker/ab /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mounts", "membership", "folder"),
    [
        (MOUNTS, "0::/user.slice/a.scope\n", "/sys/fs/cgroup/user.slice/a.scope"),
        (MOUNTS, "0::/\n", "/sys/fs/cgroup"),
        (HYBRID, "2:cpu:/x\n0::/y\n", "/sys/fs/cgroup/unified/y"),
        (SUBTREE, "0::/docker/ab/inner\n", "/sys/fs/cgroup/inner"),
        (SUBTREE, "0::/docker/abc\n", None),
        (MOUNTS, "2:cpu:/x\n", None),
        ("", "0::/\n", None),
    ],
)
def test_the_cgroup_of_this_process(mounts: str, membership: str, folder: str | None) -> None:
    assert cgroup_folder(mounts, membership) == (Path(folder) if folder else None)


def test_the_full_line_of_a_pressure_file() -> None:
    some = b"some avg10=0.00 avg60=0.00 avg300=0.00 total=99\n"
    assert full_microseconds(some + b"full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n") == 42
    assert full_microseconds(some) is None


def log_of(*pressure: tuple[int, int] | None) -> SessionLog:
    """A log whose readings at a request and at its reply are equal."""
    requests = (
        RequestLog(
            *(float(number), number + 0.5, 1, 2, 3, 200), pressure=reading, reply_pressure=reading
        )
        for number, reading in enumerate(pressure)
    )
    return SessionLog(tuple(requests), 1, b"")


def process(start: tuple[int, ...], end: tuple[int, ...]) -> ProcessResult:
    return ProcessResult(pressure_start=start, pressure_end=end)


def delays(log: SessionLog) -> list[float | None]:
    return [request.delay for request in log.requests]


def test_readings_are_relative_to_their_level() -> None:
    levels = process((0, 1_000_000, 5_000_000), (4_000_000, 5_000_000, 9_000_000))
    found = with_delays(log_of((1, 1_500_000), (2, 6_000_000), (1, 3_500_000)), levels)
    assert delays(found) == [0.5, 1.0, 2.5]


def test_the_delay_at_a_reply_has_a_reading_of_its_own() -> None:
    log = log_of((1, 1_000_000))
    (request,) = log.requests
    log = replace(log, requests=(replace(request, reply_pressure=(2, 1_250_000)),))
    (found,) = with_delays(log, process((0, 0, 0), (4_000_000,) * 3)).requests
    assert (found.delay, found.reply_delay) == (1.0, 1.25)


def test_delays_do_not_fall() -> None:
    levels = process((0, 0, 0), (4_000_000, 4_000_000, 4_000_000))
    assert delays(with_delays(log_of((1, 1_000_001), (2, 1_000_000)), levels)) == [1.000001] * 2


@pytest.mark.parametrize("lost", [100_000, 4_000_000])
def test_a_level_that_lost_time_makes_no_delays(lost: int) -> None:
    levels = process((0, 0, 0), (4_000_000, 4_000_000 - lost, 4_000_000))
    log = log_of((1, 1), (2, 2))
    assert with_delays(log, levels) == log


def test_no_delays_without_readings() -> None:
    log = log_of(None, None)
    assert with_delays(log, process((), ())) == log
    assert with_delays(log, process((0, 0), (10, 10))) == log
    assert process((0, 1), ()).tree_delay is None


@given(st.lists(st.integers(0, 10**9), max_size=20))
def test_delays_grow_with_the_readings(readings: list[int]) -> None:
    readings = sorted(readings)
    end = readings[-1] if readings else 0
    pressure = [(1 + number % 3, reading) for number, reading in enumerate(readings)]
    found = delays(with_delays(log_of(*pressure), process((0,) * 4, (end,) * 4)))
    assert found == [reading / 1e6 for reading in readings]


# -- on this machine


@pytest.fixture
def pressure() -> Iterator[PressureGroups]:
    with PressureGroups() as groups:
        if groups.problem is not None:
            pytest.skip(groups.problem)
        yield groups


def test_each_group_is_a_chain_of_levels(pressure: PressureGroups) -> None:
    first, second = pressure.groups
    assert len(first.levels) == LEVELS
    assert not set(first.pressure) & set(second.pressure)
    pressure.close()
    assert not Path(first.pressure[0]).exists()
    assert pressure.groups == ()


def test_groups_of_a_killed_run_are_removed(pressure: PressureGroups) -> None:
    home = run_delay.own_cgroup()
    assert home is not None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = home / f"trae-bench-{dead.pid}-1"
    (left / "0" / "level").mkdir(parents=True)
    with PressureGroups(count=1):
        assert not left.exists()
    assert Path(pressure.groups[0].procs).exists(), "the groups of a living run stay"


def test_folder_without_cgroup_is_a_problem(tmp_path: Path) -> None:
    with PressureGroups(home=tmp_path) as groups:
        assert groups.groups == ()
        assert groups.problem is not None
        assert str(tmp_path) in groups.problem
    assert list(tmp_path.iterdir()) == []


def test_no_groups_are_needed() -> None:
    with PressureGroups(count=0) as groups:
        assert groups.groups == ()
        assert groups.problem is None


COMPUTE = "import time\nwhile time.process_time() < 0.2: pass\n"
CHILDREN = """
import subprocess, sys
running = [subprocess.Popen([sys.executable, "-S", "-c", sys.argv[1]]) for _ in range(3)]
for child in running: child.wait()
"""


def run_jobs(tmp_path: Path, pressure: PressureGroups, *argv: str, count: int) -> list[float]:
    """Seconds of net wall time of each of `count` processes at once on one core."""
    core = duet_core()
    assert core is not None
    jobs = [
        Job(
            argv=(sys.executable, "-S", "-c", *argv),
            env={"PATH": os.environ["PATH"]},
            cwd=str(tmp_path),
            log=str(tmp_path / f"log-{slot}"),
            cores=(core,),
            group=pressure.groups[slot],
        )
        for slot in range(count)
    ]
    with closing(LauncherClient()) as launcher:
        ended = launcher.run(jobs, 60.0)
    assert [one.exit_status for one in ended] == [0] * count
    return [one.wall - (one.tree_delay or 0.0) - one.cpu for one in ended]


def test_waiting_for_the_other_side_is_subtracted(tmp_path: Path, pressure: PressureGroups) -> None:
    started = time.monotonic()
    rests = run_jobs(tmp_path, pressure, COMPUTE, count=2)
    assert time.monotonic() - started > 0.4
    # Neither side sleeps: nothing is left but what the CPU clock does not count.
    assert all(-0.02 < rest < 0.06 for rest in rests)


def test_waiting_for_a_sibling_is_not_subtracted(tmp_path: Path, pressure: PressureGroups) -> None:
    rests = run_jobs(tmp_path, pressure, CHILDREN, COMPUTE, count=2)
    assert all(-0.05 < rest < 0.12 for rest in rests)


def test_launcher_leaves_the_pressure_groups(tmp_path: Path, pressure: PressureGroups) -> None:
    run_jobs(tmp_path, pressure, "", count=2)
    assert all(Path(group.procs).read_text() == "" for group in pressure.groups)


def test_removed_group_gives_no_delay(tmp_path: Path, pressure: PressureGroups) -> None:
    pressure_groups = pressure.groups
    pressure.close()
    job = Job(
        argv=(sys.executable, "-S", "-c", ""),
        env={},
        cwd=str(tmp_path),
        log=str(tmp_path / "log"),
        group=pressure_groups[0],
    )
    with closing(LauncherClient()) as launcher:
        (ended,) = launcher.run([job], 60.0)
    assert ended.exit_status == 0
    assert ended.tree_delay is None
