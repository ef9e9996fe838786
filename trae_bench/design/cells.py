"""Plans cells from contrasts, and seeded pairs of trials from cells. Pure.

A cell is sampled as a unit: one contrast, in one mode and with one probe, for all metrics that
need them. The trials of a pair depend only on the cell, the pair number and the seed, so a
resumed run takes exactly the missing pairs.
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
    """Cells of one scenario, contrast by contrast: first duet, then serial, then probes.

    `names` are the metrics of the scenario, and `metrics` describes all that exist. Raises
    `UsageError` if a metric is unknown.
    """
    groups: dict[tuple[Mode, Probe], list[str]] = {("duet", "plain"): [], ("serial", "plain"): []}
    for name in names:
        metric = _metric(name, scenario, metrics)
        mode: Mode = "serial" if metric.mode == "serial" else "duet"
        groups.setdefault((mode, metric.probe), []).append(name)
    return [
        Cell(scenario, contrast, mode, tuple(group), probe)
        for contrast in contrasts
        for (mode, probe), group in groups.items()
        if group
    ]


CONFIRMING = "again"
"""Suffix of the name of a contrast whose fresh pairs confirm the regressions of another."""


def confirming(cell: Cell) -> Cell:
    """The cell of fresh pairs that must confirm a regression of this cell.

    Its different name gives it a different pair order and different seeds.
    """
    name = cell.contrast.name
    contrast = replace(cell.contrast, name=f"{name} {CONFIRMING}")
    return replace(cell, contrast=contrast, confirms=name)


def select_cells(
    planned: Sequence[Cell], patterns: Sequence[str], *, suggest: bool = True
) -> list[Cell]:
    """Reduce the cells to the comparisons that match a pattern, and their A/A pairs.

    Each shell pattern must match a whole `scenario/contrast/metric`. Raises `UsageError` if a
    pattern matches nothing. With `suggest`, the error names similar comparisons; the search for
    them takes long if there are thousands.
    """
    rows = {
        _row_name(cell, metric): (cell.scenario, metric)
        for cell in planned
        if cell.contrast.name != NOISE_FLOOR
        for metric in cell.metrics
    }
    selected: set[str] = set()
    for pattern in patterns:
        # A run file can name thousands of rows one by one: no search for these.
        matches = [pattern] if pattern in rows else [r for r in rows if fnmatchcase(r, pattern)]
        if not matches:
            raise UsageError(_no_match_message(pattern, list(rows), suggest))
        selected.update(matches)
    with_noise = {rows[row] for row in selected}

    def is_selected(cell: Cell, metric: str) -> bool:
        if cell.contrast.name == NOISE_FLOOR:
            return (cell.scenario, metric) in with_noise
        return _row_name(cell, metric) in selected

    kept = [
        replace(cell, metrics=tuple(name for name in cell.metrics if is_selected(cell, name)))
        for cell in planned
    ]
    return [cell for cell in kept if cell.metrics]


def _row_name(cell: Cell, metric: str) -> str:
    return f"{cell.scenario}/{cell.confirms or cell.contrast.name}/{metric}"


def _no_match_message(pattern: str, rows: Sequence[str], suggest: bool) -> str:
    if not suggest:
        return f"no comparison matches --filter {pattern!r}"
    part = pattern.strip("*/")
    near = get_close_matches(pattern, rows) or [row for row in rows if part in row] or rows
    return (
        f"no comparison matches --filter {pattern!r}; the pattern must match a whole "
        f"scenario/toggle/metric, such as {' or '.join(near[:3])}"
    )


def trials(cell: Cell, pair: int, seed: int) -> tuple[Trial, Trial]:
    """The two trials of a pair, in starting order.

    Counted pairs come in blocks of two: A starts first in one pair of the block, B in the other.
    The seed draws the order within each block, so neither drift nor a periodic disturbance
    favors an arm. Both trials of a pair have the same seed, so that it affects both sides alike
    (for example the hash order).
    """
    first = first_side(cell, pair, seed)
    second: Side = "B" if first == "A" else "A"
    trial_seed = _draw(cell, seed, f"pair {pair}").getrandbits(32)
    return _trial(cell, pair, first, 0, trial_seed), _trial(cell, pair, second, 1, trial_seed)


def _metric(name: str, scenario: str, metrics: Mapping[str, Metric]) -> Metric:
    if name in metrics:
        return metrics[name]
    near = get_close_matches(name, metrics) or sorted(metrics)
    raise UsageError(f"{scenario}: no metric {name!r}. Known: {', '.join(near)}.")


def first_side(cell: Cell, pair: int, seed: int) -> Side:
    """The side of a pair that starts first."""
    # Pair 0 is not counted, so blocks are (1, 2), (3, 4), ...: balanced at every even look.
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
    # A text seed gives the same numbers in every process and Python version, unlike `hash`.
    probe = "" if cell.probe == "plain" else f"|{cell.probe}"
    return Random(f"{seed}|{cell.scenario}|{cell.contrast.name}|{cell.mode}{probe}|{purpose}")
