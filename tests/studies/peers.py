"""Compare pyperf, asv, pytest-benchmark, hyperfine and trae-bench on the same pairs of commands.

    python -m tests.studies.peers --seconds 30 --rounds 3 --out peers.jsonl

The command is one session (default: `bugfix`) against the loopback provider; see
`prepared_sessions.py`. There are four pairs: A/A, a loop that adds about 3 % or 5 % of CPU time
to B (`injected_load.py`), and all toggles off against on. In each round every tool compares each
pair once, in --seconds, as its documentation compares two commands. The first tool rotates by
round.

pyperf            `pyperf command` for each side, `pyperf compare_to`; the claim is the result of
                  its t-test
hyperfine         both sides in one call, --warmup 1; the claim is the result of
                  scripts/welch_ttest.py in its repository: Welch's t-test, p < 0.05
asv               a benchmark that runs the command, one revision for A and one for B,
                  `asv compare` with factor 1.1 (the default) and 1.02
pytest-benchmark  `pedantic` rounds that run the command, A saved, B compared, failing at min:5% as
                  in its documentation; it cannot report improvements
trae-bench        A/A pairs included in its seconds: cpu in duets, wall in serial pairs

A claim about A/A is a false alarm. A missing claim about another pair, or one in the wrong
direction, is a miss. The ratio divides the tool's own central value of B by that of A. pyperf,
hyperfine, asv and pytest-benchmark measure the wall time of the command including its shell.
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
    RoundLog,
    TimeLimit,
    calibrate,
    format_proportion,
    injected_log_ratio,
    load_scenario,
    make_arm,
    make_parser,
    markdown_table,
    mean,
    measured_pairs,
    open_executor,
    print_progress,
    run_cells,
    stop_on_interrupt,
)
from tests.studies.prepared_sessions import PreparedSessions
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
"""CPU time that the load of B adds, as a fraction."""
PAIRS = (*SHARES, TOGGLES)
EXPECTED: dict[str, Claim] = {EQUAL: "none", TOGGLES: "faster"}
"""The true claim; "slower" for the other pairs."""
TIMING_SESSIONS = 3
"""Sessions per side that are timed to compute how many fit into --seconds."""
MIN_SESSIONS = 4
"""Minimum sessions per side."""
SPARE_SESSIONS = 20
"""Additional prepared sessions for warm-ups and calibration."""
NO_HYPERFINE = "not on the PATH (Debian: apt install hyperfine; else: cargo install hyperfine)"


class Result(Struct, frozen=True):
    """Answer of one tool about one pair, with its cost."""

    tool: str
    pair: str
    ratio: float
    claim: Claim
    evidence: str
    seconds: float
    sessions: int
    truth: float | None = None
    """True log ratio of the load, if known."""


class Job(Struct, frozen=True):
    """Input of a tool: two commands, the number of runs of each, and a working folder."""

    a: list[str]
    b: list[str]
    runs: int
    folder: Path


class Answer(Struct, frozen=True):
    tool: str
    ratio: float
    claim: Claim
    evidence: str


def make_claim(significant: bool, ratio: float) -> Claim:
    return ("slower" if ratio > 1 else "faster") if significant else "none"


# -- the tools --------------------------------------------------------------------------


def run(argv: Sequence[str], folder: Path, *, may_fail: bool = False) -> str:
    """Run a command and return its output. Raises `CannotMeasure` if it fails unexpectedly."""
    # asv keeps files in the home folder.
    env = os.environ | {"HOME": str(folder)}
    # With this variable pytest-benchmark assumes pytest-xdist and measures nothing.
    env.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    output = done.stdout + done.stderr
    if done.returncode and not may_fail:
        raise CannotMeasure(
            f"{shlex.join(argv[:6])} ... ended with {done.returncode}: {output[-2000:]}"
        )
    return output


def pyperf(job: Job) -> Iterator[Answer]:
    # A process gives 3 values and a warm-up by default. Calibration takes one more process.
    processes = max(1, job.runs // 4 - 1)
    pyperf = [sys.executable, "-m", "pyperf"]
    for name, argv in (("a", job.a), ("b", job.b)):
        options = ["--name", "session", "--processes", str(processes), "-o", f"{name}.json"]
        run([*pyperf, "command", *options, "--", *argv], job.folder)
    from pyperf import Benchmark  # type: ignore[import-untyped]

    a, b = (Benchmark.load(str(job.folder / f"{name}.json")).mean() for name in ("a", "b"))
    text = run([*pyperf, "compare_to", "a.json", "b.json", "--verbose"], job.folder)
    significant = re.search(r"^Significant.*", text, re.MULTILINE)
    evidence = significant[0] if significant else "Not significant!"
    if not significant and "ot significant" not in text:
        raise CannotMeasure(f"pyperf compare_to: {text}")
    yield Answer("pyperf", b / a, make_claim(bool(significant), b / a), evidence)


def hyperfine(job: Job) -> Iterator[Answer]:
    commands = [shlex.join(argv) for argv in (job.a, job.b)]
    counts = ["--warmup", "1", "--runs", str(max(2, job.runs - 1))]
    run(["hyperfine", "-N", *counts, "--export-json", "results.json", *commands], job.folder)
    from scipy.stats import ttest_ind  # type: ignore[import-untyped]

    a, b = (
        result["times"]
        for result in json.loads((job.folder / "results.json").read_text())["results"]
    )
    ratio, p = fmean(b) / fmean(a), float(ttest_ind(a, b, equal_var=False).pvalue)
    yield Answer("hyperfine", ratio, make_claim(p < 0.05, ratio), f"p = {p:.3g}")


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
    asv = [sys.executable, "-m", "asv"]
    run([*asv, "machine", "--yes"], job.folder)
    revisions = []
    for argv in (job.a, job.b):
        run([*git, "commit", "--quiet", "--allow-empty", "-m", "a side"], job.folder)
        revisions.append(run(["git", "rev-parse", "HEAD"], job.folder).strip())
        work = {"argv": argv, "repeat": max(2, job.runs // 2)}
        (benchmarks / "work.json").write_text(json.dumps(work))
        options = ["--python=same", "--set-commit-hash", revisions[-1], "--record-samples"]
        run([*asv, "run", *options], job.folder)
    a, b = (_asv_result(job.folder, revision) for revision in revisions)
    for name, factor in (("asv", "1.1"), ("asv, factor 1.02", "1.02")):
        text = run([*asv, "compare", "--factor", factor, *revisions], job.folder)
        line = next(line for line in text.splitlines() if "session.time_session" in line)
        mark = line.split("|")[1].strip()
        claims: dict[str, Claim] = {"+": "slower", "-": "faster"}
        yield Answer(name, b / a, claims.get(mark, "none"), f"change {mark or 'blank'}")


def _asv_result(folder: Path, revision: str) -> float:
    (path,) = folder.glob(f"results/*/{revision[:8]}*.json")
    result = json.loads(path.read_text())["results"]["session.time_session"][0][0]
    if result is None:
        raise CannotMeasure(f"asv: no result in {path.name}")
    return float(result)


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
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    pytest += ["--benchmark-storage=saved"]
    options = {"a": [], "b": ["--benchmark-compare=0001", "--benchmark-compare-fail=min:5%"]}
    text = ""
    for name, argv in (("a", job.a), ("b", job.b)):
        work = {"argv": argv, "rounds": max(2, job.runs - 1)}
        (job.folder / "work.json").write_text(json.dumps(work))
        text = run(
            [*pytest, f"--benchmark-save={name}", *options[name]], job.folder, may_fail=name == "b"
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


def unavailable(tool: str) -> str | None:
    """Return why a tool cannot run on this host, or None."""
    if tool == "hyperfine":
        # The PyPI package of that name is a different program.
        return None if shutil.which("hyperfine") else NO_HYPERFINE
    module = tool.replace("-", "_")
    return None if tool in OURS or find_spec(module) else f"not installed (pip install {tool})"


class Comparison:
    """The pairs of commands, and the resources to run them with each tool."""

    def __init__(
        self, scenario: Scenario, executor: Executor, provider: Loopback, scratch: Path
    ) -> None:
        self._scenario = scenario
        self._executor = executor
        self._provider = provider
        self._scratch = scratch
        self._arms: dict[str, tuple[Arm, Arm]] = {
            EQUAL: (make_arm(scenario), make_arm(scenario)),
            TOGGLES: (make_arm(scenario, on=False), make_arm(scenario)),
        }

    def _arms_of(self, pair: str) -> tuple[Arm, Arm]:
        """Return the arms of a pair. The load is calibrated once."""
        if pair not in self._arms:
            load = calibrate(self._executor, self._scenario, "cpu", SHARES[pair])
            self._arms[pair] = (make_arm(self._scenario), make_arm(self._scenario, load))
        return self._arms[pair]

    def _session_seconds(self, arms: Sequence[Arm]) -> float:
        """Measure the current duration of a session, averaged over the arms."""
        seconds = 0.0
        for arm in arms:
            with self._prepare(arm, "timing", TIMING_SESSIONS) as sessions:
                start = time.monotonic()
                for _ in range(TIMING_SESSIONS):
                    run(sessions.argv, self._scratch)
                seconds += time.monotonic() - start
        return seconds / TIMING_SESSIONS / len(arms)

    def run(self, tool: str, pair: str, seconds: float, seed: int) -> list[Result]:
        if tool in OURS:
            return [self._run_trae_bench(tool, pair, seconds, seed)]
        a, b = self._arms_of(pair)
        # Timed again for each comparison, because the speed of the machine varies.
        runs = max(MIN_SESSIONS, int(seconds / 2 / self._session_seconds((a, b))))
        count = 2 * runs + SPARE_SESSIONS
        with (
            TemporaryDirectory(dir=self._scratch) as folder,
            self._prepare(a, "a", count) as left,
            self._prepare(b, "b", count) as right,
        ):
            start = time.monotonic()
            answers = list(TOOLS[tool](Job(left.argv, right.argv, runs, Path(folder))))
            elapsed = time.monotonic() - start
            used = left.used + right.used
        return [
            Result(answer.tool, pair, answer.ratio, answer.claim, answer.evidence, elapsed, used)
            for answer in answers
        ]

    @contextmanager
    def _prepare(self, arm: Arm, name: str, count: int) -> Iterator[PreparedSessions]:
        sessions = PreparedSessions(self._provider, self._scenario, arm, self._scratch / name)
        try:
            sessions.prepare(count)
            yield sessions
            sessions.check()
        finally:
            sessions.remove()

    def _run_trae_bench(self, tool: str, pair: str, seconds: float, seed: int) -> Result:
        metric, name = OURS[tool], "B"
        a, b = self._arms_of(pair)
        contrasts = [Contrast(NOISE_FLOOR, a, a)]
        contrasts.append(Contrast(name, a, b))
        planned = cells(self._scenario.name, (metric,), contrasts, METRICS)
        ending = run_cells(self._executor, planned, Limits(budget=seconds), seed)
        row = comparisons(ending.samples, planned, METRICS)[-1]
        if row.estimate is None or row.estimate.log_ratio is None:
            raise CannotMeasure(f"{tool}: no pair of {pair} was measured: {row.pairs.reasons}")
        claims: dict[str, Claim] = {"regression": "slower", "improvement": "faster"}
        pairs = measured_pairs(ending.samples, name, row.mode)
        effects = [injected_log_ratio(b, metric) for _, b in pairs] if SHARES.get(pair) else None
        return Result(
            tool=tool,
            pair=pair,
            ratio=math.exp(row.estimate.log_ratio),
            claim=claims.get(row.judgement.verdict, "none"),
            evidence=f"{row.judgement.verdict}, {row.pairs.measured} pairs",
            seconds=ending.elapsed,
            sessions=len(ending.samples),
            truth=None if effects is None else mean(effects).value,
        )


# -- report -----------------------------------------------------------------------------


def report(results: Sequence[Result]) -> str:
    groups: dict[tuple[str, str], list[Result]] = {}
    for pair in PAIRS:
        for result in results:
            if result.pair == pair:
                groups.setdefault((pair, result.tool), []).append(result)
    head = (
        *("pair", "tool", "ratio", "from", "to", "slower", "faster", "none", "wrong"),
        *("seconds", "sessions", "last evidence"),
    )
    truths = {
        f"{result.pair}, {result.tool}": f"{math.expm1(result.truth):+.1%}"
        for group in groups.values()
        for result in group
        if result.truth is not None
    }
    truth = "; ".join(f"{name} {change}" for name, change in truths.items())
    table = markdown_table(head, [_cells(*key, group) for key, group in groups.items()])
    return f"{table}\n\nTrue changes, from the recorded cost: {truth or 'unknown'}."


def _cells(pair: str, tool: str, results: Sequence[Result]) -> list[object]:
    ratios = [result.ratio for result in results]
    claims = [result.claim for result in results]
    kinds: tuple[Claim, ...] = ("slower", "faster", "none")
    wrong = sum(claim != EXPECTED.get(pair, "slower") for claim in claims)
    return [
        pair,
        tool,
        *(f"{ratio:.3f}" for ratio in (fmean(ratios), min(ratios), max(ratios))),
        *(claims.count(kind) for kind in kinds),
        format_proportion(wrong, len(claims)),
        f"{fmean(result.seconds for result in results):.0f}",
        f"{fmean(result.sessions for result in results):.0f}",
        results[-1].evidence,
    ]


# -- schedule ---------------------------------------------------------------------------


Turn = tuple[int, str, str]
"""Number of the round, tool, pair."""


def turns(rounds: int, pairs: Sequence[str], tools: Sequence[str]) -> Iterator[Turn]:
    """Yield every turn. The first tool rotates by round."""
    for number in range(rounds):
        first = number % len(tools)
        for pair in pairs:
            for tool in (*tools[first:], *tools[:first]):
                yield number, tool, pair


def run_turns(options: Namespace, tools: Sequence[str]) -> list[Result]:
    """Run the turns that the log does not contain yet. Return all results."""
    fixed = {name: getattr(options, name) for name in ("scenario", "seconds", "pairs", "seed")}
    log, time_limit = RoundLog(options.out, fixed | {"tools": tools}), TimeLimit(options.minutes)
    scenario = load_scenario(options.scenario)
    every_turn = turns(options.rounds, options.pairs.split(","), tools)
    remaining = islice(every_turn, len(log.rounds), None)
    with (
        open_executor(scenario) as executor,
        Loopback(pin=cpu_affinity.provider_core()) as provider,
        TemporaryDirectory(prefix="study-") as scratch,
        stop_on_interrupt(),
    ):
        comparison = Comparison(scenario, executor, provider, Path(scratch).resolve())
        for turn in takewhile(lambda _: time_limit.remaining > 0, remaining):
            log.append(_run_turn(comparison, turn, options))
    return [convert(result, Result) for results in log.rounds for result in results]


def _run_turn(comparison: Comparison, turn: Turn, options: Namespace) -> list[Result]:
    number, tool, pair = turn
    seed = Random(f"{options.seed}|{turn}").getrandbits(32)
    try:
        results = comparison.run(tool, pair, options.seconds, seed)
    except CannotMeasure as problem:
        # Continue with the other tools.
        print_progress(f"round {number + 1}, {pair}, {tool}: {problem}")
        return []
    for result in results:
        outcome = f"{result.claim}, {result.seconds:.0f} s"
        print_progress(f"round {number + 1}, {pair}, {result.tool}: {outcome}")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    all_tools = (*TOOLS, *OURS)
    parser = make_parser(__doc__, "peers")
    parser.add_argument("--scenario", default="bugfix", help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="per tool and pair; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=1, help="total; default: %(default)s")
    parser.add_argument("--minutes", type=float, help="start nothing after this time")
    parser.add_argument("--tool", action="append", choices=all_tools, help="default: all")
    parser.add_argument("--pairs", default=",".join(PAIRS), help="default: %(default)s")
    options = parser.parse_args(argv)
    reasons = {tool: unavailable(tool) for tool in options.tool or all_tools}
    results = run_turns(options, [tool for tool, reason in reasons.items() if reason is None])
    print(f"{options.scenario}, {options.seconds:g} s per tool and pair\n\n{report(results)}")
    for tool, reason in reasons.items():
        if reason is not None:
            print(f"\n{tool} was not run: {reason}.")


if __name__ == "__main__":
    main()
