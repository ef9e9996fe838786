"""Finds the commit in which a regression arises.

A gate run compares the bad commit with the good one. Its clearest regression, or its different
answers, is what is searched for. Each step then compares one commit with the good one in a few
pairs, and `stats.bisection` says which commit comes next. At the end a gate run compares the commit
that was found with the one before it. Every step is a run file in the folder of the search, so an
interrupted search goes on.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import HEAD
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.model.experiment import Metric
from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.run.commit_pair import compare_commits
from trae_bench.run.gate_base import GateBase
from trae_bench.run.planner import RunRequest
from trae_bench.run.runner import Say
from trae_bench.run.scheduler import Listener
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.bisection import (
    Noise,
    evidence,
    likely,
    next_commit,
    pairs_for,
    pooled_noise,
    posterior,
    steps_left,
)
from trae_bench.stats.decision import log_ratios
from trae_bench.stats.pairs import RowKey, group_samples, key_of_row, pair_outcome
from trae_bench.stats.student_t import t_quantile
from trae_bench.subject.revisions import NAME_LENGTH, Repository
from trae_bench.verdicts.gate import GateResult, answers_of_head, outcome

CONFIDENCE = 0.99
"""Probability at which the search ends."""
MAX_STEPS = 100
CLEAR = 0.01
"""Probability that a run without a regression has a row with a clear effect."""
MIN_EFFECT, MIN_CLEAR_PAIRS = 0.005, 4
"""Least effect (a log ratio) and pairs of a clear effect."""
STEP_BUDGET = 3600.0
"""Seconds of one step, as a limit for agents that hang."""


Measure = Literal["log ratio", "difference", "share of different answers"]


class Step(Struct, frozen=True):
    """One commit, compared with the good one."""

    commit: str
    pairs: int
    effect: float | None
    """Mean over its pairs, of what `Found.measure` says; None if it cannot be measured."""
    is_bad: float
    """Probability that this commit is bad, after the step."""
    candidates: int
    """Commits that together have a probability of 99 % to contain the first bad one."""
    seconds_left: float
    """About how long the rest takes."""
    problem: str = ""
    """Why it cannot be measured."""


class Found(Struct, frozen=True):
    """What a search found."""

    good: str
    commits: tuple[str, ...]
    """The line that was searched, oldest first, without the good one."""
    gate: GateResult
    """The result of the bad commit against the good one."""
    folder: str
    """The folder of the run files."""
    measure: Measure = "log ratio"
    """What the effects of the steps are."""
    row: Comparison | None = None
    """The row that was searched for; None if there is no regression."""
    first_bad: tuple[str, ...] = ()
    """The first bad commit; several if those between cannot be measured."""
    probability: float = 0.0
    steps: tuple[Step, ...] = ()
    check: RunFile | None = None
    """The gate run of the first bad commit against the one before it."""


class Search(Struct, frozen=True, kw_only=True):
    """What to search, and where."""

    repository: Repository
    request: RunRequest
    """Of the gate run; `compare` is the good commit."""
    bad: str
    """The full hash of the bad commit."""
    folder: Path
    """Receives the run files."""


class _Line:
    """What was measured of the commits of the line."""

    def __init__(self, gate: RunFile, key: RowKey, count: int, measure: Measure) -> None:
        self._count = count
        self.key = key
        self._values_of = _VALUES[measure]
        self._values = {count - 1: self._values_of(gate, key)}
        self._floor = self._values_of(gate, key._replace(contrast=NOISE_FLOOR))
        self._effect = fmean(self._values[count - 1])
        self.skipped: set[int] = set()
        """Commits that cannot be measured."""

    @property
    def _noise(self) -> Noise:
        return pooled_noise([*self._values.values(), self._floor], self._effect)

    @property
    def chances(self) -> list[float]:
        """The probability of each commit to be the first bad one."""
        noise = self._noise
        last = self._count - 1
        found = {
            place: evidence(values, self._effect, noise)
            for place, values in self._values.items()
            if place != last
        }
        return posterior(self._count, found)

    @property
    def pairs(self) -> int:
        """Pairs of the next step."""
        return pairs_for(self._effect, self._noise)

    def add(self, place: int, run: RunFile) -> list[float]:
        """Add the pairs of a run, and return their values."""
        values = self._values_of(run, self.key)
        self._values.setdefault(place, []).extend(values)
        if not values:
            self.skipped.add(place)
        return values

    def next(self) -> int | None:
        chances = self.chances
        return None if max(chances) >= CONFIDENCE else next_commit(chances, self.skipped)


class Reporter(Protocol):
    """Shows the progress of a search."""

    def begins(self, found: Found) -> None:
        """The gate run has found what to search for."""

    def step_ends(self, found: Found, step: Step) -> None:
        """A commit was measured."""


def bisect(search: Search, say: Say, reporter: Reporter, listener: Listener | None = None) -> Found:
    """Search. `reporter` and `listener` learn of each step and of each pair.

    Raises `UsageError` if there is nothing to search, `CannotMeasure` if the gate run cannot be
    made, `KeyboardInterrupt` if a step was interrupted.
    """
    return _Searcher(search, say, reporter, listener).find()


class _Searcher:
    def __init__(
        self, search: Search, say: Say, reporter: Reporter, listener: Listener | None
    ) -> None:
        self._search = search
        self._say = say
        self._reporter = reporter
        self._listener = listener
        self._seconds: list[float] = []

    def find(self) -> Found:
        search, base = self._search, _base(self._search.request)
        commits = tuple(search.repository.between(base.commit, search.bad))
        if not commits:
            raise UsageError(
                f"no commit after {base.requested} up to {search.bad[:NAME_LENGTH]} changes the "
                "agent; name an earlier good commit"
            )
        gate = self._run(replace(search.request, head=commits[-1]), "gate")
        result = outcome(gate)
        found = Found(base.commit, commits, result, str(search.folder))
        rows = worse_rows(gate)
        if not rows:
            return found
        row = max(rows, key=_clearness)
        if len(commits) == 1:
            return replace(found, row=row, first_bad=commits, probability=1.0, check=gate)
        found = replace(found, row=row, measure=_measure(result, row))
        self._reporter.begins(found)
        return self._bisect(found, key_of_row(row), gate)

    def _bisect(self, found: Found, key: RowKey, gate: RunFile) -> Found:
        line = _Line(gate, key, len(found.commits), measure=found.measure)
        steps: list[Step] = []
        request = self._step_request(gate, key)
        while len(steps) < MAX_STEPS and (place := line.next()) is not None:
            commit, started = found.commits[place], time.monotonic()
            name = f"{len(steps) + 1:02}-{commit[:NAME_LENGTH]}"
            values, problem = self._measure(line, place, replace(request, head=commit), name)
            self._seconds.append(time.monotonic() - started)
            steps.append(self._step(commit, values, line.chances, place, problem))
            self._reporter.step_ends(found, steps[-1])
        chances = line.chances
        places = likely(chances, CONFIDENCE)
        found = replace(
            found,
            first_bad=tuple(found.commits[place] for place in places),
            probability=sum(chances[place] for place in places),
            steps=tuple(steps),
        )
        return self._checked(found, gate, key) if len(places) == 1 else found

    def _measure(
        self, line: _Line, place: int, request: RunRequest, name: str
    ) -> tuple[list[float], str]:
        """Measure a commit. Returns the values of its pairs, or why there are none."""
        try:
            run = self._run(replace(request, pairs=line.pairs), name)
        except (CannotMeasure, UsageError) as error:
            # This commit cannot be built or started, others can.
            line.skipped.add(place)
            return [], str(error)
        values = line.add(place, run)
        return values, "" if values else _problem(run, line.key)

    def _step(
        self,
        commit: str,
        values: Sequence[float],
        chances: Sequence[float],
        place: int,
        problem: str,
    ) -> Step:
        return Step(
            commit=commit,
            pairs=len(values),
            effect=fmean(values) if values else None,
            is_bad=sum(chances[: place + 1]),
            candidates=len(likely(chances, CONFIDENCE)),
            seconds_left=steps_left(chances) * fmean(self._seconds),
            problem=problem,
        )

    def _step_request(self, gate: RunFile, key: RowKey) -> RunRequest:
        """One row without A/A pairs: the noise is known from the gate run and the steps."""
        return replace(
            self._search.request,
            scenarios=(gate.header.scenarios[key.scenario].requested,),
            metrics=(key.metric,),
            filters=(),
            profile="smoke",
            budget=STEP_BUDGET,
            precision=None,
        )

    def _checked(self, found: Found, gate: RunFile, key: RowKey) -> Found:
        """Compare the first bad commit with the one before it."""
        place = found.commits.index(found.first_bad[0])
        before = found.commits[place - 1] if place else found.good
        base = replace(_base(self._search.request), commit=before, requested=before[:NAME_LENGTH])
        request = replace(
            self._search.request,
            compare=base,
            head=found.first_bad[0],
            scenarios=(gate.header.scenarios[key.scenario].requested,),
            metrics=(key.metric,),
        )
        return replace(found, check=self._run(request, "check"))

    def _run(self, request: RunRequest, name: str) -> RunFile:
        """The run of a request, or the one that is stored under this name."""
        path = self._search.folder / f"{name}.json"
        return compare_commits(request, path, self._say, self._listener)


def worse_rows(run: RunFile) -> tuple[Comparison, ...]:
    """The rows in which head is worse: those of the gate, else those with a clear effect.

    The user says that head is worse, so an effect below the gate's threshold counts if it is
    clear: Student's t at `CLEAR` over all rows, after Bonferroni.
    """
    result = outcome(run)
    if result.kind in ("regression", "answers differ"):
        return result.rows
    rows = [row for row in run.comparisons if row.contrast == HEAD]
    level = CLEAR / max(1, len(rows))
    return tuple(row for row in rows if _is_clear(row, run.header.metrics[row.metric], level))


def _is_clear(row: Comparison, metric: Metric, level: float) -> bool:
    estimate = row.estimate
    if estimate is None or estimate.log_ratio is None or estimate.n < MIN_CLEAR_PAIRS:
        return False
    effect = estimate.log_ratio if metric.better == "lower" else -estimate.log_ratio
    if effect < MIN_EFFECT:
        return False
    reach = t_quantile(level, estimate.n - 1) * estimate.sd / math.sqrt(estimate.n)
    return effect > reach


def is_confirmed(found: Found) -> bool:
    """Whether one commit was found, and is worse than the one before it in the same row."""
    if found.check is None or found.row is None or len(found.first_bad) != 1:
        return False
    if found.measure == "share of different answers":
        return outcome(found.check).kind == "answers differ"
    place = found.row.scenario, found.row.metric
    return any((row.scenario, row.metric) == place for row in worse_rows(found.check))


def _base(request: RunRequest) -> GateBase:
    assert request.compare is not None
    return request.compare


def _measure(result: GateResult, row: Comparison) -> Measure:
    if result.kind == "answers differ":
        return "share of different answers"
    has_ratio = row.estimate is not None and row.estimate.log_ratio is not None
    return "log ratio" if has_ratio else "difference"


def _log_ratios(run: RunFile, key: RowKey) -> list[float]:
    """The log ratios of a row's pairs. Empty if a value has no logarithm."""
    row = rows_of(run.samples, run.header.cells, run.header.metrics).get(key)
    return [] if row is None or not row.a else log_ratios(row) or []


