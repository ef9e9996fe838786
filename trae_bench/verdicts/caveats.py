"""Warnings that a reader needs besides the table of a run, from its header and samples. Pure.

Names appear in the sentences as in the run file; the caller must escape them.
"""

from collections.abc import Iterator
from statistics import median

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.run import RunFile
from trae_bench.stats.stopping import MIN_CHANCE, family_of, is_hopeless
from trae_bench.storage.seal import BROKEN_SEAL, seal_fits

MIN_PROVIDER_SHARE = 0.2
"""Provider CPU time, as a share of the agent's, above which it is reported."""
MAX_NOTE = 600
"""Maximum characters of a caveat in a report."""
MAX_ROWS = 6
"""Rows that are listed by name for one caveat."""
MAX_SCENARIOS = 5
"""Scenarios that are listed by name for one caveat."""


def caveats_of(run: RunFile) -> list[str]:
    """One sentence per caveat; most runs have none."""
    checks = (_broken_seal, _unpinned, _closed_early, _provider_share, _no_environments)
    return [note for check in checks for note in check(run)]


def _broken_seal(run: RunFile) -> Iterator[str]:
    if not seal_fits(run):
        yield f"Not to be relied on: {BROKEN_SEAL} (trae-bench verify shows more)"


def _unpinned(run: RunFile) -> Iterator[str]:
    serial = [
        name
        for name, metric in run.header.metrics.items()
        if metric.mode == "serial" and name in METRICS and METRICS[name].mode == "duet"
    ]
    if serial:
        yield (
            f"{', '.join(serial)}: measured one side after the other, because processes cannot be "
            "pinned to a core here, and judged by the rule for wall times; small effects stay "
            "inconclusive"
        )


def _closed_early(run: RunFile) -> Iterator[str]:
    """Rows that took no more pairs because a verdict had become too unlikely."""
    header, family = run.header, family_of(run.comparisons)
    closed = [
        f"{row.scenario}/{row.contrast}/{row.metric}"
        for row in run.comparisons
        if run.stopped == "done"
        and row.contrast != NOISE_FLOOR
        and is_hopeless(row, header.limits, header.metrics[row.metric], family)
    ]
    if closed:
        more = f" and {len(closed) - MAX_ROWS} more" if len(closed) > MAX_ROWS else ""
        yield (
            f"Closed early: with the noise here, the chance of a verdict was under "
            f"{MIN_CHANCE:.0%} even at the last look: {', '.join(closed[:MAX_ROWS])}{more}"
        )


def _provider_share(run: RunFile) -> Iterator[str]:
    """Scenarios with a high CPU share of the scripted provider, the highest share first."""
    used: dict[str, list[tuple[float, float]]] = {}
    for sample in run.samples:
        if {"provider_cpu", "cpu"} <= sample.metrics.keys():
            both = sample.metrics["provider_cpu"], sample.metrics["cpu"]
            used.setdefault(sample.scenario, []).append(both)
    shares = []
    for scenario, pairs in used.items():
        provider, agent = (median(values) for values in zip(*pairs, strict=True))
        if provider > MIN_PROVIDER_SHARE * agent:
            shares.append((provider / max(agent, 1e-9), scenario, provider, agent))
    for _, scenario, provider, agent in sorted(shares, reverse=True)[:MAX_SCENARIOS]:
        yield (
            f"{scenario}: the scripted provider used {1000 * provider:.3g} ms of CPU time, the "
            f"agent {1000 * agent:.3g} ms; the provider's time is part of both sides' wall times "
            "and moves their ratios towards 1"
        )
    if len(shares) > MAX_SCENARIOS:
        yield f"the same holds for {len(shares) - MAX_SCENARIOS} more scenarios"


def _no_environments(run: RunFile) -> Iterator[str]:
    if run.header.versions.get("installer") == "none":
        yield (
            "No environment could be created to measure its size: sizes and distributions are "
            "from the RECORD files of the packages installed beside trae-bench"
        )
