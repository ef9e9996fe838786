"""Metrics, toggles and conditions that a kind of scenario does not support.

The transport `respx` has no sockets and runs the agent in this process. A scenario that measures
an installation runs nothing.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from trae_bench.scenario.diagnostics import Diagnostic
from trae_bench.scenario.model import Load, Scenario, SubjectSetup

_REMEDY = 'use `transport = "loopback"`, or remove it'

IN_PROCESS_METRICS = frozenset({"cpu", "cpu_user", "cpu_system", "requests", "request_bytes"})
"""Metrics of a session that shares its process with trae-bench and respx."""

INSTALL_METRICS = frozenset(
    {"install_size", "closure_size", "unrecorded_size", "bytecode_size", "distributions"}
)
"""Metrics of an installation. No other scenario has them."""

_NO_CONNECTIONS = "respx opens no connection"
_NOT_STARTED = "in process the agent does not start again"
_SHARED = "in process the agent shares memory and modules with trae-bench"
_METRIC_REASONS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("connections", "handshakes"), _NO_CONNECTIONS)
    | dict.fromkeys(("time_to_first_request", "time_to_first_answer"), _NOT_STARTED)
    | dict.fromkeys(("peak_rss", "agent_rss", "modules_imported"), _SHARED)
)
_OTHER_METRIC = "respx's own time per request, on the agent's event loop, dominates it"

_TOGGLE_REASONS: Mapping[str, str] = MappingProxyType(
    {"connection_pool": _NO_CONNECTIONS}
    | dict.fromkeys(("config_cache", "lazy_tools", "optional_deps"), _NOT_STARTED)
)


def unmeasurable(scenario: Scenario) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each metric and toggle that the scenario cannot measure."""
    installs = scenario.subject.install is not None
    for index, name in enumerate(scenario.metrics):
        if installs and name not in INSTALL_METRICS:
            problem = f"{name} measures a run, but this scenario only installs"
            yield ("metrics", index), f"{problem}; use some of {', '.join(sorted(INSTALL_METRICS))}"
        if not installs and name in INSTALL_METRICS:
            problem = f"{name} measures an installation, but this scenario runs"
            yield ("metrics", index), f"{problem}; add subject.install, or remove the metric"
    if scenario.provider.transport != "respx":
        return
    for index, name in enumerate(scenario.metrics):
        if name not in IN_PROCESS_METRICS:
            reason = _METRIC_REASONS.get(name, _OTHER_METRIC)
            yield ("metrics", index), f"respx cannot measure {name}: {reason}; {_REMEDY}"
    for index, name in enumerate(scenario.toggles.vary):
        if name in _TOGGLE_REASONS:
            problem = f"respx cannot show what {name} changes: {_TOGGLE_REASONS[name]}"
            yield ("toggles", "vary", index), f"{problem}; {_REMEDY}"


def unsupported_conditions(scenario: Scenario) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each condition that the scenario's transport does not support."""
    provider = scenario.provider
    if provider.transport != "respx":
        return
    requested = {
        "rtt_seconds": provider.rtt_seconds > 0,
        "bandwidth_bytes_per_second": provider.bandwidth_bytes_per_second is not None,
        "tls": provider.tls,
        "http": provider.http != "1.1",
    }
    for name, is_requested in requested.items():
        if is_requested:
            yield ("provider", name), f"respx has no sockets, so no {name}; {_REMEDY}"
    for index, fault in enumerate(provider.faults):
        if fault.kind == "close":
            yield ("provider", "faults", index), f"{_NO_CONNECTIONS} to close; {_REMEDY}"
    if scenario.load != Load():
        yield ("load",), f"respx supports one session at a time; {_REMEDY}"
    if scenario.subject != SubjectSetup():
        yield ("subject",), f"{_NOT_STARTED}; {_REMEDY}"
