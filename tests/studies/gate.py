"""Does the gate find slowdowns, and how often does it give false alarms?

    python -m tests.studies.gate --rounds 20 --seconds 120 --out gate.jsonl

Creates a git repository of the agent, commits one change after another, and runs `trae-bench run
--compare` on each, as CI does. Slowdowns are empty loops at the import of the agent. Their length
is a share of the session's CPU time in a calibration run. Each round runs the gate once on every
change and once on an unchanged head. Exit code 1 on the unchanged head is a false alarm.
"""

import contextlib
import io
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct, to_builtins

from tests.studies.harness import (
    make_parser,
    markdown_table,
    print_progress,
    proportion_upper_bound,
)
from tests.trae_bench.mutations import HEADS, commit, git, repository, slower
from trae_bench.cli import main as trae_bench
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.text.gate import sentence
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import EXIT_CODES, outcome

SHARES = (0.03, 0.05, 0.10)
"""Slowdowns, as fractions of the CPU time of a session."""
METRICS = ("cpu", "peak_rss", "modules_imported")
EXPECTED = {"an import": 1, "5 MB": 1, "a wrong answer": 5, "no start": 4}
_CALIBRATION_LOOPS = 2_000_000


class GateRun(Struct, frozen=True):
    """One run of the gate."""

    head: str
    expected: int
    code: int
    pairs: int
    """Counted pairs of all cells except A/A."""
    fresh: int
    """Fresh pairs among them."""
    seconds: float
    """Duration of the command."""
    sentence: str
    valid: bool
    """`verify` finds no error."""


class Config(Struct, frozen=True):
    scenario: str
    seconds: float
    heads: tuple[str, ...] = ()
    """Names of the changes to run; empty for all."""


def run_gate(folder: Path, head: str, change: Callable[[Path], None], config: Config) -> GateRun:
    git(folder, "checkout", "--quiet", "--force", "-B", "head", "main")
    change(folder)
    commit(folder, head)
    run_file = folder.parent / "run.json"
    metrics = [word for name in METRICS for word in ("--metric", name)]
    command = ["run", config.scenario, "--compare", "main", "--budget", str(config.seconds)]
    start = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = trae_bench([*command, *metrics, "--force", "--out", str(run_file)])
    return _summarize(head, code, time.monotonic() - start, read_run(run_file))


def _summarize(head: str, code: int, seconds: float, run: RunFile) -> GateRun:
    if code != outcome(run).code():
        raise AssertionError(f"{head}: exit {code}, but the run file says {outcome(run).code()}")
    counted = Counter(
        sample.contrast
        for sample in run.samples
        if sample.side == "A" and sample.pair and sample.mode == "duet"
    )
    del counted[NOISE_FLOOR]
    return GateRun(
        head=head,
        expected=EXPECTED.get(head, EXIT_CODES["regression"] if "%" in head else 0),
        code=code,
        pairs=counted.total(),
        fresh=counted["head again"],
        seconds=seconds,
        sentence=sentence(run),
        valid=all(finding.severity != "wrong" for finding in verify(run)),
    )


def changes(loops: float) -> Mapping[str, Callable[[Path], None]]:
    """Return every change by name. `loops` empty loops take as long as a session."""
    slow = {f"+{share:.0%} cpu": slower(round(share * loops)) for share in SHARES}
    return {"nothing": HEADS["nothing"], **slow, **HEADS}


def calibrate(folder: Path, config: Config) -> float:
    """Return the number of empty loops that take as long as a session.

    Both are measured in a duet, because a loop alone on a core is a quarter faster.
    """
    run_gate(folder, "a calibration", slower(_CALIBRATION_LOOPS), config)
    rows = read_run(folder.parent / "run.json").comparisons
    cpu = next(row for row in rows if (row.contrast, row.metric) == ("head", "cpu")).estimate
    if cpu is None or cpu.difference <= 0:
        raise AssertionError("the calibration found no slowdown; use a quieter machine")
    return _CALIBRATION_LOOPS * cpu.a / cpu.difference


def run_rounds(folder: Path, config: Config, count: int) -> Iterator[GateRun]:
    needs_calibration = not config.heads or any("%" in head for head in config.heads)
    heads = changes(calibrate(folder, config) if needs_calibration else 1.0)
    for _ in range(count):
        for head in config.heads or heads:
            yield run_gate(folder, head, heads[head], config)


def main() -> None:
    parser = make_parser(__doc__, "gate")
    parser.add_argument("--rounds", type=int, default=1, help="runs of the gate per change")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of a run")
    parser.add_argument("--scenario", default="bugfix", help="default: %(default)s")
    parser.add_argument("--head", action="append", default=[], help="change to run; repeatable")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch:
        os.environ["XDG_CACHE_HOME"] = str(Path(scratch, "cache"))
        folder = repository(Path(scratch, "checkout"))
        with contextlib.chdir(folder):
            config = Config(options.scenario, options.seconds, tuple(options.head))
            for run in run_rounds(folder, config, options.rounds):
                runs.append(run)
                print_progress(f"{run.head}: exit {run.code}, {run.seconds:.0f} s: {run.sentence}")
    if options.out:
        options.out.write_text("".join(json.dumps(to_builtins(run)) + "\n" for run in runs))
    print(report(runs))


def report(runs: list[GateRun]) -> str:
    heads = dict.fromkeys(run.head for run in runs)
    rows = [_line(head, [run for run in runs if run.head == head]) for head in heads]
    lines = [markdown_table(("head", "exits", "as expected", "pairs", "fresh", "seconds"), rows)]
    equal = [run for run in runs if run.expected == 0]
    alarms = sum(run.code == 1 for run in equal)
    bound = proportion_upper_bound(alarms, len(equal))
    lines.append(f"False alarms: {alarms} of {len(equal)}, at most {bound:.1%} (95 %).")
    if invalid := [run.head for run in runs if not run.valid]:
        lines.append(f"Run files that fail verification: {', '.join(invalid)}")
    return "\n\n".join(lines)


def _line(head: str, runs: list[GateRun]) -> tuple[object, ...]:
    exits = Counter(run.code for run in runs)
    return (
        head,
        ", ".join(f"{code} ({count}x)" for code, count in sorted(exits.items())),
        f"{sum(run.code == run.expected for run in runs)} of {len(runs)}",
        _range([run.pairs for run in runs]),
        _range([run.fresh for run in runs]),
        _range([round(run.seconds) for run in runs]),
    )


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
