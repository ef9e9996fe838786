"""Does the gate find changes, and how often does it give false alarms?

    python -m tests.studies.gate --rounds 20 --seconds 120 --out gate.jsonl
    python -m tests.studies.gate --battery --load 2 --seconds 90 --out gate.jsonl

Creates a git repository of the agent, commits one change after another, and runs `trae-bench run
--compare` on each, as CI does. Each round runs the gate once on every change and once on an
unchanged head. Exit code 1 on the unchanged head is a false alarm.

Slowdowns are empty loops, whose length is a share of the session's CPU time in a calibration run.
Without --battery they run at the import of the agent, and CPU time, memory and imports are judged.
--battery takes changes of many kinds, each in a scenario that can show it, and judges the
scenario's own metrics, as the gate does by default.

--load runs processes that compute all the time on the cores in turn. `--report FILE ...` reports
several files together. The same command with the same --out resumes.
"""

import contextlib
import io
import os
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, convert

from tests.studies.harness import (
    RoundLog,
    TimeLimit,
    add_load,
    add_report,
    describe_head,
    hogs,
    load_scenario,
    make_parser,
    markdown_table,
    print_progress,
    proportion_upper_bound,
    read_head,
    read_rounds,
    stop_on_interrupt,
)
from tests.trae_bench.mutations import (
    BATTERY,
    HEADS,
    commit,
    git,
    repository,
    slower,
    slower_dispatch,
    slower_encoding,
)
from trae_bench.cli import main as trae_bench
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.text.gate import sentence
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import EXIT_CODES, Kind, answers_of_head, outcome

SHARES = (0.03, 0.05, 0.10)
"""Slowdowns, as fractions of the CPU time of a session."""
METRICS = ("cpu", "peak_rss", "modules_imported")
SCENARIO, LONG = "bugfix", "trajectory-long"
EXPECTED: Mapping[str, Kind] = {
    "nothing": "pass",
    "a toggle": "pass",
    "a wrong answer": "answers differ",
    "no start": "not measured",
    "one request more a step": "answers differ",
    "wrong answers in 10 % of runs": "answers differ",
    "crashes at start in 20 % of runs": "not measured",
}
"""Results of the gate by change; of all others, `regression`."""
SCENARIOS = {"50 KB leak a step": f"{LONG}@memory", "quadratic history": LONG}
"""Scenarios that show a change of the battery; of all others, `SCENARIO`."""
_CALIBRATION_LOOPS = 2_000_000


class Case(Struct, frozen=True):
    """One change of the agent, and how the gate runs on it."""

    name: str
    change: Callable[[Path], None]
    scenario: str = SCENARIO
    metrics: tuple[str, ...] = ()
    """Empty for those of the scenario."""

    @property
    def expected(self) -> Kind:
        return EXPECTED.get(self.name, "regression")


class GateRun(Struct, frozen=True):
    """One run of the gate."""

    head: str
    scenario: str
    expected: int
    """The exit code that the head should have."""
    code: int
    kind: Kind
    """`pass` and `inconclusive` have the same exit code."""
    pairs: int
    """Counted pairs of all cells except A/A."""
    fresh: int
    """Fresh pairs among them."""
    lost: int
    """Pairs of the row that lost most, by different answers or because a side failed."""
    seconds: float
    """Duration of the command."""
    budget: float
    load: int
    """Processes that computed all the time."""
    sentence: str
    not_gated: tuple[str, ...]
    """Metrics that were for information only."""
    valid: bool
    """`verify` finds no error."""
    head_runs: int | None = None
    """Runs of head whose answers were checked, those of all pairs included. Earlier files have no
    such field."""
    wrong: int | None = None
    """Wrong answers among them."""

    @property
    def is_expected(self) -> bool:
        return self.code == self.expected


def run_gate(folder: Path, case: Case, seconds: float, load: int = 0) -> GateRun:
    """Run the gate on a change of the repository in `folder`, which is the current folder.

    Raises `KeyboardInterrupt` if the gate was interrupted.
    """
    git(folder, "checkout", "--quiet", "--force", "-B", "head", "main")
    case.change(folder)
    commit(folder, case.name)
    run_file = folder.parent / "run.json"
    run_file.unlink(missing_ok=True)
    metrics = [word for name in case.metrics for word in ("--metric", name)]
    command = ["run", case.scenario, "--compare", "main", "--budget", str(seconds), *metrics]
    start, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = trae_bench([*command, "--force", "--out", str(run_file)])
    duration = time.monotonic() - start
    if code == EXIT_CODES["interrupted"]:
        raise KeyboardInterrupt
    facts = _facts_of(read_run(run_file)) if run_file.exists() else _no_facts(said.getvalue())
    if code != EXIT_CODES[facts.kind]:
        raise AssertionError(f"{case.name}: exit {code}, but the run is {facts.kind}")
    return GateRun(
        head=case.name,
        scenario=case.scenario,
        expected=EXIT_CODES[case.expected],
        code=code,
        kind=facts.kind,
        pairs=facts.pairs,
        fresh=facts.fresh,
        lost=facts.lost,
        seconds=duration,
        budget=seconds,
        load=load,
        sentence=facts.sentence,
        not_gated=facts.not_gated,
        valid=facts.valid,
        head_runs=facts.head_runs,
        wrong=facts.wrong,
    )


