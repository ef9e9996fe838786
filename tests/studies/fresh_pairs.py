"""Power and false alarms of the confirmation by fresh pairs, on artificial noise.

    python -m tests.studies.fresh_pairs --rows 1000

Each row is one of M gated rows of a run that compares two revisions; the other rows have no pairs.
Log ratios are Gaussian around the true change, and the A/A pairs have exactly their spread.
docs/statistics.md has the table.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from tests.trae_bench.fakes import sample
from trae_bench.design.cells import confirming
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Mode, Side
from trae_bench.model.sample import Sample
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.metric_rules import stops
from trae_bench.stats.pairs import key_of

A, B = Arm("base", {}), Arm("head", {})
QUANTILES = [NormalDist().inv_cdf((n + 0.5) / 40) for n in range(40)]


class Case(NamedTuple):
    """One line of the table."""

    metric: str
    sd: float
    """Standard deviation of the log ratios."""
    changes: tuple[float, ...]
    """True changes, as fractions."""


CASES = (
    Case("cpu", 0.02, (0.02, 0.03, 0.05)),
    Case("cpu", 0.04, (0.02, 0.03, 0.05)),
    Case("wall", 0.05, (0.05, 0.10, 0.20)),
    Case("wall", 0.10, (0.05, 0.10, 0.20)),
)


def shares(case: Case, change: float, rows: int, family: int, rng: Random) -> tuple[float, ...]:
    """Return the shares of rows with a found, and with a confirmed, regression."""
    outcomes = [_outcome(case, change, family, rng) for _ in range(rows)]
    return tuple(sum(flags) / rows for flags in zip(*outcomes, strict=True))


def _outcome(case: Case, change: float, family: int, rng: Random) -> tuple[bool, bool]:
    """Return whether a regression was found, and whether it was confirmed."""
    mode: Mode = "serial" if METRICS[case.metric].mode == "serial" else "duet"
    noise = Cell("work", Contrast(NOISE_FLOOR, B, B), mode, (case.metric,))
    cells = [Cell("work", Contrast(f"head {n}", A, B), mode, (case.metric,)) for n in range(family)]
    fresh = confirming(cells[0])
    pairs = stops(cells[0], METRICS)[-1]
    samples = [
        *_pairs(noise, case, [case.sd * quantile for quantile in QUANTILES]),
        *_pairs(cells[0], case, _random_log_ratios(case, change, pairs, rng)),
        *_pairs(fresh, case, _random_log_ratios(case, change, pairs, rng)),
    ]
    rows = comparisons(samples, [noise, *cells, fresh], METRICS)
    row = next(row for row in rows if row.contrast == cells[0].contrast.name)
    return row.confirmation is not None, row.judgement.verdict == "regression"


def _random_log_ratios(case: Case, change: float, count: int, rng: Random) -> list[float]:
    return [rng.gauss(math.log1p(change), case.sd) for _ in range(count)]


def _pairs(cell: Cell, case: Case, log_ratios: Sequence[float]) -> Iterator[Sample]:
    for number, log_ratio in enumerate(log_ratios, start=1):
        sides: tuple[tuple[Side, float], ...] = (("A", 1.0), ("B", math.exp(log_ratio)))
        for side, value in sides:
            contrast, metrics = key_of(cell).contrast, {case.metric: value}
            yield sample(side, number, contrast=contrast, mode=cell.mode, metrics=metrics)


def table(rows: int, family: int, seed: int) -> Iterator[str]:
    yield "| | found | found and confirmed |"
    yield "|---|---|---|"
    for case in CASES:
        mode = METRICS[case.metric].mode
        rng = Random(f"{seed} {case}")
        results = [shares(case, change, rows, family, rng) for change in case.changes]
        changes = " / ".join(f"+{100 * change:.0f} %" for change in case.changes)
        columns = (
            " / ".join(f"{100 * share:.3g}" for share in column)
            for column in zip(*results, strict=True)
        )
        yield f"| {mode}, s {100 * case.sd:.0f} %: {changes} | {' % | '.join(columns)} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1000, help="per change")
    parser.add_argument("--family", type=int, default=10, help="gated rows per run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in table(options.rows, options.family, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
