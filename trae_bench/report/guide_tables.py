"""Which rows the guide's tables have. Data only: the figures are those of the runs."""

from collections.abc import Mapping
from typing import NamedTuple

from trae_bench.verdicts.claims import EvidenceKey


class Ask(NamedTuple):
    """What a row of a table asks of the runs."""

    scenario: str
    toggles: str
    """Names joined by `+`, on together, all others off."""
    metric: str

    @classmethod
    def at(cls, place: str, toggles: str) -> "Ask":
        """A place is `scenario metric`."""
        scenario, metric = place.split()
        return cls(scenario, toggles, metric)

    @property
    def question(self) -> EvidenceKey:
        return EvidenceKey(self.scenario, frozenset(self.toggles.split("+")), self.metric)


class Summary(NamedTuple):
    """One optimisation in the first table. Places are `scenario metric`, or empty where there is
    nothing to be measured."""

    toggle: str
    best: str
    """Work made for it."""
    other: str
    """Work that is not."""
    memory: str
    risk: str
    size: str = ""

    @property
    def asked(self) -> list[Ask | None]:
        """In the order of the columns."""
        places = (self.best, self.other, self.size, self.memory)
        return [Ask.at(place, self.toggle) if place else None for place in places]


def _of(toggle: str, *places: str) -> tuple[Ask, ...]:
    return tuple(Ask.at(place, toggle) for place in places)


_START = "time_to_first_request"
_ANSWER = "time_to_first_answer"
_STEP = "step_overhead"
_COLD = "lazy_tools+optional_deps+config_cache"
_SEVEN = f"parallel_tools+async_file_io+batched_trajectory+connection_pool+{_COLD}"

SUMMARY = (
    Summary(
        "parallel_tools",
        "fan-out wall",
        "bugfix wall",
        "bugfix peak_rss",
        "low: calls that touch the same thing keep their order",
    ),
    Summary(
        "async_file_io",
        "file-ops event_loop_lag_max",
        "bugfix cpu",
        "file-ops agent_rss",
        "low: large files at the same time are in memory at the same time",
    ),
    Summary(
        "batched_trajectory",
        f"trajectory-long {_STEP}",
        "bugfix wall",
        "trajectory-long@memory agent_rss",
        "low: a killed session loses its last batch",
    ),
    Summary(
        "connection_pool",
        "api-sequential@tls-rtt40 wall",
        "api-sequential wall",
        "throughput agent_rss",
        "medium: connections outlive the request; stale ones are repeated",
    ),
    Summary(
        "lazy_tools",
        f"startup-cold {_START}",
        f"tool-heavy-start {_ANSWER}",
        "tools-memory agent_rss",
        "low: a tool that cannot be loaded fails at its first call",
    ),
    Summary(
        "config_cache",
        f"config-load@500-yaml {_START}",
        f"config-load {_START}",
        "",
        "medium: a copy of the settings, without secrets, lies on disk",
    ),
    Summary(
        "optional_deps",
        f"startup-cold {_START}",
        "startup-cold cpu",
        "tools-memory agent_rss",
        "medium: what is not installed is missed only when it is asked for",
        "install-size install_size",
    ),
    Summary(
        "native_client",
        f"trajectory-long@sdk {_STEP}",
        f"startup-cold@sdk {_START}",
        "",
        "medium: a wire protocol of our own to keep up",
    ),
    Summary(
        "incremental_history",
        f"trajectory-long@history {_STEP}",
        "trajectory-long@history wall",
        "",
        "low: the same bytes, held by a property test",
    ),
    Summary(
        "event_shell",
        "bugfix@shell wall",
        "bugfix@shell cpu",
        "bugfix@shell peak_rss",
        "low: the same bytes from the same commands",
    ),
    Summary(
        "shared_tls",
        f"api-sequential@tls {_STEP}",
        "api-burst@tls wall",
        "",
        "low: certificates that change need a new process",
    ),
)

