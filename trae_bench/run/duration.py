"""Estimates how long a plan takes: from earlier runs on this machine, else from its scripts.

The estimate is rough: the time of tools, and the look at which a verdict comes, are unknown. Two
in three pairs of the shipped scenarios were estimated to within a factor of
two. Scenarios whose steps get slower are underestimated, such as a trajectory of a thousand
steps that is rewritten at each step.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import msgspec
from msgspec import Struct

from trae_bench._util import host_facts
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import BadRunFile
from trae_bench.execution import callgrind
from trae_bench.model.experiment import Cell, Mode, Probe
from trae_bench.model.run import RunFile
from trae_bench.run.planner import Plan
from trae_bench.scenario import Scenario
from trae_bench.stats.metric_rules import first_look
from trae_bench.stats.pairs import group_samples, pair_outcome
from trae_bench.stats.stopping import seconds_taken
from trae_bench.storage.run_file import read_run

# CPU seconds of agent_core, roughly, on a machine of 2026.
START = 0.15
"""Seconds before the first request."""
STEP = 0.010
"""Seconds for a request and the processing of its reply."""
CALL = 0.004
"""Seconds for a tool call, without the time that a command takes."""
OVERHEAD = 0.03
"""Seconds between two trials: folders, digests, the journal."""
RETRY = 0.5
"""Seconds before an agent retries, if the reply does not say."""
SLOWDOWN: Mapping[Probe, float] = {"tracemalloc": 4.0, "callgrind": float(callgrind.SLOWDOWN)}
_SLEEP = re.compile(r"\bsleep (\d+(?:\.\d+)?)")

MAX_FILES = 20
"""Maximum number of run files that are read, the newest first."""
MAX_BYTES = 16 * 1024 * 1024


class Span(Struct, frozen=True):
    """Seconds: a lower and an upper estimate."""

    minimum: float
    """Every verdict comes at the first look."""
    maximum: float
    """No verdict comes before the last look."""


class Kind(NamedTuple):
    """Pairs of one kind take about the same time."""

    scenario: str
    mode: Mode
    probe: Probe


class DurationEstimate(Struct, frozen=True):
    """How long a plan takes."""

    cells: tuple[Span, ...]
    """In the order of the plan."""
    total: Span
    guessed: tuple[str, ...]
    """Scenarios without an earlier run."""


def estimate(plan: Plan, results: Path) -> DurationEstimate:
    """The duration of a plan, from the run files in `results` of the same scenarios."""
    seen = paces(plan, results)
    spans = [_span(cell, plan, seen) for cell in plan.cells]
    known = {kind.scenario for kind in seen}
    return DurationEstimate(
        cells=tuple(spans),
        total=Span(sum(span.minimum for span in spans), sum(span.maximum for span in spans)),
        guessed=tuple(name for name in plan.scenarios if name not in known),
    )


def _span(cell: Cell, plan: Plan, seen: Mapping[Kind, float]) -> Span:
    kind = Kind(cell.scenario, cell.mode, cell.probe)
    pace = seen[kind] if kind in seen else guess(plan.scenarios[cell.scenario], cell)
    pairs = plan.pairs_of(cell)
    return Span(pace * min(pairs, _first_look(cell, plan)), pace * pairs)


def _first_look(cell: Cell, plan: Plan) -> int:
    """Pairs, including the warm-up pair, at which all rows of a cell can be settled."""
    if cell.confirms:
        # Without a regression there is nothing to confirm.
        return 0
    if cell.contrast.name == NOISE_FLOOR or plan.limits.fixed:
        return plan.pairs_of(cell)
    return 1 + first_look(cell, plan.metrics)


# -- from the script --------------------------------------------------------------------


def guess(scenario: Scenario, cell: Cell) -> float:
    """Seconds that a pair takes, estimated from the scenario."""
    work, wait = _trial(scenario)
    work *= SLOWDOWN.get(cell.probe, 1.0)
    # The sides of a duet share one core and wait at the same time.
    seconds = 2 * work + wait if cell.mode == "duet" else 2 * (work + wait)
    return seconds + 2 * OVERHEAD


def _trial(scenario: Scenario) -> tuple[float, float]:
    """Seconds of CPU time, and of waiting, of a trial."""
    load, steps = scenario.load, sum(turn.repeat for turn in scenario.turns)
    calls = sum(turn.repeat * len(turn.calls) for turn in scenario.turns)
    wait = math.ceil(load.sessions / load.concurrency) * _waiting(scenario, steps)
    if load.sessions_per_second is not None:
        wait = max(wait, load.sessions / load.sessions_per_second)
    work = START + load.sessions * (steps * STEP + calls * CALL)
    return work * scenario.subject.runs, wait * scenario.subject.runs


def _waiting(scenario: Scenario, steps: int) -> float:
    """Seconds that one session waits for the provider and for commands that sleep."""
    provider = scenario.provider
    # A new connection for each request, as without a pool, costs another round trip.
    trips = (2 + provider.tls) * provider.rtt_seconds
    chunks = 0.0
    if provider.stream:
        letters = sum(turn.repeat * len(msgspec.json.encode(turn)) for turn in scenario.turns)
        chunks = letters / provider.chunk_characters * provider.chunk_seconds
    slept = sum(
        turn.repeat * float(seconds)
        for turn in scenario.turns
        for call in turn.calls
        for seconds in _SLEEP.findall(str(call.arguments))
    )
    retries = sum(RETRY if f.retry_after is None else f.retry_after for f in provider.faults)
    return steps * (provider.think_seconds + trips) + chunks + slept + retries


# -- from earlier runs ------------------------------------------------------------------


def paces(plan: Plan, results: Path) -> dict[Kind, float]:
    """Seconds that a pair took in the newest run of each scenario on this kind of machine."""
    here, found = host_facts.fingerprint(), dict[Kind, float]()
    for run in _runs(results):
        if any(run.header.machine.get(name) != here.get(name) for name in ("cpu", "cores")):
            continue
        known = {kind.scenario for kind in found}
        same = {
            name
            for name, used in plan.used.items()
            if name not in known
            and (before := run.header.scenarios.get(name)) is not None
            and before.digest == used.digest
        }
        found |= {kind: pace for kind, pace in _paces(run).items() if kind.scenario in same}
        if plan.used.keys() <= {kind.scenario for kind in found}:
            break
    return found


def _runs(results: Path) -> Iterator[RunFile]:
    for path in sorted(results.glob("*.json"), key=_changed, reverse=True)[:MAX_FILES]:
        try:
            yield read_run(path, max_bytes=MAX_BYTES)
        except BadRunFile:
            continue


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _paces(run: RunFile) -> dict[Kind, float]:
    taken: dict[Kind, list[float]] = {}
    for key, pairs in group_samples(run.samples).items():
        kind = Kind(key.scenario, key.mode, key.probe)
        for a, b in pairs.values():
            if a is not None and b is not None and pair_outcome(a, b)[0] == "measured":
                taken.setdefault(kind, []).append(seconds_taken((a, b)))
    return {kind: fmean(seconds) + 2 * OVERHEAD for kind, seconds in taken.items()}
