"""pyperf, asv, pytest-benchmark, hyperfine and trae-bench on the same pairs of commands.

    python -m tests.studies.peers --seconds 30 --rounds 3 --out peers.jsonl

The command is one session (default: `bugfix`) against the loopback provider; see `seats.py`.
Four pairs: A/A, a loop that adds about 3 % and 5 % of CPU to B (`burden.py`), and every toggle
off against on. Each tool compares each pair once a round, in --seconds, as its documentation
has two commands compared; which tool comes first changes from round to round.

pyperf            `pyperf command` for each, `pyperf compare_to`; claims what its t-test calls
                  significant
hyperfine         both in one call, --warmup 1; claims what scripts/welch_ttest.py of its
                  repository does: Welch's t, p < 0.05
asv               a benchmark that runs the command, one revision for A and one for B,
                  `asv compare`: factor 1.1 as it is by default, and 1.02
pytest-benchmark  `pedantic` rounds that run the command, A saved, B compared, failing at
                  min:5% as in its documentation; it knows no claim of an improvement
trae-bench        A/A pairs included in its seconds: cpu in duets, wall one after the other

A claim about A/A is a false alarm; no claim about the others, or the wrong way round, is a miss.
The ratio is that of the tool's own centre of B to that of A. What tools time differs: pyperf,
hyperfine, asv and pytest-benchmark take the wall time of the command with its shell.
"""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice, takewhile
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Literal

from msgspec import Struct, convert

from tests.studies.harness import (
    Clock,
    Log,
    arguments,
    arm,
    bench,
    calibrated,
    injected,
    mean,
    pairs_of,
    play,
    say,
    scenario_of,
    share,
    stoppable,
    table,
)
from tests.studies.prepared_sessions import Seats
from trae_bench._util import cpu_affinity
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure
from trae_bench.execution.ports import Executor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Contrast, Limits
from trae_bench.provider.loopback import Loopback
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons

Claim = Literal["slower", "faster", "none"]
EQUAL, TOGGLES = "A/A", "toggles"
SHARES = {EQUAL: 0.0, "+3 %": 0.03, "+5 %": 0.05}
"""Of CPU, that B's burden adds."""
PAIRS = (*SHARES, TOGGLES)
EXPECTED: dict[str, Claim] = {EQUAL: "none", TOGGLES: "faster"}
"""What is true of a pair; of the others, that B is slower."""
PACES = 3
"""Sessions of each side that tell how many fit into the time."""
FEWEST = 4
"""Sessions of each side, however little time there is."""
SPARE = 20
"""Seats beyond those that are asked for: warm-ups, calibration."""
NO_HYPERFINE = "not on the PATH (Debian: apt install hyperfine; else: cargo install hyperfine)"


class Said(Struct, frozen=True):
    """What one tool said of one pair."""

    tool: str
    pair: str
    ratio: float
    claim: Claim
    evidence: str
    seconds: float
    sessions: int
    truth: float | None = None
    """Log ratio that B's burden brought about in what the tool times, where it is known."""


class Job(Struct, frozen=True):
    """What a tool is given: two commands, how often to run each, and a folder to work in."""

    a: list[str]
    b: list[str]
    runs: int
    folder: Path


class Answer(Struct, frozen=True):
    tool: str
    ratio: float
    claim: Claim
    evidence: str


def direction(found: bool, ratio: float) -> Claim:
    return ("slower" if ratio > 1 else "faster") if found else "none"


# -- the tools --------------------------------------------------------------------------


def run(argv: Sequence[str], folder: Path, *, failing: bool = False) -> str:
    """What it prints. Raises `CannotMeasure` where it fails, unless that is an answer."""
    # A tool's own files go there, too: asv keeps some at home.
    env = os.environ | {"HOME": str(folder)}
    # pytest-benchmark takes itself for a worker of pytest-xdist, and measures nothing.
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode and not failing:
        raise CannotMeasure(
            f"{shlex.join(argv[:6])} ... ended with {done.returncode}: {said[-2000:]}"
        )
    return said


