"""What fresh pairs cost of real regressions, and take of false ones, on artificial noise.

    python -m tests.studies.fresh_pairs --rows 1000

Each row is one of M gated rows of a run that compares two revisions, the others without a pair.
Log ratios are Gaussian around the true change, and the A/A pairs show their spread as it is.
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
from trae_bench.stats.analysis import comparisons, key_of, stops

A, B = Arm("base", {}), Arm("head", {})
QUANTILES = [NormalDist().inv_cdf((n + 0.5) / 40) for n in range(40)]


class Case(NamedTuple):
    """One line of the table."""

    metric: str
    sd: float
    """Of a pair's log ratio."""
    changes: tuple[float, ...]
    """True changes (fractions)."""


CASES = (
    Case("cpu", 0.02, (0.02, 0.03, 0.05)),
    Case("cpu", 0.04, (0.02, 0.03, 0.05)),
    Case("wall", 0.05, (0.05, 0.10, 0.20)),
    Case("wall", 0.10, (0.05, 0.10, 0.20)),
)


def shares(case: Case, change: float, rows: int, family: int, random: Random) -> tuple[float, ...]:
    """Shares of the rows in which a regression was found, and in which it was confirmed."""
    outcomes = [_outcome(case, change, family, random) for _ in range(rows)]
    return tuple(sum(each) / rows for each in zip(*outcomes, strict=True))


def _outcome(case: Case, change: float, family: int, random: Random) -> tuple[bool, bool]:
    mode: Mode = "serial" if METRICS[case.metric].mode == "serial" else "duet"
    noise = Cell("work", Contrast(NOISE_FLOOR, B, B), mode, (case.metric,))
    asked = [Cell("work", Contrast(f"head {n}", A, B), mode, (case.metric,)) for n in range(family)]
    again = confirming(asked[0])
    last = stops(asked[0], METRICS)[-1]
    samples = [
        *_pairs(noise, case, [case.sd * quantile for quantile in QUANTILES]),
        *_pairs(asked[0], case, _drawn(case, change, last, random)),
        *_pairs(again, case, _drawn(case, change, last, random)),
    ]
    found = comparisons(samples, [noise, *asked, again], METRICS)
    row = next(row for row in found if row.contrast == asked[0].contrast.name)
    return row.confirmation is not None, row.judgement.verdict == "regression"


def _drawn(case: Case, change: float, count: int, random: Random) -> list[float]:
    return [random.gauss(math.log1p(change), case.sd) for _ in range(count)]


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
        random = Random(f"{seed} {case}")
        both = [shares(case, change, rows, family, random) for change in case.changes]
        changes = " / ".join(f"+{100 * change:.0f} %" for change in case.changes)
        told = (" / ".join(f"{100 * one:.3g}" for one in each) for each in zip(*both, strict=True))
        yield f"| {mode}, s {100 * case.sd:.0f} %: {changes} | {' % | '.join(told)} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1000, help="of each change")
    parser.add_argument("--family", type=int, default=10, help="gated rows of a run")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for line in table(asked.rows, asked.family, asked.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
