"""What a kind of scenario cannot measure.

The transport `respx` has no sockets, and runs in this process; what is only installed does
not run at all.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from trae_bench.scenario.diagnostics import Diagnostic
from trae_bench.scenario.model import Load, Scenario, SubjectSetup

_REMEDY = 'say `transport = "loopback"`, or drop it'

IN_PROCESS_METRICS = frozenset({"cpu", "cpu_user", "cpu_system", "requests", "request_bytes"})
"""What can be taken of a session that shares its process with the bench and with respx."""

INSTALL_METRICS = frozenset(
    {"install_size", "closure_size", "unrecorded_size", "bytecode_size", "distributions"}
)
"""What can be taken of an install, and of nothing else."""

_NO_CONNECTIONS = "respx opens no connection"
_STARTED = "in process the agent is not started anew"
_SHARED = "in process the agent shares its memory and its modules with the bench"
_METRICS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("connections", "handshakes"), _NO_CONNECTIONS)
    | dict.fromkeys(("time_to_first_request", "time_to_first_answer"), _STARTED)
    | dict.fromkeys(("peak_rss", "agent_rss", "modules_imported"), _SHARED)
)
_OTHER_METRIC = "respx takes longer for a request than many an agent, and on its event loop"

_TOGGLES: Mapping[str, str] = MappingProxyType(
    {"connection_pool": _NO_CONNECTIONS}
    | dict.fromkeys(("config_cache", "lazy_tools", "optional_deps"), _STARTED)
)


def unmeasurable(scenario: Scenario) -> Iterator[Diagnostic]:
    """Metrics and toggles that mean nothing in such a scenario."""
    weighed = scenario.subject.install is not None
    for index, name in enumerate(scenario.metrics):
        if weighed and name not in INSTALL_METRICS:
            remedy = f"take some of {', '.join(sorted(INSTALL_METRICS))}"
            yield ("metrics", index), f"{name} is of what runs, not of an install; {remedy}"
        if not weighed and name in INSTALL_METRICS:
            remedy = "name what is installed in subject.install, or drop it"
            yield ("metrics", index), f"{name} is of an install, not of what runs; {remedy}"
    if scenario.provider.transport != "respx":
        return
    for index, name in enumerate(scenario.metrics):
        if name not in IN_PROCESS_METRICS:
            reason = _METRICS.get(name, _OTHER_METRIC)
            yield ("metrics", index), f"respx cannot measure {name}: {reason}; {_REMEDY}"
    for index, name in enumerate(scenario.toggles.vary):
        if name in _TOGGLES:
            said = f"respx cannot show what {name} changes: {_TOGGLES[name]}"
            yield ("toggles", "vary", index), f"{said}; {_REMEDY}"


def impossible(scenario: Scenario) -> Iterator[Diagnostic]:
    """Conditions that the scenario's transport does not have."""
    provider = scenario.provider
    if provider.transport != "respx":
        return
    wanted = {
        "rtt_seconds": provider.rtt_seconds > 0,
        "bandwidth_bytes_per_second": provider.bandwidth_bytes_per_second is not None,
        "tls": provider.tls,
        "http": provider.http != "1.1",
    }
    for name, asked in wanted.items():
        if asked:
            yield ("provider", name), f"respx has no sockets, so no {name}; {_REMEDY}"
    for index, fault in enumerate(provider.faults):
        if fault.kind == "close":
            yield ("provider", "faults", index), f"{_NO_CONNECTIONS} to close; {_REMEDY}"
    if scenario.load != Load():
        yield ("load",), f"respx serves one session at a time; {_REMEDY}"
    if scenario.subject != SubjectSetup():
        yield ("subject",), f"{_STARTED}; {_REMEDY}"
