"""Can a busy machine show the time that a trial takes on an idle one?

    python -m tests.studies.net_time --repetitions 30 --out net_time.json

Each repetition runs every program in five ways, one after the other:

alone          one process, on the duet's core
duet           both sides of an A/A pair at once, on the duet's core
load           as "alone", while a process on every core computes all the time
load duet      as "duet", under the same load
serial         two sides of an A/A pair one after the other, on any core, under the same load

Programs: `single` alternates 4 ms of CPU and 10 ms of sleep; `tools` starts five such
processes at once, twice; `computing tools` are five that never sleep; `threads` has five such
threads, and in `patient threads` none asks another for the interpreter's lock. Their processor
time is fixed, except that of starting Python.

Three estimates of the time on an idle core are compared: `wall`; `wall - main`, which is wall
less the run delay of the main thread (/proc/PID/schedstat); and `wall - tree`, which is wall
less the time in which some task of the trial was runnable and none ran (`run_delay`).

With --agent, agent_core plays a scenario in place of the programs. Its metrics are compared with
their net variants; the truth is the median of the net variant in "alone".

The row `cpu` shows what the load does to the work itself: cache misses, a busy sibling of the
core. A bias of `wall - tree` that `cpu` has too is not an error of the accounting.

truth     median `wall - tree` of the quarter of "alone" that lost the smallest share of wall; the
          largest of these shares is in brackets, and on a quiet machine it is 0 %
bias      mean log ratio of the estimate to the truth, with its 95 % interval
pair sd   standard deviation of the log ratios of A/A pairs
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import msgspec
from msgspec import Struct

from tests.studies.blocked import busy_cores
from tests.studies.harness import (
    add_report,
    describe_head,
    format_change,
    load_scenario,
    make_arm,
    make_parser,
    markdown_table,
    mean,
    open_executor,
    read_head,
    write_raw,
)
from trae_bench._util.child_env import environment
from trae_bench._util.cpu_affinity import duet_core
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.execution.run_delay import Group, PressureGroups
from trae_bench.metrics import NET_METRICS
from trae_bench.model.experiment import Mode, Side, Trial
from trae_bench.model.sample import ProcessResult

PROGRAMS = ("single", "tools", "computing tools", "threads", "patient threads")
ESTIMATES = ("wall", "wall - main", "wall - tree", "cpu")
WAYS = ("alone", "duet", "load", "load duet", "serial")
SECONDS = 60.0
QUARTER = 4
SIDES: tuple[Side, ...] = ("A", "B")
HEAD = (
    *("program", "estimate", "n", "truth", "bias, duet", "bias, load", "bias, load duet"),
    *("pair sd, duet", "pair sd, load duet", "pair sd, load serial"),
)

_PROGRAM = """
import subprocess, sys, threading, time

def work(times, pause):
    for _ in range(times):
        end = time.thread_time() + 0.004
        while time.thread_time() < end:
            pass
        time.sleep(pause)

def tools(kind):
    argv = [sys.executable, "-I", "-S", "-c", SOURCE, kind]
    for tool in [subprocess.Popen(argv) for _ in range(5)]:
        tool.wait()

