"""How often does the gate fail a head that fails now and then?

    python -m tests.studies.lost_pairs --rows 10000

Each row of CPU time is equivalent at its first look, but each pair is lost with the given
probability: by different answers, or because head does not run. docs/statistics.md has the table.
"""

import argparse
from collections.abc import Iterator
from random import Random

from trae_bench.design.plan import HEAD
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Limits
from trae_bench.model.result import Comparison, Judgement, Pairs
from trae_bench.stats.metric_rules import rule_of
from trae_bench.stats.stopping import GIVE_UP, is_suspect
from trae_bench.verdicts.gate import answers_differ, not_measured

RATES = (0.05, 0.1, 0.2, 0.5)
SETTLED = Judgement("equivalent", 8, True, 1.0)


def fails(rate: float, *, different: bool, rng: Random) -> tuple[bool, int]:
    """Return whether the gate fails, and the number of pairs that it took."""
    lost = 0
    for counted in range(rule_of(METRICS["cpu"]).looks[-1] + 1):
        row = _row(counted, lost, different)
        if counted in rule_of(METRICS["cpu"]).looks and not is_suspect(row, Limits()):
            break
        while rng.random() < rate:
            lost += 1
            if lost - counted >= GIVE_UP:
                return True, counted + lost
    failed = answers_differ(row) if different else not_measured(row)
    return failed is not None, counted + lost


def _row(counted: int, lost: int, different: bool) -> Comparison:
    pairs = Pairs(counted, lost, 0) if different else Pairs(counted, 0, lost)
    return Comparison("work", HEAD, "cpu", "duet", None, SETTLED, 0.02, pairs)


def table(rows: int, seed: int) -> Iterator[str]:
    yield "| head fails | exit 5, if answers differ | pairs | exit 4, if it does not run | pairs |"
    yield "|---|---|---|---|---|"
    for rate in RATES:
        columns = []
        for different in (True, False):
            rng = Random(f"{seed} {rate} {different}")
            outcomes = [fails(rate, different=different, rng=rng) for _ in range(rows)]
            columns.append(f"{100 * sum(failed for failed, _ in outcomes) / rows:.0f} %")
            columns.append(f"{sum(pairs for _, pairs in outcomes) / rows:.0f}")
        yield f"| in {100 * rate:.0f} % of runs | {' | '.join(columns)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000, help="per line")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("\n".join(table(options.rows, options.seed)))


if __name__ == "__main__":
    main()
