"""Builds the rows of the result table. Pure: depends on the samples and the plan only.

The scheduler uses it to see which cells are settled, and the command line prints its rows.
Everybody who reads a run file can compute the same rows again.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Cell, Contrast, Metric
from trae_bench.model.result import Comparison, Judgement, Reliability
from trae_bench.model.sample import Sample
from trae_bench.stats.attribution import Attribution, attribute, holm_limit, p_values
from trae_bench.stats.confirmation import confirmed
from trae_bench.stats.decision import Row, estimate, threshold_of, verdicts
from trae_bench.stats.effect_weights import Fits
from trae_bench.stats.metric_rules import default_threshold, metric_minimum, rule_of
from trae_bench.stats.noise import (
    MAX_SD,
    NO_AA_PAIRS,
    AANoise,
    aa_key,
    aa_noise,
    clears_noise,
    family_size,
    reliabilities,
    reliability_of,
)
from trae_bench.stats.pairs import (
    CellKey,
    PairOfSamples,
    RowKey,
    SideValues,
    count_outcomes,
    key_of,
    key_of_row,
    paired_values,
    pairs_by_cell,
    row_keys,
)


class Attributions(Struct, frozen=True):
    """Effects of toggles and pairs of toggles, for every metric of every scenario of a run."""

    family: int
    """Number of effects that are tested together."""
    limit: float
    """Largest p-value that is significant in the family (Holm, 5 %); -1 if none is."""
    found: tuple[Attribution, ...]
    untrusted: tuple[tuple[str, str], ...] = ()
    """Scenario and metric of the attributions left out because their A/A sides differ."""


def comparisons(
    samples: Iterable[Sample], cells: Sequence[Cell], metrics: Mapping[str, Metric]
) -> list[Comparison]:
    """The rows of the table in the plan's order, A/A rows included.

    Every planned row is present, also rows without a pair. A confirming cell has no rows of its
    own: its result is part of the row that it confirms.
    """
    pairs = pairs_by_cell(samples, cells)
    rows = _rows(pairs, cells, metrics)
    reliability = reliabilities(rows, metrics)
    judged = verdicts(rows)
    counts = {key: count_outcomes(of_cell) for key, of_cell in pairs.items()}
    first = [
        Comparison(
            scenario=key.scenario,
            contrast=key.contrast,
            metric=key.metric,
            mode=metrics[key.metric].mode,
            estimate=estimate(rows[key]),
            judgement=_trusted(judged[key], key, reliability),
            threshold=threshold_of(rows[key]),
            pairs=counts[key_of(cell)],
            gated=rows[key].gated,
        )
        for cell in cells
        if not cell.confirms
        for key in row_keys(cell)
    ]
    fresh = {key: pairs[key_of(cell)] for cell in cells if cell.confirms for key in row_keys(cell)}
    return [confirmed(row, rows, fresh) for row in _with_clear_effects(first, metrics, reliability)]


def _with_clear_effects(
    rows: Sequence[Comparison],
    metrics: Mapping[str, Metric],
    reliability: Mapping[RowKey, Reliability],
) -> list[Comparison]:
    """Gate the rows of noisy metrics whose effect is clearly larger than the noise."""
    aa = {key_of_row(row): row.estimate for row in rows if row.contrast == NOISE_FLOOR}
    family = family_size(map(key_of_row, rows))

    def with_gate(row: Comparison) -> Comparison:
        noise = aa_key(key_of_row(row))
        if reliability.get(noise) != "too noisy" or row.contrast == NOISE_FLOOR:
            return row
        judged = row.judgement, row.estimate, aa.get(noise)
        return replace(row, gated=clears_noise(*judged, metrics[row.metric], family))

    return list(map(with_gate, rows))


def rows_of(
    samples: Iterable[Sample], cells: Sequence[Cell], metrics: Mapping[str, Metric]
) -> dict[RowKey, Row]:
    """Every planned row in the plan's order, with the values of its measured pairs."""
    return _rows(pairs_by_cell(samples, cells), cells, metrics)


def attributions(
    samples: Iterable[Sample],
    cells: Sequence[Cell],
    metrics: Mapping[str, Metric],
    *,
    fixed: bool,
    max_pairs: int | None = None,
) -> Attributions:
    """Attributes the changes of a run to toggles.

    `fixed` says that no verdict could end a cell early, so there was one look. `max_pairs` is
    the limit of counted pairs of a cell.
    """
    rows = rows_of(samples, cells, metrics)
    contrasts: dict[tuple[str, str], list[tuple[Contrast, Row]]] = {}
    for cell in cells:
        for key in () if cell.confirms else row_keys(cell):
            of_metric = contrasts.setdefault((key.scenario, key.metric), [])
            of_metric.append((cell.contrast, rows[key]))
    untrusted = tuple(
        (key.scenario, key.metric)
        for key, reliability in reliabilities(rows, metrics).items()
        if reliability == "sides differ"
    )
    fits = Fits()
    candidates = [
        attribute(of_metric, scenario=scenario, metric=name, looks=looks, fits=fits)
        for (scenario, name), of_metric in contrasts.items()
        if (scenario, name) not in untrusted
        for looks in [1 if fixed else max(1, len(rule_of(metrics[name]).looks_within(max_pairs)))]
    ]
    found = tuple(candidate for candidate in candidates if candidate is not None)
    family = [p for attribution in found for p in p_values(attribution)]
    return Attributions(len(family), holm_limit(family), found, untrusted)


def _trusted(
    judgement: Judgement, key: RowKey, reliability: Mapping[RowKey, Reliability]
) -> Judgement:
    if key.contrast == NOISE_FLOOR or reliability.get(aa_key(key)) != "sides differ":
        return judgement
    return replace(judgement, verdict="not measured", settled=True)


def _rows(
    pairs: Mapping[CellKey, Sequence[PairOfSamples]],
    cells: Sequence[Cell],
    metrics: Mapping[str, Metric],
) -> dict[RowKey, Row]:
    values = {
        key: paired_values(pairs[key_of(cell)], key.metric)
        for cell in cells
        if not cell.confirms
        for key in row_keys(cell)
    }
    noise = {
        key: aa_noise(sides, metrics[key.metric])
        for key, sides in values.items()
        if key.contrast == NOISE_FLOOR
    }
    family = family_size(values)
    return {
        key: _row(key, sides, metrics[key.metric], noise.get(aa_key(key), NO_AA_PAIRS), family)
        for key, sides in values.items()
    }


def _row(key: RowKey, sides: SideValues, metric: Metric, noise: AANoise, family: int) -> Row:
    aa = noise.estimate
    reliable = reliability_of(aa, metric, family) == "gated"
    return Row(
        a=tuple(sides[0]),
        b=tuple(sides[1]),
        rule=rule_of(metric),
        better=metric.better,
        threshold=default_threshold(metric),
        requested=metric.threshold or 0.0,
        floor_sd=min(aa.sd, MAX_SD) if aa is not None else 0.0,
        floor_varies=noise.varies,
        minimum=metric_minimum(metric),
        gated=reliable and key.contrast != NOISE_FLOOR,
    )
