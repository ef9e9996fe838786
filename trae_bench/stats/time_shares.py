"""How the time of a session divides into waiting for the model, tools, and the agent. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from trae_bench.model.sample import Sample

Arms = tuple[str, str]
"""Scenario and name of an arm."""


class TimeShares(Struct, frozen=True):
    """Fractions of the wall time of an arm's trials; their sum is 1."""

    model: float
    tools: float | None
    """None if the tools are not told apart: they are then in `agent`."""
    agent: float
    trials: int


def time_shares(samples: Iterable[Sample]) -> dict[Arms, TimeShares]:
    """Return the shares of each arm of each scenario whose samples tell them.

    Only correct plain trials count, without the warm-up pair. Serial ones are preferred: the times
    of a duet contain the other side. Of a duet the net wall time is divided, between tools and
    agent in the ratio of their own times, which the other side lengthens alike.
    """
    serial: dict[Arms, list[Sample]] = defaultdict(list)
    duet: dict[Arms, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.pair > 0 and sample.correct and sample.probe == "plain":
            kind = serial if sample.mode == "serial" else duet
            kind[sample.scenario, sample.arm].append(sample)
    return _of_arms(duet, "wall_net") | _of_arms(serial, "wall")


def _of_arms(samples: Mapping[Arms, Sequence[Sample]], wall: str) -> dict[Arms, TimeShares]:
    """Return the shares of each arm, from those of its samples that have the wall time."""
    found = {}
    for arms, of_arm in samples.items():
        trials = [one.metrics for one in of_arm if {wall, "model_time"} <= one.metrics.keys()]
        if (shares := _shares(trials, wall)) is not None:
            found[arms] = shares
    return found


def _shares(trials: Sequence[Mapping[str, float]], wall: str) -> TimeShares | None:
    total = sum(trial[wall] for trial in trials)
    # A file of others can hold any number.
    if not 0 < total < math.inf:
        return None
    model = min(1.0, max(0.0, sum(trial["model_time"] for trial in trials) / total))
    if not all("tool_time" in trial and "agent_time" in trial for trial in trials):
        return TimeShares(model, None, 1 - model, len(trials))
    tools, agent = (sum(trial[name] for trial in trials) for name in ("tool_time", "agent_time"))
    if not 0 < tools + agent < math.inf:
        return TimeShares(model, 0.0, 1 - model, len(trials))
    share = min(1.0, max(0.0, tools / (tools + agent))) * (1 - model)
    return TimeShares(model, share, 1 - model - share, len(trials))
