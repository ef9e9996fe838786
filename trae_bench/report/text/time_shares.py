"""How the time of a session divides into model, tools and agent, in one line per scenario."""

from collections.abc import Iterator
from itertools import islice

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import percent, side_names
from trae_bench.stats.time_shares import TimeShares, time_shares

MAX_LINES = 3
"""Scenarios with a line; `trae-bench explain` tells the others."""
MAX_AGENTS = 5
"""Agents in a line."""


def lines(run: RunFile) -> list[str]:
    """A line for each of the first scenarios whose samples tell it."""
    return list(islice(_lines(run), MAX_LINES))


def text(name: str, shares: TimeShares) -> str:
    """The shares of one arm: `off 2 % model, 61 % tools, 37 % agent`."""
    parts = [f"{percent(shares.model)} model"]
    parts += [] if shares.tools is None else [f"{percent(shares.tools)} tools"]
    rest = "agent" if shares.tools is not None else "tools and agent"
    return f"{for_terminal(name, 24)} {', '.join([*parts, f'{percent(shares.agent)} {rest}'])}"


def _lines(run: RunFile) -> Iterator[str]:
    found = time_shares(run.samples)
    for scenario in run.header.scenarios:
        arms = _arms(run, scenario).items()
        known = [(name, found[scenario, arm]) for name, arm in arms if (scenario, arm) in found]
        if known:
            texts = "; ".join(text(*one) for one in known[:MAX_AGENTS])
            yield f"Time in {for_terminal(scenario, 40)}: {texts}"


def _arms(run: RunFile, scenario: str) -> dict[str, str]:
    """The arms that are shown, by the names that are shown: all agents, both revisions, or off."""
    contrasts = [cell.contrast for cell in run.header.cells if cell.scenario == scenario]
    contrasts = [one for one in contrasts if one.name != NOISE_FLOOR] or contrasts
    if run.header.agents and run.header.revisions is None:
        arms = [arm for contrast in contrasts for arm in (contrast.a, contrast.b)]
        return {arm.agent: arm.name for arm in arms if arm.agent}
    shown = 2 if run.header.revisions is not None else 1
    sides = [(contrast.a.name, contrast.b.name) for contrast in contrasts[:1]]
    return dict(list(zip(side_names(run), *sides, strict=True))[:shown]) if sides else {}
