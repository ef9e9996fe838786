"""One measured trial, and what it is measured from.

Clock readings are CLOCK_MONOTONIC of the machine, comparable between its processes.
"""

import signal
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from trae_bench.model.experiment import Name, Probe, Text, Trial, TrialKey

Status = Literal["ok", "failed", "timeout", "garbage", "interrupted"]


Values = Annotated[dict[Name, float], Meta(max_length=500)]


class RequestLog(Struct, frozen=True):
    """One request as the provider saw it."""

    arrived: float
    """When the last byte of the request was read (monotonic seconds)."""
    replied: float
    """When the last byte of the reply was handed to the kernel."""
    connection: int
    received: int
    """Bytes of the request's body."""
    sent: int
    """Bytes of the reply, head and body."""
    status: int
    """HTTP status; 0 if the client disconnected first, or got no status."""
    stream: int = 0
    """Number of the HTTP/2 stream on its connection; 0 for HTTP/1.1."""
    pressure: Sequence[int] | None = None
    """Level of the trial's cgroup, and its full CPU pressure when the request arrived (us)."""
    read_late: float = 0.0
    """Seconds for which the provider waited for its core before it read the request."""
    calls: int = 0
    """Tool calls in the reply."""
    conversation: int = 0
    """Number of its conversation, if the session has sub-agents; 0 is the main one."""
    reply_pressure: Sequence[int] | None = None
    """The same as `pressure` when the reply was handed to the kernel."""
    delay: float | None = None
    """Seconds for which the trial had been kept from running when the request arrived."""
    reply_delay: float | None = None
    """The same when the reply was handed to the kernel."""


class FirstRequest(Struct, frozen=True):
    """The first request of a session, without its headers: these hold keys."""

    method: str
    path: str
    """Below the session's path, without the query."""
    body: bytes
    """Decompressed, at most 4 MiB."""
    user_agent: str = ""


class PromptLog(Struct, frozen=True):
    """The prompt of one request, compared with the earlier ones of its session.

    A prompt is what the model reads: tools, then the system prompt, then messages, each as JSON
    with sorted keys. See `trae_bench.prompt`.
    """

    arrived: float
    """When the last byte of the request was read (monotonic seconds)."""
    size: int
    """Bytes of the prompt."""
    reused: int
    """Bytes at its beginning with which an earlier prompt for the same model began."""
    first: bool
    """It starts a conversation: the model has said nothing yet."""
    broken: str | None = None
    """The first difference, if the prompt does not extend the one before in its conversation."""


class CacheUse(Struct, frozen=True):
    """Tokens of a prompt by how its provider gets them; see `trae_bench.prompt.cache_rules`.

    `cached`, `written` and `written_1h` are parts of `input`.
    """

    input: int
    """All tokens of the prompt."""
    cached: int = 0
    """Read from the provider's prompt cache."""
    written: int = 0
    """Written to the cache for its usual lifetime, and billed for it."""
    written_1h: int = 0
    """Written for one hour."""
    cacheable: int = 0
    """With which an earlier prompt of the session began: as many as a cache can give at best."""


class TokenUse(CacheUse, frozen=True, kw_only=True):
    """Tokens of one request and its reply."""

    output: int
    """Tokens of the scripted reply."""
    cost: float | None = None
    """US dollars; None without a price."""
    uncached_cost: float | None = None
    """The same without a prompt cache."""
    model: str = ""
    """The model whose rules and prices count."""


class SessionLog(Struct, frozen=True):
    """The provider's log of one session."""

    requests: tuple[RequestLog, ...]
    connections: int
    last_body: bytes
    """Body of the last request: with full-history protocols, the whole transcript."""
    unexpected: int = 0
    """Requests after the end of the script, or with an unknown path."""
    cpu_seconds: float = 0.0
    """CPU time of the provider while this session was open, for all sessions together."""
    handshakes: int = 0
    played: int = 0
    """Turns of the script that were played."""
    unplayed: int = 0
    """Turns of the script that are left."""
    rejected: tuple[str, ...] = ()
    """The first unexpected requests, each like `POST /v1/responses: 404`."""
    side_calls: int = 0
    """Requests of a foreign agent beside the conversation, which take no turn: lists of models,
    token counts, titles. `requests` does not contain them."""
    repeats: int = 0
    """Requests with the body of an answered one, which got the same answer and took no turn."""
    first_request: FirstRequest | None = None
    """Of a foreign agent: the first request with tools, else the first one."""
    prompts: tuple[PromptLog, ...] = ()
    """Of the requests that got a reply of the script, by arrival. Empty if one has no prompt of
    its protocol, or if their bodies were too large to keep."""
    tokens: tuple[TokenUse, ...] = ()
    """Of the same requests."""


class Lifetime(Struct, frozen=True, array_like=True):
    """When a process started and ended (monotonic seconds)."""

    started: float
    ended: float


class WrittenFiles(Struct, frozen=True):
    """The files that a trial created or changed and left, in its workspaces and its home folder."""

    count: int
    size: int
    """Bytes of the whole files."""


