"""The history of a project as text for a terminal."""

import math
from collections.abc import Iterator, Mapping, Sequence

from trae_bench.report.escape import for_terminal
from trae_bench.report.text.gate import short
from trae_bench.report.text.listing import columns, count
from trae_bench.report.text.terminal import quantity
from trae_bench.verdicts.gate import percent_change
from trae_bench.verdicts.history import Checked, Measured, Series, SeriesKey, Shift

NOTHING = "No points. `trae-bench history add RUN.json` adds those of a run with --compare."


def title(series: Series) -> str:
    """`two-files cpu, tiny against 0123456: 12 commits, lower is better`."""
    key = series.key
    elsewhere = f", and {series.elsewhere} that are not on this branch" if series.elsewhere else ""
    return (
        f"{for_terminal(key.scenario, 60)} {for_terminal(key.metric, 60)}, "
        f"{for_terminal(key.agent, 60)} against {short(key.anchor)}: "
        f"{count(len(series.commits), 'commit')}{elsewhere}, {series.better} is better"
    )


def overview(found: Sequence[Series], width: int) -> str:
    """One row for each series."""
    heading = ("scenario", "metric", "agent", "anchor", "commits", "change", "newest")
    rows = [
        (*_names(series.key), str(len(series.commits)), *_newest(series.commits))
        for series in found
    ]
    return columns(heading, rows, width)


def _names(key: SeriesKey) -> tuple[str, str, str, str]:
    return key.scenario, key.metric, key.agent, short(key.anchor)


def _newest(commits: Sequence[Measured]) -> tuple[str, str]:
    return (change(commits[-1]), short(commits[-1].commit)) if commits else ("-", "-")


def change(measured: Measured) -> str:
    """`+2.1 % ±0.3`: the change against the anchor, with its standard error."""
    return f"{percent_change(measured.log_ratio)} ±{percent(measured.error)}"


def percent(error: float) -> str:
    """A standard error in percent, without its sign."""
    return f"{100 * math.expm1(min(error, 700.0)):.2g}"


def details(
    series: Series, found: Sequence[Shift], subjects: Mapping[str, str], width: int
) -> Iterator[str]:
    """The commits of one series, newest last, and its changes."""
    yield title(series)
    rows = [
        (
            short(one.commit),
            one.created[:10],
            change(one),
            quantity(one.head, for_terminal(series.unit, 10)),
            str(one.pairs),
            subjects.get(one.commit, ""),
        )
        for one in series.commits
    ]
    yield columns(("commit", "measured", "change", "median", "pairs", "subject"), rows, width)
    for one in found:
        yield sentence(one, subjects)


def sentence(shift: Shift, subjects: Mapping[str, str]) -> str:
    """What changed, by how much, and between which commits."""
    key = shift.key
    words = {"small": "Small change"}
    kind = words.get(shift.kind, shift.kind.capitalize())
    return (
        f"{kind}: {for_terminal(key.scenario, 60)} {for_terminal(key.metric, 60)} "
        f"{percent_change(shift.size)} ±{percent(shift.error)}, {_where(shift, subjects)}"
    )


def _where(shift: Shift, subjects: Mapping[str, str]) -> str:
    subject = for_terminal(subjects.get(shift.likely, ""), 80)
    likely = f"most likely {short(shift.likely)} {subject}".rstrip()
    return f"after {short(shift.base)}, at the latest in {short(shift.head)}; {likely}"


def verdict(
    checked: Checked,
    subjects: Mapping[str, str],
    scenarios: Mapping[str, str],
) -> Iterator[str]:
    """A change with what its confirming run says, and what to do next.

    `subjects` has the commits of the branch in order, `scenarios` what to request for a scenario
    that is no shipped one.
    """
    shift = checked.shift
    yield sentence(shift, subjects)
    if checked.status != "not checked":
        yield f"  {checked.status.capitalize()}{_evidence(checked)}"
    line = list(subjects)
    between = line.index(shift.head) - line.index(shift.base)
    if checked.status == "confirmed" and shift.kind == "regression" and between > 1:
        scenario = scenarios.get(shift.key.scenario, shift.key.scenario)
        yield (
            f"  One of {count(between, 'commit')}: trae-bench bisect {short(shift.base)} "
            f"{short(shift.head)} --scenario {for_terminal(scenario, 200)} "
            f"--metric {for_terminal(shift.key.metric, 60)}"
        )


def _evidence(checked: Checked) -> str:
    if checked.status == "not measured":
        return f": {for_terminal(checked.problem, 400)}"
    estimate = checked.row.estimate if checked.row else None
    if estimate is None or estimate.log_ratio is None:
        return ""
    return f": {percent_change(estimate.log_ratio)} in {count(estimate.n, 'pair')}"
