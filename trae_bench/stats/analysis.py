"""From samples to the rows of the table. Pure: a function of the samples and the plan.

The session asks it which cells are settled, the command line asks it for the table, and
whoever reads a run file can ask it again and must get the same rows.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Cell, Contrast, Metric, Mode, Probe
from trae_bench.model.result import (
    Comparison,
    Confirmation,
    Estimate,
    Judgement,
    NoiseEstimate,
    Pairs,
    Reliability,
    Rule,
    Verdict,
)
from trae_bench.model.sample import Sample
from trae_bench.stats.attribution import Attribution, attribute, holm_limit, p_values
from trae_bench.stats.decision import (
    RULES,
    Row,
    estimate,
    fit_of,
    smallest_effect,
    t_tail,
    threshold_from_floor,
    threshold_of,
    verdicts,
)

PairOutcome = Literal["measured", "answers differ", "not measured"]
"""What becomes of a pair. Only a measured one counts."""

MAX_REASONS = 5
"""Different reasons that a row carries; the rest is counted."""

MINIMUM: Mapping[str, float] = {"blocked": 0.005} | dict.fromkeys(
    ("peak_rss", "agent_rss", "uss_start", "uss_end", "memory_growth", "memory_per_hour"), 65536.0
)
"""Differences up to this, in the metric's unit, are nothing: the allocator's and the
scheduler's doing."""

MEMORY = frozenset({"peak_rss", "agent_rss", "uss_start", "uss_end", "python_peak", "python_held"})
"""How much memory is held, or was at most."""

THRESHOLD: Mapping[str, float] = dict.fromkeys(MEMORY, 0.01)
"""In place of the rule's: memory is quiet enough to ask for more."""

OFF_ON, BASE_HEAD = ("off", "on"), ("base", "head")
"""What users know the sides A and B as: of a toggle, and of two revisions."""

MAX_NOISE = 10.0
"""On the log scale: a spread by factors of 20,000 is no machine's, and its threshold no number."""

MAX_THRESHOLD = 0.10
"""A metric that could show only larger effects (a fraction) than this is not gated."""

UNLIKELY = 6.3e-5
"""P-value at which equal sides count as different: that of four standard errors where the spread
is known. With the few A/A pairs of a run four estimated ones are nothing rare."""

CONFIRMED = 0.05
"""One-sided p-value up to which fresh pairs confirm a regression, at half its threshold or more."""


class CellKey(NamedTuple):
    """Which cell a sample belongs to."""

    scenario: str
    contrast: str
    mode: Mode
    probe: Probe


class RowKey(NamedTuple):
    """Which row of the table."""

    scenario: str
    contrast: str
    metric: str


class Attributions(Struct, frozen=True):
    """What toggles and pairs of toggles share in, for every metric of every scenario of a run."""

    family: int
    """Effects asked for, all together."""
    limit: float
    """Effects with a p-value up to this stand when all are asked at once (Holm, 5 %); -1: none."""
    found: tuple[Attribution, ...]
    untrusted: tuple[tuple[str, str], ...] = ()
    """Scenario and metric of what is left out, for equal sides did not come out equal."""


PairOfSamples = tuple[Sample | None, Sample | None]
"""Side A, side B; None where no sample was kept."""


def key_of(cell: Cell) -> CellKey:
    return CellKey(cell.scenario, cell.contrast.name, cell.mode, cell.probe)


def key_of_sample(sample: Sample) -> CellKey:
    return CellKey(sample.scenario, sample.contrast, sample.mode, sample.probe)


def key_of_row(row: Comparison) -> RowKey:
    return RowKey(row.scenario, row.contrast, row.metric)


def rows_for(cell: Cell) -> list[RowKey]:
    """The rows that a cell's pairs are for: its own, or those that it confirms."""
    contrast = cell.confirms or cell.contrast.name
    return [RowKey(cell.scenario, contrast, name) for name in cell.metrics]


def rule_of(metric: Metric) -> Rule:
    """The rule that judges this metric."""
    return RULES[metric.mode]


