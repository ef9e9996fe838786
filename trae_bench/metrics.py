"""The metrics, and how each is computed from the observations of a trial.

Each entry of the table gives a metric's meaning, mode and disturbances, and the function that
computes it from an `Observation`. The values come from outside the subject (the kernel's
accounting, the provider's log), so that they mean the same for every agent. The exceptions are
metrics that "the child reports".

A sample holds every metric that can be computed, whatever the trial's mode. A comparison uses a
metric only from trials of the metric's mode.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.model.experiment import Better, Metric, Mode, Probe
from trae_bench.model.sample import ChildReport, ProcessResult, RequestLog, SessionLog

TAIL_STEPS = 20
"""Minimum steps for a tail percentile or a growth of the step overhead."""
EDGE_STEPS = 10
"""Steps at each end of a session that the growth compares."""
MIN_MEMORY_SAMPLES = 10
"""Minimum memory samples for a slope."""
STEPS_PER_HOUR = 1800.0
"""Steps per hour that `memory_per_hour` assumes: one every two seconds."""


Requests = tuple[RequestLog, ...]


class Observation(Struct, frozen=True):
    """The data of one trial, from which its metrics are computed."""

    process: ProcessResult
    sessions: tuple[Requests, ...]
    """The requests of each session that made any, by arrival. Sessions are in order of start."""
    connections: int
    handshakes: int
    provider_cpu: float
    report: ChildReport | None
    correct: float | None
    """Fraction of the sessions that the oracle accepts."""

    @classmethod
    def of(
        cls,
        process: ProcessResult,
        logs: Sequence[SessionLog],
        report: ChildReport | None,
        correct: float | None,
    ) -> "Observation":
        """Combine the process, the provider's logs and the child's report."""
        ordered = [sorted(log.requests, key=_arrived) for log in logs if log.requests]
        ordered.sort(key=lambda requests: requests[0].arrived)
        return cls(
            process=process,
            sessions=tuple(map(tuple, ordered)),
            connections=_connections(logs),
            handshakes=_handshakes(logs),
            # Each log has the provider's CPU for all sessions since its own registration. The
            # smallest does not include the registration of the others.
            provider_cpu=min((log.cpu_seconds for log in logs), default=0.0),
            report=report,
            correct=correct,
        )

    @property
    def requests(self) -> Requests:
        """The requests of all sessions, by arrival."""
        if len(self.sessions) == 1:
            return self.sessions[0]
        return tuple(sorted(chain.from_iterable(self.sessions), key=_arrived))

    @property
    def step_pairs(self) -> Iterator[tuple[RequestLog, RequestLog]]:
        """Each request of a session, with the next one."""
        return chain.from_iterable(map(pairwise, self.sessions))

    @property
    def step_overheads(self) -> list[float]:
        """Seconds from a reply's last byte to the last byte of the session's next request."""
        return [max(0.0, later.arrived - earlier.replied) for earlier, later in self.step_pairs]

    @property
    def steps(self) -> int:
        """Steps as the child reports them, otherwise the number of requests."""
        return self.report.steps if self.report is not None else len(self.requests)


Measure = Callable[[Observation], float | None]
"""Computes a metric. None if the observation does not have the data."""


def compute_metrics(
    process: ProcessResult,
    logs: Sequence[SessionLog],
    report: ChildReport | None,
    correct: float | None = None,
) -> dict[str, float]:
    """Compute every metric for which the trial has data, by name.

    `logs` has one log per session. `correct` is the fraction of sessions that the oracle accepts.
    """
    observation = Observation.of(process, logs, report, correct)
    values = ((name, measure(observation)) for name, measure in _MEASURES.items())
    return {
        name: float(value) for name, value in values if value is not None and math.isfinite(value)
    }


def _arrived(request: RequestLog) -> float:
    return request.arrived


def _connections(logs: Sequence[SessionLog]) -> int:
    """Count connections once that several sessions of a process share."""
    if len(logs) == 1:
        return logs[0].connections
    return len({request.connection for log in logs for request in log.requests})


def _handshakes(logs: Sequence[SessionLog]) -> int:
    """Count handshakes once on connections that several sessions share."""
    if len(logs) == 1:
        return logs[0].handshakes
    secure = (log for log in logs if log.handshakes)
    return len({request.connection for log in secure for request in log.requests})


def _first_request(observation: Observation) -> float | None:
    return (
        observation.sessions[0][0].arrived - observation.process.started
        if observation.sessions
        else None
    )


def _first_answer(observation: Observation) -> float | None:
    if not observation.sessions:
        return None
    first, *later = observation.sessions[0]
    done = later[0].arrived if later else observation.process.ended
    return done - observation.process.started - (first.replied - first.arrived)


def _session_overhead(observation: Observation) -> float | None:
    times = observation.step_overheads
    return sum(times) if times else None


def _step_overhead(observation: Observation) -> float | None:
    return _median(observation.step_overheads)


def _step_overhead_p95(observation: Observation) -> float | None:
    times = sorted(observation.step_overheads)
    if len(times) < TAIL_STEPS:
        return None
    return times[math.ceil(0.95 * len(times)) - 1]


def _step_overhead_growth(observation: Observation) -> float | None:
    times = observation.step_overheads
    if len(times) < TAIL_STEPS or len(observation.sessions) > 1:
        return None
    first, last = _median(times[:EDGE_STEPS]), _median(times[-EDGE_STEPS:])
    return last / first if first and last is not None else None


def _blocked(observation: Observation) -> float | None:
    process = observation.process
    if process.run_delay is None:
        return None
    return max(0.0, process.wall - process.cpu - process.run_delay)


def _wall_net(observation: Observation) -> float | None:
    delay = observation.process.tree_delay
    if delay is None:
        return None
    late = sum(request.read_late for request in observation.requests)
    return max(0.0, observation.process.wall - delay - late)


def _first_request_net(observation: Observation) -> float | None:
    if not observation.sessions:
        return None
    first = observation.sessions[0][0]
    if first.delay is None:
        return None
    elapsed = first.arrived - observation.process.started
    return max(0.0, elapsed - first.delay - first.read_late)


def _first_answer_net(observation: Observation) -> float | None:
    elapsed = _first_answer(observation)
    if elapsed is None:
        return None
    first, *later = observation.sessions[0]
    delay = later[0].delay if later else observation.process.tree_delay
    late = first.read_late + (later[0].read_late if later else 0.0)
    return None if delay is None else max(0.0, elapsed - delay - late)


def _step_overhead_net(observation: Observation) -> float | None:
    times = []
    for earlier, later in observation.step_pairs:
        if earlier.delay is None or later.delay is None:
            return None
        delay = later.delay - earlier.delay + later.read_late
        times.append(max(0.0, later.arrived - earlier.replied - delay))
    return _median(times)


def _steps_per_second(observation: Observation) -> float | None:
    return observation.steps / observation.process.wall if observation.process.wall > 0 else None


def _sessions_per_second(observation: Observation) -> float | None:
    if not observation.requests:
        return None
    seconds = (
        max(request.replied for request in observation.requests) - observation.requests[0].arrived
    )
    return len(observation.sessions) / seconds if seconds > 0 else None


def _memory_slope(observation: Observation) -> float | None:
    """Return the least-squares slope of the agent's private memory (bytes per step).

    The first tenth of the steps is left out, because modules are loaded and pools filled then.
    """
    arrived = [request.arrived for request in observation.requests]
    samples = observation.report.memory if observation.report is not None else ()
    if len(arrived) < TAIL_STEPS:
        return None
    start = arrived[len(arrived) // 10]
    points = [
        (bisect_right(arrived, moment), size)
        for moment, size in samples
        if start <= moment <= arrived[-1]
    ]
    if len(points) < MIN_MEMORY_SAMPLES:
        return None
    mean_step = sum(step for step, _ in points) / len(points)
    spread = sum((step - mean_step) ** 2 for step, _ in points)
    mean_size = sum(size for _, size in points) / len(points)
    return (
        sum((step - mean_step) * (size - mean_size) for step, size in points) / spread
        if spread
        else None
    )


def _memory_growth(observation: Observation) -> float | None:
    slope = _memory_slope(observation)
    return None if slope is None else round(1000 * slope)


def _memory_per_hour(observation: Observation) -> float | None:
    slope = _memory_slope(observation)
    return None if slope is None else round(STEPS_PER_HOUR * slope)


def _provider_cpu(observation: Observation) -> float | None:
    return observation.provider_cpu if observation.sessions else None


def _counter(name: str) -> Measure:
    return partial(_reported, name)


def _reported(name: str, observation: Observation) -> float | None:
    return None if observation.report is None else observation.report.counters.get(name)


def _median(values: Sequence[float]) -> float | None:
    # Importing `statistics` takes longer than importing this module.
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


_NET_ABOUT = (
    "less the time in which other processes kept the trial or the provider from running, so that "
    "it can be compared on a busy machine (Linux; needs a cgroup)"
)
_NOT_SUBTRACTED = (
    "cache misses that other processes cause; delays of one process of the trial while another "
    "one slept, which are subtracted in full"
)
_SHARED_CORE = "a second side on the same core, so it is never taken from a duet"
_TREE = (
    "processes that the subject does not wait for are counted until they are killed at its end "
    "(Linux)"
)
_WAITED = "processes that the subject starts and does not wait for are not counted"
_SPEED = "changes of the host's speed, ten percent and more from one second to the next"

_Meter = tuple[Metric, Measure]


def _meter(
    mode: Mode,
    name: str,
    unit: str,
    measure: Measure | None = None,
    *,
    about: str,
    disturbed_by: str = "",
    probe: Probe = "plain",
) -> _Meter:
    """Without `measure`, the metric is the child's counter of that name."""
    metric = Metric(name, unit, "lower", mode, about, disturbed_by, probe)
    return metric, measure or _counter(name)


