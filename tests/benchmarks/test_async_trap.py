"""The pytest settings detect a benchmark of a coroutine that is never awaited."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEST = """
import asyncio

async def work():
    await asyncio.sleep(0.001)

def test_coroutine(benchmark):
    benchmark(work)
"""
QUIET = ("-W", "ignore::RuntimeWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_coroutine.py"
    test.write_text(TEST)
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder))
    argv = [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", *options]
    return subprocess.run([*argv, str(test)], capture_output=True, text=True, cwd=folder)


def test_a_coroutine_that_is_not_awaited_fails_the_benchmark(tmp_path: Path) -> None:
    done = _run(tmp_path)
    assert done.returncode == 1
    assert "coroutine 'work' was never awaited" in done.stdout


def test_without_these_settings_it_passes(tmp_path: Path) -> None:
    assert _run(tmp_path, *QUIET).returncode == 0