def stops(cell: Cell, metrics: Mapping[str, Metric]) -> tuple[int, ...]:
    """Numbers of counted pairs at which something in this cell may be settled."""
    return tuple(sorted({n for name in cell.metrics for n in rule_of(metrics[name]).stops}))


def group(samples: Iterable[Sample]) -> dict[CellKey, dict[int, PairOfSamples]]:
    """Samples by cell and pair number, pair 0 included."""
    found: dict[CellKey, dict[int, PairOfSamples]] = {}
    for sample in samples:
        pairs = found.setdefault(key_of_sample(sample), {})
        a, b = pairs.get(sample.pair, (None, None))
        pairs[sample.pair] = (sample, b) if sample.side == "A" else (a, sample)
    return found


def pair_outcome(a: Sample | None, b: Sample | None) -> tuple[PairOutcome, str]:
    """What becomes of a pair, and why; the reason is empty for a measured one."""
    if a is None or b is None:
        return "not measured", "one side is missing"
    for sample in (a, b):
        if sample.status != "ok":
            return "not measured", f"{_side(sample)}: {sample.problem or sample.status}"
    if a.transcript != b.transcript:
        return "answers differ", "the transcripts differ"
    if a.workspace != b.workspace:
        return "answers differ", "the files left behind differ"
    if a.correct != b.correct:
        wrong = a if b.correct else b
        return "answers differ", f"{_side(wrong)}: {wrong.problem or 'the oracle disagrees'}"
    if not a.correct:
        return "not measured", a.problem or "the oracle disagrees with both sides"
    return "measured", ""


def _side(sample: Sample) -> str:
    """As its user knows it; equal sides of a toggle have letters only."""
    if sample.arm in BASE_HEAD:
        return sample.arm
    if sample.contrast == NOISE_FLOOR:
        return f"side {sample.side}"
    return OFF_ON[sample.side == "B"]


def comparisons(
    samples: Iterable[Sample], cells: Sequence[Cell], metrics: Mapping[str, Metric]
) -> list[Comparison]:
    """The rows of the table, in the plan's order; A/A contrasts have rows of their own.

    Every planned row is there, also one without a single pair. Cells that confirm another's
    regressions have no rows; what they found is in the row that they confirm.
    """
    pairs = _pairs_of(samples, cells)
    rows = _rows(pairs, cells, metrics)
    standings = _standings(rows, metrics)
    judged = verdicts(rows)
    counts = {key: _count(of_cell) for key, of_cell in pairs.items()}
    found = [
        Comparison(
            scenario=key.scenario,
            contrast=key.contrast,
            metric=key.metric,
            mode=metrics[key.metric].mode,
            estimate=estimate(rows[key]),
            judgement=_trusted(judged[key], key, standings),
            threshold=threshold_of(rows[key]),
            pairs=counts[key_of(cell)],
            gated=rows[key].gated,
        )
        for cell in cells
        if not cell.confirms
        for key in rows_for(cell)
    ]
    fresh = {key: pairs[key_of(cell)] for cell in cells if cell.confirms for key in rows_for(cell)}
    return [_confirmed(row, rows, fresh) for row in found]


def rows_of(
    samples: Iterable[Sample], cells: Sequence[Cell], metrics: Mapping[str, Metric]
) -> dict[RowKey, Row]:
    """Every planned row as it is judged, with the values of its pairs that count."""
    return _rows(_pairs_of(samples, cells), cells, metrics)


def attributions(
    samples: Iterable[Sample],
    cells: Sequence[Cell],
    metrics: Mapping[str, Metric],
    *,
    fixed: bool,
    most_pairs: int | None = None,
) -> Attributions:
    """Whose doing the changes are. `fixed` where no verdict ended a cell early; `most_pairs` is
    what a cell was allowed.
    """
    rows = rows_of(samples, cells, metrics)
    standings = _standings(rows, metrics)
    contrasts: dict[tuple[str, str], list[tuple[Contrast, Row]]] = {}
    for cell in cells:
        for key in () if cell.confirms else rows_for(cell):
            of_metric = contrasts.setdefault((key.scenario, key.metric), [])
            of_metric.append((cell.contrast, rows[key]))
    untrusted = tuple(
        (key.scenario, key.metric)
        for key, standing in standings.items()
        if standing == "sides differ"
    )
    told = [
        attribute(of_metric, scenario=scenario, metric=name, looks=looks)
        for (scenario, name), of_metric in contrasts.items()
        if (scenario, name) not in untrusted
        for looks in [1 if fixed else _looks(rule_of(metrics[name]), most_pairs)]
    ]
    found = tuple(each for each in told if each is not None)
    family = [p for each in found for p in p_values(each)]
    return Attributions(len(family), holm_limit(family), found, untrusted)


