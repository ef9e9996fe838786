"""Runs a plan: decides which pair runs next, hands it to an executor, stores each sample.

It does no I/O itself. Trials go to an `Executor`, samples to a `Sink`, events to a `Listener`,
and the time comes from a clock that is passed in.

The order of pairs:

1. Confirmation pairs of a regression, because a regression must not end unconfirmed.
2. The scenario that comes first: its A/A pairs, which decide how its other pairs are judged.
3. The first look of each cell, cell by cell, so that verdicts come early.
4. The further looks, those with the fewest pairs first. Rows that are settled, or that would
   very likely stay open until their last look, take no more pairs.

At the end, further runs of head check its answers, unless a regression has decided the gate.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.design.cells import trials
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import HEAD
from trae_bench.errors import BenchError
from trae_bench.execution.ports import Executor
from trae_bench.model.experiment import Cell, Limits, Metric
from trae_bench.model.run import Stopped
from trae_bench.model.sample import Sample
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.confirmation import fresh_pairs_for, regressions_to_confirm
from trae_bench.stats.head_runs import HeadRuns, head_runs, is_decided, next_checks, wanted_runs
from trae_bench.stats.metric_rules import first_look, stops
from trae_bench.stats.pairs import PairOutcome, group_samples, key_of, pair_outcome, row_keys
from trae_bench.stats.stopping import GIVE_UP, NOISE_SHARE, asking, seconds_taken, target

CHECKS_SHARE = 1 / 4
"""Maximum share of the budget that is reserved for checks of head."""

Clock = Callable[[], float]
"""Monotonic seconds."""


class Sink(Protocol):
    """Stores each sample as soon as its trial has ended. Raises `BenchError` if it cannot."""

    def append(self, sample: Sample) -> Sample:
        """The sample as it was stored."""
        ...

    def append_check(self, check: Sample) -> Sample:
        """The same for a run in which only the answer of head is checked."""
        ...


class Progress(Struct, frozen=True):
    """The state of a run just before a pair starts."""

    pairs: int
    """Counted pairs so far, over all cells."""
    cell: Cell
    pair: int
    open_cells: int
    cells: int
    elapsed: float
    left: float
    """Seconds until every row of the open cells can have a verdict, or the budget is spent."""


class Listener:
    """Receives the events of a run. Every method does nothing here."""

    def pair_starts(self, progress: Progress) -> None:
        """A pair is about to run."""

    def checks_start(self, runs: HeadRuns) -> None:
        """Further runs of head are about to check its answers in one scenario."""

    def pair_lost(self, cell: Cell, pair: int, reason: str) -> None:
        """A pair does not count."""

    def cell_given_up(self, cell: Cell, reason: str) -> None:
        """A cell takes no more pairs, because too many of its pairs were lost."""


class Ending(Struct, frozen=True):
    """The result of a scheduler."""

    samples: tuple[Sample, ...]
    """Every sample; those of an interrupted run that was resumed come first."""
    stopped: Stopped
    elapsed: float
    error: BenchError | None = None
    checks: tuple[Sample, ...] = ()
    """Runs in which only the answer of head was checked."""


class _CellState:
    """The progress of one cell. A cell that confirms another stays closed until it is needed."""

    def __init__(
        self, cell: Cell, order: int, limits: Limits, metrics: Mapping[str, Metric], is_gated: bool
    ) -> None:
        self.cell = cell
        self.order = order
        self.is_gated = is_gated
        """A regression here needs confirmation pairs."""
        self.is_noise = cell.contrast.name == NOISE_FLOOR
        self.stops = () if limits.fixed or cell.confirms else stops(cell, metrics)
        self.target = 0 if cell.confirms else target(cell, limits, metrics)
        self._first_look = first_look(cell, metrics)
        self.attempts = 0
        """Pairs tried, including the warm-up pair 0."""
        self.counted = 0
        self.lost = 0
        self.looked_at = 0
        """Counted pairs at the last look."""
        self.seconds = 0.0
        self.open = bool(cell.metrics) and not cell.confirms

    @property
    def is_due(self) -> bool:
        """Whether it is at a look that was not evaluated yet."""
        needs_look = (self.open or self.is_gated) and not self.is_noise
        return needs_look and self.counted in self.stops and self.counted != self.looked_at

    @property
    def next_look(self) -> int:
        """Counted pairs at which this cell can next be closed."""
        ahead = [n for n in self.stops if self.counted < n < self.target]
        return self.target if self.is_noise or not ahead else min(ahead)

    @property
    def looks_taken(self) -> int:
        """Looks so far, from the first at which every row can have a verdict."""
        return sum(self._first_look <= n <= self.counted for n in self.stops)

    @property
    def missing(self) -> int:
        """Pairs to the next look, including the warm-up pair."""
        if self.is_due:
            return 0
        return self.next_look - self.counted + (self.attempts == 0)

    @property
    def expected(self) -> int:
        """Pairs to the next look at which every row can have a verdict, as far as known."""
        goal = min(self.target, max(self.next_look, self._first_look))
        return 0 if self.is_due else max(0, goal - self.counted) + (self.attempts == 0)

    def record(self, number: int, outcome: PairOutcome) -> None:
        """Count a pair that was run."""
        self.attempts = max(self.attempts, number + 1)
        if outcome != "measured":
            self.lost += 1
        elif number > 0:
            self.counted += 1

    def request(self, pairs: int) -> None:
        """Take confirmation pairs up to this number."""
        if pairs > self.target:
            self.target = pairs
            self.open = self.counted < pairs and not self.is_failing

    @property
    def is_failing(self) -> bool:
        return self.lost - self.counted >= GIVE_UP


class Scheduler:
    """Runs one plan."""

    def __init__(
        self,
        cells: Sequence[Cell],
        metrics: Mapping[str, Metric],
        *,
        executor: Executor,
        sink: Sink,
        clock: Clock,
        seed: int,
        limits: Limits,
        listener: Listener | None = None,
        at_once: int = 1,
    ) -> None:
        self._cells = cells
        self._metrics = metrics
        self._executor = executor
        self._sink = sink
        self._clock = clock
        self._seed = seed
        self._limits = limits
        self._listener = listener or Listener()
        self._at_once = at_once
        gated = {key_of(cell)._replace(contrast=cell.confirms) for cell in cells if cell.confirms}
        self._states = {
            key_of(cell): _CellState(cell, order, limits, metrics, key_of(cell) in gated)
            for order, cell in enumerate(cells)
        }
        self._samples: list[Sample] = []
        self._checks: list[Sample] = []
        self._seconds_of_checks: dict[str, list[float]] = {}
        """Seconds of each batch of checks, by scenario."""
        self._elapsed_before = 0.0
        self._started = 0.0

    def run(
        self,
        earlier: Sequence[Sample] = (),
        spent: float = 0.0,
        checks: Sequence[Sample] = (),
    ) -> Ending:
        """Take pairs until every row is settled or a limit is reached.

        `earlier` are the samples of an interrupted run, in whole pairs, `checks` its checks of
        head, and `spent` is the number of seconds that they took. Ctrl-C and a `BenchError` end
        the run; its samples are kept.
        """
        self._elapsed_before, self._started = spent, self._clock()
        self._restore(earlier)
        self._checks.extend(checks)
        stopped: Stopped
        error: BenchError | None = None
        try:
            while (state := self._next()) is not None:
                self._take_pair(state)
            is_complete = self._check_head()
            is_open = any(s.open for s in self._states.values())
            stopped = "done" if is_complete and not is_open else "budget"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except BenchError as problem:
            stopped, error = "error", problem
        return Ending(tuple(self._samples), stopped, self._elapsed(), error, tuple(self._checks))

    # -- pairs

    def _restore(self, earlier: Sequence[Sample]) -> None:
        self._samples.extend(earlier)
        for key, pairs in group_samples(earlier).items():
            state = self._states[key]
            for number, (a, b) in sorted(pairs.items()):
                state.record(number, pair_outcome(a, b)[0])
                state.seconds += seconds_taken(s for s in (a, b) if s is not None)
            self._close_finished(state)

    def _take_pair(self, state: _CellState) -> None:
        number = state.attempts
        self._listener.pair_starts(self._progress(state, number))
        before = self._clock()
        samples = self._run(state.cell, number)
        state.seconds += self._clock() - before
        outcome, reason = pair_outcome(samples[0], samples[1])
        state.record(number, outcome)
        if outcome != "measured":
            self._listener.pair_lost(state.cell, number, reason)
        self._close_finished(state)

    def _run(self, cell: Cell, number: int) -> list[Sample]:
        """Run one pair and store each sample. The samples of side A and side B."""
        pair = trials(cell, number, self._seed)
        batches = [pair] if cell.mode == "duet" else [(trial,) for trial in pair]
        taken: list[Sample] = []
        for batch in batches:
            for sample in self._executor.run(batch):
                stored = self._sink.append(sample)
                self._samples.append(stored)
                taken.append(stored)
        return sorted(taken, key=lambda sample: sample.side)

    def _close_finished(self, state: _CellState) -> None:
        if state.is_failing:
            # Reports leave the warm-up pair out, so they name another count.
            reason = f"{state.lost} of its {state.attempts} pairs were lost, with the warm-up pair"
            self._listener.cell_given_up(state.cell, reason)
            state.open = False
        elif state.counted >= state.target:
            state.open = False

    # -- answers of head

    def _check_head(self) -> bool:
        """Check the answers of head within the budget; return whether none is left to check."""
        if not wanted_runs(self._limits):
            return True
        if is_decided(comparisons(self._samples, self._cells, self._metrics)):
            return True
        is_complete = True
        for scenario in [runs.scenario for runs in self._head_runs()]:
            while (runs := self._runs_of(scenario)).missing:
                if self._pace_of_checks(scenario) > self._remaining():
                    is_complete = False
                    break
                self._take_checks(runs)
        return is_complete

    def _head_runs(self) -> list[HeadRuns]:
        return head_runs(self._samples, self._checks, self._cells, self._limits)

    def _runs_of(self, scenario: str) -> HeadRuns:
        return next(runs for runs in self._head_runs() if runs.scenario == scenario)

    def _take_checks(self, runs: HeadRuns) -> None:
        self._listener.checks_start(runs)
        before = self._clock()
        planned = (self._samples, self._checks, self._cells, runs, self._seed, self._at_once)
        for check in self._executor.run(next_checks(*planned)):
            # Only the answer counts; the time tells what ran when.
            wall = {name: check.metrics[name] for name in ("wall",) if name in check.metrics}
            self._checks.append(self._sink.append_check(replace(check, metrics=wall)))
        taken = self._seconds_of_checks.setdefault(runs.scenario, [])
        taken.append(self._clock() - before)

    def _pace_of_checks(self, scenario: str) -> float:
        """Seconds that a batch of checks takes: as long as a pair, before the first batch."""
        if taken := self._seconds_of_checks.get(scenario):
            return fmean(taken)
        paces = self._paces()
        return min((paces[s] for s in self._of_head(scenario) if s.attempts), default=0.0)

    def _of_head(self, scenario: str) -> list[_CellState]:
        """The cells of a scenario that compare base and head, those of fresh pairs included."""
        states = (s for s in self._states.values() if s.cell.scenario == scenario)
        return [s for s in states if HEAD in (s.cell.contrast.name, s.cell.confirms)]

    def _reserved_for_checks(self) -> float:
        """Seconds to keep for the checks of head: at most a part of the budget."""
        wanted, budget = wanted_runs(self._limits), self._limits.budget
        if not wanted or budget is None:
            return 0.0
        seconds = 0.0
        for scenario in {s.cell.scenario for s in self._states.values() if s.attempts}:
            if states := self._of_head(scenario):
                # One run of the base comes with them.
                missing = 1 + wanted - sum(state.attempts for state in states)
                batches = math.ceil(max(0, missing) / self._at_once)
                seconds += batches * self._pace_of_checks(scenario)
        return min(seconds, CHECKS_SHARE * budget)

    # -- what comes next

    def _next(self) -> _CellState | None:
        """The cell that takes the next pair; None if no pair fits the budget.

        Verdicts are computed from all data, so they are computed only if a pair could be saved.
        """
        self._close_noise()
        state = self._pick()
        gated_is_due = any(s.is_due and s.is_gated for s in self._states.values())
        # At the end always: a cell that stopped anywhere may need confirmation pairs.
        if state is None or state.is_due or gated_is_due:
            self._look()
            state = self._pick()
        return state

    def _look(self) -> None:
        """Compute all verdicts; close settled cells and request confirmation pairs."""
        rows = comparisons(self._samples, self._cells, self._metrics)
        unsettled, found = asking(rows, self._limits, self._metrics), regressions_to_confirm(rows)
        for state in self._states.values():
            state.looked_at = state.counted
            if state.cell.confirms:
                state.request(fresh_pairs_for(state.cell, found))
                continue
            settled = unsettled.isdisjoint(row_keys(state.cell))
            if not state.is_noise and state.counted and settled:
                state.open = False

    def _pick(self) -> _CellState | None:
        """The open cell whose pair comes next, of those that the budget allows.

        Fixed numbers of pairs are taken in turn: the effects of a design need all of its cells.
        """
        paces = self._paces()
        remaining = self._remaining()
        open_states = [s for s in self._states.values() if s.open]
        confirming = [s for s in open_states if s.cell.confirms and paces[s] <= remaining]
        if confirming:
            return min(confirming, key=lambda s: (s.missing * paces[s], s.order))
        remaining -= self._reserved(paces) + self._reserved_for_checks()
        fitting = [s for s in open_states if not s.cell.confirms and paces[s] <= remaining]
        if not fitting:
            return None
        noise = [s for s in fitting if s.is_noise]
        if self._limits.fixed:
            return min(noise or fitting, key=lambda s: (s.attempts, s.order))
        others = [s for s in fitting if not s.is_noise]
        pool = _reachable(others, paces, remaining) or others
        if not pool:
            return min(noise, key=lambda s: (s.attempts, s.order))
        best = min(pool, key=lambda s: (s.looks_taken, s.next_look, s.order))
        # The A/A pairs of a scenario come before its other pairs.
        own_noise = [s for s in noise if s.cell.scenario == best.cell.scenario]
        return min(own_noise, key=lambda s: (s.attempts, s.order), default=best)

    def _close_noise(self) -> None:
        """End the A/A pairs of a scenario before its other pairs, and when their time is spent.

        Verdicts depend on the noise, so it is measured first.
        """
        budget = self._limits.budget
        seconds = sum(s.seconds for s in self._states.values())
        noise = sum(s.seconds for s in self._states.values() if s.is_noise)
        # A pair takes time besides its processes, which a resumed run does not know.
        spent = self._elapsed() * noise / seconds if seconds else 0.0
        others = [s for s in self._states.values() if not s.is_noise]
        started = {s.cell.scenario for s in others if s.attempts}
        too_long = bool(others) and budget is not None and spent > NOISE_SHARE * budget
        for state in self._states.values():
            if state.is_noise and (too_long or state.cell.scenario in started):
                state.open = False

    # -- time

    def _elapsed(self) -> float:
        return self._elapsed_before + self._clock() - self._started

    def _remaining(self) -> float:
        budget = self._limits.budget
        return float("inf") if budget is None else budget - self._elapsed()

    def _reserved(self, paces: "Mapping[_CellState, float]") -> float:
        """Seconds to keep for confirmation pairs, if each gated cell in progress regresses."""
        return sum(
            (state.next_look + 1) * paces[state]
            for state in self._states.values()
            if state.is_gated and state.open and state.attempts
        )

    def _paces(self) -> "dict[_CellState, float]":
        """Seconds that a pair of each cell takes.

        They come from its own pairs, else from similar pairs of its scenario, else from any pairs
        of its scenario, else from all pairs; before the first pair they are 0.
        """
        seen: dict[tuple[str, ...], list[float]] = {}
        for state in self._states.values():
            if state.attempts:
                for kind in _kinds(state.cell):
                    seen.setdefault(kind, []).append(state.seconds / state.attempts)
        usual = {kind: fmean(paces) for kind, paces in seen.items()}
        return {
            state: state.seconds / state.attempts
            if state.attempts
            else next((usual[kind] for kind in _kinds(state.cell) if kind in usual), 0.0)
            for state in self._states.values()
        }

    def _progress(self, state: _CellState, number: int) -> Progress:
        open_states = [s for s in self._states.values() if s.open]
        paces = self._paces()
        needed = sum(s.expected * paces[s] for s in open_states)
        return Progress(
            pairs=sum(s.counted for s in self._states.values()),
            cell=state.cell,
            pair=number,
            open_cells=len(open_states),
            cells=len(self._states),
            elapsed=self._elapsed(),
            left=max(0.0, min(needed, self._remaining())),
        )


def _kinds(cell: Cell) -> tuple[tuple[str, ...], ...]:
    """The kinds of pairs that take about as long as those of a cell, the most similar first."""
    return (cell.scenario, cell.mode, cell.probe), (cell.scenario,), ()


def _reachable(
    states: Iterable[_CellState], paces: Mapping[_CellState, float], remaining: float
) -> list[_CellState]:
    """The cells whose next looks together fit into `remaining` seconds, the cheapest first.

    Otherwise the time could be spread over many cells, none of which reaches a look.
    """
    found = []
    for state in sorted(states, key=lambda s: (s.looks_taken, s.missing * paces[s], s.order)):
        cost = state.missing * paces[state]
        if state.is_gated and not state.attempts:
            # Its confirmation pairs must fit as well; those of started cells are reserved.
            cost += (state.next_look + 1) * paces[state]
        if cost <= remaining:
            remaining -= cost
            found.append(state)
    return found
