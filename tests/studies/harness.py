"""Shared parts of the studies: an executor with injected load, statistics, raw data, tables.

The studies use the production `SubprocessExecutor`, `Scheduler` and `comparisons`. They differ from
`trae-bench run` in the arms: the name of an arm is the load that is injected into its agent.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import msgspec
from msgspec import Struct

from tests.studies.injected_load import repetitions
from tests.trae_bench.scenario.test_catalog import all_names
from trae_bench._util import code_version, cpu_affinity, host_facts
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure
from trae_bench.execution.host_lock import HostLock
from trae_bench.execution.ports import Executor
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import (
    Arm,
    Cell,
    Command,
    Contrast,
    Limits,
    Mode,
    Probe,
    SessionEndpoint,
    Trial,
)
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.run import planner
from trae_bench.run.doctor import tiny
from trae_bench.run.scheduler import Ending, Scheduler
from trae_bench.scenario import Scenario, find, load, split
from trae_bench.stats.pairs import PairOfSamples, group_samples, pair_outcome
from trae_bench.stats.student_t import t_quantile
from trae_bench.subject.agent_core import AgentCoreSubject

ROOT = Path(__file__).resolve().parents[2]
NOISE_SCENARIO = "noise"
"""Name of a scenario without child processes: all CPU time belongs to the agent. `noise@200` views
a file 200 times."""
DEFAULT_VIEWS = 40
INJECTED_CPU, INJECTED_WALL = "injected_cpu", "injected_wall"
"""Metrics of a sample: cost of its injected load (s); see `injected_load.py`."""


class InjectedLoad(Struct, frozen=True):
    """Extra work before each request; see `injected_load.py` for kinds and units."""

    kind: str = "none"
    units: int = 0


NO_LOAD = InjectedLoad()


# -- scenarios and arms -----------------------------------------------------------------


def load_scenario(name: str, metrics: Sequence[str] = ()) -> Scenario:
    """Load a scenario by name. `metrics` replace its own metrics if given."""
    plain, variant = split(name)
    if plain == NOISE_SCENARIO:
        view, end = tiny().turns
        turns = (msgspec.structs.replace(view, repeat=int(variant or DEFAULT_VIEWS)), end)
        scenario = msgspec.structs.replace(tiny(), name=name, turns=turns)
    else:
        scenario = load(find(name), variant)
    return msgspec.structs.replace(scenario, metrics=tuple(metrics) or scenario.metrics)


def missing_requirement(scenario: Scenario) -> str | None:
    """Return what this host lacks to run the scenario, or None."""
    if scenario.subject.install is not None:
        return "fresh environments"
    return next(iter(planner.missing(scenario).values()), None)


def available_scenarios(excluded: Sequence[str] = ()) -> list[str]:
    """Return the scenarios and variants of the catalogue that can run on this host."""
    return [
        name
        for name in all_names()
        if name not in excluded and missing_requirement(load_scenario(name)) is None
    ]


def make_arm(scenario: Scenario, load: InjectedLoad = NO_LOAD, *, on: bool = True) -> Arm:
    """Return an arm with all varied toggles on (or off), named after its load."""
    toggles = dict.fromkeys(scenario.toggles.vary, on) | scenario.toggles.hold
    return Arm(f"{load.kind} {load.units}", toggles)


def load_contrasts(scenario: Scenario, loads: Mapping[str, InjectedLoad]) -> list[Contrast]:
    """Return A/A and one contrast per load, all with every toggle on."""
    plain = make_arm(scenario)
    return [
        Contrast(NOISE_FLOOR, plain, plain),
        *(Contrast(name, plain, make_arm(scenario, load)) for name, load in loads.items()),
    ]


# -- execution --------------------------------------------------------------------------


class LoadedAgent(AgentCoreSubject):
    """agent_core with the load that its arm names. Both sides start through `injected_load.py`."""

    def __init__(self, ledger: Path) -> None:
        super().__init__()
        self._ledger = str(ledger)

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        plain = super().command(trial, scenario, endpoints, home, report_fd)
        work_file = Path(plain.argv[-1])
        work = json.loads(work_file.read_text(encoding="utf-8"))
        kind, _, units = trial.arm.name.partition(" ")
        work["entry"] = "tests.studies.injected_load:run_task"
        work["arguments"]["load"] = {"kind": kind, "units": int(units), "ledger": self._ledger}
        work_file.write_text(json.dumps(work), encoding="utf-8")
        return msgspec.structs.replace(plain, env=plain.env | {"PYTHONPATH": str(ROOT)})


class LoadRecorder:
    """Executor that adds the cost of the injected load to the metrics of each sample."""

    def __init__(self, executor: Executor, ledger: Path) -> None:
        self._executor = executor
        self._ledger = ledger

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        self._ledger.write_text("")
        samples = self._executor.run(trials)
        lines = (line.split() for line in self._ledger.read_text().splitlines())
        costs = {int(pid): (float(cpu), float(wall)) for pid, cpu, wall in lines}
        return [
            msgspec.structs.replace(
                sample,
                metrics=sample.metrics
                | dict(zip((INJECTED_CPU, INJECTED_WALL), costs.get(sample.pid, ()), strict=False)),
            )
            for sample in samples
        ]


@contextmanager
def open_executor(
    scenario: Scenario, kind: Callable[..., SubprocessExecutor[Any]] = SubprocessExecutor
) -> Iterator[Executor]:
    """Yield an executor for agents with injected load. Holds the host lock.

    `kind` makes the executor. Raises `CannotMeasure` if the scenario has no session, because load
    is injected per request.
    """
    if not scenario.subject.has_session:
        raise CannotMeasure(f"{scenario.name} has no session; take another scenario")
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        ledger, scratch = Path(folder, "ledger"), Path(folder, "scratch")
        with (
            HostLock(print_progress),
            Loopback(pin=cpu_affinity.provider_core()) as provider,
            kind(
                LoadedAgent(ledger),
                provider,
                {scenario.name: scenario},
                script=expand,
                scratch=scratch,
                duet_core=cpu_affinity.duet_core(),
            ) as executor,
        ):
            yield LoadRecorder(executor, ledger)


_HOG = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Run `count` processes that compute all the time, on the cores in turn.

    They end at the exit, or within a moment if this process dies.
    """
    cores = cpu_affinity.cores() or (0,)
    with ExitStack() as running:
        for number in range(count):
            argv = [sys.executable, "-I", "-S", "-c", _HOG, str(cores[number % len(cores)])]
            process = running.enter_context(subprocess.Popen(argv))
            # Popen's exit waits for the end of the process, so kill it first.
            running.callback(process.kill)
        yield


