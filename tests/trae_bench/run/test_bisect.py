"""The search for a first bad commit in a repository, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trae_bench.foreign import edit, foreign_repository
from tests.trae_bench.mutations import git
from tests.trae_bench.runs import gate
from trae_bench.cli import main
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.run.bisect import _answers, worse_rows
from trae_bench.stats.head_runs import CHECKS
from trae_bench.stats.pairs import RowKey
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import outcome

pytestmark = pytest.mark.slow

SLOW = "LOOPS = 2_000_000"


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make commits that change the agent. Returns their hashes, the good one first."""
    monkeypatch.setenv("TRAE_BENCH_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = foreign_repository(tmp_path / "project")
    monkeypatch.chdir(folder)

    def commits(*changes: tuple[str, str] | None) -> list[str]:
        for number, change in enumerate(changes):
            (folder / "agent.py").write_text((folder / "agent.py").read_text() + f"# {number}\n")
            if change is not None:
                edit(folder, *change)
            git(folder, "commit", "--all", "--quiet", f"--message=change {number}")
        return git(folder, "log", "--format=%H", "--reverse").split()

    return commits


def search(*args: str) -> int:
    return main(["bisect", *args, "--scenario", "two-files.toml", "-o", "../search", "--quiet"])


def test_the_first_slow_commit_is_found(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ("import json", "import jsn"), ("import jsn", "import json")
    commits = line(None, *broken, ("LOOPS = 0", SLOW), None, None)
    assert search(commits[0], "--metric", "cpu", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_bad"] == [commits[4]]
    assert found["commits"] == commits[1:]
    assert found["probability"] >= 0.99
    runs = list(Path("../search").glob("*.json"))
    assert len(runs) == len(found["steps"]) + 2
    assert all(not verify(read_run(path)) for path in runs)

    # The same search again measures nothing.
    before = {path: path.stat().st_mtime_ns for path in runs}
    assert search(commits[0], "--metric", "cpu") == 0
    said = capsys.readouterr().out
    assert f"First bad commit: {commits[4][:7]} change 3" in said
    assert "Against the commit before it: Regression: two-files cpu" in " ".join(said.split())
    assert {path: path.stat().st_mtime_ns for path in runs} == before


def test_a_commit_that_cannot_run_is_skipped(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    commits = line(("import json", "import jsn"), ("import jsn", "import json"), None)
    edit(Path(), "shell=True,", "shell=True, cwd='/tmp',")
    git(Path(), "commit", "--all", "--quiet", "--message=a wrong answer")
    commits = git(Path(), "log", "--format=%H", "--reverse").split()
    assert search(commits[0], "--metric", "cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"First bad commit: {commits[-1][:7]} a wrong answer" in said
    assert "Base and head give different answers" in said


def test_a_fault_next_to_a_broken_commit_leaves_two(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    commits = line(None, ("import json", "import jsn"), ("import jsn", "import json"))
    edit(Path(), "shell=True,", "shell=True, cwd='/tmp',")
    git(Path(), "commit", "--all", "--quiet", "--amend", "--message=repaired, and wrong")
    commits = git(Path(), "log", "--format=%H", "--reverse").split()
    assert search(commits[0], "--metric", "cpu") == 3
    said = capsys.readouterr().out
    assert "The first bad commit is one of 2" in said
    assert all(commit[:7] in said for commit in commits[2:])


def test_without_a_regression_there_is_nothing_to_find(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    commits = line(None, None)
    assert search(commits[0], "--metric", "requests") == 3
    assert "nothing to search for" in capsys.readouterr().out


def test_the_first_commit_of_one_needs_no_step(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    commits = line(("shell=True,", "shell=True, cwd='/tmp',"))
    assert search(commits[0], "--metric", "cpu") == 0
    assert [path.name for path in Path("../search").glob("*.json")] == ["gate.json"]
    assert "(the only one)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("good", "bad", "text"),
    [
        ("nope", "HEAD", "no commit 'nope'"),
        ("HEAD", "nope", "no commit 'nope'"),
        ("HEAD", "HEAD~1", "is no ancestor of"),
        ("HEAD", "HEAD", "changes the agent; name an earlier good commit"),
    ],
)
def test_wrong_commits_are_usage_errors(
    line: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    good: str,
    bad: str,
    text: str,
) -> None:
    line(None, None)
    assert search(good, bad) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_wrong_answers_of_checked_runs_are_searched_for() -> None:
    """A fault in one run of ten often shows in no pair."""
    run = gate(checked=30, lost={(CHECKS, 3): "differ"})
    values = _answers(run, RowKey("work", "head", "cpu"))
    assert values.count(1.0) == 2
    assert set(_answers(run, RowKey("work", NOISE_FLOOR, "cpu"))) == {0.0}


def clear(effect: float) -> list[str]:
    return [row.metric for row in worse_rows(gate(effect))]


def test_an_effect_below_the_gate_counts_if_it_is_clear() -> None:
    """A gate calls 1.5 % equivalent. The user of a search knows that head is worse."""
    assert outcome(gate(1.015)).kind == "pass"
    assert clear(1.015) == ["cpu"]
    assert clear(1.0) == clear(0.985) == []
    assert outcome(gate(1.08)).kind == "regression"
    assert "cpu" in clear(1.08)
