"""The memory of planted trees of processes, whose peaks are known."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trae_bench.execution import tree_memory
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.execution.tree_memory import mapped_files, missed_peak, tree_bytes
from trae_bench.model.sample import ProcessResult

MIB = 1024 * 1024
PLANT = """
import os, sys, time
how, parent, child = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
block = b"x" * (parent << 20)
def start():
    text = f"b = b'x' * ({child} << 20); import time; time.sleep(0.4)"
    argv = [sys.executable, "-I", "-S", "-c", text]
    return os.posix_spawn(argv[0], argv, os.environ)
def fork():
    if pid := os.fork(): return pid
    time.sleep(0.4)
    os._exit(0)
if how == "together":
    for pid in [start() for _ in range(3)]: os.waitpid(pid, 0)
elif how == "in turn":
    for _ in range(3): os.waitpid(start(), 0)
elif how == "forked":
    for pid in [fork() for _ in range(3)]: os.waitpid(pid, 0)
elif how == "briefly":
    b"x" * (child << 20)
    time.sleep(0.1)
elif how == "shared":
    import mmap
    shared = mmap.mmap(-1, child << 20)
    for _ in range(child): shared.write(b"x" * (1 << 20))
    for pid in [fork() for _ in range(3)]: os.waitpid(pid, 0)
elif how == "file":
    with open("written", "wb") as file:
        for _ in range(100): file.write(block[: 1 << 20])
elif how == "left":
    argv = ["setsid", sys.executable, "-I", "-S", sys.argv[0], "together", "0", str(child)]
    if os.fork() == 0: os.execvp(argv[0], argv)
    time.sleep(1.5)
"""
pytestmark = pytest.mark.skipif(
    tree_memory.unavailable() is not None, reason=str(tree_memory.unavailable())
)


@pytest.fixture
def launcher() -> Iterator[LauncherClient]:
    client = LauncherClient()
    yield client
    client.close()


def job(tmp_path: Path, how: str, parent: int, child: int) -> Job:
    home = tmp_path / how
    home.mkdir(exist_ok=True)
    program = home / "plant.py"
    program.write_text(PLANT)
    argv = (sys.executable, "-I", "-S", str(program), how, str(parent), str(child))
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    return Job(argv=argv, env=environ, cwd=str(home), log=str(home / "log"))


def peak(result: ProcessResult) -> float:
    assert result.failure is None
    assert result.peak_tree is not None
    return result.peak_tree / MIB


@pytest.fixture
def interpreters(launcher: LauncherClient, tmp_path: Path) -> tuple[float, float]:
    """Return the MiB of one interpreter, and of four that share files."""
    jobs = (job(tmp_path, "in turn", 0, 0), job(tmp_path, "together", 0, 0))
    one, four = (peak(*launcher.run([each], 60.0, "memory")) for each in jobs)
    return one, four


@pytest.mark.parametrize(
    ("how", "planted"),
    [("together", 50 + 3 * 40), ("in turn", 50 + 40), ("forked", 50), ("shared", 50 + 40)],
)
def test_the_peak_is_what_was_planted(
    launcher: LauncherClient,
    tmp_path: Path,
    interpreters: tuple[float, float],
    how: str,
    planted: int,
) -> None:
    (result,) = launcher.run([job(tmp_path, how, 50, 40)], 60.0, "memory")
    low, high = interpreters
    assert planted + 0.5 * low < peak(result) < planted + high + 6


def test_a_short_peak_of_one_process_is_seen(launcher: LauncherClient, tmp_path: Path) -> None:
    (result,) = launcher.run([job(tmp_path, "briefly", 20, 100)], 60.0, "memory")
    assert 120 < peak(result) < 150


def test_processes_that_left_the_tree_belong_to_their_side(
    launcher: LauncherClient, tmp_path: Path
) -> None:
    jobs = [job(tmp_path, "left", 10, 40), job(tmp_path, "together", 30, 10)]
    left, other = launcher.run(jobs, 60.0, "memory")
    assert peak(left) > 10 + 3 * 40
    assert 30 + 3 * 10 < peak(other) < 100


def test_one_process_has_its_resident_memory(launcher: LauncherClient, tmp_path: Path) -> None:
    (result,) = launcher.run([job(tmp_path, "briefly", 60, 0)], 60.0, "memory")
    assert result.max_rss is not None
    assert abs(peak(result) - result.max_rss / MIB) < 2


# -- from texts to sizes


def test_a_file_that_two_processes_map_counts_once() -> None:
    file, other = ("08:01", "7"), ("08:01", "9")
    processes = [
        tree_memory._Process(10, {file: 5, other: 1}, 0),
        tree_memory._Process(20, {file: 8}, 3),
        tree_memory._Process(40, {}, 2),
    ]
    assert tree_bytes(processes) == 10 + 20 + 40 + 8 + 1 + 3
    assert tree_bytes([]) == 0


@pytest.mark.parametrize(
    ("mark", "before", "resident", "missed"),
    [
        (90, 50, (40, 40), 50),
        (90, 90, (40, 40), 0),
        # It releases its memory between the two readings of one sample.
        (90, 50, (90, 40), 0),
        (90, 50, (40, 90), 0),
        (90, 50, (89.5, 89.5), 0),
    ],
)
def test_a_peak_between_two_samples_is_told_by_the_high_water_mark(
    mark: int, before: int, resident: tuple[float, float], missed: int
) -> None:
    sizes = [int(size * MIB) for size in (mark, before, *resident)]
    assert missed_peak(*sizes) == missed * MIB


def test_only_the_resident_part_of_files_is_listed() -> None:
    def mapping(inode: int, name: str, resident: int, anonymous: int) -> str:
        return (
            f"7f00-7f10 r-xp 00000000 fe:00 {inode}      {name}\nSize: 99 kB\n"
            f"Rss:     {resident} kB\nPss:  1 kB\nAnonymous:    {anonymous} kB\nVmFlags: rd\n"
        )

    text = (
        mapping(0, "[heap]", 500, 500)
        + mapping(12, "/lib/a.so", 30, 0)
        + mapping(12, "/lib/a.so", 20, 8)
        + mapping(13, "/tmp/with a space (deleted)", 4, 4)
        + mapping(0, "", 100, 100)
    )
    expected = {("fe:00", "12"): 42 * 1024, ("fe:00", "13"): 0}
    assert mapped_files(text) == expected
