"""Starts and ends of the processes of a trial, from the kernel."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.execution import process_events
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.execution.process_events import EXIT, FORK, Event, trees
from trae_bench.model.sample import Lifetime, ProcessResult

needs_events = pytest.mark.skipif(
    process_events.unavailable() is not None, reason=str(process_events.unavailable())
)


@pytest.fixture
def launcher() -> Iterator[LauncherClient]:
    client = LauncherClient()
    yield client
    client.close()


def job(tmp_path: Path, text: str, name: str = "home", cores: tuple[int, ...] = ()) -> Job:
    home = tmp_path / name
    home.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    argv = ("sh", "-c", text)
    return Job(argv=argv, env=environ, cwd=str(home), log=str(home / "log"), cores=cores)


def started(result: ProcessResult) -> tuple[Lifetime, ...]:
    assert result.failure is None
    assert result.started_processes is not None
    return result.started_processes


@needs_events
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("true", 0),
        ("exec sleep 0", 0),
        ("sleep 0; sleep 0", 2),
        ("(sleep 0; sleep 0; true); true", 3),
        ("( sleep 0 & ); true", 2),
        ("setsid sh -c 'sleep 0 & sleep 0'; true", 3),
        ("for n in $(seq 50); do sleep 0; done", 52),
    ],
)
def test_every_process_is_counted_once(
    launcher: LauncherClient, tmp_path: Path, text: str, count: int
) -> None:
    (result,) = launcher.run([job(tmp_path, text)], 60.0, "processes")
    if "seq" in text:
        # A shell may run the substitution in its own process or in one of its own.
        assert len(started(result)) in (count - 1, count)
    else:
        assert len(started(result)) == count


@needs_events
def test_the_times_are_those_of_the_launcher(launcher: LauncherClient, tmp_path: Path) -> None:
    (result,) = launcher.run([job(tmp_path, "sleep 0.1; true")], 60.0, "processes")
    (one,) = started(result)
    assert result.started <= one.started <= one.started + 0.1 <= one.ended <= result.ended


@needs_events
def test_each_side_of_a_duet_has_its_own_processes(
    launcher: LauncherClient, tmp_path: Path
) -> None:
    core = (max(os.sched_getaffinity(0)),)
    jobs = [
        job(tmp_path, "sleep 0; sleep 0; ( sleep 0.1 & ); sleep 0", "one", core),
        job(tmp_path, "sleep 0.05; true", "two", core),
    ]
    one, two = launcher.run(jobs, 60.0, "processes")
    assert (len(started(one)), len(started(two))) == (5, 1)


@needs_events
def test_a_run_does_not_see_the_one_before(launcher: LauncherClient, tmp_path: Path) -> None:
    for number, text in enumerate(("sleep 0; sleep 0", "sleep 0; true")):
        (result,) = launcher.run([job(tmp_path, text, str(number))], 60.0, "processes")
        assert len(started(result)) == 2 - number


@needs_events
def test_threads_are_no_processes(launcher: LauncherClient, tmp_path: Path) -> None:
    program = tmp_path / "threads.py"
    program.write_text(
        "import threading\n"
        "threads = [threading.Thread(target=print) for _ in range(20)]\n"
        "[one.start() for one in threads]\n"
        "[one.join() for one in threads]\n"
    )
    text = f"exec {sys.executable} -I -S {program}"
    (result,) = launcher.run([job(tmp_path, text)], 60.0, "processes")
    assert started(result) == ()


@needs_events
def test_a_full_buffer_gives_no_count(
    launcher: LauncherClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_events, "BUFFER_PAGES", 1)
    text = "for n in 1 2 3 4 5 6 7 8 9 0; do for m in 1 2 3 4 5 6 7 8 9 0; do sleep 0; done; done"
    core = (max(os.sched_getaffinity(0)),)
    (result,) = launcher.run([job(tmp_path, text, cores=core)], 60.0, "processes")
    assert result.failure is None
    assert result.started_processes is None


def test_jobs_that_are_not_watched_have_no_processes(
    launcher: LauncherClient, tmp_path: Path
) -> None:
    (result,) = launcher.run([job(tmp_path, "sleep 0; true")], 60.0)
    assert (result.started_processes, result.peak_tree) == (None, None)


def test_a_kernel_that_refuses_stops_nothing(
    launcher: LauncherClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_events, "_CALLS", {})
    monkeypatch.setattr(process_events, "unavailable", lambda: None)
    (result,) = launcher.run([job(tmp_path, "sleep 0; true")], 60.0, "processes")
    assert result.failure is None
    assert result.started_processes is None


# -- from events to trees


def test_a_reused_process_id_is_another_process() -> None:
    events = [
        Event(1.0, FORK, 10, 1),
        Event(2.0, FORK, 11, 10),
        Event(3.0, EXIT, 11, 10),
        Event(4.0, FORK, 11, 10),
        Event(5.0, FORK, 12, 11),
    ]
    lifetimes = (Lifetime(2.0, 3.0), Lifetime(4.0, math.inf), Lifetime(5.0, math.inf))
    assert trees(events, [10]) == {10: lifetimes}


def test_a_stranger_with_a_reused_process_id_does_not_belong_to_the_trial() -> None:
    events = [
        Event(1.0, FORK, 11, 10),
        Event(2.0, EXIT, 11, 10),
        Event(3.0, FORK, 11, 99),
        Event(4.0, FORK, 12, 11),
        Event(5.0, EXIT, 11, 99),
    ]
    assert trees(events, [10]) == {10: (Lifetime(1.0, 2.0),)}


def test_a_root_may_start_after_the_recording() -> None:
    events = [Event(1.0, FORK, 10, 1), Event(2.0, FORK, 11, 10), Event(3.0, EXIT, 11, 10)]
    assert trees(events, [10]) == {10: (Lifetime(2.0, 3.0),)}


def test_a_process_ends_with_its_last_thread() -> None:
    events = [
        Event(1.0, FORK, 11, 10),
        Event(1.5, FORK, 11, 11),
        Event(2.0, EXIT, 11, 10),
        Event(3.0, EXIT, 11, 10),
    ]
    assert trees(events, [10]) == {10: (Lifetime(1.0, 3.0),)}


@given(st.lists(st.integers(0, 10**6), max_size=60))
def test_every_process_belongs_to_the_root_of_its_parent(choices: list[int]) -> None:
    """Each new process gets a parent among the two roots, a stranger and earlier processes."""
    parents = {1: 1, 2: 2, 3: 3}
    events = []
    for number, choice in enumerate(choices):
        parent = list(parents)[choice % len(parents)]
        parents[100 + number] = parent
        events.append(Event(float(number), FORK, 100 + number, parent))

    def root(pid: int) -> int:
        return pid if parents[pid] == pid else root(parents[pid])

    found = trees(events, [1, 2])
    expected = {one: sum(root(event.pid) == one for event in events) for one in (1, 2)}
    assert {one: len(lifetimes) for one, lifetimes in found.items()} == expected
