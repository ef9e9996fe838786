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
    found = _found(fingerprint() if facts is None else facts)
    return [HostFinding(name, value, _ADVICE[name]) for name, value in found]


_ADVICE = {
    "pinning": "duets are not possible, so small effects stay inconclusive: measure on Linux",
    "cores": "the provider and the agent share it: allow a second core",
    "cpu quota": "the kernel pauses the container when the quota is used up: raise or remove it",
    "load": "another program is running: stop it, or wait until it ends",
    "steal": "the hypervisor gives it to other guests: use a quieter or a dedicated host",
    "memory": "the kernel evicts cached files and reads them again: close programs that use memory",
    "virtual machine": "other guests on the host are invisible: trust duets, not wall times, or "
    "measure on dedicated hardware",
    "governor": "the frequency follows the load: set it with `cpupower frequency-set -g "
    "performance`",
    "turbo": "the frequency follows the temperature: turn turbo off in the firmware, or in "
    "/sys/devices/system/cpu/{intel_pstate/no_turbo,cpufreq/boost}",
    "hyperthreads": "two threads share one physical core: keep the sibling of the duet's core idle",
    "address layout": "peak memory varies by a few pages: nothing to do, because trials get a "
    "fixed layout, unless a container forbids `personality`",
}
"""The remedy of each finding, the worst finding first."""


def _found(facts: Mapping[str, Fact]) -> Iterator[tuple[str, str]]:
    """Name and value of each finding, in the order of `_ADVICE`."""
    usable, quota, load = (facts.get(name) for name in ("cores_usable", "cpu_quota", "load"))
    if usable is None:
        yield "pinning", "this system cannot pin a process to a core"
    elif usable == 1:
        yield "cores", "one usable core"
    if isinstance(quota, float) and quota < 2:
        yield "cpu quota", f"{quota:g} cores"
    if isinstance(load, float) and load > _MAX_LOAD:
        yield "load", f"{load:.2f} in the last minute"
    if (stolen := _stolen_share()) > _MAX_STEAL:
        yield "steal", f"{stolen:.1%} of CPU time since boot"
    total, free = facts.get("memory"), facts.get("memory_available")
    if isinstance(total, int) and isinstance(free, int) and free < total / 10:
        yield "memory", f"{free / total:.0%} available"
    if facts.get("virtual"):
        yield "virtual machine", "yes"
    governor = facts.get("governor")
    if governor is not None and governor != "performance":
        yield "governor", str(governor)
    for fact, name in (("turbo", "turbo"), ("smt", "hyperthreads")):
        if facts.get(fact):
            yield name, "on"
    if facts.get("aslr"):
        yield "address layout", "random"


def _stolen_share() -> float:
    """Return the share of busy CPU time that the hypervisor gave to other guests."""
    first = read_text(Path("/proc/stat")).partition("\n")[0].split()[1:9]
    ticks = [int(tick) for tick in first if tick.isdigit()]
    busy = sum(ticks) - sum(ticks[3:5])
    return ticks[7] / busy if len(ticks) == 8 and busy else 0.0
