"""Checks of a run file's conclusions: recomputed from its samples."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.confirmation import fresh_pairs_for, regressions_to_confirm
from trae_bench.stats.noise import noise_floor
from trae_bench.stats.pairs import PairOfSamples, group_samples, key_of, pair_outcome, row_keys
from trae_bench.stats.stopping import GIVE_UP, NOISE_SHARE, asking, seconds_taken, target
from trae_bench.storage.verify.inconsistency import Inconsistencies, wrong

# A file is exact to the last bit on the machine that wrote it. Another machine's library may
# round a logarithm the other way.
RELATIVE, ABSOLUTE = 1e-9, 1e-15
NEARLY = 0.9
"""The part of the time for A/A pairs that must be in the samples if these pairs ended early. The
rest was spent before the first sample."""


def check_stop(run: RunFile) -> Inconsistencies:
    """No cell took more pairs than planned. A run is `done` only if no cell needs another pair."""
    limits = run.header.limits
    grouped, found = group_samples(run.samples), regressions_to_confirm(run.comparisons)
    unsettled = asking(run.comparisons, limits, run.header.metrics)
    for cell in run.header.cells:
        place = f"pairs of {cell.scenario}, {cell.contrast.name} ({cell.mode})"
        counted, lost = _counts(grouped.get(key_of(cell), {}))
        maximum = target(cell, limits, run.header.metrics)
        if cell.confirms:
            needed = fresh_pairs_for(cell, found)
            # More than needed are fine: another row can move the look that asks for them.
            maximum = maximum if needed else 0
        else:
            needed = maximum
        if counted > maximum:
            yield wrong(place, f"{counted} counted, at most {maximum} planned")
        # A/A pairs end early if they would take too much of the budget.
        ended_early = lost - counted >= GIVE_UP or cell.contrast.name == NOISE_FLOOR
        if run.stopped != "done" or counted >= needed or ended_early:
            continue
        if cell.confirms or not counted or not unsettled.isdisjoint(row_keys(cell)):
            problem = f"the run is done, but after {counted} of {needed} pairs it is not settled"
            yield wrong(place, problem)


def check_noise(run: RunFile) -> Inconsistencies:
    """Every judged metric has A/A pairs: all planned ones if there was time.

    These pairs decide which rows are gated, and how reliable their verdicts are.
    """
    header = run.header
    if run.stopped == "budget" and header.limits.budget is None:
        yield wrong("stopped", "its budget ended it, but it had none")
    if not header.limits.noise_pairs:
        return
    floors = {key_of(cell): cell for cell in header.cells if cell.contrast.name == NOISE_FLOOR}
    for number, cell in enumerate(header.cells):
        floor = floors.get(key_of(cell)._replace(contrast=NOISE_FLOOR))
        for name in () if cell.confirms else cell.metrics:
            if floor is None or name not in floor.metrics:
                yield wrong(f"header.cells[{number}]", f"{name!r} has no A/A pairs in the plan")
    if _ended_for_time(run):
        return
    grouped, limits = group_samples(run.samples), header.limits
    for key, cell in floors.items():
        counted, lost = _counts(grouped.get(key, {}))
        maximum = target(cell, limits, header.metrics)
        if counted < maximum and lost - counted < GIVE_UP:
            place = f"pairs of {cell.scenario}, {cell.contrast.name} ({cell.mode})"
            yield wrong(place, f"{counted} of {maximum} were counted, but there was time for more")


def _ended_for_time(run: RunFile) -> bool:
    """Whether A/A pairs may have ended early: with their share of the budget, or with the run."""
    budget = run.header.limits.budget
    if (run.stopped != "done" and run.stopped != "budget") or run.resumed:
        # The samples do not tell what was running when it was interrupted, or for how long.
        return True
    if budget is None:
        return False
    noise = total = 0.0
    for key, pairs in group_samples(run.samples).items():
        seconds = sum(seconds_taken(filter(None, pair)) for pair in pairs.values())
        total += seconds
        noise += seconds if key.contrast == NOISE_FLOOR else 0.0
    spent = run.elapsed * noise / total if total else 0.0
    # A run without time for other pairs may have had none for all A/A pairs either.
    only_noise = all(sample.contrast == NOISE_FLOOR for sample in run.samples)
    return only_noise or spent > NOISE_SHARE * budget * NEARLY


def _counts(pairs: Mapping[int, PairOfSamples]) -> tuple[int, int]:
    """The number of counted pairs, and of lost pairs including the warm-up pair."""
    outcomes = {number: pair_outcome(*pair)[0] == "measured" for number, pair in pairs.items()}
    return (
        sum(good for number, good in outcomes.items() if number > 0),
        sum(not good for good in outcomes.values()),
    )


def check_conclusions(run: RunFile) -> Inconsistencies:
    """Rows and noise estimates are recomputed from the samples."""
    rows = comparisons(run.samples, run.header.cells, run.header.metrics)
    yield from _differing("comparisons", rows, run.comparisons)
    yield from _differing("noise", noise_floor(rows, run.header.metrics), run.noise)


def _differing(name: str, expected: Sequence[Any], found: Sequence[Any]) -> Inconsistencies:
    if len(expected) != len(found):
        yield wrong(name, f"{len(found)} of them, the samples give {len(expected)}")
    for number, (should, does) in enumerate(zip(expected, found, strict=False)):
        if should == does:
            continue
        row = ", ".join(str(getattr(does, key, "")) for key in ("scenario", "contrast", "metric"))
        for path, a, b in _leaves(msgspec.to_builtins(should), msgspec.to_builtins(does), ""):
            place = f"{name}[{number}]{path} ({row})"
            yield wrong(place, f"{b!r} in the file, the samples give {a!r}")


def _leaves(should: Any, does: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """The places where two plain values differ by more than rounding."""
    if isinstance(should, dict) and isinstance(does, dict):
        for key in should:
            yield from _leaves(should[key], does.get(key), f"{path}.{key}")
    elif isinstance(should, float) and isinstance(does, float | int):
        if not math.isclose(should, does, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield path, should, does
    elif should != does:
        yield path, should, does


CONCLUSION_CHECKS = (check_stop, check_noise, check_conclusions)
