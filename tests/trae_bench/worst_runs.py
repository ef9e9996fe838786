"""Run files that are accepted and that cost the most to verify and to report."""

from collections.abc import Sequence
from random import Random

import msgspec

from tests.trae_bench.fakes import sample
from tests.trae_bench.runs import header, scenario_used
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Metric
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.run.runner import conclude
from trae_bench.run.scheduler import Ending
from trae_bench.stats.decision import RULES
from trae_bench.storage.seal import sealed

NONE = Arm("none", {"toggle": False})


def cell_of(scenario: str, contrast: str, metrics: Sequence[str]) -> Cell:
    arm = NONE if contrast == NOISE_FLOOR else Arm(contrast, {"toggle": True})
    return Cell(scenario, Contrast(contrast, NONE, arm), "duet", tuple(metrics))


def many_cells(cells: int, pairs: int, metrics: int = 1, *, per_scenario: int = 10) -> RunFile:
    """A run of many cells, with noise that keeps every row undecided to the last look."""
    names = [f"m{number}" for number in range(metrics)]
    contrasts = [NOISE_FLOOR, *(f"t{number}" for number in range(1, per_scenario))]
    planned = tuple(
        cell_of(f"s{number // per_scenario}", contrasts[number % per_scenario], names)
        for number in range(cells)
    )
    return crafted(planned, pairs, dict.fromkeys(names))


def crafted(cells: tuple[Cell, ...], pairs: int, names: Sequence[str]) -> RunFile:
    """A sealed run of these cells; its conclusions follow from its samples."""
    random = Random(1)
    known = METRICS["cpu"]
    metrics = {name: Metric(name, "s", "lower", "duet", known.about) for name in names}
    samples: list[Sample] = []
    for planned in cells:
        drift = random.gauss(0, 0.02)
        for pair in range(pairs + 1):
            for side in ("A", "B"):
                shift = drift if side == "B" else 0.0
                values = {name: 1 + shift + random.gauss(0, 0.04) for name in planned.metrics}
                taken = sample(
                    "A" if side == "A" else "B",
                    pair,
                    contrast=planned.contrast.name,
                    scenario=planned.scenario,
                    started=len(samples) * 0.5,
                    metrics=values,
                )
                samples.append(taken)
    scenarios = {name: scenario_used(name) for name in dict.fromkeys(c.scenario for c in cells)}
    made = header(())
    made = msgspec.structs.replace(
        made,
        cells=cells,
        scenarios=scenarios,
        metrics=metrics,
        rules=RULES,
        limits=Limits(pairs=60),
    )
    return sealed(conclude(made, Ending(tuple(samples), "done", len(samples) * 0.5)))
