"""Every study with minimal options: it runs, resumes, and reports."""

import json
import math
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.studies import (
    bisect,
    blocked,
    catalogue,
    damping,
    false_alarms,
    fresh_pairs,
    gate,
    harness,
    history,
    injected,
    lost_pairs,
    net_time,
    peers,
    session_cost,
    step_times,
    token_estimate,
)
from tests.studies.harness import (
    INJECTED_CPU,
    INJECTED_WALL,
    NO_LOAD,
    InjectedLoad,
    RoundLog,
    available_scenarios,
    hogs,
    load_contrasts,
    load_scenario,
    make_arm,
    markdown_table,
    mean,
    measure_once,
    measured_pairs,
    open_executor,
    proportion_interval,
    proportion_upper_bound,
    run_cells,
)
from tests.studies.injected_load import repetitions
from tests.studies.prepared_sessions import PreparedSessions
from tests.trae_bench.fakes import ScriptedExecutor
from tests.trae_bench.mutations import git, repository
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure
from trae_bench.execution import run_delay
from trae_bench.execution.host_lock import LOCK_VARIABLE
from trae_bench.model.experiment import Cell, Limits, Trial
from trae_bench.model.sample import Sample
from trae_bench.prompt.tokens import TokenCounter
from trae_bench.provider.loopback import Loopback

pytestmark = pytest.mark.slow
SHORT = "noise@12"


@pytest.fixture(autouse=True)
def separate_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCK_VARIABLE, str(tmp_path / "lock"))


@pytest.fixture(autouse=True)
def minimal_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_CALIBRATION_STEPS", 1)
    monkeypatch.setattr(peers, "MIN_SESSIONS", 2)
    monkeypatch.setattr(peers, "TIMING_SESSIONS", 1)


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- injected load


def test_each_kind_of_work_is_done_and_recorded() -> None:
    scenario = load_scenario(SHORT)
    work = {"cpu": 50_000, "cache": 50_000, "threads": 200_000, "children": 5000}
    with open_executor(scenario) as executor:
        idle = measure_once(executor, scenario, NO_LOAD)
        costs = {
            kind: measure_once(executor, scenario, InjectedLoad(kind, units))
            for kind, units in work.items()
        }
        slept = measure_once(executor, scenario, InjectedLoad("sleep", 10_000))
    for kind, cost in costs.items():
        assert 10 * idle[INJECTED_CPU] < cost[INJECTED_CPU] < cost["cpu"], kind
    # Sleeping costs wall time only. With 13 requests it happens twice.
    assert slept[INJECTED_WALL] >= repetitions("sleep", 13) * 0.010 == 0.020
    assert slept[INJECTED_CPU] < slept[INJECTED_WALL] / 2


def test_only_side_b_has_load_and_the_answers_are_equal() -> None:
    scenario = load_scenario(SHORT)
    contrasts = load_contrasts(scenario, {"loaded": InjectedLoad("cpu", 100_000)})
    cells = [Cell(scenario.name, contrast, "duet", ("cpu",)) for contrast in contrasts]
    with open_executor(scenario) as executor:
        ending = run_cells(executor, cells, Limits(pairs=1, fixed=True), seed=1)
    equal, loaded = (
        measured_pairs(ending.samples, contrast.name, "duet")[0] for contrast in contrasts
    )
    *idle, busy = (sample.metrics[INJECTED_CPU] for sample in (*equal, *loaded))
    assert busy > 10 * max(idle)


def test_a_scenario_without_a_session_accepts_no_load() -> None:
    with (
        pytest.raises(CannotMeasure, match="cli-help has no session"),
        open_executor(load_scenario("cli-help")),
    ):
        pass


# -- shared functions


def test_an_interrupted_run_raises() -> None:
    def interrupted(trial: Trial) -> Sample:
        raise KeyboardInterrupt

    scenario = load_scenario(SHORT)
    cell = Cell(scenario.name, load_contrasts(scenario, {})[0], "duet", ("cpu",))
    with pytest.raises(KeyboardInterrupt):
        run_cells(ScriptedExecutor(interrupted), [cell], Limits(pairs=1), seed=1)


