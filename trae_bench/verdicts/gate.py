"""Result of a run as a gate: pass or fail, and the exit code. Pure.

Only a run that compares two revisions is a gate. In a run of toggles, a toggle that slows the
agent down is a finding, not a failure.
"""

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.result import Comparison, NoiseEstimate, Pairs
from trae_bench.model.run import RunFile
from trae_bench.stats.decision import MAX_LOG_RATIO

Kind = Literal[
    "pass", "regression", "inconclusive", "not measured", "answers differ", "interrupted"
]

EXIT_CODES: dict[Kind, int] = {
    "pass": 0,
    "regression": 1,
    "inconclusive": 0,
    "not measured": 4,
    "answers differ": 5,
    "interrupted": 130,
}
STRICT_EXIT_CODE = 3
"""Exit code of `inconclusive` with --strict."""

MAX_LOST_SHARE = 0.1
"""Largest share of a comparison's pairs that may be lost without failing the gate. A single pair
is always tolerated."""
MAX_DIFFERENT_SHARE = 0.02
"""The same for pairs with different answers. A busy machine can lose a pair, but it does not change
an answer."""


class GateResult(Struct, frozen=True):
    """Result of a run, and the rows that decide it."""

    kind: Kind
    rows: tuple[Comparison, ...] = ()
    """The deciding rows; for a pass, the improvements."""
    reasons: tuple[str, ...] = ()
    """Why the run could not be judged."""
    gates: bool = True
    """False if the run compares toggles."""

    def code(self, *, strict: bool = False) -> int:
        return STRICT_EXIT_CODE if strict and self.kind == "inconclusive" else EXIT_CODES[self.kind]


def outcome(run: RunFile, *, claimed: bool = True) -> GateResult:
    """Result of a run; `claimed` is False if the run was too short for verdicts."""
    gates = run.header.revisions is not None
    if run.stopped == "interrupted":
        return GateResult("interrupted", gates=gates)
    rows = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    if gates:
        different = tuple(row for row in rows if answers_differ(row) is not None)
        if different:
            return GateResult("answers differ", different)
        worse = tuple(row for row in rows if row.gated and row.judgement.verdict == "regression")
        if worse and claimed:
            return GateResult("regression", worse)
        if (lost := _lost(run, rows)) is not None:
            return lost
    undecided = _undecided(rows, claimed)
    if undecided is not None and not _all_new(run):
        return GateResult(undecided.kind, undecided.rows, undecided.reasons, gates)
    better = tuple(row for row in rows if row.gated and row.judgement.verdict == "improvement")
    return GateResult("pass", better, gates=gates)


def remedy_for_variation(run: RunFile) -> str:
    """What to do if the answers of one revision, or one agent, differ from run to run."""
    remedy = "name what varies from run to run in [[normalise]] of the scenario"
    return f"{remedy}, or give --equal work" if judges_requests(run) else remedy


def judges_requests(run: RunFile) -> bool:
    """Whether a pair of foreign agents must have equal requests, which can be switched off."""
    agents = (run.header.agents or {}).values()
    return any(agent.equal == "conversation" for agent in agents)


def answers_differ(row: Comparison) -> Pairs | None:
    """The pairs of a row, or its fresh pairs, if too many of them have different answers."""
    share = MAX_DIFFERENT_SHARE
    return next((p for p in _pairs(row) if _too_many(p.answers_differ, p, share)), None)


def not_measured(row: Comparison) -> Pairs | None:
    """The pairs of a row, or its fresh pairs, if too many of them were lost."""
    share = MAX_LOST_SHARE
    return next((p for p in _pairs(row) if _too_many(p.not_measured, p, share)), None)


def _pairs(row: Comparison) -> tuple[Pairs, ...]:
    return (row.pairs,) if row.confirmation is None else (row.pairs, row.confirmation.pairs)


def _too_many(lost: int, pairs: Pairs, share: float) -> bool:
    limit = max(1, share * (lost + pairs.measured))
    return lost > 0 and (not pairs.measured or lost > limit)


def _lost(run: RunFile, rows: Sequence[Comparison]) -> GateResult | None:
    """Too many pairs of a comparison were lost, or the A/A sides of a metric differ."""
    lost = tuple(row for row in rows if not_measured(row) is not None)
    reasons = [bias_message(noise) for noise in run.noise if noise.reliability == "sides differ"]
    if not any(row.pairs.measured for row in rows) and not lost and not _all_new(run):
        reasons.append("no pair was measured")
    return GateResult("not measured", lost, tuple(reasons)) if lost or reasons else None


def _undecided(rows: Sequence[Comparison], claimed: bool) -> GateResult | None:
    if not claimed:
        return GateResult("inconclusive", reasons=("a run of so few pairs gives no verdicts",))
    gated = [row for row in rows if row.gated]
    if not gated:
        return GateResult("inconclusive", reasons=("every metric is too noisy here to be gated",))
    undecided = tuple(row for row in rows if _is_undecided(row))
    return GateResult("inconclusive", undecided) if undecided else None


def _is_undecided(row: Comparison) -> bool:
    verdict = row.judgement.verdict
    if not row.gated:
        # The noise keeps it out of the gate, but it shows a large slowdown all the same.
        return verdict == "regression"
    # A row without a measured pair had no time left.
    return verdict in ("inconclusive", "not measured") or not row.pairs.measured


def _all_new(run: RunFile) -> bool:
    """Whether the base can run none of the scenarios."""
    compared = run.header.revisions
    return compared is not None and bool(compared.new) and not run.header.cells


def bias_message(noise: NoiseEstimate) -> str:
    """Describes a metric whose A/A sides differ."""
    return (
        f"{noise.scenario}, {noise.metric}: in {noise.pairs} A/A pairs B is "
        f"{percent_change(noise.mean)} off A, although both sides are the same"
    )


def percent_change(log_ratio: float) -> str:
    """A log ratio as a signed change: `+5.1 %`."""
    percent = 100 * math.expm1(min(log_ratio, MAX_LOG_RATIO))
    return f"{percent:+.{2 if abs(percent) < 0.095 else 1}f} %"