def _differences(run: RunFile, key: RowKey) -> list[float]:
    row = rows_of(run.samples, run.header.cells, run.header.metrics).get(key)
    return [] if row is None else [b - a for a, b in zip(row.a, row.b, strict=True)]


def _answers(run: RunFile, key: RowKey) -> list[float]:
    """1 for each wrong answer, 0 for each right one: of the checked runs of head, else of pairs."""
    for runs in answers_of_head(run) if key.contrast == HEAD else ():
        if runs.scenario == key.scenario:
            return [1.0] * runs.wrong + [0.0] * runs.right
    cell = (pairs for of, pairs in group_samples(run.samples).items() if of[:2] == key[:2])
    outcomes = (pair_outcome(*pair)[0] for pairs in cell for pair in pairs.values())
    return [float(one == "answers differ") for one in outcomes if one != "not measured"]


_VALUES: dict[Measure, Callable[[RunFile, RowKey], list[float]]] = {
    "log ratio": _log_ratios,
    "difference": _differences,
    "share of different answers": _answers,
}


def _clearness(row: Comparison) -> float:
    """The effect of a row in units of its scatter."""
    estimate = row.estimate
    if estimate is None or not estimate.sd:
        return math.inf
    return abs(estimate.log_ratio or 0.0) / estimate.sd


def _problem(run: RunFile, key: RowKey) -> str:
    rows = (row for row in run.comparisons if key_of_row(row) == key)
    return next((row.pairs.reasons[0] for row in rows if row.pairs.reasons), "not measured")
