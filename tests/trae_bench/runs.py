"""Whole runs, honest to the last figure, without a process: for reports and for `verify`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from tests.trae_bench.fakes import HandClock, Memory, cell
from trae_bench.design.cells import cells, confirming
from trae_bench.design.contrasts import NOISE_FLOOR, contrasts
from trae_bench.design.limits import limits_of
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Mode, Trial
from trae_bench.model.run import FORMAT, VERSION, Compared, Header, Resumed, RunFile, ScenarioUsed
from trae_bench.model.sample import Sample, of_trial
from trae_bench.run.runner import conclude
from trae_bench.run.scheduler import Ending, Scheduler
from trae_bench.scenario import Scenario, ToggleUse
from trae_bench.stats.decision import RULES
from trae_bench.storage.run_file import Contents

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DUET = ("cpu", "peak_rss", "requests")
SERIAL = ("wall", "steps_per_second")
TOGGLES = ("faster", "slower", "idle")
EFFECTS = {NOISE_FLOOR: 1.0, "faster": 0.5, "slower": 1.5, "idle": 1.0}
"""What each toggle does to times."""


def plan(toggles: Sequence[str] = TOGGLES, scenario: str = "work") -> tuple[Cell, ...]:
    modes: tuple[tuple[Mode, tuple[str, ...]], ...] = (("duet", DUET), ("serial", SERIAL))
    return tuple(
        cell(name, mode, metrics, scenario)
        for name in (NOISE_FLOOR, *toggles)
        for mode, metrics in modes
    )


def plan_of(design: str, toggles: Sequence[str] = TOGGLES) -> tuple[Cell, ...]:
    """The processor time of all contrasts of a design."""
    vary = ToggleUse(tuple(toggles))
    scenario = Scenario("work", "", "", turns=(), toggles=vary, metrics=("cpu",))
    return tuple(cells(scenario, contrasts(scenario, design=design), METRICS))


def header(cells: tuple[Cell, ...], **changes: Any) -> Header:
    plain = Header(
        format=FORMAT,
        version=VERSION,
        created="2026-01-01T00:00:00+00:00",
        command="trae-bench run work",
        profile="quick",
        seed=7,
        budget=None,
        pairs=12,
        noise_pairs=8,
        scenarios={one.scenario: ScenarioUsed(one.scenario, "0" * 64) for one in cells},
        cells=cells,
        metrics={name: METRICS[name] for name in (*DUET, *SERIAL)},
        rules=RULES,
        machine={"cpu": "an ordinary one", "cores": 2, "cores_usable": 2, "memory": 2**33},
        code={"commit": "0123456789", "dirty": False},
        versions={"trae-bench": "0.1.0"},
    )
    return msgspec.structs.replace(plain, **changes)


class Machine:
    """An executor that plays a machine: its clock goes on, processes take their time."""

    def __init__(
        self,
        noise: float = 0.01,
        lost: Mapping[tuple[str, int], str] = {},
        day: str = "",
        effects: Mapping[str, float] = EFFECTS,
    ) -> None:
        self.clock = HandClock()
        self._noise = noise
        self._day = day
        self._effects = effects
        self._lost = lost
        self._pid = 100

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        samples = [self._sample(trial, 0.001 * nth) for nth, trial in enumerate(trials)]
        self.clock.seconds += 0.05 + max(one.metrics.get("wall", 0.1) for one in samples)
        return samples

    def _sample(self, trial: Trial, late: float) -> Sample:
        self._pid += 1
        fate = self._lost.get((trial.contrast, trial.pair), "")
        crashed = fate == "crash" and trial.side == "B"
        return Sample(
            **of_trial(trial),
            status="failed" if crashed else "ok",
            started=self.clock() + late,
            exit_status=1 if crashed else 0,
            pid=self._pid,
            metrics={} if crashed else self._figures(trial),
            transcript="" if crashed else trial.side if fate == "differ" else "same",
            workspace="" if crashed else "same",
            correct=not crashed,
            problem="exit status 1; its last lines: oh no" if crashed else None,
        )

    def _figures(self, trial: Trial) -> dict[str, float]:
        random = Random(f"{self._day}{trial.contrast}{trial.mode}{trial.pair}{trial.side}")
        times = self._effects.get(trial.contrast, 1.0) if trial.side == "B" else 1.0
        user, system = (0.2 * times * random.gauss(1, self._noise) for _ in range(2))
        wall = 2 * (user + system) + 0.1
        return {
            "cpu": user + system,
            "cpu_user": user,
            "cpu_system": system,
            "peak_rss": float(31_000_000 + 4096 * random.randrange(8)),
            "requests": 17.0,
            "wall": wall,
            "steps_per_second": 17 / wall,
            "time_to_first_request": wall / 5,
        }


def honest(
    *,
    toggles: Sequence[str] = TOGGLES,
    noise: float = 0.01,
    lost: Mapping[tuple[str, int], str] = {},
    day: str = "",
    effects: Mapping[str, float] = EFFECTS,
    cells: tuple[Cell, ...] | None = None,
    resumed: tuple[Resumed, ...] = (),
    **changes: Any,
) -> RunFile:
    """A run as the laboratory leaves it, seal and all; on another day its noise is another one."""
    head = header(plan(toggles) if cells is None else cells, **changes)
    machine = Machine(noise, lost, day, effects)
    session = Scheduler(
        head.cells,
        head.metrics,
        executor=machine,
        sink=Memory(),
        clock=machine.clock,
        seed=head.seed,
        limits=limits_of(head),
    )
    ending = session.run()
    return conclude(head, Contents(head, ending.samples, resumed, 0.0, 0, 0), ending)


def worked_out(run: RunFile, samples: Sequence[Sample], **changes: Any) -> RunFile:
    """A run of which samples were left out or moved, and all that follows worked out anew."""
    head, kept = msgspec.structs.replace(run.header, **changes), tuple(samples)
    ending = Ending(kept, run.stopped, run.elapsed)
    return conclude(head, Contents(head, kept, run.resumed, 0.0, 0, 0), ending)


BASE, OF_HEAD = Arm("base", {}, "a" * 12), Arm("head", {}, "b" * 12)
AGAIN = "head again"
COMPARED = Compared("a" * 12, "a" * 40, "main", "b" * 12, "b" * 40, False)


def gate_plan(scenario: str = "work") -> tuple[Cell, ...]:
    """Base and head, and the fresh pairs that confirm a regression."""
    noise = Contrast(scenario, NOISE_FLOOR, BASE, BASE)
    compared = Contrast(scenario, "head", BASE, OF_HEAD)
    modes: tuple[tuple[Mode, tuple[str, ...]], ...] = (("duet", DUET), ("serial", SERIAL))
    of_noise = (Cell(scenario, noise, mode, metrics) for mode, metrics in modes)
    asked = [Cell(scenario, compared, mode, metrics) for mode, metrics in modes]
    return (*of_noise, *asked, *map(confirming, asked))


def gate(effect: float = 1.0, again: float | None = None, **changes: Any) -> RunFile:
    """A run that compares revisions; head's times are `effect` times base's, and `again` times
    in the fresh pairs, by default the same."""
    effects = {"head": effect, AGAIN: effect if again is None else again}
    given = {"cells": gate_plan(), "compared": COMPARED, "effects": effects}
    return honest(**given | changes)