class _Facts(Struct, frozen=True):
    """What a run file says; see `GateRun`."""

    kind: Kind
    sentence: str
    pairs: int = 0
    fresh: int = 0
    lost: int = 0
    not_gated: tuple[str, ...] = ()
    valid: bool = True
    head_runs: int = 0
    wrong: int = 0


def _no_facts(stderr: str) -> _Facts:
    """Of a run without a run file: nothing could be measured."""
    return _Facts("not measured", next(iter(stderr.splitlines()[-1:]), "")[:400])


def _facts_of(run: RunFile) -> _Facts:
    counted = Counter(
        sample.contrast
        for sample in run.samples
        if sample.side == "A" and sample.pair and sample.mode == "duet"
    )
    del counted[NOISE_FLOOR]
    rows = [row for row in run.comparisons if row.contrast != NOISE_FLOOR]
    lost = (row.pairs.answers_differ + row.pairs.not_measured for row in rows)
    return _Facts(
        kind=outcome(run).kind,
        sentence=sentence(run),
        pairs=counted.total(),
        fresh=counted["head again"],
        lost=max(lost, default=0),
        not_gated=tuple(sorted(row.metric for row in rows if not row.gated)),
        valid=all(finding.severity != "wrong" for finding in verify(run)),
        head_runs=sum(runs.total for runs in answers_of_head(run)),
        wrong=sum(runs.wrong for runs in answers_of_head(run)),
    )


# -- cases ------------------------------------------------------------------------------


def plain_cases(loops: float) -> list[Case]:
    """Return the cases without --battery. `loops` empty loops take as long as a session."""
    slow = {f"+{share:.0%} cpu": slower(round(share * loops)) for share in SHARES}
    changes = {"nothing": HEADS["nothing"], **slow, **HEADS}
    return [Case(name, change, metrics=METRICS) for name, change in changes.items()]


def battery_cases(loops: float, scenario: str = SCENARIO) -> list[Case]:
    """Return the cases of --battery, whose slowdowns are spread over the session of `scenario`."""
    turns = load_scenario(scenario).turns
    requests = sum(turn.repeat for turn in turns)
    # The last call ends the session and is not dispatched.
    calls = sum(turn.repeat * len(turn.calls) for turn in turns) - 1
    slow = {
        "codec +3 %": slower_encoding(round(0.03 * loops / requests)),
        "codec +5 %": slower_encoding(round(0.05 * loops / requests)),
        "dispatch +3 %": slower_dispatch(round(0.03 * loops / calls)),
    }
    changes = {"nothing": HEADS["nothing"], **slow, **BATTERY}
    return [Case(name, change, SCENARIOS.get(name, SCENARIO)) for name, change in changes.items()]


def calibrate(folder: Path, options: Namespace) -> float:
    """Return the number of empty loops that take as long as a session.

    Both are measured in a duet, because a loop alone on a core is a quarter faster.
    """
    case = Case(
        "a calibration",
        slower(_CALIBRATION_LOOPS),
        options.scenario or SCENARIO,
        metrics=("cpu",),
    )
    run_gate(folder, case, options.seconds)
    rows = read_run(folder.parent / "run.json").comparisons
    cpu = next(row for row in rows if (row.contrast, row.metric) == ("head", "cpu")).estimate
    if cpu is None or cpu.difference <= 0:
        raise AssertionError("the calibration found no slowdown; use a quieter machine")
    return _CALIBRATION_LOOPS * cpu.a / cpu.difference


def chosen_cases(folder: Path, options: Namespace) -> list[Case]:
    """Return the cases that the options name. Raises `SystemExit` for an unknown one."""
    make = battery_cases if options.battery else plain_cases
    names = options.head or [case.name for case in make(1.0)]
    if unknown := set(names) - {case.name for case in make(1.0)}:
        raise SystemExit(f"no such change: {', '.join(sorted(unknown))}")
    loops = calibrate(folder, options) if any("+" in name for name in names) else 1.0
    cases = {case.name: case for case in make(loops)}
    if options.scenario:
        return [_in_scenario(cases[name], options.scenario) for name in names]
    return [cases[name] for name in names]


def _in_scenario(case: Case, scenario: str) -> Case:
    return Case(case.name, case.change, scenario, case.metrics)


