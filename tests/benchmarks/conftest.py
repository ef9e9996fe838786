"""The micro-costs' fixtures, and the table of ratios at the end of a run."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.benchmarks.side_by_side import Benchmark, Measured, Meter, ratios


@pytest.fixture
def meter(benchmark: Benchmark) -> Iterator[Meter]:
    with asyncio.Runner() as runner:
        yield Meter(benchmark, runner)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    finished = getattr(config, "_benchmarksession", None)
    found = finished.benchmarks if finished is not None else []
    done = [Measured.of(each) for each in found if "side" in each.extra_info]
    if done:
        terminalreporter.section("ratios, each to the first of its group")
        for line in ratios(done):
            terminalreporter.write_line(line)
