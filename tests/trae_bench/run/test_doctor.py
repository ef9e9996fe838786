"""Tests of `trae-bench doctor`: its session, its noise and its advice."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.trae_bench.cli.test_cli import ScriptedBench
from tests.trae_bench.fakes import figures
from tests.trae_bench.run.test_scheduler import RecordingListener
from trae_bench.execution import process_events, run_delay
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Trial
from trae_bench.model.result import NoiseEstimate, Reliability
from trae_bench.report.text.terminal import noise_table, standing_lines
from trae_bench.run.doctor import advice, checkup, noise, tiny
from trae_bench.run.runner import Bench
from trae_bench.scenario import check
from trae_bench.subject.agent_core import toggles, tools


def noise_estimate(metric: str, sd: float, standing: Reliability = "gated") -> NoiseEstimate:
    return NoiseEstimate(
        "noise", metric, 8, sd, 0.001, 0.02 if standing == "gated" else 0.25, standing
    )


def test_tiny_session_is_a_valid_scenario() -> None:
    check(tiny(), tools=tools(), toggles=toggles(), metrics=METRICS, source=Path("doctor"))


def test_noise_covers_both_modes() -> None:
    found = noise(ScriptedBench(figures(noise=0.01)), 8)
    assert [(row.metric, row.pairs) for row in found] == [
        ("cpu", 8),
        ("peak_rss", 8),
        ("wall", 8),
    ]
    assert all(0.005 < row.sd < 0.03 for row in found)


def test_ctrl_c_ends_the_doctor() -> None:
    def answer(trial: Trial) -> Mapping[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        noise(ScriptedBench(answer), 8)


def test_doctor_without_pairs_has_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    found = checkup(Bench(lambda text: None), 0)
    assert (found.noise, found.advice) == ((), ())
    assert found.provider.requests > 0


def test_missing_cgroups_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.setattr(run_delay, "own_cgroup", lambda: None)
    monkeypatch.setattr(run_delay, "unavailable", run_delay.unavailable.__wrapped__)
    found = checkup(Bench(lambda text: None), 0)
    said = "; ".join(map(str, found.findings))
    assert "net times: not available (cgroup v2 is not mounted)" in said


def test_processes_that_are_not_recorded_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.setattr(process_events, "unavailable", lambda: "it is forbidden here")
    found = checkup(Bench(lambda text: None), 0)
    assert "processes: not recorded (it is forbidden here)" in str(found.findings[-1])


def test_real_pair_has_correct_answers() -> None:
    """Both sides run in real processes and return the expected answer."""
    listener = RecordingListener()
    noise(Bench(listener.lost.append, listener), 1)
    assert not listener.lost
    assert not listener.given_up
    assert len(listener.progress) == 4


@pytest.mark.parametrize(
    ("estimates", "expected"),
    [
        ([noise_estimate("cpu", 0.018), noise_estimate("wall", 0.12)], []),
        ([noise_estimate("cpu", 0.09)], ["CPU time in duets varies by 9%"]),
        ([noise_estimate("wall", 0.28, "too noisy")], ["wall times vary by 28%"]),
        ([noise_estimate("cpu", 0.01, "sides differ")], ["cpu: two equal sides differ"]),
    ],
)
def test_advice(estimates: list[NoiseEstimate], expected: list[str]) -> None:
    texts = list(advice(estimates))
    assert len(texts) == len(expected)
    assert all(text.startswith(start) for text, start in zip(texts, expected, strict=True))


def test_printed_noise_table() -> None:
    estimates = [noise_estimate("cpu", 0.018), noise_estimate("wall", 0.28, "too noisy")]
    shown = noise_table(estimates, METRICS)
    assert max(map(len, shown.splitlines())) <= 80
    assert [line.split()[:4] for line in shown.splitlines()[1:]] == [
        ["duet", "cpu", "8", "1.8"],
        ["serial", "wall", "8", "28"],
    ]
    (line,) = standing_lines(estimates)
    assert line == "For information only, because the noise is too large to gate: noise wall"
    assert standing_lines(estimates[:1]) == []
