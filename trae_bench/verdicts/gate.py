"""Result of a run as a gate: pass or fail, and the exit code. Pure.

Only a run that compares two revisions is a gate. In a run of toggles, a toggle that slows the
agent down is a finding, not a failure.
"""

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import HEAD
from trae_bench.model.result import Comparison, NoiseEstimate, Pairs
from trae_bench.model.run import RunFile
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.stats.head_runs import (
    MAX_FAILED_SHARE,
    MAX_WRONG_SHARE,
    HeadRuns,
    head_runs,
    too_many,
)

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


class GateResult(Struct, frozen=True):
    """Result of a run, and the rows that decide it."""

    kind: Kind
    rows: tuple[Comparison, ...] = ()
    """The deciding rows; for a pass, the improvements."""
    reasons: tuple[str, ...] = ()
    """Why the run could not be judged, or which checked runs of head gave wrong answers."""
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
        if wrong := [runs for runs in answers_of_head(run) if runs.is_wrong]:
            return _wrong_head(rows, wrong)
        if (lost := _lost(run, rows)) is not None:
            return lost
    undecided = _undecided(rows, claimed)
    if undecided is not None and not _all_new(run):
        return GateResult(undecided.kind, undecided.rows, undecided.reasons, gates)
    better = tuple(row for row in rows if row.gated and row.judgement.verdict == "improvement")
    return GateResult("pass", better, gates=gates)


def _wrong_head(rows: Sequence[Comparison], wrong: Sequence[HeadRuns]) -> GateResult:
    scenarios = {runs.scenario for runs in wrong}
    deciding = tuple(row for row in rows if row.contrast == HEAD and row.scenario in scenarios)
    return GateResult("answers differ", deciding, tuple(map(wrong_answers, wrong)))


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
    share = MAX_WRONG_SHARE
    return next((p for p in _pairs(row) if _too_many(p.answers_differ, p, share)), None)


def not_measured(row: Comparison) -> Pairs | None:
    """The pairs of a row, or its fresh pairs, if too many of them were lost."""
    share = MAX_FAILED_SHARE
    return next((p for p in _pairs(row) if _too_many(p.not_measured, p, share)), None)


def _pairs(row: Comparison) -> tuple[Pairs, ...]:
    return (row.pairs,) if row.confirmation is None else (row.pairs, row.confirmation.pairs)


def _too_many(lost: int, pairs: Pairs, share: float) -> bool:
    everything = lost > 0 and not pairs.measured
    return everything or too_many(lost, lost + pairs.measured, share)


def answers_of_head(run: RunFile) -> list[HeadRuns]:
    """The checked runs of head in each scenario; none in a run that is no gate."""
    return head_runs(run.samples, run.checks, run.header.cells, run.header.limits)


def wrong_answers(runs: HeadRuns) -> str:
    """`bugfix, wrong answers in 2 of 30 runs of head: the transcripts differ`."""
    return _described(runs, f"wrong answers in {runs.wrong}")


def failed_runs(runs: HeadRuns) -> str:
    """`bugfix, no answer in 4 of 30 runs of head: head: exit status 1`."""
    return _described(runs, f"no answer in {runs.failed}")


def _described(runs: HeadRuns, what: str) -> str:
    reason = runs.reasons[0] if runs.reasons else "unknown reason"
    return f"{runs.scenario}, {what} of {runs.total} runs of head: {reason}"


def _lost(run: RunFile, rows: Sequence[Comparison]) -> GateResult | None:
    """Too many pairs of a comparison were lost, or the A/A sides of a metric differ."""
    lost = tuple(row for row in rows if not_measured(row) is not None)
    reasons = [bias_message(noise) for noise in run.noise if noise.reliability == "sides differ"]
    reasons += [failed_runs(runs) for runs in answers_of_head(run) if runs.is_failing]
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
