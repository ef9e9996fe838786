"""Tests of duration estimates: from scenarios, from earlier runs, and in the plan."""

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
from trae_bench.run import duration, runner
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


def make_plan(**changes: Any) -> Plan:
    return plan(wish(**changes))


# -- estimates from scenarios


SHORT = Scenario("short", "", "", turns=(Turn(repeat=10),), toggles=ToggleUse(()), metrics=("cpu",))


def seconds(scenario: Scenario, mode: Mode = "serial", probe: Probe = "plain") -> float:
    return guess(scenario, replace(cell(), mode=mode, probe=probe))


@pytest.mark.parametrize(
    ("changes", "extra_seconds"),
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
def test_estimate_includes_waiting(changes: dict[str, Any], extra_seconds: float) -> None:
    load = changes.get("load", Load())
    work = load.sessions * 10 * 2 * duration.STEP
    longer = seconds(replace(SHORT, **changes)) - 2 * (START + OVERHEAD)
    assert longer == pytest.approx(extra_seconds + work)


def test_estimate_includes_sleep_commands() -> None:
    calls = tuple(ScriptedCall("bash", {"command": f"sleep {n}.5; true"}) for n in (0, 1))
    with_sleep = seconds(replace(SHORT, turns=(Turn(calls=calls, repeat=3),)))
    without_sleep = seconds(replace(SHORT, turns=(Turn(calls=calls[:0], repeat=3),)))
    assert with_sleep - without_sleep == pytest.approx(2 * 3 * (2.0 + 2 * duration.CALL))


def test_duet_estimate_counts_work_twice_and_waiting_once() -> None:
    idle = replace(SHORT, provider=ProviderConditions(think_seconds=1.0))
    work = START + 10 * duration.STEP
    assert seconds(idle, "duet") == pytest.approx(10 + 2 * work + 2 * OVERHEAD)
    assert seconds(idle) == pytest.approx(20 + 2 * work + 2 * OVERHEAD)


def test_estimate_includes_further_runs_and_probes() -> None:
    plain = seconds(SHORT) - 2 * OVERHEAD
    twice = replace(SHORT, subject=SubjectSetup(runs=2))
    assert seconds(twice) - 2 * OVERHEAD == pytest.approx(2 * plain)
    counted = seconds(SHORT, probe="callgrind") - 2 * OVERHEAD
    assert counted == pytest.approx(duration.SLOWDOWN["callgrind"] * plain)


# -- minimum and maximum


def test_plan_has_minimum_and_maximum_duration() -> None:
    current = make_plan(scenarios=("bugfix",))
    result = estimate(current, Path("nowhere"))
    assert len(result.cells) == len(current.cells)
    for planned, span in zip(current.cells, result.cells, strict=True):
        pace = guess(current.scenarios["bugfix"], planned)
        assert span.minimum == pytest.approx(9 * pace)
        assert span.maximum == pytest.approx(current.pairs_of(planned) * pace)
    assert result.total.minimum == pytest.approx(sum(span.minimum for span in result.cells))
    assert result.guessed == ("bugfix",)


@pytest.mark.parametrize(("changes", "pairs"), [({"pairs": 2}, 3), ({"design": "fraction"}, 9)])
def test_fixed_pairs_have_equal_minimum_and_maximum(changes: dict[str, Any], pairs: int) -> None:
    current = make_plan(scenarios=("bugfix",), **changes)
    for planned, span in zip(current.cells, estimate(current, Path("nowhere")).cells, strict=True):
        assert (
            span.minimum
            == span.maximum
            == pytest.approx(pairs * guess(current.scenarios["bugfix"], planned))
        )


def test_confirmation_adds_only_to_the_maximum() -> None:
    current = make_plan(scenarios=("bugfix",))
    toggles = [planned for planned in current.cells if planned.contrast.name != NOISE_FLOOR]
    with_confirmation = replace(current, cells=(*current.cells, *map(confirming, toggles)))
    once, twice = (estimate(planned, Path("nowhere")) for planned in (current, with_confirmation))
    assert twice.total.minimum == pytest.approx(once.total.minimum)
    maxima = [span.maximum for span in once.cells[-len(toggles) :]]
    assert [span.maximum for span in twice.cells[-len(toggles) :]] == maxima


# -- estimates from earlier runs


def slow(trial: Trial) -> Mapping[str, float]:
    return {"cpu": 1.0, "wall": WALLS[trial.mode] * (1.5 if trial.side == "B" else 1.0)}


def earlier_run(name: str = "old", **changes: Any) -> Path:
    out = Path("trae-bench-results") / f"{name}.json"
    runner.start(wish(pairs=2, **changes), out, force=False, bench=ScriptedBench(slow))
    return out


def test_earlier_runs_give_seconds_per_pair(tiny: Path) -> None:
    out = earlier_run()
    measured = paces(make_plan(), out.parent)
    assert measured == {
        Kind("tiny", "duet", "plain"): pytest.approx(3.0 + 2 * OVERHEAD),
        Kind("tiny", "serial", "plain"): pytest.approx(3.0 + 4.5 + 2 * OVERHEAD),
    }
    assert estimate(make_plan(), out.parent).guessed == ()


def test_newest_run_is_used(tiny: Path) -> None:
    older, newer = earlier_run("older"), earlier_run("newer")
    run = read_run(newer)
    twice = tuple(
        replace(sample, metrics=sample.metrics | {"wall": 2 * sample.metrics["wall"]})
        for sample in run.samples
    )
    write_run(newer, sealed(replace(run, samples=twice)), force=True)
    os.utime(older, (1, 1))
    measured = paces(make_plan(), newer.parent)
    assert measured[Kind("tiny", "duet", "plain")] == pytest.approx(6.0 + 2 * OVERHEAD)
    os.utime(newer, (0, 0))
    measured = paces(make_plan(), newer.parent)
    assert measured[Kind("tiny", "duet", "plain")] == pytest.approx(3.0 + 2 * OVERHEAD)


def test_unrelated_and_invalid_files_are_ignored(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = earlier_run()
    (out.parent / "broken.json").write_text("{}")
    (out.parent / "folder.json").mkdir()
    (out.parent / "gone.json").symlink_to("nowhere")
    before = make_plan()
    assert paces(before, out.parent)
    here = host_facts.fingerprint()
    monkeypatch.setattr(host_facts, "fingerprint", lambda: here | {"cpu": "another one"})
    assert not paces(before, out.parent)
    monkeypatch.undo()
    os.chdir(tiny.parent)
    tiny.write_text(TINY.replace("Say that", "Whisper that"))
    assert not paces(make_plan(scenarios=(str(tiny),)), out.parent)


# -- output


def test_dry_run_prints_the_estimate(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["run", "tiny.toml", "--dry-run"]
    assert main(args) == 0
    assert "a rough estimate from the scenarios" in capsys.readouterr().out
    earlier_run()
    assert main(args) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    # 9 pairs of 3.06 s, and of 7.56 s, for A/A; 9 to 61, and 9 to 41, for the toggle.
    assert "0:28-3:07" in shown
    assert "About 3:12-9:53 minutes, estimated from earlier runs on this machine." in shown
    assert main([*args, "bugfix"]) == 0
    assert "for new scenarios a rough estimate" in capsys.readouterr().out


def test_long_estimate_is_in_hours(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_text(f"{TINY}[provider]\nthink_seconds = 60.0\n")
    assert main(["run", "tiny.toml", "--dry-run"]) == 0
    assert "hours, a rough estimate" in capsys.readouterr().out


def test_estimate_as_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "tiny.toml", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["seconds"]["cells"]) == len(document["cells"])
    assert 0 < document["seconds"]["total"]["minimum"] < document["seconds"]["total"]["maximum"]
    assert document["seconds"]["guessed"] == ["tiny"]
