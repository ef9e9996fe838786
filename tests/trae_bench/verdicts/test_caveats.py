"""Tests of caveats."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.trae_bench.runs import honest
from trae_bench.model.run import RunFile
from trae_bench.storage.seal import sealed
from trae_bench.verdicts.caveats import MAX_SCENARIOS, MIN_PROVIDER_SHARE, caveats_of

PLAIN = honest(toggles=("faster",))


def with_header(run: RunFile, **changes: Any) -> RunFile:
    return sealed(replace(run, header=replace(run.header, **changes)))


def with_provider(share: float, scenarios: int = 1) -> RunFile:
    """A run whose providers use this share of the agent's CPU time, increasing by scenario."""
    samples = tuple(
        replace(
            sample,
            scenario=f"work-{number}",
            metrics=sample.metrics | {"provider_cpu": (share + number / 1000) * 0.04, "cpu": 0.04},
        )
        for number in range(scenarios)
        for sample in PLAIN.samples
    )
    return sealed(replace(PLAIN, samples=samples))


def test_broken_seal() -> None:
    (caveat,) = caveats_of(replace(honest(), elapsed=1e6))
    assert caveat.startswith("Not to be relied on: its seal does not match")


def test_usual_run_has_no_caveats() -> None:
    assert caveats_of(PLAIN) == []


def test_duet_metrics_measured_serially() -> None:
    metrics = PLAIN.header.metrics
    serial = {name: replace(metric, mode="serial") for name, metric in metrics.items()}
    (caveat,) = caveats_of(with_header(PLAIN, metrics=serial))
    # `requests` is a count, and `wall` is always serial.
    assert caveat.startswith("cpu, peak_rss: measured one side after the other")


@pytest.mark.parametrize(
    ("share", "count"), [(MIN_PROVIDER_SHARE - 0.01, 0), (MIN_PROVIDER_SHARE + 0.01, 1)]
)
def test_high_share_of_the_provider(share: float, count: int) -> None:
    assert len(caveats_of(with_provider(share))) == count


def test_provider_shares_are_sorted_and_limited() -> None:
    caveats = caveats_of(with_provider(0.3, MAX_SCENARIOS + 2))
    highest = (
        f"work-{MAX_SCENARIOS + 1}: the scripted provider used 12.2 ms of CPU time, the agent 40 ms"
    )
    assert caveats[0].startswith(highest)
    assert caveats[-1] == "the same holds for 2 more scenarios"
    assert len(caveats) == MAX_SCENARIOS + 1


def test_missing_samples_and_zero_cpu() -> None:
    idle = tuple(
        replace(sample, metrics={"provider_cpu": 0.1, "cpu": 0.0} if number else {})
        for number, sample in enumerate(PLAIN.samples)
    )
    assert len(caveats_of(sealed(replace(PLAIN, samples=idle)))) == 1
    assert caveats_of(sealed(replace(PLAIN, samples=()))) == []


def test_sizes_from_record_files() -> None:
    (caveat,) = caveats_of(with_header(PLAIN, versions={"installer": "none"}))
    assert "RECORD" in caveat
    assert caveats_of(with_header(PLAIN, versions={"installer": "uv 0.9"})) == []
