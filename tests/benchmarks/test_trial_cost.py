"""CPU time that trae-bench needs for a trial, compared with starting the same command directly.

The time includes this process and the launcher, but not the command. The goal is at most 10 ms per
trial; the table is in microseconds.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.side_by_side import Comparison
from tests.trae_bench.execution.test_subprocess_executor import (
    Script,
    SilentProvider,
    scenario,
    trial,
)
from trae_bench.execution.subprocess_executor import SubprocessExecutor

GROUP = "CPU of trae-bench for one `true`"
ROUNDS = 100
launcher_pids: list[int] = []


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the launchers, without their children."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    launchers = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in launcher_pids)
    return own.ru_utime + own.ru_stime + sum(map(int, launchers)) / 1e9


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[SubprocessExecutor[str]]:
    with SubprocessExecutor(
        Script("exec true"),
        SilentProvider(),
        {"small": scenario()},
        script=lambda scenario, workspace: "",
        scratch=tmp_path,
    ) as executor:
        executor.run([trial()])
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        launcher_pids[:] = [int(pid) for pid in children if b"launcher.py" in _command(pid)]
        assert len(launcher_pids) == 1
        yield executor
        launcher_pids.clear()


def _command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.benchmark(timer=cpu_seconds)
def test_bare(comparison: Comparison) -> None:
    def bare() -> None:
        subprocess.run(["sh", "-c", "exec true"], check=True, stdin=subprocess.DEVNULL)

    comparison.measure_rounds(GROUP, "bare", ROUNDS, bare)


@pytest.mark.benchmark(timer=cpu_seconds)
def test_trial(comparison: Comparison, executor: SubprocessExecutor[str]) -> None:
    """Includes folders, workspace, launcher, report, digests and the sample."""

    def run() -> None:
        (sample,) = executor.run([trial()])
        assert sample.status == "ok"

    comparison.measure_rounds(GROUP, "as a trial", ROUNDS, run)
