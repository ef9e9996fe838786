"""The performance goals can be measured. These tests do not check times."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.harness import AGENT, FILE_TEXT, Rig, Workload, check
from tests.benchmarks.peers import SINGLE, Goal, judge, main, measure, rows, table
from trae_bench.errors import CannotMeasure
from trae_bench.model.sample import RequestLog, SessionLog


@pytest.mark.slow
def test_every_subject_completes_the_workload() -> None:
    wanted = [row for row in rows([3], sessions=2, sleeps=2) if not row.workload.think_seconds]
    values = measure(wanted, rounds=1)
    assert set(values) == {row.name for row in wanted}
    assert all(
        len(figures) == 1 and figures[0] > 0 for row in values.values() for figures in row.values()
    )
    assert "ms/step, N=3" in table(values, judge(values))


def test_many_sessions_are_short() -> None:
    """Their cost grows with the square of the steps, and their goals are for short sessions."""
    wanted = list(rows([50, 200], sessions=100, sleeps=5))
    assert {row.workload.steps for row in wanted if row.workload.sessions > 1} == {10}
    assert {row.workload.steps for row in wanted if row.workload.sleeps} == {10}
    assert {row.workload.steps for row in rows([3], sessions=2)} == {3}


def test_a_failing_subject_raises(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, pytest.raises(CannotMeasure, match="KeyError: 'path'"):
        rig.measure("httpx", Workload(1, sleeps=1))  # floors have no shell


@pytest.mark.parametrize(
    ("count", "result", "problem"),
    [
        (1, FILE_TEXT, "sent 1 requests instead of 2"),
        (2, "something else", "did not send all tool results"),
        (2, None, "did not send all tool results"),
    ],
)
def test_an_incomplete_session_raises(count: int, result: str | None, problem: str) -> None:
    requests = (RequestLog(0.0, 0.0, 1, 0, 0, 200),) * count
    messages = [] if result is None else [{"role": "tool", "content": result}]
    log = SessionLog(requests, 1, json.dumps({"messages": messages}).encode())
    with pytest.raises(CannotMeasure, match=problem):
        check("subject", log, Workload(1))


def test_goals_are_judged_by_the_median_ratio_of_the_rounds() -> None:
    values = {"speed": {AGENT: [1.0, 9.0, 1.0], "httpx": [2.0, 2.0, 1.0]}}
    goals = [
        Goal("speed", 1.0, "httpx"),
        Goal("speed", 0.9, "httpx"),
        Goal("speed", 1.1, "httpx", at_least=True),
        Goal("speed", 0.5, 4.0),
        Goal("not measured", 1.0, "httpx"),
    ]
    results = judge(values, goals)
    assert [result.met for result in results] == [True, False, False, True]
    assert (results[0].ratio, results[0].low, results[0].high) == (1.0, 0.5, 4.5)


def test_json_output(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--steps", "3", "--sessions", "0", "--sleeps", "0", "--repeats", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert set(report["values"]["ms/step, N=3"]) == set(SINGLE)
    assert report["machine"]["cores"] >= 1
