"""What must be known to read the table of a run aright: sentences, from its header and samples.

Pure. Names in a sentence are as they stand in the run file: whoever shows it must escape it.
"""

from collections.abc import Iterator
from statistics import median

from trae_bench.metrics import METRICS
from trae_bench.model.run import RunFile
from trae_bench.storage.seal import BROKEN_SEAL, seal_fits

NEAR = 0.2
"""Share of the agent's CPU time from which on the provider's own is told."""
MAX_NOTE = 600
"""Characters."""
MAX_TOLD = 5
"""Scenarios that are told of the same thing."""


def notes(run: RunFile) -> list[str]:
    """Each sentence stands for itself; mostly there are none."""
    return [*_seal(run), *_pinning(run), *_provider(run), *_installs(run)]


def _seal(run: RunFile) -> Iterator[str]:
    if not seal_fits(run):
        yield f"Not to be relied on: {BROKEN_SEAL} (trae-bench verify tells more)"


def _pinning(run: RunFile) -> Iterator[str]:
    serial = [
        name
        for name, metric in run.header.metrics.items()
        if metric.mode == "serial" and name in METRICS and METRICS[name].mode == "duet"
    ]
    if serial:
        yield (
            f"{', '.join(serial)}: taken one side after the other, for processes cannot be pinned "
            "to a core here, and judged by the rule for wall times; small effects stay inconclusive"
        )


def _provider(run: RunFile) -> Iterator[str]:
    """Scenarios in which the provider works about as much as the agent, the worst first."""
    used: dict[str, list[tuple[float, float]]] = {}
    for sample in run.samples:
        if {"provider_cpu", "cpu"} <= sample.metrics.keys():
            both = sample.metrics["provider_cpu"], sample.metrics["cpu"]
            used.setdefault(sample.scenario, []).append(both)
    found = []
    for scenario, pairs in used.items():
        provider, agent = (median(values) for values in zip(*pairs, strict=True))
        if provider > NEAR * agent:
            found.append((provider / max(agent, 1e-9), scenario, provider, agent))
    for _, scenario, provider, agent in sorted(found, reverse=True)[:MAX_TOLD]:
        yield (
            f"{scenario}: the scripted provider used {1000 * provider:.3g} ms of CPU to the "
            f"agent's {1000 * agent:.3g} ms; that is part of both sides' wall times, whose ratios "
            "are nearer to 1 for it"
        )
    if len(found) > MAX_TOLD:
        yield f"so it is in {len(found) - MAX_TOLD} more scenarios"


def _installs(run: RunFile) -> Iterator[str]:
    if run.header.versions.get("installer") == "none":
        yield (
            "No environment could be made to be weighed: sizes and distributions are from the "
            "lists (RECORD) of what is installed beside the bench"
        )
