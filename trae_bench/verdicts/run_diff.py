"""Two stored runs against each other: what travels between days and machines, and what not. Pure.

Both sides of a pair run in the same minute on the same core; two stored runs do not. The same
session of this repository took 0.57 s of processor time on one virtual machine and 0.39 s on
another, and a recording of 18 minutes on a third scatters by 8 to 13 % (processor time) and 9 to
21 % (wall time) from one stretch to another. So each kind of figure is compared as it deserves:

counter       Counts that do not vary are compared as they are, arm by arm: any change is a
              finding. What the provider counts is the same on every machine; what the
              interpreter or the installation decides is gated on machines of one kind only.
toggle ratio  On to off, each taken on one machine in one minute: the difference of two log
              ratios, with Welch's error. Where a toggle changes only a part of the work, that
              part may drift otherwise than the rest, see `drift_of_ratio`; the threshold is
              wider by that.
memory        Medians of an arm. It hardly knows the day, yet knows the machine, the allocator
              and the Python: gated on machines of one kind, from `MEMORY_DRIFT` on.
absolute      Times, rates and counts that vary, of an arm. For information, always: the interval
              holds the drift between two days. On another kind of machine there is no verdict.

All samples are judged anew by the rules of this release; what a file concludes is not read.
Verdicts are those of docs/statistics.md: Holm over everything that is gated, 1 % of false alarms
for each direction, each level shared by the looks that could have ended a run.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.host_facts import CHANGING, kind_of
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Arm, Better, Contrast, Metric, Mode
from trae_bench.model.result import Estimate, Interval, Verdict
from trae_bench.model.run import Header, RunFile
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.attribution import holm_limit
from trae_bench.stats.decision import (
    MAX_LOG,
    RULES,
    Direction,
    Fit,
    Row,
    bounds_of,
    estimate,
    fit_row,
)
from trae_bench.stats.metric_rules import MEMORY, metric_minimum, metric_threshold, rule_of
from trae_bench.stats.noise import MAX_SD as MAX_NOISE
from trae_bench.stats.noise import reliability_of as standing
from trae_bench.stats.pairs import RowKey
from trae_bench.stats.student_t import t_quantile, t_tail, welch_satterthwaite

Kind = Literal["counter", "toggle ratio", "memory", "absolute", "new", "gone", "incompatible"]
"""new: only in the head. gone: only in the base. incompatible: in both, but not the same thing."""

TIME_DRIFT = 0.15
"""Of times and rates between two runs on one machine, at least, as a standard deviation on the
log scale; see above. A/A pairs tell of minutes only, and can but make it larger."""
MEMORY_DRIFT = 0.05
"""Of all else. Between the two machines above memory differed by 0.2 %; another build of the same
Python, or another setting of its allocator, can make some percent."""
DRIFT_DF = 7
"""Degrees of freedom of a drift: it is known no better than from the usual eight A/A pairs."""
FALSE_ALARMS = 0.01
"""Chance of any false regression, over all that is gated (and of any false improvement)."""
MIN_COUNTED = 2
"""Values of each run from which a count that has not varied is taken for constant."""

TRAVELLING = frozenset(
    {"requests", "connections", "handshakes", "request_bytes", "correct_results"}
)
"""Counters that depend on what the agent does, not on the machine or the Python that it has."""
NOT_A_DEFINITION = frozenset({"about", "disturbed_by", "threshold"})
"""Fields of a metric that do not change what its values are."""
ROUNDING = 1e-9
"""Log ratios up to this are none: equal figures, added up in another order."""

SAME_MEMORY = 0.01
"""Two machines' memory (a fraction): a kernel keeps a few pages more or less to itself."""

OTHER_KIND = "another kind of machine"


class Difference(Struct, frozen=True):
    """A fact of the machine or of the installation that is not the same in both runs."""

    name: str
    base: str
    head: str


class Origin(Struct, frozen=True):
    """Where one of the runs comes from."""

    created: str
    commit: str
    """Empty where it is not known."""
    dirty: bool
    machine: str
    """Its kind."""


