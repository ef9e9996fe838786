"""What a reader of a run is told beside the table."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.trae_bench.runs import honest
from trae_bench.model.run import RunFile
from trae_bench.storage.seal import sealed
from trae_bench.verdicts.caveats import MAX_TOLD, NEAR, notes

PLAIN = honest(toggles=("faster",))


def with_header(run: RunFile, **changes: Any) -> RunFile:
    return sealed(replace(run, header=replace(run.header, **changes)))


def with_provider(share: float, scenarios: int = 1) -> RunFile:
    """Each scenario's provider takes this share of the agent's CPU, each a little more."""
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


def test_a_run_that_was_changed_is_told_wherever_it_is_shown() -> None:
    (said,) = notes(replace(honest(), elapsed=1e6))
    assert said.startswith("Not to be relied on: its seal does not match")


def test_a_plain_run_needs_no_notes() -> None:
    assert notes(PLAIN) == []


def test_duet_metrics_that_were_taken_serially_are_told() -> None:
    metrics = PLAIN.header.metrics
    serial = {name: replace(metric, mode="serial") for name, metric in metrics.items()}
    (told,) = notes(with_header(PLAIN, metrics=serial))
    # `requests` is a count, and `wall` is serial anyway.
    assert told.startswith("cpu, peak_rss: taken one side after the other")


@pytest.mark.parametrize(("share", "told"), [(NEAR - 0.01, 0), (NEAR + 0.01, 1)])
def test_a_provider_that_works_as_much_as_the_agent_is_told(share: float, told: int) -> None:
    assert len(notes(with_provider(share))) == told


def test_the_providers_share_is_in_milliseconds_and_the_worst_comes_first() -> None:
    told = notes(with_provider(0.3, MAX_TOLD + 2))
    worst = f"work-{MAX_TOLD + 1}: the scripted provider used 12.2 ms of CPU to the agent's 40 ms"
    assert told[0].startswith(worst)
    assert told[-1] == "so it is in 2 more scenarios"
    assert len(told) == MAX_TOLD + 1


def test_lost_samples_and_an_idle_agent_do_no_harm() -> None:
    idle = tuple(
        replace(sample, metrics={"provider_cpu": 0.1, "cpu": 0.0} if number else {})
        for number, sample in enumerate(PLAIN.samples)
    )
    assert len(notes(sealed(replace(PLAIN, samples=idle)))) == 1
    assert notes(sealed(replace(PLAIN, samples=()))) == []


def test_sizes_that_are_from_lists_are_told() -> None:
    (told,) = notes(with_header(PLAIN, versions={"installer": "none"}))
    assert "RECORD" in told
    assert notes(with_header(PLAIN, versions={"installer": "uv 0.9"})) == []