_duet, _exact = partial(_meter, "duet"), partial(_meter, "exact")


def _serial(name: str, unit: str, measure: Measure, *, about: str, disturbed_by: str) -> _Meter:
    better: Better = "higher" if unit == "1/s" else "lower"
    return Metric(name, unit, better, "serial", about, f"{disturbed_by}; {_SHARED_CORE}"), measure


_TABLE: tuple[_Meter, ...] = (
    _duet(
        "cpu",
        "s",
        lambda o: o.process.cpu,
        about="CPU time, user and system, of the subject and the processes it started",
        disturbed_by=f"{_TREE}; cache misses caused by the other side of a duet",
    ),
    _duet(
        "cpu_user",
        "s",
        lambda o: o.process.user,
        about="the part of cpu in user code",
        disturbed_by=_TREE,
    ),
    _duet(
        "cpu_system",
        "s",
        lambda o: o.process.system,
        about="the part of cpu in the kernel",
        disturbed_by=f"{_TREE}; kernels that account by ticks split user and system roughly",
    ),
    _duet(
        "peak_rss",
        "B",
        lambda o: o.process.max_rss,
        about="peak resident memory of the largest single process in the subject's tree",
        disturbed_by="a tool larger than the agent hides the agent (see agent_rss); left out if it "
        "does not exceed the launcher's peak, which its children inherit on Linux; the kernel's "
        "count is off by up to 128 KiB",
    ),
    _duet(
        "agent_rss",
        "B",
        about="peak resident memory of the agent's process without its tools, as the child "
        "reports it",
        disturbed_by="memory used between the report and the exit is not counted",
    ),
    _serial(
        "wall",
        "s",
        lambda o: o.process.wall,
        about="time from the spawn to the exit, including the model's think time",
        disturbed_by=_SPEED,
    ),
    _serial(
        "time_to_first_request",
        "s",
        _first_request,
        about="time from the spawn to the last byte of the first request at the provider",
        disturbed_by=f"{_SPEED}; a cold file cache; work that the agent defers is not included",
    ),
    _serial(
        "time_to_first_answer",
        "s",
        _first_answer,
        about="time from the spawn to the second request, or the exit, without the first reply's "
        "think time: the first step, its tools loaded and run",
        disturbed_by=f"{_SPEED}; a cold file cache; the tools of the first step",
    ),
    _serial(
        "session_overhead",
        "s",
        _session_overhead,
        about="sum over the steps of the time from a reply's last byte to the next request's, "
        "tools included",
        disturbed_by=f"{_SPEED}; the run time of the tools",
    ),
    _serial(
        "step_overhead",
        "s",
        _step_overhead,
        about="median over the steps of the time from a reply's last byte to the next request's, "
        "tools included",
        disturbed_by=f"{_SPEED}; the run time of the tools",
    ),
    _serial(
        "step_overhead_p95",
        "s",
        _step_overhead_p95,
        about=f"95th percentile of the step overhead, for {TAIL_STEPS} steps or more",
        disturbed_by="as step_overhead; few steps give an imprecise tail",
    ),
    _serial(
        "step_overhead_growth",
        "",
        _step_overhead_growth,
        about=f"median step overhead of the last {EDGE_STEPS} steps divided by that of the first "
        f"{EDGE_STEPS}, in a single session of {TAIL_STEPS} steps or more; 1 is no growth",
        disturbed_by="steps that do different work; lazy loading in the first steps",
    ),
    _serial(
        "blocked",
        "s",
        _blocked,
        about="wall minus cpu minus the time in which the main thread was runnable but not "
        "running: waiting for the model, tools and timers; 0 if several processes compute at once",
        disturbed_by="the speed of the provider; CPU time of parallel threads",
    ),
    _serial(
        "steps_per_second",
        "1/s",
        _steps_per_second,
        about="steps divided by wall; steps as the child reports them, otherwise the requests",
        disturbed_by=f"{_SPEED}; a short session is mostly start-up",
    ),
    _serial(
        "sessions_per_second",
        "1/s",
        _sessions_per_second,
        about="sessions divided by the time from the first request to the last reply, without "
        "start-up",
        disturbed_by=f"{_SPEED}; few concurrent sessions mostly wait",
    ),
    _serial(
        "provider_cpu",
        "s",
        _provider_cpu,
        about="CPU time that the scripted provider spent on this trial; if it is close to cpu, the "
        "provider affects the results",
        disturbed_by="the other side of a duet, which shares the provider's process",
    ),
    _serial(
        "event_loop_lag_max",
        "s",
        _counter("event_loop_lag_max"),
        about="longest delay of a 5 ms heartbeat on the event loop, as the child reports it; only "
        "if the scenario names it, because the heartbeat costs CPU time",
        disturbed_by=f"{_SPEED}; a resolution of 5 ms",
    ),
    _serial(
        "event_loop_lag_p99",
        "s",
        _counter("event_loop_lag_p99"),
        about="99th percentile of the heartbeat's delays, including beats due during a stall, as "
        "the child reports it; only if the scenario names it",
        disturbed_by=f"{_SPEED}; a resolution of 5 ms",
    ),
    _duet("wall_net", "s", _wall_net, about=f"wall, {_NET_ABOUT}", disturbed_by=_NOT_SUBTRACTED),
    _duet(
        "time_to_first_request_net",
        "s",
        _first_request_net,
        about=f"time_to_first_request, {_NET_ABOUT}",
        disturbed_by=_NOT_SUBTRACTED,
    ),
    _duet(
        "time_to_first_answer_net",
        "s",
        _first_answer_net,
        about=f"time_to_first_answer, {_NET_ABOUT}",
        disturbed_by=_NOT_SUBTRACTED,
    ),
    _duet(
        "step_overhead_net",
        "s",
        _step_overhead_net,
        about=f"step_overhead, {_NET_ABOUT}; one session at a time",
        disturbed_by=_NOT_SUBTRACTED,
    ),
    (
        Metric(
            "correct_results",
            "",
            "higher",
            "exact",
            "fraction of the sessions that the oracle accepts; it is 1 in every comparison, "
            "because pairs with a wrong session do not count",
        ),
        lambda o: o.correct,
    ),
    _exact("requests", "", lambda o: len(o.requests), about="requests that the provider answered"),
    _exact(
        "connections", "", lambda o: o.connections, about="connections that the provider accepted"
    ),
    _exact(
        "handshakes", "", lambda o: o.handshakes, about="TLS handshakes that the provider completed"
    ),
    _exact(
        "request_bytes",
        "B",
        lambda o: sum(request.received for request in o.requests),
        about="bytes of all request bodies",
        disturbed_by="clocks and other texts of changing length in tool output",
    ),
    _exact(
        "modules_imported",
        "",
        about="Python modules loaded at the end of the session, as the child reports it",
    ),
    _exact(
        "install_size",
        "B",
        about="bytes of the files in a fresh environment with the agent's requirements, minus "
        "those of an empty environment; without byte-code",
        disturbed_by="the installer; the length of the cache folder's path, which scripts contain",
    ),
    _exact(
        "bytecode_size",
        "B",
        about="bytes that byte-code adds to install_size when every module is compiled",
        disturbed_by="the Python version",
    ),
    _exact(
        "closure_size",
        "B",
        about="bytes of the files in the RECORD lists of the installed distributions, without "
        "byte-code; of the current environment if no fresh one could be made",
    ),
    _exact(
        "unrecorded_size",
        "B",
        about="sum of the file-by-file differences (bytes) between install_size and closure_size: "
        "0 unless an installer adds or removes unlisted files",
    ),
    _exact("distributions", "", about="distributions installed for the agent"),
    _duet(
        "bytes_written",
        "B",
        lambda o: o.process.written_bytes,
        about="bytes passed to write calls on files, pipes and sockets (Linux)",
        disturbed_by=f"{_WAITED}; written numbers of varying length",
    ),
    _duet(
        "write_syscalls",
        "",
        lambda o: o.process.write_syscalls,
        about="write calls on files, pipes and sockets (Linux)",
        disturbed_by=f"{_WAITED}; when pipes fill up",
    ),
    _serial(
        "context_switches",
        "",
        lambda o: o.process.voluntary_switches,
        about="voluntary context switches of the subject and the processes it started",
        disturbed_by="when data arrives",
    ),
    _duet(
        "minor_faults",
        "",
        lambda o: o.process.minor_faults,
        about="pages mapped without reading the disk, mostly new memory",
        disturbed_by=f"{_TREE}; the kernel's choice of huge pages",
    ),
    _duet(
        "major_faults",
        "",
        lambda o: o.process.major_faults,
        about="pages read from disk",
        disturbed_by="the file cache, so mostly what ran before",
    ),
    _duet(
        "uss_start",
        "B",
        about="unique set size of the agent's process after its imports (Linux; separate trials)",
        disturbed_by="libraries that no other process maps at the moment are counted",
        probe="memory",
    ),
    _duet(
        "uss_end",
        "B",
        about="unique set size of the agent's process at the end of all sessions (Linux; separate "
        "trials)",
        disturbed_by="libraries that no other process maps at the moment are counted",
        probe="memory",
    ),
    _duet(
        "memory_growth",
        "B",
        _memory_growth,
        about="growth of the agent's private memory per 1000 steps: slope over the steps without "
        f"the first tenth, for {TAIL_STEPS} steps or more (Linux; separate trials)",
        disturbed_by="large blocks that the allocator requests: short sessions are imprecise",
        probe="memory",
    ),
    _duet(
        "memory_per_hour",
        "B",
        _memory_per_hour,
        about="memory_growth per hour at one step every two seconds",
        disturbed_by="as memory_growth",
        probe="memory",
    ),
    _duet(
        "python_peak",
        "B",
        about="peak bytes held by Python's allocators, from tracemalloc (separate trials)",
        disturbed_by="memory that C libraries allocate directly is not counted",
        probe="tracemalloc",
    ),
    _duet(
        "python_held",
        "B",
        about="bytes held by Python's allocators at the end of all sessions, from tracemalloc "
        "(separate trials)",
        disturbed_by="memory that C libraries allocate directly is not counted",
        probe="tracemalloc",
    ),
    _exact(
        "instructions",
        "",
        about="instructions of the agent's process without its tools, counted by valgrind's "
        "callgrind if it is installed (separate trials, about fifty times slower)",
        disturbed_by="waiting loops; caches, waiting and kernel code are not counted",
        probe="callgrind",
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric, _ in _TABLE}
"""All metrics by name."""
_MEASURES: Mapping[str, Measure] = {metric.name: measure for metric, measure in _TABLE}


def metrics_for_host(*, pinned: bool) -> dict[str, Metric]:
    """Return all metrics in the mode that the host supports.

    If processes cannot be pinned to a shared core, duets are not possible, and their metrics
    are taken in serial trials.
    """
    serial = {name: replace(m, mode="serial") for name, m in METRICS.items() if m.mode == "duet"}
    return dict(METRICS) if pinned else {**METRICS, **serial}


_SUFFIX = "_net"


def plain_metric(name: str) -> str:
    """The metric without the time that others took: `wall` for `wall_net`."""
    return name.removesuffix(_SUFFIX)


NET_METRICS = frozenset(name for name in METRICS if name.endswith(_SUFFIX))
"""Metrics that need a cgroup for each trial."""
AGENT_METRICS = (
    "cpu",
    "peak_rss",
    "wall_net",
    "time_to_first_request_net",
    "step_overhead_net",
    "requests",
    "connections",
    "request_bytes",
)
"""What is measured of every agent, from outside."""
OPT_IN_METRICS = frozenset({"event_loop_lag_max", "event_loop_lag_p99"})
"""Metrics whose measurement disturbs others. Taken only if the scenario names them."""
REPORTED_METRICS = frozenset(
    name
    for name, measure in _MEASURES.items()
    if isinstance(measure, partial) and measure.func is _reported
) | {"memory_growth", "memory_per_hour"}
"""Metrics that need a report of the agent."""
