"""The commands of the history in a real repository; changes are confirmed by real runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trae_bench.foreign import edit, foreign_repository
from tests.trae_bench.mutations import git
from tests.trae_bench.points import identify, point, stepped
from trae_bench.cli import main
from trae_bench.storage.history import add, stored
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify
from trae_bench.subject.revisions import Repository

pytestmark = pytest.mark.slow

COUNT, SLOW = 16, 10
"""Commits, and the number of the slow one."""
Project = Callable[..., list[str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("TRAE_BENCH_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = foreign_repository(tmp_path / "project")
    identify(folder)
    monkeypatch.chdir(folder)

    def commits(
        *, slow: bool = True, size: float = 0.2, noise: float = 0.005, gaps: tuple[int, ...] = ()
    ) -> list[str]:
        """Make commits, of which one is slower if `slow`; their points always say so."""
        for number in range(1, COUNT):
            (folder / "agent.py").write_text((folder / "agent.py").read_text() + f"# {number}\n")
            if slow and number == SLOW:
                edit(folder, "LOOPS = 0", "LOOPS = 2_000_000")
            git(folder, "commit", "--all", "--quiet", f"--message=change {number}")
        line = git(folder, "log", "--format=%H", "--reverse").split()
        points = stepped(line, SLOW, size, noise=noise, anchor=line[0])
        kept = [one for number, one in enumerate(points) if number not in gaps]
        add(Repository.around(folder), kept)
        return line

    return commits


def check(*args: str) -> int:
    return main(["history", "check", *args, "-o", "../checks", "--quiet"])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_slow_commit_is_confirmed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    commits = project(gaps=(SLOW - 1,))
    assert check("--scenario", "two-files.toml") == 1
    text = said(capsys)
    assert f"after {commits[SLOW - 2][:7]}, at the latest in {commits[SLOW][:7]}" in text
    assert f"most likely {commits[SLOW][:7]} change {SLOW}" in text
    assert "Confirmed: +" in text
    # One commit between them has no point.
    assert (
        f"One of 2 commits: trae-bench bisect {commits[SLOW - 2][:7]} {commits[SLOW][:7]} "
        "--scenario two-files.toml --metric cpu" in text
    )
    (path,) = Path("../checks").glob("*.json")
    run = read_run(path)
    assert not verify(run)
    assert run.header.revisions is not None
    assert run.header.revisions.base.commit == commits[SLOW - 2]
    assert run.header.revisions.head.commit == commits[SLOW]

    # The same check again measures nothing.
    before = path.stat().st_mtime_ns
    assert check("--scenario", "two-files.toml", "--json") == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["status"], change["shift"]["kind"]) == ("confirmed", "regression")
    assert path.stat().st_mtime_ns == before

    # The confirming run is a point, too, of another anchor.
    assert main(["history", "add", str(path)]) == 0
    assert len(stored(Repository.around(Path()))) == COUNT
    assert main(["history", "show", "--anchor", commits[SLOW - 2]]) == 0
    assert "1 commit, lower is better" in said(capsys)


def test_a_change_that_does_not_show_again_is_no_regression(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(slow=False)
    assert check("--scenario", "two-files.toml") == 0
    assert "Not confirmed: " in said(capsys)


def test_results_are_kept_out_of_the_repository(project: Project) -> None:
    project()
    assert main(["history", "check", "--scenario", "two-files.toml", "--quiet"]) == 1
    assert list(Path("trae-bench-results/history").glob("*.json"))
    assert not git(Path(), "status", "--porcelain")


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        ({"scenario": "../two-files.toml"}, "no scenario '../two-files.toml'"),
        ({"agent": "touch planted {base_url} {task}"}, "the project has no agent 'touch planted"),
        ({"agent": "./tiny.toml"}, "the project has no agent './tiny.toml'"),
    ],
)
def test_a_name_in_a_note_is_never_opened_or_run(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    planted: dict[str, str],
    problem: str,
) -> None:
    commits = project()
    points = stepped(commits, SLOW, 0.3, anchor=commits[1], **planted)
    add(Repository.around(Path()), points)
    # Without --scenario, the ordinary series has no scenario either.
    assert check() == 3
    assert f"Not measured: {problem}" in said(capsys)
    assert not Path("../checks").exists()
    assert not Path("planted").exists()


def test_changes_are_listed_without_measuring(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = project()
    assert check("--no-confirm") == 3
    assert "Regression: two-files cpu +2" in said(capsys)
    assert check("--no-confirm", "--since", commits[SLOW]) == 0
    assert "1 series searched: no change." in said(capsys)
    assert not Path("../checks").exists()


def test_an_improvement_and_a_small_change_pass(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(size=-0.2)
    assert check("--no-confirm") == 0
    assert "Improvement: two-files cpu -1" in said(capsys)


def test_a_small_change_is_not_measured(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(size=0.015, noise=0.002)
    assert check("--scenario", "two-files.toml") == 0
    assert "Small change: two-files cpu +1" in said(capsys)
    assert not Path("../checks").exists()


def test_show_lists_the_commits_of_a_series(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = project()
    assert main(["history", "show"]) == 0
    text = said(capsys)
    assert f"two-files cpu, tiny against {commits[0][:7]}: 16 commits, lower is better" in text
    assert all(f"{commit[:7]} 2026-01-01" in text for commit in commits)
    assert "change 15" in text
    assert "Regression: " in text

    add(Repository.around(Path()), [point(commits[3], scenario="other", anchor=commits[0])])
    assert main(["history", "show"]) == 0
    assert f"other cpu tiny {commits[0][:7]} 1 +0.00 % ±0.5 {commits[3][:7]}" in said(capsys)
    assert main(["history", "show", "--json", "--scenario", "other"]) == 0
    (series,) = json.loads(capsys.readouterr().out)["series"]
    assert series["key"] == ["other", "cpu", "tiny", commits[0]]


def test_commits_off_the_branch_are_counted(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = project()
    assert main(["history", "show", "--branch", "HEAD~3"]) == 0
    text = said(capsys)
    assert "13 commits, and 3 that are not on this branch" in text
    assert commits[-1][:7] not in text


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--scenario", "two-file"], "no point of scenario 'two-file'; did you mean two-files?"),
        (["--metric", "wall"], "no point of metric 'wall'"),
        (["--anchor", "nope"], "no commit 'nope'"),
        (["--branch", "nope"], "no commit 'nope'"),
        (["--anchor", "HEAD"], "no point of anchor"),
        (["--agent", "nobody"], "no agent 'nobody'"),
        (["--since", "nope"], "no commit 'nope'"),
        (["--since", "HEAD", "--branch", "HEAD~1"], "--since HEAD: this commit is not on"),
    ],
)
def test_wrong_options_are_usage_errors(
    project: Project, capsys: pytest.CaptureFixture[str], args: list[str], problem: str
) -> None:
    project()
    assert check(*args, "--no-confirm") == 2
    assert problem in " ".join(capsys.readouterr().err.split())


def test_a_short_history_is_named(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project()
    assert check("--no-confirm", "--branch", "HEAD") == 3
    assert "can show no change" not in said(capsys)
    assert check("--no-confirm", "--branch", "HEAD~10") == 0
    assert "searched: no change. 1 of them can show no change: fewer than 10" in said(capsys)


def test_an_empty_history_says_what_to_do(
    project: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["history", "show"]) == 0
    assert check() == 0
    assert main(["history", "plot", "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.count("trae-bench history add RUN.json") == 3
    assert "No points." in (tmp_path / "page.html").read_text("utf-8")
    assert main(["history", "plot", "-o", str(tmp_path / "page.svg")]) == 2


def test_a_run_against_the_anchor_is_added(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = project(gaps=tuple(range(COUNT)))
    command = ["run", "two-files.toml", "--compare", commits[SLOW - 1], "--metric", "cpu"]
    assert main([*command, "--out", "../run.json", "--quiet"]) == 1
    for expected in ("Added 1 of 1 point.\n", "Added 0 of 1 point; the rest was there already"):
        assert main(["history", "add", "../run.json"]) == 0
        assert expected in capsys.readouterr().out
    (one,) = stored(Repository.around(Path()))
    assert (one.commit, one.anchor, one.agent) == (commits[-1], commits[SLOW - 1], "tiny")
    assert one.log_ratio > 0.05
    assert 0 < one.error < one.log_ratio
