"""What the bench itself spends on a trial, beside the same command started bare.

Processor time, not wall time: of this process and of the launcher, the command's own left out.
Held against "at most 10 ms a trial": the table says microseconds.
"""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.side_by_side import Meter
from tests.trae_bench.execution.test_subprocess_executor import (
    Script,
    SilentProvider,
    scenario,
    trial,
)
from trae_bench.execution.subprocess_executor import SubprocessExecutor

GROUP = "CPU of the bench for one `true`"
ROUNDS = 100
watched: list[int] = []
"""Process ids of launchers."""


def spent() -> float:
    """CPU seconds of this process and of the launchers, without what they started."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    launchers = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in watched)
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
        tasks = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        watched[:] = [int(pid) for pid in tasks if b"launcher.py" in _command(pid)]
        assert len(watched) == 1
        yield executor
        watched.clear()


def _command(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.benchmark(timer=spent)
def test_bare(meter: Meter) -> None:
    def bare() -> None:
        subprocess.run(["sh", "-c", "exec true"], check=True, stdin=subprocess.DEVNULL)

    meter.rounds(GROUP, "bare", ROUNDS, bare)


@pytest.mark.benchmark(timer=spent)
def test_trial(meter: Meter, executor: SubprocessExecutor[str]) -> None:
    """Folders, workspace, launcher, report, digests, sample."""

    def run() -> None:
        (sample,) = executor.run([trial()])
        assert sample.status == "ok"

    meter.rounds(GROUP, "as a trial", ROUNDS, run)
