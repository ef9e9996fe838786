"""Does the gate find what is slower, and is it quiet when nothing is?

    python -m tests.studies.gate --rounds 20 --seconds 120 --out gate.jsonl

Makes a git repository of the agent, commits one change of it after another, and runs
`trae-bench run --compare` on each, as CI would. Slowdowns are empty loops at the import of the
agent, as long as a share of the session's processor time in a first run. Each round runs the
gate once on every change, and once on an unchanged head, whose exit 1 is a false alarm.
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

from tests.studies.harness import arguments, say, share_at_most, table
from tests.trae_bench.mutations import HEADS, commit, git, repository, slower
from trae_bench.cli import main as trae_bench
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.text.gate import sentence
from trae_bench.storage.run_file import read_run
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import CODES, outcome

SHARES = (0.03, 0.05, 0.10)
"""Of the processor time of a session."""
METRICS = ("cpu", "peak_rss", "modules_imported")
EXPECTED = {"an import": 1, "5 MB": 1, "a wrong answer": 5, "no start": 4}
_CALIBRATION = 2_000_000


class Seen(Struct, frozen=True):
    """One run of the gate."""

    head: str
    expected: int
    code: int
    pairs: int
    """Counted, of all cells but A/A."""
    fresh: int
    """Of these, the fresh ones that confirm."""
    seconds: float
    """From the command to its exit."""
    said: str
    holds: bool
    """`verify` finds nothing wrong."""


def gate(folder: Path, head: str, change: Callable[[Path], None], asked: "Asked") -> Seen:
    git(folder, "checkout", "--quiet", "--force", "-B", "head", "main")
    change(folder)
    commit(folder, head)
    run_file = folder.parent / "run.json"
    metrics = [word for name in METRICS for word in ("--metric", name)]
    words = ["run", asked.scenario, "--compare", "main", "--budget", str(asked.seconds)]
    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = trae_bench([*words, *metrics, "--force", "--out", str(run_file)])
    took = time.monotonic() - began
    return _seen(head, code, took, read_run(run_file))


class Asked(Struct, frozen=True):
    scenario: str
    seconds: float
    heads: tuple[str, ...] = ()
    """Their names; none is for all."""


def _seen(head: str, code: int, took: float, run: RunFile) -> Seen:
    if code != outcome(run).code():
        raise AssertionError(f"{head}: exit {code}, but the run file says {outcome(run).code()}")
    counted = Counter(
        one.contrast for one in run.samples if one.side == "A" and one.pair and one.mode == "duet"
    )
    del counted[NOISE_FLOOR]
    return Seen(
        head=head,
        expected=EXPECTED.get(head, CODES["regression"] if "%" in head else 0),
        code=code,
        pairs=counted.total(),
        fresh=counted["head again"],
        seconds=took,
        said=sentence(run),
        holds=all(finding.severity != "wrong" for finding in verify(run)),
    )


def changes(loops: float) -> Mapping[str, Callable[[Path], None]]:
    """Every head; `loops` take as long as a session."""
    slow = {f"+{share:.0%} cpu": slower(round(share * loops)) for share in SHARES}
    return {"nothing": HEADS["nothing"], **slow, **HEADS}


def calibrated(folder: Path, asked: Asked) -> float:
    """Empty loops that take as long as a session, both as a duet has them: alone on a core, a
    loop is a quarter faster."""
    gate(folder, "a calibration", slower(_CALIBRATION), asked)
    rows = read_run(folder.parent / "run.json").comparisons
    cpu = next(row for row in rows if (row.contrast, row.metric) == ("head", "cpu")).estimate
    if cpu is None or cpu.difference <= 0:
        raise AssertionError("an empty loop cannot be measured here")
    return _CALIBRATION * cpu.a / cpu.difference


def rounds(folder: Path, asked: Asked, count: int) -> Iterator[Seen]:
    slow = not asked.heads or any("%" in head for head in asked.heads)
    heads = changes(calibrated(folder, asked) if slow else 1.0)
    for _ in range(count):
        for head in asked.heads or heads:
            yield gate(folder, head, heads[head], asked)


def main() -> None:
    parser = arguments(__doc__, "gate")
    parser.add_argument("--rounds", type=int, default=1, help="runs of the gate on each head")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of a run")
    parser.add_argument("--scenario", default="bugfix", help="its name")
    parser.add_argument("--head", action="append", default=[], help="this one; repeat for more")
    given = parser.parse_args()
    seen = []
    with tempfile.TemporaryDirectory(prefix="gate-") as scratch:
        os.environ["XDG_CACHE_HOME"] = str(Path(scratch, "cache"))
        folder = repository(Path(scratch, "checkout"))
        with contextlib.chdir(folder):
            asked = Asked(given.scenario, given.seconds, tuple(given.head))
            for one in rounds(folder, asked, given.rounds):
                seen.append(one)
                say(f"{one.head}: exit {one.code}, {one.seconds:.0f} s: {one.said}")
    if given.out:
        given.out.write_text("".join(json.dumps(to_builtins(one)) + "\n" for one in seen))
    print(report(seen))


def report(seen: list[Seen]) -> str:
    heads = dict.fromkeys(one.head for one in seen)
    rows = [_line(head, [one for one in seen if one.head == head]) for head in heads]
    lines = [table(("head", "exits", "as expected", "pairs", "fresh", "seconds"), rows)]
    equal = [one for one in seen if one.expected == 0]
    alarms = sum(one.code == 1 for one in equal)
    bound = share_at_most(alarms, len(equal))
    lines.append(f"False alarms: {alarms} of {len(equal)}, at most {bound:.1%} (95 %).")
    if broken := [one.head for one in seen if not one.holds]:
        lines.append(f"Run files that do not hold together: {', '.join(broken)}")
    return "\n\n".join(lines)


def _line(head: str, seen: list[Seen]) -> tuple[object, ...]:
    exits = Counter(one.code for one in seen)
    return (
        head,
        ", ".join(f"{code} ({count}x)" for code, count in sorted(exits.items())),
        f"{sum(one.code == one.expected for one in seen)} of {len(seen)}",
        _from_to([one.pairs for one in seen]),
        _from_to([one.fresh for one in seen]),
        _from_to([round(one.seconds) for one in seen]),
    )


def _from_to(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
