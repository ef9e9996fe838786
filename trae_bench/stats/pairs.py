"""Groups samples into pairs and decides which pairs count. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import AGENT_ARM
from trae_bench.model.experiment import Cell, Mode, Probe
from trae_bench.model.result import Comparison, Pairs
from trae_bench.model.sample import Sample

PairOutcome = Literal["measured", "answers differ", "not measured"]
"""Only measured pairs count."""

MAX_REASONS = 5
"""Different reasons that a row lists; the others are only counted."""

OFF_ON, BASE_HEAD, FIRST_OTHER = ("off", "on"), ("base", "head"), ("first", "other")
"""Names of the sides A and B: of a toggle, of two revisions, and of two agents."""


class CellKey(NamedTuple):
    """Identifies a cell."""

    scenario: str
    contrast: str
    mode: Mode
    probe: Probe


class RowKey(NamedTuple):
    """Identifies a row of the result table."""

    scenario: str
    contrast: str
    metric: str


PairOfSamples = tuple[Sample | None, Sample | None]
"""Side A and side B; None if the sample is missing."""

SideValues = tuple[list[float], list[float]]
"""Values of side A and side B, pair by pair."""


def key_of(cell: Cell) -> CellKey:
    return CellKey(cell.scenario, cell.contrast.name, cell.mode, cell.probe)


def key_of_sample(sample: Sample) -> CellKey:
    return CellKey(sample.scenario, sample.contrast, sample.mode, sample.probe)


def key_of_row(row: Comparison) -> RowKey:
    return RowKey(row.scenario, row.contrast, row.metric)


def row_keys(cell: Cell) -> list[RowKey]:
    """The rows that a cell's pairs measure, or the rows that they confirm."""
    contrast = cell.confirms or cell.contrast.name
    return [RowKey(cell.scenario, contrast, name) for name in cell.metrics]


def group_samples(samples: Iterable[Sample]) -> dict[CellKey, dict[int, PairOfSamples]]:
    """Samples by cell and pair number, including pair 0."""
    grouped: dict[CellKey, dict[int, PairOfSamples]] = {}
    for sample in samples:
        pairs = grouped.setdefault(key_of_sample(sample), {})
        a, b = pairs.get(sample.pair, (None, None))
        pairs[sample.pair] = (sample, b) if sample.side == "A" else (a, sample)
    return grouped


def pairs_by_cell(
    samples: Iterable[Sample], cells: Sequence[Cell]
) -> dict[CellKey, list[PairOfSamples]]:
    """Pairs of each planned cell in order, without the warm-up pair 0."""
    grouped = group_samples(samples)
    return {key_of(cell): _without_warmup(grouped.get(key_of(cell), {})) for cell in cells}


def _without_warmup(pairs: Mapping[int, PairOfSamples]) -> list[PairOfSamples]:
    return [pairs[number] for number in sorted(pairs) if number > 0]


def pair_outcome(a: Sample | None, b: Sample | None) -> tuple[PairOutcome, str]:
    """Outcome of a pair and its reason; the reason of a measured pair is empty."""
    if a is None or b is None:
        return "not measured", "one side is missing"
    for sample in (a, b):
        if sample.status != "ok":
            return "not measured", f"{_side_name(sample)}: {sample.problem or sample.status}"
    if a.transcript != b.transcript:
        return "answers differ", f"the transcripts differ{_detail(a, b)}"
    if a.workspace != b.workspace:
        return "answers differ", f"the files left behind differ{_detail(a, b)}"
    if a.correct != b.correct:
        wrong = a if b.correct else b
        return "answers differ", f"{_side_name(wrong)}: {wrong.problem or 'the oracle disagrees'}"
    if not a.correct:
        return "not measured", a.problem or "the oracle disagrees with both sides"
    return "measured", ""


def _detail(a: Sample, b: Sample) -> str:
    difference = a.difference or b.difference
    return f": {difference}" if difference else ""


def _side_name(sample: Sample) -> str:
    """`base`, `head`, an agent, `off` or `on`; `side A` or `side B` for A/A pairs of a toggle."""
    if sample.arm in BASE_HEAD or sample.arm.startswith(AGENT_ARM):
        return sample.arm
    if sample.contrast == NOISE_FLOOR:
        return f"side {sample.side}"
    return OFF_ON[sample.side == "B"]


def paired_values(pairs: Sequence[PairOfSamples], metric: str) -> SideValues:
    """Values of both sides from the measured pairs that have this metric."""
    a_values, b_values = [], []
    for a, b in pairs:
        if a is None or b is None or pair_outcome(a, b)[0] != "measured":
            continue
        if metric in a.metrics and metric in b.metrics:
            a_values.append(a.metrics[metric])
            b_values.append(b.metrics[metric])
    return a_values, b_values


def count_outcomes(pairs: Sequence[PairOfSamples]) -> Pairs:
    """Number of pairs of each outcome, with the most frequent reasons first."""
    outcomes = [pair_outcome(a, b) for a, b in pairs]
    count = Counter(outcome for outcome, _ in outcomes)
    reasons = Counter(first_and_last_line(reason) for _, reason in outcomes if reason)
    lines = [f"{reason} ({n}x)" if n > 1 else reason for reason, n in reasons.most_common()]
    if len(lines) > MAX_REASONS:
        lines[MAX_REASONS:] = [f"and {len(lines) - MAX_REASONS} more reasons"]
    return Pairs(
        measured=count["measured"],
        answers_differ=count["answers differ"],
        not_measured=count["not measured"],
        reasons=tuple(lines),
    )


def first_and_last_line(reason: str) -> str:
    """The first line (what happened) and the last line (the last output of a child process)."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""