class Change(Struct, frozen=True, kw_only=True):
    """One row: what a figure was in the base, and what it is in the head."""

    kind: Kind
    scenario: str
    subject: str = ""
    """The contrast of a toggle ratio, the arm of anything else; empty where it is all of them."""
    metric: str = ""
    """Empty where it is all of them."""
    mode: Mode = "exact"
    unit: str = ""
    """Of `base` and `head`."""
    better: Better = "lower"
    base: float | None = None
    """Median; of a toggle ratio, the ratio."""
    head: float | None = None
    values: tuple[int, int] = (0, 0)
    """How many each run has; of a toggle ratio, pairs."""
    log_ratio: float | None = None
    """Of head to base."""
    interval: Interval | None = None
    """Of `log_ratio`; for `absolute` with the drift in it."""
    threshold: float = 0.0
    """Smallest change worth a verdict (a fraction); for `toggle ratio` with the drift in it."""
    margin: float = 0.0
    """Changes within it (a fraction) count as none."""
    exact: bool = False
    """Neither run's values vary, and they are compared as they are."""
    p: float = 1.0
    """One-sided p-value of no change, times what the rule's looks cost: held to `FALSE_ALARMS`
    by Holm's method. 1 where there is none."""
    verdict: Verdict = "not measured"
    gated: bool = False
    note: str = ""
    """Why there is no verdict, or why it is for information only."""


class RunDiff(Struct, frozen=True):
    """A base and a head, compared."""

    base: Origin
    head: Origin
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]

    @property
    def same_kind(self) -> bool:
        return self.base.machine == self.head.machine

    @property
    def gated(self) -> list[Change]:
        return [change for change in self.changes if change.gated]


def compare_runs(base: RunFile, head: RunFile) -> RunDiff:
    """Every row of both runs, scenario by scenario."""
    origins = _origin(base.header), _origin(head.header)
    same_kind = origins[0].machine == origins[1].machine
    found = list(_changes(_seen(base), _seen(head), same_kind))
    differences = tuple(_differences(base.header, head.header))
    return RunDiff(*origins, differences, tuple(_judged(found)))


def exit_code(found: RunDiff, *, strict: bool = False) -> int:
    """0 pass, 1 a gated regression, 4 nothing that is gated could be compared.

    3 with `strict` where a gated row is inconclusive or was not measured.
    """
    verdicts = {change.verdict for change in found.gated}
    if "regression" in verdicts:
        return 1
    if verdicts <= {"not measured"}:
        return 4
    return 3 if strict and verdicts & {"inconclusive", "not measured"} else 0


def drift_of_ratio(log_ratio: float, drift: float) -> float:
    """By how much a log ratio of on to off can move while both of its sides drift.

    Say that off = common + extra, and on = common. Where the two parts become faster by different
    factors, ln(on / off) moves by the share of the extra part, 1 - on / off, times the difference
    of the factors' logarithms (to the first order), which is no more than the drift. For the
    session of the module's docstring that is 0.12 times 0.37, or 4.5 %; with trajectories written
    in batches its ratio was 0.917 on the one machine and 0.878 on the other, 4.3 % less.
    """
    return -math.expm1(-abs(log_ratio)) * drift


# What is compared with what


class _Seen(Struct, frozen=True):
    """A run, ready to be asked."""

    header: Header
    rows: Mapping[RowKey, Row]
    contrasts: Mapping[str, Mapping[str, Contrast]]
    """By scenario and name, without A/A."""
    arms: Mapping[str, Mapping[str, Arm]]
    metrics: Mapping[str, Mapping[str, Metric]]
    values: Mapping[RowKey, Sequence[float]]
    """Of an arm, named in place of the contrast, from all pairs that count."""
    noise: Mapping[RowKey, Estimate | None]
    """What the A/A pairs say, under their own keys."""
    family: int


def _seen(run: RunFile) -> _Seen:
    header = run.header
    rows = rows_of(run.samples, header.cells, header.metrics)
    contrasts: dict[str, dict[str, Contrast]] = {name: {} for name in header.scenarios}
    arms: dict[str, dict[str, Arm]] = {name: {} for name in header.scenarios}
    metrics: dict[str, dict[str, Metric]] = {name: {} for name in header.scenarios}
    values: dict[RowKey, list[float]] = {}
    for cell in header.cells:
        if cell.confirms:
            continue
        name, contrast = cell.scenario, cell.contrast
        if contrast.name != NOISE_FLOOR:
            contrasts[name][contrast.name] = contrast
        for metric in cell.metrics:
            metrics[name][metric] = header.metrics[metric]
            row = rows[RowKey(name, contrast.name, metric)]
            for arm, side in ((contrast.a, row.a), (contrast.b, row.b)):
                if arms[name].setdefault(arm.name, arm).toggles == arm.toggles:
                    values.setdefault(RowKey(name, arm.name, metric), []).extend(side)
    noise = {key: estimate(row) for key, row in rows.items() if key.contrast == NOISE_FLOOR}
    return _Seen(header, rows, contrasts, arms, metrics, values, noise, len(rows) - len(noise))


