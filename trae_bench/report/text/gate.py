"""The result of a gate as text: the verdict in one sentence, then the details.

The text is safe for a terminal. Escape it again for any other format.
"""

from collections.abc import Iterator

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import HEAD
from trae_bench.model.result import Comparison, Confirmation, Pairs
from trae_bench.model.run import RevisionPair, RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import quantity
from trae_bench.stats.head_runs import HeadRuns, is_decided
from trae_bench.verdicts.gate import (
    GateResult,
    answers_differ,
    answers_of_head,
    judges_requests,
    not_measured,
    outcome,
    percent_change,
    remedy_for_variation,
    wrong_answers,
)
from trae_bench.verdicts.prompt_breaks import prompt_breaks

MAX_NOTE = 400
"""Characters of a note."""
MAX_NAMED = 3
"""Comparisons that a sentence names; the others are counted."""


def sentence(run: RunFile, *, claimed: bool = True) -> str:
    """The verdict on a run that compares revisions."""
    result, against = outcome(run, claimed=claimed), f"against {base_name(run)}"
    match result.kind:
        case "regression":
            return f"Regression: {_named_rows(run, result)} {against}"
        case "answers differ":
            reason = for_terminal("; ".join(result.reasons), 400) or _first_reason(result)
            return f"Base and head give different answers: {reason}"
        case "not measured":
            return f"Could not be measured: {_first_reason(result)}"
        case "inconclusive":
            why = _named_rows(run, result) if result.rows else "".join(result.reasons)
            return f"Inconclusive {against}: {why}"
        case "interrupted":
            return f"Interrupted, no verdict {against}"
    if not run.header.cells:
        return f"Nothing to compare {against}: every scenario is new"
    better = f"; improvement: {_named_rows(run, result)}" if result.rows else ""
    return f"No regression {against}{better}{_tolerated(run)}"


def details(run: RunFile) -> Iterator[str]:
    """Lines on what was compared, which changes were confirmed, and which scenarios are new."""
    compared = run.header.revisions
    if compared is None:
        return
    yield revisions(compared)
    if compared.own_environments and run.header.agents:
        yield "Each was built in an environment of its own."
    elif compared.own_environments:
        yield "They declare different dependencies, so each ran in a separate environment."
    for note in compared.notes or ():
        yield f"{for_terminal(f'{note[:1].upper()}{note[1:]}', MAX_NOTE)}."
    yield from _answers(run)
    yield from _remedies(run)
    for row in run.comparisons:
        if (again := row.confirmation) is not None:
            sure = "exactly" if again.p == 0 else f"p = {again.p:.2g}"
            text = f"confirmed by {again.wanted} fresh pairs ({sure})"
            if not again.stands:
                text = not_confirmed(again)
            yield f"{text[0].upper()}{text[1:]}: {_place(row)}"
    yield from _prompt_breaks(run)
    for name, problem in compared.new.items():
        first = problem.splitlines()[0] if problem else ""
        yield f"New, the base cannot run it: {for_terminal(name, 60)}: {for_terminal(first)}"


def _prompt_breaks(run: RunFile) -> Iterator[str]:
    """Where head breaks the prefixes of its prompts more often than base."""
    for one in prompt_breaks(run):
        base, head = one.counts
        # The fresh pairs of a regression break it at the same place.
        if one.contrast == HEAD and head > base:
            yield (
                f"Head breaks the prefix of the prompt in {head} requests of "
                f"{for_terminal(one.scenario, 60)}, base in {base}, so a prompt cache misses. "
                f"First: {for_terminal(one.place, MAX_NOTE)}."
            )


def _answers(run: RunFile) -> Iterator[str]:
    """In how many runs the answers of head were checked, and what can have stayed hidden."""
    found = [] if is_decided(run.comparisons) else answers_of_head(run)
    right = [runs for runs in found if not runs.wrong and runs.total >= runs.wanted]
    if right:
        names = ", ".join(f"{runs.total} of {for_terminal(runs.scenario, 60)}" for runs in right)
        seen = 100 * max(runs.hidden for runs in right)
        yield (
            f"No wrong answer in the checked runs of head ({names}): wrong answers in {seen:.1f} % "
            "of its runs or more would have been seen (95 % confidence)."
        )
    for runs in found:
        if runs.wrong and not runs.is_wrong:
            yield f"Tolerated: {for_terminal(wrong_answers(runs), MAX_NOTE)}."
        elif not runs.wrong and runs.total < runs.wanted:
            yield _unchecked(runs)


