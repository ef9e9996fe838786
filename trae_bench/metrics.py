"""The metrics, and how each is computed from the observations of a trial.

A decorated function computes a metric from an `Observation`. It has the metric's name, and its
docstring is the description that users read. The decorator gives the mode, the unit and what
disturbs the metric. The values come from outside the subject (the kernel's
accounting, the provider's log), so that they mean the same for every agent. The exceptions are
metrics that "the child reports".

A sample holds every metric that can be computed, whatever the trial's mode. A comparison uses a
metric only from trials of the metric's mode.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.model.experiment import Better, Metric, Mode, Probe
from trae_bench.model.sample import (
    ChildReport,
    Lifetime,
    ProcessResult,
    PromptLog,
    RequestLog,
    SessionLog,
    TokenUse,
    WrittenFiles,
)

TAIL_STEPS = 20
"""Minimum steps for a tail percentile or a growth of the step overhead."""
EDGE_STEPS = 10
"""Steps at each end of a session that the growth compares."""
MIN_MEMORY_SAMPLES = 10
"""Minimum memory samples for a slope."""
STEPS_PER_HOUR = 1800.0
"""Steps per hour that `memory_per_hour` assumes: one every two seconds."""


Requests = tuple[RequestLog, ...]
Intervals = list[tuple[float, float]]
"""Starts and ends (monotonic seconds), disjoint, in order."""


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
    prompts: tuple[PromptLog, ...] = ()
    """Of all sessions; empty if those of one are unknown."""
    tokens: tuple[TokenUse, ...] = ()
    """Of the same requests."""
    files: WrittenFiles | None = None

    @classmethod
    def of(
        cls,
        process: ProcessResult,
        logs: Sequence[SessionLog],
        report: ChildReport | None,
        correct: float | None,
        files: WrittenFiles | None = None,
    ) -> "Observation":
        """Combine the process, the provider's logs, the child's report and the written files."""
        ordered = [sorted(log.requests, key=_arrived) for log in logs if log.requests]
        ordered.sort(key=lambda requests: requests[0].arrived)
        single = logs[0] if len(logs) == 1 else None
        secure = [log for log in logs if log.handshakes]
        known = all(log.prompts or not log.requests for log in logs)
        return cls(
            process=process,
            sessions=tuple(map(tuple, ordered)),
            connections=single.connections if single else _distinct(logs),
            handshakes=single.handshakes if single else _distinct(secure),
            # Each log has the provider's CPU for all sessions since its own registration. The
            # smallest does not include the registration of the others.
            provider_cpu=min((log.cpu_seconds for log in logs), default=0.0),
            report=report,
            correct=correct,
            prompts=tuple(chain.from_iterable(log.prompts for log in logs)) if known else (),
            tokens=tuple(chain.from_iterable(log.tokens for log in logs)) if known else (),
            files=files,
        )

    @property
    def requests(self) -> Requests:
        """The requests of all sessions, by arrival."""
        if len(self.sessions) == 1:
            return self.sessions[0]
        return tuple(sorted(chain.from_iterable(self.sessions), key=_arrived))

    @property
    def step_pairs(self) -> Iterator[tuple[RequestLog, RequestLog]]:
        """Each request of a conversation, with the next one."""
        for requests in self.sessions:
            of: dict[int, list[RequestLog]] = {}
            for request in requests:
                of.setdefault(request.conversation, []).append(request)
            yield from chain.from_iterable(map(pairwise, of.values()))

    @property
    def step_overheads(self) -> list[float]:
        """Seconds from a reply's last byte to the last byte of the conversation's next request."""
        return [max(0.0, later.arrived - earlier.replied) for earlier, later in self.step_pairs]

    @property
    def waits(self) -> Intervals:
        """The times at which at least one request waits for its reply's last byte."""
        return _union((request.arrived, request.replied) for request in self.requests)

    @property
    def tool_runs(self) -> Intervals | None:
        """The times at which a process runs that started after a reply, before the next request.

        The last reply is followed by the exit. None for several sessions, or if the system does
        not tell when processes start.
        """
        lifetimes = self.process.started_processes
        if lifetimes is None or len(self.sessions) != 1:
            return None
        replied = [end for _, end in self.waits]
        asked = [*(start for start, _ in self.waits[1:]), self.process.ended]
        return _union(_within(replied, asked, lifetimes))

    @property
    def net_step_overheads(self) -> list[float] | None:
        """The same less the time that others took (seconds); None if that is unknown.

        An error of the delay can make one negative.
        """
        times = []
        for earlier, later in self.step_pairs:
            if earlier.reply_delay is None or later.delay is None:
                return None
            delay = later.delay - earlier.reply_delay + later.read_late
            times.append(later.arrived - earlier.replied - delay)
        return times

    @property
    def steps(self) -> int:
        """Steps as the child reports them, otherwise the number of requests."""
        return self.report.steps if self.report is not None else len(self.requests)

    def counter(self, name: str) -> float | None:
        """A counter that the child reports."""
        return None if self.report is None else self.report.counters.get(name)