def _changes(base: _Seen, head: _Seen, same_kind: bool) -> Iterator[Change]:
    for name, one_sided in _one_sided(base.header.scenarios, head.header.scenarios):
        yield Change(kind=one_sided, scenario=name)
    for name, used in base.header.scenarios.items():
        there = head.header.scenarios.get(name)
        if there is not None and there.digest != used.digest:
            yield Change(kind="incompatible", scenario=name, note="the scenario has changed")
        elif there is not None:
            yield from _of_scenario(name, base, head, same_kind)


def _one_sided(base: Iterable[str], head: Iterable[str]) -> Iterator[tuple[str, Kind]]:
    there, here = dict.fromkeys(base), dict.fromkeys(head)
    yield from ((name, "gone") for name in there if name not in here)
    yield from ((name, "new") for name in here if name not in there)


def _of_scenario(scenario: str, base: _Seen, head: _Seen, same_kind: bool) -> Iterator[Change]:
    for name, one_sided in _one_sided(base.metrics[scenario], head.metrics[scenario]):
        yield Change(kind=one_sided, scenario=scenario, metric=name)
    for name, one_sided in _one_sided(base.contrasts[scenario], head.contrasts[scenario]):
        yield Change(kind=one_sided, scenario=scenario, subject=name)
    metrics = []
    for name, metric in base.metrics[scenario].items():
        if name in head.metrics[scenario]:
            if why := _redefined(name, base.header, head.header):
                yield Change(kind="incompatible", scenario=scenario, metric=name, note=why)
            else:
                metrics.append(metric)
    arms = [
        name
        for name, arm in base.arms[scenario].items()
        # Where there are other toggles, the contrast is told of.
        if name in head.arms[scenario] and head.arms[scenario][name].toggles == arm.toggles
    ]
    shifts = {metric.name: _common_shift(scenario, metric, arms, base, head) for metric in metrics}
    yield from _ratios(scenario, metrics, shifts, base, head)
    for name in arms:
        for metric in metrics:
            yield _of_arm(RowKey(scenario, name, metric.name), metric, base, head, same_kind)


def _redefined(name: str, base: Header, head: Header) -> str:
    """Why values of this metric cannot be compared; empty where they can."""
    there, here = base.metrics[name], head.metrics[name]
    for field in Metric.__struct_fields__:
        if field not in NOT_A_DEFINITION and getattr(there, field) != getattr(here, field):
            return f"another definition of the metric ({field})"
    if base.rules.get(there.mode) != head.rules.get(there.mode):
        return "pairs were taken by another rule"
    return ""


def _common_shift(
    scenario: str, metric: Metric, arms: Iterable[str], base: _Seen, head: _Seen
) -> float:
    """By how much a metric is another one in all arms alike, as a log ratio without its sign.

    What moves the arms apart is no drift: 0 where they do not all move the same way.
    """
    keys = [RowKey(scenario, arm, metric.name) for arm in arms]
    sides = [(base.values.get(key, ()), head.values.get(key, ())) for key in keys]
    medians = [(median(there), median(here)) for there, here in sides if there and here]
    shifts = [math.log(here) - math.log(there) for there, here in medians if min(there, here) > 0]
    apart = not shifts or min(shifts) < 0 < max(shifts)
    return 0.0 if apart else min(map(abs, shifts))


def _ratios(
    scenario: str,
    metrics: Sequence[Metric],
    shifts: Mapping[str, float],
    base: _Seen,
    head: _Seen,
) -> Iterator[Change]:
    # A machine that computes faster does not wait faster: each time tells of the drift of all.
    of_times = max((shifts[each.name] for each in metrics if _is_time(each)), default=0.0)
    for name, contrast in base.contrasts[scenario].items():
        like = head.contrasts[scenario].get(name)
        if like is None:
            continue
        if (like.a.toggles, like.b.toggles) != (contrast.a.toggles, contrast.b.toggles):
            note = "its sides have other toggles"
            yield Change(kind="incompatible", scenario=scenario, subject=name, note=note)
            continue
        for metric in metrics:
            key = RowKey(scenario, name, metric.name)
            if metric.mode != "exact" and (key in base.rows or key in head.rows):
                seen = of_times if _is_time(metric) else shifts[metric.name]
                drift = max(_least_drift(metric), seen)
                yield _toggle_ratio(key, metric, drift, base, head)