def test_bounds_of_a_proportion() -> None:
    assert proportion_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert proportion_interval(10, 10)[1] == 1.0
    # From the charts of Clopper and Pearson: 3 of 10.
    assert proportion_interval(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert proportion_upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert proportion_upper_bound(0, 0) == proportion_upper_bound(2, 2) == 1.0


def test_two_values_give_an_interval() -> None:
    assert math.isnan(mean([]).value)
    assert (mean([3.0]).value, math.isnan(mean([3.0]).low)) == (3.0, True)
    both = mean([1.0, 3.0])
    assert (both.low, both.value, both.high) == pytest.approx((-10.706, 2.0, 14.706), abs=1e-3)


def test_the_interval_of_a_quotient() -> None:
    exact, noisy = mean([0.1, 0.1, 0.1]), mean([0.04, 0.05, 0.06])
    ratio = damping.quotient(noisy, exact)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx(
        (10 * noisy.low, 0.5, 10 * noisy.high)
    )


def test_a_log_rejects_other_options(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    RoundLog(path, {"seconds": 3}).append({"found": 1})
    resumed = RoundLog(path, {"seconds": 3})
    assert resumed.rounds == [{"found": 1}]
    resumed.append({"found": 2})
    assert RoundLog(path, {"seconds": 3}).rounds == [{"found": 1}, {"found": 2}]
    with pytest.raises(CannotMeasure, match="other options"):
        RoundLog(path, {"seconds": 4})


def children() -> set[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return set(map(int, text.split()))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_hogs_run_and_end() -> None:
    before = children()
    with hogs(3):
        assert len(children() - before) == 3
    assert not children() - before


def test_a_table_is_markdown() -> None:
    assert markdown_table(["a", "b"], [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"


# -- false alarms


def test_both_arms_of_a_contrast_are_equal() -> None:
    scenario = load_scenario("bugfix")
    noise, *others = false_alarms.equal_contrasts(scenario, 40, Random(1))
    assert noise.name == NOISE_FLOOR
    assert len({contrast.name for contrast in others}) == 40
    assert all(contrast.a == contrast.b for contrast in (noise, *others))
    for toggle in scenario.toggles.vary:
        assert {contrast.a.toggles[toggle] for contrast in others} == {False, True}


def test_scenarios_without_serial_pairs_are_excluded_from_serial_rounds() -> None:
    names = ["bugfix", "trajectory-long"]
    assert false_alarms.scenarios_with_mode(names, "duet") == names
    assert false_alarms.scenarios_with_mode(names, "serial") == ["trajectory-long"]


def test_false_alarms_of_one_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    short = ["--pairs", "1", "--contrasts", "2", "--noise-pairs", "1", "--out", str(out)]
    false_alarms.main(["--rounds", "1", "--mode", "duet", *short, "cli-help"])
    expected = "Duets: 2 comparisons of equal sides on 1 scenarios and variants, at least 2 each"
    assert expected in capsys.readouterr().out
    assert {row["mode"] for row in read_lines(out)[1]["rows"]} <= {"duet", "exact"}
    false_alarms.main(["--report", str(out), str(out)])
    assert "2 runs of 1 scenarios" in capsys.readouterr().out


def test_scenarios_take_turns() -> None:
    names = ["bugfix", "cli-help", SHORT]
    rounds: list[false_alarms.Round] = []
    for number in range(6):
        name = false_alarms.next_scenario(names, rounds)
        rounds.append(false_alarms.Round(name, number, float(len(name)), 1, (), ()))
    assert sorted(finished.scenario for finished in rounds[:3]) == sorted(names)
    # From the second round on, the quickest scenario is first.
    assert [finished.scenario for finished in rounds[3:]] == sorted(names, key=len)


def test_false_alarms_are_counted() -> None:
    def row(verdict: str, *, gated: bool = True) -> false_alarms.JudgedRow:
        return false_alarms.JudgedRow("x", "cpu", "duet", gated, verdict, 8, 0.05, 0.01)  # type: ignore[arg-type]

    rows = (row("regression"), row("equivalent"), row("improvement", gated=False))
    text = false_alarms.report([false_alarms.Round("bugfix", 0, 2.0, 9, ("wall",), rows)])
    assert "False verdicts: 1 of 2 gated rows" in text
    assert "1 of 1 runs" in text
    assert "would have stopped a run: bugfix wall." in text
    assert "- bugfix, round 0: x cpu regression +5.1% in 8 pairs" in text


def test_comparisons_without_a_pair_are_not_counted() -> None:
    def row(contrast: str, pairs: int, mode: str = "duet") -> false_alarms.JudgedRow:
        return false_alarms.JudgedRow(contrast, "cpu", mode, True, "equivalent", pairs, 0.0, 0.01)

    rows = (row("x", 8), row("y", 0), row("x", 8, "exact"), row("x", 20, "serial"))
    rounds = [false_alarms.Round(name, n, 2.0, 9, (), rows) for n, name in enumerate("aab")]
    text = false_alarms.report(rounds)
    equal = "3 comparisons of equal sides on 2 scenarios and variants, at least 1 each"
    assert f"Duets: {equal}" in text
    assert f"Serial pairs: {equal}" in text


def test_false_alarms_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    short = ["--pairs", "1", "--contrasts", "1", "--noise-pairs", "1", "--out", str(out)]
    short += ["cli-help"]
    false_alarms.main(["--rounds", "1", *short])
    assert "1 runs of 1 scenarios" in capsys.readouterr().out
    false_alarms.main(["--rounds", "2", *short])
    assert "2 runs of 1 scenarios" in capsys.readouterr().out
    assert [line.get("number") for line in read_lines(out)] == [None, 0, 1]


def test_available_scenarios() -> None:
    names = available_scenarios(false_alarms.TOO_LONG)
    assert {"bugfix", "fan-out", "cli-help"} <= set(names)
    assert not set(false_alarms.TOO_LONG) & set(names)
    assert not any(name.startswith("install-size") for name in names)


# -- gate


def gate_run(head: str, kind: gate.Kind, expected: int, code: int, seconds: float) -> gate.GateRun:
    return gate.GateRun(
        *(head, "bugfix", expected, code, kind, 8, 0, 0, seconds, 90.0, 2),
        *(f"{head} is {kind}", (), True),
    )


def test_the_table_of_gates_counts_undecided_and_false() -> None:
    text = gate.table(
        [
            gate_run("nothing", "pass", 0, 0, 20.4),
            gate_run("nothing", "inconclusive", 0, 0, 31.0),
            gate_run("nothing", "regression", 0, 1, 25.0),
            gate_run("a leak", "regression", 1, 1, 12.0),
        ]
    )
    counted = "| nothing | bugfix | 2 | 0 | 0 (2x), 1 (1x) | inconclusive (1x), pass (1x), "
    assert f"{counted}regression (1x) | 2 of 3 | 8 | 0 | 0 | - | - | 20 to 31 |" in text
    assert "| a leak | bugfix | 2 | 1 | 1 | regression | 1 of 1 | 8 | 0 | 0 | - | - | 12 |" in text
    assert "1 of 3 runs decided every gated row, 1 false alarms" in text
    assert "Too noisy to be gated: none." in text
    assert text.endswith("Not as expected:\n\n- nothing: nothing is regression")


def test_the_battery_spreads_its_loops(tmp_path: Path) -> None:
    """17 requests and 28 calls of `bugfix` share the loops; each change compiles."""
    folder = repository(tmp_path / "checkout")
    turns = load_scenario(gate.SCENARIO).turns
    requests = len(turns)
    calls = sum(len(turn.calls) for turn in turns) - 1
    found = {}
    for case in gate.battery_cases(100 * requests * calls):
        git(folder, "checkout", "--quiet", "--force", "main")
        git(folder, "clean", "--quiet", "--force", "-d")
        case.change(folder)
        git(folder, "add", "--force", "agent_core")
        found[case.name] = git(folder, "diff", "--cached", "-U0", "HEAD")
        for source in (folder / "agent_core").rglob("*.py"):
            compile(source.read_text(encoding="utf-8"), source.name, "exec")
    assert f"+        for _ in range({5 * calls}):" in found["codec +5 %"]
    assert f"+    for _ in range({3 * requests}):" in found["dispatch +3 %"]
    assert [name for name, diff in found.items() if not diff] == ["nothing"]
    assert set(gate.SCENARIOS) < set(found)


def test_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gate.jsonl"
    short = ["--battery", "--head", "one request more a step", "--scenario", "api-sequential"]
    gate.main([*short, "--seconds", "10", "--load", "1", "--out", str(out)])
    _, run = read_lines(out)
    assert (run["kind"], run["code"], run["load"]) == ("answers differ", 5, 1)
    capsys.readouterr()
    gate.main(["--report", str(out)])
    text = capsys.readouterr().out
    assert "| one request more a step | api-sequential | 1 | 5 | 5 | answers differ |" in text
    assert "1 other process(es) computing all the time" in text
    gate.main([*short, "--seconds", "10", "--load", "1", "--out", str(out)])
    assert len(read_lines(out)) == 2, "a finished study runs nothing"


@pytest.mark.slow
def test_bisect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bisect.jsonl"
    bisect.main(["--commits", "2", "--share", "1", "--tries", "1", "--out", str(out)])
    said = capsys.readouterr().out
    assert "| bisect | 2 | +100% | 0 | 1 of 1 |" in said
    bisect.main(["--report", str(out)])
    assert "1 of 1" in capsys.readouterr().out


def test_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "history.jsonl"
    history.main(["--series", "1", "--sizes", "0", "0.05", "--out", str(out)])
    said = capsys.readouterr().out
    assert "| duet | none | ±5% | confirmed | 1 | 2 of 2 (16 to 100 %) | 2 of 2" in said
    history.main(["--report", str(out)])
    assert said.strip() in capsys.readouterr().out
    history.main(["--series", "1", "--sizes", "0", "0.05", "--out", str(out)])
    assert len(out.read_text().splitlines()) == 3


def test_a_change_counts_once() -> None:
    planted = [(20, 0.05), (60, -0.05)]
    found = [(18, 0.05), (21, 0.04), (60, 0.05), (64, -0.05)]
    assert history.match(planted, found) == [2.0]
    assert history.match(planted, [(61, -0.02)]) == [1.0]


def test_the_t_test_finds_a_clear_change() -> None:
    values = [0.001 * (number % 3) for number in range(60)]
    values[30:] = [value + 0.05 for value in values[30:]]
    ((place, size),) = history.t_test(values)
    assert place == 30
    assert size == pytest.approx(0.05)
    assert not list(history.t_test(values[:30]))


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(SystemExit, match="no such change: x"):
        gate.main(["--battery", "--head", "x"])


# -- other studies


def test_injected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    short = ["--scenario", SHORT, "--shares", "50", "--pairs", "1", "--rounds", "1"]
    injected.main([*short, "--metrics", "cpu,session_overhead", "--out", str(out)])
    assert f"{SHORT}, 1 runs" in capsys.readouterr().out
    (_, finished) = read_lines(out)
    assert [(result["metric"], result["share"]) for result in finished["results"]] == [
        *(("cpu", 50.0), ("session_overhead", 50.0))
    ]
    assert all(result["truth"][0] > 0.1 for result in finished["results"])


def test_injected_sleep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (problem := run_delay.unavailable()) is not None:
        pytest.skip(problem)
    out = tmp_path / "rounds.jsonl"
    short = ["--scenario", SHORT, "--shares", "0,50", "--kinds", "cpu,sleep", "--pairs", "1"]
    injected.main([*short, "--rounds", "1", "--metrics", "wall_net", "--out", str(out)])
    capsys.readouterr()
    injected.main(["--report", str(out)])
    text = capsys.readouterr().out
    assert all(f"| wall_net | {b} |" in text for b in ("equal", "50 % cpu", "50 % sleep"))
    (_, finished) = read_lines(out)
    truth = {(r["share"], r["kind"]): r["truth"][0] for r in finished["results"]}
    assert abs(truth[0.0, "cpu"]) < 0.05
    # Half of a session's time, as a share of one and a half.
    assert truth[50.0, "sleep"] == pytest.approx(math.log(1.5), abs=0.2)


def test_damping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw.json"
    short = ["--scenario", SHORT, "--kinds", "cpu", "--shares", "50", "--pairs", "2"]
    damping.main([*short, "--out", str(out)])
    assert "| cpu, 50 % |" in capsys.readouterr().out
    nothing, line = json.loads(out.read_text())["lines"]
    assert abs(nothing["own"]["value"]) < 0.05 < line["own"]["value"]


def test_blocked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw.json"
    short = ["--scenario", SHORT, "--milliseconds", "30", "--pairs", "1"]
    blocked.main([*short, "--out", str(out)])
    assert "| load | 30 ms | session_overhead |" in capsys.readouterr().out
    lines = json.loads(out.read_text())["lines"]
    assert len(lines) == 2 * 2 * 3
    assert all(line["true"] > 0 for line in lines if line["requested"])


def test_session_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session_cost.main(["--repetitions", "1", "--out", str(tmp_path / "raw.json")])
    out = capsys.readouterr().out
    assert "| together | 170 |" in out
    assert "| switches |" in out
    assert len(json.loads((tmp_path / "raw.json").read_text())["memory"]) == 6


def test_net_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (problem := run_delay.unavailable()) is not None:
        pytest.skip(problem)
    short = ["--repetitions", "2", "--programs", "single"]
    net_time.main([*short, "--out", str(tmp_path / "raw.json")])
    assert "| single | wall - tree | 2 |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "raw.json").read_text())["repetitions"]) == 2 * 5
    net_time.main(["--report", str(tmp_path / "raw.json")])
    assert "| single | wall - tree | 2 |" in capsys.readouterr().out
    net_time.main(["--agent", SHORT, "--repetitions", "2"])
    assert f"| {SHORT} | wall_net | 2 |" in capsys.readouterr().out


def test_token_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = TokenCounter("words", lambda part: len(part.text.split()), lambda text: 1)
    monkeypatch.setattr(token_estimate, "exact_counter", lambda: words)
    out = tmp_path / "raw.json"
    token_estimate.main(["fan-out", "--out", str(out)])
    assert "| fan-out, gemini |" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["results"]) == 5 + len(token_estimate.FILES)
    monkeypatch.setattr(token_estimate, "exact_counter", lambda: None)
    with pytest.raises(CannotMeasure, match="the exact count is not available"):
        token_estimate.main(["fan-out"])


def test_step_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (problem := run_delay.unavailable()) is not None:
        pytest.skip(problem)
    out = tmp_path / "steps.jsonl"
    step_times.main(["--scenario", "api-sequential", "--pairs", "3", "--out", str(out)])
    assert all(len(pair["a"]) == len(pair["b"]) == 11 for pair in read_lines(out)[1:])
    capsys.readouterr()
    step_times.main(["--report", str(out)])
    assert "| api-sequential | 0 | 3 | 11 |" in capsys.readouterr().out


def test_estimates_of_the_step_overhead() -> None:
    steps = tuple(step_times.Step(gap, 1000, 100) for gap in (2100, 3100, 9100, 1000))
    assert [step.net for step in steps] == [1000, 2000, 8000, 0]
    found = {name: estimator(steps) for name, estimator in step_times.ESTIMATORS.items()}
    assert found["median"] == 1500
    assert found["mean"] == found["trimmed"] == 2750
    assert found["geometric"] == pytest.approx((1000 * 2000 * 8000) ** 0.25)


def test_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue.main(["cli-help", "startup-cold", "--out", str(tmp_path / "raw.json")])
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [row.split(" | ")[1] for row in rows] == ["passed, equal answers"] * 2
    assert "| - | - |" in rows[0], "a scenario without provider has no share"


# -- peers

HYPERFINE = """#!{python}
import json, subprocess, sys, time
runs, out = (sys.argv[sys.argv.index(name) + 1] for name in ("--runs", "--export-json"))
def seconds(command):
    start = time.monotonic()
    subprocess.run({split}(command), check=True)
    return time.monotonic() - start
results = [dict(times=[seconds(command) for _ in range(int(runs))]) for command in sys.argv[-2:]]
open(out, "w").write(json.dumps(dict(results=results)))
"""


@pytest.fixture
def fake_hyperfine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for hyperfine on the PATH, with the options and output that peers.py uses."""
    program = tmp_path / "bin" / "hyperfine"
    program.parent.mkdir()
    split = '__import__("shlex").split'
    program.write_text(HYPERFINE.replace("{python}", sys.executable).replace("{split}", split))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


TOOLS = [
    pytest.param(
        tool,
        marks=pytest.mark.skipif(
            tool != "hyperfine" and peers.unavailable(tool) is not None, reason="not installed"
        ),
    )
    for tool in peers.TOOLS
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.usefixtures("fake_hyperfine")
def test_peers(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "turns.jsonl"
    short = ["--scenario", "noise@1", "--seconds", "1", "--pairs", "A/A", "--tool", tool]
    peers.main([*short, "--out", str(out)])
    _, results = read_lines(out)
    assert results, capsys.readouterr().err
    assert {result["tool"].split(", factor")[0] for result in results} == {tool}
    assert all(result["sessions"] >= 2 and result["ratio"] > 0 for result in results)
    assert f"| A/A | {tool} |" in capsys.readouterr().out


def test_verdicts_of_trae_bench_are_claims(tmp_path: Path) -> None:
    def answer(trial: Trial) -> dict[str, float]:
        """B is 8 % slower, half of it recorded as load; A/A is equal."""
        slower = trial.side == "B" and trial.contrast != NOISE_FLOOR
        cpu = 1.08 if slower else 1.0
        return {"cpu": cpu, INJECTED_CPU: 0.04 if slower else 0.001}

    executor = ScriptedExecutor(answer)
    with Loopback() as provider:
        comparison = peers.Comparison(load_scenario(SHORT), executor, provider, tmp_path)
        (result,) = comparison.run("trae-bench, cpu", "+5 %", seconds=60, seed=1)
    assert result.claim == "slower"
    assert result.ratio == pytest.approx(1.08)
    assert result.truth == pytest.approx(-math.log1p(-0.04 / 1.08))
    assert "regression, 8 pairs" in result.evidence
    counted = [trial.pair for batch in executor.batches for trial in batch if trial.contrast]
    assert result.sessions == len(counted) == 2 * 2 * (8 + 1)


def test_a_missing_tool_is_reported_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "apt install hyperfine" in str(peers.unavailable("hyperfine"))
    assert peers.unavailable("trae-bench, cpu") is None


def test_the_expected_claim_depends_on_the_pair() -> None:
    def wrong(pair: str, claim: peers.Claim) -> str:
        result = peers.Result("pyperf", pair, 1.02, claim, "", 1.0, 8)
        return str(peers._cells(pair, "pyperf", [result])[8])[:6]

    assert [wrong("A/A", claim) for claim in ("none", "slower")] == ["0 of 1", "1 of 1"]
    assert [wrong("+5 %", claim) for claim in ("none", "faster", "slower")] == [
        *("1 of 1", "1 of 1", "0 of 1")
    ]
    assert wrong("toggles", "faster") == "0 of 1"


def test_the_first_tool_rotates() -> None:
    first = [tool for n, tool, pair in peers.turns(3, ["A/A"], ["x", "y", "z"])][::3]
    assert first == ["x", "y", "z"]


def test_a_failed_session_raises(tmp_path: Path) -> None:
    scenario = load_scenario(SHORT)
    with Loopback() as provider:
        sessions = PreparedSessions(provider, scenario, make_arm(scenario), tmp_path / "x")
        sessions.prepare(1)
        with pytest.raises(CannotMeasure, match="no prepared session is left"):
            for _ in range(2):
                peers.run(sessions.argv, tmp_path)
        assert sessions.used == 1
        sessions.check()
        (tmp_path / "x" / "x-00000" / "report").write_text("")
        with pytest.raises(CannotMeasure, match="did not succeed"):
            sessions.check()
        sessions.remove()
    assert not (tmp_path / "x").exists()


def test_fresh_pairs_confirm_large_changes() -> None:
    case = fresh_pairs.CASES[0]
    found, confirmed = fresh_pairs.shares(case, 0.10, 5, 10, Random(1))
    assert found == confirmed == 1
    none = fresh_pairs.shares(case, 0.0, 5, 10, Random(1))
    assert none[1] <= none[0] < 1


@pytest.mark.parametrize("different", [True, False])
def test_a_head_that_fails_now_and_then(different: bool) -> None:
    rng = Random(1)

    def gate(rate: float, *, checked: bool = True) -> lost_pairs.Gate:
        return lost_pairs.gate(rate, different=different, checked=checked, rng=rng)

    assert gate(0.0) == lost_pairs.Gate(False, 8, 21)
    assert gate(0.0, checked=False) == lost_pairs.Gate(False, 8, 0)
    assert gate(1.0) == lost_pairs.Gate(True, 3, 0)
    rare, often = (sum(gate(rate).fails for _ in range(200)) for rate in (0.05, 0.5))
    assert rare < often


def test_nine_in_ten_heads_with_a_fault_in_one_run_of_ten_are_found() -> None:
    rng = Random(1)
    gates = [lost_pairs.gate(0.1, different=True, checked=True, rng=rng) for _ in range(400)]
    assert sum(one.fails for one in gates) > 360
