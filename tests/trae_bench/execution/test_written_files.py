"""Files that a trial creates or changes."""

import os
from pathlib import Path

import pytest

from tests.trae_bench.execution.test_subprocess_executor import Make, Script, make, run_one
from trae_bench.execution import process_events, tree_memory, written_files
from trae_bench.execution.written_files import stamps
from trae_bench.model.sample import WrittenFiles

__all__ = ["make"]


def written(folder: Path, before: written_files.Stamps | None) -> WrittenFiles | None:
    return written_files.written_files(before, stamps(folder))


def test_new_and_changed_files_count_with_their_whole_size(tmp_path: Path) -> None:
    for name in ("kept", "changed", "replaced", "removed"):
        (tmp_path / name).write_text("old text")
    (tmp_path / "folder").mkdir()
    before = stamps(tmp_path)
    assert written(tmp_path, before) == WrittenFiles(0, 0)
    with (tmp_path / "changed").open("a") as file:
        file.write(" and more")
    (tmp_path / "temporary").write_text("new text")
    os.utime(tmp_path / "temporary", ns=(0, (tmp_path / "replaced").stat().st_mtime_ns))
    (tmp_path / "temporary").replace(tmp_path / "replaced")
    (tmp_path / "removed").unlink()
    (tmp_path / "folder" / "new").write_text("123")
    (tmp_path / "folder" / "link").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "folder" / "pipe")
    sizes = 17 + 8 + 3 + len("/nowhere")
    assert written(tmp_path, before) == WrittenFiles(4, sizes)


def test_too_many_files_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_files, "MAX_FILES", 2)
    before = stamps(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).touch()
    assert written(tmp_path, before) == WrittenFiles(2, 0)
    (tmp_path / "c").touch()
    assert written(tmp_path, before) is None


def test_a_trial_has_the_files_of_its_workspace_and_its_home(make: Make) -> None:
    text = "echo 1234 > new; echo 123456789 > $HOME/.cache; mkdir $TMPDIR/x; echo noise"
    sample = run_one(make(Script(text)))
    assert sample.metrics["files_written"] == 2
    assert sample.metrics["files_written_size"] == 5 + 10


@pytest.mark.skipif(
    process_events.unavailable() is not None, reason=str(process_events.unavailable())
)
def test_a_trial_has_the_processes_that_it_started(make: Make) -> None:
    sample = run_one(make(Script("sleep 0; sleep 0; ( sleep 0 & )")))
    assert sample.metrics["processes_started"] == 4


@pytest.mark.skipif(tree_memory.unavailable() is not None, reason=str(tree_memory.unavailable()))
def test_only_a_trial_with_the_probe_has_the_memory_of_its_tree(make: Make) -> None:
    executor = make(Script("sleep 0.2; true"))
    plain, probed = run_one(executor), run_one(executor, probe="tree")
    assert "peak_tree" not in plain.metrics
    assert probed.metrics["peak_tree"] > 0
