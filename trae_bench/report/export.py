"""Converts a run to the formats of other tools.

Only counted pairs are exported, without A/A pairs; CSV has all pairs with a mark. Each value is
from one fresh process. Names are `scenario/toggle/metric/off` and `.../on`. With `side`, only one
side is exported, without the last word, so that a tool can compare two files by name. Values that
a format does not support are left out: zeros and rates in pyperf, everything except times in
pytest-benchmark and hyperfine. The statistics of those tools do not use the pairs.

Every string of a run file passes `for_name`, because a tool may show it anywhere.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from statistics import median, quantiles
from typing import Any, TypeVar

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import BadRunFile, CannotMeasure
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Better, Cell, Metric, Side
from trae_bench.model.result import Comparison
from trae_bench.model.run import Facts, RunFile
from trae_bench.model.sample import Sample
from trae_bench.report.escape import for_name
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.stats.pairs import (
    BASE_HEAD,
    FIRST_OTHER,
    OFF_ON,
    RowKey,
    group_samples,
    key_of,
    key_of_row,
    key_of_sample,
    pair_outcome,
)

Sides = tuple[Side, ...]
Key = TypeVar("Key")
Item = TypeVar("Item")

BOTH: Sides = ("A", "B")
SIDES: Mapping[str, Side] = dict(zip(OFF_ON + BASE_HEAD + FIRST_OTHER, BOTH * 3, strict=True))
MAX_MEASURE = 64
"""Maximum characters of a measure's name in Bencher."""
_SAMPLE_COLUMNS = ("scenario", "contrast", "mode", "pair", "side", "slot", "arm", "status")
CSV_COLUMNS = (*_SAMPLE_COLUMNS, "counted", "metric", "unit", "value")


class Series(Struct, frozen=True):
    """The samples of one metric on one side."""

    cell: Cell
    metric: Metric
    side: Side
    samples: tuple[Sample, ...]
    """Samples of counted pairs in order; at least one."""

    @property
    def values(self) -> list[float]:
        return [sample.metrics[self.metric.name] for sample in self.samples]

    @property
    def word(self) -> str:
        arm = self.cell.contrast.b
        words = FIRST_OTHER if arm.agent else OFF_ON
        return (words if arm.revision is None else BASE_HEAD)[self.side == "B"]

    @property
    def place(self) -> tuple[str, str]:
        return for_name(self.cell.scenario), for_name(self.cell.contrast.name)


def export(run: RunFile, format: str, side: Side | None = None) -> str:
    """The run in one of `FORMATS`. Raises `CannotMeasure` if it has no value for that format."""
    return "".join(chunks(run, format, side))


def chunks(run: RunFile, format: str, side: Side | None = None) -> Iterator[str]:
    """The text of `export` in pieces, which needs less memory for a large run."""
    return FORMATS[format](run, (side,) if side else BOTH)


# -- series -----------------------------------------------------------------------------


def _series(run: RunFile, sides: Sides) -> Iterator[Series]:
    grouped = group_samples(run.samples)
    for cell in run.header.cells:
        if cell.contrast.name == NOISE_FLOOR or cell.confirms:
            continue
        pairs = grouped.get(key_of(cell), {})
        numbers = sorted(
            n for n, pair in pairs.items() if n > 0 and pair_outcome(*pair)[0] == "measured"
        )
        both = [[sample for sample in pairs[n] if sample is not None] for n in numbers]
        for name in cell.metrics:
            # pyperf compares two sides only if they have equal numbers of values.
            complete = [pair for pair in both if all(name in sample.metrics for sample in pair)]
            for side in sides if complete else ():
                samples = (sample for pair in complete for sample in pair if sample.side == side)
                yield Series(cell, run.header.metrics[name], side, tuple(samples))


def _name(series: Series, sides: Sides) -> str:
    parts = [*series.place, for_name(series.metric.name)]
    return "/".join([*parts, series.word] if len(sides) > 1 else parts)


def _named(items: Iterable[tuple[Key, Item]], format: str) -> dict[Key, Item]:
    """Raises `BadRunFile` if two items have the same name, `CannotMeasure` if there is none."""
    named: dict[Key, Item] = {}
    for name, item in items:
        if name in named:
            raise BadRunFile(f"two rows of this run have the same name {name!r} in {format}")
        named[name] = item
    if not named:
        raise CannotMeasure(f"this run has no value that {format} supports")
    return named


def _entries(
    rows: Iterable[Series], sides: Sides, format: str, entry: Callable[[Series, str], Any]
) -> list[Any]:
    """One entry for each series, by `_named`."""
    named = _named(((_name(series, sides), series) for series in rows), format)
    return [entry(series, name) for name, series in named.items()]


def _json(document: Any) -> Iterator[str]:
    try:
        yield json.dumps(document, indent=1, allow_nan=False) + "\n"
    except ValueError as error:
        raise BadRunFile("a value of this run is too large for JSON") from error


