"""A run as JUnit XML: one suite a scenario, one case for each toggle and metric.

A regression is a failure, answers that differ an error, and what nobody can tell is skipped:
a CI service must not take it for a pass.
"""

from collections.abc import Iterator
from itertools import groupby

from trae_bench.gate import answers_differ, not_measured
from trae_bench.records import Comparison
from trae_bench.report.escape import for_xml
from trae_bench.report.listing import count
from trae_bench.report.markdown import compared
from trae_bench.report.terminal import cells_of, side_names
from trae_bench.store import RunFile

_KINDS = ("failure", "error", "skipped")


def junit(run: RunFile, *, claimed: bool = True) -> str:
    """The document. `claimed` is off where a run was too short for verdicts: all skipped."""
    rows = sorted(compared(run), key=lambda row: row.scenario)
    kinds = [_outcome(row, claimed)[0] for row in rows]
    new = run.header.compared.new if run.header.compared is not None else {}
    kinds += ["skipped"] * len(new)
    suites = (
        _suite(run, scenario, list(of_scenario), claimed)
        for scenario, of_scenario in groupby(rows, key=lambda row: row.scenario)
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


def _suite(run: RunFile, scenario: str, rows: list[Comparison], claimed: bool) -> str:
    kinds = [_outcome(row, claimed)[0] for row in rows]
    stamp = for_xml(run.header.created)
    return "\n".join(
        [
            f' <testsuite name="{for_xml(scenario)}" {_counts(kinds)} timestamp="{stamp}">',
            *(line for row in rows for line in _case(run, row, claimed)),
            " </testsuite>",
        ]
    )


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


def _case(run: RunFile, row: Comparison, claimed: bool) -> Iterator[str]:
    kind, message = _outcome(row, claimed)
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


def _outcome(row: Comparison, claimed: bool) -> tuple[str, str]:
    """Element that says what became of a row, empty for a pass; and its message."""
    reason = row.pairs.reasons[0] if row.pairs.reasons else "no pair was measured"
    verdict = row.judgement.verdict
    if (differing := answers_differ(row)) is not None:
        return "error", f"answers differ: {(differing.reasons or (reason,))[0]}"
    if verdict == "not measured":
        return "skipped", f"not measured: {reason}"
    if not claimed:
        return "skipped", "too few pairs for a verdict"
    if not row.gated:
        return "skipped", f"{verdict}, for information only: too noisy here to be gated"
    if row.confirmation is not None and not row.confirmation.stands:
        return "skipped", f"not confirmed by {row.confirmation.pairs.measured} fresh pairs"
    if verdict == "inconclusive":
        return "skipped", f"inconclusive after {count(row.pairs.measured, 'pair')}"
    if verdict == "regression":
        return "failure", "regression"
    if (lost := not_measured(row)) is not None:
        return "skipped", f"too many pairs were lost: {(lost.reasons or (reason,))[0]}"
    return "", ""
