"""Runs of head whose answers are checked before a gate passes. Pure.

A gate can be settled after eight pairs, which often hide a head that is wrong now and then.
Further runs of head follow then. Nothing is measured in them: each repeats the head of an earlier
pair, with its seed, and its answer is compared with the answer of the base in that pair. One run
of the base comes first. If its answer is another one than in the pair, answers depend on the
time or on the cores that a trial may use, and nothing can be said about head.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct, UnsetType
from msgspec.structs import replace

from trae_bench.design.cells import trials
from trae_bench.design.plan import HEAD
from trae_bench.model.experiment import Cell, Limits, Trial
from trae_bench.model.result import Comparison
from trae_bench.model.sample import Sample
from trae_bench.stats.pairs import (
    PairOfSamples,
    first_and_last_line,
    group_samples,
    key_of,
    pair_outcome,
)

CHECKS = "head checks"
"""Name of the contrast of these runs."""

WANTED = 30
"""Runs of head whose answers are checked. A fault in one run of ten shows in 96 % of such sets."""

AFTER_ONE = 2
"""Factor of `WANTED` after one wrong answer: the others must show that it is rare."""

MAX_FAILED_SHARE = 0.1
"""Largest share of pairs or runs that may be lost without failing the gate. A single one is
always tolerated."""
MAX_WRONG_SHARE = 0.02
"""The same for different answers. A busy machine can lose a pair, but it does not change an
answer."""
CONFIDENCE = 0.95
MAX_AGAIN = 3
"""Runs of the base, if the first ones give no answer."""


def too_many(lost: int, total: int, share: float) -> bool:
    """Whether more than a share of `total` pairs or runs was lost, and more than one."""
    return lost > max(1, share * total)


class HeadRuns(Struct, frozen=True):
    """The runs of head in one scenario, by their answers."""

    scenario: str
    wanted: int
    """Number of runs to check."""
    right: int = 0
    wrong: int = 0
    failed: int = 0
    """Runs without an answer."""
    reasons: tuple[str, ...] = ()
    """Why each wrong or failed run is."""
    unknown: str = ""
    """Why no further run can be checked."""

    @property
    def total(self) -> int:
        return self.right + self.wrong + self.failed

    @property
    def is_wrong(self) -> bool:
        """Too many answers are wrong. A single one must be shown to be rare, if it can be."""
        one = self.wrong == 1 and self.wrong > MAX_WRONG_SHARE * self.total
        return (one and not self.unknown) or too_many(self.wrong, self.total, MAX_WRONG_SHARE)

    @property
    def is_failing(self) -> bool:
        return too_many(self.failed, self.total, MAX_FAILED_SHARE)

    @property
    def missing(self) -> int:
        """Runs that are still to be checked; 0 if they cannot change the result."""
        lost = self.wrong > 1 or too_many(self.failed, self.wanted, MAX_FAILED_SHARE)
        return 0 if lost or self.unknown else max(0, self.wanted - self.total)

    @property
    def hidden(self) -> float:
        """Largest share of wrong answers that can have stayed unseen, with 95 % confidence."""
        return 1 - (1 - CONFIDENCE) ** (1 / self.total) if self.total else 1.0


def is_check_of(sample: Sample, scenarios: Container[str]) -> bool:
    """Whether a sample is a check of head in one of these scenarios."""
    arm = "base" if sample.side == "A" else HEAD
    kind = (sample.contrast, sample.mode, sample.probe, sample.arm)
    return sample.scenario in scenarios and kind == (CHECKS, "serial", "plain", arm)


class _Reference(NamedTuple):
    cell: Cell
    base: Sample


def wanted_runs(limits: Limits) -> int:
    """Runs of head that a run checks; 0 in a run that is no gate, and in older files."""
    return limits.checked if isinstance(limits.checked, int) else 0


def is_decided(rows: Iterable[Comparison]) -> bool:
    """Whether a regression fails the gate, so that no further run of head is needed."""
    return any(row.gated and row.judgement.verdict == "regression" for row in rows)


def head_runs(
    samples: Iterable[Sample],
    checks: Sequence[Sample] | UnsetType,
    cells: Sequence[Cell],
    limits: Limits,
) -> list[HeadRuns]:
    """The runs of head in each scenario that compares revisions, warm-up pairs included.

    Empty if the run checks none.
    """
    wanted = wanted_runs(limits)
    if not wanted:
        return []
    grouped = group_samples(samples)
    found = []
    for scenario, of_scenario in _head_cells(cells).items():
        pairs = [grouped.get(key_of(cell), {}) for cell in of_scenario]
        outcomes = [_pair_of_head(*pair) for of_cell in pairs for pair in of_cell.values()]
        references = _references(of_scenario, pairs)
        own = [check for check in checks or () if check.scenario == scenario]
        again = _base_again(own, references)
        if "right" in again:
            outcomes += [_check(check, references) for check in own if check.side == "B"]
        found.append(_counted(scenario, wanted, outcomes, _unknown(again, references)))
    return found


def next_checks(
    samples: Iterable[Sample],
    checks: Sequence[Sample],
    cells: Sequence[Cell],
    runs: HeadRuns,
    seed: int,
    at_once: int,
) -> list[Trial]:
    """The next trials that check the answers of head in a scenario, to run at once."""
    grouped = group_samples(samples)
    of_scenario = _head_cells(cells)[runs.scenario]
    references = _references(of_scenario, [grouped.get(key_of(cell), {}) for cell in of_scenario])
    numbers = sorted(references)
    own = [check for check in checks if check.scenario == runs.scenario]
    done = sum(check.side == "B" for check in own)
    again = _base_again(own, references)
    planned = [] if "right" in again else [(numbers[len(again) % len(numbers)], "A")]
    planned += [(numbers[(done + n) % len(numbers)], "B") for n in range(runs.missing)]
    return [
        _trial(references[pair].cell, pair, side, slot, seed)
        for slot, (pair, side) in enumerate(planned[:at_once])
    ]


def _trial(cell: Cell, pair: int, side: str, slot: int, seed: int) -> Trial:
    (trial,) = (trial for trial in trials(cell, pair, seed) if trial.side == side)
    # Serial trials are not pinned to a core.
    return replace(trial, contrast=CHECKS, mode="serial", slot=slot, probe="plain")


def _head_cells(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each scenario that compare base and head, those of fresh pairs included."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if HEAD in (cell.contrast.name, cell.confirms):
            found.setdefault(cell.scenario, []).append(cell)
    return found


def _references(
    cells: Sequence[Cell], pairs: Sequence[Mapping[int, PairOfSamples]]
) -> dict[int, _Reference]:
    """Measured pairs by their number, of the first cell that has one of this number."""
    found: dict[int, _Reference] = {}
    for cell, of_cell in zip(cells, pairs, strict=True):
        for number, (a, b) in of_cell.items():
            if a is not None and pair_outcome(a, b)[0] == "measured":
                found.setdefault(number, _Reference(cell, a))
    return found


_Outcome = tuple[str, str]
"""`right`, `wrong`, `failed` or, if it says nothing about head, an empty text; and the reason."""


def _pair_of_head(a: Sample | None, b: Sample | None) -> _Outcome:
    outcome, reason = pair_outcome(a, b)
    if outcome == "measured":
        return "right", ""
    if b is None or a is None:
        return "", ""
    if b.status != "ok":
        return "failed", reason
    only_base = b.correct and not a.correct
    return ("wrong", reason) if outcome == "answers differ" and not only_base else ("", "")


def _check(check: Sample, references: Mapping[int, _Reference]) -> _Outcome:
    if check.pair not in references:
        return "", ""
    return _pair_of_head(references[check.pair].base, check)


def _base_again(checks: Sequence[Sample], references: Mapping[int, _Reference]) -> list[str]:
    """How the base answered when it ran again, compared with its answers in the pairs."""
    return [_check(check, references)[0] for check in checks if check.side == "A"]


def _unknown(again: Sequence[str], references: Mapping[int, _Reference]) -> str:
    """Why no further run can be checked; empty if one can."""
    if not references:
        return "no pair was measured"
    if "right" in again:
        return ""
    if "wrong" in again:
        return "the base answered differently when it ran again, outside a pair"
    return "the base did not answer when it ran again" if len(again) >= MAX_AGAIN else ""


def _counted(scenario: str, wanted: int, outcomes: Sequence[_Outcome], unknown: str) -> HeadRuns:
    kinds = [kind for kind, _ in outcomes]
    wrong = kinds.count("wrong")
    return HeadRuns(
        scenario=scenario,
        wanted=wanted * (AFTER_ONE if wrong else 1),
        right=kinds.count("right"),
        wrong=wrong,
        failed=kinds.count("failed"),
        # Wrong answers first: they decide.
        reasons=tuple(
            first_and_last_line(reason)
            for wanted_kind in ("wrong", "failed")
            for kind, reason in outcomes
            if kind == wanted_kind
        ),
        unknown=unknown,
    )
