"""Examines the machine: what disturbs it, what the provider costs, how noisy its pairs are.

It changes nothing and needs no special permission.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from trae_bench._util import cpu_affinity, host_facts
from trae_bench.design.cells import cells
from trae_bench.design.contrasts import contrasts
from trae_bench.execution import process_events, run_delay
from trae_bench.metrics import metrics_for_host
from trae_bench.model.experiment import Limits
from trae_bench.model.result import NoiseEstimate
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback, ProviderCost
from trae_bench.run import host_checks
from trae_bench.run.host_checks import HostFinding
from trae_bench.run.runner import Bench
from trae_bench.run.scheduler import Scheduler
from trae_bench.scenario import Scenario, load
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.noise import noise_floor

PAIRS = 8
"""Default number of pairs of each mode."""
SECONDS = 40.0
"""No pair starts after this many seconds; a usual machine needs half of them."""
FAMILY = 30
"""Rows of a usual run; the smallest detectable effect is computed for this family."""
CALM_DUET, CALM_SERIAL = 0.04, 0.15
"""Standard deviations of a pair that need no advice: twice that of a duet on a quiet machine, and
that of serial pairs there."""


class Checkup(Struct, frozen=True):
    """The result of an examination."""

    machine: dict[str, Any]
    findings: tuple[HostFinding, ...]
    provider: ProviderCost
    noise: tuple[NoiseEstimate, ...]
    """Empty if it was not measured."""
    advice: tuple[str, ...]
    """What to do about the noise."""


def checkup(bench: Bench, pairs: int = PAIRS) -> Checkup:
    """Examine the machine; the noise with `pairs` A/A pairs of each mode, not at all with 0."""
    with bench.lock():
        with Loopback(pin=cpu_affinity.provider_core()) as provider:
            cost = provider.measure_cost()
        floors = noise(bench, pairs) if pairs else ()
    return Checkup(
        machine=dict(host_facts.fingerprint()),
        findings=(*host_checks.findings(), *_unavailable()),
        provider=cost,
        noise=floors,
        advice=tuple(advice(floors)),
    )


def _unavailable() -> Iterator[HostFinding]:
    """The kinds of metrics that cannot be measured here."""
    if (problem := run_delay.unavailable()) is not None:
        yield HostFinding(
            "net times",
            f"not available ({problem})",
            "run as root or under systemd-run --user --scope to compare waiting on a busy machine",
        )
    if (problem := process_events.unavailable()) is not None:
        yield HostFinding(
            "processes",
            f"not recorded ({problem})",
            "run as root, or set kernel.perf_event_paranoid to 0, to tell tools from the agent",
        )


def noise(bench: Bench, pairs: int) -> tuple[NoiseEstimate, ...]:
    """A/A pairs of a tiny session, duet and serial. Raises `BenchError`, `KeyboardInterrupt`."""
    scenario, metrics = tiny(), metrics_for_host(pinned=bool(cpu_affinity.cores()))
    baseline = dict.fromkeys(scenario.toggles.vary, False) | scenario.toggles.hold
    noise_only = contrasts(scenario.toggles.vary, baseline)[:1]
    planned = cells(scenario.name, scenario.metrics, noise_only, metrics)
    with bench.executor({scenario.name: scenario}) as executor:
        session = Scheduler(
            planned,
            metrics,
            executor=executor,
            sink=_NullSink(),
            clock=time.monotonic,
            seed=0,
            limits=Limits(budget=SECONDS, noise_pairs=pairs),
            listener=bench.listener,
        )
        ending = session.run()
    if ending.error is not None:
        raise ending.error
    if ending.stopped == "interrupted":
        # There is no journal, so there is nothing to resume.
        raise KeyboardInterrupt
    rows = comparisons(ending.samples, planned, metrics)
    return tuple(noise_floor(rows, metrics, family=FAMILY))


def tiny() -> Scenario:
    return load(Path(__file__).with_name("noise.toml"))


def advice(floors: Sequence[NoiseEstimate]) -> Iterator[str]:
    """What to change, or to measure instead, on a machine with this noise."""
    for floor in floors:
        if floor.reliability == "sides differ":
            yield (
                f"{floor.metric}: two equal sides differ, so no verdict on it can be trusted. "
                "Something treats the second process differently from the first. Stop other "
                "programs and run doctor again"
            )
    worst = {floor.metric: floor.sd for floor in floors}
    if worst.get("cpu", 0.0) > CALM_DUET:
        yield (
            f"CPU time in duets varies by {worst['cpu']:.0%}; {CALM_DUET / 2:.0%} is usual. "
            "Other processes share its core: stop them, or reserve a core for trae-bench"
        )
    if worst.get("wall", 0.0) > CALM_SERIAL:
        yield (
            f"wall times vary by {worst['wall']:.0%}. Judge by CPU time; only large differences "
            "in waiting can be detected. Stop other work, or measure on a quiet host"
        )


class _NullSink:
    """Drops the samples: they only serve this check."""

    def append(self, sample: Sample) -> Sample:
        return sample

    def append_check(self, check: Sample) -> Sample:
        return check
