"""Compares two stored runs, possibly of different days and machines. Pure.

Both sides of a pair run in the same minute on the same core; two stored runs do not. One session
of this repository took 0.57 s of CPU time on one virtual machine and 0.39 s on another. In an
18-minute recording on a third machine, CPU time varies by 8 to 13 % between stretches, and wall
time by 9 to 21 %. So each kind of metric has its own comparison:

counter       Constant counts are compared exactly, arm by arm: any change is a finding. Counts by
              the provider are the same on every machine. Counts that depend on the interpreter
              or the installation are gated only between machines of one kind.
toggle ratio  On to off, both taken on one machine in the same minute. The change is the
              difference of two log ratios, with Welch's standard error. If a toggle changes only
              a part of the work, that part may drift differently from the rest (see
              `drift_of_ratio`); the threshold is raised by that drift.
memory        Medians of an arm. They hardly depend on the day, but on the machine, the allocator
              and Python: gated only between machines of one kind, from `MEMORY_DRIFT` on.
absolute      Times, rates and varying counts of an arm, always for information. The interval
              includes the drift between two days. Between machines of different kinds there is no
              verdict.

All samples are judged again by the rules of this release; verdicts stored in the files are not
used. docs/statistics.md explains the verdicts: Holm's method over all gated rows, a family-wise
error rate of 1 % for each direction, and each level divided by the number of looks.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.host_facts import CHANGING, kind_of
from trae_bench.model.experiment import Metric
from trae_bench.model.result import Interval, Verdict
from trae_bench.model.run import Header, RunFile
from trae_bench.stats.attribution import holm_limit
from trae_bench.stats.decision import Direction, direction_of
from trae_bench.stats.pairs import RowKey
from trae_bench.verdicts.change import (
    FAMILY_ALPHA,
    Change,
    Kind,
    arm_change,
    is_time,
    min_drift,
    toggle_ratio_change,
)
from trae_bench.verdicts.run_data import RunData, run_data

NON_DEFINING_FIELDS = frozenset({"about", "disturbed_by", "threshold"})
"""Fields of a metric that do not change its values."""

MEMORY_TOLERANCE = 0.01
"""Difference of two machines' memory (a fraction) that is ignored: kernels reserve slightly
different numbers of pages."""


class FactDifference(Struct, frozen=True):
    """A fact about the machine or the installation that differs between the runs."""

    name: str
    base: str
    head: str


class RunOrigin(Struct, frozen=True):
    """When, from which commit and on which machine a run was made."""

    created: str
    commit: str
    """Empty if unknown."""
    dirty: bool
    machine: str
    """Kind of machine."""


class RunDiff(Struct, frozen=True):
    """Comparison of a base and a head."""

    base: RunOrigin
    head: RunOrigin
    differences: tuple[FactDifference, ...]
    changes: tuple[Change, ...]

    @property
    def same_kind(self) -> bool:
        return self.base.machine == self.head.machine

    @property
    def gated(self) -> list[Change]:
        return [change for change in self.changes if change.gated]


def compare_runs(base: RunFile, head: RunFile) -> RunDiff:
    """Compare every row of both runs, scenario by scenario."""
    origins = _origin(base.header), _origin(head.header)
    same_kind = origins[0].machine == origins[1].machine
    changes = list(_changes(run_data(base), run_data(head), same_kind))
    differences = tuple(_fact_differences(base.header, head.header))
    return RunDiff(*origins, differences, tuple(_with_verdicts(changes)))


def exit_code(diff: RunDiff, *, strict: bool = False) -> int:
    """0: pass. 1: a gated regression. 4: no gated row could be compared.

    3 with `strict`: a gated row is inconclusive or was not measured.
    """
    verdicts = {change.verdict for change in diff.gated}
    if "regression" in verdicts:
        return 1
    if verdicts <= {"not measured"}:
        return 4
    return 3 if strict and verdicts & {"inconclusive", "not measured"} else 0


# Matching the rows of both runs


def _changes(base: RunData, head: RunData, same_kind: bool) -> Iterator[Change]:
    for name, kind in _in_one_run(base.header.scenarios, head.header.scenarios):
        yield Change(kind=kind, scenario=name)
    for name, in_base in base.header.scenarios.items():
        in_head = head.header.scenarios.get(name)
        if in_head is not None and in_head.digest != in_base.digest:
            yield Change(kind="incompatible", scenario=name, note="the scenario has changed")
        elif in_head is not None:
            yield from _scenario_changes(name, base, head, same_kind)


def _in_one_run(base: Iterable[str], head: Iterable[str]) -> Iterator[tuple[str, Kind]]:
    """Names that only one of the runs has."""
    in_base, in_head = dict.fromkeys(base), dict.fromkeys(head)
    yield from ((name, "gone") for name in in_base if name not in in_head)
    yield from ((name, "new") for name in in_head if name not in in_base)


def _scenario_changes(
    scenario: str, base: RunData, head: RunData, same_kind: bool
) -> Iterator[Change]:
    for name, kind in _in_one_run(base.metrics[scenario], head.metrics[scenario]):
        yield Change(kind=kind, scenario=scenario, metric=name)
    for name, kind in _in_one_run(base.contrasts[scenario], head.contrasts[scenario]):
        yield Change(kind=kind, scenario=scenario, subject=name)
    metrics = []
    for name, metric in base.metrics[scenario].items():
        if name in head.metrics[scenario]:
            if reason := _incompatibility(name, base.header, head.header):
                yield Change(kind="incompatible", scenario=scenario, metric=name, note=reason)
            else:
                metrics.append(metric)
    arms = [
        name
        for name, arm in base.arms[scenario].items()
        # If the toggles differ, the contrast is reported as incompatible.
        if name in head.arms[scenario] and head.arms[scenario][name].toggles == arm.toggles
    ]
    shifts = {metric.name: _common_shift(scenario, metric, arms, base, head) for metric in metrics}
    yield from _toggle_ratio_changes(scenario, metrics, shifts, base, head)
    for name in arms:
        for metric in metrics:
            yield arm_change(RowKey(scenario, name, metric.name), metric, base, head, same_kind)


def _incompatibility(name: str, base: Header, head: Header) -> str:
    """Why values of this metric cannot be compared; empty if they can."""
    in_base, in_head = base.metrics[name], head.metrics[name]
    for field in Metric.__struct_fields__:
        if field not in NON_DEFINING_FIELDS and getattr(in_base, field) != getattr(in_head, field):
            return f"the definition of the metric differs ({field})"
    if base.rules.get(in_base.mode) != head.rules.get(in_base.mode):
        return "the decision rule differs"
    return ""


def _common_shift(
    scenario: str, metric: Metric, arms: Iterable[str], base: RunData, head: RunData
) -> float:
    """Smallest absolute log ratio of head to base over all arms: the drift common to all arms.

    0 if the arms do not all move in the same direction.
    """
    keys = [RowKey(scenario, arm, metric.name) for arm in arms]
    sides = [(base.values.get(key, ()), head.values.get(key, ())) for key in keys]
    medians = [(median(old), median(new)) for old, new in sides if old and new]
    shifts = [math.log(new) - math.log(old) for old, new in medians if min(old, new) > 0]
    opposed = not shifts or min(shifts) < 0 < max(shifts)
    return 0.0 if opposed else min(map(abs, shifts))


def _toggle_ratio_changes(
    scenario: str,
    metrics: Sequence[Metric],
    shifts: Mapping[str, float],
    base: RunData,
    head: RunData,
) -> Iterator[Change]:
    # A machine that computes faster does not wait faster, so the largest drift of any time
    # applies to all times.
    time_shift = max((shifts[metric.name] for metric in metrics if is_time(metric)), default=0.0)
    for name, in_base in base.contrasts[scenario].items():
        in_head = head.contrasts[scenario].get(name)
        if in_head is None:
            continue
        if (in_head.a.toggles, in_head.b.toggles) != (in_base.a.toggles, in_base.b.toggles):
            note = "the toggles of its sides differ"
            yield Change(kind="incompatible", scenario=scenario, subject=name, note=note)
            continue
        for metric in metrics:
            key = RowKey(scenario, name, metric.name)
            if metric.mode != "exact" and (key in base.rows or key in head.rows):
                shift = time_shift if is_time(metric) else shifts[metric.name]
                drift = max(min_drift(metric), shift)
                yield toggle_ratio_change(key, metric, drift, base, head)


# Verdicts over all rows


def _with_verdicts(changes: Sequence[Change]) -> Iterator[Change]:
    """The changes, with verdicts for those that have an interval."""
    family = [change for change in changes if change.gated and not change.exact]
    limits = {
        direction: holm_limit(
            (change.p if _direction(change) == direction else 1.0 for change in family),
            FAMILY_ALPHA,
        )
        for direction in ("regression", "improvement")
    }
    for change in changes:
        if change.interval is None:
            yield change
            continue
        limit = limits[_direction(change)] if change.gated else FAMILY_ALPHA / max(1, len(family))
        yield replace(change, verdict=_verdict(change, change.interval, limit))


def _verdict(change: Change, interval: Interval, limit: float) -> Verdict:
    large = abs(change.log_ratio or 0.0) >= math.log1p(change.threshold)
    if large and change.p <= limit:
        return _direction(change)
    margin = math.log1p(change.margin)
    return "equivalent" if -margin <= interval.low <= interval.high <= margin else "inconclusive"


def _direction(change: Change) -> Direction:
    """Direction of the estimate, whether significant or not."""
    return direction_of(change.log_ratio or 0.0, change.better)


# Origin of the runs


def _origin(header: Header) -> RunOrigin:
    return RunOrigin(
        created=header.created,
        commit=str(header.code.get("commit") or ""),
        dirty=header.code.get("dirty") is True,
        machine=kind_of(header.machine),
    )


def _fact_differences(base: Header, head: Header) -> Iterator[FactDifference]:
    for missing, in_base, in_head in (
        ("unknown", base.machine, head.machine),
        ("not installed", base.versions, head.versions),
    ):
        for name in {**in_base, **in_head}:
            if name not in CHANGING and not _alike(name, in_base.get(name), in_head.get(name)):
                values = (str(facts.get(name, missing)) for facts in (in_base, in_head))
                yield FactDifference(name, *values)


def _alike(name: str, base: object, head: object) -> bool:
    if name == "memory" and isinstance(base, int) and isinstance(head, int):
        return abs(base - head) <= MEMORY_TOLERANCE * max(base, head)
    return base == head
