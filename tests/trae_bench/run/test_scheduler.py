"""Tests of the scheduler: order of pairs, stopping, budgets, interrupts and resumed runs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.fakes import HandClock, Memory, ScriptedExecutor, Timed, cell, figures, sample
from trae_bench.design.cells import confirming
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import CannotMeasure
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Limits, Trial
from trae_bench.model.result import Comparison
from trae_bench.model.sample import Sample
from trae_bench.run.scheduler import Ending, Listener, Progress, Scheduler
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.decision import DUET_V1
from trae_bench.stats.stopping import GIVE_UP, target

PLAN = (
    cell(NOISE_FLOOR, "duet"),
    cell(NOISE_FLOOR, "serial", ("wall",)),
    cell("fast", "duet"),
    cell("fast", "serial", ("wall",)),
    cell("slow", "duet"),
)


class RecordingListener(Listener):
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.lost: list[str] = []
        self.given_up: list[str] = []

    def pair_starts(self, progress: Progress) -> None:
        self.progress.append(progress)

    def pair_lost(self, cell: Cell, pair: int, reason: str) -> None:
        self.lost.append(reason)

    def cell_given_up(self, cell: Cell, reason: str) -> None:
        self.given_up.append(reason)


def session(
    executor: ScriptedExecutor,
    cells: Sequence[Cell] = PLAN,
    limits: Limits | None = None,
    *,
    clock: HandClock | None = None,
    sink: Memory | None = None,
    listener: Listener | None = None,
) -> Scheduler:
    return Scheduler(
        cells,
        METRICS,
        executor=executor,
        sink=sink or Memory(),
        clock=clock or HandClock(),
        seed=7,
        limits=limits or Limits(),
        listener=listener,
    )


def counts(samples: Sequence[Sample]) -> Counter[tuple[str, str]]:
    """Count pairs by contrast and mode, including the warm-up pair 0."""
    return Counter((s.contrast, s.mode) for s in samples if s.side == "A")


def test_clear_effect_takes_eight_pairs_and_a_warm_up() -> None:
    ending = session(ScriptedExecutor(figures(effect=0.5))).run()

    assert ending.stopped == "done"
    assert ending.error is None
    assert set(counts(ending.samples).values()) == {9}
    assert len(counts(ending.samples)) == len(PLAN)


def test_noise_pairs_precede_the_first_look_of_each_cell() -> None:
    executor = ScriptedExecutor(figures(effect=0.5))
    session(executor).run()

    order = [(b[0].contrast, b[0].mode, b[0].pair) for b in executor.batches if b[0].slot == 0]
    noise = [key for key in order if key[0] == NOISE_FLOOR]
    assert order[: len(noise)] == noise
    rest = order[len(noise) :]
    first_looks = [key for key in rest if key[2] <= 8]
    assert rest[: len(first_looks)] == first_looks
    assert [key for key, _ in groupby(first_looks, key=lambda pair: pair[:2])] == [
        (cell.contrast.name, cell.mode) for cell in PLAN if cell.contrast.name != NOISE_FLOOR
    ]


def test_duet_trials_run_together_and_serial_trials_alone() -> None:
    executor = ScriptedExecutor(figures())
    session(executor, limits=Limits(pairs=1)).run()

    for batch in executor.batches:
        assert len(batch) == (2 if batch[0].mode == "duet" else 1)
        assert [trial.slot for trial in batch] in ([0, 1], [0], [1])


def test_sample_is_stored_before_the_next_trial() -> None:
    sink = Memory()

    class CheckingExecutor(ScriptedExecutor):
        def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
            assert len(sink.samples) == sum(len(batch) for batch in self.batches)
            return super().run(trials)

    ending = session(CheckingExecutor(figures()), limits=Limits(pairs=2), sink=sink).run()

    assert tuple(sink.samples) == ending.samples


def test_undecided_cell_takes_the_maximum_of_pairs() -> None:
    def answer(trial: Trial) -> Mapping[str, float]:
        # 2 % plus or minus 3.5 %: only the last look can decide.
        swing = 0.035 if trial.pair % 2 else -0.035
        return {"cpu": 1.0 if trial.side == "A" else 1.02 + swing}

    cells = [cell("fast", "duet")]
    ending = session(ScriptedExecutor(answer), cells).run()

    assert ending.stopped == "done"
    assert counts(ending.samples)["fast", "duet"] == 61


def test_pairs_limit_excludes_the_warm_up_pair() -> None:
    ending = session(ScriptedExecutor(figures()), limits=Limits(pairs=2)).run()

    assert set(counts(ending.samples).values()) == {3}
    assert ending.stopped == "done"


def test_noise_cells_have_a_separate_target() -> None:
    limits = Limits(noise_pairs=24)
    assert target(PLAN[0], limits, METRICS) == 24
    assert target(PLAN[2], limits, METRICS) == 60
    assert target(PLAN[3], limits, METRICS) == 40
    assert target(PLAN[0], Limits(pairs=5, noise_pairs=24), METRICS) == 5


def test_no_pair_exceeds_the_budget() -> None:
    clock = HandClock()
    executor = Timed(figures(effect=0.5), clock)
    ending = session(executor, limits=Limits(budget=30.0), clock=clock).run()

    assert ending.stopped == "budget"
    assert ending.elapsed == 30.0


def test_noise_takes_at_most_a_third_of_a_short_budget() -> None:
    clock = HandClock()
    executor = Timed(figures(effect=0.5), clock)
    ending = session(executor, limits=Limits(budget=30.0), clock=clock).run()

    noise = sum(n for (name, _), n in counts(ending.samples).items() if name == NOISE_FLOOR)
    assert noise <= 11


def test_no_noise_pair_follows_the_first_comparison() -> None:
    """Thresholds stay constant while verdicts are computed and after a resume."""
    clock = HandClock()
    executor = Timed(figures(effect=0.5), clock)
    whole = session(executor, limits=Limits(budget=40.0), clock=clock).run()
    order = [sample.contrast == NOISE_FLOOR for sample in whole.samples]
    assert order == sorted(order, reverse=True)
    assert True in order and False in order

    more = Timed(figures(effect=0.5), clock)
    ending = session(more, clock=clock).run(earlier=whole.samples, spent=whole.elapsed)
    assert ending.stopped == "done"
    assert NOISE_FLOOR not in {trial.contrast for batch in more.batches for trial in batch}


def test_fixed_pairs_alternate_between_cells() -> None:
    """A clear effect does not stop a cell. A short budget is shared by all cells."""
    limits = Limits(pairs=10, fixed=True)
    ending = session(ScriptedExecutor(figures(effect=0.5)), limits=limits).run()
    assert ending.stopped == "done"
    assert {n for (name, _), n in counts(ending.samples).items() if name != NOISE_FLOOR} == {11}

    clock = HandClock()
    plan = [cell(f"toggle-{number}", "duet") for number in range(5)]
    short = Limits(budget=22.5, pairs=10, fixed=True)
    ending = session(Timed(figures(effect=0.5), clock), plan, short, clock=clock).run()
    assert ending.stopped == "budget"
    assert set(counts(ending.samples).values()) <= {4, 5}
    assert len(counts(ending.samples)) == 5


def test_precision_stops_a_cell_with_a_narrow_interval() -> None:
    """With --precision, only the interval width stops a cell, not its verdict."""
    plan = [cell("fast", "duet")]
    wide = session(ScriptedExecutor(figures(effect=0.5, noise=0.03)), plan).run()
    narrow = session(
        ScriptedExecutor(figures(effect=0.5, noise=0.03)), plan, Limits(precision=0.025)
    ).run()
    (row,) = comparisons(narrow.samples, plan, METRICS)
    assert counts(wide.samples)["fast", "duet"] == 9
    assert counts(narrow.samples)["fast", "duet"] > 9
    assert row.estimate is not None and row.estimate.interval is not None
    assert row.estimate.interval.high - row.estimate.interval.low <= 0.05
    assert row.estimate.n in DUET_V1.looks

    coarse = session(
        ScriptedExecutor(figures(effect=1.02, noise=0.1)), plan, Limits(precision=0.5)
    ).run()
    (row,) = comparisons(coarse.samples, plan, METRICS)
    assert (row.judgement.verdict, row.judgement.settled) == ("inconclusive", False)
    assert coarse.stopped == "done"
    assert row.pairs.measured == 8


def test_short_budget_completes_one_cell() -> None:
    """Five cells with four pairs each would get no look at all."""
    clock = HandClock()
    plan = [cell(f"toggle-{number}", "duet") for number in range(5)]
    ending = session(
        Timed(figures(effect=0.5), clock), plan, Limits(budget=14.5), clock=clock
    ).run()

    assert max(counts(ending.samples).values()) == 9


def test_fresh_pairs_precede_slow_serial_pairs() -> None:
    """Their duration is estimated from the earlier duets, not from the serial pairs."""
    clock = HandClock()

    def answer(trial: Trial) -> Mapping[str, float]:
        changed = trial.side == "B" and trial.contrast != NOISE_FLOOR
        wide = trial_random(trial).gauss(0, 0.15)
        return {"cpu": 1.3 if changed else 1.0, "wall": math.exp(wide)}

    duet, serial = cell("head", "duet"), cell("head", "serial", ("wall",))
    plan = [duet, serial, confirming(duet)]
    slow = Timed(answer, clock, lambda trial: 1.0 if trial.mode == "duet" else 10.0)
    ending = session(slow, plan, Limits(budget=277.0), clock=clock).run()

    assert counts(ending.samples)["head again", "duet"] == 9


def trial_random(trial: Trial) -> Random:
    return Random(f"{trial.contrast}{trial.mode}{trial.pair}{trial.side}")


def test_resumed_run_ends_noise_early() -> None:
    """The estimate includes the time of a pair outside its processes."""

    def samples(earlier: Sequence[Sample], spent: float) -> tuple[Sample, ...]:
        clock = HandClock()
        executor = Timed(lambda trial: {"cpu": 1.0, "wall": 0.1}, clock)
        limits = Limits(budget=36.0, noise_pairs=20)
        return session(executor, limits=limits, clock=clock).run(earlier, spent).samples

    whole = samples((), 0.0)
    # Two duets (1 s each) and two serial pairs (2 s each) took 6 s.
    assert counts(samples(whole[:8], 6.0)) == counts(whole)


def test_budget_includes_time_before_a_resume() -> None:
    clock = HandClock()
    executor = Timed(figures(effect=0.5), clock)
    ending = session(executor, limits=Limits(budget=30.0), clock=clock).run(spent=25.0)

    assert ending.elapsed == 30.0
    assert 0 < len(executor.batches) <= 5


def test_failing_cell_is_given_up_and_others_continue() -> None:
    usual = figures(effect=0.5)

    def answer(trial: Trial) -> Mapping[str, float] | Sample:
        if trial.contrast == "slow":
            return sample(
                trial.side, trial.pair, contrast="slow", status="failed", problem="boom\nline"
            )
        return usual(trial)

    listener = RecordingListener()
    ending = session(ScriptedExecutor(answer), listener=listener).run()

    assert counts(ending.samples)["slow", "duet"] == GIVE_UP
    assert counts(ending.samples)["fast", "duet"] == 9
    assert listener.lost == ["off: boom\nline"] * GIVE_UP
    assert listener.given_up == ["3 of its 3 pairs were lost, with the warm-up pair"]


def test_pair_with_different_answers_is_repeated() -> None:
    usual = figures(effect=0.5)

    def answer(trial: Trial) -> Mapping[str, float] | Sample:
        if trial.pair in (2, 4) and trial.contrast == "fast" and trial.mode == "duet":
            return sample(trial.side, trial.pair, transcript=trial.side)
        return usual(trial)

    listener = RecordingListener()
    ending = session(ScriptedExecutor(answer), listener=listener).run()

    assert counts(ending.samples)["fast", "duet"] == 11
    assert listener.lost == ["the transcripts differ"] * 2


def test_ctrl_c_keeps_the_samples() -> None:
    class InterruptedExecutor(ScriptedExecutor):
        def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
            if len(self.batches) == 5:
                raise KeyboardInterrupt
            return super().run(trials)

    sink = Memory()
    ending = session(InterruptedExecutor(figures()), sink=sink).run()

    assert ending.stopped == "interrupted"
    assert tuple(sink.samples) == ending.samples
    assert len(ending.samples) == 7


def test_executor_error_ends_the_session() -> None:
    class FailingExecutor(ScriptedExecutor):
        def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
            raise CannotMeasure("the provider died")

    ending = session(FailingExecutor(figures())).run()

    assert ending.stopped == "error"
    assert str(ending.error) == "the provider died"


@given(kept=st.integers(0, 40), seed=st.integers(0, 5))
def test_resumed_run_has_the_same_samples(kept: int, seed: int) -> None:
    """No pair is repeated or missing, for any number of complete pairs."""
    plan = list(PLAN)
    Random(seed).shuffle(plan)
    limits = Limits(pairs=4)
    whole = session(ScriptedExecutor(figures()), plan, limits).run()
    earlier = whole.samples[: 2 * kept]

    resumed = session(ScriptedExecutor(figures()), plan, limits).run(earlier)

    def keys(ending: Ending) -> list[tuple[object, ...]]:
        return sorted((s.contrast, s.mode, s.pair, s.side) for s in ending.samples)

    assert keys(resumed) == keys(whole)
    assert len(set(keys(resumed))) == len(keys(resumed))


def test_resumed_finished_run_takes_no_pair() -> None:
    whole = session(ScriptedExecutor(figures(effect=0.5))).run()
    executor = ScriptedExecutor(figures(effect=0.5))
    again = session(executor).run(whole.samples)

    assert executor.batches == []
    assert again.samples == whole.samples


def test_progress_reports_remaining_time() -> None:
    clock, listener = HandClock(), RecordingListener()
    executor = Timed(figures(effect=0.5), clock)
    session(executor, limits=Limits(budget=1000.0), clock=clock, listener=listener).run()

    first, last = listener.progress[0], listener.progress[-1]
    assert (first.pairs, first.open_cells, first.cells) == (0, 5, 5)
    assert (last.pairs, last.open_cells) == (39, 3)
    assert last.left == pytest.approx(1.0)
    assert all(0 <= p.left <= 1000 - p.elapsed for p in listener.progress)


def test_metric_without_samples_does_not_keep_a_cell_open() -> None:
    plan = [cell("fast", "duet", ("cpu", "handshakes"))]
    ending = session(ScriptedExecutor(figures(effect=0.5)), plan).run()

    assert counts(ending.samples)["fast", "duet"] == 9


def test_one_look_covers_all_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look analyses all data, so one look per cell would take quadratic time."""
    looks = []

    def counted_comparisons(*arguments: Any) -> list[Comparison]:
        looks.append(len(arguments[0]))
        return comparisons(*arguments)

    monkeypatch.setattr("trae_bench.run.scheduler.comparisons", counted_comparisons)
    plan = [cell(f"t{n}", "duet") for n in range(50)]
    ending = session(ScriptedExecutor(figures(effect=0.5)), plan).run()

    assert looks == [len(ending.samples)] == [50 * 9 * 2]
