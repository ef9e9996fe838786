"""Generates the cells of a run from what its header stores. Pure.

The planner and `verify` both call this, so a run file can be checked against its own header.
"""

from collections.abc import Mapping, Sequence

from trae_bench.design.cells import cells, confirming, select_cells
from trae_bench.design.contrasts import NOISE_FLOOR, contrasts, count_contrasts
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Metric
from trae_bench.model.run import RevisionPair, ScenarioUsed

HEAD = "head"
"""Name of the contrast between two revisions, and of its side B."""


def planned_cells(
    scenarios: Mapping[str, ScenarioUsed],
    metrics: Mapping[str, Metric],
    limits: Limits,
    *,
    design: str = "add-one",
    filters: Sequence[str] = (),
    revisions: RevisionPair | None = None,
    suggest: bool = True,
) -> list[Cell]:
    """The cells of a run, in the order in which they are planned.

    Scenarios that only the head revision can run have none. Raises `UsageError` for an unknown
    design or metric, and for a filter that matches no comparison; with `suggest`, it names
    similar comparisons.
    """
    new = () if revisions is None else revisions.new
    planned = [
        cell
        for name, used in scenarios.items()
        if name not in new
        for cell in cells(name, used.metrics, _contrasts(used, design, revisions), metrics)
    ]
    if filters:
        planned = select_cells(planned, filters, suggest=suggest)
    if revisions is not None:
        planned += [confirming(cell) for cell in planned if cell.contrast.name != NOISE_FLOOR]
    if not limits.noise_pairs:
        planned = [cell for cell in planned if cell.contrast.name != NOISE_FLOOR]
    return planned


def plan_size(
    scenarios: Mapping[str, ScenarioUsed], design: str, revisions: RevisionPair | None = None
) -> int:
    """Roughly the work of `planned_cells` before filters: contrasts times toggles and metrics.

    Raises `UsageError` for an unknown design.
    """
    return sum(
        contrast_count(used, design, revisions)
        * (1 + len(used.varied) + len(used.baseline) + len(used.metrics))
        for used in scenarios.values()
    )


def contrast_count(used: ScenarioUsed, design: str, revisions: RevisionPair | None) -> int:
    """Upper bound of the contrasts of one scenario. Raises `UsageError` for an unknown design."""
    return 2 if revisions is not None else count_contrasts(len(used.varied), design)


def _contrasts(
    used: ScenarioUsed, design: str, revisions: RevisionPair | None
) -> Sequence[Contrast]:
    if revisions is None:
        return contrasts(used.varied, used.baseline, design)
    base, head = revision_arms(used, revisions)
    # Both sides of A/A are the base: noise that the change adds must not exclude its own metric.
    return Contrast(NOISE_FLOOR, base, base), Contrast(HEAD, base, head)


def revision_arms(used: ScenarioUsed, revisions: RevisionPair) -> tuple[Arm, Arm]:
    """Base and head as arms of one scenario."""
    base = Arm("base", used.baseline, revisions.base.name)
    return base, Arm(HEAD, used.head or {}, revisions.head.name)