def threads():
    started = [threading.Thread(target=work, args=(10, 0.01)) for _ in range(5)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()

kind = sys.argv[1]
if kind == "single":
    work(20, 0.01)
elif kind == "tool":
    work(10, 0.01)
elif kind == "computing tool":
    work(10, 0)
elif kind == "tools":
    tools("tool")
    tools("tool")
elif kind == "computing tools":
    tools("computing tool")
elif kind == "threads":
    threads()
elif kind == "patient threads":
    sys.setswitchinterval(10.0)
    threads()
"""


class Times(Struct, frozen=True):
    """Seconds that one process took, by each estimate."""

    wall: float
    main: float
    """Wall less the run delay of the main thread."""
    tree: float
    """Wall less the delay of the whole trial."""
    cpu: float

    def by(self, estimate: str) -> float:
        named = (self.wall, self.main, self.tree, self.cpu)
        return dict(zip(ESTIMATES, named, strict=True))[estimate]


class Repetition(Struct, frozen=True):
    """One program in one way; a pair has two times."""

    program: str
    way: str
    times: tuple[Times, ...]


class Programs:
    """Starts programs through the launcher, as trials are started."""

    def __init__(self, launcher: LauncherClient, groups: Sequence[Group], folder: Path) -> None:
        core = duet_core()
        if core is None:
            raise CannotMeasure("this system cannot pin a process to a core")
        self._launcher = launcher
        self._groups = groups
        self._folder = folder
        self._core = core
        self._program = folder / "program.py"
        self._program.write_text(f"SOURCE = {_PROGRAM!r}\n{_PROGRAM}", encoding="utf-8")

    def run(self, program: str, count: int, *, pinned: bool = True) -> tuple[Times, ...]:
        """Run `count` processes of a program at once."""
        jobs = [self._job(program, slot, pinned) for slot in range(count)]
        return tuple(map(_times, self._launcher.run(jobs, SECONDS)))

    def _job(self, program: str, slot: int, pinned: bool) -> Job:
        return Job(
            argv=(sys.executable, "-I", "-S", str(self._program), program),
            env=environment(self._folder),
            cwd=str(self._folder),
            log=str(self._folder / f"log-{slot}"),
            cores=(self._core,) if pinned else (),
            group=self._groups[slot],
        )


def _times(ended: ProcessResult) -> Times:
    if ended.exit_status != 0 or ended.run_delay is None or ended.tree_delay is None:
        raise CannotMeasure(f"a program failed: {ended}")
    return Times(ended.wall, ended.wall - ended.run_delay, ended.wall - ended.tree_delay, ended.cpu)


def repetitions(programs: Programs, names: Sequence[str], count: int) -> Iterator[Repetition]:
    for _ in range(count):
        for program in names:
            yield Repetition(program, "alone", programs.run(program, 1))
            yield Repetition(program, "duet", programs.run(program, 2))
            with busy_cores(1.0):
                yield Repetition(program, "load", programs.run(program, 1))
                yield Repetition(program, "load duet", programs.run(program, 2))
                first, second = (programs.run(program, 1, pinned=False) for _ in range(2))
                yield Repetition(program, "serial", first + second)


def truth_of(alone: Sequence[Times], estimate: str) -> tuple[float, float]:
    """The truth (seconds), and the largest share of wall that a run behind it lost."""
    by_share = sorted(alone, key=lambda times: 1 - times.tree / times.wall)
    calm = by_share[: max(1, len(by_share) // QUARTER)]
    truth = median(times.by("cpu" if estimate == "cpu" else "wall - tree") for times in calm)
    return truth, 1 - calm[-1].tree / calm[-1].wall


def report(found: Sequence[Repetition]) -> str:
    rows = []
    for program in dict.fromkeys(one.program for one in found):
        ways = {
            way: [one.times for one in found if (one.program, one.way) == (program, way)]
            for way in WAYS
        }
        for estimate in ESTIMATES:
            truth, lost = truth_of([times for (times,) in ways["alone"]], estimate)
            cells = [
                program,
                estimate,
                f"{len(ways['alone'])}",
                f"{1000 * truth:.0f} ms ({lost:.0%})",
            ]
            cells += [_bias(ways[way], estimate, truth) for way in ("duet", "load", "load duet")]
            cells += [_pair_sd(ways[way], estimate) for way in ("duet", "load duet", "serial")]
            rows.append(cells)
    return markdown_table(HEAD, rows)


def report_file(path: Path) -> str:
    """Return the report of a file of raw data, with its machine."""
    found = msgspec.json.decode(path.read_bytes())["repetitions"]
    text = report(msgspec.convert(found, list[Repetition]))
    return f"{text}\n\nMeasured on {describe_head(read_head(path))}."


def _bias(taken: Sequence[Sequence[Times]], estimate: str, truth: float) -> str:
    # Both sides of a pair ran at the same time, so that they count as one observation.
    logs = [
        sum(math.log(times.by(estimate) / truth) for times in sides) / len(sides) for sides in taken
    ]
    return format_change(mean(logs), 2)


def _pair_sd(taken: Sequence[Sequence[Times]], estimate: str) -> str:
    logs = [math.log(b.by(estimate) / a.by(estimate)) for a, b in taken]
    return f"{100 * mean(logs).sd:.2f} %"


def agent_rows(name: str, repetitions: int) -> Iterator[list[str]]:
    """A table's rows: each metric and its net variant."""
    scenario = load_scenario(name)
    taken: dict[str, list[list[dict[str, float]]]] = {way: [] for way in WAYS}
    with open_executor(scenario) as executor:

        def run(mode: Mode, count: int) -> list[dict[str, float]]:
            carried = make_arm(scenario)
            trials = [
                Trial(scenario.name, "", mode, 0, side, slot, carried, 0)
                for slot, side in enumerate(SIDES[:count])
            ]
            return [sample.metrics for sample in executor.run(trials)]

        run("duet", 2)
        for _ in range(repetitions):
            taken["alone"].append(run("duet", 1))
            taken["duet"].append(run("duet", 2))
            with busy_cores(1.0):
                taken["load"].append(run("duet", 1))
                taken["load duet"].append(run("duet", 2))
                taken["serial"].append(run("serial", 1) + run("serial", 1))
    for metric in (*sorted(NET_METRICS), "cpu"):
        truth = median(sides[0][metric] for sides in taken["alone"] if metric in sides[0])
        for shown in dict.fromkeys((metric.removesuffix("_net"), metric)):
            logs = {
                way: [
                    [math.log(side[shown] / truth) for side in sides]
                    for sides in pairs
                    if all(side.get(shown) for side in sides)
                ]
                for way, pairs in taken.items()
            }
            yield [
                *(name, shown, str(len(logs["load duet"])), f"{1000 * truth:.2f} ms"),
                *(format_change(mean([fmean(pair) for pair in logs[way]]), 2) for way in WAYS[1:4]),
                *(
                    f"{100 * mean([b - a for a, b in logs[way]]).sd:.2f} %"
                    for way in ("duet", "load duet", "serial")
                ),
            ]


def main(said: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "net_time")
    parser.add_argument("--repetitions", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--programs", default=",".join(PROGRAMS), help="default: all")
    parser.add_argument("--agent", help="scenario that the agent plays in place of the programs")
    add_report(parser)
    asked = parser.parse_args(said)
    if asked.report:
        print("\n\n".join(map(report_file, asked.report)))
        return
    if asked.agent is not None:
        rows = list(agent_rows(asked.agent, asked.repetitions))
        write_raw(asked, rows=rows)
        print(markdown_table(HEAD, rows))
        return
    with (
        TemporaryDirectory(prefix="study-") as folder,
        PressureGroups() as pressure,
        closing(LauncherClient()) as launcher,
    ):
        if pressure.problem is not None:
            raise CannotMeasure(pressure.problem)
        programs = Programs(launcher, pressure.groups, Path(folder))
        found = list(repetitions(programs, asked.programs.split(","), asked.repetitions))
    write_raw(asked, repetitions=found)
    print(report(found))


if __name__ == "__main__":
    main()
