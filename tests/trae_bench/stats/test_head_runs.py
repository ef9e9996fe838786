"""Runs of head whose answers are checked before a gate passes."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trae_bench.fakes import HandClock, Memory, ScriptedExecutor, Timed
from tests.trae_bench.runs import AGAIN, NOW, gate, gate_plan, recomputed
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Limits, Trial
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample, of_trial
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text.ci import annotations
from trae_bench.report.text.junit import junit
from trae_bench.run.scheduler import Ending, Scheduler
from trae_bench.stats.head_runs import CHECKS, HeadRuns, head_runs
from trae_bench.storage.verify import verify
from trae_bench.verdicts.gate import outcome

Answer = Callable[[Trial], str]
"""The answer of a trial: `same`, another text, or an empty text if it fails."""


def by_answer(answer: Answer, *, effect: float = 1.0) -> Callable[[Trial], Sample]:
    """Samples of a machine without noise."""

    def sample(trial: Trial) -> Sample:
        text = answer(trial)
        slow = effect if trial.side == "B" and trial.contrast in ("head", AGAIN) else 1.0
        return Sample(
            **of_trial(trial),
            status="ok" if text else "failed",
            started=0.0,
            exit_status=0 if text else 1,
            pid=1,
            metrics={"cpu": slow, "wall": slow, "peak_rss": 4096.0 * 9000} if text else {},
            transcript=text,
            workspace=text,
            correct=bool(text),
            problem=None if text else "exit status 1",
        )

    return sample


CHECKED = Limits(checked=30)


def scheduler(executor: ScriptedExecutor, limits: Limits, clock: HandClock) -> Scheduler:
    return Scheduler(
        [cell for cell in gate_plan() if cell.mode == "duet"],
        METRICS,
        executor=executor,
        sink=Memory(),
        clock=clock,
        seed=7,
        limits=limits,
        at_once=2,
    )


def run(answer: Answer, limits: Limits = CHECKED, effect: float = 1.0) -> Ending:
    clock = HandClock()
    executor = Timed(by_answer(answer, effect=effect), clock)
    return scheduler(executor, limits, clock).run()


def runs_of(ending: Ending, limits: Limits = CHECKED) -> HeadRuns:
    cells = [cell for cell in gate_plan() if cell.mode == "duet"]
    (found,) = head_runs(ending.samples, ending.checks, cells, limits)
    return found


def in_check(number: int, text: str) -> Answer:
    """The answer `text` of the head check with this number, and `same` of every other trial."""
    seen: list[Trial] = []

    def answer(trial: Trial) -> str:
        if trial.contrast == CHECKS and trial.side == "B":
            seen.append(trial)
            return text if len(seen) == number else "same"
        return "same"

    return answer


def same(_: Trial) -> str:
    return "same"


def test_thirty_runs_of_an_honest_head_are_checked() -> None:
    ending = run(same)
    assert ending.stopped == "done"
    # Nine pairs with the warm-up pair, one run of the base, and the rest.
    assert [check.side for check in ending.checks] == ["A"] + ["B"] * 21
    assert [check.slot for check in ending.checks] == [0, 1] * 11
    assert {(c.mode, c.arm) for c in ending.checks} == {("serial", "base"), ("serial", "head")}
    found = runs_of(ending)
    assert (found.total, found.right, found.missing, found.is_wrong) == (30, 30, 0, False)
    assert found.hidden == pytest.approx(1 - 0.05 ** (1 / 30))


def test_checks_repeat_the_seeds_of_pairs() -> None:
    clock = HandClock()
    executor = ScriptedExecutor(by_answer(same))
    scheduler(executor, Limits(checked=30), clock).run()
    trials = [trial for batch in executor.batches for trial in batch]
    seeds = {(t.pair, t.side): t.seed for t in trials if t.contrast == "head"}
    checks = [trial for trial in trials if trial.contrast == CHECKS]
    assert all(trial.seed == seeds[trial.pair, trial.side] for trial in checks)
    assert {trial.pair for trial in checks} == set(range(9))


def test_only_the_time_of_a_check_is_kept() -> None:
    assert {tuple(check.metrics) for check in run(same).checks} == {("wall",)}


def test_a_run_that_is_no_gate_checks_nothing() -> None:
    assert run(same, Limits()).checks == ()


def test_a_regression_needs_no_check() -> None:
    ending = run(same, effect=1.5)
    assert ending.checks == ()
    assert ending.stopped == "done"


def test_one_wrong_answer_doubles_the_runs_and_is_tolerated() -> None:
    found = runs_of(run(in_check(3, "other")))
    assert (found.total, found.wrong, found.is_wrong) == (60, 1, False)


def test_two_wrong_answers_end_the_checks() -> None:
    ending = run(lambda t: "other" if t.contrast == CHECKS and t.side == "B" else "same")
    found = runs_of(ending)
    assert found.is_wrong
    assert found.wrong >= 2
    assert len(ending.checks) <= 4
    assert found.reasons[0] == "the transcripts differ"


def test_a_wrong_warm_up_run_counts() -> None:
    def answer(trial: Trial) -> str:
        warm_up = (trial.contrast, trial.pair, trial.side) == ("head", 0, "B")
        return "other" if warm_up else "same"

    found = runs_of(run(answer))
    assert (found.total, found.wrong) == (60, 1)


def test_an_answer_that_depends_on_the_cores_says_nothing_about_head() -> None:
    ending = run(lambda trial: "two cores" if trial.contrast == CHECKS else "same")
    found = runs_of(ending)
    assert ending.stopped == "done"
    assert (found.total, found.wrong, found.is_wrong) == (9, 0, False)
    assert "the base answered differently" in found.unknown


def test_a_base_that_fails_runs_again() -> None:
    failing: list[Trial] = []

    def answer(trial: Trial) -> str:
        if trial.contrast == CHECKS and trial.side == "A" and len(failing) < 2:
            failing.append(trial)
            return ""
        return "same"

    found = runs_of(run(answer))
    assert len(failing) == 2
    assert (found.total, found.missing, found.unknown) == (30, 0, "")
    never = runs_of(run(lambda t: "" if t.contrast == CHECKS and t.side == "A" else "same"))
    assert (never.total, never.unknown) == (9, "the base did not answer when it ran again")


def test_runs_without_an_answer_are_counted() -> None:
    def answer(trial: Trial) -> str:
        return "" if trial.contrast == CHECKS and trial.pair in (1, 2) else "same"

    found = runs_of(run(answer))
    assert found.failed > 3
    assert found.is_failing


def test_a_spent_budget_leaves_runs_out() -> None:
    limits = Limits(checked=30, budget=22.0)
    ending = run(same, limits)
    found = runs_of(ending)
    assert ending.stopped == "budget"
    assert 9 <= found.total < 30
    assert found.hidden > 0.1


def test_time_is_kept_for_checks() -> None:
    """Rows that stay open would otherwise take the whole budget."""

    def answer(trial: Trial) -> Mapping[str, float]:
        swing = 0.03 if trial.pair % 2 else -0.03
        return {"cpu": 1.0 if trial.side == "A" else 1.02 + swing, "wall": 1.0}

    clock = HandClock()
    executor = Timed(answer, clock)
    ending = scheduler(executor, Limits(checked=30, budget=48.0), clock).run()
    assert runs_of(ending, Limits(checked=30, budget=48.0)).total >= 30


@pytest.mark.parametrize("kept", [1, 2, 7, 22])
def test_a_resumed_run_takes_the_missing_checks(kept: int) -> None:
    whole = run(same)
    clock = HandClock()
    executor = Timed(by_answer(same), clock)
    again = scheduler(executor, Limits(checked=30), clock).run(
        whole.samples, whole.elapsed, whole.checks[:kept]
    )
    assert [(c.side, c.pair) for c in again.checks] == [(c.side, c.pair) for c in whole.checks]
    assert len(executor.batches) == -(-(len(whole.checks) - kept) // 2)


@given(right=st.integers(0, 80), wrong=st.integers(0, 3), failed=st.integers(0, 3))
def test_an_honest_head_is_never_wrong(right: int, wrong: int, failed: int) -> None:
    runs = HeadRuns("work", 30, right, wrong, failed)
    assert runs.is_wrong == (wrong > 1 or (wrong == 1 and 50 * wrong > right + wrong + failed))
    assert not HeadRuns("work", 30, right, 0, failed).is_wrong
    assert not HeadRuns("work", 30, right, wrong, min(failed, 1)).is_failing


# -- in a run file


@cache
def checked() -> RunFile:
    return gate(checked=30, budget=1000.0)


def wrong_in(*pairs: int, **changes: int) -> RunFile:
    return gate(checked=30, lost={(CHECKS, pair): "differ" for pair in pairs}, **changes)


def test_a_checked_gate_is_consistent_and_says_so() -> None:
    run = checked()
    assert verify(run, now=NOW) == []
    assert outcome(run).kind == "pass"
    (line,) = [line for line in gate_text.details(run) if "checked runs of head" in line]
    assert line.startswith(
        "No wrong answer in the checked runs of head (30 of work): wrong answers in"
    )


def test_a_gate_with_wrong_answers_fails() -> None:
    run = wrong_in(3)
    assert verify(run, now=NOW) == []
    result = outcome(run)
    assert result.kind == "answers differ"
    assert {(row.scenario, row.contrast) for row in result.rows} == {("work", "head")}
    assert "work, wrong answers in 2 of" in gate_text.sentence(run)
    assert any(line.startswith("::error title=answers differ") for line in annotations(run))
    assert '<error message="work, wrong answers in 2 of' in junit(run)


def test_a_gate_whose_budget_ended_says_what_can_stay_hidden() -> None:
    run = checked()
    short = recomputed(replace(run, stopped="budget", checks=run.checks[:3]), run.samples)
    assert outcome(short).kind == "pass"
    (line,) = [line for line in gate_text.details(short) if "runs of head were checked" in line]
    assert "of 30 runs of head were checked, because the run ended: wrong answers in up to" in line
    assert verify(short, now=NOW) == []


def _problems(run: RunFile, checks: Sequence[Sample]) -> str:
    changed = recomputed(replace(run, checks=tuple(checks)), run.samples)
    return "\n".join(f"{one.place} {one.problem}" for one in verify(changed, now=NOW))


def test_verify_finds_what_is_wrong_with_checks() -> None:
    run = checked()
    checks = list(run.checks or ())
    assert "were not checked" in _problems(run, checks[:-3])
    assert "before the base had run again" in _problems(run, checks[1:])
    assert "is not in the plan" in _problems(run, [*checks[:-1], replace(checks[-1], arm="base")])
    assert "before an earlier trial ended" in _problems(
        run, [*checks[:-1], replace(checks[-1], started=0.1, slot=0)]
    )
    assert "same wall time" in _problems(
        run, [*checks[:-1], replace(checks[-1], metrics=checks[-2].metrics)]
    )
    assert "at most 60 are needed" in _problems(run, checks * 9)