def _looks(rule: Rule, most_pairs: int | None) -> int:
    """How often the data could have ended a cell."""
    return max(1, sum(most_pairs is None or n <= most_pairs for n in rule.looks))


def noise_floor(
    rows: Sequence[Comparison], metrics: Mapping[str, Metric], *, family: int | None = None
) -> list[NoiseEstimate]:
    """What the A/A rows say of the machine; counts are left out unless their sides differ.

    `family` is the number of other rows that a run has or would have, by default those here.
    """
    if family is None:
        family = sum(row.contrast != NOISE_FLOOR for row in rows)
    found = (
        _floor(row, row.estimate, metrics[row.metric], family)
        for row in rows
        if row.contrast == NOISE_FLOOR and row.estimate is not None
    )
    return [
        floor
        for floor in found
        if floor is not None
        and (metrics[floor.metric].mode != "exact" or floor.reliability != "gated")
    ]


def _floor(row: Comparison, found: Estimate, metric: Metric, family: int) -> NoiseEstimate | None:
    if found.log_ratio is None or found.n < 2:
        return None
    rule = rule_of(metric)
    return NoiseEstimate(
        scenario=row.scenario,
        metric=row.metric,
        pairs=found.n,
        sd=found.sd,
        mean=found.log_ratio,
        smallest_effect=max(row.threshold, smallest_effect(min(found.sd, MAX_NOISE), rule, family)),
        reliability=standing(found, metric, family),
    )


def shows_from(
    floor: NoiseEstimate, metric: Metric, family: int, most_pairs: int | None
) -> float | None:
    """Smallest effect (a fraction) that a run shows whose cells take so many pairs at most.

    None where that is less than the first look takes.
    """
    rule = rule_of(metric)
    looks = [n for n in rule.looks if most_pairs is None or n <= most_pairs]
    if not looks or looks[-1] == rule.looks[-1]:
        return floor.smallest_effect if looks else None
    # The floor's own is that of the last look, and fewer pairs never show less.
    sd = min(floor.sd, MAX_NOISE)
    return max(floor.smallest_effect, smallest_effect(sd, rule, family, looks[-1]))


def leans(floor: NoiseEstimate) -> bool:
    """Whether a metric is not gated for the mean of equal sides, though their spread is small."""
    return floor.reliability == "too noisy" and floor.smallest_effect <= MAX_THRESHOLD


def standing(floor: Estimate | None, metric: Metric, family: int) -> Reliability:
    """Whether a metric can be gated, by its A/A pairs; without any it is, for nothing is known."""
    if floor is None or floor.log_ratio is None or floor.n < 2:
        return "gated"
    if metric.mode == "exact":
        return "sides differ" if floor.log_ratio and not floor.sd else "gated"
    rule, sd = rule_of(metric), min(floor.sd, MAX_NOISE)
    error, df = sd / math.sqrt(floor.n), floor.n - 1 - 2 * int(rule.trim * floor.n)
    bias = abs(floor.log_ratio)
    unlikely = 2 * t_tail(bias / error, df) < UNLIKELY if error else bias > 0
    # A bias that is certain, yet too small to bring about a verdict, does no harm.
    if unlikely and 3 * bias > own_threshold(metric):
        return "sides differ"
    # Whoever asks only for large effects can be answered on a noisier machine.
    most = max(MAX_THRESHOLD, metric.threshold or 0.0)
    too_noisy = threshold_from_floor(min(bias, MAX_NOISE), sd, rule, family) > most
    return "too noisy" if too_noisy else "gated"


