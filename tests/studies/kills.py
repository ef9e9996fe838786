"""kill -9 of `trae-bench run` at random moments: is a sample lost, doubled, or a child left?

    python -m tests.studies.kills [--times 50] [--seed 1]

A tiny run is started, killed and gone on with until it is done, then the next one, until so
many kills have fallen. Some fall at a random time, some right where the journal is opened or
grows, or where a process of a trial is there. After each kill everything that the bench
had started must be gone, and what the journal held in whole pairs must stay to the end. Each
finished run must have exactly the samples that were planned, once, and stand before `verify`.

Linux only: this process adopts whatever a killed bench leaves (PR_SET_CHILD_SUBREAPER), so
that nothing escapes the count.
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
from trae_bench.execution.host_lock import PLACE_VARIABLE
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.stats.stopping import target
from trae_bench.storage.journal import read_journal
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 2.5
"""Seconds until a kill at a random time; a whole run takes about as long."""
PATIENCE = 10.0
"""Seconds that the processes below a killed bench get to be gone."""
_PR_SET_CHILD_SUBREAPER = 36

Kind = str
Due = Callable[[Path, int], bool]
"""Whether the moment is there; of the journal and the bench's process id."""


def moments(random: Random) -> Iterator[tuple[Kind, Due]]:
    """Endless; each kind comes in turn."""
    while True:
        yield "at a random time", _after(random.uniform(0, LONGEST))
        yield "where the journal is opened", _changed(1)
        yield "where the journal grows", _changed(random.randint(2, 5))
        yield "where a trial runs", _trial_runs


def _after(seconds: float) -> Due:
    end = time.monotonic() + seconds
    return lambda journal, bench: time.monotonic() >= end


def _changed(times: int) -> Due:
    seen: set[int | None] = set()

    def due(journal: Path, bench: int) -> bool:
        seen.add(_size(journal))
        return len(seen) > times

    return due


def _trial_runs(journal: Path, bench: int) -> bool:
    # The other two are the launcher and the provider.
    return len(children_of(bench)) > 2


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class Course:
    """Runs in a folder, one after the other, killed on the way; raises where one goes wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / "run.journal.jsonl"
        self._run_file = folder / "run.json"
        self._kept: tuple[Sample, ...] = ()
        """Samples that the journal holds in whole pairs."""
        self.kills: Counter[Kind] = Counter()
        self.not_begun = 0
        """Kills before the journal had its first line."""
        self.in_flight = 0
        """Samples that were measured again, for the kill fell between the sides of a pair."""
        self.slowest_end = 0.0
        """Seconds from a kill until the last process was gone."""
        self.finished = 0
        (folder / "tiny.toml").write_text(TINY)
        (folder / "tmp").mkdir()

    def until_killed(self, kind: Kind, due: Due) -> bool:
        """Begin or go on, and kill at that moment; False where the run was done before."""
        with self._bench() as process:
            while process.poll() is None and not due(self._journal, process.pid):
                pass
            killed = process.poll() is None
            process.kill()
            _, said = process.communicate()
        if not killed:
            assert process.returncode == 0, said
            self._check_finished()
            return False
        before = time.monotonic()
        _await_adopted()
        self.slowest_end = max(self.slowest_end, time.monotonic() - before)
        self.kills[kind] += 1
        self._check_journal()
        return True

    def to_the_end(self) -> None:
        """Go on without a kill, where a run was begun."""
        if self._journal.exists():
            assert not self.until_killed("", lambda journal, bench: False)

    def _bench(self) -> "subprocess.Popen[str]":
        new = ["tiny.toml", "--metric", "cpu", "--metric", "wall", "--pairs", "1"]
        asked = ["--resume", "run.journal.jsonl"] if self._journal.exists() else new
        return subprocess.Popen(
            [sys.executable, "-m", "trae_bench", "run", *asked, "--out", "run.json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(self._folder / "tmp"),
                PLACE_VARIABLE: str(self._folder / "lock"),
            },
            text=True,
        )

    def _check_journal(self) -> None:
        if b"\n" not in (self._journal.read_bytes() if self._journal.exists() else b""):
            assert not self._kept
            self.not_begun += 1
            self._journal.unlink(missing_ok=True)
            return
        contents = read_journal(self._journal)
        assert contents.samples[: len(self._kept)] == self._kept, "a sample was lost"
        assert contents.dropped <= 1
        self.in_flight += contents.dropped
        self._kept = contents.samples

    def _check_finished(self) -> None:
        run = read_run(self._run_file)
        assert run.stopped == "done"
        assert run.samples[: len(self._kept)] == self._kept, "a sample was lost"
        taken = [(s.contrast, s.mode, s.pair, s.side) for s in run.samples]
        assert len(set(taken)) == len(taken) == planned(run), "not the samples that were planned"
        wrong = [str(finding) for finding in verify(run) if finding.severity == "wrong"]
        assert not wrong, wrong
        self.finished += 1
        self._kept = ()
        self._journal.unlink()
        self._run_file.unlink()


def planned(run: RunFile) -> int:
    """Samples of the whole run: the warming pair of each cell, and those that count."""
    limits = run.header.limits
    metrics, cells = run.header.metrics, run.header.cells
    # There are no verdicts to be confirmed.
    return sum(2 * (1 + target(cell, limits, metrics)) for cell in cells if not cell.confirms)


def _adopt() -> None:
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _await_adopted() -> None:
    """Until every process below this one is gone. Raises `AssertionError` where one stays."""
    end = time.monotonic() + PATIENCE
    while left := children_of(os.getpid()):
        assert time.monotonic() < end, f"left behind: {[_command(pid) for pid in left]}"
        # Not a wait for any child in particular: whose parent has just died becomes ours.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        time.sleep(0.001)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return f"process {pid}"


def study(times: int, seed: int, folder: Path, say: Callable[[str], None]) -> Course:
    """So many kills."""
    _adopt()
    course = Course(folder)
    for kind, due in moments(Random(seed)):
        if course.kills.total() >= times:
            break
        if course.until_killed(kind, due):
            say(f"kill {course.kills.total()} {kind}")
    course.to_the_end()
    return course


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="kill -9 of the bench at random moments.")
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        course = study(
            asked.times, asked.seed, Path(folder), lambda said: print(said, file=sys.stderr)
        )
    found = {
        "kills": dict(course.kills),
        "before the journal began": course.not_begun,
        "finished runs": course.finished,
        "samples measured again": course.in_flight,
        "samples lost": 0,
        "processes left": 0,
        "seconds until all were gone, at most": round(course.slowest_end, 3),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
