"""What the studies share: a bench whose agent can be burdened, small statistics, tables.

Trials, pairs, order, pinning and verdicts are the laboratory's own: `SubprocessExecutor` runs them,
`Scheduler` decides what comes next, `comparisons` judges. What differs from a run of
`trae-bench` is the arms: an arm is called by the burden that its agent carries.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import msgspec
from msgspec import Struct

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
from trae_bench.stats.analysis import PairOfSamples, group, pair_outcome
from trae_bench.stats.decision import t_quantile
from trae_bench.subject.agent_core import AgentCoreSubject

ROOT = Path(__file__).resolve().parents[2]
NOISE = "noise"
"""Name of a scenario without tools that are processes: all CPU is the agent's own. `noise@200`
is one of 200 looks at a file."""
NOISE_LOOKS = 40
BURDEN_CPU, BURDEN_WALL = "burden_cpu", "burden_wall"
"""What a sample's burden cost (s), among its metrics; see `burden.py`."""


class Burden(Struct, frozen=True):
    """Extra work: its kind, and how much of it before each request; see `burden.py`."""

    kind: str = "none"
    units: int = 0


NOTHING = Burden()


# -- scenarios and arms -----------------------------------------------------------------


def scenario_of(name: str, metrics: Sequence[str] = ()) -> Scenario:
    """By name; with these metrics in place of its own, where any are named."""
    plain, variant = split(name)
    if plain == NOISE:
        look, end = tiny().turns
        turns = (msgspec.structs.replace(look, repeat=int(variant or NOISE_LOOKS)), end)
        scenario = msgspec.structs.replace(tiny(), name=name, turns=turns)
    else:
        scenario = load(find(name), variant)
    return msgspec.structs.replace(scenario, metrics=tuple(metrics) or scenario.metrics)


def missing(scenario: Scenario) -> str | None:
    """Without what this scenario cannot be played here."""
    if scenario.subject.install is not None:
        return "fresh environments"
    return next(iter(planner.missing(scenario).values()), None)


def playable(left_out: Sequence[str] = ()) -> list[str]:
    """Scenarios and variants of the catalogue that can be played here."""
    return [n for n in all_names() if n not in left_out and missing(scenario_of(n)) is None]


def arm(scenario: Scenario, burden: Burden = NOTHING, *, on: bool = True) -> Arm:
    """All toggles of the scenario on, or all off. It is called by its burden."""
    switches = dict.fromkeys(scenario.toggles.vary, on) | scenario.toggles.hold
    return Arm(f"{burden.kind} {burden.units}", switches)


def burdened(scenario: Scenario, burdens: Mapping[str, Burden]) -> list[Contrast]:
    """A/A, and the agent with every toggle on against itself under each burden."""
    plain = arm(scenario)
    return [
        Contrast(NOISE_FLOOR, plain, plain),
        *(Contrast(name, plain, arm(scenario, burden)) for name, burden in burdens.items()),
    ]


# -- the bench --------------------------------------------------------------------------


class BurdenedAgent(AgentCoreSubject):
    """agent_core, under the burden that its arm names; on both sides by way of `burden.py`."""

    def __init__(self, ledger: Path) -> None:
        super().__init__()
        self._ledger = str(ledger)

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        seats: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        plain = super().command(trial, scenario, seats, home, report_fd)
        errand = Path(plain.argv[-1])
        work = json.loads(errand.read_text(encoding="utf-8"))
        kind, _, units = trial.arm.name.partition(" ")
        burden = {"kind": kind, "units": int(units), "ledger": self._ledger}
        work["entry"] = "tests.studies.injected_load:run_task"
        work["arguments"]["burden"] = burden
        errand.write_text(json.dumps(work), encoding="utf-8")
        return msgspec.structs.replace(plain, env=plain.env | {"PYTHONPATH": str(ROOT)})