_OF_ONE: Mapping[str, tuple[str, ...]] = {
    "parallel_tools": (
        f"fan-out {_STEP}",
        "fan-out wall",
        "fan-out cpu",
        f"fan-out-one-file {_STEP}",
        f"tool-heavy-start {_ANSWER}",
        "bugfix wall",
        "bugfix cpu",
    ),
    "async_file_io": (
        "file-ops event_loop_lag_max",
        "file-ops event_loop_lag_p99",
        "file-ops session_overhead",
        "file-ops cpu",
        "bugfix wall",
        "bugfix cpu",
        "fan-out-one-file cpu",
        f"fan-out-one-file {_STEP}",
    ),
    "batched_trajectory": (
        f"trajectory-long {_STEP}",
        "trajectory-long step_overhead_growth",
        "trajectory-long wall",
        "trajectory-long@memory bytes_written",
        "trajectory-long@memory write_syscalls",
        f"bugfix {_STEP}",
        "bugfix wall",
        "bugfix cpu",
        "throughput sessions_per_second",
    ),
    "connection_pool": (
        "api-sequential wall",
        "api-sequential@rtt10 wall",
        "api-sequential@rtt40 wall",
        "api-sequential@tls wall",
        "api-sequential@tls-rtt40 wall",
        "api-sequential@h2-rtt40 wall",
        "api-burst wall",
        "api-burst@tls-rtt40 wall",
        "throughput sessions_per_second",
        "streaming wall",
    ),
    "lazy_tools": (
        f"startup-cold {_START}",
        f"startup-cold {_ANSWER}",
        f"tool-heavy-start {_START}",
        f"tool-heavy-start {_ANSWER}",
        "tools-memory agent_rss",
        "cli-help wall",
    ),
    "config_cache": (
        f"config-load {_START}",
        f"config-load@500 {_START}",
        f"config-load@yaml {_START}",
        f"config-load@500-yaml {_START}",
        f"config-load@first-500-yaml {_START}",
        f"startup-warm {_START}",
        "cli-help wall",
    ),
    "optional_deps": (
        "install-size install_size",
        "install-size distributions",
        f"startup-cold {_START}",
        "startup-cold modules_imported",
        "tools-memory agent_rss",
    ),
    "native_client": (
        f"trajectory-long@sdk {_STEP}",
        "trajectory-long@sdk wall",
        f"startup-cold@sdk {_START}",
    ),
    "incremental_history": (
        f"trajectory-long@history {_STEP}",
        "trajectory-long@history wall",
        f"trajectory-long@history-1000 {_STEP}",
        "faulty-provider cpu",
    ),
    "event_shell": (f"bugfix@shell {_STEP}", "bugfix@shell wall"),
    "shared_tls": (
        f"api-sequential@tls {_STEP}",
        "api-sequential@tls wall",
        "api-burst@tls wall",
    ),
}
"""Places that the chapter of a toggle has."""

TABLES: Mapping[str, tuple[Ask, ...]] = {
    "together": _of(
        _SEVEN,
        "bugfix@seven wall",
        "bugfix@seven cpu",
        "bugfix@seven peak_rss",
        f"bugfix@seven {_START}",
        f"bugfix@seven {_STEP}",
    ),
    "start-up": (
        *_of(_COLD, f"startup-cold {_START}", f"startup-cold {_ANSWER}"),
        *_of("lazy_tools+config_cache", f"startup-warm {_START}", f"startup-warm {_ANSWER}"),
        *_of("lazy_tools+parallel_tools", f"tool-heavy-start {_ANSWER}"),
        *_of("lazy_tools", "cli-help wall"),
        *_of("config_cache", "cli-help wall"),
        *_of("native_client", f"startup-cold@sdk {_START}"),
    ),
    "memory": (
        *_of("optional_deps", "install-size install_size", "tools-memory agent_rss"),
        *_of("lazy_tools", "tools-memory agent_rss", "tools-memory modules_imported"),
        *_of("batched_trajectory", "trajectory-long@memory agent_rss"),
        *_of("batched_trajectory", "trajectory-long@memory memory_per_hour"),
        *_of("batched_trajectory", "throughput agent_rss", "bugfix peak_rss"),
        *_of("connection_pool", "throughput agent_rss"),
        *_of("async_file_io", "file-ops agent_rss", "bugfix peak_rss"),
        *_of("parallel_tools", "bugfix peak_rss"),
    ),
    "runtime": (
        *_of("parallel_tools", f"fan-out {_STEP}", "fan-out wall"),
        *_of("async_file_io", "file-ops event_loop_lag_max", "file-ops event_loop_lag_p99"),
        *_of("batched_trajectory", f"trajectory-long {_STEP}", "trajectory-long wall"),
        *_of("connection_pool", "api-sequential wall", "api-sequential@tls-rtt40 wall"),
        *_of("connection_pool", "throughput sessions_per_second"),
        *_of("incremental_history", f"trajectory-long@history {_STEP}"),
        *_of("native_client", f"trajectory-long@sdk {_STEP}"),
        *_of("event_shell", "bugfix@shell wall"),
        *_of("shared_tls", f"api-sequential@tls {_STEP}"),
    ),
    **{toggle: _of(toggle, *places) for toggle, places in _OF_ONE.items()},
}
"""Which rows each table has. Their figures are those of the newest run that has them."""
