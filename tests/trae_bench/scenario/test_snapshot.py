"""Snapshots of a workspace, and the oracle that follows from two of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.errors import UsageError
from trae_bench.scenario.importers import snapshot
from trae_bench.scenario.importers.snapshot import (
    Snapshot,
    oracle_from,
    take_snapshot,
    workspace_notes,
)


def test_text_binary_secret_and_ignored_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("x")
    (tmp_path / "sub" / "a.txt").write_text("é\n")
    (tmp_path / "image").write_bytes(b"\xff")
    (tmp_path / "zero").write_bytes(b"a\0")
    (tmp_path / ".env.local").write_text("KEY=1")
    (tmp_path / "link").symlink_to("sub")
    found = take_snapshot(tmp_path)
    assert found.files == {"sub/a.txt": "é\n"}
    assert set(found.others) == {"image", "zero", "link"}
    assert found.secret == (".env.local",)
    notes = "\n".join(workspace_notes(found))
    assert "left out: image, link, zero" in notes
    assert "files with keys are left out: .env.local" in notes


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x" * 10)
    (tmp_path / "b").write_text("y" * 10)
    monkeypatch.setattr(snapshot, "MAX_TEXT_FILE", 9)
    assert set(take_snapshot(tmp_path).others) == {"a", "b"}
    monkeypatch.setattr(snapshot, "MAX_TEXT_FILE", 99)
    monkeypatch.setattr(snapshot, "MAX_FOLDER_BYTES", 15)
    with pytest.raises(UsageError, match="smaller folder"):
        take_snapshot(tmp_path)
    monkeypatch.setattr(snapshot, "MAX_FILES", 1)
    with pytest.raises(UsageError, match="more than 1 files"):
        take_snapshot(tmp_path)


def test_changes_become_an_oracle() -> None:
    before = Snapshot({"same": "s", "old": "o", "gone": "g"}, {"image": "1"})
    after = Snapshot(
        {"same": "s", "old": "n", "new": "n", "here": "in /w/x"}, {"image": "2"}, (".env",)
    )
    proposal = oracle_from(before, after, "/w/x")
    assert proposal.oracle.files == {"old": "n", "new": "n"}
    assert proposal.changed == 5
    assert proposal.notes == (
        "an [oracle] cannot check changed files that are not text: image",
        "an [oracle] cannot check that files are deleted: gone",
        "an [oracle] leaves out files with keys: .env",
        "an [oracle] cannot check files that contain the path of their folder: here",
    )


def test_a_file_that_contains_a_key_is_left_out() -> None:
    found = Snapshot({"a": "x", "b": "the-key-1"}).without(["the-key-1"])
    assert found == Snapshot({"a": "x"}, secret=("b",))


FILES = st.dictionaries(st.sampled_from("abcde"), st.text(max_size=3))


@given(FILES, FILES)
def test_the_oracle_holds_exactly_the_changes(old: dict[str, str], new: dict[str, str]) -> None:
    proposal = oracle_from(Snapshot(old), Snapshot(new))
    kept = {name: text for name, text in old.items() if name in new}
    assert kept | proposal.oracle.files == new
    assert not any(old.get(name) == text for name, text in proposal.oracle.files.items())
