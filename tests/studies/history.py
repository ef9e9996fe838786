"""Does `trae-bench history check` find changes of 2, 3 and 5 %, and how many does it invent?

    python -m tests.studies.history --series 100 --out history.jsonl

Nothing is measured: the noise is recorded. The files in `results/studies` have the results of
comparisons of equal sides, each with its mean, its scatter and its number of pairs. Each commit of
a series takes one of them at random, all of one scenario and metric. Some commits change the level.
A confirming run has the true difference of its two commits and the scatter of another result. Its
looks and its fresh pairs are those of the production code.

--layout adds an effect of its own to each build, as memory layout does. The noise files do not have
it, because both sides of their pairs are one build.

The t-test that Mozilla's Perfherder uses searches the same series: 12 to 24 commits before and 12
after, near ones weigh more, t above 7 and above both neighbours.

`--report FILE ...` reports several files together. The same command with the same --out resumes.
"""

import math
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from tests.studies.harness import (
    ROOT,
    RoundLog,
    add_report,
    format_proportion,
    make_parser,
    markdown_table,
    mean,
    print_progress,
    read_head,
    read_rounds,
    stop_on_interrupt,
)
from trae_bench.metrics import METRICS
from trae_bench.model.aliases import current_metric
from trae_bench.model.experiment import Metric
from trae_bench.stats.change_points import Change, change_points
from trae_bench.stats.confirmation import CONFIRMATION_ALPHA
from trae_bench.stats.decision import Row, fit_row, looks
from trae_bench.stats.metric_rules import default_threshold, rule_of
from trae_bench.stats.student_t import t_tail
from trae_bench.verdicts.history import CONFIRM_LEVEL, CONFIRM_SHARE, SURE

NOISE = sorted((ROOT / "results" / "studies").glob("false-alarms-*.jsonl"))
MIN_RECORDED = 25
"""Fewest results of a scenario whose noise is used."""
NEAR = 3
"""A change that is placed within so many commits counts as found."""
APART = 13
"""Fewest commits between planted changes, before the first and after the last one. The t-test
needs 12."""
BACK, MAX_BACK, FORE, T_LIMIT = 12, 24, 12, 7.0
"""Of the t-test."""
METHODS = {"t-test": "t-test of Perfherder", "found": "change points", "confirmed": "confirmed"}


class Recorded(Struct, frozen=True):
    """One comparison of equal sides."""

    log_ratio: float
    sd: float
    pairs: int

    @property
    def error(self) -> float:
        return self.sd / math.sqrt(self.pairs)


class Result(Struct, frozen=True):
    """What was planted in one series, and what each method found."""

    scenario: str
    metric: str
    size: float
    layout: float
    planted: tuple[tuple[int, float], ...]
    """Places and log ratios."""
    found: dict[str, tuple[tuple[int, float], ...]]
    """The same, by method."""


Noise = dict[tuple[str, str], list[Recorded]]
"""Results of equal sides, by scenario and metric."""


def recorded_noise(metrics: Sequence[str], files: Sequence[Path] = NOISE) -> Noise:
    """Return what is recorded of the metrics in each scenario that has enough of it."""
    noise: Noise = {}
    for path in files:
        for line in read_rounds(path):
            for row in line["rows"]:
                name = current_metric(row["metric"])
                if name in metrics and row["log_ratio"] is not None and row["sd"]:
                    one = Recorded(row["log_ratio"], row["sd"], row["pairs"])
                    noise.setdefault((line["scenario"], name), []).append(one)
    return {key: rows for key, rows in sorted(noise.items()) if len(rows) >= MIN_RECORDED}


