"""Checks of a run file's samples: against the plan, the clock and what is possible."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from msgspec import Struct

from trae_bench.design.cells import first_side
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS, NET_METRICS, plain_metric
from trae_bench.model.experiment import Side
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.scenario.measurable import IN_PROCESS_METRICS
from trae_bench.stats.pairs import CellKey, group_samples, key_of, key_of_sample
from trae_bench.storage.verify.inconsistency import Inconsistencies, odd, wrong

CLOCK_SLACK = 0.005
"""Seconds by which a process may seem to start before the previous one has ended."""
CPU_SLACK = 0.05
"""Seconds. Some kernels count CPU time in ticks of 4 to 10 ms, in two accounts."""
MIN_RSS = 1_000_000
"""Bytes. No process that speaks HTTP is smaller."""
PAGE = 4096
"""Bytes. The kernel counts resident memory in pages of this size or a multiple of it."""
NOT_WHOLE = frozenset({"step_overhead_growth", "correct_results", "prefix_reuse", "bytes_per_step"})
"""Shares, and means of counts."""
MAY_SHRINK = frozenset({"memory_growth", "memory_per_hour"})


def check_places(run: RunFile) -> Inconsistencies:
    """The plan and the seed have a place for each sample, and each place has one sample."""
    cells = {key_of(cell): cell for cell in run.header.cells}
    first: dict[tuple[CellKey, int], Side] = {}
    seen = set()
    for number, sample in enumerate(run.samples):
        place, key = f"samples[{number}]", key_of_sample(sample)
        if key not in cells:
            yield wrong(place, "is not in the plan")
            continue
        if (key, sample.pair, sample.side) in seen:
            yield wrong(place, f"pair {sample.pair} has its side {sample.side} twice")
        seen.add((key, sample.pair, sample.side))
        cell, pair = cells[key], (key, sample.pair)
        if pair not in first:
            first[pair] = first_side(cell, sample.pair, run.header.seed)
        slot = int(sample.side != first[pair])
        arm = (cell.contrast.a if sample.side == "A" else cell.contrast.b).name
        if sample.slot != slot:
            yield wrong(place, f"started in slot {sample.slot}, the plan and the seed say {slot}")
        if sample.arm != arm:
            yield wrong(place, f"is of arm {sample.arm!r}, its side is {arm!r}")


def check_order(run: RunFile) -> Inconsistencies:
    """The pairs of a cell are numbered from 0 in order, without a gap, and have both sides. The A/A
    pairs of a scenario come before its other pairs."""
    started = set[str]()
    for number, sample in enumerate(run.samples):
        if sample.contrast != NOISE_FLOOR:
            started.add(sample.scenario)
        elif sample.scenario in started:
            yield odd(f"samples[{number}]", "an A/A pair that was taken after other pairs")
    last: dict[CellKey, int] = {}
    for number, sample in enumerate(run.samples):
        key = key_of_sample(sample)
        before = last.setdefault(key, 0)
        if sample.pair < before:
            problem = f"pair {sample.pair} was taken after pair {before} of the same cell"
            yield wrong(f"samples[{number}]", problem)
        last[key] = max(sample.pair, before)
    for key, pairs in group_samples(run.samples).items():
        place = f"pairs of {key.scenario}, {key.contrast} ({key.mode})"
        numbers = sorted(pairs)
        if numbers[0] != 0:
            yield wrong(place, f"start with {numbers[0]}")
        for before, after in pairwise(numbers):
            if after != before + 1:
                yield wrong(place, f"{before} is followed by {after}")
        for number in numbers:
            if None in pairs[number]:
                yield wrong(place, f"{number} has only one side")


class _Batch(Struct, frozen=True):
    """Samples that ran at the same time: one, or the two of a duet."""

    number: int
    """Of the first sample."""
    start: float
    end: float


def check_clock(run: RunFile) -> Inconsistencies:
    """Samples ran one after the other, the sides of a duet together, within the elapsed time."""
    batches = []
    for number, samples in _together(run.samples):
        place = f"samples[{number}]"
        first, last = samples[0], samples[-1]
        if last.started < first.started:
            yield wrong(place, "slot 1 started before slot 0")
        if len(samples) > 1 and first.pid == last.pid and not ran_in_process(first):
            yield wrong(place, f"both sides ran in process {first.pid}")
        if len(samples) > 1 and "wall" in first.metrics and last.started >= _end(first):
            yield wrong(place, "one side ended before the other started")
        ends = (_end(sample) for sample in samples)
        batches.append(_Batch(number, first.started, max(ends)))
    breaks = len(run.resumed)
    for before, after in pairwise(batches):
        if after.start < before.start and breaks:
            # Resumed after the machine was rebooted: its clock started again at 0.
            breaks -= 1
        elif after.start < before.end - CLOCK_SLACK:
            problem = f"started {before.end - after.start:.3g} s before the previous sample ended"
            yield wrong(f"samples[{after.number}]", problem)
    checks = _batches_of_checks(run.checks or ())
    if not run.resumed:
        yield from _overlaps(batches, checks)
    yield from _spent(run, sorted((*batches, *checks), key=lambda batch: batch.start))


def _batches_of_checks(checks: Sequence[Sample]) -> list[_Batch]:
    """The checks of head that ran at the same time; each batch begins with slot 0."""
    batches: list[_Batch] = []
    for number, check in enumerate(checks):
        batch = _Batch(number, check.started, _end(check))
        if check.slot and batches:
            before = batches.pop()
            batch = _Batch(before.number, before.start, max(before.end, batch.end))
        batches.append(batch)
    return batches


def _overlaps(batches: Sequence[_Batch], checks: Sequence[_Batch]) -> Inconsistencies:
    """Checks of head ran after all samples, one batch after the other."""
    last = max((batch.end for batch in batches), default=-math.inf)
    for check in checks:
        if check.start < last - CLOCK_SLACK:
            problem = f"started {last - check.start:.3g} s before an earlier trial ended"
            yield wrong(f"checks[{check.number}]", problem)
        last = max(last, check.end)


def _together(samples: Sequence[Sample]) -> Iterator[tuple[int, list[Sample]]]:
    def batch(item: tuple[int, Sample]) -> tuple[object, ...]:
        number, sample = item
        own = number if sample.mode == "serial" else -1
        return (*key_of_sample(sample), sample.pair, own)

    for _, items in groupby(enumerate(samples), key=batch):
        both = list(items)
        yield both[0][0], [sample for _, sample in both]


def ran_in_process(sample: Sample) -> bool:
    """Whether a trial ran in the process of trae-bench: it has no exit status and few metrics.

    Both sides of such a pair run in one process, one after the other.
    """
    return sample.exit_status is None and sample.metrics.keys() <= IN_PROCESS_METRICS


def _end(sample: Sample) -> float:
    return sample.started + max(0.0, sample.metrics.get("wall", 0.0))


def _spent(run: RunFile, batches: Sequence[_Batch]) -> Inconsistencies:
    if not batches:
        return
    minimum = sum(batch.end - batch.start for batch in batches)
    if not run.resumed:
        minimum = max(minimum, batches[-1].end - batches[0].start)
    if run.elapsed < minimum - CLOCK_SLACK:
        yield wrong("elapsed", f"{run.elapsed:.6g} s, but the samples took {minimum:.6g} s")
    if min(batch.start for batch in batches) < 0:
        yield wrong("samples", "started before the clock was at 0")


_DIGEST = re.compile(r"\S+")


def check_answers(run: RunFile) -> Inconsistencies:
    """Status, exit status, digests and problem agree."""
    for place, sample in _all_trials(run):
        digests = [_DIGEST.fullmatch(text) for text in (sample.transcript, sample.workspace)]
        if sample.status == "ok":
            if sample.exit_status != 0 and not ran_in_process(sample):
                yield wrong(place, f"ok with exit status {sample.exit_status}")
            if not all(digests):
                yield wrong(place, "ok without a digest of its answer")
            if sample.correct != (sample.problem is None):
                yield wrong(place, "is correct and has a problem, or neither")
        elif sample.correct or any(digests):
            yield wrong(place, f"{sample.status}, but has a digest of an answer")
        elif sample.problem is None:
            yield wrong(place, f"{sample.status}, but has no problem")
        if sample.difference and sample.status != "ok":
            yield wrong(place, f"{sample.status}, but has a differing answer")
        if bool(sample.prompt_break) != bool(sample.metrics.get("prefix_breaks")):
            yield wrong(place, "names a broken prefix and counts none, or the reverse")


def _all_trials(run: RunFile) -> Iterator[tuple[str, Sample]]:
    """Samples and checks of head, each with its place in the file."""
    for name, trials in (("samples", run.samples), ("checks", run.checks or ())):
        for number, sample in enumerate(trials):
            yield f"{name}[{number}]", sample


def check_figures(run: RunFile) -> Inconsistencies:
    """No figure is impossible, by itself or next to the others of its sample."""
    cores = run.header.machine.get("cores")
    max_cores = cores if isinstance(cores, int) and cores > 0 else 4096
    memory = run.header.machine.get("memory")
    max_rss = memory if isinstance(memory, int) and memory > 0 else math.inf
    for number, sample in enumerate(run.samples):
        for problem in _impossible(sample.metrics, max_cores, max_rss):
            yield wrong(f"samples[{number}].metrics", problem)
    for number, samples in _together(run.samples):
        # Both sides of a duet share one core if processes can be pinned.
        if len(samples) < 2 or not run.header.machine.get("cores_usable"):
            continue
        if ran_in_process(samples[0]):
            continue
        cpu = sum(sample.metrics.get("cpu", 0.0) for sample in samples)
        span = max(map(_end, samples)) - samples[0].started
        if cpu > span * 1.05 + CPU_SLACK:
            yield odd(f"samples[{number}]", f"{cpu:.4g} s of CPU time in {span:.4g} s on one core")


def _impossible(metrics: Mapping[str, float], cores: int, max_rss: float) -> Iterator[str]:
    for name, value in metrics.items():
        known = METRICS.get(name)
        counted = known is not None and known.unit in ("", "B") and name not in NOT_WHOLE
        if value < 0 and name not in MAY_SHRINK:
            yield f"{name} is negative"
        elif counted and value != int(value):
            yield f"{name} is {value:.17g}, which is not a whole number"
        if name in ("peak_rss", "agent_rss") and not MIN_RSS < value <= max_rss:
            yield f"{name} is {value:.6g} bytes"
        if name == "peak_rss" and value % PAGE:
            yield f"{name} is {value:.17g} bytes, which is not a multiple of a page"
    yield from _impossible_prompts(metrics)
    yield from _impossible_tokens(metrics)
    cpu, wall = metrics.get("cpu"), metrics.get("wall")
    if cpu is not None and "cpu_user" in metrics and "cpu_system" in metrics:
        parts = metrics["cpu_user"] + metrics["cpu_system"]
        if not math.isclose(cpu, parts, rel_tol=1e-9):
            yield f"cpu is {cpu:.6g} s, its parts sum to {parts:.6g} s"
    if wall is None:
        return
    if cpu is not None and cpu > wall * cores * 1.01 + CPU_SLACK:
        yield f"{cpu:.4g} s of CPU time in {wall:.4g} s on {cores} cores"
    for part in ("time_to_first_request", "time_to_first_answer", "blocked"):
        seconds = metrics.get(part, 0.0)
        if seconds > max(wall, 0.0) + CLOCK_SLACK:
            yield f"{part} is {seconds:.4g} s of {wall:.4g} s"
    for name in NET_METRICS & metrics.keys():
        plain = metrics.get(plain_metric(name))
        if plain is not None and metrics[name] > plain + CLOCK_SLACK:
            yield f"{name} is {metrics[name]:.4g} s, more than {plain_metric(name)}, {plain:.4g} s"
    steps = metrics.get("steps_per_second", 0.0) * wall
    if math.isinf(steps) or not math.isclose(steps, round(steps), rel_tol=1e-6, abs_tol=1e-6):
        yield f"steps_per_second and wall give {steps:.6g} steps, which is not a whole number"


def _impossible_tokens(metrics: Mapping[str, float]) -> Iterator[str]:
    names = ("cached_tokens", "cacheable_tokens", "input_tokens")
    known = [(name, metrics[name]) for name in names if name in metrics]
    for (smaller, few), (larger, many) in pairwise(known):
        if few > many:
            yield f"{smaller} is {few:.6g}, more than {larger}, {many:.6g}"


def _impossible_prompts(metrics: Mapping[str, float]) -> Iterator[str]:
    names = ("prompt_bytes", "new_prompt_bytes", "prefix_reuse")
    size, new, reuse = (metrics.get(name) for name in names)
    if size is None or new is None or reuse is None:
        return
    if new > size or not math.isclose(reuse * size, size - new, rel_tol=1e-9, abs_tol=1e-6):
        yield (
            f"prefix_reuse is {reuse:.6g}, but {new:.6g} of {size:.6g} bytes of the prompts are new"
        )
    requests = metrics.get("requests", math.inf)
    if (breaks := metrics.get("prefix_breaks", 0)) > requests:
        yield f"prefix_breaks is {breaks:.6g} of {requests:.6g} requests"


def check_copies(run: RunFile) -> Inconsistencies:
    """No two samples have the same wall time: clocks have nanoseconds, so one is a copy."""
    first: dict[float, str] = {}
    for place, sample in _all_trials(run):
        if (wall := sample.metrics.get("wall")) is None:
            continue
        if (earlier := first.setdefault(wall, place)) != place:
            problem = f"has the same wall time as {earlier}, {wall:.17g} s"
            yield wrong(f"{place}.metrics", problem)


SAMPLE_CHECKS = (
    *(check_places, check_order, check_clock),
    *(check_answers, check_figures, check_copies),
)
