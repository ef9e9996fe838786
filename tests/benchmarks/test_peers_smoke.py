"""The module of the speed goals works; nothing here is timed."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.harness import AGENT, FILE_TEXT, Load, Rig, check
from tests.benchmarks.peers import SINGLE, Goal, judge, main, measure, rows, table
from trae_bench.errors import CannotMeasure
from trae_bench.model.sample import RequestLog, SessionLog


@pytest.mark.slow
def test_every_subject_does_the_work() -> None:
    wanted = [row for row in rows([3], sessions=2, naps=2) if not row.load.think_seconds]
    values = measure(wanted, rounds=1)
    assert set(values) == {row.name for row in wanted}
    assert all(
        len(found) == 1 and found[0] > 0 for row in values.values() for found in row.values()
    )
    assert "ms/step, N=3" in table(values, judge(values))


def test_a_subject_that_fails_gives_no_figure(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig, pytest.raises(CannotMeasure, match="KeyError: 'path'"):
        rig.measure("httpx", Load(1, naps=1))  # floors have no shell


@pytest.mark.parametrize(
    ("asked", "said", "problem"),
    [
        (1, FILE_TEXT, "sent 1 requests and not 2"),
        (2, "something else", "did not send all results back"),
        (2, None, "did not send all results back"),
    ],
)
def test_a_session_without_its_work_gives_no_figure(
    asked: int, said: str | None, problem: str
) -> None:
    requests = (RequestLog(0.0, 0.0, 1, 0, 0, 200),) * asked
    messages = [] if said is None else [{"role": "tool", "content": said}]
    log = SessionLog(requests, 1, json.dumps({"messages": messages}).encode())
    with pytest.raises(CannotMeasure, match=problem):
        check("subject", log, Load(1))


def test_goals_are_judged_by_the_median_of_the_rounds_ratios() -> None:
    values = {"speed": {AGENT: [1.0, 9.0, 1.0], "httpx": [2.0, 2.0, 1.0]}}
    goals = [
        Goal("speed", 1.0, "httpx"),
        Goal("speed", 0.9, "httpx"),
        Goal("speed", 1.1, "httpx", at_least=True),
        Goal("speed", 0.5, 4.0),
        Goal("not measured", 1.0, "httpx"),
    ]
    judged = judge(values, goals)
    assert [each.met for each in judged] == [True, False, False, True]
    assert (judged[0].ratio, judged[0].low, judged[0].high) == (1.0, 0.5, 4.5)


def test_the_command_line_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--steps", "3", "--sessions", "0", "--naps", "0", "--repeats", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert set(report["values"]["ms/step, N=3"]) == set(SINGLE)
    assert report["machine"]["cores"] >= 1