def _standings(
    rows: Mapping[RowKey, Row], metrics: Mapping[str, Metric]
) -> dict[RowKey, Reliability]:
    """Of each scenario's metrics, under the key of the A/A row."""
    family = _family(rows)
    return {
        key: standing(estimate(row), metrics[key.metric], family)
        for key, row in rows.items()
        if key.contrast == NOISE_FLOOR
    }


def _family(keys: Iterable[RowKey]) -> int:
    """Rows that could be gated, were no metric too noisy: fixed by the plan."""
    return sum(key.contrast != NOISE_FLOOR for key in keys)


def _trusted(
    judgement: Judgement, key: RowKey, standings: Mapping[RowKey, Reliability]
) -> Judgement:
    if key.contrast == NOISE_FLOOR or standings.get(_floor_key(key)) != "sides differ":
        return judgement
    return replace(judgement, verdict="not measured", settled=True)


def _floor_key(key: RowKey) -> RowKey:
    return key._replace(contrast=NOISE_FLOOR)


# Fresh pairs


def to_confirm(rows: Iterable[Comparison]) -> dict[RowKey, int]:
    """The rows in which a regression was found, and how many fresh pairs are to confirm it."""
    return {
        key_of_row(row): row.confirmation.wanted for row in rows if row.confirmation is not None
    }


def wanted(cell: Cell, found: Mapping[RowKey, int]) -> int:
    """Pairs that this cell must take for what `to_confirm` gives; 0 where it is nothing."""
    return max((found.get(row, 0) for row in rows_for(cell)), default=0) if cell.confirms else 0


def _confirmed(
    row: Comparison,
    rows: Mapping[RowKey, Row],
    fresh: Mapping[RowKey, Sequence[PairOfSamples]],
) -> Comparison:
    """A gated regression of a run that asks for confirmation stands only with one."""
    key = key_of_row(row)
    if key not in fresh or not row.gated or row.judgement.verdict != "regression":
        return row
    looks, number = rows[key], row.judgement.look
    a, b = _values(fresh[key], row.metric)
    again = replace(looks, a=tuple(a[:number]), b=tuple(b[:number]))
    p = _p_again(again) if len(again.a) == number else 1.0
    # Sides that do not vary were compared as they are, however little they differ.
    least = 0.0 if number == looks.rule.exact_at else math.log1p(row.threshold) / 2
    found = estimate(again)
    reaches = found is None or found.log_ratio is None or abs(found.log_ratio) >= least
    stands = p <= CONFIRMED and reaches
    confirmation = Confirmation(stands, number, p, found, _count(fresh[key]))
    verdict: Verdict = "regression" if stands else "inconclusive"
    judgement = replace(row.judgement, verdict=verdict)
    return replace(row, judgement=judgement, confirmation=confirmation)


def _p_again(row: Row) -> float:
    """One-sided p-value of no slowdown, from all pairs of a row."""
    sign = 1 if row.better == "lower" else -1
    fit = fit_of(row, len(row.a))
    if fit is None or not fit.error or len(row.a) == row.rule.exact_at:
        # Without ratios, or any spread, or for counts: there is only the direction to go by.
        differences = [sign * (b - a) for a, b in zip(row.a, row.b, strict=True)]
        return 0.0 if min(differences) > row.minimum else 1.0
    return t_tail(sign * fit.mean / fit.error, fit.df)


def _pairs_of(
    samples: Iterable[Sample], cells: Sequence[Cell]
) -> dict[CellKey, list[PairOfSamples]]:
    grouped = group(samples)
    return {key_of(cell): _counted(grouped.get(key_of(cell), {})) for cell in cells}


