"""pytest-benchmark times the making of a coroutine and says nothing; our settings do."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAPPED = """
import asyncio

async def work():
    await asyncio.sleep(0.001)

def test_trapped(benchmark):
    benchmark(work)
"""
QUIET = ("-W", "ignore::RuntimeWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning")


def _outcome(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_trapped.py"
    test.write_text(TRAPPED)
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder))
    argv = [sys.executable, "-m", "pytest", *settings, "-p", "no:cacheprovider", *options]
    return subprocess.run([*argv, str(test)], capture_output=True, text=True, cwd=folder)


def test_a_coroutine_that_nobody_awaits_fails_the_benchmark(tmp_path: Path) -> None:
    done = _outcome(tmp_path)
    assert done.returncode == 1
    assert "coroutine 'work' was never awaited" in done.stdout


def test_it_is_our_settings_that_catch_it(tmp_path: Path) -> None:
    assert _outcome(tmp_path, *QUIET).returncode == 0