def _facts(facts: Facts, names: Mapping[str, str]) -> dict[str, str | int | float]:
    """The known facts, renamed for another tool: `names` maps our names to the tool's."""
    renamed: dict[str, str | int | float] = {}
    for name, tool_name in names.items():
        value = facts.get(name)
        if isinstance(value, str):
            value = for_name(value)
        if value is not None and value != "":
            renamed[tool_name] = value
    return renamed


# -- formats ----------------------------------------------------------------------------

_PYPERF_UNITS = {"s": "second", "B": "byte", "": "integer"}


def _pyperf(run: RunFile, sides: Sides) -> Iterator[str]:
    known = (series for series in _series(run, sides) if series.metric.unit in _PYPERF_UNITS)
    positive = (series for series in known if min(series.values) > 0)
    benchmarks = _entries(positive, sides, "pyperf", _pyperf_benchmark)
    machine = {
        "cpu": "cpu_model_name",
        "cores": "cpu_count",
        "python": "python_version",
        "implementation": "python_implementation",
        "kernel": "platform",
    }
    metadata = _facts(run.header.machine, machine)
    metadata |= _facts(run.header.versions, {"trae-bench": "trae_bench_version"})
    metadata |= _facts(run.header.code, {"commit": "commit_id"})
    suite = {"version": "1.0", "benchmarks": benchmarks}
    return _json(suite | ({"metadata": metadata} if metadata else {}))


def _pyperf_benchmark(series: Series, name: str) -> dict[str, Any]:
    unit = _PYPERF_UNITS[series.metric.unit]
    runs = []
    for sample in series.samples:
        value = sample.metrics[series.metric.name]
        whole = unit != "second" and value == int(value)
        process: dict[str, Any] = {"values": [int(value) if whole else value]}
        if sample.metrics.get("wall", -1.0) >= 0:
            process["metadata"] = {"duration": sample.metrics["wall"]}
        runs.append(process)
    return {"metadata": {"name": name, "unit": unit, "loops": 1}, "runs": runs}


def _bmf(run: RunFile, sides: Sides) -> Iterator[str]:
    """Bencher Metric Format: each side's median with its quartiles, and the ratio with its bounds.

    Times are in nanoseconds. Only the ratio is comparable between machines.
    """
    found: dict[str, dict[str, Any]] = {}
    for (bench, measure), values in _named(_bmf_values(run, sides), "Bencher").items():
        named = zip(("value", "lower_value", "upper_value"), values, strict=False)
        found.setdefault(bench, {})[measure] = dict(named)
    return _json(found)


def _bmf_values(run: RunFile, sides: Sides) -> Iterator[tuple[tuple[str, str], list[float]]]:
    """Benchmark and measure, and their value with its bounds if there are any."""
    rows = {key_of_row(row): row for row in run.comparisons}
    for series in _series(run, sides):
        place = "/".join(series.place)
        measure = for_name(series.metric.name, MAX_MEASURE)
        low, middle, high = _quartiles(series.values)
        scale = 1e9 if series.metric.unit == "s" else 1.0
        bench = f"{place}/{series.word}" if len(sides) > 1 else place
        yield (bench, measure), [middle * scale, low * scale, high * scale]
        row = rows.get(RowKey(series.cell.scenario, series.cell.contrast.name, series.metric.name))
        ratios = _ratio_and_bounds(row) if row is not None and series.side == sides[-1] else []
        if ratios:
            yield (f"{place}/ratio", measure), ratios


def _ratio_and_bounds(row: Comparison) -> list[float]:
    if row.estimate is None or row.estimate.log_ratio is None:
        return []
    interval = row.estimate.interval
    bounds = [interval.low, interval.high] if interval is not None else []
    return [math.exp(min(log, MAX_LOG_RATIO)) for log in (row.estimate.log_ratio, *bounds)]


def _github_action(better: Better, run: RunFile, sides: Sides) -> Iterator[str]:
    """`customSmallerIsBetter` or `customBiggerIsBetter`: a file has one direction."""
    tool = f"github-action-benchmark ({better} is better)"
    series = (series for series in _series(run, sides) if series.metric.better == better)
    return _json(_entries(series, sides, tool, _github_entry))


def _github_entry(series: Series, name: str) -> dict[str, Any]:
    low, middle, high = _quartiles(series.values)
    return {
        "name": name,
        "unit": for_name(series.metric.unit) or "count",
        "value": middle,
        "range": f"± {(high - low) / 2:.3g}",
        "extra": f"{len(series.samples)} processes ({series.cell.mode})",
    }


