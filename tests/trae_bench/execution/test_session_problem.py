"""Trials whose session does not follow its script, with the real provider."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trae_bench.execution.test_subprocess_executor import Script as Shell
from tests.trae_bench.execution.test_subprocess_executor import scenario, trial
from trae_bench.execution.oracle import session_problem
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.sample import RequestLog, Sample, SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.scenario import Scenario, SubjectSetup, Turn

CLIENT = """
import sys, urllib.error, urllib.request
def ask(path, body):
    request = urllib.request.Request("{url}" + path, body.encode(), method="POST")
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
"""
NINE = tuple(Turn(text=f"{number}") for number in range(9))


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def play(
    provider: Loopback, tmp_path: Path, text: str, small: Scenario, *, timeout: float = 60.0
) -> Sample:
    def script(scenario: Scenario, workspace: Path) -> Script:
        return Script(expand(scenario, workspace).turns, scenario.provider, "foreign")

    agent = Shell(CLIENT + text, python=True)
    with SubprocessExecutor(
        agent, provider, {"small": small}, script=script, scratch=tmp_path, timeout=timeout
    ) as executor:
        (sample,) = executor.run([trial()])
    return sample


def test_a_session_that_follows_its_script_is_correct(provider: Loopback, tmp_path: Path) -> None:
    text = "for n in range(9): ask('/chat/completions', '{\"n\": %d}' % n)"
    sample = play(provider, tmp_path, text, scenario(turns=NINE))
    assert sample.correct, sample.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pass", "the agent sent no request"),
        (
            "for n in range(3): ask('/chat/completions', '{\"n\": %d}' % n)",
            "the agent ended after 3 of 9 turns",
        ),
        (
            "for n in range(9): ask('/chat/completions', '{\"n\": %d}' % n)\n"
            "for n in range(2): ask('/responses', '{}')",
            "the agent sent 2 requests that the script does not expect, the first: "
            "POST /v1/responses: 404",
        ),
        (
            "for n in range(10): ask('/chat/completions', '{\"n\": %d}' % n)",
            "the agent sent 1 request that the script does not expect, the first: "
            "POST /v1/chat/completions: 400",
        ),
    ],
)
def test_a_wrong_session_does_not_count(
    provider: Loopback, tmp_path: Path, text: str, problem: str
) -> None:
    sample = play(provider, tmp_path, text, scenario(turns=NINE))
    assert (sample.status, sample.correct, sample.exit_status) == ("ok", False, 0)
    assert sample.problem == problem


def test_a_wrong_first_run_does_not_count(provider: Loopback, tmp_path: Path) -> None:
    text = """
import os, pathlib
once = pathlib.Path(os.environ["HOME"], "once")
if once.exists():
    for n in range(9): ask('/chat/completions', '{"n": %d}' % n)
once.touch()
"""
    twice = scenario(turns=NINE, subject=SubjectSetup(runs=2))
    sample = play(provider, tmp_path, text, twice)
    assert sample.problem == "the agent sent no request"


def test_a_failed_process_names_the_session_too(provider: Loopback, tmp_path: Path) -> None:
    text = "ask('/chat/completions', '{}'); print('I stop here'); sys.exit(3)"
    sample = play(provider, tmp_path, text, scenario(turns=NINE))
    assert sample.status == "failed"
    assert str(sample.problem).startswith("exit status 3; the agent ended after 1 of 9 turns")
    assert "I stop here" in str(sample.problem)


def test_a_timeout_names_the_rejected_requests(provider: Loopback, tmp_path: Path) -> None:
    text = "while ask('/messages', '{}') == 404: pass"
    sample = play(provider, tmp_path, text, scenario(turns=NINE), timeout=4.0)
    assert sample.status == "timeout"
    assert "that the script does not expect, the first: POST /v1/messages: 404" in str(
        sample.problem
    )
    assert "the agent ended after 0 of 9 turns" in str(sample.problem)


def test_a_log_without_counts_is_not_judged() -> None:
    requests = (RequestLog(1.0, 1.5, 1, 2, 10, 200),)
    assert session_problem(SessionLog((), 0, b"")) is None
    assert session_problem(SessionLog(requests, 1, b"{}")) is None
    assert session_problem(SessionLog(requests, 1, b"{}", unexpected=1)) == (
        "the agent sent 1 request that the script does not expect"
    )
