"""Run every scenario and variant: oracle result, cost, and the provider's share of CPU time.

    python -m tests.studies.catalogue --out catalogue.json

Compares every toggle off with every toggle on, in serial pairs of fresh processes: one warm-up pair
and --pairs that are reported by their medians. Both sides must satisfy the oracle and give the same
answer. The provider's share is its CPU time divided by the CPU time of provider and agent together.
"""

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from tests.studies.harness import (
    available_scenarios,
    load_scenario,
    make_parser,
    markdown_table,
    print_progress,
    run_cells,
    write_raw,
)
from tests.trae_bench.scenario.test_catalog import all_names
from tests.trae_bench.scenario.test_catalog import arm as arm_of_all_toggles
from trae_bench.errors import BenchError
from trae_bench.model.experiment import Cell, Contrast, Limits, Side
from trae_bench.model.sample import Sample
from trae_bench.run.runner import Bench
from trae_bench.stats.pairs import group_samples, pair_outcome

TOO_LONG = ("trajectory-long@1000",)
FIGURES = ("wall", "cpu", "provider_cpu")
SIDES: tuple[Side, ...] = ("A", "B")


class ScenarioResult(Struct, frozen=True):
    scenario: str
    problem: str
    """First reason for a lost pair; empty if all pairs counted."""
    seconds: float
    samples: tuple[Sample, ...]

    def median(self, side: Side, metric: str) -> float | None:
        counted = (s for s in self.samples if s.side == side and s.pair > 0)
        values = [s.metrics[metric] for s in counted if metric in s.metrics]
        return median(values) if values else None


def run_scenario(name: str, pairs: int, seed: int) -> ScenarioResult:
    scenario = load_scenario(name)
    off, on = (arm_of_all_toggles(scenario, on) for on in (False, True))
    cell = Cell(name, Contrast("all", off, on), "serial", ("wall",))
    bench = Bench(print_progress)
    with bench.lock(), bench.executor({name: scenario}) as executor:
        ending = run_cells(executor, [cell], Limits(pairs=pairs, fixed=True), seed)
    outcomes = [
        pair_outcome(*pair)
        for cell_pairs in group_samples(ending.samples).values()
        for pair in cell_pairs.values()
    ]
    problem = next((reason for outcome, reason in outcomes if outcome != "measured"), "")
    return ScenarioResult(name, problem, ending.elapsed, ending.samples)


def report(results: Sequence[ScenarioResult]) -> str:
    head = ["scenario", "oracle"]
    for quantity in ("wall, s", "agent's CPU, s", "provider's share"):
        head += [f"{quantity}, off", "on"]
    return markdown_table([*head, "total seconds"], [_cells(result) for result in results])


def _cells(result: ScenarioResult) -> list[str]:
    oracle = result.problem.splitlines()[0][:80] if result.problem else "passed, equal answers"
    times = [_seconds(result.median(side, metric)) for metric in FIGURES[:2] for side in SIDES]
    shares = [_share(result, side) for side in SIDES]
    return [result.scenario, oracle, *times, *shares, f"{result.seconds:.1f}"]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(result: ScenarioResult, side: Side) -> str:
    agent, provider = (result.median(side, metric) for metric in ("cpu", "provider_cpu"))
    return "-" if agent is None or provider is None else f"{provider / (agent + provider):.1%}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "catalogue")
    parser.add_argument("--pairs", type=int, default=1, help="default: %(default)s")
    parser.add_argument("scenarios", nargs="*", help="default: the whole catalogue")
    options = parser.parse_args(argv)
    names = options.scenarios or available_scenarios(TOO_LONG)
    results = []
    for number, name in enumerate(names, 1):
        print_progress(f"{number} of {len(names)}: {name}")
        try:
            results.append(run_scenario(name, options.pairs, options.seed))
        except BenchError as problem:
            results.append(ScenarioResult(name, str(problem), 0.0, ()))
    write_raw(options, results=results)
    skipped = sorted(set(all_names()) - set(names)) if not options.scenarios else []
    print(f"{report(results)}\n\nNot run: {', '.join(skipped) or 'none'}.")


if __name__ == "__main__":
    main()