def _rows(
    pairs: Mapping[CellKey, Sequence[PairOfSamples]],
    cells: Sequence[Cell],
    metrics: Mapping[str, Metric],
) -> dict[RowKey, Row]:
    """Every planned row, in the plan's order."""
    values = {
        key: _values(pairs[key_of(cell)], key.metric)
        for cell in cells
        if not cell.confirms
        for key in rows_for(cell)
    }
    floors = {
        key: _quiet(sides, metrics[key.metric])
        for key, sides in values.items()
        if key.contrast == NOISE_FLOOR
    }
    family = _family(values)
    return {
        key: _row(key, sides, metrics[key.metric], floors, family) for key, sides in values.items()
    }


def _counted(pairs: Mapping[int, PairOfSamples]) -> list[PairOfSamples]:
    """In the order of their numbers, without the warming pair 0."""
    return [pairs[number] for number in sorted(pairs) if number > 0]


def _values(pairs: Sequence[PairOfSamples], metric: str) -> tuple[list[float], list[float]]:
    """Both sides' values from the pairs that count and have this metric."""
    a_values, b_values = [], []
    for a, b in pairs:
        if a is None or b is None or pair_outcome(a, b)[0] != "measured":
            continue
        if metric in a.metrics and metric in b.metrics:
            a_values.append(a.metrics[metric])
            b_values.append(b.metrics[metric])
    return a_values, b_values


Sides = tuple[list[float], list[float]]


class _Quiet(NamedTuple):
    """What A/A pairs show of one metric."""

    spread: Estimate | None
    """Trimmed as the rows are that it guards."""
    varies: bool
    """They have more than one value."""


def _quiet(sides: Sides, metric: Metric) -> _Quiet:
    row = Row(a=tuple(sides[0]), b=tuple(sides[1]), rule=rule_of(metric))
    return _Quiet(estimate(row), len({*row.a, *row.b}) > 1)


_NOTHING_KNOWN = _Quiet(None, varies=False)


def own_threshold(metric: Metric) -> float:
    """Smallest effect (a fraction) of this metric that is worth a verdict."""
    # Noise does not raise it: the margin of `equivalent` would move along, and on a noisy
    # machine everything would be called equivalent. What cannot be told stays open.
    own = THRESHOLD.get(metric.name, rule_of(metric).threshold)
    # One that was asked for can only raise it; of counts it is the minimum, see there.
    return own if metric.threshold is None else max(own, metric.threshold)


def _row(
    key: RowKey,
    sides: Sides,
    metric: Metric,
    floors: Mapping[RowKey, _Quiet],
    family: int,
) -> Row:
    floor, varies = floors.get(_floor_key(key), _NOTHING_KNOWN)
    can_be_gated = standing(floor, metric, family) == "gated"
    return Row(
        a=tuple(sides[0]),
        b=tuple(sides[1]),
        rule=rule_of(metric),
        better=metric.better,
        threshold=own_threshold(metric),
        floor_sd=min(floor.sd, MAX_NOISE) if floor is not None else 0.0,
        floor_varies=varies,
        minimum=own_minimum(metric, sides[0][: rule_of(metric).exact_at or None]),
        gated=can_be_gated and key.contrast != NOISE_FLOOR,
    )


def own_minimum(metric: Metric, a: Sequence[float]) -> float:
    """Difference up to which, in the metric's unit, nothing has changed.

    Counts have no threshold, unless one was asked for: then it is this.
    """
    usual = MINIMUM.get(metric.name, 0.0)
    if metric.mode != "exact" or metric.threshold is None or not a:
        return usual
    return max(usual, metric.threshold * abs(median(a)))


def _count(pairs: Sequence[PairOfSamples]) -> Pairs:
    fates = [pair_outcome(a, b) for a, b in pairs]
    count = Counter(found for found, _ in fates)
    reasons = Counter(in_short(reason) for _, reason in fates if reason)
    told = [f"{reason} ({n}x)" if n > 1 else reason for reason, n in reasons.most_common()]
    if len(told) > MAX_REASONS:
        told[MAX_REASONS:] = [f"and {len(told) - MAX_REASONS} more reasons"]
    return Pairs(
        measured=count["measured"],
        answers_differ=count["answers differ"],
        not_measured=count["not measured"],
        reasons=tuple(told),
    )


def in_short(reason: str) -> str:
    """The first line and the last: what happened, and a child's last word on it."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else ""