# One row


def _toggle_ratio(key: RowKey, metric: Metric, drift: float, base: _Seen, head: _Seen) -> Change:
    change = Change(
        kind="toggle ratio",
        scenario=key.scenario,
        subject=key.contrast,
        metric=key.metric,
        mode=metric.mode,
        better=metric.better,
    )
    there, here = base.rows.get(key), head.rows.get(key)
    if there is None or here is None:
        return replace(change, note="planned in one of the runs only")
    standings = {standing(_noise(key, run), metric, run.family) for run in (base, head)}
    noisy = "too noisy" in standings
    change = replace(
        change,
        values=(len(there.a), len(here.a)),
        gated=not noisy,
        note="too noisy in one of the runs" if noisy else "",
    )
    if "sides differ" in standings:
        return replace(change, note="equal sides do not come out equal in one of the runs")
    fits = _fits((there, here))
    if fits is None:
        return replace(change, note="no pair, or values of zero, in one of the runs")
    share = max(fits, key=lambda fit: abs(fit.mean)).mean
    own = max(bounds_of(row, len(row.a))[0] for row in (there, here))
    ratios = [math.exp(min(fit.mean, MAX_LOG)) for fit in fits]
    change = replace(change, base=ratios[0], head=ratios[1])
    return _estimated(change, fits, own + drift_of_ratio(share, drift))


def _of_arm(key: RowKey, metric: Metric, base: _Seen, head: _Seen, same_kind: bool) -> Change:
    kind = _kind_in_arm(metric)
    travels = same_kind or (kind == "counter" and metric.name in TRAVELLING)
    there, here = base.values.get(key, ()), head.values.get(key, ())
    change = Change(
        kind=kind,
        scenario=key.scenario,
        subject=key.contrast,
        metric=key.metric,
        mode=metric.mode,
        unit=metric.unit,
        better=metric.better,
        values=(len(there), len(here)),
        gated=travels and kind != "absolute",
        note="" if travels else OTHER_KIND,
    )
    if not there or not here:
        return replace(change, note="no value in one of the runs")
    change = replace(change, base=median(there), head=median(here))
    definitions = [run.header.metrics[metric.name] for run in (base, head)]
    minimum = min(map(metric_minimum, definitions, (there, here)))
    if kind == "counter" and len({*there}) == len({*here}) == 1:
        return _counted(change, here[0] - there[0], minimum)
    # Beside a column of ones, ratios are the values themselves.
    fits = _fits([Row(a=(1.0,) * len(b), b=tuple(b), rule=rule_of(metric)) for b in (there, here)])
    if fits is None:
        return replace(change, note="values of zero have no ratio")
    if kind == "absolute" and not travels:
        mean = fits[1].mean - fits[0].mean
        return replace(change, log_ratio=mean, verdict="inconclusive")
    least = MEMORY_DRIFT if kind == "memory" else 0.0
    of_minimum = minimum / min(median(there), median(here))
    threshold = max(least, of_minimum, *map(metric_threshold, definitions))
    drift = _drift(key, metric, (base, head)) if kind == "absolute" else 0.0
    return _estimated(change, fits, threshold, drift)


def _kind_in_arm(metric: Metric) -> Kind:
    if metric.mode == "exact":
        return "counter"
    return "memory" if metric.name in MEMORY else "absolute"


def _noise(key: RowKey, run: _Seen) -> Estimate | None:
    return run.noise.get(key._replace(contrast=NOISE_FLOOR))


def _is_time(metric: Metric) -> bool:
    """Or a rate."""
    return metric.unit not in ("", "B")


def _least_drift(metric: Metric) -> float:
    return TIME_DRIFT if _is_time(metric) else MEMORY_DRIFT