class ProcessResult(Struct, frozen=True, kw_only=True):
    """Resources that one process used, with its descendants, and how it ended.

    Descendants that it did not wait for are counted on Linux, until they are killed at its end.

    None stands for a value that the system does not report.
    """

    pid: int = 0
    """0 if the process did not start."""
    started: float = 0.0
    """Just before the spawn (monotonic seconds)."""
    ended: float = 0.0
    """The exit was noticed (monotonic seconds)."""
    exit_status: int | None = None
    """Negative for a signal. None if the process did not start or its end was not seen."""
    user: float = 0.0
    """CPU seconds in user code."""
    system: float = 0.0
    """CPU seconds in the kernel."""
    max_rss: int | None = None
    """Peak resident memory of the largest process (bytes)."""
    minor_faults: int = 0
    major_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    run_delay: float | None = None
    """Seconds in which the main thread was runnable but not running."""
    unattributed: float = 0.0
    """CPU seconds of processes that a trial did not wait for and whose trial is unknown: this
    one, or one that ran at the same time."""
    written_bytes: int | None = None
    """Bytes passed to write calls on files, pipes and sockets."""
    write_syscalls: int | None = None
    peak_tree: int | None = None
    """Peak resident memory of all its processes together (bytes); see `tree_memory`."""
    started_processes: tuple[Lifetime, ...] | None = None
    """The processes that it started, and their descendants; see `process_events`."""
    pressure_start: tuple[int, ...] = ()
    """Full CPU pressure of each level of the trial's cgroup (us), just before the spawn."""
    pressure_end: tuple[int, ...] = ()
    """The same after the exit."""
    report: str = ""
    """The report's bytes, one per character (Latin-1)."""
    report_cut: bool = False
    """The report exceeded the size limit."""
    timed_out: bool = False
    problem: str | None = None
    """Why there is no exit status."""

    @property
    def cpu(self) -> float:
        """CPU seconds, user and system."""
        return self.user + self.system

    @property
    def wall(self) -> float:
        """Seconds from the spawn to the exit."""
        return self.ended - self.started

    @property
    def tree_delay(self) -> float | None:
        """Seconds in which a task of the trial was runnable and none ran; see `run_delay`."""
        if not self.pressure_start or len(self.pressure_start) != len(self.pressure_end):
            return None
        return (self.pressure_end[0] - self.pressure_start[0]) / 1e6

    @property
    def failure(self) -> str | None:
        """Why the process failed. None if its exit status is 0."""
        if self.timed_out:
            return f"killed after {self.wall:.1f} s"
        if self.exit_status is None:
            return self.problem or "its end was not seen"
        if self.exit_status == -signal.SIGKILL:
            return "killed by SIGKILL, which the kernel sends when memory runs out"
        if self.exit_status < 0:
            return f"killed by {_signal_name(-self.exit_status)}"
        return f"exit status {self.exit_status}" if self.exit_status else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class SessionAnswer(Struct, frozen=True):
    """The result of one session, as the child reports it."""

    success: bool
    final_text: str


class ChildReport(Struct, frozen=True):
    """What the child reports over a pipe, after the work and before it exits."""

    success: bool
    """All sessions succeeded."""
    final_text: str
    """Of the first session."""
    steps: int
    """Of all sessions."""
    error: str | None = None
    """The error of the first session that failed."""
    counters: dict[str, float] = {}
    """In-process figures: modules imported, event-loop lag, and so on."""
    sessions: tuple[SessionAnswer, ...] = ()
    """The answer of each session, if the trial had several."""
    memory: tuple[tuple[float, float], ...] = ()
    """Times (monotonic seconds) and the agent's memory at each (bytes), if it was sampled."""


AgentAnswer = ChildReport | SessionAnswer
"""An agent's answer to one session: success and final text."""


class Sample(TrialKey, frozen=True, forbid_unknown_fields=True):
    """One measured trial. The journal gets it as soon as the trial ends."""

    arm: Name
    status: Status
    started: float
    """When the process was spawned (monotonic seconds)."""
    exit_status: int | None
    pid: int
    metrics: Values = msgspec.field(default_factory=dict)
    transcript: Name = ""
    """Hex digest of requests, calls, results and final text, with normalised paths and times."""
    workspace: Name = ""
    """Hex digest of the files after the session."""
    correct: bool = False
    """The scenario's oracle agrees."""
    problem: Text | None = None
    """Why this sample is not correct, with the last lines of the child's output."""
    probe: Probe = "plain"
    difference: Text | UnsetType = UNSET
    """How this answer differs from that of the pair's other side, which ran before or at the same
    time. Files of earlier releases have no such field, and their seals cover its absence."""
    prompt_break: Text | UnsetType = UNSET
    """Where the first prompt is that does not extend the one before; see `prefix_breaks`."""


def of_trial(trial: Trial) -> dict[str, Any]:
    """The arguments of `Sample` that identify its trial."""
    identity = {name: getattr(trial, name) for name in TrialKey.__struct_fields__}
    return {**identity, "arm": trial.arm.name, "probe": trial.probe}
