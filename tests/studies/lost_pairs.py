"""How often does the gate fail a head that fails now and then?

    python -m tests.studies.lost_pairs --rows 10000

Each row of CPU time is equivalent at its first look. Each run of head gives a wrong answer, or no
answer, with the given probability. After the pairs, further runs of head are checked as in a gate
whose budget suffices. docs/statistics.md has the table.
"""

import argparse
from collections.abc import Iterator
from random import Random

from msgspec import Struct

from trae_bench.design.plan import HEAD
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Limits
from trae_bench.model.result import Comparison, Judgement, Pairs
from trae_bench.stats.head_runs import AFTER_ONE, WANTED, HeadRuns
from trae_bench.stats.metric_rules import rule_of
from trae_bench.stats.stopping import GIVE_UP, is_suspect
from trae_bench.verdicts.gate import answers_differ, not_measured

RATES = (0.0, 0.05, 0.1, 0.2, 0.5)
SETTLED = Judgement("equivalent", 8, True, 1.0)


class Gate(Struct, frozen=True):
    """One gate."""

    fails: bool
    pairs: int
    """Counted and lost ones, without the warm-up pair."""
    checks: int
    """Further runs of head."""


def gate(rate: float, *, different: bool, checked: bool, rng: Random) -> Gate:
    """Run one gate. Without `checked`, it stops after the pairs."""
    looks = rule_of(METRICS["cpu"]).looks
    # The warm-up pair is a run of head, but not a pair that counts.
    lost, warm_up = 0, rng.random() < rate
    for counted in range(looks[-1] + 1):
        row = _row(counted, lost, different)
        if counted in looks and not is_suspect(row, Limits()):
            break
        while rng.random() < rate:
            lost += 1
            if lost - counted >= GIVE_UP:
                return Gate(True, counted + lost, 0)
    fails = (answers_differ(row) if different else not_measured(row)) is not None
    if fails or not checked:
        return Gate(fails, counted + lost, 0)
    runs = _runs(counted + (not warm_up), lost + warm_up, different)
    before = runs.total
    while runs.missing:
        lost_one = rng.random() < rate
        runs = _runs(runs.right + (not lost_one), runs.wrong + runs.failed + lost_one, different)
    return Gate(runs.is_wrong or runs.is_failing, counted + lost, runs.total - before)


def _row(counted: int, lost: int, different: bool) -> Comparison:
    pairs = Pairs(counted, lost, 0) if different else Pairs(counted, 0, lost)
    return Comparison("work", HEAD, "cpu", "duet", None, SETTLED, 0.02, pairs)


def _runs(right: int, lost: int, different: bool) -> HeadRuns:
    wanted = WANTED * (AFTER_ONE if different and lost else 1)
    wrong, failed = (lost, 0) if different else (0, lost)
    return HeadRuns("work", wanted, right, wrong, failed)


def table(rows: int, seed: int) -> Iterator[str]:
    yield (
        "| head fails | exit 5, if answers differ | without checks | pairs | checks "
        "| exit 4, if it does not run | without checks | pairs | checks |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for rate in RATES:
        columns = []
        for different in (True, False):
            with_checks, without = (
                [
                    gate(rate, different=different, checked=checked, rng=rng)
                    for rng in [Random(f"{seed} {rate} {different} {checked}")]
                    for _ in range(rows)
                ]
                for checked in (True, False)
            )
            columns.append(_share([one.fails for one in with_checks]))
            columns.append(_share([one.fails for one in without]))
            columns.append(f"{sum(one.pairs for one in with_checks) / rows:.0f}")
            columns.append(f"{sum(one.checks for one in with_checks) / rows:.0f}")
        yield f"| in {100 * rate:.0f} % of runs | {' | '.join(columns)} |"


def _share(fails: list[bool]) -> str:
    return f"{100 * sum(fails) / len(fails):.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000, help="per line")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("\n".join(table(options.rows, options.seed)))


if __name__ == "__main__":
    main()
