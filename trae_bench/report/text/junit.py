"""A run as JUnit XML: a suite for each scenario, a test case for each toggle and metric.

A regression is a failure and different answers are an error. A row without a conclusion is
skipped, so that a CI service does not count it as a pass. If a gate could not be measured, its
job fails, so its rows are errors.
"""

from collections.abc import Sequence
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from msgspec.structs import replace

from trae_bench.model.result import Comparison, NoiseEstimate
from trae_bench.model.run import RunFile
from trae_bench.report.escape import MAX_TEXT, for_terminal
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
from trae_bench.stats.head_runs import HeadRuns
from trae_bench.verdicts.caveats import MAX_NOTE
from trae_bench.verdicts.gate import (
    answers_differ,
    answers_of_head,
    failed_runs,
    not_measured,
    outcome,
    wrong_answers,
)


def junit(run: RunFile, *, claimed: bool = True) -> str:
    """The XML document. `claimed` is false if the run was too short for verdicts: all skipped."""
    revisions = run.header.revisions
    # Without errors, the report of a failed job would be green.
    failed = revisions and outcome(run, claimed=claimed).kind == "not measured"
    rows = sorted(compared(run), key=lambda row: row.scenario)
    family, sides = count_compared(run), side_names(run)
    noise: dict[str, list[NoiseEstimate]] = {}
    for floor in run.noise:
        noise.setdefault(floor.scenario, []).append(floor)
    root = Element("testsuites", name="trae-bench")
    for scenario, of_scenario in groupby(rows, key=lambda row: row.scenario):
        suite = _child(root, "testsuite", name=scenario, timestamp=run.header.created)
        properties = _child(suite, "properties")
        for line in noise_lines(replace(run, noise=tuple(noise.get(scenario, ()))), family):
            name, _, text = line.partition(": ")
            _child(properties, "property", MAX_NOTE, name=name, value=text)
        for row in of_scenario:
            cells = cells_of(row, run.header.metrics[row.metric], claimed)
            kind, message = _outcome(row, cells, claimed, "error" if failed else "skipped")
            place = f"{row.scenario}.{row.contrast}"
            case = add_case(suite, place, row.metric, kind, message)
            _child(case, "system-out").text = for_terminal(_figures(cells, sides))
    for runs in answers_of_head(run):
        suite = _child(root, "testsuite", name=runs.scenario)
        kind, message = _answers(runs)
        add_case(suite, f"{runs.scenario}.head", "answers", kind, message)
    for name, problem in (revisions.new if revisions is not None else {}).items():
        suite = _child(root, "testsuite", name=name)
        add_case(suite, name, "new", "skipped", f"new, the base cannot run it: {problem}")
    return document(root)


def _answers(runs: HeadRuns) -> tuple[str, str]:
    """The XML element of the checked runs of head, and its message."""
    if runs.is_wrong:
        return "error", wrong_answers(runs)
    if runs.is_failing:
        return "error", failed_runs(runs)
    if runs.missing or runs.unknown:
        return "skipped", f"{runs.total} of {runs.wanted} runs were checked"
    return "", ""


def add_case(
    suite: Element, place: str, name: str, kind: str, message: str, limit: int = MAX_TEXT
) -> Element:
    """A test case; `kind` is the name of the element of its result, empty for a pass."""
    case = _child(suite, "testcase", 500, classname=place, name=name, time="0")
    if kind:
        _child(case, kind, limit, message=message)
    return case


def document(root: Element) -> str:
    """The text of the document, with the numbers of its results."""
    kinds = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for suite in (root, *root):
        for name, kind in kinds.items():
            suite.set(name, str(sum(1 for _ in suite.iter(kind))))
    indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _child(parent: Element, tag: str, limit: int = MAX_TEXT, **attributes: str) -> Element:
    # XML forbids characters that `for_terminal` escapes.
    escaped = {name: for_terminal(text, limit) for name, text in attributes.items()}
    return SubElement(parent, tag, escaped)


def _figures(cells: Sequence[str], sides: tuple[str, str]) -> str:
    _, off, on, ratio, interval, saved, verdict = cells
    a, b = sides
    figures = {a: off, b: on, "ratio": f"{ratio} {interval}" if ratio else "", "saved": saved}
    text = ", ".join(f"{name} {figure}" for name, figure in figures.items() if figure)
    return f"{verdict}: {text}" if text else verdict


def _outcome(
    row: Comparison, cells: Sequence[str], claimed: bool, unmeasured: str
) -> tuple[str, str]:
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
        return "failure", f"regression: {change_in(cells)}"
    return "", ""
