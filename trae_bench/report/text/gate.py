"""What a gate says: the verdict first, in one sentence, then what it rests on.

Plain text, safe for a terminal; whoever puts it elsewhere escapes it once more.
"""

from collections.abc import Iterator

from trae_bench.model.result import Comparison, Confirmation
from trae_bench.model.run import RevisionPair, RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.terminal import quantity
from trae_bench.verdicts.gate import (
    GateResult,
    answers_differ,
    not_measured,
    outcome,
    percent_change,
)

MAX_NAMED = 3
"""Comparisons that a sentence names; the rest is counted."""


def sentence(run: RunFile, *, claimed: bool = True) -> str:
    """The verdict on a run that compares revisions."""
    found, against = outcome(run, claimed=claimed), f"against {base_name(run)}"
    match found.kind:
        case "regression":
            return f"Regression: {_some(run, found)} {against}"
        case "answers differ":
            return f"Base and head give different answers: {_first_reason(found)}"
        case "not measured":
            return f"Could not be measured: {_first_reason(found)}"
        case "inconclusive":
            told = _some(run, found) if found.rows else "".join(found.reasons)
            return f"Inconclusive {against}: {told}"
        case "interrupted":
            return f"Interrupted; no verdict {against}"
    if not run.header.cells:
        return f"Nothing to compare {against}: every scenario is new"
    better = f"; improvement: {_some(run, found)}" if found.rows else ""
    return f"No regression {against}{better}"


def details(run: RunFile) -> Iterator[str]:
    """What a reader must know beside the table, one line each."""
    compared = run.header.revisions
    if compared is None:
        return
    yield revisions(compared)
    if compared.own_environments:
        yield "They declare different dependencies, so each ran in an environment of its own."
    for row in run.comparisons:
        if (again := row.confirmation) is not None:
            sure = "exactly" if again.p == 0 else f"p = {again.p:.2g}"
            told = f"confirmed by {again.wanted} fresh pairs ({sure})"
            if not again.stands:
                told = not_confirmed(again)
            yield f"{told[0].upper()}{told[1:]}: {_place(row)}"
    for name, problem in compared.new.items():
        first = problem.splitlines()[0] if problem else ""
        yield f"New, the base cannot run it: {for_terminal(name, 60)}: {for_terminal(first)}"


def not_confirmed(again: Confirmation) -> str:
    """Whether fresh pairs did not show it, or there were too few of them."""
    measured = again.pairs.measured
    if measured < again.wanted:
        return f"not confirmed: only {measured} of {again.wanted} fresh pairs were measured"
    return f"not confirmed by {again.wanted} fresh pairs (p = {again.p:.2g})"


def revisions(compared: RevisionPair) -> str:
    """What was compared, by the names that commits have."""
    head = f"{short(compared.head.commit)}{' with changes' if compared.head.modified else ''}"
    base = f"{short(compared.base.commit)} ({for_terminal(compared.requested, 60)})"
    return f"Base is {base}, head is {head}."


def base_name(run: RunFile) -> str:
    compared = run.header.revisions
    return short(compared.base.commit) if compared is not None else ""


def short(commit: str) -> str:
    return for_terminal(commit[:7])


def change(run: RunFile, row: Comparison) -> str:
    """`bugfix cpu +5.1 % [+3.9, +6.4]`; both values of counts, and where there is no ratio."""
    found = row.estimate
    if found is None:
        return _place(row)
    if found.log_ratio is None or (row.mode == "exact" and not found.sd):
        unit = for_terminal(run.header.metrics[row.metric].unit, 10)
        return f"{_place(row)} {quantity(found.a, unit)} to {quantity(found.b, unit)}"
    text = f"{_place(row)} {percent_change(found.log_ratio)}"
    if found.interval is None:
        return text
    low, high = (
        percent_change(end).removesuffix(" %") for end in (found.interval.low, found.interval.high)
    )
    return f"{text} [{low}, {high}]"


def _some(run: RunFile, found: GateResult) -> str:
    named = [_with_state(run, row) for row in found.rows[:MAX_NAMED]]
    more = len(found.rows) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _with_state(run: RunFile, row: Comparison) -> str:
    if not row.pairs.measured:
        return f"{_place(row)} (no time for it)"
    unconfirmed = row.confirmation is not None and not row.confirmation.stands
    return f"{change(run, row)}{' (not confirmed)' if unconfirmed else ''}"


def _place(row: Comparison) -> str:
    return f"{for_terminal(row.scenario, 60)} {for_terminal(row.metric, 60)}"


def _first_reason(found: GateResult) -> str:
    if not found.rows:
        return for_terminal("; ".join(found.reasons), 400)
    row = found.rows[0]
    pairs = answers_differ(row) or not_measured(row) or row.pairs
    lost = pairs.answers_differ + pairs.not_measured
    reason = pairs.reasons[0] if pairs.reasons else "no reason known"
    count = f"{lost} of {lost + pairs.measured} pairs"
    return f"{for_terminal(row.scenario, 60)}, {count}: {for_terminal(reason, 400)}"
