"""A search for the first bad commit, as text.

The text is safe for a terminal.
"""

from collections.abc import Callable, Iterator

from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.gate import change, sentence, short
from trae_bench.report.text.listing import count
from trae_bench.report.text.progress import clock
from trae_bench.run.bisect import Found, Step, is_confirmed, worse_rows
from trae_bench.verdicts.gate import outcome, percent_change

Subject = Callable[[str], str]
"""The first line of a commit's message."""


def begin_line(found: Found) -> str:
    """What is searched for, and where."""
    where = f"between {short(found.good)} and {short(found.commits[-1])}"
    return f"{_searched(found)} arises {where}, in one of {count(len(found.commits), 'commit')}"


def step_line(found: Found, step: Step) -> str:
    """What one step showed, and what is left."""
    if step.effect is None:
        return (
            f"{short(step.commit)} cannot be measured, skipped: {for_terminal(step.problem, 200)}"
        )
    likely = "bad" if step.is_bad >= 0.5 else "good"
    chance = step.is_bad if step.is_bad >= 0.5 else 1 - step.is_bad
    return (
        f"{short(step.commit)} is {likely} ({100 * chance:.0f} %): "
        f"{_effect(found, step.effect)} in {count(step.pairs, 'pair')}; "
        f"{count(step.candidates, 'commit')} left, about {clock(step.seconds_left)} min"
    )


def result_lines(found: Found, subject: Subject) -> Iterator[str]:
    """What the search found."""
    if found.row is None:
        yield f"There is nothing to search for: the gate run ends with {found.gate.kind!r}."
        return
    pairs = sum(step.pairs for step in found.steps)
    steps = f"{count(len(found.steps), 'step')}, {count(pairs, 'pair')}"
    how = f"{100 * found.probability:.3g} %, {steps}" if len(found.commits) > 1 else "the only one"
    if len(found.first_bad) == 1:
        (first,) = found.first_bad
        yield f"First bad commit: {short(first)} {for_terminal(subject(first), 200)} ({how})"
    else:
        yield f"The first bad commit is one of {len(found.first_bad)} ({how}):"
        for commit in found.first_bad:
            yield f"  {short(commit)} {for_terminal(subject(commit), 200)}"
    if found.check is not None:
        yield f"Against the commit before it: {_check(found, found.check)}"
    yield f"Run files: {for_terminal(found.folder, 500)}"


def _check(found: Found, run: RunFile) -> str:
    """The gate's sentence, or the effect that is too small for the gate."""
    if outcome(run).kind in ("regression", "answers differ") or not is_confirmed(found):
        return sentence(run)
    changes = ", ".join(change(run, row) for row in worse_rows(run))
    return f"{changes}, too small to fail a gate"


def _searched(found: Found) -> str:
    row = found.row
    if row is None:
        return "Nothing"
    if found.measure == "share of different answers":
        return f"{for_terminal(row.scenario, 60)}: a different answer"
    return _change(found, row)


def _change(found: Found, row: Comparison) -> str:
    place = f"{for_terminal(row.scenario, 60)} {for_terminal(row.metric, 60)}"
    if (estimate := row.estimate) is None:
        return place
    size = estimate.difference if found.measure == "difference" else estimate.log_ratio or 0.0
    return f"{place} {_effect(found, size)}"


def _effect(found: Found, effect: float) -> str:
    if found.measure == "log ratio":
        return percent_change(effect)
    if found.measure == "difference":
        return f"{effect:+.6g}"
    return f"{100 * effect:.0f} % of the answers differ"