class NullSink:
    """Discards samples. `Ending.samples` still has them."""

    def append(self, sample: Sample) -> Sample:
        return sample

    def append_check(self, check: Sample) -> Sample:
        return check


def run_cells(executor: Executor, cells: Sequence[Cell], limits: Limits, seed: int) -> Ending:
    """Run one schedule. Re-raises its error. Raises `KeyboardInterrupt` if it was interrupted."""
    scheduler = Scheduler(
        cells,
        METRICS,
        executor=executor,
        sink=NullSink(),
        clock=time.monotonic,
        seed=seed,
        limits=limits,
    )
    ending = scheduler.run()
    if ending.error is not None:
        raise ending.error
    if ending.stopped == "interrupted":
        raise KeyboardInterrupt
    return ending


def measured_pairs(
    samples: Iterable[Sample], contrast: str, mode: Mode
) -> list[tuple[Sample, Sample]]:
    """Return the pairs that count, in order. Warm-up pairs are excluded."""
    candidates: list[PairOfSamples] = []
    for key, pairs in group_samples(samples).items():
        if (key.contrast, key.mode) == (contrast, mode):
            candidates += [pairs[number] for number in sorted(pairs) if number > 0]
    return [(a, b) for a, b in candidates if a and b and pair_outcome(a, b)[0] == "measured"]


