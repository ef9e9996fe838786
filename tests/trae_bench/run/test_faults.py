"""Tests with real faults: kills, full disks, clock changes and concurrent runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.trae_bench.cli.test_cli import ROOT, bench_process, children_of, have_exited, lines_of
from tests.trae_bench.fakes import TINY
from trae_bench._util import host_facts
from trae_bench.cli import main
from trae_bench.run import runner
from trae_bench.storage.journal import read_journal
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TIMEOUT = 30.0
SMALL = ("run", "tiny.toml", "--metric", "cpu", "--seed", "1", "--out", "r.json")


# -- kills


@pytest.mark.slow
@LINUX
def test_kills_lose_no_sample_and_leave_no_process(tmp_path: Path) -> None:
    """Four kills here; `python -m tests.studies.kills` runs fifty."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.studies.kills", "--times", "4", "--seed", "3"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["kills"].values()) == 4
    assert found["finished runs"] >= 1


def test_empty_journal_error_has_a_remedy(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process was killed after it created the file and before the first line."""
    for started in ("", '{"header":{"created":"2026'):
        Path("r.journal.jsonl").write_text(started)
        assert main(["run", "--resume", "r.journal.jsonl"]) == 4
        assert "remove it and start again" in capsys.readouterr().err


# -- memory


def test_run_limits_the_memory_of_child_processes(tiny: Path) -> None:
    """The shell of the oracle starts like a trial and has the same limit."""
    limit = host_facts.process_memory_limit()
    assert limit is not None
    oracle = f"[oracle]\ncommand = 'test \"$(ulimit -d)\" = {limit // 1024}'\n"
    tiny.write_text(TINY.replace("[[turns]]\n[[", f"{oracle}[[turns]]\n[[", 1))
    assert main([*SMALL, "--pairs", "1"]) == 0
    assert all(sample.correct for sample in read_run(Path("r.json")).samples)


def test_memory_limit_is_half_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    monkeypatch.setattr(host_facts, "_memory", lambda: {"MemTotal": 8 * gib})
    monkeypatch.setattr(host_facts, "read_number", lambda path: None)
    assert host_facts.process_memory_limit() == 4 * gib
    monkeypatch.setattr(host_facts, "read_number", lambda path: 2 * gib)
    assert host_facts.process_memory_limit() == gib
    monkeypatch.setattr(host_facts, "_memory", lambda: {"MemTotal": gib // 2})
    assert host_facts.process_memory_limit() == host_facts.MIN_MEMORY
    monkeypatch.setattr(host_facts, "_memory", dict)
    monkeypatch.setattr(host_facts, "read_number", lambda path: None)
    assert host_facts.process_memory_limit() is None


# -- the wall clock


def test_wall_clock_jumps_do_not_affect_a_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock jumps by up to a day at each call."""
    random, day = Random(1), 86_400
    monkeypatch.setattr(time, "time", lambda: random.uniform(-day, day) + 1.8e9)
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    start = time.monotonic()
    assert main([*SMALL, "--pairs", "1"]) == 0
    run = read_run(Path("r.json"))
    assert 0 < run.elapsed <= time.monotonic() - start
    assert all(start <= sample.started <= time.monotonic() for sample in run.samples)
    assert not [str(finding) for finding in verify(run)]


def test_clock_set_back_before_a_resume_is_only_odd(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*SMALL, "--pairs", "1", "--budget", "0.001"]) in (0, 4)
    monkeypatch.setattr(runner, "now", lambda: "2026-01-01T11:00:00+00:00")
    journal = Path("r.journal.jsonl")
    head, *rest = journal.read_text().splitlines(keepends=True)
    changed = json.loads(head)
    changed["header"]["created"] = "2026-01-01T12:00:00+00:00"
    journal.write_text(json.dumps(changed) + "\n" + "".join(rest))
    Path("r.json").unlink()
    assert main(["run", "--resume", "r.journal.jsonl", "--budget", "60"]) == 0
    found = verify(read_run(Path("r.json")))
    assert [(finding.severity, finding.place) for finding in found] == [
        ("odd", "resumed[0].created")
    ]


# -- disks


def without_override(*command: str) -> list[str]:
    """Return the command without the right of root to write to any file."""
    drop = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"  # CAP_DAC_OVERRIDE
    return [sys.executable, "-c", f"{drop}; os.execv(sys.argv[1], sys.argv[1:])", *command]


