"""Does a duet damp an effect? The same extra work in duets and one side after the other.

    python -m tests.studies.damping --pairs 24 --out damping.json

Side B carries extra work of four kinds (`burden.py`): a loop, walks through 32 MB, two threads
that compress, child processes. Each is measured by its CPU in duet pairs and in serial pairs.

own account   what the work cost by the clocks of the threads that did it, in the serial pairs.
              The narrowest figure; what the work does to the rest of the session is not in it
duet, serial  the mean log ratio of the pairs' CPU
damping       the duet's log ratio over the own account's, and over the serial one's: under 1
              where a duet makes the effect look smaller (intervals by the delta method)
instructions  of the agent's own process under callgrind, where --instructions asks for it: one
              run a side. It knows no caches, and instructions of different work take different
              time, so that it tells the direction rather than the size
"""

import math
from argparse import Namespace
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from tests.studies.harness import (
    NOTHING,
    Burden,
    Mean,
    arguments,
    bench,
    burdened,
    calibrated,
    injected,
    keep,
    log_ratios,
    mean,
    pairs_of,
    play,
    probe,
    say,
    scenario_of,
    table,
    told,
)
from trae_bench.execution import callgrind
from trae_bench.execution.ports import Executor
from trae_bench.model.experiment import Cell, Limits, Mode
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.decision import t_quantile

KINDS = ("cpu", "cache", "threads", "children")
MODES: tuple[Mode, ...] = ("duet", "serial")


class Line(Struct, frozen=True):
    """One kind and amount of work."""

    name: str
    burden: Burden
    own: Mean
    own_in_duets: Mean
    duet: Mean
    serial: Mean
    instructions: float | None = None
    """Log ratio."""


def quotient(part: Mean, whole: Mean) -> Mean:
    """Of two means that do not depend on each other, by the delta method."""
    value, n = part.value / whole.value, min(part.n, whole.n)
    error = abs(value) * math.hypot(part.error / part.value, whole.error / whole.value)
    reach = error * t_quantile(0.025, n - 1)
    return Mean(value, value - reach, value + reach, math.nan, n)


def line_of(name: str, burden: Burden, samples: Sequence[Sample]) -> Line:
    duets, serials = (pairs_of(samples, name, mode) for mode in MODES)
    return Line(
        name=name,
        burden=burden,
        own=mean([injected(b, "cpu") for _, b in serials]),
        own_in_duets=mean([injected(b, "cpu") for _, b in duets]),
        duet=mean(log_ratios(duets, "cpu")),
        serial=mean(log_ratios(serials, "cpu")),
    )


def report(lines: Sequence[Line]) -> str:
    head = ("work", "own account", "own account in duets", "duet", "serial")
    heads = (*head, "duet / own account", "serial / own account", "duet / serial", "instructions")
    return table(heads, [_cells(line) for line in lines])


def _cells(line: Line) -> tuple[str, ...]:
    nothing = line.burden == NOTHING
    ratios = [(line.duet, line.own), (line.serial, line.own), (line.duet, line.serial)]
    counted = "-" if line.instructions is None else f"{100 * math.expm1(line.instructions):+.1f} %"
    return (
        line.name,
        *(told(figure, 2) for figure in (line.own, line.own_in_duets, line.duet, line.serial)),
        *("-" if nothing else _plain(quotient(*both)) for both in ratios),
        counted,
    )


def _plain(figure: Mean) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f} {figure.high:.2f}]"


# -- the runs ---------------------------------------------------------------------------


def instructions(executor: Executor, scenario: Scenario, burden: Burden) -> float:
    return probe(executor, scenario, burden, watched="callgrind")["instructions"]


def measured(asked: Namespace) -> tuple[list[Line], Sequence[Sample]]:
    scenario = scenario_of(asked.scenario, ["cpu"])
    wanted = [(kind, part) for kind in asked.kinds.split(",") for part in asked.shares.split(",")]
    with bench(scenario) as executor:
        burdens = {"nothing": NOTHING}
        for kind, part in wanted:
            burdens[f"{kind}, {part} %"] = calibrated(executor, scenario, kind, float(part) / 100)
        compared = burdened(scenario, burdens)[1:]
        planned = [Cell(scenario.name, one, mode, ("cpu",)) for one in compared for mode in MODES]
        say(f"{len(planned) * (asked.pairs + 1)} pairs")
        # In turn, so that no kind has a better hour than another.
        ending = play(executor, planned, Limits(pairs=asked.pairs, fixed=True), asked.seed)
        lines = [line_of(name, burden, ending.samples) for name, burden in burdens.items()]
        if asked.instructions:
            least = instructions(executor, scenario, NOTHING)
            lines = [
                replace(line, instructions=math.log(more / least))
                for line in lines
                for more in [instructions(executor, scenario, line.burden)]
            ]
    return lines, ending.samples


def main(said: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "damping")
    parser.add_argument("--scenario", default="noise@200", help="default: %(default)s")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--shares", default="5,20", help="percent of CPU; %(default)s")
    parser.add_argument("--pairs", type=int, default=24, help="of each mode; at most 60")
    parser.add_argument("--instructions", action="store_true", help="needs valgrind")
    asked = parser.parse_args(said)
    if asked.instructions and not callgrind.available():
        parser.error("--instructions needs valgrind, which is not on the PATH")
    lines, samples = measured(asked)
    keep(asked, lines=lines, samples=samples)
    print(f"{asked.scenario}, {asked.pairs} pairs of each mode\n\n{report(lines)}")


if __name__ == "__main__":
    main()
