"""Drives a plan: decides which pair comes next, hands it to an executor, keeps each sample.

Pure of I/O: trials leave through `Executor`, samples through `Sink`, events through
`Listener`, and the time comes from the clock that is handed in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Protocol

from msgspec import Struct

from trae_bench.design.cells import trials
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import BenchError
from trae_bench.execution.ports import Executor
from trae_bench.model.experiment import Cell, Limits, Metric
from trae_bench.model.run import Stopped
from trae_bench.model.sample import Sample
from trae_bench.stats.analysis import (
    PairOutcome,
    comparisons,
    group,
    key_of,
    pair_outcome,
    rows_for,
    stops,
    to_confirm,
    wanted,
)
from trae_bench.stats.stopping import GIVE_UP, NOISE_SHARE, asking, target

Clock = Callable[[], float]
"""Monotonic seconds."""


class Sink(Protocol):
    """Stores each sample as soon as its trial has ended. Raises `BenchError` if it cannot."""

    def append(self, sample: Sample) -> Sample:
        """The sample as it was stored."""
        ...


class Progress(Struct, frozen=True):
    """Where a session stands, just before a pair is run."""

    pairs: int
    """Counted pairs so far, over all cells."""
    cell: Cell
    pair: int
    open_cells: int
    cells: int
    elapsed: float
    left: float
    """Seconds until every open cell has its next verdict, or the budget is spent."""


class Listener:
    """Told what happens; every method does nothing here."""

    def pair_starts(self, progress: Progress) -> None:
        """A pair is about to run."""

    def pair_lost(self, cell: Cell, pair: int, reason: str) -> None:
        """A pair counts for nothing."""

    def cell_given_up(self, cell: Cell, reason: str) -> None:
        """Too many pairs of a cell were lost; it takes no more."""


class Ending(Struct, frozen=True):
    """What a session leaves."""

    samples: tuple[Sample, ...]
    """Every sample, those handed in first."""
    stopped: Stopped
    elapsed: float
    error: BenchError | None = None


class _CellState:
    """What the session remembers of one cell. One that confirms another waits until it is asked."""

    def __init__(
        self,
        cell: Cell,
        order: int,
        limits: Limits,
        metrics: Mapping[str, Metric],
        awaited: bool,
    ) -> None:
        self.cell = cell
        self.order = order
        self.awaited = awaited
        """Its regressions are to be confirmed, so its last look counts, too."""
        self.is_noise = cell.contrast.name == NOISE_FLOOR
        self.stops = () if limits.fixed or cell.confirms else stops(cell, metrics)
        self.target = 0 if cell.confirms else target(cell, limits, metrics)
        self.attempts = 0
        """Pairs tried, the warming pair 0 included."""
        self.counted = 0
        self.lost = 0
        self.looked_at = 0
        """Counted pairs at the last look."""
        self.seconds = 0.0
        self.open = bool(cell.metrics) and not cell.confirms

    @property
    def due(self) -> bool:
        """It may be settled as it is; nobody has looked."""
        asks = (self.open or self.awaited) and not self.is_noise
        return asks and self.counted in self.stops and self.counted != self.looked_at

    @property
    def next_look(self) -> int:
        """Counted pairs at which this cell can next be closed."""
        ahead = [n for n in self.stops if self.counted < n < self.target]
        return self.target if self.is_noise or not ahead else min(ahead)

    @property
    def missing(self) -> int:
        """Pairs to the next look; the warming pair is one of them where it is still to come."""
        if self.due:
            return 0
        return self.next_look - self.counted + (self.attempts == 0)

    def note(self, number: int, found: PairOutcome) -> None:
        """A pair has been run, whenever that was."""
        self.attempts = max(self.attempts, number + 1)
        if found != "measured":
            self.lost += 1
        elif number > 0:
            self.counted += 1

    def ask(self, pairs: int) -> None:
        """Take fresh pairs until there are so many."""
        if pairs > self.target:
            self.target = pairs
            self.open = self.counted < pairs and not self.hopeless

    @property
    def hopeless(self) -> bool:
        return self.lost - self.counted >= GIVE_UP


class Scheduler:
    """One run of a plan."""

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
    ) -> None:
        self._cells = cells
        self._metrics = metrics
        self._executor = executor
        self._sink = sink
        self._clock = clock
        self._seed = seed
        self._limits = limits
        self._listener = listener or Listener()
        confirmed = {
            key_of(cell)._replace(contrast=cell.confirms) for cell in cells if cell.confirms
        }
        self._states = {
            key_of(cell): _CellState(cell, order, limits, metrics, key_of(cell) in confirmed)
            for order, cell in enumerate(cells)
        }
        self._samples: list[Sample] = []
        self._elapsed_before = 0.0
        self._started = 0.0

    def run(self, earlier: Sequence[Sample] = (), spent: float = 0.0) -> Ending:
        """Take pairs until all is settled or a limit is reached.

        `earlier` are the samples of an interrupted run, in whole pairs, and `spent` the
        seconds that they took. Ctrl-C and errors of the bench end the session; what was
        measured is kept either way.
        """
        self._elapsed_before, self._started = spent, self._clock()
        self._remember(earlier)
        stopped: Stopped
        error: BenchError | None = None
        try:
            while (state := self._next()) is not None:
                self._take_pair(state)
            stopped = "budget" if any(s.open for s in self._states.values()) else "done"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except BenchError as problem:
            stopped, error = "error", problem
        return Ending(tuple(self._samples), stopped, self._elapsed(), error)

    def _elapsed(self) -> float:
        return self._elapsed_before + self._clock() - self._started

    def _remaining(self) -> float:
        budget = self._limits.budget
        return float("inf") if budget is None else budget - self._elapsed()

    def _remember(self, earlier: Sequence[Sample]) -> None:
        self._samples.extend(earlier)
        for key, pairs in group(earlier).items():
            state = self._states[key]
            for number, (a, b) in sorted(pairs.items()):
                state.note(number, pair_outcome(a, b)[0])
                state.seconds += seconds_taken(s for s in (a, b) if s is not None)
            self._close_exhausted(state)

    def _take_pair(self, state: _CellState) -> None:
        number = state.attempts
        self._listener.pair_starts(self._progress(state, number))
        before = self._clock()
        samples = self._run(state.cell, number)
        state.seconds += self._clock() - before
        found, reason = pair_outcome(samples[0], samples[1])
        state.note(number, found)
        if found != "measured":
            self._listener.pair_lost(state.cell, number, reason)
        self._close_exhausted(state)

    def _run(self, cell: Cell, number: int) -> list[Sample]:
        """One pair: side A's sample, then side B's, each kept as soon as it is there."""
        pair = trials(cell, number, self._seed)
        batches = [pair] if cell.mode == "duet" else [(trial,) for trial in pair]
        taken: list[Sample] = []
        for batch in batches:
            for sample in self._executor.run(batch):
                stored = self._sink.append(sample)
                self._samples.append(stored)
                taken.append(stored)
        return sorted(taken, key=lambda sample: sample.side)

    def _look(self) -> None:
        """Look at all the data; close each cell with nothing left to find out, and ask for fresh
        pairs where there is a regression to confirm."""
        rows = comparisons(self._samples, self._cells, self._metrics)
        unsettled, found = asking(rows, self._limits), to_confirm(rows)
        for state in self._states.values():
            state.looked_at = state.counted
            if state.cell.confirms:
                state.ask(wanted(state.cell, found))
                continue
            settled = unsettled.isdisjoint(rows_for(state.cell))
            if not state.is_noise and state.counted and settled:
                state.open = False

    def _close_exhausted(self, state: _CellState) -> None:
        if state.hopeless:
            reason = f"{state.lost} of its {state.attempts} pairs were lost"
            self._listener.cell_given_up(state.cell, reason)
            state.open = False
        elif state.counted >= state.target:
            state.open = False

    def _next(self) -> _CellState | None:
        """The open cell that gets the next pair; None where nothing more fits the budget.

        Verdicts are asked for only when a pair would be taken that they could save, which is
        once all cells have got as far: a look is at all the data, and costs accordingly. Where a
        regression needs fresh pairs it is asked for at once, while there is time for them.
        """
        self._end_noise()
        state = self._pick()
        at_once = any(each.due and each.awaited for each in self._states.values())
        # At the end always: what needs fresh pairs must be asked for, wherever a cell stopped.
        if state is None or state.due or at_once:
            self._look()
            state = self._pick()
        return state

    def _pick(self) -> _CellState | None:
        """A/A cells first, because their spread guards every verdict. Then fresh pairs for what
        was found, while there is time for them. Then the cells that can still reach their next
        look within the budget, fewest pairs first: pairs spread over twenty cells none of which
        gets a verdict would serve nobody. Where the numbers of pairs are fixed it is the other
        way round: the effects need them all.
        """
        remaining, paces = self._remaining(), self._paces()
        fitting = [
            state for state in self._states.values() if state.open and paces[state] <= remaining
        ]
        if not fitting:
            return None
        noise = [state for state in fitting if state.is_noise]
        pool = noise or fitting
        if not noise and not self._limits.fixed:
            confirming = [state for state in fitting if state.cell.confirms]
            pool = (
                _reachable(confirming, paces, remaining)
                or _reachable(fitting, paces, remaining)
                or confirming
                or fitting
            )
        return min(pool, key=lambda state: (state.attempts, state.order))

    def _end_noise(self) -> None:
        """No A/A pair is taken after the first other one: what guards the verdicts must stand
        before there is anything to judge.
        """
        noise = [state for state in self._states.values() if state.is_noise]
        # Until another pair is taken all of the time is theirs, also of a run that is resumed.
        budget, spent = self._limits.budget, self._elapsed()
        others_began = any(s.attempts for s in self._states.values() if not s.is_noise)
        others_wait = len(noise) < len(self._states)
        if others_began or (others_wait and budget is not None and spent > NOISE_SHARE * budget):
            for state in noise:
                state.open = False

    def _paces(self) -> "dict[_CellState, float]":
        """Seconds a pair takes: as seen in the cell, else in pairs of its scenario that are taken
        alike, else in any of its scenario, else 0."""
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
        wanted = sum(s.missing * paces[s] for s in open_states)
        return Progress(
            pairs=sum(s.counted for s in self._states.values()),
            cell=state.cell,
            pair=number,
            open_cells=len(open_states),
            cells=len(self._states),
            elapsed=self._elapsed(),
            left=max(0.0, min(wanted, self._remaining())),
        )


def _kinds(cell: Cell) -> tuple[tuple[str, ...], ...]:
    """What its pace is like, the nearest first."""
    return (cell.scenario, cell.mode, cell.probe), (cell.scenario,)


def _reachable(
    states: Sequence[_CellState], paces: Mapping[_CellState, float], remaining: float
) -> list[_CellState]:
    """The cells, nearest look first, whose next looks together fit `remaining` seconds."""
    found = []
    for state in sorted(states, key=lambda state: (state.next_look, state.order)):
        cost = state.missing * paces[state]
        if cost <= remaining:
            remaining -= cost
            found.append(state)
    return found


def seconds_taken(samples: Iterable[Sample]) -> float:
    """Roughly how long these took: a duet's sides ran together."""
    walls = [(s.mode, s.metrics.get("wall", 0.0)) for s in samples]
    if any(mode == "duet" for mode, _ in walls):
        return max((wall for _, wall in walls), default=0.0)
    return sum(wall for _, wall in walls)
