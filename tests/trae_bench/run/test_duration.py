"""About how long: from a script, from earlier runs, and what a plan shows of it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.trae_bench.cli.test_cli import ScriptedBench, wish
from tests.trae_bench.fakes import TINY, cell
from trae_bench._util import host_facts
from trae_bench.cli import main
from trae_bench.design.cells import confirming
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Mode, Probe, Trial
from trae_bench.run import duration as room
from trae_bench.run import runner
from trae_bench.run.duration import OVERHEAD, START, Kind, estimate, guess, paces
from trae_bench.run.planner import Plan, plan
from trae_bench.scenario import (
    Fault,
    Load,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    SubjectSetup,
    ToggleUse,
    Turn,
)
from trae_bench.storage.run_file import read_run, write_run
from trae_bench.storage.seal import sealed

WALLS = {"duet": 2.0, "serial": 3.0}


def asked(**changes: Any) -> Plan:
    return plan(wish(**changes))


# -- from the script


SHORT = Scenario("short", "", "", turns=(Turn(repeat=10),), toggles=ToggleUse(()), metrics=("cpu",))


def seconds(scenario: Scenario, mode: Mode = "serial", probe: Probe = "plain") -> float:
    return guess(scenario, replace(cell(), mode=mode, probe=probe))


@pytest.mark.parametrize(
    ("changes", "longer_by"),
    [
        ({"provider": ProviderConditions(think_seconds=0.5)}, 10.0),
        ({"provider": ProviderConditions(rtt_seconds=0.1)}, 4.0),
        ({"provider": ProviderConditions(rtt_seconds=0.1, tls=True)}, 6.0),
        ({"provider": ProviderConditions(faults=(Fault(2, "status", None, 3.0),))}, 6.0),
        (
            {
                "provider": ProviderConditions(think_seconds=0.5),
                "load": Load(sessions=8, concurrency=4),
            },
            20.0,
        ),
        ({"load": Load(sessions=5, arrival="steady", sessions_per_second=0.5)}, 20.0),
    ],
)
def test_what_is_waited_for_takes_its_time(changes: dict[str, Any], longer_by: float) -> None:
    load = changes.get("load", Load())
    work = load.sessions * 10 * 2 * room.STEP
    longer = seconds(replace(SHORT, **changes)) - 2 * (START + OVERHEAD)
    assert longer == pytest.approx(longer_by + work)


def test_commands_that_sleep_are_waited_for() -> None:
    calls = tuple(ScriptedCall("bash", {"command": f"sleep {n}.5; true"}) for n in (0, 1))
    slept = seconds(replace(SHORT, turns=(Turn(calls=calls, repeat=3),)))
    awake = seconds(replace(SHORT, turns=(Turn(calls=calls[:0], repeat=3),)))
    assert slept - awake == pytest.approx(2 * 3 * (2.0 + 2 * room.CALL))


def test_a_duet_works_twice_and_waits_once() -> None:
    idle = replace(SHORT, provider=ProviderConditions(think_seconds=1.0))
    work = START + 10 * room.STEP
    assert seconds(idle, "duet") == pytest.approx(10 + 2 * work + 2 * OVERHEAD)
    assert seconds(idle) == pytest.approx(20 + 2 * work + 2 * OVERHEAD)


def test_further_runs_and_probes_take_longer() -> None:
    plain = seconds(SHORT) - 2 * OVERHEAD
    twice = replace(SHORT, subject=SubjectSetup(runs=2))
    assert seconds(twice) - 2 * OVERHEAD == pytest.approx(2 * plain)
    counted = seconds(SHORT, probe="callgrind") - 2 * OVERHEAD
    assert counted == pytest.approx(room.SLOWDOWN["callgrind"] * plain)


# -- least and most


def test_a_plan_takes_the_pairs_of_its_first_looks_or_of_its_last() -> None:
    found = asked(scenarios=("bugfix",))
    about = estimate(found, Path("nowhere"))
    assert len(about.cells) == len(found.cells)
    for one, span in zip(found.cells, about.cells, strict=True):
        pace = guess(found.scenarios["bugfix"], one)
        assert span.minimum == pytest.approx(9 * pace)
        assert span.maximum == pytest.approx(found.pairs_of(one) * pace)
    assert about.total.minimum == pytest.approx(sum(span.minimum for span in about.cells))
    assert about.guessed == ("bugfix",)


@pytest.mark.parametrize(("changes", "pairs"), [({"pairs": 2}, 3), ({"design": "fraction"}, 9)])
def test_where_no_verdict_comes_early_both_are_the_same(
    changes: dict[str, Any], pairs: int
) -> None:
    found = asked(scenarios=("bugfix",), **changes)
    for one, span in zip(found.cells, estimate(found, Path("nowhere")).cells, strict=True):
        assert (
            span.minimum
            == span.maximum
            == pytest.approx(pairs * guess(found.scenarios["bugfix"], one))
        )


def test_to_confirm_a_regression_takes_nothing_at_least_and_as_long_again_at_most() -> None:
    found = asked(scenarios=("bugfix",))
    toggles = [one for one in found.cells if one.contrast.name != NOISE_FLOOR]
    again = replace(found, cells=(*found.cells, *map(confirming, toggles)))
    once, twice = (estimate(each, Path("nowhere")) for each in (found, again))
    assert twice.total.minimum == pytest.approx(once.total.minimum)
    as_long = [span.maximum for span in once.cells[-len(toggles) :]]
    assert [span.maximum for span in twice.cells[-len(toggles) :]] == as_long


# -- from earlier runs


def slow(trial: Trial) -> Mapping[str, float]:
    return {"cpu": 1.0, "wall": WALLS[trial.mode] * (1.5 if trial.side == "B" else 1.0)}


def an_earlier_run(name: str = "old", **changes: Any) -> Path:
    out = Path("trae-bench-results") / f"{name}.json"
    runner.start(wish(pairs=2, **changes), out, force=False, bench=ScriptedBench(slow))
    return out


def test_pairs_take_what_they_took_before(tiny: Path) -> None:
    out = an_earlier_run()
    found = paces(asked(), out.parent)
    assert found == {
        Kind("tiny", "duet", "plain"): pytest.approx(3.0 + 2 * OVERHEAD),
        Kind("tiny", "serial", "plain"): pytest.approx(3.0 + 4.5 + 2 * OVERHEAD),
    }
    assert estimate(asked(), out.parent).guessed == ()


def test_the_newest_run_counts(tiny: Path) -> None:
    older, newer = an_earlier_run("older"), an_earlier_run("newer")
    run = read_run(newer)
    twice = tuple(
        replace(sample, metrics=sample.metrics | {"wall": 2 * sample.metrics["wall"]})
        for sample in run.samples
    )
    write_run(newer, sealed(replace(run, samples=twice)), force=True)
    os.utime(older, (1, 1))
    found = paces(asked(), newer.parent)
    assert found[Kind("tiny", "duet", "plain")] == pytest.approx(6.0 + 2 * OVERHEAD)
    os.utime(newer, (0, 0))
    found = paces(asked(), newer.parent)
    assert found[Kind("tiny", "duet", "plain")] == pytest.approx(3.0 + 2 * OVERHEAD)


def test_another_scenario_another_machine_and_no_run_file_tell_nothing(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = an_earlier_run()
    (out.parent / "broken.json").write_text("{}")
    (out.parent / "folder.json").mkdir()
    (out.parent / "gone.json").symlink_to("nowhere")
    before = asked()
    assert paces(before, out.parent)
    here = host_facts.fingerprint()
    monkeypatch.setattr(host_facts, "fingerprint", lambda: here | {"cpu": "another one"})
    assert not paces(before, out.parent)
    monkeypatch.undo()
    os.chdir(tiny.parent)
    tiny.write_text(TINY.replace("Say that", "Whisper that"))
    assert not paces(asked(scenarios=(str(tiny),)), out.parent)


# -- shown


def test_a_plan_says_about_how_long_it_takes(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["run", "tiny.toml", "--dry-run"]
    assert main(args) == 0
    assert "a rough estimate from the scenarios" in capsys.readouterr().out
    an_earlier_run()
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    # 9 pairs of 3.06 s, and of 7.56 s, for A/A; 9 to 61, and 9 to 41, for the toggle.
    assert "0:28-3:07" in shown
    assert "About 3:12-9:53 minutes, estimated from earlier runs on this machine." in shown
    assert main([*args, "bugfix"]) == 0
    assert "for new scenarios a rough estimate" in capsys.readouterr().out


def test_a_day_is_told_in_hours(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_text(f"{TINY}[provider]\nthink_seconds = 60.0\n")
    assert main(["run", "tiny.toml", "--dry-run"]) == 0
    assert "hours, a rough estimate" in capsys.readouterr().out


def test_the_estimate_as_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "tiny.toml", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["seconds"]["cells"]) == len(found["cells"])
    assert 0 < found["seconds"]["total"]["minimum"] < found["seconds"]["total"]["maximum"]
    assert found["seconds"]["guessed"] == ["tiny"]