# -- calibration ------------------------------------------------------------------------

_INITIAL_UNITS = {"cpu": 10_000, "cache": 50_000, "threads": 20_000, "children": 500}
_CALIBRATION_STEPS = 5


def calibrate(executor: Executor, scenario: Scenario, kind: str, share: float) -> InjectedLoad:
    """Return a load that adds about `share` (a fraction) to the CPU time of a session.

    The actual cost is recorded in every sample.
    """
    measure_once(executor, scenario, NO_LOAD)
    target = share * median(measure_once(executor, scenario, NO_LOAD)["cpu"] for _ in range(3))
    load = InjectedLoad(kind, _INITIAL_UNITS[kind])
    for _ in range(_CALIBRATION_STEPS):
        cost = measure_once(executor, scenario, load)[INJECTED_CPU]
        load = InjectedLoad(kind, max(1, round(load.units * target / cost)))
    return load


def calibrate_sleep(executor: Executor, scenario: Scenario, share: float) -> InjectedLoad:
    """Return a load that sleeps for `share` (a fraction) of the session's wall_net."""
    first = measure_once(executor, scenario, NO_LOAD, mode="duet")
    others = [measure_once(executor, scenario, NO_LOAD, mode="duet") for _ in range(3)]
    seconds = share * median(metrics["wall_net"] for metrics in others)
    times = repetitions("sleep", round(first["requests"]))
    return InjectedLoad("sleep", max(1, round(1e6 * seconds / times)))


def measure_once(
    executor: Executor,
    scenario: Scenario,
    load: InjectedLoad,
    probe: Probe = "plain",
    mode: Mode = "serial",
) -> dict[str, float]:
    """Return the metrics of a single session. Raises `CannotMeasure` if it fails."""
    arm = make_arm(scenario, load)
    trial = Trial(scenario.name, "", mode, 0, "A", 0, arm, 0, probe=probe)
    (sample,) = executor.run([trial])
    if not sample.correct:
        raise CannotMeasure(f"{scenario.name} with {load}: {sample.problem}")
    return sample.metrics


# -- statistics -------------------------------------------------------------------------


class Mean(Struct, frozen=True):
    """A mean with its 95 % interval by Student's t. The interval is NaN for n < 2."""

    value: float
    low: float
    high: float
    sd: float
    n: int

    @property
    def error(self) -> float:
        return self.sd / math.sqrt(self.n)


def mean(values: Sequence[float]) -> Mean:
    if len(values) < 2:
        value = values[0] if values else math.nan
        return Mean(value, math.nan, math.nan, math.nan, len(values))
    center, sd = fmean(values), stdev(values)
    half_width = t_quantile(0.025, len(values) - 1) * sd / math.sqrt(len(values))
    return Mean(center, center - half_width, center + half_width, sd, len(values))


def log_ratios(pairs: Sequence[tuple[Sample, Sample]], metric: str) -> list[float]:
    return [math.log(b.metrics[metric] / a.metrics[metric]) for a, b in pairs]


def injected_log_ratio(sample: Sample, metric: str) -> float:
    """Return the true effect of the load on `cpu` or `wall`, from the recorded cost."""
    cost = sample.metrics[INJECTED_CPU if metric == "cpu" else INJECTED_WALL]
    return -math.log1p(-cost / sample.metrics[metric])