class Accounted:
    """An executor whose samples say what their burden cost."""

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
                | dict(zip((BURDEN_CPU, BURDEN_WALL), costs.get(sample.pid, ()), strict=False)),
            )
            for sample in samples
        ]


@contextmanager
def bench(scenario: Scenario) -> Iterator[Executor]:
    """Runs trials of the burdened agent, nobody else measuring on this host meanwhile.

    Raises `CannotMeasure` for a scenario without a session, which no burden reaches.
    """
    if not scenario.subject.has_session:
        raise CannotMeasure(f"{scenario.name} has no session; take another scenario")
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        ledger, scratch = Path(folder, "ledger"), Path(folder, "scratch")
        with (
            HostLock(say),
            Loopback(pin=cpu_affinity.provider_core()) as provider,
            SubprocessExecutor(
                BurdenedAgent(ledger),
                provider,
                {scenario.name: scenario},
                script=expand,
                scratch=scratch,
                duet_core=cpu_affinity.duet_core(),
            ) as executor,
        ):
            yield Accounted(executor, ledger)


class Nowhere:
    """A sink for samples that their session keeps."""

    def append(self, sample: Sample) -> Sample:
        return sample


def play(executor: Executor, cells: Sequence[Cell], limits: Limits, seed: int) -> Ending:
    """One session. Raises what ended it before its time, Ctrl-C included."""
    session = Scheduler(
        cells,
        METRICS,
        executor=executor,
        sink=Nowhere(),
        clock=time.monotonic,
        seed=seed,
        limits=limits,
    )
    ending = session.run()
    if ending.error is not None:
        raise ending.error
    if ending.stopped == "interrupted":
        raise KeyboardInterrupt
    return ending


def pairs_of(samples: Iterable[Sample], contrast: str, mode: Mode) -> list[tuple[Sample, Sample]]:
    """The pairs that count, in order."""
    found: list[PairOfSamples] = []
    for key, pairs in group(samples).items():
        if (key.contrast, key.mode) == (contrast, mode):
            found += [pairs[number] for number in sorted(pairs) if number > 0]
    return [(a, b) for a, b in found if a and b and pair_outcome(a, b)[0] == "measured"]


# -- the right amount -------------------------------------------------------------------

_FIRST_TRY = {"cpu": 10_000, "cache": 50_000, "threads": 20_000, "children": 500}
_TRIES = 5


def calibrated(executor: Executor, scenario: Scenario, kind: str, share: float) -> Burden:
    """The burden of a kind that adds about this share (a fraction) of CPU to a session.

    About: what it really adds, every sample says.
    """
    probe(executor, scenario, NOTHING)
    wanted = share * median(probe(executor, scenario, NOTHING)["cpu"] for _ in range(3))
    burden = Burden(kind, _FIRST_TRY[kind])
    for _ in range(_TRIES):
        cost = probe(executor, scenario, burden)[BURDEN_CPU]
        burden = Burden(kind, max(1, round(burden.units * wanted / cost)))
    return burden


def probe(
    executor: Executor, scenario: Scenario, burden: Burden, watched: Probe = "plain"
) -> dict[str, float]:
    """What one session by itself shows. Raises `CannotMeasure` where it goes wrong."""
    carried = arm(scenario, burden)
    trial = Trial(scenario.name, "", "serial", 0, "A", 0, carried, 0, probe=watched)
    (sample,) = executor.run([trial])
    if not sample.correct:
        raise CannotMeasure(f"{scenario.name} with {burden}: {sample.problem}")
    return sample.metrics


# -- figures ----------------------------------------------------------------------------


class Mean(Struct, frozen=True):
    """A mean with its 95 % interval by Student's t; no interval (NaN) from fewer than two."""

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
    middle, sd = fmean(values), stdev(values)
    reach = t_quantile(0.025, len(values) - 1) * sd / math.sqrt(len(values))
    return Mean(middle, middle - reach, middle + reach, sd, len(values))


def log_ratios(pairs: Sequence[tuple[Sample, Sample]], metric: str) -> list[float]:
    return [math.log(b.metrics[metric] / a.metrics[metric]) for a, b in pairs]


