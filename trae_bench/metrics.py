"""What is measured, and how each figure is worked out from what was seen.

One line of the table below is one metric: what it means, how it must be taken, what
disturbs it, and the function that finds it in an `Observation`. Everything is seen from
outside the subject (the launcher's accounts, the provider's log), so that it means the
same for any agent, except where `about` says that the child reports it.

A sample carries every figure that could be worked out, whatever its trial's mode;
whoever compares takes a metric only from trials of the mode that it asks for.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.model.experiment import Better, Metric, Probe
from trae_bench.model.sample import ChildReport, ProcessResult, RequestLog, SessionLog

TAIL_STEPS = 20
"""Steps from which the tail and the growth of the self time say anything."""
EDGE_STEPS = 10
"""Steps at either end of a session that the growth compares."""
MIN_WATCHED = 10
"""Looks at the memory from which a slope says anything."""
STATED_RATE = 1800.0
"""Steps an hour, one every two seconds, for which growth is told by the hour."""


Requests = tuple[RequestLog, ...]


class Observation(Struct, frozen=True):
    """All that is known of one trial after its end."""

    process: ProcessResult
    sessions: tuple[Requests, ...]
    """Requests of each session that asked anything, in order of arrival; the session that
    asked first comes first."""
    connections: int
    handshakes: int
    provider_cpu: float
    report: ChildReport | None
    correct: float | None
    """Share of the sessions with which the oracle agrees."""

    @classmethod
    def of(
        cls,
        process: ProcessResult,
        logs: Sequence[SessionLog],
        report: ChildReport | None,
        correct: float | None,
    ) -> "Observation":
        ordered = [sorted(log.requests, key=_arrived) for log in logs if log.requests]
        ordered.sort(key=lambda requests: requests[0].arrived)
        return cls(
            process=process,
            sessions=tuple(map(tuple, ordered)),
            connections=_connections(logs),
            handshakes=_handshakes(logs),
            # Each log counts what the provider spent for all; the last session to be
            # registered does not count the registering of the others.
            provider_cpu=min((log.cpu_seconds for log in logs), default=0.0),
            report=report,
            correct=correct,
        )

    @property
    def requests(self) -> Requests:
        """Of all sessions, in order of arrival."""
        if len(self.sessions) == 1:
            return self.sessions[0]
        return tuple(sorted((one for each in self.sessions for one in each), key=_arrived))

    @property
    def step_overheads(self) -> list[float]:
        """For each step but a session's last: from the reply's last byte to the next request's."""
        pairs = (pair for requests in self.sessions for pair in pairwise(requests))
        return [max(0.0, later.arrived - earlier.replied) for earlier, later in pairs]

    @property
    def steps(self) -> int:
        """As the child counts them, else one for each request."""
        return self.report.steps if self.report is not None else len(self.requests)


Measure = Callable[[Observation], float | None]
"""A figure, or None where there is nothing to work it out from."""


def figures(
    process: ProcessResult,
    logs: Sequence[SessionLog],
    report: ChildReport | None,
    correct: float | None = None,
) -> dict[str, float]:
    """Every metric of the table that this trial tells something about, by name.

    `logs` are the provider's, one a session; `correct` is the share of the sessions with
    which the oracle agrees.
    """
    seen = Observation.of(process, logs, report, correct)
    values = ((name, measure(seen)) for name, measure in _MEASURES.items())
    return {
        name: float(value) for name, value in values if value is not None and math.isfinite(value)
    }


def _arrived(request: RequestLog) -> float:
    return request.arrived


def _connections(logs: Sequence[SessionLog]) -> int:
    """Sessions of one process may share a connection, which is counted once."""
    if len(logs) == 1:
        return logs[0].connections
    return len({request.connection for log in logs for request in log.requests})


def _handshakes(logs: Sequence[SessionLog]) -> int:
    """Each session counts those of its own connections, which it may share."""
    if len(logs) == 1:
        return logs[0].handshakes
    secure = (log for log in logs if log.handshakes)
    return len({request.connection for log in secure for request in log.requests})


def _first_request(seen: Observation) -> float | None:
    return seen.sessions[0][0].arrived - seen.process.started if seen.sessions else None


def _first_answer(seen: Observation) -> float | None:
    if not seen.sessions:
        return None
    first, *later = seen.sessions[0]
    done = later[0].arrived if later else seen.process.ended
    return done - seen.process.started - (first.replied - first.arrived)


def _self_time(seen: Observation) -> float | None:
    return sum(seen.step_overheads) if seen.step_overheads else None


def _self_time_per_step(seen: Observation) -> float | None:
    return _median(seen.step_overheads)


def _self_time_p95(seen: Observation) -> float | None:
    times = sorted(seen.step_overheads)
    if len(times) < TAIL_STEPS:
        return None
    return times[math.ceil(0.95 * len(times)) - 1]


