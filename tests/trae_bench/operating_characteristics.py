"""Operating characteristics of the rules on recorded noise: error rates, power, sample sizes.

    python -m tests.trae_bench.operating_characteristics SERIAL.csv.gz DUET.csv.gz

Not a test: it takes minutes and needs traces. A trace is a table of single runs with the columns

    subject, cond   program, and state of the machine (quiet or load); together one cell
    seg, quad, slot segment of the trace, number of the quad in it, position in the quad (0 to 3:
                    two pairs); a window has consecutive quads of one segment
    side            A or B
    eff             percent of work that was added to side B; 0 is A/A
    wall, ut, st    wall, user CPU and system CPU time in seconds

An A/A window keeps the order of its quads. The labels of each quad are swapped at random, so the
null hypothesis is true by construction. "Shifted" windows multiply side B of such a window.
"Injected" windows are from runs that did more work; they overlap much, because there are few
runs. Each window is one row in a family of 30 gated rows whose other rows have no pairs (level
alpha / 30, without Holm's steps). The last table judges 30 A/A windows together.
"""

import csv
import gzip
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import NamedTuple

from trae_bench.model.result import Judgement, Rule
from trae_bench.stats.decision import DUET_V1, SERIAL_V1, Row, estimate, verdicts

FAMILY = 30
WINDOWS = 1000
"""Windows for each cell and truth."""
RUNS = 500

Pair = tuple[float, float]
Quad = tuple[Pair, Pair]


class Cell(NamedTuple):
    subject: str
    cond: str
    effect: int


Traces = dict[Cell, list[list[Quad]]]
"""Segments of each cell."""


def read(path: Path, columns: Sequence[str]) -> Traces:
    """Quads of (A, B) pairs of a trace file; a value is the sum of the columns."""
    quads: dict[tuple[Cell, int, int], dict[int, tuple[str, float]]] = defaultdict(dict)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in csv.DictReader(lines):
            cell = Cell(line["subject"], line["cond"], int(line["eff"]))
            value = sum(float(line[column]) for column in columns)
            quad = quads[cell, int(line["seg"]), int(line["quad"])]
            quad[int(line["slot"])] = (line["side"], value)
    segments: dict[tuple[Cell, int], list[Quad]] = defaultdict(list)
    for cell, segment, number in sorted(quads):
        slots = quads[cell, segment, number]
        first, second = (dict((slots[i], slots[i + 1])) for i in (0, 2))
        segments[cell, segment].append(((first["A"], first["B"]), (second["A"], second["B"])))
    traces: Traces = defaultdict(list)
    for (cell, _), found in segments.items():
        traces[cell].append(found)
    return traces


def window(segments: list[list[Quad]], rule: Rule, draw: Random, flip: bool) -> list[Pair]:
    """Consecutive pairs from a random quad on, continued at the start of the segment.

    Has the pairs of the last look if the segment has as many. `flip` swaps labels at random.
    """
    segment = draw.choice(segments)
    start = draw.randrange(len(segment))
    pairs: list[Pair] = []
    for quad in (segment[start:] + segment[:start])[: rule.looks[-1] // 2]:
        swap = flip and draw.random() < 0.5
        pairs += [(b, a) if swap else (a, b) for a, b in quad]
    return pairs


def row_of(pairs: list[Pair], rule: Rule, shift: float = 0.0) -> Row:
    return Row(a=tuple(a for a, _ in pairs), b=tuple(b * (1 + shift) for _, b in pairs), rule=rule)


def judge_alone(row: Row) -> Judgement:
    empty = {i: Row(a=(), b=(), rule=row.rule) for i in range(1, FAMILY)}
    return verdicts({0: row, **empty})[0]


def truths(traces: Traces, shifts: Sequence[float]) -> Iterator[tuple[str, int, float, bool]]:
    """Label, effect of the cells to use, shift, and whether labels are swapped at random."""
    yield "0", 0, 0.0, True
    for shift in shifts:
        yield f"{shift:+.0%} shifted", 0, shift, True
    for effect in sorted({cell.effect for cell in traces} - {0}):
        yield f"+{effect}% injected", effect, 0.0, False


def print_power(traces: Traces, rule: Rule, shifts: Sequence[float], draw: Random) -> None:
    print(
        "cond   truth           regression improvement equivalent inconclusive  pairs (p95)"
        "  % regression by " + "/".join(map(str, rule.looks))
    )
    for cond in ("quiet", "load"):
        for label, effect, shift, flip in truths(traces, shifts):
            cells = [cell for cell in traces if (cell.cond, cell.effect) == (cond, effect)]
            judged = [
                judge_alone(row_of(window(traces[cell], rule, draw, flip), rule, shift))
                for cell in cells
                for _ in range(WINDOWS)
            ]
            count = Counter(judgement.verdict for judgement in judged)
            share = [
                f"{100 * count[verdict] / len(judged):10.2f}%"
                for verdict in ("regression", "improvement", "equivalent", "inconclusive")
            ]
            used = [judgement.look for judgement in judged]
            p95 = quantiles(used, n=20)[-1]
            found_at = [j.look for j in judged if j.verdict == "regression"]
            by_look = (100 * sum(look <= n for look in found_at) / len(judged) for n in rule.looks)
            print(f"{cond:6} {label:14}{' '.join(share)}   {median(used):4.0f} ({p95:.0f})", end="")
            print("       " + "/".join(f"{share:.0f}" for share in by_look))


def print_noise(traces: Traces, rule: Rule) -> None:
    print("cell            pairs  mean log ratio  sd")
    for cell, segments in sorted(traces.items()):
        pairs = [pair for segment in segments for quad in segment for pair in quad]
        found = estimate(row_of(pairs, rule))
        assert found is not None and found.log_ratio is not None
        name = f"{cell.subject} {cell.cond} +{cell.effect}%"
        print(f"{name:15} {found.n:5} {found.log_ratio:+14.2%} {found.sd:9.2%}")


def print_family(traces: Traces, rule: Rule, draw: Random) -> None:
    """Family-wise error rate: runs of 30 A/A rows, with Holm's method."""
    cells = [cell for cell in traces if cell.effect == 0]
    false = Counter[str]()
    for _ in range(RUNS):
        rows = {
            i: row_of(window(traces[cells[i % len(cells)]], rule, draw, flip=True), rule)
            for i in range(FAMILY)
        }
        false.update({judgement.verdict for judgement in verdicts(rows).values()})
    print(
        f"{RUNS} runs of {FAMILY} A/A rows: false regressions in {false['regression']}, "
        f"false improvements in {false['improvement']}, inconclusive rows in "
        f"{false['inconclusive']}"
    )


def main(serial: str, duet: str) -> None:
    tables = (
        ("duet, CPU time", Path(duet), ("ut", "st"), DUET_V1, (0.02, 0.03, 0.05, 0.10)),
        ("serial, wall", Path(serial), ("wall",), SERIAL_V1, (0.05, 0.10, 0.20, 0.50)),
        ("serial, CPU time", Path(serial), ("ut", "st"), SERIAL_V1, (0.05, 0.10, 0.20, 0.50)),
    )
    for title, path, columns, rule, shifts in tables:
        draw = Random(title)
        traces = read(path, columns)
        print(f"\n{title}: {rule.name}, tau {rule.threshold:.0%}, margin {rule.margin:.0%}")
        print_noise(traces, rule)
        print_power(traces, rule, shifts, draw)
        print_family(traces, rule, draw)


if __name__ == "__main__":
    main(*sys.argv[1:])
