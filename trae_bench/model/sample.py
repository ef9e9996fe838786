"""One measured trial, and what it is measured from.

Clock readings are CLOCK_MONOTONIC of the machine, comparable between its processes.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

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


def of_trial(trial: Trial) -> dict[str, Any]:
    """The arguments of `Sample` that identify its trial."""
    identity = {name: getattr(trial, name) for name in TrialKey.__struct_fields__}
    return {**identity, "arm": trial.arm.name, "probe": trial.probe}
