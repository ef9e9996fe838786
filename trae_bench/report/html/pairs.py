"""Pairs in their order: small plots, one for each row, a block for each contrast."""

import math
from collections.abc import Sequence
from itertools import groupby

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.result import Comparison, Estimate
from trae_bench.report.html import svg
from trae_bench.report.html.source import OPEN, Source, band
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import count_of_pairs
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.stats.pairs import PairOfSamples, pair_outcome

MAX_PLOTS = 600
"""All runs together: with them a page of 5,000 samples stays under 2 MB."""
MAX_MARKS = 120
"""Pairs in a plot; the rules stop at 60."""


class Panel(Struct, frozen=True):
    """The pairs of one metric."""

    metric: str
    ratio: str
    """With its interval."""
    verdict: str
    kind: str
    plot: svg.Svg | None
    words: str
    """In place of a plot."""


class Block(Struct, frozen=True):
    """The pairs of one contrast on one scenario."""

    scenario: str
    contrast: str
    count: str
    reasons: tuple[str, ...]
    """Why pairs count for nothing."""
    panels: tuple[Panel, ...]

    @property
    def is_noise(self) -> bool:
        return self.contrast == NOISE_FLOOR


def blocks(source: Source, room: int) -> list[Block]:
    """Plots of up to `room` rows, those of the noise floor last."""
    rows = sorted(source.run.comparisons, key=lambda row: row.contrast == NOISE_FLOOR)[:room]
    return [
        _block(source, list(of_contrast))
        for _, of_contrast in groupby(rows, key=lambda row: (row.scenario, row.contrast))
    ]


def _block(source: Source, rows: Sequence[Comparison]) -> Block:
    return Block(
        scenario=rows[0].scenario,
        contrast=rows[0].contrast,
        count=count_of_pairs(rows, source.run.header.metrics),
        reasons=tuple(dict.fromkeys(reason for row in rows for reason in row.pairs.reasons)),
        panels=tuple(_panel(source, row) for row in rows),
    )


def _panel(source: Source, row: Comparison) -> Panel:
    _, a, b, ratio, interval, _, verdict = source.texts(row)
    found = row.estimate
    plot, words = None, ""
    if found is None:
        words = "No pair was measured."
    elif found.log_ratio is None:
        words = f"{a} and {b}: there is no ratio to zero."
    elif not found.sd and row.mode == "exact":
        words = f"{a} and {b} in each of {count(found.n, 'pair')}."
    else:
        plot = _plot(source, row, found)
    return Panel(
        metric=row.metric,
        ratio=f"{ratio} {interval}".strip(),
        verdict="" if verdict == "-" or row.contrast == NOISE_FLOOR else verdict,
        kind=source.kind(row) if row.contrast != NOISE_FLOOR else OPEN,
        plot=plot,
        words=words,
    )


def _plot(source: Source, row: Comparison, found: Estimate) -> svg.Svg:
    pairs = source.pairs_of(row)[:MAX_MARKS]
    marks = [_mark(pair, row.metric) for _, pair in pairs]
    told = f"Ratios of {count(len(marks), 'pair')} in their order"
    known = [math.exp(min(mark, MAX_LOG_RATIO)) for mark in marks if isinstance(mark, float)]
    if known:
        told += f", from {min(known):.3g} to {max(known):.3g}"
    for kind, what in (("void", "answers differ"), ("lost", "not measured")):
        numbers = [str(n) for (n, _), mark in zip(pairs, marks, strict=True) if mark == kind]
        told += f"; {what} in {', '.join(numbers[:20])}" if numbers else ""
    log_ratio = found.log_ratio or 0.0
    return svg.pairs_plot(marks, log_ratio, found.interval, band(source, row), told)


def _mark(pair: PairOfSamples, metric: str) -> svg.Mark:
    a, b = pair
    fallen = pair_outcome(a, b)[0]
    if a is None or b is None or fallen != "measured":
        return "void" if fallen == "answers differ" else "lost"
    one, other = a.metrics.get(metric, 0.0), b.metrics.get(metric, 0.0)
    return math.log(other) - math.log(one) if one > 0 and other > 0 else None
