"""Checks of this host for `trae-bench doctor`: what makes measurements noisy, and the remedy."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from trae_bench._util.host_facts import Fact, fingerprint
from trae_bench._util.system_files import read_text

_MAX_LOAD = 0.3
"""A higher load before the run is that of another program."""
_MAX_STEAL = 0.02
"""Fraction of busy CPU time."""


class HostFinding(Struct, frozen=True):
    """A property of this host that makes measurements noisy, and the remedy."""

    name: str
    value: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.value}; {self.advice}"


def findings(facts: Mapping[str, Fact] | None = None) -> list[HostFinding]:
    """Return what makes measurements on this host noisy, worst first. Needs no root.

    `facts` is a fingerprint; by default it is taken now.
    """
    facts = fingerprint() if facts is None else facts
    return [*_core_findings(facts), *_load_findings(facts), *_speed_findings(facts)]


def _core_findings(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    usable = facts.get("cores_usable")
    if usable is None:
        yield HostFinding(
            "pinning",
            "this system cannot pin a process to a core",
            "duets are not possible, so small effects stay inconclusive: measure on Linux",
        )
    elif usable == 1:
        yield HostFinding(
            "cores", "one usable core", "the provider and the agent share it: allow a second core"
        )
    quota = facts.get("cpu_quota")
    if isinstance(quota, float) and quota < 2:
        yield HostFinding(
            "cpu quota",
            f"{quota:g} cores",
            "the kernel pauses the container when the quota is used up: raise or remove it",
        )


def _load_findings(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    load = facts.get("load")
    if isinstance(load, float) and load > _MAX_LOAD:
        yield HostFinding(
            "load",
            f"{load:.2f} in the last minute",
            "another program is running: stop it, or wait until it ends",
        )
    stolen = _stolen_share()
    if stolen > _MAX_STEAL:
        yield HostFinding(
            "steal",
            f"{stolen:.1%} of CPU time since boot",
            "the hypervisor gives it to other guests: use a quieter or a dedicated host",
        )
    total, free = facts.get("memory"), facts.get("memory_available")
    if isinstance(total, int) and isinstance(free, int) and free < total / 10:
        yield HostFinding(
            "memory",
            f"{free / total:.0%} available",
            "the kernel evicts cached files and reads them again: close programs that use memory",
        )


def _speed_findings(facts: Mapping[str, Fact]) -> Iterator[HostFinding]:
    if facts.get("virtual"):
        yield HostFinding(
            "virtual machine",
            "yes",
            "other guests on the host are invisible: trust duets, not wall times, or measure on "
            "dedicated hardware",
        )
    governor = facts.get("governor")
    if governor is not None and governor != "performance":
        yield HostFinding(
            "governor",
            str(governor),
            "the frequency follows the load: set it with `cpupower frequency-set -g performance`",
        )
    if facts.get("turbo"):
        yield HostFinding(
            "turbo",
            "on",
            "the frequency follows the temperature: turn turbo off in the firmware, or in "
            "/sys/devices/system/cpu/{intel_pstate/no_turbo,cpufreq/boost}",
        )
    if facts.get("smt"):
        yield HostFinding(
            "hyperthreads",
            "on",
            "two threads share one physical core: keep the sibling of the duet's core idle",
        )
    if facts.get("aslr"):
        yield HostFinding(
            "address layout",
            "random",
            "peak memory varies by a few pages: nothing to do, because trials get a fixed layout, "
            "unless a container forbids `personality`",
        )


def _stolen_share() -> float:
    """Return the share of busy CPU time that the hypervisor gave to other guests."""
    first = read_text(Path("/proc/stat")).partition("\n")[0].split()[1:9]
    ticks = [int(tick) for tick in first if tick.isdigit()]
    busy = sum(ticks) - sum(ticks[3:5])
    return ticks[7] / busy if len(ticks) == 8 and busy else 0.0