class Line:
    """A line of commits with planted changes, and its true levels."""

    def __init__(
        self, noise: Sequence[Recorded], size: float, options: Namespace, random: Random
    ) -> None:
        self._noise, self._random = noise, random
        count, changes = options.commits, options.changes if size else 0
        self.planted = tuple(
            (place, random.choice((1, -1)) * math.log1p(size))
            for place in _places(count, changes, random)
        )
        self._truth = [
            math.fsum(shift for place, shift in self.planted if place <= number)
            + random.gauss(0, options.layout)
            for number in range(count)
        ]
        taken = [random.choice(noise) for _ in range(count)]
        self.values = [t + one.log_ratio for t, one in zip(self._truth, taken, strict=True)]
        self.errors = [one.error for one in taken]

    def confirms(self, change: Change, metric: Metric) -> bool:
        """Whether a run of two commits shows the effect again; see `verdicts.history.checked`."""
        effect = self._truth[change.last] - self._truth[change.first - 1]
        sd = self._random.choice(self._noise).sd
        last = rule_of(metric).looks[-1]
        row = self._row(effect, sd, last, metric)
        *_, (_, look) = looks({metric.name: row})
        pairs, fit = look.judgement.look, fit_row(row, look.judgement.look)
        assert fit is not None
        least = CONFIRM_SHARE * math.log1p(default_threshold(metric))
        if look.judgement.verdict == "regression":
            fresh = fit_row(self._row(effect, sd, pairs, metric), pairs)
            assert fresh is not None
            p = t_tail(fresh.mean / fresh.error, fresh.df)
            if p > CONFIRMATION_ALPHA or fresh.mean < least:
                return False
        sure = look.judgement.p / 2 <= CONFIRM_LEVEL
        return fit.mean * change.size > 0 and abs(fit.mean) >= least and sure

    def _row(self, effect: float, sd: float, pairs: int, metric: Metric) -> Row:
        """Pairs with a normal scatter: no single pairs are recorded."""
        values = (math.exp(self._random.gauss(effect, sd)) for _ in range(pairs))
        return Row(a=(1.0,) * pairs, b=tuple(values), rule=rule_of(metric))


def _places(commits: int, changes: int, random: Random) -> list[int]:
    """Random places at least `APART` from each other and from the ends."""
    while True:
        places = sorted(random.sample(range(APART, commits - APART), changes))
        if all(b - a >= APART for a, b in pairwise(places)):
            return places


def examine(key: tuple[str, str], line: Line, size: float, options: Namespace) -> Result:
    """Search one series with each method."""
    metric = METRICS[key[1]]
    threshold = math.log1p(default_threshold(metric))
    found, confirmed = [], []
    for change in change_points(line.values, line.errors):
        error = math.hypot(change.before.error, change.after.error)
        if abs(change.size) + SURE * error < threshold:
            continue
        found.append((change.place, change.size))
        if line.confirms(change, metric):
            confirmed.append((change.place, change.size))
    tested = [one for one in t_test(line.values) if abs(one[1]) >= threshold]
    return Result(
        scenario=key[0],
        metric=key[1],
        size=size,
        layout=options.layout,
        planted=line.planted,
        found={"t-test": tuple(tested), "found": tuple(found), "confirmed": tuple(confirmed)},
    )


# -- the t-test of Perfherder -----------------------------------------------------------