def _unchecked(runs: HeadRuns) -> str:
    """Why too few runs of head were checked, and what can have stayed hidden."""
    why = for_terminal(runs.unknown or "the run ended", MAX_NOTE)
    return (
        f"{for_terminal(runs.scenario, 60)}: only {runs.total} of {runs.wanted} runs of head were "
        f"checked, because {why}: wrong answers in up to {100 * runs.hidden:.0f} % of its runs can "
        "have stayed hidden."
    )


def _remedies(run: RunFile) -> Iterator[str]:
    """What to do about different answers."""
    differ = [row.contrast for row in run.comparisons if answers_differ(row) is not None]
    if NOISE_FLOOR in differ:
        yield f"The base differs from itself: {remedy_for_variation(run)}."
    elif differ and judges_requests(run):
        yield "If the requests may differ, as after a change of the prompt, give --equal work."


def not_confirmed(again: Confirmation) -> str:
    """Why a regression was not confirmed: fresh pairs did not show it, or were too few."""
    measured = again.pairs.measured
    if measured < again.wanted:
        return f"not confirmed: only {measured} of {again.wanted} fresh pairs were measured"
    return f"not confirmed by {again.wanted} fresh pairs (p = {again.p:.2g})"


def revisions(compared: RevisionPair) -> str:
    """The two revisions by their short commits: `Base is 0123456 (main), head is 89abcde.`"""
    head = f"{short(compared.head.commit)}{' with changes' if compared.head.modified else ''}"
    base = f"{short(compared.base.commit)} ({for_terminal(compared.requested, 60)})"
    return f"Base is {base}, head is {head}."


def base_name(run: RunFile) -> str:
    compared = run.header.revisions
    return short(compared.base.commit) if compared is not None else ""


def short(commit: str) -> str:
    return for_terminal(commit[:7])


def change(run: RunFile, row: Comparison) -> str:
    """`bugfix cpu +5.1 % [+3.9, +6.4]`; for counts, and without a ratio, both values."""
    estimate = row.estimate
    if estimate is None:
        return _place(row)
    if estimate.log_ratio is None or (row.mode == "exact" and not estimate.sd):
        unit = for_terminal(run.header.metrics[row.metric].unit, 10)
        return f"{_place(row)} {quantity(estimate.a, unit)} to {quantity(estimate.b, unit)}"
    text = f"{_place(row)} {percent_change(estimate.log_ratio)}"
    if estimate.interval is None:
        return text
    ends = (estimate.interval.low, estimate.interval.high)
    low, high = (percent_change(end).removesuffix(" %") for end in ends)
    return f"{text} [{low}, {high}]"


def _named_rows(run: RunFile, result: GateResult) -> str:
    named = [_with_state(run, row) for row in result.rows[:MAX_NAMED]]
    more = len(result.rows) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _with_state(run: RunFile, row: Comparison) -> str:
    if not row.pairs.measured:
        return f"{_place(row)} (no time left)"
    unconfirmed = row.confirmation is not None and not row.confirmation.stands
    return f"{change(run, row)}{' (not confirmed)' if unconfirmed else ''}"


def _place(row: Comparison) -> str:
    return f"{for_terminal(row.scenario, 60)} {for_terminal(row.metric, 60)}"


def _first_reason(result: GateResult) -> str:
    if not result.rows:
        return for_terminal("; ".join(result.reasons), 400)
    row = result.rows[0]
    return _lost(row, answers_differ(row) or not_measured(row) or row.pairs)


def _tolerated(run: RunFile) -> str:
    """The lost pairs that the gate tolerates: a reader may know why, or run it again."""
    rows = (row for row in run.comparisons if row.contrast == HEAD and row.pairs.reasons)
    row = next(rows, None)
    return "" if row is None else f"; tolerated: {_lost(row, row.pairs)}"


def _lost(row: Comparison, pairs: Pairs) -> str:
    """`bugfix, 1 of 25 pairs: head: exit status 1`."""
    lost = pairs.answers_differ + pairs.not_measured
    reason = pairs.reasons[0] if pairs.reasons else "unknown reason"
    count = f"{lost} of {lost + pairs.measured} pairs"
    return f"{for_terminal(row.scenario, 60)}, {count}: {for_terminal(reason, 400)}"
