"""Workspaces have reproducible files."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.execution.workspace import generated, lay_out, remove
from trae_bench.scenario import GeneratedFiles, WorkspaceFixture


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_listed_files_override_generated_files(tmp_path: Path) -> None:
    made = GeneratedFiles(files=3, bytes_low=10, bytes_high=20)
    files = {"src/file_2.py": "mine\r\n", "deep/er/x": "é"}
    lay_out(WorkspaceFixture(files=files, generate=made), tmp_path)
    found = tree(tmp_path)
    assert sorted(found) == ["deep/er/x", "src/file_1.py", "src/file_2.py", "src/file_3.py"]
    assert found["src/file_2.py"] == b"mine\r\n"
    assert found["deep/er/x"] == "é".encode()
    assert 10 <= len(found["src/file_1.py"]) <= 20


def test_generated_files_are_reproducible() -> None:
    texts = "".join(text for _, text in generated(GeneratedFiles(files=5, seed=7)))
    assert hashlib.sha256(texts.encode()).hexdigest().startswith(FIRST_DIGITS)


FIRST_DIGITS = "5e1d4a3994712035"


def test_the_seed_changes_files_and_adding_files_does_not() -> None:
    few = list(generated(GeneratedFiles(files=3)))
    assert list(generated(GeneratedFiles(files=9)))[:3] == few
    assert list(generated(GeneratedFiles(files=3, seed=2))) != few


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_sizes_are_within_their_bounds(one: int, other: int) -> None:
    low, high = sorted((one, other))
    wish = GeneratedFiles(files=4, bytes_low=low, bytes_high=high)
    sizes = [len(text.encode()) for _, text in generated(wish)]
    assert all(low <= size <= high for size in sizes)


def test_most_files_are_small() -> None:
    sizes = sorted(len(text) for _, text in generated(GeneratedFiles(files=200)))
    assert sizes[100] < 15_000 < 30_000 < sizes[-1]


@pytest.mark.parametrize("size", [0, 1, 500])
def test_generated_text_ends_with_a_newline(size: int) -> None:
    wish = GeneratedFiles(files=1, bytes_low=size, bytes_high=size)
    ((_, text),) = generated(wish)
    assert len(text) == size
    assert text[-1:] in ("", "\n")


# -- removal


def nest(root: Path, depth: int) -> None:
    """The path is too long to open, so each level needs a descriptor."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mkdir("locked", 0o000, dir_fd=here)
    os.close(here)


@pytest.mark.parametrize("depth", [1, 1500, 5000])
def test_deeply_nested_folders_are_removed(tmp_path: Path, depth: int) -> None:
    root = tmp_path / "0"
    root.mkdir()
    nest(root, depth)
    remove(root)
    assert not list(tmp_path.iterdir())