def _self_time_growth(seen: Observation) -> float | None:
    times = seen.step_overheads
    if len(times) < TAIL_STEPS or len(seen.sessions) > 1:
        return None
    first, last = _median(times[:EDGE_STEPS]), _median(times[-EDGE_STEPS:])
    return last / first if first and last is not None else None


def _blocked(seen: Observation) -> float | None:
    process = seen.process
    if process.run_delay is None:
        return None
    return max(0.0, process.wall - process.cpu - process.run_delay)


def _steps_per_second(seen: Observation) -> float | None:
    return seen.steps / seen.process.wall if seen.process.wall > 0 else None


def _sessions_per_second(seen: Observation) -> float | None:
    if not seen.requests:
        return None
    seconds = max(request.replied for request in seen.requests) - seen.requests[0].arrived
    return len(seen.sessions) / seconds if seconds > 0 else None


def _memory_per_step(seen: Observation) -> float | None:
    """Slope (bytes) of the agent's own memory over the steps done, by least squares.

    The first tenth of the session is left out, in which things are loaded and pools filled.
    """
    arrived = [request.arrived for request in seen.requests]
    watched = seen.report.memory if seen.report is not None else ()
    if len(arrived) < TAIL_STEPS:
        return None
    begun = arrived[len(arrived) // 10]
    points = [
        (bisect_right(arrived, moment), size)
        for moment, size in watched
        if begun <= moment <= arrived[-1]
    ]
    if len(points) < MIN_WATCHED:
        return None
    mean_step = sum(step for step, _ in points) / len(points)
    spread = sum((step - mean_step) ** 2 for step, _ in points)
    mean_size = sum(size for _, size in points) / len(points)
    return (
        sum((step - mean_step) * (size - mean_size) for step, size in points) / spread
        if spread
        else None
    )


def _memory_growth(seen: Observation) -> float | None:
    found = _memory_per_step(seen)
    return None if found is None else round(1000 * found)


def _memory_per_hour(seen: Observation) -> float | None:
    found = _memory_per_step(seen)
    return None if found is None else round(STATED_RATE * found)


def _provider_cpu(seen: Observation) -> float | None:
    return seen.provider_cpu if seen.sessions else None


def _counter(name: str) -> Measure:
    def reported(seen: Observation) -> float | None:
        return None if seen.report is None else seen.report.counters.get(name)

    return reported


def _median(values: Sequence[float]) -> float | None:
    # The statistics module costs more to import than this whole module.
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


_SHARED_CORE = "a second side on the same core, so never from a duet"
_TREE = "processes that the subject starts and does not wait for are not in it"
_SPEED = "the machine's speed at the moment, by ten percent and more from one second to the next"

_Meter = tuple[Metric, Measure]


def _duet(
    name: str,
    unit: str,
    measure: Measure,
    *,
    about: str,
    disturbed_by: str,
    probe: Probe = "plain",
) -> _Meter:
    return Metric(name, unit, "lower", "duet", about, disturbed_by, probe), measure


def _serial(name: str, unit: str, measure: Measure, *, about: str, disturbed_by: str) -> _Meter:
    better: Better = "higher" if unit == "1/s" else "lower"
    return Metric(name, unit, better, "serial", about, f"{disturbed_by}; {_SHARED_CORE}"), measure


def _exact(
    name: str,
    unit: str,
    measure: Measure,
    *,
    about: str,
    disturbed_by: str = "",
    probe: Probe = "plain",
) -> _Meter:
    return Metric(name, unit, "lower", "exact", about, disturbed_by, probe), measure


_TABLE: tuple[_Meter, ...] = (
    _duet(
        "cpu",
        "s",
        lambda seen: seen.process.cpu,
        about="processor time, user and system, of the subject and the processes it waited for",
        disturbed_by=f"{_TREE}; cache misses that the other side of a duet causes",
    ),
    _duet(
        "cpu_user",
        "s",
        lambda seen: seen.process.user,
        about="the part of cpu spent in user code",
        disturbed_by=_TREE,
    ),
    _duet(
        "cpu_system",
        "s",
        lambda seen: seen.process.system,
        about="the part of cpu spent in the kernel",
        disturbed_by=f"{_TREE}; kernels that charge by ticks split user and system roughly",
    ),
    _duet(
        "peak_rss",
        "B",
        lambda seen: seen.process.max_rss,
        about="most resident memory that any single process of the subject's tree had at once",
        disturbed_by="a tool larger than the agent hides the agent (see agent_rss); left out where "
        "it is no more than the launcher's own, which Linux counts into its children's; the "
        "kernel's count is off by up to 128 KiB",
    ),
    _duet(
        "agent_rss",
        "B",
        _counter("agent_rss"),
        about="most resident memory of the agent's own process, tools left out, as the child "
        "reports it",
        disturbed_by="memory that is needed between the report and the exit",
    ),
    _serial(
        "wall",
        "s",
        lambda seen: seen.process.wall,
        about="from the spawn to the exit; the model's think time is in it",
        disturbed_by=_SPEED,
    ),
    _serial(
        "time_to_first_request",
        "s",
        _first_request,
        about="from the spawn to the first request's last byte at the provider",
        disturbed_by=f"{_SPEED}; a cold file cache; what is put off until later is not in it",
    ),
    _serial(
        "time_to_first_answer",
        "s",
        _first_answer,
        about="from the spawn until the first reply is worked off, its tools loaded and run: to "
        "the second request, or the exit; the first reply's think time is taken away",
        disturbed_by=f"{_SPEED}; a cold file cache; the first step's tools",
    ),
    _serial(
        "session_overhead",
        "s",
        _self_time,
        about="all steps' time between a reply's last byte and the next request's, tools included",
        disturbed_by=f"{_SPEED}; the tools' own time",
    ),
    _serial(
        "step_overhead",
        "s",
        _self_time_per_step,
        about="median over the steps of the time between a reply's last byte and the next "
        "request's, tools included",
        disturbed_by=f"{_SPEED}; the tools' own time",
    ),
    _serial(
        "step_overhead_p95",
        "s",
        _self_time_p95,
        about=f"95th percentile of the steps' self time, from {TAIL_STEPS} steps on",
        disturbed_by="the same as step_overhead; few steps make a poor tail",
    ),
    _serial(
        "step_overhead_growth",
        "",
        _self_time_growth,
        about=f"median self time of the last {EDGE_STEPS} steps over that of the first "
        f"{EDGE_STEPS}, in a single session of {TAIL_STEPS} steps or more; 1 is no growth",
        disturbed_by="steps that do different work; lazy loading in the first steps",
    ),
    _serial(
        "blocked",
        "s",
        _blocked,
        about="wall less cpu less the time the main thread could have run and was not let: waiting "
        "for the model, for tools, for timers; 0 where several processes compute at once",
        disturbed_by="the provider's own speed; processor time of threads side by side",
    ),
    _serial(
        "steps_per_second",
        "1/s",
        _steps_per_second,
        about="steps over wall; steps as the child counts them, else the requests",
        disturbed_by=f"{_SPEED}; a short session is mostly its start",
    ),
    _serial(
        "sessions_per_second",
        "1/s",
        _sessions_per_second,
        about="sessions over the time from the first request of all to the last reply, so that "
        "the start is not in it",
        disturbed_by=f"{_SPEED}; few sessions at a time are mostly waiting",
    ),
    _serial(
        "provider_cpu",
        "s",
        _provider_cpu,
        about="processor time that the scripted provider spent on this trial; where it comes near "
        "cpu, the provider is part of what is measured",
        disturbed_by="the provider's process is shared with the other side of a duet",
    ),
    _serial(
        "event_loop_lag_max",
        "s",
        _counter("event_loop_lag_max"),
        about="longest time for which the event loop let nothing else run, as the child reports "
        "it; only where the scenario names it, because looking costs processor time",
        disturbed_by=f"{_SPEED}; resolution is the heartbeat's 5 ms",
    ),
    _serial(
        "event_loop_lag_p99",
        "s",
        _counter("event_loop_lag_p99"),
        about="99th percentile of what somebody who wants the event loop every 5 ms has to wait "
        "for it, those included who want it during a stall, as the child reports it; only where "
        "the scenario names it",
        disturbed_by=f"{_SPEED}; resolution is the heartbeat's 5 ms",
    ),
    (
        Metric(
            "correct_results",
            "",
            "higher",
            "exact",
            "share of the sessions with which the oracle agrees; a pair that is not wholly correct "
            "is void, so it is 1 in all that is compared and tells only of single samples",
        ),
        lambda seen: seen.correct,
    ),
    _exact(
        "requests", "", lambda seen: len(seen.requests), about="requests that the provider answered"
    ),
    _exact(
        "connections",
        "",
        lambda seen: seen.connections,
        about="connections that the provider accepted",
    ),
    _exact(
        "handshakes",
        "",
        lambda seen: seen.handshakes,
        about="TLS handshakes that the provider completed",
    ),
    _exact(
        "request_bytes",
        "B",
        lambda seen: sum(request.received for request in seen.requests),
        about="bytes of all request bodies",
        disturbed_by="clocks and other texts of changing length in tool output",
    ),
    _exact(
        "modules_imported",
        "",
        _counter("modules_imported"),
        about="Python modules loaded at the end of the session, as the child reports it",
    ),
    _exact(
        "install_size",
        "B",
        _counter("install_size"),
        about="bytes in the files of a fresh environment with what the agent needs, less those of "
        "an empty one; byte-code is not in it",
        disturbed_by="the installer; the length of the cache folder's path, which scripts carry",
    ),
    _exact(
        "bytecode_size",
        "B",
        _counter("bytecode_size"),
        about="bytes that byte-code adds to install_size once every module is compiled",
        disturbed_by="the version of Python",
    ),
    _exact(
        "closure_size",
        "B",
        _counter("closure_size"),
        about="bytes that the installed distributions list as theirs (RECORD), byte-code left out; "
        "of what is installed beside the bench where no environment could be made",
    ),
    _exact(
        "unrecorded_size",
        "B",
        _counter("unrecorded_size"),
        about="bytes in which install_size and closure_size differ, file by file: 0 unless an "
        "installer leaves or takes what no list tells of",
    ),
    _exact(
        "distributions",
        "",
        _counter("distributions"),
        about="distributions that are installed for the agent",
    ),
    _duet(
        "bytes_written",
        "B",
        lambda seen: seen.process.written_bytes,
        about="bytes handed to write calls, to files, pipes and sockets alike (Linux)",
        disturbed_by=f"{_TREE}; numbers of changing length in what is written",
    ),
    _duet(
        "write_syscalls",
        "",
        lambda seen: seen.process.write_syscalls,
        about="write calls, to files, pipes and sockets alike (Linux)",
        disturbed_by=f"{_TREE}; pipes that fill up at another moment",
    ),
    _serial(
        "context_switches",
        "",
        lambda seen: seen.process.voluntary_switches,
        about="times the subject and the processes it waited for went to sleep of their own accord",
        disturbed_by="data that arrives a little sooner or later",
    ),
    _duet(
        "minor_faults",
        "",
        lambda seen: seen.process.minor_faults,
        about="pages mapped without reading the disk: new memory, mostly",
        disturbed_by=f"{_TREE}; the kernel's choice of huge pages",
    ),
    _duet(
        "major_faults",
        "",
        lambda seen: seen.process.major_faults,
        about="pages that had to be read from disk",
        disturbed_by="the file cache: nearly all of it comes from what ran before",
    ),
    _duet(
        "uss_start",
        "B",
        _counter("uss_start"),
        about="memory that only the agent's process has, once its code is loaded (Linux; trials of "
        "its own)",
        disturbed_by="libraries that no other process maps just now are counted in",
        probe="memory",
    ),
    _duet(
        "uss_end",
        "B",
        _counter("uss_end"),
        about="memory that only the agent's process has, at the end of all sessions (Linux; trials "
        "of its own)",
        disturbed_by="libraries that no other process maps just now are counted in",
        probe="memory",
    ),
    _duet(
        "memory_growth",
        "B",
        _memory_growth,
        about="growth of the agent's own memory in 1000 steps: slope over the steps, the first "
        f"tenth left out, from {TAIL_STEPS} steps on (Linux; trials of its own)",
        disturbed_by="memory that the allocator takes in large pieces: short sessions say little",
        probe="memory",
    ),
    _duet(
        "memory_per_hour",
        "B",
        _memory_per_hour,
        about="memory_growth in an hour of one step every two seconds",
        disturbed_by="the same as memory_growth",
        probe="memory",
    ),
    _duet(
        "python_peak",
        "B",
        _counter("python_peak"),
        about="most bytes that Python's allocators held at once, by tracemalloc (trials of "
        "its own)",
        disturbed_by="memory that C libraries take by themselves is not in it",
        probe="tracemalloc",
    ),
    _duet(
        "python_held",
        "B",
        _counter("python_held"),
        about="bytes that Python's allocators hold at the end of all sessions, by tracemalloc "
        "(trials of its own)",
        disturbed_by="memory that C libraries take by themselves is not in it",
        probe="tracemalloc",
    ),
    _exact(
        "instructions",
        "",
        _counter("instructions"),
        about="instructions of the agent's own process, its tools left out, counted by valgrind's "
        "callgrind where that is installed (trials of its own, some fifty times as long)",
        disturbed_by="waiting loops; it says nothing of caches, of waiting or of the kernel's work",
        probe="callgrind",
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric, _ in _TABLE}
"""Every metric by its name."""
_MEASURES: Mapping[str, Measure] = {metric.name: measure for metric, measure in _TABLE}


def taken(*, pinned: bool) -> dict[str, Metric]:
    """Every metric as it is taken where processes can be pinned to a core, or cannot.

    Two sides that do not share a core are no duet: what a duet would be for is then taken one
    side after the other.
    """
    serial = {name: replace(m, mode="serial") for name, m in METRICS.items() if m.mode == "duet"}
    return dict(METRICS) if pinned else {**METRICS, **serial}


ASKED_FOR = frozenset({"event_loop_lag_max", "event_loop_lag_p99"})
"""Metrics that disturb others: taken only where the scenario names them."""