def pyperf(job: Job) -> Iterator[Answer]:
    # 3 values and a warm-up a process, by default; the calibration is one more process.
    processes = max(1, job.runs // 4 - 1)
    here = [sys.executable, "-m", "pyperf"]
    for name, argv in (("a", job.a), ("b", job.b)):
        options = ["--name", "session", "--processes", str(processes), "-o", f"{name}.json"]
        run([*here, "command", *options, "--", *argv], job.folder)
    from pyperf import Benchmark  # type: ignore[import-untyped]

    a, b = (Benchmark.load(str(job.folder / f"{name}.json")).mean() for name in ("a", "b"))
    text = run([*here, "compare_to", "a.json", "b.json", "--verbose"], job.folder)
    significant = re.search(r"^Significant.*", text, re.MULTILINE)
    evidence = significant[0] if significant else "Not significant!"
    if not significant and "ot significant" not in text:
        raise CannotMeasure(f"pyperf compare_to: {text}")
    yield Answer("pyperf", b / a, direction(bool(significant), b / a), evidence)


def hyperfine(job: Job) -> Iterator[Answer]:
    commands = [shlex.join(argv) for argv in (job.a, job.b)]
    counts = ["--warmup", "1", "--runs", str(max(2, job.runs - 1))]
    run(["hyperfine", "-N", *counts, "--export-json", "found.json", *commands], job.folder)
    from scipy.stats import ttest_ind  # type: ignore[import-untyped]

    a, b = (
        each["times"] for each in json.loads((job.folder / "found.json").read_text())["results"]
    )
    ratio, p = fmean(b) / fmean(a), float(ttest_ind(a, b, equal_var=False).pvalue)
    yield Answer("hyperfine", ratio, direction(p < 0.05, ratio), f"p = {p:.3g}")


_ASV = {
    "version": 1,
    "project": "session",
    "repo": ".",
    "branches": ["HEAD"],
    "environment_type": "virtualenv",
    "benchmark_dir": "benchmarks",
    "results_dir": "results",
}
_ASV_BENCHMARK = """\
import json, pathlib, subprocess
_WORK = json.loads(pathlib.Path(__file__).with_name("work.json").read_text())
def time_session():
    subprocess.run(_WORK["argv"], check=True)
time_session.number = 1
time_session.rounds = 2
time_session.repeat = _WORK["repeat"]
time_session.warmup_time = 0
time_session.timeout = 3600
"""


def asv(job: Job) -> Iterator[Answer]:
    benchmarks = job.folder / "benchmarks"
    benchmarks.mkdir()
    (job.folder / "asv.conf.json").write_text(json.dumps(_ASV))
    (benchmarks / "__init__.py").touch()
    (benchmarks / "session.py").write_text(_ASV_BENCHMARK)
    git = ["git", "-c", "user.name=study", "-c", "user.email=study@localhost"]
    run([*git, "init", "--quiet"], job.folder)
    here = [sys.executable, "-m", "asv"]
    run([*here, "machine", "--yes"], job.folder)
    revisions = []
    for argv in (job.a, job.b):
        run([*git, "commit", "--quiet", "--allow-empty", "-m", "a side"], job.folder)
        revisions.append(run(["git", "rev-parse", "HEAD"], job.folder).strip())
        work = {"argv": argv, "repeat": max(2, job.runs // 2)}
        (benchmarks / "work.json").write_text(json.dumps(work))
        options = ["--python=same", "--set-commit-hash", revisions[-1], "--record-samples"]
        run([*here, "run", *options], job.folder)
    a, b = (_asv_result(job.folder, revision) for revision in revisions)
    for name, factor in (("asv", "1.1"), ("asv, factor 1.02", "1.02")):
        text = run([*here, "compare", "--factor", factor, *revisions], job.folder)
        line = next(line for line in text.splitlines() if "session.time_session" in line)
        mark = line.split("|")[1].strip()
        claims: dict[str, Claim] = {"+": "slower", "-": "faster"}
        yield Answer(name, b / a, claims.get(mark, "none"), f"change {mark or 'blank'}")


def _asv_result(folder: Path, revision: str) -> float:
    (path,) = folder.glob(f"results/*/{revision[:8]}*.json")
    found = json.loads(path.read_text())["results"]["session.time_session"][0][0]
    if found is None:
        raise CannotMeasure(f"asv: no result in {path.name}")
    return float(found)


_PYTEST = """\
import json, pathlib, subprocess
_WORK = json.loads(pathlib.Path(__file__).with_name("work.json").read_text())
def test_session(benchmark):
    benchmark.pedantic(
        subprocess.run, args=(_WORK["argv"],), kwargs={"check": True},
        rounds=_WORK["rounds"], warmup_rounds=1,
    )
"""


def pytest_benchmark(job: Job) -> Iterator[Answer]:
    (job.folder / "test_session.py").write_text(_PYTEST)
    (job.folder / "pytest.ini").write_text("[pytest]\n")
    here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    here += ["--benchmark-storage=saved"]
    options = {"a": [], "b": ["--benchmark-compare=0001", "--benchmark-compare-fail=min:5%"]}
    text = ""
    for name, argv in (("a", job.a), ("b", job.b)):
        work = {"argv": argv, "rounds": max(2, job.runs - 1)}
        (job.folder / "work.json").write_text(json.dumps(work))
        text = run(
            [*here, f"--benchmark-save={name}", *options[name]], job.folder, failing=name == "b"
        )
    a, b = (_saved(job.folder, name) for name in ("a", "b"))
    regressed = "Performance has regressed" in text
    if not regressed and "1 passed" not in text:
        raise CannotMeasure(f"pytest-benchmark: {text[-2000:]}")
    evidence = f"min {b['min'] / a['min'] - 1:+.1%}"
    claim: Claim = "slower" if regressed else "none"
    yield Answer("pytest-benchmark", b["mean"] / a["mean"], claim, evidence)


def _saved(folder: Path, name: str) -> dict[str, float]:
    (path,) = folder.glob(f"saved/*/*_{name}.json")
    stats: dict[str, float] = json.loads(path.read_text())["benchmarks"][0]["stats"]
    return stats


TOOLS: dict[str, Callable[[Job], Iterator[Answer]]] = {
    "pyperf": pyperf,
    "hyperfine": hyperfine,
    "asv": asv,
    "pytest-benchmark": pytest_benchmark,
}
OURS = {"trae-bench, cpu": "cpu", "trae-bench, wall": "wall"}


def absent(tool: str) -> str | None:
    """Why a tool cannot take part; None where it can."""
    if tool == "hyperfine":
        # The package of that name on PyPI is another program's.
        return None if shutil.which("hyperfine") else NO_HYPERFINE
    module = tool.replace("-", "_")
    return None if tool in OURS or find_spec(module) else f"not installed (pip install {tool})"


class Contest:
    """The pairs, and what it takes to hand them to a tool."""

    def __init__(
        self, scenario: Scenario, executor: Executor, provider: Loopback, scratch: Path
    ) -> None:
        self._scenario = scenario
        self._executor = executor
        self._provider = provider
        self._scratch = scratch
        self._arms: dict[str, tuple[Arm, Arm]] = {
            EQUAL: (arm(scenario), arm(scenario)),
            TOGGLES: (arm(scenario, on=False), arm(scenario)),
        }

    def _arms_of(self, pair: str) -> tuple[Arm, Arm]:
        """The same ones whenever they are asked for."""
        if pair not in self._arms:
            burden = calibrated(self._executor, self._scenario, "cpu", SHARES[pair])
            self._arms[pair] = (arm(self._scenario), arm(self._scenario, burden))
        return self._arms[pair]

    def _pace(self, sides: Sequence[Arm]) -> float:
        """Seconds that a session takes now, the mean of the sides."""
        spent = 0.0
        for side in sides:
            with self._seats(side, "paces", PACES) as seats:
                started = time.monotonic()
                for _ in range(PACES):
                    run(seats.argv, self._scratch)
                spent += time.monotonic() - started
        return spent / PACES / len(sides)

    def said(self, tool: str, pair: str, seconds: float, seed: int) -> list[Said]:
        if tool in OURS:
            return [self._ours(tool, pair, seconds, seed)]
        a, b = self._arms_of(pair)
        # Anew each time: the machine's pace is not what it was an hour ago.
        runs = max(FEWEST, int(seconds / 2 / self._pace((a, b))))
        count = 2 * runs + SPARE
        with (
            TemporaryDirectory(dir=self._scratch) as folder,
            self._seats(a, "a", count) as left,
            self._seats(b, "b", count) as right,
        ):
            started = time.monotonic()
            answers = list(TOOLS[tool](Job(left.argv, right.argv, runs, Path(folder))))
            spent = time.monotonic() - started
            used = left.used + right.used
        return [
            Said(one.tool, pair, one.ratio, one.claim, one.evidence, spent, used) for one in answers
        ]

    @contextmanager
    def _seats(self, taken_by: Arm, name: str, count: int) -> Iterator[Seats]:
        seats = Seats(self._provider, self._scenario, taken_by, self._scratch / name)
        try:
            seats.fill(count)
            yield seats
            seats.check()
        finally:
            seats.clear()

    def _ours(self, tool: str, pair: str, seconds: float, seed: int) -> Said:
        metric, name = OURS[tool], "B"
        a, b = self._arms_of(pair)
        compared = [Contrast(NOISE_FLOOR, a, a)]
        compared.append(Contrast(name, a, b))
        planned = cells(self._scenario.name, (metric,), compared, METRICS)
        ending = play(self._executor, planned, Limits(budget=seconds), seed)
        row = comparisons(ending.samples, planned, METRICS)[-1]
        if row.estimate is None or row.estimate.log_ratio is None:
            raise CannotMeasure(f"{tool}: no pair of {pair} was measured: {row.pairs.reasons}")
        claims: dict[str, Claim] = {"regression": "slower", "improvement": "faster"}
        pairs = pairs_of(ending.samples, name, row.mode)
        return Said(
            tool=tool,
            pair=pair,
            ratio=math.exp(row.estimate.log_ratio),
            claim=claims.get(row.judgement.verdict, "none"),
            evidence=f"{row.judgement.verdict}, {row.pairs.measured} pairs",
            seconds=ending.elapsed,
            sessions=len(ending.samples),
            truth=mean([injected(b, metric) for _, b in pairs]).value if SHARES.get(pair) else None,
        )


# -- what is told -----------------------------------------------------------------------


def report(said: Sequence[Said]) -> str:
    groups: dict[tuple[str, str], list[Said]] = {}
    for pair in PAIRS:
        for one in said:
            if one.pair == pair:
                groups.setdefault((pair, one.tool), []).append(one)
    head = (
        *("pair", "tool", "ratio", "from", "to", "slower", "faster", "none", "wrong"),
        *("seconds", "sessions", "the last time"),
    )
    true = {
        f"{pair}, {one.tool}": f"{math.expm1(one.truth):+.1%}"
        for (pair, _), group in groups.items()
        for one in group
        if one.truth is not None
    }
    told = "; ".join(f"{name} {size}" for name, size in true.items())
    lines = table(head, [_cells(*key, group) for key, group in groups.items()])
    return f"{lines}\n\nTruly, by the burden's own account: {told or 'not known'}."


def _cells(pair: str, tool: str, said: Sequence[Said]) -> list[object]:
    ratios, claims = [one.ratio for one in said], [one.claim for one in said]
    kinds: tuple[Claim, ...] = ("slower", "faster", "none")
    return [
        pair,
        tool,
        *(f"{figure:.3f}" for figure in (fmean(ratios), min(ratios), max(ratios))),
        *(claims.count(kind) for kind in kinds),
        share(sum(claim != EXPECTED.get(pair, "slower") for claim in claims), len(claims)),
        f"{fmean(one.seconds for one in said):.0f}",
        f"{fmean(one.sessions for one in said):.0f}",
        said[-1].evidence,
    ]


# -- the rounds -------------------------------------------------------------------------


Turn = tuple[int, str, str]
"""Number of the round, tool, pair."""


def turns(rounds: int, pairs: Sequence[str], tools: Sequence[str]) -> Iterator[Turn]:
    """In each round another tool comes first."""
    for number in range(rounds):
        first = number % len(tools)
        for pair in pairs:
            for tool in (*tools[first:], *tools[:first]):
                yield number, tool, pair


def played(asked: Namespace, tools: Sequence[str]) -> list[Said]:
    wishes = {name: getattr(asked, name) for name in ("scenario", "seconds", "pairs", "seed")}
    log, clock = Log(asked.out, wishes | {"tools": tools}), Clock(asked.minutes)
    scenario = scenario_of(asked.scenario)
    ahead = islice(turns(asked.rounds, asked.pairs.split(","), tools), len(log.rounds), None)
    with (
        bench(scenario) as executor,
        Loopback(pin=cpu_affinity.provider_core()) as provider,
        TemporaryDirectory(prefix="study-") as scratch,
        stoppable(),
    ):
        contest = Contest(scenario, executor, provider, Path(scratch).resolve())
        for turn in takewhile(lambda _: clock.left > 0, ahead):
            log.append(_taken(contest, turn, asked))
    return [convert(one, Said) for each in log.rounds for one in each]


def _taken(contest: Contest, turn: Turn, asked: Namespace) -> list[Said]:
    number, tool, pair = turn
    seed = Random(f"{asked.seed}|{turn}").getrandbits(32)
    try:
        said = contest.said(tool, pair, asked.seconds, seed)
    except CannotMeasure as problem:
        # The others' time is not to be lost with it.
        say(f"round {number + 1}, {pair}, {tool}: {problem}")
        return []
    for one in said:
        say(f"round {number + 1}, {pair}, {one.tool}: {one.claim}, {one.seconds:.0f} s")
    return said


def main(said: Sequence[str] | None = None) -> None:
    every = (*TOOLS, *OURS)
    parser = arguments(__doc__, "peers")
    parser.add_argument("--scenario", default="bugfix", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=30.0, help="a tool and pair; %(default)s")
    parser.add_argument("--rounds", type=int, default=1, help="in all; %(default)s")
    parser.add_argument("--minutes", type=float, help="begin nothing after that")
    parser.add_argument("--tool", action="append", choices=every, help="default: all")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="default: %(default)s")
    asked = parser.parse_args(said)
    why = {tool: absent(tool) for tool in asked.tool or every}
    found = played(asked, [tool for tool, reason in why.items() if reason is None])
    print(f"{asked.scenario}, {asked.seconds:g} s for each tool and pair\n\n{report(found)}")
    for tool, reason in why.items():
        if reason is not None:
            print(f"\n{tool} did not take part: {reason}.")


if __name__ == "__main__":
    main()
