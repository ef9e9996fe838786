"""Tests that scratch folders of killed runs are removed, and nothing else is."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.signals import needs
from tests.trae_bench.cli.test_cli import ROOT, bench_process, children_of, have_exited, lines_of
from trae_bench.run.scratch import LOCK, PREFIX, remove_stale_folders, scratch_folder

HOLD = """
import sys, time
from trae_bench.run.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "0").mkdir()
    (folder / "0" / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for temporary files, also for child processes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def stale(parent: Path, name: str = "old") -> Path:
    """A folder as a killed run leaves it."""
    folder = parent / f"{PREFIX}{name}"
    folder.mkdir(0o700)
    folder.chmod(0o700)
    (folder / LOCK).touch(0o600)
    (folder / "0").mkdir()
    (folder / "0" / "file").write_text("x")
    return folder


def test_a_folder_is_private_and_removed_at_the_end(temporary: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path.name for path in folder.iterdir()] == [LOCK]
        assert remove_stale_folders(temporary) == []
    assert list(temporary.iterdir()) == []


def test_only_a_killed_process_loses_its_folder(temporary: Path) -> None:
    needs(signal.SIGKILL)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert remove_stale_folders(temporary) == []
        assert (folder / "0" / "file").exists()
        process.kill()
    assert folder.exists()
    with scratch_folder() as new:
        assert list(temporary.iterdir()) == [new]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_next_run_removes_the_folder_of_a_killed_one(tiny: Path, temporary: Path) -> None:
    needs(signal.SIGKILL)
    asked = ("run", "tiny.toml", "--metric", "wall", "--pairs", "1")
    with bench_process(*asked, "--out", "r.json") as process:
        while lines_of(Path("r.journal.jsonl")) < 2 and process.poll() is None:
            time.sleep(0.02)
        below = children_of(process.pid)
        process.kill()
        process.communicate(timeout=60)
    assert have_exited(below)
    (left,) = temporary.glob(f"{PREFIX}*")
    with bench_process(*asked, "--out", "s.json") as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not left.exists()
    assert list(temporary.glob(f"{PREFIX}*")) == []


def test_links_are_not_followed(temporary: Path, tmp_path: Path) -> None:
    kept = stale(tmp_path, "elsewhere")
    (temporary / f"{PREFIX}link").symlink_to(kept)
    old = stale(temporary)
    (old / "file").symlink_to(kept / "0" / "file")
    (old / "folder").symlink_to(kept)
    (old / "0" / "folder").symlink_to(kept)
    assert remove_stale_folders(temporary) == [old]
    assert (kept / "0" / "file").read_text() == "x"
    assert (temporary / f"{PREFIX}link").is_symlink()


def test_a_link_as_the_lock_is_not_followed(temporary: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    old = stale(temporary)
    for link in (Path.symlink_to, Path.hardlink_to):
        (old / LOCK).unlink()
        link(old / LOCK, target)
        assert remove_stale_folders(temporary) == []
    assert (old / "0" / "file").exists()


def test_folders_of_others_and_of_unknown_origin_stay(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = stale(temporary, "open")
    open_to_all.chmod(0o755)
    without_lock = stale(temporary, "new")
    (without_lock / LOCK).unlink()
    pipe = stale(temporary, "pipe")
    (pipe / LOCK).unlink()
    os.mkfifo(pipe / LOCK)
    other_name = stale(temporary).rename(temporary / "trae-other")
    (temporary / f"{PREFIX}file").touch()
    before = sorted(temporary.rglob("*"))
    assert remove_stale_folders(temporary) == []
    foreign = stale(temporary, "foreign")
    owner = os.geteuid()
    with monkeypatch.context() as changed:
        changed.setattr(os, "geteuid", lambda: owner + 1)
        assert remove_stale_folders(temporary) == []
    assert remove_stale_folders(temporary) == [foreign]
    assert sorted(temporary.rglob("*")) == before
    assert other_name.exists()


def test_an_interrupted_removal_can_be_continued(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stale(temporary)

    def fail(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as changed:
        changed.setattr("shutil.rmtree", fail)
        assert remove_stale_folders(temporary) == []
    assert (old / LOCK).exists()
    assert remove_stale_folders(temporary) == [old]


def test_a_locked_folder_stays(temporary: Path) -> None:
    old = stale(temporary)
    with (old / LOCK).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_stale_folders(temporary) == []
    assert remove_stale_folders(temporary) == [old]
