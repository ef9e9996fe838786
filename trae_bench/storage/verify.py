"""Does a run file hold together? All that follows from its samples is worked out again.

A run file comes from somebody who wants to be believed. `verify` compares what the file
concludes with what its samples give, the samples with the plan that they must follow, and
both with what is possible at all. What it cannot see is in `CANNOT_TELL`.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, pairwise
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trae_bench.design.cells import confirming, trials
from trae_bench.design.contrasts import NOISE_FLOOR, design_names, is_fixed
from trae_bench.design.limits import limits_of
from trae_bench.metrics import METRICS, taken
from trae_bench.model.experiment import Arm, Cell, Contrast
from trae_bench.model.run import Header, RunFile
from trae_bench.model.sample import Sample
from trae_bench.scenario.measurable import IN_PROCESS_METRICS
from trae_bench.stats.analysis import (
    CellKey,
    PairOfSamples,
    comparisons,
    group,
    key_of,
    key_of_sample,
    noise_floor,
    pair_outcome,
    rows_for,
    to_confirm,
    wanted,
)
from trae_bench.stats.decision import RULES
from trae_bench.stats.stopping import GIVE_UP, NOISE_SHARE, asking, target
from trae_bench.storage.run_file import seal_fits

CANNOT_TELL = (
    "samples that were made up, all of one piece, seal included",
    "the best of several runs, or pairs left off the end of a run that was broken off",
    "comparisons that were planned and measured, and taken out whole",
    "whether the machine, the commit and the scenario were those that the file names",
)
"""What no look at the file alone can find out: measure again for that."""

MAX_TOLD = 5
"""Inconsistencies of one kind that are told; the rest is counted."""

# An honest file is exact to the last bit where it was written; another machine's library may
# round a logarithm the other way.
RELATIVE, ABSOLUTE = 1e-9, 1e-15
CLOCK_SLACK = 0.005
"""Seconds by which one process may seem to start before the last one has ended."""
NEARLY = 0.9
"""Of the time for A/A pairs must have been spent where they ended for want of it: the rest went
before the first sample, and is not in the samples."""
CPU_SLACK = 0.05
"""Seconds; some kernels charge processor time by ticks of 4 to 10 ms, in two accounts."""
MIN_RSS = 1_000_000
"""Bytes; nothing that talks HTTP is smaller."""
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(days=1)

NOT_WHOLE = frozenset({"step_overhead_growth", "correct_results"})
"""Metrics without a unit that are no count."""

MAY_SHRINK = frozenset({"memory_growth", "memory_per_hour"})

Weight = Literal["wrong", "odd"]


class Inconsistency(Struct, frozen=True):
    """Something in a run file that does not fit."""

    weight: Weight
    """`wrong`: it contradicts the rest of the file. `odd`: a reader should know of it."""
    place: str
    said: str

    def __str__(self) -> str:
        return f"{self.weight}: {self.place}: {self.said}"


Inconsistencies = Iterator[Inconsistency]


def verify(run: RunFile, *, now: datetime | None = None) -> list[Inconsistency]:
    """All that does not fit, contradictions first; empty for a file that holds together."""
    today = now or datetime.now(UTC)
    checks: tuple[Callable[[], Inconsistencies], ...] = (
        lambda: _seal(run),
        lambda: _dates(run, today),
        lambda: _definitions(run),
        lambda: _plan(run),
        lambda: _design(run),
        lambda: _places(run),
        lambda: _order(run),
        lambda: _clock(run),
        lambda: _answers(run),
        lambda: _figures(run),
        lambda: _ending(run),
        lambda: _noise(run),
        lambda: _conclusions(run),
    )
    found = [finding for check in checks for finding in _capped(check())]
    return sorted(found, key=lambda finding: finding.weight != "wrong")


def origin(run: RunFile) -> tuple[str, ...]:
    """Where the figures say they come from: time, commit, machine, versions."""
    header = run.header
    commit = header.code.get("commit") or "unknown"
    state = {
        "True": ", with changes that are not committed",
        "False": ", all of it committed",
    }.get(str(header.code.get("dirty")), ", whether all was committed is unknown")
    facts = header.machine
    known = [str(facts[name]) for name in ("cpu", "system", "kernel") if facts.get(name)]
    if facts.get("cores"):
        known.insert(1, f"{facts['cores']} cores")
    if facts.get("virtual"):
        known.append("virtual")
    return (
        f"measured: {header.created}, stopped: {run.stopped}",
        f"commit: {commit}{state}",
        *_compared(header),
        f"machine: {', '.join(known) or 'unknown'}",
        f"versions: trae-bench {header.versions.get('trae-bench', 'unknown')}, "
        f"python {facts.get('python', 'unknown')}",
    )


def _compared(header: Header) -> tuple[str, ...]:
    if (both := header.compared) is None:
        return ()
    state = ", with changes that are not committed" if both.changed else ""
    return (
        f"base: {both.base_commit} ({both.said})",
        f"head: {both.head_commit}{state}",
        *(f"new, the base cannot run it: {name}" for name in both.new),
    )


def _capped(findings: Inconsistencies) -> Inconsistencies:
    yield from islice(findings, MAX_TOLD)
    # Counted, not kept: a file of a stranger can have a million of them.
    weights = [0, 0]
    for finding in findings:
        weights[finding.weight == "odd"] += 1
    if any(weights):
        yield Inconsistency(
            "wrong" if weights[0] else "odd", "and more", f"{sum(weights):,} of this kind"
        )


# -- the file as a whole ----------------------------------------------------------------


def _seal(run: RunFile) -> Inconsistencies:
    if not run.seal:
        yield Inconsistency(
            "wrong", "seal", "there is none: not written by trae-bench, or taken off"
        )
    elif not seal_fits(run):
        yield Inconsistency("wrong", "seal", "does not fit: something was changed after the run")


def _dates(run: RunFile, today: datetime) -> Inconsistencies:
    last = FIRST_DAY
    stretches = [("header.created", run.header.created)]
    stretches += [(f"resumed[{n}].created", one.created) for n, one in enumerate(run.resumed)]
    for place, text in stretches:
        date = _date(text)
        if date is None:
            yield Inconsistency("wrong", place, f"{text!r} is no time with a time zone")
        elif date > today + CLOCKS_DIFFER:
            yield Inconsistency("wrong", place, f"{text} is in the future")
        elif date < last:
            # Between two stretches a clock may be set back, by hours.
            set_back = last != FIRST_DAY and last - date < CLOCKS_DIFFER
            weight: Weight = "odd" if set_back else "wrong"
            yield Inconsistency(weight, place, f"{text} is before {last.isoformat()}")
        else:
            last = date


def _date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
        return date.astimezone(UTC) if date.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _definitions(run: RunFile) -> Inconsistencies:
    """Metrics and rules are part of the release; a verdict by others means something else."""
    # Where the machine cannot pin processes, what a duet is for may have been taken serially.
    as_taken = taken(pinned=bool(run.header.machine.get("cores_usable")))
    for name, metric in run.header.metrics.items():
        place = f"header.metrics[{name!r}]"
        known = METRICS.get(name)
        if known is None:
            yield Inconsistency("odd", place, "this release has no such metric")
            continue
        if metric.mode == as_taken[name].mode:
            known = as_taken[name]
        for field in ("name", "unit", "better", "mode", "probe"):
            here, there = getattr(known, field), getattr(metric, field)
            if here != there:
                yield Inconsistency(
                    "wrong", place, f"{field} is {there!r}, in this release {here!r}"
                )
        if metric.threshold is not None:
            said = f"verdicts on it were asked for from {metric.threshold:g} on only"
            yield Inconsistency("odd", place, said)
    for mode in sorted({m.mode for m in run.header.metrics.values()} - run.header.rules.keys()):
        yield Inconsistency("wrong", "header.rules", f"there is none for {mode} metrics")
    for mode, rule in run.header.rules.items():
        if rule != RULES[mode]:
            said = "not this release's, so that verdicts cannot be worked out again"
            yield Inconsistency("wrong", f"header.rules[{mode!r}]", f"{rule.name} is {said}")


def _plan(run: RunFile) -> Inconsistencies:
    seen: set[tuple[str, ...]] = set()
    planned = {key_of(cell): cell for cell in run.header.cells}
    for number, cell in enumerate(run.header.cells):
        place = f"header.cells[{number}]"
        contrast = cell.contrast
        if contrast.scenario != cell.scenario:
            yield Inconsistency("wrong", place, "its contrast is of another scenario")
        if (contrast.name == NOISE_FLOOR) != (contrast.a == contrast.b):
            yield Inconsistency(
                "wrong", place, f"{contrast.name!r} has the wrong sides for its name"
            )
        yield from _sides(run.header, cell, planned, place)
        if tuple(key_of(cell)) in seen:
            yield Inconsistency("wrong", place, "planned twice")
        seen.add(tuple(key_of(cell)))
        for name in cell.metrics:
            if (cell.scenario, contrast.name, "metric", name) in seen:
                yield Inconsistency("wrong", place, f"{name!r} is planned twice")
            seen.add((cell.scenario, contrast.name, "metric", name))
            metric = run.header.metrics[name]
            if (metric.mode == "serial") != (cell.mode == "serial"):
                yield Inconsistency(
                    "wrong", place, f"{name!r} is not measured in {cell.mode} pairs"
                )
            if metric.probe != cell.probe:
                yield Inconsistency("wrong", place, f"{name!r} is not measured with that probe")


def _sides(
    header: Header, cell: Cell, planned: Mapping[CellKey, Cell], place: str
) -> Inconsistencies:
    """Two revisions are those of the header; fresh pairs are like those that they confirm."""
    compared, contrast, key = header.compared, cell.contrast, key_of(cell)
    revisions = {contrast.a.revision, contrast.b.revision}
    if not revisions <= ({None} if compared is None else {compared.base, compared.head}):
        yield Inconsistency("wrong", place, "compares revisions that the header does not name")
    if cell.confirms:
        found = planned.get(key._replace(contrast=cell.confirms))
        if found is None or found.confirms or confirming(found) != cell:
            yield Inconsistency("wrong", place, f"confirms {cell.confirms!r}, but is not like it")
        return
    if compared is None or contrast.name == NOISE_FLOOR:
        return
    if (contrast.a.revision, contrast.b.revision) != (compared.base, compared.head):
        yield Inconsistency("wrong", place, "its sides are not base and head")
    if planned.get(key_of(confirming(cell))) != confirming(cell):
        yield Inconsistency("wrong", place, "its regressions need no confirmation")


def _design(run: RunFile) -> Inconsistencies:
    """Contrasts are called by the toggles that tell their arms apart, and are of the design."""
    header = run.header
    if header.design not in design_names():
        yield Inconsistency(
            "wrong", "header.design", f"this release has no design {header.design!r}"
        )
    compared: dict[str, list[tuple[int, Contrast]]] = {}
    for number, cell in enumerate(header.cells):
        if cell.contrast.name != NOISE_FLOOR and header.compared is None:
            compared.setdefault(cell.scenario, []).append((number, cell.contrast))
    for scenario, contrasts in compared.items():
        most = max(len(_called(each.b)) for _, each in contrasts)
        held = {_held(arm) for _, each in contrasts for arm in (each.a, each.b)}
        for number, contrast in contrasts:
            if len(held) > 1 or contrast.name not in _names(contrast):
                said = f"{contrast.name!r} is not what its toggles are called"
            elif not _belongs(contrast, header.design, most):
                said = f"{contrast.name!r} is no contrast of the design {header.design}"
            else:
                continue
            yield Inconsistency("wrong", f"header.cells[{number}]", said)
        if is_fixed(header.design) and most == 1 < len({each.name for _, each in contrasts}):
            said = f"the design is {header.design}, but no run of {scenario} has two toggles on"
            yield Inconsistency("odd", "header.design", said)


def _called(arm: Arm) -> tuple[str, ...]:
    """The toggles that an arm is called by."""
    return () if arm.name == "none" else tuple(arm.name.split("+"))


def _held(arm: Arm) -> frozenset[str] | None:
    """Toggles that are on and not named, the same in all arms of a scenario; None where one
    that is named is not on."""
    on, named = {name for name, on in arm.toggles.items() if on}, set(_called(arm))
    return frozenset(on - named) if named <= on else None


def _names(contrast: Contrast) -> set[str]:
    """What a contrast of these arms may be called."""
    a, b = set(_called(contrast.a)), set(_called(contrast.b))
    alone = {contrast.b.name, "all"} if b and not a else set()
    last = {f"{name}@last" for name in b - a} if a < b and len(b - a) == 1 else set()
    return alone | last


def _belongs(contrast: Contrast, design: str, most: int) -> bool:
    """`most` is how many toggles are on in some contrast of the same scenario."""
    count = len(_called(contrast.b))
    last, whole = contrast.name.endswith("@last"), contrast.name == "all" and count == most
    single = not last and count == 1 and contrast.name == contrast.b.name
    among = {"add-one": single, "remove-one": last, "both": single or last or whole}
    return among.get(design, contrast.name == contrast.b.name)


# -- samples against the plan -----------------------------------------------------------


def _places(run: RunFile) -> Inconsistencies:
    """Each sample is where the plan and the seed put it, once."""
    cells = {key_of(cell): cell for cell in run.header.cells}
    planned: dict[tuple[CellKey, int], dict[str, tuple[int, str]]] = {}
    seen = set()
    for number, sample in enumerate(run.samples):
        place, key = f"samples[{number}]", key_of_sample(sample)
        if key not in cells:
            yield Inconsistency("wrong", place, "the plan has no place for it")
            continue
        if (key, sample.pair, sample.side) in seen:
            yield Inconsistency(
                "wrong", place, f"pair {sample.pair} has its side {sample.side} twice"
            )
        seen.add((key, sample.pair, sample.side))
        if (key, sample.pair) not in planned:
            pair = trials(cells[key], sample.pair, run.header.seed)
            planned[key, sample.pair] = {one.side: (one.slot, one.arm.name) for one in pair}
        slot, arm = planned[key, sample.pair][sample.side]
        if sample.slot != slot:
            said = f"started in slot {sample.slot}, by the plan and the seed in {slot}"
            yield Inconsistency("wrong", place, said)
        if sample.arm != arm:
            yield Inconsistency("wrong", place, f"is of {sample.arm!r}, its side is {arm!r}")


def _order(run: RunFile) -> Inconsistencies:
    """The pairs of a cell are numbered from 0 as they were taken, without a gap, and have both
    sides; the noise was known before there was anything to judge."""
    began = False
    for number, sample in enumerate(run.samples):
        began = began or sample.contrast != NOISE_FLOOR
        if began and sample.contrast == NOISE_FLOOR:
            yield Inconsistency(
                "odd", f"samples[{number}]", "of an A/A pair, taken after other pairs"
            )
    last: dict[CellKey, int] = {}
    for number, sample in enumerate(run.samples):
        before = last.setdefault(key_of_sample(sample), 0)
        if sample.pair < before:
            said = f"pair {sample.pair} was taken after pair {before} of its kind"
            yield Inconsistency("wrong", f"samples[{number}]", said)
        last[key_of_sample(sample)] = max(sample.pair, before)
    for key, pairs in group(run.samples).items():
        place = f"pairs of {key.scenario}, {key.contrast} ({key.mode})"
        numbers = sorted(pairs)
        if numbers[0] != 0:
            yield Inconsistency("wrong", place, f"begin with {numbers[0]}")
        for before, after in pairwise(numbers):
            if after != before + 1:
                yield Inconsistency("wrong", place, f"{before} is followed by {after}")
        for number in numbers:
            if None in pairs[number]:
                yield Inconsistency("wrong", place, f"{number} has one side only")


class _Batch(Struct, frozen=True):
    """Samples that ran together: one, or the two of a duet."""

    number: int
    """Of the first sample."""
    start: float
    end: float


def _clock(run: RunFile) -> Inconsistencies:
    """One after the other, sides of a duet at once, all within the time that was spent."""
    batches = []
    for number, samples in _together(run.samples):
        place = f"samples[{number}]"
        first, last = samples[0], samples[-1]
        if last.started < first.started:
            yield Inconsistency("wrong", place, "slot 1 was started before slot 0")
        if len(samples) > 1 and first.pid == last.pid and not ran_in_process(first):
            yield Inconsistency("wrong", place, f"both sides ran in process {first.pid}")
        if len(samples) > 1 and "wall" in first.metrics and last.started >= _end(first):
            yield Inconsistency("wrong", place, "one side had ended before the other began")
        ends = (_end(sample) for sample in samples)
        batches.append(_Batch(number, first.started, max(ends)))
    breaks = len(run.resumed)
    for before, after in pairwise(batches):
        if after.start < before.start and breaks:
            # Gone on with after the machine was started again: its clock began anew.
            breaks -= 1
        elif after.start < before.end - CLOCK_SLACK:
            said = f"started {before.end - after.start:.3g} s before the one before it had ended"
            yield Inconsistency("wrong", f"samples[{after.number}]", said)
    yield from _spent(run, batches)


def _together(samples: Sequence[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    def batch(item: tuple[int, Sample]) -> tuple[object, ...]:
        number, sample = item
        own = number if sample.mode == "serial" else -1
        return (*key_of_sample(sample), sample.pair, own)

    for _, items in groupby(enumerate(samples), key=batch):
        both = list(items)
        yield both[0][0], [sample for _, sample in both]


def ran_in_process(sample: Sample) -> bool:
    """Return True for a trial of the in-process executor: no exit status, few metrics.

    Both sides of such a pair run in one process, one after the other.
    """
    return sample.exit_status is None and sample.metrics.keys() <= IN_PROCESS_METRICS


def _end(sample: Sample) -> float:
    return sample.started + max(0.0, sample.metrics.get("wall", 0.0))


def _spent(run: RunFile, batches: Sequence[_Batch]) -> Inconsistencies:
    if not batches:
        return
    least = sum(batch.end - batch.start for batch in batches)
    if not run.resumed:
        least = max(least, batches[-1].end - batches[0].start)
    if run.elapsed < least - CLOCK_SLACK:
        said = f"{run.elapsed:.6g} s, but the samples took {least:.6g} s"
        yield Inconsistency("wrong", "elapsed", said)
    if min(batch.start for batch in batches) < 0:
        yield Inconsistency("wrong", "samples", "started before the clock did")


# -- each sample ------------------------------------------------------------------------

_DIGEST = re.compile(r"\S+")


def _answers(run: RunFile) -> Inconsistencies:
    """Status, exit, digests and problem tell the same story."""
    for number, sample in enumerate(run.samples):
        place = f"samples[{number}]"
        digests = [_DIGEST.fullmatch(text) for text in (sample.transcript, sample.workspace)]
        if sample.status == "ok":
            if sample.exit_status != 0 and not ran_in_process(sample):
                yield Inconsistency("wrong", place, f"ok with exit status {sample.exit_status}")
            if not all(digests):
                yield Inconsistency("wrong", place, "ok without a digest of its answer")
            if sample.correct != (sample.problem is None):
                yield Inconsistency("wrong", place, "is either correct or has a problem")
        elif sample.correct or any(digests):
            yield Inconsistency("wrong", place, f"{sample.status}, but has an answer")
        elif sample.problem is None:
            yield Inconsistency("wrong", place, f"{sample.status}, nobody knows why")


def _figures(run: RunFile) -> Inconsistencies:
    """No figure is impossible, alone or beside the others of its sample."""
    cores = run.header.machine.get("cores")
    many = cores if isinstance(cores, int) and cores > 0 else 4096
    memory = run.header.machine.get("memory")
    most_rss = memory if isinstance(memory, int) and memory > 0 else math.inf
    for number, sample in enumerate(run.samples):
        for said in _impossible(sample.metrics, many, most_rss):
            yield Inconsistency("wrong", f"samples[{number}].metrics", said)
    for number, samples in _together(run.samples):
        # Both sides of a duet share one core, where processes can be pinned.
        if len(samples) < 2 or not run.header.machine.get("cores_usable"):
            continue
        if ran_in_process(samples[0]):
            continue
        cpu = sum(sample.metrics.get("cpu", 0.0) for sample in samples)
        span = max(map(_end, samples)) - samples[0].started
        if cpu > span * 1.05 + CPU_SLACK:
            said = f"{cpu:.4g} s of processor time in {span:.4g} s on one core"
            yield Inconsistency("odd", f"samples[{number}]", said)


def _impossible(metrics: Mapping[str, float], cores: int, most_rss: float) -> Iterator[str]:
    for name, value in metrics.items():
        known = METRICS.get(name)
        counted = known is not None and known.unit in ("", "B") and name not in NOT_WHOLE
        if value < 0 and name not in MAY_SHRINK:
            yield f"{name} is negative"
        elif counted and value != int(value):
            yield f"{name} is {value:.17g}, which is no whole number"
        if name in ("peak_rss", "agent_rss") and not MIN_RSS < value <= most_rss:
            yield f"{name} is {value:.6g} bytes"
    cpu, wall = metrics.get("cpu"), metrics.get("wall")
    if cpu is not None and "cpu_user" in metrics and "cpu_system" in metrics:
        parts = metrics["cpu_user"] + metrics["cpu_system"]
        if not _close(cpu, parts):
            yield f"cpu is {cpu:.6g} s, its parts are {parts:.6g} s"
    if wall is None:
        return
    if cpu is not None and cpu > wall * cores * 1.01 + CPU_SLACK:
        yield f"{cpu:.4g} s of processor time in {wall:.4g} s on {cores} cores"
    for part in ("time_to_first_request", "time_to_first_answer", "blocked"):
        seconds = metrics.get(part, 0.0)
        if seconds > max(wall, 0.0) + CLOCK_SLACK:
            yield f"{part} is {seconds:.4g} s of {wall:.4g} s"


# -- conclusions ------------------------------------------------------------------------


def _ending(run: RunFile) -> Inconsistencies:
    """No cell took more pairs than planned; `done` is said only where none wanted another."""
    limits = limits_of(run.header)
    grouped, found = group(run.samples), to_confirm(run.comparisons)
    unsettled = asking(run.comparisons, limits)
    for cell in run.header.cells:
        place = f"pairs of {cell.scenario}, {cell.contrast.name} ({cell.mode})"
        counted, lost = _fates(grouped.get(key_of(cell), {}))
        most, fresh = target(cell, limits, run.header.metrics), wanted(cell, found)
        # More fresh pairs than wanted are fair: those of other rows can move the look that asked.
        limit = most if fresh or not cell.confirms else 0
        if counted > limit:
            yield Inconsistency("wrong", place, f"{counted} counted, {limit} were planned at most")
        if cell.confirms:
            most = fresh
        # Noise ends early where it would take too much of the budget.
        given_up = lost - counted >= GIVE_UP or cell.contrast.name == NOISE_FLOOR
        if run.stopped != "done" or counted >= most or given_up:
            continue
        if cell.confirms or not counted or not unsettled.isdisjoint(rows_for(cell)):
            said = f"the run says it was done, after {counted} of {most} pairs without an answer"
            yield Inconsistency("wrong", place, said)


def _noise(run: RunFile) -> Inconsistencies:
    """A/A pairs were planned for all that is judged, and none is missing that there was time for:
    which rows are gated, and what is believed of them, hangs on these pairs."""
    header = run.header
    if run.stopped == "budget" and header.budget is None:
        yield Inconsistency("wrong", "stopped", "its budget was spent, but it had none")
    if not header.noise_pairs:
        return
    floors = {key_of(cell): cell for cell in header.cells if cell.contrast.name == NOISE_FLOOR}
    for number, cell in enumerate(header.cells):
        floor = floors.get(key_of(cell)._replace(contrast=NOISE_FLOOR))
        for name in () if cell.confirms else cell.metrics:
            if floor is None or name not in floor.metrics:
                said = f"{name!r} has no A/A pairs planned beside it"
                yield Inconsistency("wrong", f"header.cells[{number}]", said)
    if _ended_for_time(run):
        return
    grouped, limits = group(run.samples), limits_of(header)
    for key, cell in floors.items():
        counted, lost = _fates(grouped.get(key, {}))
        most = target(cell, limits, header.metrics)
        if counted < most and lost - counted < GIVE_UP:
            place = f"pairs of {cell.scenario}, {cell.contrast.name} ({cell.mode})"
            said = f"{counted} of {most} were counted, though there was time for more"
            yield Inconsistency("wrong", place, said)


def _ended_for_time(run: RunFile) -> bool:
    """A/A pairs may have ended early: for their share of the budget, or with the run itself."""
    budget = run.header.budget
    others = (one for one in run.samples if one.contrast != NOISE_FLOOR)
    first = next(others, None)
    if first is None or run.resumed:
        # Whatever was taken when it was broken off, and for how long, no sample tells.
        return run.stopped != "done" or bool(run.resumed)
    spent = first.started - run.samples[0].started
    return budget is not None and spent > NOISE_SHARE * budget * NEARLY


def _fates(pairs: Mapping[int, PairOfSamples]) -> tuple[int, int]:
    """Pairs that count, and pairs that were lost, the warming one included there."""
    fates = {number: pair_outcome(*pair)[0] == "measured" for number, pair in pairs.items()}
    return (
        sum(good for number, good in fates.items() if number > 0),
        sum(not good for good in fates.values()),
    )


def _conclusions(run: RunFile) -> Inconsistencies:
    """Rows and noise, worked out again from the samples."""
    rows = comparisons(run.samples, run.header.cells, run.header.metrics)
    yield from _differing("comparisons", rows, run.comparisons)
    yield from _differing("noise", noise_floor(rows, run.header.metrics), run.noise)


def _differing(name: str, expected: Sequence[Any], found: Sequence[Any]) -> Inconsistencies:
    if len(expected) != len(found):
        yield Inconsistency(
            "wrong", name, f"{len(found)} of them, {len(expected)} from the samples"
        )
    for number, (should, does) in enumerate(zip(expected, found, strict=False)):
        if should == does:
            continue
        row = ", ".join(str(getattr(does, key, "")) for key in ("scenario", "contrast", "metric"))
        for path, a, b in _leaves(msgspec.to_builtins(should), msgspec.to_builtins(does), ""):
            place = f"{name}[{number}]{path} ({row})"
            yield Inconsistency("wrong", place, f"{b!r} in the file, {a!r} from the samples")


def _leaves(should: Any, does: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Places at which two plain values differ by more than rounding."""
    if isinstance(should, dict) and isinstance(does, dict):
        for key in should:
            yield from _leaves(should[key], does.get(key), f"{path}.{key}")
    elif isinstance(should, float) and isinstance(does, float | int):
        if not _close(should, does):
            yield path, should, does
    elif should != does:
        yield path, should, does


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
