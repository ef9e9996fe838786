"""Small plots of pairs in order: one for each row, in blocks by contrast."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.result import Comparison, Estimate
from trae_bench.report.html import svg
from trae_bench.report.html.source import OPEN, Source, band
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import count_of_pairs
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.stats.pairs import PairOfSamples, pair_outcome

MAX_PLOTS = 600
"""Maximum plots of all runs together; a page of 5,000 samples stays under 2 MB."""
MAX_MARKS = 120
"""Maximum pairs in a plot; the rules stop at 60."""


class Panel(NamedTuple):
    """The pairs of one metric."""

    metric: str
    kind: str
    ratio: str
    """The ratio and its interval."""
    verdict: str
    plot: svg.Svg | None
    words: str
    """Text in place of a plot."""


class Block(NamedTuple):
    """The pairs of one contrast on one scenario."""

    scenario: str
    contrast: str
    size: str
    reasons: list[str]
    """Why pairs were lost."""
    panels: list[Panel]


def blocks(source: Source, max_rows: int) -> list[Block]:
    """Plots of up to `max_rows` rows, A/A rows last."""
    rows = sorted(source.run.comparisons, key=lambda row: row.contrast == NOISE_FLOOR)[:max_rows]
    grouped = groupby(rows, key=lambda row: (row.scenario, row.contrast))
    return [_block(source, *names, list(of_contrast)) for names, of_contrast in grouped]


def _block(source: Source, scenario: str, contrast: str, rows: Sequence[Comparison]) -> Block:
    count = count_of_pairs(rows, source.run.header.metrics)
    reasons = dict.fromkeys(reason for row in rows for reason in row.pairs.reasons)
    return Block(scenario, contrast, count, list(reasons), [_panel(source, row) for row in rows])


def _panel(source: Source, row: Comparison) -> Panel:
    _, a, b, ratio, interval, _, verdict = source.texts(row)
    estimate = row.estimate
    plot, words = None, ""
    if estimate is None:
        words = "No pair was measured."
    elif estimate.log_ratio is None:
        words = f"{a} and {b}: there is no ratio to zero."
    elif not estimate.sd and row.mode == "exact":
        words = f"{a} and {b} in each of {count(estimate.n, 'pair')}."
    else:
        plot = _plot(source, row, estimate)
    kind = source.kind(row)
    if row.contrast == NOISE_FLOOR:
        kind, verdict = OPEN, "-"
    return Panel(row.metric, kind, f"{ratio} {interval}".strip(), verdict, plot, words)


def _plot(source: Source, row: Comparison, estimate: Estimate) -> svg.Svg:
    pairs = source.pairs_of(row)[:MAX_MARKS]
    marks = [_mark(pair, row.metric) for _, pair in pairs]
    label = f"Ratios of {count(len(marks), 'pair')} in order"
    known = [math.exp(min(mark, MAX_LOG_RATIO)) for mark in marks if isinstance(mark, float)]
    if known:
        label += f", from {min(known):.3g} to {max(known):.3g}"
    for kind, what in (("void", "answers differ"), ("lost", "not measured")):
        numbers = [str(n) for (n, _), mark in zip(pairs, marks, strict=True) if mark == kind]
        label += f"; {what} in {', '.join(numbers[:20])}" if numbers else ""
    log_ratio = estimate.log_ratio or 0.0
    return svg.pairs_plot(marks, log_ratio, estimate.interval, band(source, row), label)


def _mark(pair: PairOfSamples, metric: str) -> svg.Mark:
    a, b = pair
    outcome = pair_outcome(a, b)[0]
    if a is None or b is None or outcome != "measured":
        return "void" if outcome == "answers differ" else "lost"
    value_a, value_b = a.metrics.get(metric, 0.0), b.metrics.get(metric, 0.0)
    return math.log(value_b) - math.log(value_a) if value_a > 0 and value_b > 0 else None
