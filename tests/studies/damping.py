"""Does a duet damp an effect? Compare the same extra work in duets and in serial pairs.

    python -m tests.studies.damping --pairs 24 --out damping.json

Side B carries extra work of four kinds (`injected_load.py`): a loop, reads through 32 MB, two
threads that compress, child processes. Each is measured by CPU time in duet pairs and in serial
pairs.

own account   cost of the work by the clocks of the threads that did it, in the serial pairs. This
              is the most precise figure; it excludes effects on the rest of the session
duet, serial  mean log ratio of the pairs' CPU times
ratios        log ratio of the duet divided by that of the own account, and by the serial one.
              Below 1, a duet makes the effect look smaller (intervals by the delta method)
instructions  of the agent's process under callgrind, with --instructions: one run per side.
              callgrind ignores caches, and instructions differ in cost, so this shows the
              direction rather than the size
"""

import math
from argparse import Namespace
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from tests.studies.harness import (
    NO_LOAD,
    InjectedLoad,
    Mean,
    calibrate,
    format_change,
    injected_log_ratio,
    load_contrasts,
    load_scenario,
    log_ratios,
    make_parser,
    markdown_table,
    mean,
    measure_once,
    measured_pairs,
    open_executor,
    print_progress,
    run_cells,
    write_raw,
)
from trae_bench.execution import callgrind
from trae_bench.execution.ports import Executor
from trae_bench.model.experiment import Cell, Limits, Mode
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.student_t import t_quantile

KINDS = ("cpu", "cache", "threads", "children")
MODES: tuple[Mode, ...] = ("duet", "serial")


class Line(Struct, frozen=True):
    """One kind and amount of work."""

    name: str
    load: InjectedLoad
    own: Mean
    own_in_duets: Mean
    duet: Mean
    serial: Mean
    instructions: float | None = None
    """Log ratio."""


def quotient(numerator: Mean, denominator: Mean) -> Mean:
    """Divide two independent means; interval by the delta method."""
    value, n = numerator.value / denominator.value, min(numerator.n, denominator.n)
    relative = (part.error / part.value for part in (numerator, denominator))
    half_width = abs(value) * math.hypot(*relative) * t_quantile(0.025, n - 1)
    return Mean(value, value - half_width, value + half_width, math.nan, n)


def make_line(name: str, load: InjectedLoad, samples: Sequence[Sample]) -> Line:
    duets, serials = (measured_pairs(samples, name, mode) for mode in MODES)
    return Line(
        name=name,
        load=load,
        own=mean([injected_log_ratio(b, "cpu") for _, b in serials]),
        own_in_duets=mean([injected_log_ratio(b, "cpu") for _, b in duets]),
        duet=mean(log_ratios(duets, "cpu")),
        serial=mean(log_ratios(serials, "cpu")),
    )


def report(lines: Sequence[Line]) -> str:
    head = ("work", "own account", "own account in duets", "duet", "serial")
    heads = (*head, "duet / own account", "serial / own account", "duet / serial", "instructions")
    return markdown_table(heads, [_cells(line) for line in lines])


def _cells(line: Line) -> tuple[str, ...]:
    ratios = [(line.duet, line.own), (line.serial, line.own), (line.duet, line.serial)]
    instructions = (
        "-" if line.instructions is None else f"{100 * math.expm1(line.instructions):+.1f} %"
    )
    return (
        line.name,
        *(
            format_change(change, 2)
            for change in (line.own, line.own_in_duets, line.duet, line.serial)
        ),
        *("-" if line.load == NO_LOAD else _format(quotient(*means)) for means in ratios),
        instructions,
    )


def _format(ratio: Mean) -> str:
    return f"{ratio.value:.2f} [{ratio.low:.2f} {ratio.high:.2f}]"


# -- measurement ------------------------------------------------------------------------


def count_instructions(executor: Executor, scenario: Scenario, load: InjectedLoad) -> float:
    return measure_once(executor, scenario, load, probe="callgrind")["instructions"]


def measure(options: Namespace) -> tuple[list[Line], Sequence[Sample]]:
    scenario = load_scenario(options.scenario, ["cpu"])
    with open_executor(scenario) as executor:
        loads = {"nothing": NO_LOAD}
        for kind in options.kinds.split(","):
            for share in options.shares.split(","):
                load = calibrate(executor, scenario, kind, float(share) / 100)
                loads[f"{kind}, {share} %"] = load
        contrasts = load_contrasts(scenario, loads)[1:]
        cells = [
            Cell(scenario.name, contrast, mode, ("cpu",))
            for contrast in contrasts
            for mode in MODES
        ]
        print_progress(f"{len(cells) * (options.pairs + 1)} pairs")
        # Cells alternate, so a change of the machine's speed affects all kinds alike.
        limits = Limits(pairs=options.pairs, fixed=True)
        ending = run_cells(executor, cells, limits, options.seed)
        lines = [make_line(name, load, ending.samples) for name, load in loads.items()]
        if options.instructions:
            lines = _with_instructions(lines, executor, scenario)
    return lines, ending.samples


def _with_instructions(lines: Sequence[Line], executor: Executor, scenario: Scenario) -> list[Line]:
    base = count_instructions(executor, scenario, NO_LOAD)
    counts = [count_instructions(executor, scenario, line.load) for line in lines]
    return [
        replace(line, instructions=math.log(count / base))
        for line, count in zip(lines, counts, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "damping")
    parser.add_argument("--scenario", default="noise@200", help="default: %(default)s")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument(
        "--shares", default="5,20", help="percent of CPU time; default: %(default)s"
    )
    parser.add_argument("--pairs", type=int, default=24, help="per mode, at most 60")
    parser.add_argument("--instructions", action="store_true", help="needs valgrind")
    options = parser.parse_args(argv)
    if options.instructions and not callgrind.available():
        parser.error("--instructions needs valgrind, which is not on the PATH")
    lines, samples = measure(options)
    write_raw(options, lines=lines, samples=samples)
    print(f"{options.scenario}, {options.pairs} pairs per mode\n\n{report(lines)}")


if __name__ == "__main__":
    main()
