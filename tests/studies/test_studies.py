"""Each study at its smallest: it runs, goes on where it stopped, and says what it should."""

import json
import math
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.studies import (
    blocked,
    catalogue,
    damping,
    false_alarms,
    fresh_pairs,
    harness,
    injected,
    peers,
)
from tests.studies.harness import (
    BURDEN_CPU,
    BURDEN_WALL,
    NOTHING,
    Burden,
    Log,
    arm,
    bench,
    burdened,
    mean,
    pairs_of,
    play,
    playable,
    probe,
    scenario_of,
    share_at_most,
    share_interval,
    table,
)
from tests.studies.injected_load import times
from tests.studies.prepared_sessions import Seats
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure
from trae_bench.execution.host_lock import PLACE_VARIABLE
from trae_bench.execution.subprocess_executor import ScriptedExecutor
from trae_bench.model.experiment import Cell, Limits, Trial
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback

pytestmark = pytest.mark.slow
SHORT = "noise@12"


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLACE_VARIABLE, str(tmp_path / "lock"))


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_TRIES", 1)
    monkeypatch.setattr(peers, "FEWEST", 2)
    monkeypatch.setattr(peers, "PACES", 1)


def raw(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- the burden


def test_each_kind_of_work_is_done_and_accounted_for() -> None:
    scenario = scenario_of(SHORT)
    work = {"cpu": 50_000, "cache": 50_000, "threads": 200_000, "children": 5000}
    with bench(scenario) as executor:
        idle = probe(executor, scenario, NOTHING)
        costs = {kind: probe(executor, scenario, Burden(kind, n)) for kind, n in work.items()}
        slept = probe(executor, scenario, Burden("sleep", 10_000))
    for kind, cost in costs.items():
        assert 10 * idle[BURDEN_CPU] < cost[BURDEN_CPU] < cost["cpu"], kind
    # Sleeping is waiting, not work; 13 requests are two parts.
    assert slept[BURDEN_WALL] >= times("sleep", 13) * 0.010 == 0.020
    assert slept[BURDEN_CPU] < slept[BURDEN_WALL] / 2


def test_only_side_b_is_burdened_and_the_answers_stay_the_same() -> None:
    scenario = scenario_of(SHORT)
    compared = burdened(scenario, {"laden": Burden("cpu", 100_000)})
    cells = [Cell(scenario.name, one, "duet", ("cpu",)) for one in compared]
    with bench(scenario) as executor:
        ending = play(executor, cells, Limits(pairs=1, fixed=True), seed=1)
    equal, laden = (pairs_of(ending.samples, one.name, "duet")[0] for one in compared)
    *idle, worked = (sample.metrics[BURDEN_CPU] for sample in (*equal, *laden))
    assert worked > 10 * max(idle)


def test_a_scenario_without_a_session_cannot_be_burdened() -> None:
    with (
        pytest.raises(CannotMeasure, match="cli-help has no session"),
        bench(scenario_of("cli-help")),
    ):
        pass


# -- the tools of all studies


def test_an_interrupted_session_is_not_taken_for_a_finished_one() -> None:
    def interrupted(trial: Trial) -> Sample:
        raise KeyboardInterrupt

    scenario = scenario_of(SHORT)
    cell = Cell(scenario.name, burdened(scenario, {})[0], "duet", ("cpu",))
    with pytest.raises(KeyboardInterrupt):
        play(ScriptedExecutor(interrupted), [cell], Limits(pairs=1), seed=1)


def test_bounds_of_a_share() -> None:
    assert share_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert share_interval(10, 10)[1] == 1.0
    # The example of Clopper and Pearson's own charts: 3 of 10.
    assert share_interval(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert share_at_most(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert share_at_most(0, 0) == share_at_most(2, 2) == 1.0


def test_a_mean_has_an_interval_from_two_values_on() -> None:
    assert math.isnan(mean([]).value)
    assert (mean([3.0]).value, math.isnan(mean([3.0]).low)) == (3.0, True)
    both = mean([1.0, 3.0])
    assert (both.low, both.value, both.high) == pytest.approx((-10.706, 2.0, 14.706), abs=1e-3)


def test_a_quotient_is_as_sure_as_its_parts() -> None:
    sure, unsure = mean([0.1, 0.1, 0.1]), mean([0.04, 0.05, 0.06])
    ratio = damping.quotient(unsure, sure)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx(
        (10 * unsure.low, 0.5, 10 * unsure.high)
    )


def test_a_log_does_not_mix_two_studies(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Log(path, {"seconds": 3}).append({"found": 1})
    again = Log(path, {"seconds": 3})
    assert again.rounds == [{"found": 1}]
    again.append({"found": 2})
    assert Log(path, {"seconds": 3}).rounds == [{"found": 1}, {"found": 2}]
    with pytest.raises(CannotMeasure, match="other options"):
        Log(path, {"seconds": 4})


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"


# -- false alarms


def test_both_arms_of_a_contrast_are_equal() -> None:
    scenario = scenario_of("bugfix")
    noise, *others = false_alarms.equal_contrasts(scenario, 40, Random(1))
    assert noise.name == NOISE_FLOOR
    assert len({one.name for one in others}) == 40
    assert all(one.a == one.b for one in (noise, *others))
    for toggle in scenario.toggles.vary:
        assert {one.a.toggles[toggle] for one in others} == {False, True}


def test_what_has_no_duets_is_left_out_of_them() -> None:
    names = ["bugfix", "trajectory-long"]
    assert false_alarms.with_pairs(names, "duet") == ["bugfix"]
    assert false_alarms.with_pairs(names, "serial") == names


def test_false_alarms_of_one_mode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    least = ["--pairs", "1", "--contrasts", "2", "--noise-pairs", "1", "--out", str(out)]
    false_alarms.main(["--rounds", "1", "--mode", "duet", *least, "cli-help"])
    assert "compared 2 times, on 1 scenarios and variants, each 2 times" in capsys.readouterr().out
    assert {row["mode"] for row in raw(out)[1]["rows"]} <= {"duet", "exact"}
    false_alarms.main(["--tell", str(out), str(out)])
    assert "2 runs of 1 scenarios" in capsys.readouterr().out


def test_every_scenario_has_its_turn() -> None:
    names = ["bugfix", "cli-help", SHORT]
    done: list[false_alarms.Round] = []
    for number in range(6):
        name = false_alarms.next_scenario(names, done)
        done.append(false_alarms.Round(name, number, float(len(name)), 1, (), ()))
    assert sorted(one.scenario for one in done[:3]) == sorted(names)
    # When the pace is known, the quickest is first.
    assert [one.scenario for one in done[3:]] == sorted(names, key=len)


def test_false_alarms_are_counted() -> None:
    def row(verdict: str, *, gated: bool = True) -> false_alarms.Judged:
        return false_alarms.Judged("x", "cpu", "duet", gated, verdict, 8, 0.05, 0.01)  # type: ignore[arg-type]

    rows = (row("regression"), row("equivalent"), row("improvement", gated=False))
    text = false_alarms.report([false_alarms.Round("bugfix", 0, 2.0, 9, ("wall",), rows)])
    assert "False verdicts in 1 of 2 gated rows" in text
    assert "in 1 of 1 runs" in text
    assert "would have stopped a run: bugfix wall." in text
    assert "- bugfix, round 0: x cpu regression +5.1% in 8 pairs" in text


def test_comparisons_without_a_pair_are_not_counted() -> None:
    def row(contrast: str, pairs: int, mode: str = "duet") -> false_alarms.Judged:
        return false_alarms.Judged(contrast, "cpu", mode, True, "equivalent", pairs, 0.0, 0.01)

    rows = (row("x", 8), row("y", 0), row("x", 8, "exact"), row("x", 20, "serial"))
    done = [false_alarms.Round(name, n, 2.0, 9, (), rows) for n, name in enumerate("aab")]
    text = false_alarms.report(done)
    assert "In duets equal sides were compared 3 times, on 2 scenarios and variants, each 1" in text
    assert "One after the other equal sides were compared 3 times" in text


def test_false_alarms_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    least = ["--pairs", "1", "--contrasts", "1", "--noise-pairs", "1", "--out", str(out)]
    least += ["cli-help"]
    false_alarms.main(["--rounds", "1", *least])
    assert "1 runs of 1 scenarios" in capsys.readouterr().out
    false_alarms.main(["--rounds", "2", *least])
    assert "2 runs of 1 scenarios" in capsys.readouterr().out
    assert [line.get("number") for line in raw(out)] == [None, 0, 1]


def test_the_catalogue_is_played_as_far_as_it_can_be() -> None:
    names = playable(false_alarms.TOO_LONG)
    assert {"bugfix", "fan-out", "cli-help"} <= set(names)
    assert not set(false_alarms.TOO_LONG) & set(names)
    assert not any(name.startswith("install-size") for name in names)


# -- the others


def test_injected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rounds.jsonl"
    least = ["--scenario", SHORT, "--shares", "50", "--pairs", "1", "--rounds", "1"]
    injected.main([*least, "--metrics", "cpu,session_overhead", "--out", str(out)])
    said = capsys.readouterr().out
    assert f"{SHORT}, 1 runs" in said
    (_, one) = raw(out)
    assert [(each["metric"], each["share"]) for each in one["found"]] == [
        *(("cpu", 50.0), ("session_overhead", 50.0))
    ]
    assert all(each["truth"][0] > 0.1 for each in one["found"])


def test_damping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw.json"
    least = ["--scenario", SHORT, "--kinds", "cpu", "--shares", "50", "--pairs", "2"]
    damping.main([*least, "--out", str(out)])
    assert "| cpu, 50 % |" in capsys.readouterr().out
    nothing, line = json.loads(out.read_text())["lines"]
    assert abs(nothing["own"]["value"]) < 0.05 < line["own"]["value"]


def test_blocked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "raw.json"
    least = ["--scenario", SHORT, "--milliseconds", "30", "--pairs", "1"]
    blocked.main([*least, "--out", str(out)])
    assert "| load | 30 ms | session_overhead |" in capsys.readouterr().out
    lines = json.loads(out.read_text())["lines"]
    assert len(lines) == 2 * 2 * 3
    assert all(line["true"] > 0 for line in lines if line["asked"])


def test_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue.main(["cli-help", "startup-cold", "--out", str(tmp_path / "raw.json")])
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert [row.split(" | ")[1] for row in rows] == ["green, and the same"] * 2
    assert "| - | - |" in rows[0], "no provider, no share of it"


# -- peers

HYPERFINE = """#!{python}
import json, subprocess, sys, time
runs, out = (sys.argv[sys.argv.index(name) + 1] for name in ("--runs", "--export-json"))
def seconds(command):
    begun = time.monotonic()
    subprocess.run({split}(command), check=True)
    return time.monotonic() - begun
results = [dict(times=[seconds(command) for _ in range(int(runs))]) for command in sys.argv[-2:]]
open(out, "w").write(json.dumps(dict(results=results)))
"""


@pytest.fixture
def hyperfine_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the options that are used, and writes what is read of its file."""
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
            tool != "hyperfine" and peers.absent(tool) is not None, reason="not installed"
        ),
    )
    for tool in peers.TOOLS
]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.usefixtures("hyperfine_twin")
def test_peers(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "turns.jsonl"
    least = ["--scenario", "noise@1", "--seconds", "1", "--pairs", "A/A", "--tool", tool]
    peers.main([*least, "--out", str(out)])
    _, said = raw(out)
    assert said, capsys.readouterr().err
    assert {one["tool"].split(", factor")[0] for one in said} == {tool}
    assert all(one["sessions"] >= 2 and one["ratio"] > 0 for one in said)
    assert f"| A/A | {tool} |" in capsys.readouterr().out


def test_our_own_verdicts_are_claims(tmp_path: Path) -> None:
    def answer(trial: Trial) -> dict[str, float]:
        """B is slower by 8 %, half of which its burden owns up to; A/A is equal."""
        slower = trial.side == "B" and trial.contrast != NOISE_FLOOR
        cpu = 1.08 if slower else 1.0
        return {"cpu": cpu, BURDEN_CPU: 0.04 if slower else 0.001}

    executor = ScriptedExecutor(answer)
    with Loopback() as provider:
        contest = peers.Contest(scenario_of(SHORT), executor, provider, tmp_path)
        (one,) = contest.said("trae-bench, cpu", "+5 %", seconds=60, seed=1)
    assert one.claim == "slower"
    assert one.ratio == pytest.approx(1.08)
    assert one.truth == pytest.approx(-math.log1p(-0.04 / 1.08))
    assert "regression, 8 pairs" in one.evidence
    counted = [trial.pair for batch in executor.batches for trial in batch if trial.contrast]
    assert one.sessions == len(counted) == 2 * 2 * (8 + 1)


def test_a_tool_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "apt install hyperfine" in str(peers.absent("hyperfine"))
    assert peers.absent("trae-bench, cpu") is None


def test_what_is_wrong_depends_on_the_pair() -> None:
    def wrong(pair: str, claim: peers.Claim) -> str:
        said = peers.Said("pyperf", pair, 1.02, claim, "", 1.0, 8)
        return str(peers._cells(pair, "pyperf", [said])[8])[:6]

    assert [wrong("A/A", claim) for claim in ("none", "slower")] == ["0 of 1", "1 of 1"]
    assert [wrong("+5 %", claim) for claim in ("none", "faster", "slower")] == [
        *("1 of 1", "1 of 1", "0 of 1")
    ]
    assert wrong("toggles", "faster") == "0 of 1"


def test_each_tool_comes_first_in_its_turn() -> None:
    first = [tool for n, tool, pair in peers.turns(3, ["A/A"], ["x", "y", "z"])][::3]
    assert first == ["x", "y", "z"]


def test_a_session_that_fails_is_no_measurement(tmp_path: Path) -> None:
    scenario = scenario_of(SHORT)
    with Loopback() as provider:
        seats = Seats(provider, scenario, arm(scenario), tmp_path / "x")
        seats.fill(1)
        with pytest.raises(CannotMeasure, match="no seat is left"):
            for _ in range(2):
                peers.run(seats.argv, tmp_path)
        assert seats.used == 1
        seats.check()
        (tmp_path / "x" / "x-00000" / "report").write_text("")
        with pytest.raises(CannotMeasure, match="did not succeed"):
            seats.check()
        seats.clear()
    assert not (tmp_path / "x").exists()


def test_fresh_pairs_confirm_what_is_large_and_little_else() -> None:
    case = fresh_pairs.CASES[0]
    found, confirmed = fresh_pairs.shares(case, 0.10, 5, 10, Random(1))
    assert found == confirmed == 1
    none = fresh_pairs.shares(case, 0.0, 5, 10, Random(1))
    assert none[1] <= none[0] < 1