@LINUX
@pytest.mark.parametrize(
    "options", [(), ("--out", "there/r.json"), ("--out", "there/old.json", "--force")]
)
def test_read_only_result_folder_is_an_early_error(tiny: Path, options: tuple[str, ...]) -> None:
    folder = tiny.parent
    (folder / "there").mkdir()
    (folder / "lock").touch()
    (folder / "there" / "old.journal.jsonl").touch()
    for place in (folder / "there", folder):
        place.chmod(0o555)
    try:
        command = [sys.executable, "-m", "trae_bench", "run", "tiny.toml", *options]
        done = subprocess.run(
            without_override(*command),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        folder.chmod(0o755)
    assert done.returncode == 4, done.stderr
    assert "Permission denied; name a file in a writable folder with --out" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def can_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def small_disk(place: Path, size: str, script: str) -> "Iterator[subprocess.CompletedProcess[str]]":
    """Run a shell script with a disk of that size mounted at `place`."""
    place.mkdir()
    mounted = f"mount -t tmpfs -o size={size} none {place} && {script}"
    yield subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted],
        env=os.environ | {"PYTHONPATH": str(ROOT), "BENCH": f"{sys.executable} -m trae_bench"},
        capture_output=True,
        text=True,
        timeout=90,
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="cannot mount a small disk")
def test_run_resumes_after_a_full_disk(
    tiny: Path,
) -> None:
    disk = tiny.parent / "disk"
    script = f"""
        $BENCH run tiny.toml --metric cpu --pairs 4 --out disk/r.json; echo "first $?"
        cp disk/r.journal.jsonl full.jsonl; ls disk
        mount -o remount,size=10m {disk}
        $BENCH run --resume disk/r.journal.jsonl >/dev/null; echo "second $?"
        cp disk/r.json r.json
    """
    with small_disk(disk, "20k", script) as done:
        assert "first 4" in done.stdout, done.stderr
        assert "No space left on device; free some space, or name a file" in done.stderr
        assert "Traceback" not in done.stderr
        assert "second 0" in done.stdout, done.stderr
    stored, run = read_journal(Path("full.jsonl")).samples, read_run(Path("r.json"))
    assert 0 < len(stored) < len(run.samples) == 2 * 2 * 5
    assert run.samples[: len(stored)] == stored


@pytest.mark.skipif(not can_mount(), reason="cannot mount a small disk")
def test_full_temporary_disk_error_has_a_remedy(tiny: Path) -> None:
    disk = tiny.parent / "disk"
    with small_disk(disk, "4k", f"TMPDIR={disk} $BENCH {' '.join(SMALL)}") as done:
        assert done.returncode == 4, done.stderr
    assert "No space left on device; free some space there" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "Traceback" not in done.stderr


# -- concurrent runs


@pytest.mark.slow
@LINUX
def test_second_run_waits_for_the_first(tiny: Path) -> None:
    options = ("run", "tiny.toml", "--metric", "cpu", "--pairs", "1", "--out")
    with bench_process(*options, "one.json") as first_run:
        while not lines_of(Path("one.journal.jsonl")):
            assert first_run.poll() is None
            time.sleep(0.01)
        with bench_process(*options, "two.json") as second_run:
            _, err = second_run.communicate(timeout=TIMEOUT)
        first_run.communicate(timeout=TIMEOUT)
    assert (first_run.returncode, second_run.returncode) == (0, 0), err
    assert f"another trae-bench (process {first_run.pid}) is measuring on this host; waiting" in err
    first, second = read_run(Path("one.json")).samples, read_run(Path("two.json")).samples
    ends = [sample.started + sample.metrics["wall"] for sample in first]
    assert max(ends) < min(sample.started for sample in second)


# -- idle processes


def context_switches(pid: int) -> int:
    """Count the context switches of all threads of a process."""
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if "ctxt_switches:" in line
    )


SLEEPS = """
text = "Sleep."
[[turns.calls]]
tool = "bash"
arguments = { command = "sleep 20" }
[[turns]]
"""


@LINUX
def test_harness_processes_sleep_during_a_trial(tiny: Path) -> None:
    """A process that polls every 10 ms would wake up a hundred times."""
    tiny.write_text(TINY.replace("[[turns]]\n", f"[[turns]]{SLEEPS}", 1))
    with bench_process(*SMALL, "--metric", "wall", "--pairs", "1") as bench:
        try:
            idle = wait_for_sleep(bench.pid)
            before = {pid: context_switches(pid) for pid in idle}
            time.sleep(1.0)
            woken = {pid: context_switches(pid) - count for pid, count in before.items()}
        finally:
            children = children_of(bench.pid)
            bench.send_signal(signal.SIGTERM)
            bench.communicate(timeout=TIMEOUT)
    assert len(idle) == 3
    assert max(woken.values()) <= 5, woken
    assert have_exited(children)


def wait_for_sleep(bench: int) -> list[int]:
    """Return trae-bench, launcher and provider once both trials sleep."""
    end = time.monotonic() + TIMEOUT
    while sum(command(pid) == "sleep 20" for pid in children_of(bench)) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    return [bench, *(pid for pid in children_of(bench) if parent(pid) == bench)]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# -- a long run


def long_run(samples: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.studies.ten_thousand", "--cells=20", f"--samples={samples}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert found["samples"] == samples
    return found


@LINUX
def test_memory_for_ten_thousand_samples() -> None:
    """The full study is `python -m tests.studies.ten_thousand`."""
    few, more = long_run(200), long_run(1000)
    per_sample = (more["peak_memory"] - few["peak_memory"]) / 800
    assert few["peak_memory"] + 9800 * per_sample < 150_000_000
    # One look per cell, then looks at all cells.
    assert more["looks"] <= 16
