"""Probes in real processes, and the metrics computed from them."""

import asyncio
import json
import os
import re
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.execution.test_subprocess_executor import Make, Script, make, trial
from tests.trae_bench.execution.test_worker import run
from tests.trae_bench.test_metrics import steps, usage
from trae_bench.design.cells import cells
from trae_bench.errors import UsageError
from trae_bench.execution import callgrind, probes, process_events, tree_memory
from trae_bench.execution.launcher import REPORT_LIMIT
from trae_bench.execution.probes import SAMPLE_SECONDS, own_pages, unique_bytes
from trae_bench.metrics import METRICS, compute_metrics
from trae_bench.model.experiment import Arm, Contrast
from trae_bench.model.sample import ChildReport, SessionLog
from trae_bench.run.runner import RunRequest, plan
from trae_bench.scenario import Scenario, ToggleUse, Turn

__all__ = ["make"]
MIB = 1024 * 1024
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc"
)


@needs_proc
def test_a_plain_trial_has_no_probe(tmp_path: Path) -> None:
    report, error, _ = run(tmp_path, "modules")
    assert report is not None, error
    assert report.memory == ()
    assert "trae_bench.execution.probes" not in report.final_text.split()
    assert set(report.counters) == {"modules_imported", "agent_rss"}


@needs_proc
def test_the_memory_probe_detects_growth(tmp_path: Path) -> None:
    report, error, _ = run(tmp_path, "hoard", probe="memory")
    assert report is not None, error
    assert report.counters["uss_end"] - report.counters["uss_start"] > 30 * MIB
    moments = [moment for moment, _ in report.memory]
    assert len(moments) > 3
    assert all(before < after for before, after in pairwise(moments))
    assert max(size for _, size in report.memory) - report.memory[0][1] > 15 * MIB


def test_allocations_are_counted_from_before_the_agents_import(tmp_path: Path) -> None:
    report, error, _ = run(tmp_path, "hoard", probe="tracemalloc")
    assert report is not None, error
    # A peak of 40 MiB, of which 32 MiB stay allocated, and 8 MiB since the module's import.
    assert report.counters["python_peak"] > 48 * MIB
    assert 40 * MIB < report.counters["python_held"] < 48 * MIB