def t_test(values: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Yield the places where t is above the limit and above both neighbours, with the change."""
    scores, quiet = [0.0], 0
    for place in range(1, len(values)):
        window = min(max(quiet, BACK), MAX_BACK)
        before = values[max(0, place - window) : place][::-1]
        scores.append(_t(before, values[place : place + FORE]))
        quiet = 0 if scores[-1] > T_LIMIT else quiet + 1
    for place in range(BACK, len(values) - FORE + 1):
        around = scores[place - 1 : place + 2]
        if scores[place] > T_LIMIT and scores[place] == max(around):
            before = values[place - BACK : place]
            after = values[place : place + FORE]
            yield place, sum(after) / len(after) - sum(before) / len(before)


def _t(before: Sequence[float], after: Sequence[float]) -> float:
    (m, u), (n, v) = _weighted(before), _weighted(after)
    return abs(n - m) / math.sqrt(u + v) if u + v else 0.0


def _weighted(values: Sequence[float]) -> tuple[float, float]:
    """The mean, to which the first values contribute more, and its variance."""
    count = len(values)
    weights = [count - number for number in range(count)]
    center = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    squares = sum((value - center) ** 2 for value in values)
    return center, squares / max(1, count - 1) / count


# -- the study --------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "history")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--changes", type=int, default=2, help="planted changes of a series")
    parser.add_argument("--series", type=int, default=100, help="series of each size")
    parser.add_argument(
        "--sizes", type=float, nargs="+", default=[0.0, 0.02, 0.03, 0.05], help="planted sizes"
    )
    parser.add_argument("--metrics", nargs="+", default=["cpu"], choices=METRICS, metavar="NAME")
    parser.add_argument("--layout", type=float, default=0.0, help="sd of the effect of a build")
    add_report(parser)
    options = parser.parse_args(argv)
    print(report(options.report) if options.report else table(study(options)))


def study(options: Namespace) -> list[Result]:
    """Search all series, and return the results with those of the log."""
    fixed = ("commits", "changes", "series", "sizes", "layout", "metrics", "seed")
    log = RoundLog(options.out, {name: getattr(options, name) for name in fixed})
    results = msgspec.convert(log.rounds, list[Result])
    noise = recorded_noise(options.metrics)
    keys = list(noise)
    plan = [(size, number) for number in range(options.series) for size in options.sizes]
    with stop_on_interrupt():
        for size, number in plan[len(results) :]:
            random = Random(f"{options.seed} {size} {options.layout} {number}")
            key = keys[number % len(keys)]
            line = Line(noise[key], size, options, random)
            results.append(examine(key, line, size, options))
            log.append(results[-1])
        print_progress(f"{len(results)} series")
    return results


def report(files: Sequence[Path]) -> str:
    """Return the report of several files, with their commits."""
    results = [one for file in files for one in msgspec.convert(read_rounds(file), list[Result])]
    commits = dict.fromkeys(str(read_head(file)["code"]["commit"])[:12] for file in files)
    return f"{table(results)}\n\nComputed at commit {', '.join(commits)}."


def table(results: Sequence[Result]) -> str:
    groups: dict[tuple[str, float, float], list[Result]] = {}
    for one in results:
        groups.setdefault((METRICS[one.metric].mode, one.layout, one.size), []).append(one)
    head = ("pairs", "build effect", "planted", "method", "series", "found", "reported and real")
    lines = [
        _line(mode, layout, size, method, group)
        for (mode, layout, size), group in sorted(groups.items())
        for method in METHODS
    ]
    return markdown_table((*head, "false per 100 series", "mean distance"), lines)


def _line(mode: str, layout: float, size: float, method: str, group: Sequence[Result]) -> list[str]:
    matched = [match(one.planted, one.found[method]) for one in group]
    planted = sum(len(one.planted) for one in group)
    reported = sum(len(one.found[method]) for one in group)
    distances = [distance for one in matched for distance in one]
    found = len(distances)
    per_100 = 100 * (reported - found) / len(group)
    return [
        mode,
        f"{layout:.1%}" if layout else "none",
        f"±{size:.0%}" if size else "none",
        METHODS[method],
        str(len(group)),
        format_proportion(found, planted),
        format_proportion(found, reported),
        f"{per_100:.0f}",
        f"{mean(distances).value:.1f}" if distances else "-",
    ]


def match(planted: Sequence[tuple[int, float]], found: Sequence[tuple[int, float]]) -> list[float]:
    """Return the distances of the found changes that are planted ones, each used once."""
    left, distances = list(planted), []
    for place, size in found:
        near = [one for one in left if abs(one[0] - place) <= NEAR and one[1] * size > 0]
        if near:
            best = min(near, key=lambda one: abs(one[0] - place))
            left.remove(best)
            distances.append(float(abs(best[0] - place)))
    return distances


if __name__ == "__main__":
    main()
