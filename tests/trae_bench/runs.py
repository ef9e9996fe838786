"""Complete, consistent runs without processes, for tests of reports and of `verify`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec

from tests.trae_bench.fakes import HandClock, Memory, cell
from trae_bench.design.cells import cells, confirming
from trae_bench.design.contrasts import NOISE_FLOOR, contrasts, is_fixed
from trae_bench.design.plan import HEAD
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Mode, Trial
from trae_bench.model.run import (
    FORMAT,
    VERSION,
    Header,
    Resumed,
    RevisionId,
    RevisionPair,
    RunFile,
    ScenarioUsed,
)
from trae_bench.model.sample import Sample, of_trial
from trae_bench.run.runner import conclude
from trae_bench.run.scheduler import Ending, Scheduler
from trae_bench.stats.decision import RULES
from trae_bench.stats.head_runs import CHECKS
from trae_bench.storage.seal import sealed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DUET = ("cpu", "peak_rss", "requests")
SERIAL = ("wall", "steps_per_second")
TOGGLES = ("faster", "slower", "idle")
EFFECTS = {NOISE_FLOOR: 1.0, "faster": 0.5, "slower": 1.5, "idle": 1.0}
"""Factor by which each toggle changes times."""


def plan(toggles: Sequence[str] = TOGGLES, scenario: str = "work") -> tuple[Cell, ...]:
    modes: tuple[tuple[Mode, tuple[str, ...]], ...] = (("duet", DUET), ("serial", SERIAL))
    return tuple(
        cell(name, mode, metrics, scenario)
        for name in (NOISE_FLOOR, *toggles)
        for mode, metrics in modes
    )


def plan_of(design: str, toggles: Sequence[str] = TOGGLES) -> tuple[Cell, ...]:
    """Return cells of CPU time for all contrasts of a design."""
    planned = contrasts(toggles, dict.fromkeys(toggles, False), design)
    return tuple(cells("work", ("cpu",), planned, METRICS))


def used(cells: Sequence[Cell]) -> dict[str, ScenarioUsed]:
    """Return the scenarios that generate these cells."""
    return {
        name: scenario_used(name, [cell for cell in cells if cell.scenario == name])
        for name in dict.fromkeys(cell.scenario for cell in cells)
    }


def scenario_used(name: str, cells: Sequence[Cell] = ()) -> ScenarioUsed:
    metrics = tuple(dict.fromkeys(metric for cell in cells for metric in cell.metrics))
    arms = [arm for cell in cells for arm in (cell.contrast.a, cell.contrast.b)]
    toggles = arms[0].toggles if arms else {}
    if heads := [arm for arm in arms if arm.name == HEAD]:
        return ScenarioUsed(name, "0" * 64, metrics, (), toggles, heads[0].toggles)
    on = {toggle for arm in arms for toggle in arm.name.split("+")}
    varied = tuple(toggle for toggle in toggles if toggle in on)
    baseline = toggles | dict.fromkeys(varied, False)
    return ScenarioUsed(name, "0" * 64, metrics, varied, baseline)


def header(cells: tuple[Cell, ...], **changes: Any) -> Header:
    """Return a header that generates these cells."""
    scenarios = used(cells)
    if changes.get("noise_pairs") == 0:
        cells = tuple(cell for cell in cells if cell.contrast.name != NOISE_FLOOR)
    plain = Header(
        format=FORMAT,
        version=VERSION,
        created="2026-01-01T00:00:00+00:00",
        command="trae-bench run work",
        profile="quick",
        seed=7,
        limits=Limits(pairs=12),
        scenarios=scenarios,
        cells=cells,
        metrics={name: METRICS[name] for name in (*DUET, *SERIAL)},
        rules=RULES,
        machine={"cpu": "an ordinary one", "cores": 2, "cores_usable": 2, "memory": 2**33},
        code={"commit": "0123456789", "dirty": False},
        versions={"trae-bench": "0.1.0"},
    )
    limits = {name: changes.pop(name) for name in Limits.__struct_fields__ if name in changes}
    limits.setdefault("fixed", is_fixed(changes.get("design", "add-one")))
    changes["limits"] = msgspec.structs.replace(plain.limits, **limits)
    return msgspec.structs.replace(plain, **changes)


class Machine:
    """An executor that simulates a machine: its clock advances by the time of each process."""

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
        samples = [self._sample(trial, 0.001 * number) for number, trial in enumerate(trials)]
        self.clock.seconds += 0.05 + max(sample.metrics.get("wall", 0.1) for sample in samples)
        return samples

    def _sample(self, trial: Trial, delay: float) -> Sample:
        self._pid += 1
        loss = self._lost.get((trial.contrast, trial.pair), "")
        crashed = loss == "crash" and trial.side == "B"
        return Sample(
            **of_trial(trial),
            status="failed" if crashed else "ok",
            started=self.clock() + delay,
            exit_status=1 if crashed else 0,
            pid=self._pid,
            metrics={} if crashed else self._values(trial),
            transcript="" if crashed else trial.side if loss == "differ" else "same",
            workspace="" if crashed else "same",
            correct=not crashed,
            problem="exit status 1; its last lines: oh no" if crashed else None,
        )

    def _values(self, trial: Trial) -> dict[str, float]:
        # Checks repeat the head of a pair.
        again = self._pid if trial.contrast == CHECKS else ""
        random = Random(f"{self._day}{trial.contrast}{trial.mode}{trial.pair}{trial.side}{again}")
        times = self._effects.get(trial.contrast, 1.0) if trial.side == "B" else 1.0
        user, system = (0.2 * times * random.gauss(1, self._noise) for _ in range(2))
        wall = 2 * (user + system) + 0.1
        return {
            "cpu": user + system,
            "cpu_user": user,
            "cpu_system": system,
            "peak_rss": float(30_998_528 + 4096 * random.randrange(8)),
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
    """Return a sealed, consistent run. Each `day` has different noise."""
    head = header(plan(toggles) if cells is None else cells, **changes)
    machine = Machine(noise, lost, day, effects)
    session = Scheduler(
        head.cells,
        head.metrics,
        executor=machine,
        sink=Memory(),
        clock=machine.clock,
        seed=head.seed,
        limits=head.limits,
        at_once=2,
    )
    ending = session.run()
    return sealed(conclude(head, ending, resumed))


def recomputed(run: RunFile, samples: Sequence[Sample], **changes: Any) -> RunFile:
    """Return the run with other samples and the results recomputed from them."""
    head, kept = msgspec.structs.replace(run.header, **changes), tuple(samples)
    ending = Ending(kept, run.stopped, run.elapsed, checks=run.checks or ())
    return sealed(conclude(head, ending, run.resumed))


BASE, OF_HEAD = Arm("base", {}, "a" * 12), Arm("head", {}, "b" * 12)
AGAIN = "head again"
COMPARED = RevisionPair(
    RevisionId("a" * 12, "a" * 40, False), RevisionId("b" * 12, "b" * 40, False), "main"
)


def gate_plan(scenario: str = "work") -> tuple[Cell, ...]:
    """Return cells of A/A, of base against head, and of the confirming fresh pairs."""
    noise = Contrast(NOISE_FLOOR, BASE, BASE)
    compared = Contrast("head", BASE, OF_HEAD)
    modes: tuple[tuple[Mode, tuple[str, ...]], ...] = (("duet", DUET), ("serial", SERIAL))
    noise_cells = (Cell(scenario, noise, mode, metrics) for mode, metrics in modes)
    compared_cells = [Cell(scenario, compared, mode, metrics) for mode, metrics in modes]
    return (*noise_cells, *compared_cells, *map(confirming, compared_cells))


def gate(effect: float = 1.0, again: float | None = None, **changes: Any) -> RunFile:
    """Return a run that compares revisions.

    The head takes `effect` times as long as the base, and `again` times in the fresh pairs.
    `again` defaults to `effect`.
    """
    effects = {"head": effect, AGAIN: effect if again is None else again}
    given = {"cells": gate_plan(), "revisions": COMPARED, "effects": effects}
    return honest(**given | changes)