def _pytest_benchmark(run: RunFile, sides: Sides) -> Iterator[str]:
    timed = (series for series in _series(run, sides) if series.metric.unit == "s")
    benchmarks = _entries(timed, sides, "pytest-benchmark", _pytest_entry)
    code = run.header.code
    machine = {
        "system": "system",
        "kernel": "release",
        "architecture": "machine",
        "python": "python_version",
        "implementation": "python_implementation",
        "compiler": "python_compiler",
    }
    facts: dict[str, Any] = {"node": "unknown", "processor": ""}
    facts |= _facts(run.header.machine, machine)
    cpu = {"cpu": "brand_raw", "cores": "count", "architecture": "arch"}
    facts["cpu"] = _facts(run.header.machine, cpu)
    document = {
        "machine_info": facts,
        "commit_info": {
            "id": for_name(str(code.get("commit") or "unversioned")),
            "time": None,
            "author_time": None,
            "dirty": code.get("dirty") is True,
            "project": "trae-bench",
            "branch": "(unknown)",
        },
        "benchmarks": benchmarks,
        "datetime": _date(run.header.created),
        "version": "5.0.0",
    }
    return _json(document)


def _date(text: str) -> str | None:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _pytest_entry(series: Series, name: str) -> dict[str, Any]:
    values = series.values
    middle, spread = _mean(values), _deviation(values)
    low, _, high = _quartiles(values)
    fences = low - 1.5 * (high - low), high + 1.5 * (high - low)
    within = [value for value in values if fences[0] <= value <= fences[1]] or values
    far = sum(abs(value - middle) > spread for value in values)
    out = len(values) - len(within)
    return {
        "group": "/".join([*series.place, for_name(series.metric.name)]),
        "name": name,
        "fullname": name,
        "params": None,
        "param": None,
        "extra_info": {"mode": series.cell.mode, "side": series.side},
        "options": {"rounds": len(values), "warmup": True},
        "stats": {
            "min": min(values),
            "max": max(values),
            "mean": middle,
            "stddev": spread,
            "rounds": len(values),
            "median": median(values),
            "iqr": high - low,
            "q1": low,
            "q3": high,
            "iqr_outliers": out,
            "stddev_outliers": far,
            "outliers": f"{far};{out}",
            "ld15iqr": min(within),
            "hd15iqr": max(within),
            "ops": 1 / middle if middle else 0,
            "total": sum(values),
            "data": values,
            "iterations": 1,
        },
    }


def _hyperfine(run: RunFile, sides: Sides) -> Iterator[str]:
    """Only serial pairs have wall times: two processes at once would delay each other."""
    results = _named(
        (
            ("/".join([*series.place, series.side]), _hyperfine_result(series))
            for series in _series(run, sides)
            if series.metric.name == "wall" and series.cell.mode == "serial"
        ),
        "hyperfine (wall times)",
    )
    return _json({"results": list(results.values())})


def _hyperfine_result(series: Series) -> dict[str, Any]:
    values = series.values

    def mean_of(name: str) -> float:
        return _mean([sample.metrics.get(name, 0.0) for sample in series.samples])

    scenario, contrast = series.place
    result: dict[str, Any] = {
        "command": f"{scenario} {contrast}={series.word}",
        "mean": _mean(values),
        "stddev": _deviation(values) if len(values) > 1 else None,
        "median": median(values),
        "user": mean_of("cpu_user"),
        "system": mean_of("cpu_system"),
        "min": min(values),
        "max": max(values),
        "times": values,
        "exit_codes": [sample.exit_status for sample in series.samples],
        "parameters": {"scenario": scenario, contrast: series.word},
    }
    if all("peak_rss" in sample.metrics for sample in series.samples):
        sizes = [int(sample.metrics["peak_rss"]) for sample in series.samples]
        result["memory_usage_byte"] = sizes
    return result


def _csv(run: RunFile, sides: Sides) -> Iterator[str]:
    """A line for each value of every sample, with A/A, warm-up and lost pairs."""
    grouped = group_samples(run.samples)
    metrics = {**METRICS, **run.header.metrics}
    units = {name: for_name(metric.unit) for name, metric in metrics.items()}
    yield _lines([CSV_COLUMNS])
    for sample in run.samples:
        # A/A sides have no names, so a selection of one side excludes them.
        excluded = sample.contrast == NOISE_FLOOR and len(sides) == 1
        if sample.side not in sides or excluded:
            continue
        pair = grouped[key_of_sample(sample)][sample.pair]
        counted = sample.pair > 0 and pair_outcome(*pair)[0] == "measured"
        front = [for_name(str(getattr(sample, column))) for column in _SAMPLE_COLUMNS]
        front.append("yes" if counted else "no")
        figures = sample.metrics.items()
        rows = [(*front, for_name(name), units.get(name, ""), value) for name, value in figures]
        yield _lines(rows or [(*front, "", "", "")])


def _lines(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


Format = Callable[[RunFile, Sides], Iterator[str]]

FORMATS: Mapping[str, Format] = {
    "pyperf": _pyperf,
    "bmf": _bmf,
    "github-action": partial(_github_action, "lower"),
    "github-action-bigger": partial(_github_action, "higher"),
    "pytest-benchmark": _pytest_benchmark,
    "hyperfine": _hyperfine,
    "csv": _csv,
}


# -- figures ----------------------------------------------------------------------------
# The statistics module computes with exact fractions, which fail on an overflow to infinity.


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    middle = _mean(values)
    return math.hypot(*(value - middle for value in values)) / math.sqrt(len(values) - 1)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high
