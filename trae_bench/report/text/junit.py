"""A run as JUnit XML: one suite a scenario, one case for each toggle and metric.

A regression is a failure, answers that differ an error, and what nobody can tell is skipped:
a CI service must not take it for a pass. A gate that could not be measured has errors, too, for
its job fails.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec.structs import replace

from trae_bench.model.result import Comparison
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_xml
from trae_bench.report.text.gate import not_confirmed
from trae_bench.report.text.listing import count
from trae_bench.report.text.markdown import compared
from trae_bench.report.text.terminal import cells_of, change_in, noise_lines, side_names
from trae_bench.verdicts.caveats import MAX_NOTE
from trae_bench.verdicts.gate import answers_differ, not_measured, outcome

_KINDS = ("failure", "error", "skipped")
_Outcomes = Sequence[tuple[Comparison, str, str]]
"""Rows, each with the element that says what became of it, empty for a pass; and its message."""


def junit(run: RunFile, *, claimed: bool = True) -> str:
    """The document. `claimed` is off where a run was too short for verdicts: all skipped."""
    rows = sorted(compared(run), key=lambda row: row.scenario)
    # Where the job fails for that, nobody must see a green report beside it.
    failed = run.header.revisions and outcome(run, claimed=claimed).kind == "not measured"
    lost = "error" if failed else "skipped"
    found = [(row, *_outcome(run, row, claimed, lost)) for row in rows]
    kinds = [kind for _, kind, _ in found]
    new = run.header.revisions.new if run.header.revisions is not None else {}
    kinds += ["skipped"] * len(new)
    suites = (
        _suite(run, scenario, list(of_scenario), claimed)
        for scenario, of_scenario in groupby(found, key=lambda each: each[0].scenario)
    )
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuites name="trae-bench" {_counts(kinds)}>',
            *suites,
            *(_new(name, problem) for name, problem in new.items()),
            "</testsuites>\n",
        ]
    )


def _suite(run: RunFile, scenario: str, rows: _Outcomes, claimed: bool) -> str:
    kinds = [kind for _, kind, _ in rows]
    stamp = for_xml(run.header.created)
    return "\n".join(
        [
            f' <testsuite name="{for_xml(scenario)}" {_counts(kinds)} timestamp="{stamp}">',
            *_noise(run, scenario),
            *(line for each in rows for line in _case(run, *each, claimed)),
            " </testsuite>",
        ]
    )


def _noise(run: RunFile, scenario: str) -> Iterator[str]:
    """How noisy the machine was in this scenario."""
    floors = tuple(floor for floor in run.noise if floor.scenario == scenario)
    yield "  <properties>"
    for line in noise_lines(replace(run, noise=floors)):
        name, _, told = line.partition(": ")
        yield f'   <property name="{for_xml(name)}" value="{for_xml(told, MAX_NOTE)}"/>'
    yield "  </properties>"


def _new(scenario: str, problem: str) -> str:
    """A scenario that the base cannot run."""
    name, counts = for_xml(scenario), _counts(["skipped"])
    return "\n".join(
        [
            f' <testsuite name="{name}" {counts}>',
            f'  <testcase classname="{name}" name="new" time="0">',
            f'   <skipped message="{for_xml(f"new, the base cannot run it: {problem}")}"/>',
            "  </testcase>",
            " </testsuite>",
        ]
    )


def _counts(kinds: list[str]) -> str:
    failed, errors, skipped = (kinds.count(kind) for kind in _KINDS)
    return f'tests="{len(kinds)}" failures="{failed}" errors="{errors}" skipped="{skipped}"'


def _case(run: RunFile, row: Comparison, kind: str, message: str, claimed: bool) -> Iterator[str]:
    place = for_xml(f"{row.scenario}.{row.contrast}", 500)
    names = f'classname="{place}" name="{for_xml(row.metric)}"'
    yield f'  <testcase {names} time="0">'
    if kind:
        yield f'   <{kind} message="{for_xml(message)}"/>'
    _, off, on, ratio, interval, saved, verdict = cells_of(
        row, run.header.metrics[row.metric], claimed
    )
    a, b = side_names(run)
    figures = {a: off, b: on, "ratio": f"{ratio} {interval}" if ratio else "", "saved": saved}
    told = ", ".join(f"{name} {text}" for name, text in figures.items() if text)
    yield f"   <system-out>{for_xml(f'{verdict}: {told}' if told else verdict)}</system-out>"
    yield "  </testcase>"


def _outcome(run: RunFile, row: Comparison, claimed: bool, unmeasured: str) -> tuple[str, str]:
    """Element that says what became of a row, and its message; `unmeasured` is that of a row
    that could not be measured."""
    reason = row.pairs.reasons[0] if row.pairs.reasons else "no pair was measured"
    verdict = row.judgement.verdict
    if (differing := answers_differ(row)) is not None:
        return "error", f"answers differ: {(differing.reasons or (reason,))[0]}"
    if verdict == "not measured":
        return unmeasured, f"not measured: {reason}"
    failure = claimed and row.gated and verdict == "regression"
    if (lost := not_measured(row)) is not None and not failure:
        return unmeasured, f"too many pairs were lost: {(lost.reasons or (reason,))[0]}"
    if not claimed:
        return "skipped", "too few pairs for a verdict"
    if not row.gated:
        return "skipped", f"{verdict}, for information only: too noisy here to be gated"
    if row.confirmation is not None and not row.confirmation.stands:
        return "skipped", not_confirmed(row.confirmation)
    if verdict == "inconclusive":
        return "skipped", f"inconclusive after {count(row.pairs.measured, 'pair')}"
    if failure:
        cells = cells_of(row, run.header.metrics[row.metric], claimed)
        return "failure", f"regression: {change_in(cells)}"
    return "", ""