class Watch:
    """An event loop whose clock advances during sleeps, for a number of hours."""

    def __init__(self, hours: float) -> None:
        self._now, self._end = 0.0, 3600 * hours

    def time(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds
        if self._now > self._end:
            raise asyncio.CancelledError


@pytest.mark.anyio
@pytest.mark.parametrize("hours", [0.01, 1.0, 10.0])
async def test_a_long_session_is_sampled_less_often(
    monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    loop, probe = Watch(hours), probes.MemoryProbe()
    monkeypatch.setattr(asyncio, "sleep", loop.sleep)
    monkeypatch.setattr(probes, "own_pages", lambda: 10**6)
    with pytest.raises(asyncio.CancelledError):
        await probe.watch(loop)  # type: ignore[arg-type]
    _, looks = probe.results()
    assert len(json.dumps(looks)) < REPORT_LIMIT / 2
    assert looks[-1][0] - looks[0][0] > 0.99 * 3600 * hours
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(looks)]
    assert min(gaps) == pytest.approx(max(gaps))
    assert (min(gaps) < 1.1 * SAMPLE_SECONDS) == (hours < 0.02)


@needs_proc
def test_unique_memory_excludes_shared_pages() -> None:
    before, pages = unique_bytes(), own_pages()
    assert before is not None
    assert pages is not None
    hoard = bytearray(os.urandom(32 * MIB))
    after, more = unique_bytes(), own_pages()
    assert after is not None
    assert more is not None
    assert after - before > 0.9 * len(hoard)
    assert (more - pages) * os.sysconf("SC_PAGE_SIZE") > 0.9 * len(hoard)


# -- instructions


@pytest.mark.slow
@pytest.mark.skipif(not callgrind.available(), reason="valgrind is not installed")
def test_instruction_counts_are_stable_and_grow_with_the_work(make: Make) -> None:
    counts = [instructions_of(make, loops) for loops in (1000, 1000, 100_000)]
    assert abs(counts[1] - counts[0]) < 0.001 * counts[0]
    assert counts[2] > counts[0] + 99_000 * 10


def instructions_of(make: Make, loops: int) -> float:
    said = '{"success": true, "final_text": "", "steps": 1}'
    text = f"import os\nfor n in range({loops}): n * n\nos.write({{fd}}, b'{said}')"
    executor = make(Script(text, reports=True, python=True))
    (sample,) = executor.run([trial(probe="callgrind")])
    assert sample.problem is None
    assert sample.probe == "callgrind"
    return sample.metrics["instructions"]


def test_a_count_is_read_from_the_end_of_the_file(tmp_path: Path) -> None:
    out = tmp_path / "callgrind.out"
    assert callgrind.instructions(out) is None
    out.write_bytes(b"summary: 1\n" + b"fn=(1)\n" * 10_000)
    assert callgrind.instructions(out) is None
    with out.open("ab") as file:
        file.write(b"totals: 123456789\n")
    assert callgrind.instructions(out) == 123456789


def test_the_command_under_callgrind_is_the_same_command(tmp_path: Path) -> None:
    argv = callgrind.wrapped((sys.executable, "-c", "pass"), tmp_path / "counts")
    assert argv[0] == "valgrind"
    assert argv[-3:] == (sys.executable, "-c", "pass")
    assert callgrind.available() == (shutil.which("valgrind") is not None)


# -- figures


def watched(log: SessionLog, slope: float, start: float = 1e6) -> ChildReport:
    """A report in which memory grew by `slope` bytes per request."""
    arrived = [request.arrived for request in log.requests]
    memory = [(moment + 0.001, start + slope * nth) for nth, moment in enumerate(arrived)]
    return ChildReport(True, "", len(arrived), memory=tuple(memory))


@given(st.integers(-10_000, 10_000), st.integers(30, 60))
def test_growth_is_the_slope_over_the_steps(slope: int, count: int) -> None:
    log = steps(*([0.5] * count))
    found = compute_metrics(usage(), [log], watched(log, slope))
    assert found["memory_growth"] == pytest.approx(1000 * slope, abs=1)
    assert found["memory_per_hour"] == pytest.approx(1800 * slope, abs=1)


def test_memory_loaded_at_the_start_is_not_growth() -> None:
    log = steps(*([0.5] * 99))
    report = watched(log, 0)
    jump = [
        (moment, size / 2 if nth < 10 else size) for nth, (moment, size) in enumerate(report.memory)
    ]
    found = compute_metrics(usage(), [log], ChildReport(True, "", 100, memory=tuple(jump)))
    assert found["memory_growth"] == 0


@pytest.mark.parametrize(("count", "looks"), [(10, 50), (50, 3), (50, 0)])
def test_short_sessions_and_few_samples_give_no_growth(count: int, looks: int) -> None:
    log = steps(*([0.5] * count))
    report = watched(log, 100)
    few = ChildReport(True, "", count, memory=report.memory[-looks:] if looks else ())
    assert "memory_growth" not in compute_metrics(usage(), [log], few)


# -- separate trials


def test_each_probe_has_a_separate_cell() -> None:
    names = ("cpu", "uss_end", "wall", "python_peak", "uss_start", "instructions", "requests")
    scenario = Scenario("work", "", "", (Turn(),), ToggleUse(vary=("fast",)), names)
    arm = Arm("none", {})
    planned = cells(scenario.name, scenario.metrics, [Contrast("fast", arm, arm)], METRICS)
    assert [(cell.mode, cell.probe, cell.metrics) for cell in planned] == [
        ("duet", "plain", ("cpu", "requests")),
        ("serial", "plain", ("wall",)),
        ("duet", "memory", ("uss_end", "uss_start")),
        ("duet", "tracemalloc", ("python_peak",)),
        ("duet", "callgrind", ("instructions",)),
    ]


def test_metrics_of_probes_say_that_they_use_separate_trials() -> None:
    for metric in METRICS.values():
        if metric.probe != "plain":
            assert re.search("separate trials|memory_growth", metric.about)
    assert SAMPLE_SECONDS > 0


@pytest.mark.parametrize(
    ("module", "metric"), [(process_events, "tool_time"), (tree_memory, "peak_tree")]
)
def test_a_metric_that_the_host_cannot_take_is_refused(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, metric: str
) -> None:
    monkeypatch.setattr(module, "unavailable", lambda: "it is forbidden here")
    wish = RunRequest(command="", scenarios=("bugfix",), metrics=(metric,))
    with pytest.raises(UsageError, match=f"{metric}: it is forbidden here; remove the metric"):
        plan(wish)


def test_instructions_need_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    wish = RunRequest(command="", scenarios=("cli-help",), metrics=("instructions",))
    with pytest.raises(UsageError, match="needs valgrind"):
        plan(wish)
