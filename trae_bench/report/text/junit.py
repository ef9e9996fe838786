"""A run as JUnit XML: a suite for each scenario, a test case for each toggle and metric.

A regression is a failure and different answers are an error. A row without a conclusion is
skipped, so that a CI service does not count it as a pass. If a gate could not be measured, its
job fails, so its rows are errors.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec.structs import replace

from trae_bench.model.result import Comparison, NoiseEstimate
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_xml
from trae_bench.report.text.gate import not_confirmed
from trae_bench.report.text.listing import count
from trae_bench.report.text.markdown import compared
from trae_bench.report.text.terminal import (
    cells_of,
    change_in,
    count_compared,
    noise_lines,
    side_names,
)
from trae_bench.verdicts.caveats import MAX_NOTE
from trae_bench.verdicts.gate import answers_differ, not_measured, outcome

_KINDS = ("failure", "error", "skipped")
_Outcomes = Sequence[tuple[Comparison, str, str]]
"""Rows with the name of their XML element, empty for a pass, and its message."""


def junit(run: RunFile, *, claimed: bool = True) -> str:
    """The XML document. `claimed` is false if the run was too short for verdicts: all skipped."""
    rows = sorted(compared(run), key=lambda row: row.scenario)
    # Without errors, the report of a failed job would be green.
    failed = run.header.revisions and outcome(run, claimed=claimed).kind == "not measured"
    lost = "error" if failed else "skipped"
    outcomes = [(row, *_outcome(run, row, claimed, lost)) for row in rows]
    kinds = [kind for _, kind, _ in outcomes]
    new = run.header.revisions.new if run.header.revisions is not None else {}
    kinds += ["skipped"] * len(new)
    by_scenario = groupby(outcomes, key=lambda outcome: outcome[0].scenario)
    context = _Context(run, claimed)
    suites = (_suite(context, name, list(of_scenario)) for name, of_scenario in by_scenario)
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuites name="trae-bench" {_counts(kinds)}>',
            *suites,
            *(_new(name, problem) for name, problem in new.items()),
            "</testsuites>\n",
        ]
    )


class _Context:
    """Facts about the whole run, determined once: a run can have thousands of rows."""

    def __init__(self, run: RunFile, claimed: bool) -> None:
        self.run, self.claimed = run, claimed
        self.sides = side_names(run)
        self.family = count_compared(run)
        self.noise: dict[str, list[NoiseEstimate]] = {}
        for noise in run.noise:
            self.noise.setdefault(noise.scenario, []).append(noise)


def _suite(context: _Context, scenario: str, rows: _Outcomes) -> str:
    kinds = [kind for _, kind, _ in rows]
    stamp = for_xml(context.run.header.created)
    return "\n".join(
        [
            f' <testsuite name="{for_xml(scenario)}" {_counts(kinds)} timestamp="{stamp}">',
            *_noise(context, scenario),
            *(line for row in rows for line in _case(context, *row)),
            " </testsuite>",
        ]
    )


def _noise(context: _Context, scenario: str) -> Iterator[str]:
    """How noisy the machine was in this scenario."""
    noise = tuple(context.noise.get(scenario, ()))
    yield "  <properties>"
    for line in noise_lines(replace(context.run, noise=noise), context.family):
        name, _, text = line.partition(": ")
        yield f'   <property name="{for_xml(name)}" value="{for_xml(text, MAX_NOTE)}"/>'
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


def _case(context: _Context, row: Comparison, kind: str, message: str) -> Iterator[str]:
    place = for_xml(f"{row.scenario}.{row.contrast}", 500)
    names = f'classname="{place}" name="{for_xml(row.metric)}"'
    yield f'  <testcase {names} time="0">'
    if kind:
        yield f'   <{kind} message="{for_xml(message)}"/>'
    metric = context.run.header.metrics[row.metric]
    _, off, on, ratio, interval, saved, verdict = cells_of(row, metric, context.claimed)
    a, b = context.sides
    figures = {a: off, b: on, "ratio": f"{ratio} {interval}" if ratio else "", "saved": saved}
    text = ", ".join(f"{name} {figure}" for name, figure in figures.items() if figure)
    yield f"   <system-out>{for_xml(f'{verdict}: {text}' if text else verdict)}</system-out>"
    yield "  </testcase>"


def _outcome(run: RunFile, row: Comparison, claimed: bool, unmeasured: str) -> tuple[str, str]:
    """The XML element of a row and its message; `unmeasured` is the element of lost rows."""
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
        return "skipped", f"{verdict}, for information only: the noise is too large to gate"
    if row.confirmation is not None and not row.confirmation.stands:
        return "skipped", not_confirmed(row.confirmation)
    if verdict == "inconclusive":
        return "skipped", f"inconclusive after {count(row.pairs.measured, 'pair')}"
    if failure:
        cells = cells_of(row, run.header.metrics[row.metric], claimed)
        return "failure", f"regression: {change_in(cells)}"
    return "", ""