Measure = Callable[[Observation], float | None]
"""Computes a metric. None if the observation does not have the data."""


def compute_metrics(
    process: ProcessResult,
    logs: Sequence[SessionLog],
    report: ChildReport | None,
    correct: float | None = None,
    files: WrittenFiles | None = None,
) -> dict[str, float]:
    """Compute every metric for which the trial has data, by name.

    `logs` has one log per session. `correct` is the fraction of sessions that the oracle accepts.
    """
    observation = Observation.of(process, logs, report, correct, files)
    values = ((name, measure(observation)) for name, (_, measure) in _METERS.items())
    return {
        name: float(value) for name, value in values if value is not None and math.isfinite(value)
    }


def _arrived(request: RequestLog) -> float:
    return request.arrived


def _distinct(logs: Sequence[SessionLog]) -> int:
    """Count connections once that several sessions of a process share."""
    return len({request.connection for log in logs for request in log.requests})


def _union(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """Join intervals that overlap or touch."""
    joined: Intervals = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _within(
    starts: Sequence[float], ends: Sequence[float], lifetimes: Iterable[Lifetime]
) -> Iterator[tuple[float, float]]:
    """Yield the part of each lifetime inside the gap in which it starts.

    The n-th gap lasts from the n-th of `starts` to the n-th of `ends`; both are in order.
    """
    for lifetime in lifetimes:
        gap = bisect_right(starts, lifetime.started) - 1
        if gap >= 0 and lifetime.started < ends[gap]:
            yield lifetime.started, min(lifetime.ended, ends[gap])


def _length(intervals: Intervals) -> float:
    return sum(end - start for start, end in intervals)


def _median(values: Sequence[float]) -> float | None:
    # Importing `statistics` takes longer than importing this module.
    if not values:
        return None
    ordered, middle = sorted(values), len(values) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


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
    products = ((step - mean_step) * (size - mean_size) for step, size in points)
    return sum(products) / spread if spread else None


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

_METERS: dict[str, tuple[Metric, Measure]] = {}
_REPORTED: set[str] = set()


def _meter(
    mode: Mode,
    unit: str = "",
    disturbed_by: str = "",
    *,
    better: Better = "lower",
    probe: Probe = "plain",
    about: str = "",
    reported: bool = False,
) -> Callable[[Measure], Measure]:
    """Registers a function as the measure of a metric; `about` replaces its docstring.

    `reported` says that it needs a report of the agent.
    """

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        text = about or " ".join((measure.__doc__ or "").split())
        if reported:
            _REPORTED.add(name)
        _METERS[name] = Metric(name, unit, better, mode, text, disturbed_by, probe), measure
        return measure

    return register


_duet, _exact = partial(_meter, "duet"), partial(_meter, "exact")


def _serial(
    unit: str, disturbed_by: str, *, about: str = "", reported: bool = False
) -> Callable[[Measure], Measure]:
    better: Better = "higher" if unit == "1/s" else "lower"
    disturbed_by = f"{disturbed_by}; {_SHARED_CORE}"
    return _meter("serial", unit, disturbed_by, better=better, about=about, reported=reported)


@_duet("s", f"{_TREE}; cache misses caused by the other side of a duet")
def cpu(observation: Observation) -> float | None:
    """CPU time, user and system, of the subject and the processes it started"""
    return observation.process.cpu


@_duet("s", _TREE)
def cpu_user(observation: Observation) -> float | None:
    """the part of cpu in user code"""
    return observation.process.user


@_duet("s", f"{_TREE}; kernels that account by ticks split user and system roughly")
def cpu_system(observation: Observation) -> float | None:
    """the part of cpu in the kernel"""
    return observation.process.system


@_duet(
    "B",
    "a tool larger than the agent hides the agent (see agent_rss); left out if it does not "
    "exceed the launcher's peak, which its children inherit on Linux; the kernel's count is"
    " off by up to 128 KiB",
)
def peak_rss(observation: Observation) -> float | None:
    """peak resident memory of the largest single process in the subject's tree"""
    return observation.process.max_rss


@_duet("B", "memory used between the report and the exit is not counted", reported=True)
def agent_rss(observation: Observation) -> float | None:
    """peak resident memory of the agent's process without its tools, as the child reports it"""
    return observation.counter("agent_rss")


@_serial("s", _SPEED)
def wall(observation: Observation) -> float | None:
    """time from the spawn to the exit, including the model's think time"""
    return observation.process.wall


@_serial("s", f"{_SPEED}; a cold file cache; work that the agent defers is not included")
def time_to_first_request(observation: Observation) -> float | None:
    """time from the spawn to the last byte of the first request at the provider"""
    if not observation.sessions:
        return None
    return observation.sessions[0][0].arrived - observation.process.started


@_serial("s", f"{_SPEED}; a cold file cache; the tools of the first step")
def time_to_first_answer(observation: Observation) -> float | None:
    """time from the spawn to the second request, or the exit, without the first reply's think time:
    the first step, its tools loaded and run"""
    if not observation.sessions:
        return None
    first, *later = observation.sessions[0]
    done = later[0].arrived if later else observation.process.ended
    return done - observation.process.started - (first.replied - first.arrived)


@_serial("s", f"{_SPEED}; the run time of the tools")
def session_overhead(observation: Observation) -> float | None:
    """sum over the steps of the time from a reply's last byte to the next request's, tools
    included"""
    times = observation.step_overheads
    return sum(times) if times else None


@_serial("s", f"{_SPEED}; the run time of the tools")
def step_overhead(observation: Observation) -> float | None:
    """median over the steps of the time from a reply's last byte to the next request's, tools
    included"""
    return _median(observation.step_overheads)


@_serial(
    "s",
    "as step_overhead; few steps give an imprecise tail",
    about=f"95th percentile of the step overhead, for {TAIL_STEPS} steps or more",
)
def step_overhead_p95(observation: Observation) -> float | None:
    times = sorted(observation.step_overheads)
    if len(times) < TAIL_STEPS:
        return None
    return times[math.ceil(0.95 * len(times)) - 1]


@_serial(
    "",
    "steps that do different work; lazy loading in the first steps",
    about=f"median step overhead of the last {EDGE_STEPS} steps divided by that of the first "
    f"{EDGE_STEPS}, in a single session of {TAIL_STEPS} steps or more; 1 is no growth",
)
def step_overhead_growth(observation: Observation) -> float | None:
    times = observation.step_overheads
    one = len(observation.sessions) == 1 and not any(r.conversation for r in observation.requests)
    if len(times) < TAIL_STEPS or not one:
        return None
    first, last = _median(times[:EDGE_STEPS]), _median(times[-EDGE_STEPS:])
    return last / first if first and last is not None else None


@_serial(
    "s",
    "as step_overhead",
    about="median over the steps with tool calls of the step overhead divided by the number of "
    "calls in the reply",
)
def call_overhead(observation: Observation) -> float | None:
    pairs = observation.step_pairs
    return _median(
        [
            max(0.0, later.arrived - earlier.replied) / earlier.calls
            for earlier, later in pairs
            if earlier.calls
        ]
    )


@_serial("s", "the speed of the provider")
def model_time(observation: Observation) -> float | None:
    """time in which a request waits for its reply, from the last byte of one to the last byte of
    the other; requests that wait together count once"""
    return _length(observation.waits) if observation.sessions else None


@_serial("s", f"{_SPEED}; processes that the agent starts for itself between two requests")
def tool_time(observation: Observation) -> float | None:
    """time between a reply and the next request, or the exit, in which a process runs that the
    agent started there; tools inside the agent's process are not told apart from the agent; of a
    single session (Linux; needs perf events)"""
    runs = observation.tool_runs
    return None if runs is None else _length(runs)


@_serial("s", f"{_SPEED}; as tool_time")
def agent_time(observation: Observation) -> float | None:
    """wall minus model_time minus tool_time: start-up, the agent's own work and its end"""
    tools = tool_time(observation)
    if tools is None:
        return None
    return max(0.0, observation.process.wall - _length(observation.waits) - tools)


@_serial("s", "the speed of the provider; CPU time of parallel threads")
def blocked(observation: Observation) -> float | None:
    """wall minus cpu minus the time in which the main thread was runnable but not running: waiting
    for the model, tools and timers; 0 if several processes compute at once"""
    process = observation.process
    if process.run_delay is None:
        return None
    return max(0.0, process.wall - process.cpu - process.run_delay)


@_serial("1/s", f"{_SPEED}; a short session is mostly start-up")
def steps_per_second(observation: Observation) -> float | None:
    """steps divided by wall; steps as the child reports them, otherwise the requests"""
    return observation.steps / observation.process.wall if observation.process.wall > 0 else None


@_serial("1/s", f"{_SPEED}; few concurrent sessions mostly wait")
def sessions_per_second(observation: Observation) -> float | None:
    """sessions divided by the time from the first request to the last reply, without start-up"""
    if not observation.requests:
        return None
    last_reply = max(request.replied for request in observation.requests)
    seconds = last_reply - observation.requests[0].arrived
    return len(observation.sessions) / seconds if seconds > 0 else None


@_serial("s", "the other side of a duet, which shares the provider's process")
def provider_cpu(observation: Observation) -> float | None:
    """CPU time that the scripted provider spent on this trial; if it is close to cpu, the provider
    affects the results"""
    return observation.provider_cpu if observation.sessions else None


@_serial("s", f"{_SPEED}; a resolution of 5 ms", reported=True)
def event_loop_lag_max(observation: Observation) -> float | None:
    """longest delay of a 5 ms heartbeat on the event loop, as the child reports it; only if the
    scenario names it, because the heartbeat costs CPU time"""
    return observation.counter("event_loop_lag_max")


@_serial("s", f"{_SPEED}; a resolution of 5 ms", reported=True)
def event_loop_lag_p99(observation: Observation) -> float | None:
    """99th percentile of the heartbeat's delays, including beats due during a stall, as the child
    reports it; only if the scenario names it"""
    return observation.counter("event_loop_lag_p99")


@_duet("s", _NOT_SUBTRACTED, about=f"wall, {_NET_ABOUT}")
def wall_net(observation: Observation) -> float | None:
    delay = observation.process.tree_delay
    if delay is None:
        return None
    late = sum(request.read_late for request in observation.requests)
    return max(0.0, observation.process.wall - delay - late)


@_duet("s", _NOT_SUBTRACTED, about=f"time_to_first_request, {_NET_ABOUT}")
def time_to_first_request_net(observation: Observation) -> float | None:
    if not observation.sessions:
        return None
    first = observation.sessions[0][0]
    if first.delay is None:
        return None
    elapsed = first.arrived - observation.process.started
    return max(0.0, elapsed - first.delay - first.read_late)


@_duet("s", _NOT_SUBTRACTED, about=f"time_to_first_answer, {_NET_ABOUT}")
def time_to_first_answer_net(observation: Observation) -> float | None:
    elapsed = time_to_first_answer(observation)
    if elapsed is None:
        return None
    first, *later = observation.sessions[0]
    delay = later[0].delay if later else observation.process.tree_delay
    late = first.read_late + (later[0].read_late if later else 0.0)
    return None if delay is None else max(0.0, elapsed - delay - late)


@_duet("s", _NOT_SUBTRACTED, about=f"step_overhead, {_NET_ABOUT}; one session at a time")
def step_overhead_net(observation: Observation) -> float | None:
    times = observation.net_step_overheads
    return None if times is None else _median([max(0.0, time) for time in times])


@_duet("s", _NOT_SUBTRACTED, about=f"session_overhead, {_NET_ABOUT}; one session at a time")
def session_overhead_net(observation: Observation) -> float | None:
    times = observation.net_step_overheads
    # Errors of the delay at one request cancel: they lengthen one step and shorten the next.
    return max(0.0, sum(times)) if times else None


@_exact(better="higher")
def correct_results(observation: Observation) -> float | None:
    """fraction of the sessions that the oracle accepts; it is 1 in every comparison, because pairs
    with a wrong session do not count"""
    return observation.correct


@_exact()
def requests(observation: Observation) -> float | None:
    """requests that the provider answered"""
    return len(observation.requests)


@_exact()
def connections(observation: Observation) -> float | None:
    """connections that the provider accepted"""
    return observation.connections


@_exact()
def handshakes(observation: Observation) -> float | None:
    """TLS handshakes that the provider completed"""
    return observation.handshakes


@_exact("B", "clocks and other texts of changing length in tool output")
def request_bytes(observation: Observation) -> float | None:
    """bytes of all request bodies"""
    return sum(request.received for request in observation.requests)


_TEXTS = "clocks and other texts of changing length in prompts"


@_exact("B", _TEXTS)
def prompt_bytes(observation: Observation) -> float | None:
    """bytes of the prompts of all requests: tools, system prompt and messages"""
    prompts = observation.prompts
    return sum(prompt.size for prompt in prompts) if prompts else None


@_exact("B", _TEXTS)
def new_prompt_bytes(observation: Observation) -> float | None:
    """the part of prompt_bytes that no earlier request of the session began with, in the order
    tools, system prompt, messages: what a prompt cache cannot have"""
    prompts = observation.prompts
    return sum(prompt.size - prompt.reused for prompt in prompts) if prompts else None


@_exact(better="higher")
def prefix_reuse(observation: Observation) -> float | None:
    """share of prompt_bytes with which an earlier request of the session began"""
    size = sum(prompt.size for prompt in observation.prompts)
    return sum(prompt.reused for prompt in observation.prompts) / size if size else None


@_exact()
def prefix_breaks(observation: Observation) -> float | None:
    """requests whose prompt does not begin with all of the one before in their conversation, so
    that a prompt cache misses"""
    prompts = observation.prompts
    return sum(prompt.broken is not None for prompt in prompts) if prompts else None


@_exact("B", _TEXTS)
def first_request_bytes(observation: Observation) -> float | None:
    """bytes of the first prompt: the agent's instructions, its tools and the task"""
    prompts = observation.prompts
    return min(prompts, key=lambda prompt: prompt.arrived).size if prompts else None


@_exact("B", _TEXTS)
def bytes_per_step(observation: Observation) -> float | None:
    """mean bytes that a request after the first of its conversation adds to the prompt"""
    later = [prompt for prompt in observation.prompts if not prompt.first]
    return sum(prompt.size - prompt.reused for prompt in later) / len(later) if later else None


@_exact(disturbed_by=_TEXTS)
def input_tokens(observation: Observation) -> float | None:
    """tokens of the prompts of all requests, from a cache or not; estimated from their bytes"""
    tokens = observation.tokens
    return sum(use.input for use in tokens) if tokens else None


@_exact(disturbed_by=_TEXTS)
def output_tokens(observation: Observation) -> float | None:
    """tokens of the scripted replies; estimated from their bytes"""
    tokens = observation.tokens
    return sum(use.output for use in tokens) if tokens else None


@_exact(better="higher", disturbed_by=f"{_TEXTS}; shorter prompts, which have less to read")
def cached_tokens(observation: Observation) -> float | None:
    """the part of input_tokens that the provider would read from its prompt cache, by its rules
    and the breakpoints that the agent sets"""
    tokens = observation.tokens
    return sum(use.cached for use in tokens) if tokens else None


@_exact(better="higher", disturbed_by=f"{_TEXTS}; shorter prompts, which have less to read")
def cacheable_tokens(observation: Observation) -> float | None:
    """the part of input_tokens with which an earlier request began: what the provider could read
    from its cache with the best breakpoints"""
    tokens = observation.tokens
    return sum(use.cacheable for use in tokens) if tokens else None


@_exact("USD", f"{_TEXTS}; pauses longer than the lifetime of a cache")
def cost(observation: Observation) -> float | None:
    """list price of all requests and replies, in US dollars: tokens times the prices of the model;
    a model without a price has those of the protocol's standard model"""
    costs = [use.cost for use in observation.tokens if use.cost is not None]
    return sum(costs) if costs and len(costs) == len(observation.tokens) else None


@_exact(reported=True)
def modules_imported(observation: Observation) -> float | None:
    """Python modules loaded at the end of the session, as the child reports it"""
    return observation.counter("modules_imported")


@_exact(
    "B",
    "the installer; the length of the cache folder's path, which scripts contain",
    reported=True,
)
def install_size(observation: Observation) -> float | None:
    """bytes of the files in a fresh environment with the agent's requirements, minus those of an
    empty environment; without byte-code"""
    return observation.counter("install_size")


@_exact("B", "the Python version", reported=True)
def bytecode_size(observation: Observation) -> float | None:
    """bytes that byte-code adds to install_size when every module is compiled"""
    return observation.counter("bytecode_size")


@_exact("B", reported=True)
def closure_size(observation: Observation) -> float | None:
    """bytes of the files in the RECORD lists of the installed distributions, without byte-code; of
    the current environment if no fresh one could be made"""
    return observation.counter("closure_size")


@_exact("B", reported=True)
def unrecorded_size(observation: Observation) -> float | None:
    """sum of the file-by-file differences (bytes) between install_size and closure_size: 0 unless
    an installer adds or removes unlisted files"""
    return observation.counter("unrecorded_size")


@_exact(reported=True)
def distributions(observation: Observation) -> float | None:
    """distributions installed for the agent"""
    return observation.counter("distributions")


@_exact("", "what tools start by chance or by time")
def processes_started(observation: Observation) -> float | None:
    """processes that the subject started, and those that these started; threads are not counted
    (Linux; needs perf events)"""
    lifetimes = observation.process.started_processes
    return None if lifetimes is None else len(lifetimes)


@_exact("", "files with random names")
def files_written(observation: Observation) -> float | None:
    """files that the subject created or changed and left in its workspaces and its home folder"""
    return None if observation.files is None else observation.files.count


@_exact("B", "times and paths of varying length in these files")
def files_written_size(observation: Observation) -> float | None:
    """bytes of the files that files_written counts, each with its whole size"""
    return None if observation.files is None else observation.files.size


@_duet("B", f"{_WAITED}; written numbers of varying length")
def bytes_written(observation: Observation) -> float | None:
    """bytes passed to write calls on files, pipes and sockets (Linux)"""
    return observation.process.written_bytes


@_duet("", f"{_WAITED}; when pipes fill up")
def write_syscalls(observation: Observation) -> float | None:
    """write calls on files, pipes and sockets (Linux)"""
    return observation.process.write_syscalls


@_serial("", "when data arrives")
def context_switches(observation: Observation) -> float | None:
    """voluntary context switches of the subject and the processes it started"""
    return observation.process.voluntary_switches


@_duet("", f"{_TREE}; the kernel's choice of huge pages")
def minor_faults(observation: Observation) -> float | None:
    """pages mapped without reading the disk, mostly new memory"""
    return observation.process.minor_faults


@_duet("", "the file cache, so mostly what ran before")
def major_faults(observation: Observation) -> float | None:
    """pages read from disk"""
    return observation.process.major_faults


@_duet(
    "B",
    "libraries that no other process maps at the moment are counted",
    probe="memory",
    reported=True,
)
def uss_start(observation: Observation) -> float | None:
    """unique set size of the agent's process after its imports (Linux; separate trials)"""
    return observation.counter("uss_start")


@_duet(
    "B",
    "libraries that no other process maps at the moment are counted",
    probe="memory",
    reported=True,
)
def uss_end(observation: Observation) -> float | None:
    """unique set size of the agent's process at the end of all sessions (Linux; separate trials)"""
    return observation.counter("uss_end")


@_duet(
    "B",
    "large blocks that the allocator requests: short sessions are imprecise",
    probe="memory",
    about="growth of the agent's private memory per 1000 steps: slope over the steps without the "
    f"first tenth, for {TAIL_STEPS} steps or more (Linux; separate trials)",
    reported=True,
)
def memory_growth(observation: Observation) -> float | None:
    slope = _memory_slope(observation)
    return None if slope is None else round(1000 * slope)


@_duet("B", "as memory_growth", probe="memory", reported=True)
def memory_per_hour(observation: Observation) -> float | None:
    """memory_growth per hour at one step every two seconds"""
    slope = _memory_slope(observation)
    return None if slope is None else round(STEPS_PER_HOUR * slope)


@_duet("B", "memory that is held for less than 5 ms between two samples", probe="tree")
def peak_tree(observation: Observation) -> float | None:
    """peak resident memory of the subject and the processes it started, together; what several of
    them share counts once (Linux; sampled in separate trials)"""
    return observation.process.peak_tree


@_duet(
    "B",
    "memory that C libraries allocate directly is not counted",
    probe="tracemalloc",
    reported=True,
)
def python_peak(observation: Observation) -> float | None:
    """peak bytes held by Python's allocators, from tracemalloc (separate trials)"""
    return observation.counter("python_peak")


@_duet(
    "B",
    "memory that C libraries allocate directly is not counted",
    probe="tracemalloc",
    reported=True,
)
def python_held(observation: Observation) -> float | None:
    """bytes held by Python's allocators at the end of all sessions, from tracemalloc (separate
    trials)"""
    return observation.counter("python_held")


@_exact(
    "",
    "waiting loops; caches, waiting and kernel code are not counted",
    probe="callgrind",
    reported=True,
)
def instructions(observation: Observation) -> float | None:
    """instructions of the agent's process without its tools, counted by valgrind's callgrind if it
    is installed (separate trials, about fifty times slower)"""
    return observation.counter("instructions")


METRICS: Mapping[str, Metric] = {name: metric for name, (metric, _) in _METERS.items()}
"""All metrics by name."""


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
PROCESS_METRICS = frozenset({"processes_started", "tool_time", "agent_time"})
"""Metrics that need the kernel's perf events."""
AGENT_METRICS = (
    "cpu",
    "peak_rss",
    "wall_net",
    "time_to_first_request_net",
    "step_overhead_net",
    "requests",
    "connections",
    "request_bytes",
    "first_request_bytes",
    "new_prompt_bytes",
    "prefix_breaks",
)
"""What is measured of every agent, from outside."""
GATE_METRICS: Mapping[str, str] = {"step_overhead_net": "session_overhead_net"}
"""Metrics of a scenario that a gate replaces. The median step can be one of 1 ms, which scatters
by 10 % and more on a busy machine. The sum over the steps shows the same changes and is precise."""
OPT_IN_METRICS = frozenset({"event_loop_lag_max", "event_loop_lag_p99"})
"""Metrics whose measurement disturbs others. Taken only if the scenario names them."""
REPORTED_METRICS = frozenset(_REPORTED)
"""Metrics that need a report of the agent."""
