"""Generates the cells of a run from what its header stores. Pure.

The planner and `verify` both call this, so a run file can be checked against its own header.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from trae_bench.design.cells import cells, confirming, select_cells
from trae_bench.design.contrasts import NOISE_FLOOR, contrasts, count_contrasts
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Metric
from trae_bench.model.run import RevisionPair, ScenarioUsed

HEAD = "head"
"""Name of the contrast between two revisions, and of its side B."""
AGENT_ARM = "agent "
"""Start of the name of an agent's arm."""


def planned_cells(
    scenarios: Mapping[str, ScenarioUsed],
    metrics: Mapping[str, Metric],
    limits: Limits,
    *,
    design: str = "add-one",
    filters: Sequence[str] = (),
    revisions: RevisionPair | None = None,
    agents: Sequence[str] = (),
    suggest: bool = True,
) -> list[Cell]:
    """The cells of a run, in the order in which they are planned.

    `agents` are the names of the agents, the baseline first; none for agent_core. Scenarios that
    only the head revision can run have no cells. Raises `UsageError` for an unknown design or
    metric, and for a filter that matches no comparison; with `suggest`, it names similar
    comparisons.
    """
    new = () if revisions is None else revisions.new
    planned = [
        cell
        for name, used in scenarios.items()
        if name not in new
        for cell in cells(name, used.metrics, _contrasts(used, design, revisions, agents), metrics)
    ]
    if filters:
        planned = select_cells(planned, filters, suggest=suggest)
    if revisions is not None:
        planned += [confirming(cell) for cell in planned if cell.contrast.name != NOISE_FLOOR]
    # The A/A pairs of a single agent are its figures.
    if not limits.noise_pairs and (revisions is not None or len(agents) != 1):
        planned = [cell for cell in planned if cell.contrast.name != NOISE_FLOOR]
    return planned


def plan_size(
    scenarios: Mapping[str, ScenarioUsed],
    design: str,
    revisions: RevisionPair | None = None,
    agents: Sequence[str] = (),
) -> int:
    """Roughly the work of `planned_cells` before filters: contrasts times toggles and metrics.

    Raises `UsageError` for an unknown design.
    """
    return sum(
        contrast_count(used, design, revisions, agents)
        * (1 + len(used.varied) + len(used.baseline) + len(used.metrics))
        for used in scenarios.values()
    )


def contrast_count(
    used: ScenarioUsed,
    design: str,
    revisions: RevisionPair | None,
    agents: Sequence[str] = (),
) -> int:
    """Upper bound of the contrasts of one scenario. Raises `UsageError` for an unknown design."""
    if revisions is not None:
        return 2
    return len(agents) or count_contrasts(len(used.varied), design)


def _contrasts(
    used: ScenarioUsed, design: str, revisions: RevisionPair | None, agents: Sequence[str]
) -> Sequence[Contrast]:
    if revisions is not None:
        base, head = revision_arms(used, revisions, agents)
        # Both sides of A/A are the base: noise that the change adds must not exclude its own
        # metric.
        return Contrast(NOISE_FLOOR, base, base), Contrast(HEAD, base, head)
    if agents:
        first = agent_arm(agents[0])
        others = (Contrast(name, first, agent_arm(name)) for name in agents[1:])
        return Contrast(NOISE_FLOOR, first, first), *others
    return contrasts(used.varied, used.baseline, design)


def agent_arm(agent: str) -> Arm:
    """The arm of an agent. Its name cannot be that of a toggle or a revision."""
    return Arm(f"{AGENT_ARM}{agent}", {}, agent=agent)


def revision_arms(
    used: ScenarioUsed, revisions: RevisionPair, agents: Sequence[str] = ()
) -> tuple[Arm, Arm]:
    """Base and head as arms of one scenario; of the only agent, if there is one."""
    agent = agents[0] if agents else UNSET
    base = Arm("base", used.baseline, revisions.base.name, agent)
    return base, Arm(HEAD, used.head or {}, revisions.head.name, agent)
