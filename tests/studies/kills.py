"""Kill `trae-bench run` with SIGKILL at random moments: are samples lost, or processes left over?

    python -m tests.studies.kills [--times 50] [--seed 1]

A tiny run is started, killed and resumed until it is complete. Then the next run starts, until
the number of kills is reached. Some kills happen at a random time, others when the journal is
opened or grows, or when a trial is running. After each kill all processes of the run must end,
and all complete pairs of the journal must remain. Each finished run must contain exactly the
planned samples, each once, and pass `verify`.

Linux only: this process adopts the orphans of a killed run (PR_SET_CHILD_SUBREAPER) to count them.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from tests.trae_bench.cli.test_cli import children_of
from tests.trae_bench.fakes import TINY
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.stats.stopping import target
from trae_bench.storage.journal import read_journal
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify

ROOT = Path(__file__).resolve().parents[2]
MAX_DELAY = 2.5
"""Maximum seconds until a kill at a random time; a whole run takes about as long."""
EXIT_TIMEOUT = 10.0
"""Seconds for the child processes of a killed run to end."""
_PR_SET_CHILD_SUBREAPER = 36

Kind = str
IsDue = Callable[[Path, int], bool]
"""Whether to kill now, from the path of the journal and the process id of the run."""


def moments(rng: Random) -> Iterator[tuple[Kind, IsDue]]:
    """Endless; each kind comes in turn."""
    while True:
        yield "at a random time", _after(rng.uniform(0, MAX_DELAY))
        yield "when the journal is opened", _changed(1)
        yield "when the journal grows", _changed(rng.randint(2, 5))
        yield "during a trial", _trial_runs


def _after(seconds: float) -> IsDue:
    end = time.monotonic() + seconds
    return lambda journal, pid: time.monotonic() >= end


def _changed(times: int) -> IsDue:
    sizes: set[int | None] = set()

    def is_due(journal: Path, pid: int) -> bool:
        sizes.add(_size(journal))
        return len(sizes) > times

    return is_due


def _trial_runs(journal: Path, pid: int) -> bool:
    # Two children are the launcher and the provider.
    return len(children_of(pid)) > 2


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class KillStudy:
    """Sequential runs in one folder that are killed. Raises `AssertionError` on any violation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / "run.journal.jsonl"
        self._run_file = folder / "run.json"
        self._kept: tuple[Sample, ...] = ()
        """Samples of complete pairs in the journal."""
        self.kills: Counter[Kind] = Counter()
        self.before_journal = 0
        """Kills before the first line of the journal."""
        self.repeated = 0
        """Samples measured again because the kill separated the sides of a pair."""
        self.max_exit_seconds = 0.0
        """Longest time from a kill to the end of the last process."""
        self.finished = 0
        (folder / "tiny.toml").write_text(TINY)
        (folder / "tmp").mkdir()

    def run_and_kill(self, kind: Kind, is_due: IsDue) -> bool:
        """Start or resume a run and kill it when due. Return False if it finished first."""
        with self._start() as process:
            while process.poll() is None and not is_due(self._journal, process.pid):
                pass
            killed = process.poll() is None
            process.kill()
            _, stderr = process.communicate()
        if not killed:
            assert process.returncode == 0, stderr
            self._check_finished()
            return False
        before = time.monotonic()
        _await_adopted()
        self.max_exit_seconds = max(self.max_exit_seconds, time.monotonic() - before)
        self.kills[kind] += 1
        self._check_journal()
        return True

    def finish(self) -> None:
        """Resume an unfinished run without a kill."""
        if self._journal.exists():
            assert not self.run_and_kill("", lambda journal, pid: False)

    def _start(self) -> "subprocess.Popen[str]":
        new = ["tiny.toml", "--metric", "cpu", "--metric", "wall", "--pairs", "1"]
        arguments = ["--resume", "run.journal.jsonl"] if self._journal.exists() else new
        return subprocess.Popen(
            [sys.executable, "-m", "trae_bench", "run", *arguments, "--out", "run.json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self._folder / "tmp"),
                LOCK_VARIABLE: str(self._folder / "lock"),
            },
            text=True,
        )

    def _check_journal(self) -> None:
        if b"\n" not in (self._journal.read_bytes() if self._journal.exists() else b""):
            assert not self._kept
            self.before_journal += 1
            self._journal.unlink(missing_ok=True)
            return
        contents = read_journal(self._journal)
        assert contents.samples[: len(self._kept)] == self._kept, "a sample was lost"
        assert contents.dropped <= 1
        self.repeated += contents.dropped
        self._kept = contents.samples

    def _check_finished(self) -> None:
        run = read_run(self._run_file)
        assert run.stopped == "done"
        assert run.samples[: len(self._kept)] == self._kept, "a sample was lost"
        keys = [(s.contrast, s.mode, s.pair, s.side) for s in run.samples]
        assert len(set(keys)) == len(keys) == planned(run), "not the planned samples"
        errors = [str(finding) for finding in verify(run) if finding.severity == "wrong"]
        assert not errors, errors
        self.finished += 1
        self._kept = ()
        self._journal.unlink()
        self._run_file.unlink()


def planned(run: RunFile) -> int:
    """Return the planned number of samples, including the warm-up pair of each cell."""
    limits = run.header.limits
    metrics, cells = run.header.metrics, run.header.cells
    # Confirming cells have no pairs without a regression.
    return sum(2 * (1 + target(cell, limits, metrics)) for cell in cells if not cell.confirms)


def _adopt() -> None:
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _await_adopted() -> None:
    """Wait for all child processes to end. Raises `AssertionError` after `EXIT_TIMEOUT`."""
    end = time.monotonic() + EXIT_TIMEOUT
    while left := children_of(os.getpid()):
        assert time.monotonic() < end, f"still running: {[_command(pid) for pid in left]}"
        # Wait for any child, because orphans are adopted during the loop.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        time.sleep(0.001)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return f"process {pid}"


def study(times: int, seed: int, folder: Path, progress: Callable[[str], None]) -> KillStudy:
    """Kill runs in `folder` this many times."""
    _adopt()
    result = KillStudy(folder)
    for kind, is_due in moments(Random(seed)):
        if result.kills.total() >= times:
            break
        if result.run_and_kill(kind, is_due):
            progress(f"kill {result.kills.total()} {kind}")
    result.finish()
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill trae-bench with SIGKILL at random moments.")
    parser.add_argument("--times", type=int, default=50, help="number of kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        result = study(
            options.times, options.seed, Path(folder), lambda text: print(text, file=sys.stderr)
        )
    summary = {
        "kills": dict(result.kills),
        "before the journal began": result.before_journal,
        "finished runs": result.finished,
        "samples measured again": result.repeated,
        "samples lost": 0,
        "processes left": 0,
        "seconds until all were gone, at most": round(result.max_exit_seconds, 3),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
