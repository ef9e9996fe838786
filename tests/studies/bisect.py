"""Does `trae-bench bisect` find the commit, and how many pairs does it take?

    python -m tests.studies.bisect --commits 40 --share 0.03 --tries 20 --out bisect.jsonl

Creates a git repository of the agent with so many commits. One of them, chosen at random, adds
empty loops that take a share of the session's CPU time. Each try is one search, as a user runs it.
--plain also runs `git bisect run` with the gate, which takes each exit code as the truth.

--load runs processes that compute all the time on the cores in turn. `--report FILE ...` reports
several files together. The same command with the same --out resumes.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median

from msgspec import Struct, convert

from tests.studies.gate import calibrate
from tests.studies.harness import (
    RoundLog,
    TimeLimit,
    add_load,
    add_report,
    describe_head,
    hogs,
    make_parser,
    markdown_table,
    print_progress,
    read_head,
    read_rounds,
    stop_on_interrupt,
)
from tests.trae_bench.mutations import commit, git, repository, slower
from trae_bench.cli import main as trae_bench
from trae_bench.storage.run_file import read_run

SCENARIO = "api-sequential"
GATE_SECONDS = 90.0


class Try(Struct, frozen=True):
    """One search."""

    method: str
    """`bisect`, or `git bisect run` with the gate."""
    commits: int
    share: float
    load: int
    code: int
    found: bool
    """It names the commit."""
    runs: int
    """Comparisons, with those at the ends."""
    pairs: int
    """Pairs of all of them, A/A included."""
    seconds: float


def search(folder: Path, truth: str, options: Namespace) -> Try:
    """Search for the first bad commit with `trae-bench bisect`."""
    place = folder.parent / "search"
    shutil.rmtree(place, ignore_errors=True)
    start, said = time.monotonic(), io.StringIO()
    command = ["bisect", f"main~{options.commits}", "main", "--scenario", SCENARIO]
    command += ["--metric", "cpu", "--budget", str(GATE_SECONDS), "--json", "--quiet"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        code = trae_bench([*command, "-o", str(place)])
    if code == 130:
        raise KeyboardInterrupt
    first = json.loads(said.getvalue())["first_bad"] if said.getvalue() else []
    return _try("bisect", options, code, first == [truth], place, start)


def plain_search(folder: Path, truth: str, options: Namespace) -> Try:
    """Search as `git bisect run trae-bench run --compare GOOD` does: exit 1 is bad, 0 is good."""
    place = folder.parent / "plain"
    shutil.rmtree(place, ignore_errors=True)
    commits = git(folder, "log", "--format=%H", "--reverse", "main").split()
    low, high, start = 0, len(commits) - 1, time.monotonic()
    while high - low > 1:
        middle = (low + high) // 2
        git(folder, "checkout", "--quiet", "--detach", commits[middle])
        command = ["run", SCENARIO, "--compare", commits[0], "--metric", "cpu", "--quiet"]
        command += ["--budget", str(GATE_SECONDS), "--out", str(place / f"{middle}.json")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = trae_bench(command)
        if code == 130:
            raise KeyboardInterrupt
        low, high = (low, middle) if code == 1 else (middle, high)
    git(folder, "checkout", "--quiet", "main")
    return _try("git bisect run", options, 0, commits[high] == truth, place, start)


def _try(method: str, options: Namespace, code: int, found: bool, place: Path, start: float) -> Try:
    runs = [read_run(path) for path in sorted(place.glob("*.json"))]
    return Try(
        method=method,
        commits=options.commits,
        share=options.share,
        load=options.load,
        code=code,
        found=found,
        runs=len(runs),
        pairs=sum(sample.side == "A" and sample.pair > 0 for run in runs for sample in run.samples),
        seconds=time.monotonic() - start,
    )


def line_of_commits(folder: Path, truth: int, loops: int, options: Namespace) -> str:
    """Make the commits, of which number `truth` (from 1) is slower. Returns its hash."""
    git(folder, "checkout", "--quiet", "--force", "-B", "main", "base")
    errors, bad = folder / "agent_core" / "errors.py", ""
    for number in range(1, options.commits + 1):
        with errors.open("a", encoding="utf-8") as file:
            file.write(f"# change {number}\n")
        if number == truth:
            slower(loops)(folder)
        commit(folder, f"change {number}")
        if number == truth:
            bad = git(folder, "rev-parse", "HEAD")
    return bad


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "bisect")
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--share", type=float, default=0.03, help="slowdown of the bad commit")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--minutes", type=float, help="start no search after this time")
    parser.add_argument("--plain", action="store_true", help="also search with git bisect")
    add_load(parser)
    add_report(parser)
    options = parser.parse_args(argv)
    print(report(options.report) if options.report else table(measure(options)))


def measure(options: Namespace) -> list[Try]:
    """Run the searches, and return them with those of the log."""
    fixed = ("commits", "share", "tries", "seed", "plain", "load")
    out = options.out and options.out.absolute()
    log = RoundLog(out, {name: getattr(options, name) for name in fixed})
    tries = convert(log.rounds, list[Try])
    with tempfile.TemporaryDirectory(prefix="bisect-") as scratch, hogs(options.load):
        os.environ["XDG_CACHE_HOME"] = str(Path(scratch, "cache"))
        folder = repository(Path(scratch, "checkout"))
        git(folder, "branch", "base")
        with contextlib.chdir(folder), stop_on_interrupt():
            limit = TimeLimit(options.minutes)
            settings = Namespace(scenario=SCENARIO, seconds=GATE_SECONDS)
            loops = round(options.share * calibrate(folder, settings))
            for done in _tries(folder, loops, options, limit, len(tries)):
                tries.append(done)
                log.append(done)
                print_progress(f"{done.method}: {done.found}, {done.pairs} pairs")
    return tries


def _tries(
    folder: Path, loops: int, options: Namespace, limit: TimeLimit, done: int
) -> Iterator[Try]:
    searches = (search, plain_search) if options.plain else (search,)
    random = Random(options.seed)
    for number in range(options.tries):
        truth = random.randint(1, options.commits)
        if (number + 1) * len(searches) <= done:
            continue
        if limit.remaining <= 0:
            return
        bad = line_of_commits(folder, truth, loops, options)
        for one in searches[max(0, done - number * len(searches)) :]:
            yield one(folder, bad, options)


def report(files: Sequence[Path]) -> str:
    """Return the report of several files, with their machines."""
    tries = [one for file in files for one in convert(read_rounds(file), list[Try])]
    machines = dict.fromkeys(describe_head(read_head(file)) for file in files)
    return "\n\n".join([table(tries), *(f"Measured on {machine}." for machine in machines)])


def table(tries: Sequence[Try]) -> str:
    groups: dict[tuple[str, int, float, int], list[Try]] = {}
    for one in tries:
        groups.setdefault((one.method, one.commits, one.share, one.load), []).append(one)
    head = ("method", "commits", "slowdown", "load", "found", "median comparisons")
    lines = [_row(*key, group) for key, group in sorted(groups.items())]
    return markdown_table((*head, "median pairs", "median seconds"), lines)


def _row(method: str, commits: int, share: float, load: int, group: Sequence[Try]) -> list[str]:
    found = f"{sum(one.found for one in group)} of {len(group)}"
    middle = (median(getattr(one, name) for one in group) for name in ("runs", "pairs", "seconds"))
    return [method, str(commits), f"+{share:.0%}", str(load), found, *(f"{m:.0f}" for m in middle)]


if __name__ == "__main__":
    main()