# -- command line -----------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "gate")
    parser.add_argument("--rounds", type=int, default=1, help="runs of the gate per change")
    parser.add_argument("--minutes", type=float, help="start no run after this time")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of a run")
    parser.add_argument("--scenario", help="of every change (default: one that can show it)")
    parser.add_argument("--head", action="append", default=[], help="change to run; repeatable")
    parser.add_argument("--battery", action="store_true", help="changes of many kinds")
    add_load(parser)
    add_report(parser)
    options = parser.parse_args(argv)
    if options.report:
        print(report(options.report))
        return
    runs = measure(options)
    print(table(runs))


def measure(options: Namespace) -> list[GateRun]:
    """Run the gate until the limits of the options, and return the runs with those of the log."""
    fixed = ("rounds", "seconds", "scenario", "head", "battery", "load")
    # The gate runs in the folder of its repository.
    out = options.out and options.out.absolute()
    log = RoundLog(out, {name: getattr(options, name) for name in fixed})
    runs = convert(log.rounds, list[GateRun])
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch, hogs(options.load):
        os.environ["XDG_CACHE_HOME"] = str(Path(scratch, "cache"))
        folder = repository(Path(scratch, "checkout"))
        with contextlib.chdir(folder), stop_on_interrupt():
            limit = TimeLimit(options.minutes)
            cases = chosen_cases(folder, options)
            for case in (cases * options.rounds)[len(runs) :]:
                if limit.remaining <= 0:
                    break
                runs.append(run_gate(folder, case, options.seconds, options.load))
                log.append(runs[-1])
                print_progress(_progress(runs[-1]))
    return runs


def _progress(run: GateRun) -> str:
    return f"{run.head}: exit {run.code}, {run.seconds:.0f} s: {run.sentence}"


# -- report -----------------------------------------------------------------------------


def report(files: Sequence[Path]) -> str:
    """Return the report of several files, with their machines."""
    runs = [run for file in files for run in convert(read_rounds(file), list[GateRun])]
    machines = dict.fromkeys(describe_head(read_head(file)) for file in files)
    return "\n\n".join([table(runs), *(f"Measured on {machine}." for machine in machines)])


def table(runs: Sequence[GateRun]) -> str:
    groups: dict[tuple[str, str, int], list[GateRun]] = {}
    for run in runs:
        groups.setdefault((run.head, run.scenario, run.load), []).append(run)
    head = ("head", "scenario", "load", "expected exit", "exit", "result", "as expected")
    head = (*head, "pairs", "fresh", "lost", "head runs", "wrong", "seconds")
    lines = [markdown_table(head, [_line(*key, group) for key, group in groups.items()])]
    equal = [run for run in runs if run.head == "nothing"]
    if equal:
        lines.append(_false_alarms(equal))
    if invalid := [run.head for run in runs if not run.valid]:
        lines.append(f"Run files that fail verification: {', '.join(invalid)}")
    unexpected = [f"- {run.head}: {run.sentence}" for run in runs if not run.is_expected]
    if unexpected:
        lines.append("\n".join(["Not as expected:", "", *unexpected]))
    return "\n\n".join(lines)


def _false_alarms(equal: Sequence[GateRun]) -> str:
    alarms = sum(run.code == EXIT_CODES["regression"] for run in equal)
    decided = sum(run.kind == "pass" for run in equal)
    bound = proportion_upper_bound(alarms, len(equal))
    noisy = Counter(metric for run in equal for metric in run.not_gated)
    named = ", ".join(f"{metric} ({count}x)" for metric, count in sorted(noisy.items()))
    return (
        f"Unchanged heads: {decided} of {len(equal)} runs decided every gated row, {alarms} false "
        f"alarms (at most {bound:.1%} of runs, with 95 % confidence). Too noisy to be gated: "
        f"{named or 'none'}."
    )


def _line(head: str, scenario: str, load: int, runs: list[GateRun]) -> tuple[object, ...]:
    return (
        *(head, scenario, load, runs[0].expected),
        _counted([run.code for run in runs]),
        _counted([run.kind for run in runs]),
        f"{sum(run.is_expected for run in runs)} of {len(runs)}",
        _range([run.pairs for run in runs]),
        _range([run.fresh for run in runs]),
        _range([run.lost for run in runs]),
        _range([run.head_runs for run in runs]),
        _range([run.wrong for run in runs]),
        _range([round(run.seconds) for run in runs]),
    )


def _counted(values: Sequence[object]) -> str:
    """Return the values with their numbers, if there are several: `0 (2x), 1 (3x)`."""
    if len(values) == 1:
        return str(values[0])
    count = Counter(map(str, values))
    return ", ".join(f"{value} ({number}x)" for value, number in sorted(count.items()))


def _range(found: Sequence[int | None]) -> str:
    values = [value for value in found if value is not None]
    if not values:
        return "-"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
