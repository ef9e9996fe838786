"""From contrasts to cells and from cells to seeded, paired trials. Pure.

A cell is what is sampled together: one contrast, taken in one mode and by one probe, for all
metrics that want those. A pair of a cell is the same whenever and in whatever order it is asked
for, so a resumed run goes on with the very pairs that are missing.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from random import Random

from msgspec import Struct

from trae_bench.errors import UsageError
from trae_bench.records import Contrast, Metric, Mode, Name, Probe, Side, Trial
from trae_bench.scenario import Scenario


class Cell(Struct, frozen=True):
    """Pairs of one contrast in one mode."""

    scenario: Name
    contrast: Contrast
    mode: Mode
    """`duet` or `serial`; metrics that are compared exactly ride along in a duet."""
    metrics: tuple[Name, ...]
    probe: Probe = "plain"


def cells(
    scenario: Scenario, contrasts: Sequence[Contrast], metrics: Mapping[str, Metric]
) -> list[Cell]:
    """Cells of one scenario, contrast by contrast: the duet, the serial one, those with a probe.

    Raises `UsageError` for a metric of the scenario that is not in the table.
    """
    kinds: dict[tuple[Mode, Probe], list[str]] = {("duet", "plain"): [], ("serial", "plain"): []}
    for name in scenario.metrics:
        metric = _metric(name, scenario, metrics)
        mode: Mode = "serial" if metric.mode == "serial" else "duet"
        kinds.setdefault((mode, metric.probe), []).append(name)
    return [
        Cell(scenario.name, contrast, mode, tuple(names), probe)
        for contrast in contrasts
        for (mode, probe), names in kinds.items()
        if names
    ]


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


def _metric(name: str, scenario: Scenario, metrics: Mapping[str, Metric]) -> Metric:
    if name in metrics:
        return metrics[name]
    near = get_close_matches(name, metrics) or sorted(metrics)
    raise UsageError(f"{scenario.name}: no metric {name!r}. Known: {', '.join(near)}.")


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
