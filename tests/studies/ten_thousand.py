"""Time and memory that trae-bench itself needs for a long run.

    python -m tests.studies.ten_thousand [--samples 10000] [--cells 200]

The run uses the production scheduler, journal and statistics. A scripted executor answers trials
immediately, so all time and memory belong to trae-bench. Every cell is judged at every look, and
none is settled. Limits: 150 MB of memory in the parent; a look must be short compared with the
pairs before it in a real run.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from tests.trae_bench.fakes import ScriptedExecutor, cell
from tests.trae_bench.runs import header
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.execution.ports import Executor
from trae_bench.execution.worker import _peak_rss as peak_rss
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Cell, Mode, Trial
from trae_bench.run import scheduler
from trae_bench.run.runner import Bench
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons
from trae_bench.storage.journal import Journal, read_journal
from trae_bench.storage.run_file import read_run

MODES: tuple[tuple[Mode, tuple[str, ...]], ...] = (
    ("duet", ("cpu", "peak_rss", "requests")),
    ("serial", ("wall", "steps_per_second")),
)
CONTRASTS = (NOISE_FLOOR, *(f"toggle-{number}" for number in range(1, 10)))


class Result(Struct, frozen=True):
    """Resources of the run, in seconds and bytes."""

    samples: int
    cells: int
    looks: int
    max_look: float
    all_looks: float
    seconds: float
    """Whole run, including writing the journal and the run file."""
    peak_memory: int
    """Peak RSS of this process at the end of the run."""
    journal_bytes: int
    journal_read: float
    """Time to read the journal."""


def plan(count: int) -> tuple[Cell, ...]:
    kinds = [(name, *kind) for name in CONTRASTS for kind in MODES]
    return tuple(
        cell(name, mode, metrics, f"scenario-{number // len(kinds) + 1}")
        for number in range(count)
        for name, mode, metrics in [kinds[number % len(kinds)]]
    )


def figures(trial: Trial) -> Mapping[str, float]:
    """Return as many metrics as a real sample has, with distinct values."""
    rng = Random(f"{trial.scenario}{trial.contrast}{trial.mode}{trial.pair}{trial.side}")
    spread = rng.gauss(1, 0.05)
    return {
        name: 17.0
        if metric.mode == "exact"
        else spread * rng.uniform(0.49, 0.51) * (1e8 if metric.unit == "B" else 1.0)
        for name, metric in METRICS.items()
    }


class ScriptedBench(Bench):
    """A bench that starts no processes."""

    @contextmanager
    def executor(
        self, scenarios: Mapping[str, Scenario], keep: Path | None = None
    ) -> Iterator[Executor]:
        yield ScriptedExecutor(figures)


@contextmanager
def timed_looks(seconds: list[float]) -> Iterator[None]:
    """Append the duration of each look of the scheduler to `seconds`."""
    look: Callable[..., Any] = comparisons

    def timed(*arguments: Any) -> Any:
        before = time.perf_counter()
        try:
            return look(*arguments)
        finally:
            seconds.append(time.perf_counter() - before)

    vars(scheduler)["comparisons"] = timed
    try:
        yield
    finally:
        vars(scheduler)["comparisons"] = look


def study(samples: int, cells: int, folder: Path) -> Result:
    """Run this number of samples in this number of cells, in `folder`."""
    pairs = samples // (2 * cells) - 1
    # No interval reaches this precision, so every cell takes all its pairs.
    head = header(plan(cells), pairs=pairs, noise_pairs=pairs, precision=1e-9)
    run_file, looks = folder / "run.json", list[float]()
    bench, before = ScriptedBench(print), time.perf_counter()
    with timed_looks(looks), Journal.create(folder / "run.journal.jsonl", head) as journal:
        result = bench.measure(head, {}, journal, run_file)
    seconds, peak_memory = time.perf_counter() - before, peak_rss()
    if result.error is not None:
        raise result.error
    before = time.perf_counter()
    contents = read_journal(journal.path)
    journal_read = time.perf_counter() - before
    assert contents.samples == read_run(run_file).samples
    return Result(
        samples=len(contents.samples),
        cells=cells,
        looks=len(looks),
        max_look=max(looks, default=0.0),
        all_looks=sum(looks),
        seconds=seconds,
        peak_memory=peak_memory,
        journal_bytes=journal.path.stat().st_size,
        journal_read=journal_read,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time and memory that trae-bench needs for a long run."
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--cells", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = study(options.samples, options.cells, Path(folder))
    print(json.dumps({name: getattr(result, name) for name in result.__struct_fields__}, indent=2))


if __name__ == "__main__":
    main()
