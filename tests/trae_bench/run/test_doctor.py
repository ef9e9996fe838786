"""The doctor: a tiny session that is valid and short, and what its noise calls for."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.trae_bench.cli.test_cli import ScriptedBench
from tests.trae_bench.fakes import figures
from tests.trae_bench.run.test_scheduler import Tape
from trae_bench.execution import run_delay
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Trial
from trae_bench.model.result import NoiseEstimate, Reliability
from trae_bench.report.text.terminal import noise_table, standing_lines
from trae_bench.run.doctor import advice, checkup, noise, tiny
from trae_bench.run.runner import Bench
from trae_bench.scenario import check
from trae_bench.subject.agent_core import toggles, tools


def floor(metric: str, sd: float, standing: Reliability = "gated") -> NoiseEstimate:
    return NoiseEstimate(
        "noise", metric, 8, sd, 0.001, 0.02 if standing == "gated" else 0.25, standing
    )


def test_the_tiny_session_is_one_that_the_laboratory_would_take() -> None:
    check(tiny(), tools=tools(), toggles=toggles(), metrics=METRICS, source=Path("doctor"))


def test_noise_is_of_both_modes() -> None:
    found = noise(ScriptedBench(figures(noise=0.01)), 8)
    assert [(each.metric, each.pairs) for each in found] == [
        ("cpu", 8),
        ("peak_rss", 8),
        ("wall", 8),
    ]
    assert all(0.005 < each.sd < 0.03 for each in found)


def test_ctrl_c_ends_a_checkup() -> None:
    def answer(trial: Trial) -> Mapping[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        noise(ScriptedBench(answer), 8)


def test_no_noise_without_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    found = checkup(Bench(lambda text: None), 0)
    assert (found.noise, found.advice) == ((), ())
    assert found.provider.requests > 0


def test_missing_cgroups_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))
    monkeypatch.setattr(run_delay, "own_cgroup", lambda: None)
    found = checkup(Bench(lambda text: None), 0)
    assert "net times: not available (cgroup v2 is not mounted)" in str(found.findings[-1])


def test_a_real_pair_is_right() -> None:
    """In real processes, and both sides give the answer that is expected."""
    tape = Tape()
    noise(Bench(tape.lost.append, tape), 1)
    assert not tape.lost
    assert not tape.given_up
    assert len(tape.progress) == 4


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ([floor("cpu", 0.018), floor("wall", 0.12)], []),
        ([floor("cpu", 0.09)], ["CPU time in duets varies by 9%"]),
        ([floor("wall", 0.28, "too noisy")], ["wall times vary by 28%"]),
        ([floor("cpu", 0.01, "sides differ")], ["cpu: two equal sides differ"]),
    ],
)
def test_advice(floors: list[NoiseEstimate], said: list[str]) -> None:
    told = list(advice(floors))
    assert len(told) == len(said)
    assert all(text.startswith(start) for text, start in zip(told, said, strict=True))


def test_what_is_printed() -> None:
    floors = [floor("cpu", 0.018), floor("wall", 0.28, "too noisy")]
    shown = noise_table(floors, METRICS)
    assert max(map(len, shown.splitlines())) <= 80
    assert [line.split()[:4] for line in shown.splitlines()[1:]] == [
        ["duet", "cpu", "8", "1.8"],
        ["serial", "wall", "8", "28"],
    ]
    (line,) = standing_lines(floors)
    assert line == "For information only, because the noise is too large to gate: noise wall"
    assert standing_lines(floors[:1]) == []
