"""Fixture of the micro-benchmarks, and the table of ratios in the summary of pytest."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.benchmarks.side_by_side import Benchmark, Comparison, Measured, ratio_table


@pytest.fixture
def comparison(benchmark: Benchmark) -> Iterator[Comparison]:
    with asyncio.Runner() as runner:
        yield Comparison(benchmark, runner)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = getattr(config, "_benchmarksession", None)
    benchmarks = session.benchmarks if session is not None else []
    measured = [
        Measured.from_benchmark(benchmark)
        for benchmark in benchmarks
        if "side" in benchmark.extra_info
    ]
    if measured:
        terminalreporter.section("ratios to the first side of each group")
        for line in ratio_table(measured):
            terminalreporter.write_line(line)