def injected(sample: Sample, metric: str) -> float:
    """What its burden did to a sample's cpu or wall, as a log ratio, by its own account."""
    cost = sample.metrics[BURDEN_CPU if metric == "cpu" else BURDEN_WALL]
    return -math.log1p(-cost / sample.metrics[metric])


def share_interval(found: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of a share: Clopper and Pearson, Biometrika 26 (1934)."""
    from scipy.stats import beta  # type: ignore[import-untyped]

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, found, of - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, of - found)) if found < of else 1.0
    return low, high


def share_at_most(found: int, of: int, level: float = 0.95) -> float:
    """One-sided upper bound of a share; for none found, near 3 / `of`."""
    return share_interval(found, of, 2 * level - 1)[1]


# -- what is told -----------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def percent(log_ratio: float, digits: int = 1) -> str:
    return "-" if math.isnan(log_ratio) else f"{100 * math.expm1(log_ratio):+.{digits}f} %"


def told(figure: Mean, digits: int = 1) -> str:
    """A mean log ratio as a change in percent, with its interval."""
    if math.isnan(figure.low):
        return percent(figure.value, digits)
    ends = (f"{100 * math.expm1(end):+.{digits}f}" for end in (figure.low, figure.high))
    return f"{percent(figure.value, digits)} [{' '.join(ends)}]"


def share(found: int, of: int) -> str:
    """A count as a share in percent, with its interval."""
    if not of:
        return "-"
    low, high = share_interval(found, of)
    return f"{found} of {of} ({100 * low:.0f} to {100 * high:.0f} %)"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def arguments(about: str | None, name: str) -> argparse.ArgumentParser:
    """The options that all studies have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.studies.{name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="file for the raw data")
    parser.add_argument("--seed", type=int, default=1, help="order of the sides, and all else")
    return parser


def here() -> dict[str, Any]:
    """What raw data must say of their origin."""
    return {
        "machine": host_facts.fingerprint(),
        "code": code_version.code_state(),
        "versions": code_version.versions(),
    }


def keep(asked: argparse.Namespace, **raw: object) -> None:
    """Write the raw data, where --out asks for them."""
    if asked.out is not None:
        wishes = vars(asked) | {"out": None}
        asked.out.write_bytes(msgspec.json.encode({**here(), "wishes": wishes, **raw}) + b"\n")


class Log:
    """One line of JSON a round, on the disk as soon as it is over; read again to go on.

    The first line says where the data come from and what was asked. Raises `CannotMeasure`
    where the file was begun with other wishes or at another commit: two are not mixed.
    """

    def __init__(self, path: Path | None, wishes: Mapping[str, Any]) -> None:
        self._path = path
        self.rounds: list[dict[str, Any]] = []
        if path is None:
            return
        if not path.exists():
            self._write({**here(), "wishes": wishes})
            return
        begun = msgspec.json.decode(path.read_bytes().splitlines()[0])
        commit = code_version.code_state().get("commit")
        if (begun["wishes"], begun["code"].get("commit")) != (msgspec.to_builtins(wishes), commit):
            raise CannotMeasure(
                f"{path} was begun with other options or at another commit; name another --out"
            )
        self.rounds = rounds_of(path)

    def append(self, found: object) -> None:
        self.rounds.append(msgspec.to_builtins(found))
        if self._path is not None:
            self._write(found)

    def _write(self, line: object) -> None:
        assert self._path is not None
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def rounds_of(path: Path) -> list[dict[str, Any]]:
    """What a log holds after its first line."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()[1:]]


@contextmanager
def stoppable() -> Iterator[None]:
    """Around rounds that a log keeps: Ctrl-C ends them, and what there is will be told."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopped; the same command goes on")


class Clock:
    """When to begin nothing more. `minutes` None is never."""

    def __init__(self, minutes: float | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        return self._end - time.monotonic()