def proportion_interval(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a proportion: Clopper and Pearson, Biometrika 26 (1934)."""
    from scipy.stats import beta  # type: ignore[import-untyped]

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, total - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, total - successes)) if successes < total else 1.0
    return low, high


def proportion_upper_bound(successes: int, total: int, level: float = 0.95) -> float:
    """One-sided upper bound of a proportion; about 3 / `total` for no successes."""
    return proportion_interval(successes, total, 2 * level - 1)[1]


# -- output -----------------------------------------------------------------------------


def print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def format_percent(log_ratio: float, digits: int = 1) -> str:
    return "-" if math.isnan(log_ratio) else f"{100 * math.expm1(log_ratio):+.{digits}f} %"


def format_change(log_ratio: Mean, digits: int = 1) -> str:
    """Format a mean log ratio as a change in percent with its interval."""
    if math.isnan(log_ratio.low):
        return format_percent(log_ratio.value, digits)
    bounds = (f"{100 * math.expm1(bound):+.{digits}f}" for bound in (log_ratio.low, log_ratio.high))
    return f"{format_percent(log_ratio.value, digits)} [{' '.join(bounds)}]"


def format_proportion(successes: int, total: int) -> str:
    """Format a count as a proportion in percent with its interval."""
    if not total:
        return "-"
    low, high = proportion_interval(successes, total)
    return f"{successes} of {total} ({100 * low:.0f} to {100 * high:.0f} %)"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def make_parser(about: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all studies share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.studies.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="output file for raw data")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: %(default)s)")
    return parser


def add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--load", type=int, default=0, help="processes that compute all the time (default: none)"
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", type=Path, nargs="+", help="report these files and exit")


# -- raw data ---------------------------------------------------------------------------

_OPTIONS = "wishes"
"""Key of the options in raw data. `results/studies` has files with this key."""


def provenance() -> dict[str, Any]:
    """Return machine, code and versions for raw data."""
    return {
        "machine": host_facts.fingerprint(),
        "code": code_version.code_state(),
        "versions": code_version.versions(),
    }


def write_raw(options: argparse.Namespace, **raw: object) -> None:
    """Write raw data to `--out`, if given."""
    if options.out is not None:
        plain = vars(options) | {"out": None}
        content = msgspec.json.encode({**provenance(), _OPTIONS: plain, **raw})
        options.out.write_bytes(content + b"\n")


class RoundLog:
    """JSON lines, one per round, written after each round and read again to resume.

    The first line has the provenance and the options. Raises `CannotMeasure` if the file was
    started with other options or at another commit.
    """

    def __init__(self, path: Path | None, options: Mapping[str, Any]) -> None:
        self._path = path
        self.rounds: list[dict[str, Any]] = []
        if path is None:
            return
        if not path.exists():
            self._write({**provenance(), _OPTIONS: options})
            return
        head = msgspec.json.decode(path.read_bytes().splitlines()[0])
        commit = code_version.code_state().get("commit")
        if (head[_OPTIONS], head["code"].get("commit")) != (msgspec.to_builtins(options), commit):
            raise CannotMeasure(
                f"{path} was started with other options or at another commit; "
                "choose another file with --out"
            )
        self.rounds = read_rounds(path)

    def append(self, result: object) -> None:
        self.rounds.append(msgspec.to_builtins(result))
        if self._path is not None:
            self._write(result)

    def _write(self, line: object) -> None:
        assert self._path is not None
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log after its first line."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()[1:]]


def read_head(path: Path) -> dict[str, Any]:
    """Return the first line of a log, with the options as `options`."""
    head: dict[str, Any] = msgspec.json.decode(path.read_bytes().partition(b"\n")[0])
    return head | {"options": head[_OPTIONS]}


def describe_head(head: Mapping[str, Any]) -> str:
    """Describe the machine, the load and the code of a log: `2 x CPU, Python 3.11.7, ...`."""
    machine, code, load = head["machine"], head["code"], head["options"].get("load", 0)
    hogs = f"{load} other process(es) computing all the time" if load else "no other load"
    commit = str(code.get("commit"))[:12] + (" (dirty)" if code.get("dirty") else "")
    return (
        f"{machine['cores']} x {machine['cpu']}, Python {machine['python']}, {hogs}, "
        f"commit {commit}"
    )


@contextmanager
def stop_on_interrupt() -> Iterator[None]:
    """End the rounds on Ctrl-C and continue with the report."""
    try:
        yield
    except KeyboardInterrupt:
        print_progress("stopped; run the same command again to resume")


class TimeLimit:
    """Time after which no new round starts. None means no limit."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def remaining(self) -> float:
        return self._end - time.monotonic()
