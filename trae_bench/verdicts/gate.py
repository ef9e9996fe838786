"""What a run comes to for whoever waits for it: pass or not, and the exit code. Pure.

Only a run that compares two revisions is a gate. A toggle that makes something slower is a
finding of a run of toggles, no failure of it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.result import Comparison, NoiseEstimate, Pairs
from trae_bench.model.run import RunFile
from trae_bench.stats.decision import MAX_LOG

Kind = Literal[
    "pass", "regression", "inconclusive", "not measured", "answers differ", "interrupted"
]

CODES: dict[Kind, int] = {
    "pass": 0,
    "regression": 1,
    "inconclusive": 0,
    "not measured": 4,
    "answers differ": 5,
    "interrupted": 130,
}
STRICT = 3
"""Exit code of `inconclusive`, where that is no pass."""

MAX_LOST = 0.1
"""Share of a comparison's pairs up to which answers that differ, or crashes, may be an accident,
as a single pair may be: a head that is wrong now and then is wrong."""


class GateResult(Struct, frozen=True):
    """The one word on a run, and the rows that it rests on."""

    kind: Kind
    rows: tuple[Comparison, ...] = ()
    """Those that make it so; of a pass, the improvements."""
    reasons: tuple[str, ...] = ()
    """Why there was nothing to judge."""
    gates: bool = True
    """Off where toggles are compared."""

    def code(self, *, strict: bool = False) -> int:
        return STRICT if strict and self.kind == "inconclusive" else CODES[self.kind]


def outcome(run: RunFile, *, claimed: bool = True) -> GateResult:
    """`claimed` is off where a run was too short for verdicts."""
    gates = run.header.revisions is not None
    if run.stopped == "interrupted":
        return GateResult("interrupted", gates=gates)
    rows = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    if gates:
        found = _differing(rows) or (_worse(rows) if claimed else None) or _lost(run, rows)
        if found is not None:
            return found
    undecided = _undecided(rows, claimed)
    if undecided is not None and not _all_new(run):
        return GateResult(undecided.kind, undecided.rows, undecided.reasons, gates)
    better = tuple(row for row in rows if row.gated and row.judgement.verdict == "improvement")
    return GateResult("pass", better, gates=gates)


def _differing(rows: Iterable[Comparison]) -> GateResult | None:
    differ = tuple(row for row in rows if answers_differ(row) is not None)
    return GateResult("answers differ", differ) if differ else None


def answers_differ(row: Comparison) -> Pairs | None:
    """The pairs of a row, fresh ones included, whose answers differ too often for an accident."""
    taken = _taken(row)
    return next((each for each in taken if _no_accident(each.answers_differ, each)), None)


def not_measured(row: Comparison) -> Pairs | None:
    """The pairs of a row, fresh ones included, that were lost too often for an accident."""
    return next((each for each in _taken(row) if _no_accident(each.not_measured, each)), None)


def _taken(row: Comparison) -> tuple[Pairs, ...]:
    return (row.pairs,) if row.confirmation is None else (row.pairs, row.confirmation.pairs)


def _no_accident(lost: int, pairs: Pairs) -> bool:
    return lost > 0 and (not pairs.measured or lost > max(1, MAX_LOST * (lost + pairs.measured)))


def _worse(rows: Iterable[Comparison]) -> GateResult | None:
    worse = tuple(row for row in rows if row.gated and row.judgement.verdict == "regression")
    return GateResult("regression", worse) if worse else None


def _lost(run: RunFile, rows: Sequence[Comparison]) -> GateResult | None:
    """Too many pairs of a comparison were lost, or equal sides do not come out equal."""
    lost = tuple(row for row in rows if not_measured(row) is not None)
    reasons = [uneven(floor) for floor in run.noise if floor.reliability == "sides differ"]
    if not any(row.pairs.measured for row in rows) and not lost and not _all_new(run):
        reasons.append("no pair was measured")
    return GateResult("not measured", lost, tuple(reasons)) if lost or reasons else None


def _undecided(rows: Sequence[Comparison], claimed: bool) -> GateResult | None:
    if not claimed:
        return GateResult("inconclusive", reasons=("a run of so few pairs claims no verdicts",))
    gated = [row for row in rows if row.gated]
    if not gated:
        return GateResult("inconclusive", reasons=("every metric is too noisy here to be gated",))
    # Where there was no time for a single pair, the question is as open as it was.
    undecided = tuple(
        row
        for row in gated
        if row.judgement.verdict in ("inconclusive", "not measured") or not row.pairs.measured
    )
    return GateResult("inconclusive", undecided) if undecided else None


def _all_new(run: RunFile) -> bool:
    """There is nothing that the base could be asked."""
    compared = run.header.revisions
    return compared is not None and bool(compared.new) and not run.header.cells


def uneven(floor: NoiseEstimate) -> str:
    """What is wrong with a metric whose sides differ where they are equal."""
    return (
        f"{floor.scenario}, {floor.metric}: in {floor.pairs} A/A pairs B is "
        f"{percent_off(floor.mean)} off A, though both are the same"
    )


def percent_off(log_ratio: float) -> str:
    """`+5.1 %`; a change by so much on the log scale."""
    percent = 100 * math.expm1(min(log_ratio, MAX_LOG))
    return f"{percent:+.{2 if abs(percent) < 0.095 else 1}f} %"