def _drift(key: RowKey, metric: Metric, runs: Iterable[_Seen]) -> float:
    """Between two days, as a standard deviation: never less than from one minute to the next."""
    seen = [found.sd for run in runs if (found := _noise(key, run)) is not None]
    return min(MAX_NOISE, max([_least_drift(metric), *seen]))


def _fits(rows: Sequence[Row]) -> tuple[Fit, Fit] | None:
    """None where one of them has no value, or none that has a logarithm."""
    if not all(row.a for row in rows):
        return None
    there, here = (fit_row(row, len(row.a)) for row in rows)
    return None if there is None or here is None else (there, here)


def _counted(change: Change, difference: float, minimum: float) -> Change:
    """Counts that do not vary."""
    if min(change.values) < MIN_COUNTED:
        return replace(change, verdict="inconclusive", note="a single value may vary")
    same = abs(difference) <= minimum
    verdict = "equivalent" if same else _direction(difference, change.better)
    return replace(change, exact=True, p=0.0 if difference else 1.0, verdict=verdict)


def _estimated(
    change: Change, fits: tuple[Fit, Fit], threshold: float, drift: float = 0.0
) -> Change:
    """With all that its verdict needs. `drift` is that of each run, of which there are two."""
    there, here = fits
    rule = RULES[change.mode]
    mean = here.mean - there.mean
    change = replace(
        change,
        log_ratio=mean if abs(mean) > ROUNDING else 0.0,
        threshold=threshold,
        margin=threshold + rule.margin - rule.threshold,
        verdict="inconclusive",
    )
    least = rule.looks[0]
    if min(change.values) < least:
        return replace(change, note=change.note or f"a verdict takes {least} values of each run")
    error, df = welch_satterthwaite(
        [(there.error, there.df), (here.error, here.df), *[(drift, DRIFT_DF)] * 2]
    )
    # Where nothing varies there is no spread to divide by, and no doubt either.
    half, tail = 0.0, float(change.log_ratio == 0)
    if error:
        half = error * t_quantile(rule.alpha_equivalence / len(rule.looks), df)
        tail = t_tail(abs(mean) / error, df)
    return replace(
        change,
        interval=Interval(mean - half, mean + half),
        p=min(1.0, tail * FALSE_ALARMS / rule.level),
    )


# All rows together


def _judged(found: Sequence[Change]) -> Iterator[Change]:
    """Verdicts of all rows that have an interval; the others have theirs, or none."""
    family = [change for change in found if change.gated and not change.exact]
    limits = {
        direction: holm_limit(
            (change.p if _points(change) == direction else 1.0 for change in family), FALSE_ALARMS
        )
        for direction in ("regression", "improvement")
    }
    for change in found:
        if change.interval is None:
            yield change
            continue
        limit = limits[_points(change)] if change.gated else FALSE_ALARMS / max(1, len(family))
        yield replace(change, verdict=_verdict(change, change.interval, limit))


def _verdict(change: Change, interval: Interval, limit: float) -> Verdict:
    large = abs(change.log_ratio or 0.0) >= math.log1p(change.threshold)
    if large and change.p <= limit:
        return _points(change)
    margin = math.log1p(change.margin)
    return "equivalent" if -margin <= interval.low <= interval.high <= margin else "inconclusive"


def _points(change: Change) -> Direction:
    """Where the change points, were there one."""
    return _direction(change.log_ratio or 0.0, change.better)


def _direction(change: float, better: Better) -> Direction:
    worse = change > 0 if better == "lower" else change < 0
    return "regression" if worse else "improvement"


# Where the runs come from


def _origin(header: Header) -> Origin:
    return Origin(
        created=header.created,
        commit=str(header.code.get("commit") or ""),
        dirty=header.code.get("dirty") is True,
        machine=kind_of(header.machine),
    )


def _differences(base: Header, head: Header) -> Iterator[Difference]:
    for missing, there, here in (
        ("unknown", base.machine, head.machine),
        ("not installed", base.versions, head.versions),
    ):
        for name in {**there, **here}:
            if name not in CHANGING and not _alike(name, there.get(name), here.get(name)):
                said = (str(facts.get(name, missing)) for facts in (there, here))
                yield Difference(name, *said)


def _alike(name: str, there: object, here: object) -> bool:
    if name == "memory" and isinstance(there, int) and isinstance(here, int):
        return abs(there - here) <= SAME_MEMORY * max(there, here)
    return there == here
