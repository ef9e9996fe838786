"""Plays every scenario and variant: does its oracle agree, what does it cost, and whose CPU is it?

    python -m tests.studies.catalogue --out catalogue.json

Every toggle off against every toggle on, one side after the other, in fresh processes: a pair
that warms, and --pairs that are shown, by their medians. Both sides must do the task right and
give the same answer. The provider's share is its CPU over its own and the agent's together:
what the loopback server is of all that was computed.
"""

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from tests.studies.harness import arguments, keep, play, playable, say, scenario_of, table
from tests.trae_bench.scenario.test_catalog import all_names
from tests.trae_bench.scenario.test_catalog import arm as everything
from trae_bench.errors import BenchError
from trae_bench.model.experiment import Cell, Contrast, Limits, Side
from trae_bench.model.sample import Sample
from trae_bench.run.runner import Bench
from trae_bench.stats.analysis import group, pair_outcome

TOO_LONG = ("trajectory-long@1000",)
FIGURES = ("wall", "cpu", "provider_cpu")
SIDES: tuple[Side, ...] = ("A", "B")


class Played(Struct, frozen=True):
    scenario: str
    wrong: str
    """What became of the pairs, where not all of them are right and alike; else empty."""
    seconds: float
    samples: tuple[Sample, ...]

    def shown(self, side: Side, metric: str) -> float | None:
        counted = (s for s in self.samples if s.side == side and s.pair > 0)
        values = [s.metrics[metric] for s in counted if metric in s.metrics]
        return median(values) if values else None


def played(name: str, pairs: int, seed: int) -> Played:
    scenario = scenario_of(name)
    off, on = (everything(scenario, on) for on in (False, True))
    cell = Cell(name, Contrast("all", off, on), "serial", ("wall",))
    bench = Bench(say)
    with bench.lock(), bench.executor({name: scenario}) as executor:
        ending = play(executor, [cell], Limits(pairs=pairs, fixed=True), seed)
    found = [
        pair_outcome(*both)
        for of_cell in group(ending.samples).values()
        for both in of_cell.values()
    ]
    wrong = next((reason for fate_, reason in found if fate_ != "measured"), "")
    return Played(name, wrong, ending.elapsed, ending.samples)


def report(found: Sequence[Played]) -> str:
    head = ["scenario", "oracle"]
    for what in ("wall, s", "agent's CPU, s", "provider's share"):
        head += [f"{what}, off", "on"]
    return table([*head, "seconds in all"], [_cells(one) for one in found])


def _cells(one: Played) -> list[str]:
    cells = [one.scenario, one.wrong.splitlines()[0][:80] if one.wrong else "green, and the same"]
    cells += [_seconds(one.shown(side, metric)) for metric in FIGURES[:2] for side in SIDES]
    return [*cells, *(_share(one, side) for side in SIDES), f"{one.seconds:.1f}"]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(one: Played, side: Side) -> str:
    agent, provider = (one.shown(side, metric) for metric in ("cpu", "provider_cpu"))
    return "-" if agent is None or provider is None else f"{provider / (agent + provider):.1%}"


def main(said: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "catalogue")
    parser.add_argument("--pairs", type=int, default=1, help="default: %(default)s")
    parser.add_argument("scenarios", nargs="*", help="default: the whole catalogue")
    asked = parser.parse_args(said)
    names = asked.scenarios or playable(TOO_LONG)
    found = []
    for number, name in enumerate(names, 1):
        say(f"{number} of {len(names)}: {name}")
        try:
            found.append(played(name, asked.pairs, asked.seed))
        except BenchError as problem:
            found.append(Played(name, str(problem), 0.0, ()))
    keep(asked, played=found)
    left_out = sorted(set(all_names()) - set(names)) if not asked.scenarios else []
    print(f"{report(found)}\n\nNot played: {', '.join(left_out) or 'none'}.")


if __name__ == "__main__":
    main()
