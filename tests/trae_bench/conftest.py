"""Fixtures for tests that start runs."""

from pathlib import Path

import pytest

from tests.trae_bench.fakes import TINY
from trae_bench.execution.host_lock import LOCK_VARIABLE


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario in a temporary current folder, with a separate lock file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    return path
