"""Points of a history, and a repository with some commits."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.trae_bench.mutations import git
from trae_bench.model.history import Point

ANCHOR = "a" * 40


def commit_hash(number: int) -> str:
    return f"{number:040x}"


def point(commit: str, log_ratio: float = 0.0, **changes: Any) -> Point:
    fields: dict[str, Any] = {
        "anchor": ANCHOR,
        "scenario": "two-files",
        "metric": "cpu",
        "unit": "s",
        "better": "lower",
        "error": 0.005,
        "pairs": 8,
        "base": 0.1,
        "head": 0.1,
        "machine": "linux-ordinary-2-cores-cpython-3.11-0123456789ab",
        "agent": "tiny",
        "created": "2026-01-01T00:00:00+00:00",
        "seal": "ab" * 32,
    }
    return Point(commit=commit, log_ratio=log_ratio, **(fields | changes))


def stepped(
    commits: Sequence[str], place: int, size: float, *, noise: float = 0.005, **changes: Any
) -> list[Point]:
    """Points with noise and one change, at the commit number `place`."""
    random, changes = Random(1), {"error": noise, **changes}
    return [
        point(commit, random.gauss(0, noise) + (size if number >= place else 0.0), **changes)
        for number, commit in enumerate(commits)
    ]


def identify(folder: Path) -> None:
    """Tell git who writes notes."""
    git(folder, "config", "user.name", "nobody")
    git(folder, "config", "user.email", "nobody@example.org")


def commits_in(folder: Path, count: int) -> list[str]:
    """Make a repository with so many commits, and return their hashes, oldest first."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    identify(folder)
    for number in range(count):
        git(folder, "commit", "--quiet", "--allow-empty", f"--message=change {number}")
    return git(folder, "log", "--format=%H", "--reverse").split()
