"""From contrasts to cells and from cells to seeded, paired trials. Pure.

A cell is what is sampled together: one contrast, taken in one mode and by one probe, for all
metrics that want those. A pair of a cell is the same whenever and in whatever order it is asked
for, so a resumed run goes on with the very pairs that are missing.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from random import Random

from msgspec.structs import replace

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Cell, Contrast, Metric, Mode, Probe, Side, Trial


def cells(
    scenario: str,
    names: Sequence[str],
    contrasts: Sequence[Contrast],
    metrics: Mapping[str, Metric],
) -> list[Cell]:
    """Cells of one scenario, contrast by contrast: the duet, the serial cell, those with a probe.

    `names` are the metrics of the scenario, and `metrics` describes all that exist. Raises
    `UsageError` if a name is not among them.
    """
    kinds: dict[tuple[Mode, Probe], list[str]] = {("duet", "plain"): [], ("serial", "plain"): []}
    for name in names:
        metric = _metric(name, scenario, metrics)
        mode: Mode = "serial" if metric.mode == "serial" else "duet"
        kinds.setdefault((mode, metric.probe), []).append(name)
    return [
        Cell(scenario, contrast, mode, tuple(of_kind), probe)
        for contrast in contrasts
        for (mode, probe), of_kind in kinds.items()
        if of_kind
    ]


CONFIRMING = "again"
"""Stands after the name of a contrast in that of the fresh pairs which confirm its regressions."""


def confirming(cell: Cell) -> Cell:
    """The cell of fresh pairs that a regression of this one must stand up in.

    By its other name its order and its seeds are drawn anew.
    """
    name = cell.contrast.name
    contrast = replace(cell.contrast, name=f"{name} {CONFIRMING}")
    return replace(cell, contrast=contrast, confirms=name)


def only(planned: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """What is left of the cells where some comparisons are wanted, and no others.

    Patterns are those of a shell, each held to the whole of `scenario/contrast/metric`. A/A
    stays for the metrics that are left. Raises `UsageError` for a pattern that matches nothing.
    """
    rows = {
        _row_name(cell, metric): (cell.scenario, metric)
        for cell in planned
        if cell.contrast.name != NOISE_FLOOR
        for metric in cell.metrics
    }
    wanted: set[str] = set()
    for pattern in patterns:
        # A run file can name thousands of rows one by one: no search for these.
        found = [pattern] if pattern in rows else [r for r in rows if fnmatchcase(r, pattern)]
        if not found:
            raise UsageError(_no_row(pattern, list(rows)))
        wanted.update(found)
    floors = {rows[row] for row in wanted}

    def stays(cell: Cell, metric: str) -> bool:
        if cell.contrast.name == NOISE_FLOOR:
            return (cell.scenario, metric) in floors
        return _row_name(cell, metric) in wanted

    kept = [
        replace(cell, metrics=tuple(name for name in cell.metrics if stays(cell, name)))
        for cell in planned
    ]
    return [cell for cell in kept if cell.metrics]


def _row_name(cell: Cell, metric: str) -> str:
    return f"{cell.scenario}/{cell.confirms or cell.contrast.name}/{metric}"


def _no_row(pattern: str, rows: Sequence[str]) -> str:
    part = pattern.strip("*/")
    near = get_close_matches(pattern, rows) or [row for row in rows if part in row] or rows
    return (
        f"no comparison matches --filter {pattern!r}, which is held to the whole of "
        f"scenario/toggle/metric, such as {' or '.join(near[:3])}"
    )


def trials(cell: Cell, pair: int, seed: int) -> tuple[Trial, Trial]:
    """The two trials of a pair, in the order in which they are started.

    Counted pairs come in blocks of two, A first in one of them and B in the other; which is
    first in a block is drawn by the seed, so neither drift nor a rhythm of the machine can
    side with an arm. Both trials carry the same seed, drawn anew for each pair: whatever it
    decides (hash order, say), it decides for both sides.
    """
    first = _first_side(cell, pair, seed)
    second: Side = "B" if first == "A" else "A"
    trial_seed = _draw(cell, seed, f"pair {pair}").getrandbits(32)
    return _trial(cell, pair, first, 0, trial_seed), _trial(cell, pair, second, 1, trial_seed)


def _metric(name: str, scenario: str, metrics: Mapping[str, Metric]) -> Metric:
    if name in metrics:
        return metrics[name]
    near = get_close_matches(name, metrics) or sorted(metrics)
    raise UsageError(f"{scenario}: no metric {name!r}. Known: {', '.join(near)}.")


def _first_side(cell: Cell, pair: int, seed: int) -> Side:
    # Pair 0 is not counted: blocks are (1, 2), (3, 4), ..., balanced at every even look.
    block, odd = divmod(pair + 1, 2)
    flipped = _draw(cell, seed, f"block {block}").random() < 0.5
    return "A" if flipped == bool(odd) else "B"


def _trial(cell: Cell, pair: int, side: Side, slot: int, seed: int) -> Trial:
    return Trial(
        scenario=cell.scenario,
        contrast=cell.contrast.name,
        mode=cell.mode,
        pair=pair,
        side=side,
        slot=slot,
        arm=cell.contrast.a if side == "A" else cell.contrast.b,
        seed=seed,
        probe=cell.probe,
    )


def _draw(cell: Cell, seed: int, purpose: str) -> Random:
    # Seeded by text: Python hashes it the same in every process and version, unlike `hash`.
    watched = "" if cell.probe == "plain" else f"|{cell.probe}"
    return Random(f"{seed}|{cell.scenario}|{cell.contrast.name}|{cell.mode}{watched}|{purpose}")
