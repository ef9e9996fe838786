"""The records a datum becomes on its walk through the house. Frozen, typed, inert.

    Scenario x toggles -> Arm -> Contrast -> Trial -> Sample -> Estimate -> Comparison

Units are in the metric's name or in `Metric.unit`; times are seconds, sizes are bytes.
Clock readings are CLOCK_MONOTONIC of the machine, comparable between its processes.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Mode = Literal["duet", "serial", "exact"]
Probe = Literal["plain", "memory", "tracemalloc", "callgrind"]
"""How closely a trial is watched. What disturbs all else gets trials of its own:

    plain        only from outside, and by what the child reports at its end
    memory       the agent's own memory, every 20 ms or, in a long session, more rarely
    tracemalloc  each allocation by Python
    callgrind    each instruction, under valgrind
"""
Better = Literal["lower", "higher"]
Side = Literal["A", "B"]
Verdict = Literal["regression", "improvement", "equivalent", "inconclusive", "not measured"]
Status = Literal["ok", "failed", "timeout", "garbage", "interrupted"]
Stopped = Literal["done", "budget", "interrupted", "error"]
"""Why a run ended."""

# Run files come from strangers: the bounds hold where a record is read from a file.
Name = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=8000)]
Values = Annotated[dict[Name, float], Meta(max_length=500)]
Switches = Annotated[dict[Name, bool], Meta(max_length=100)]


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that is measured."""

    name: Name
    unit: Name
    """`s`, `B`, `1/s`, `ms`, or `` for a count."""
    better: Better
    mode: Mode
    """How it must be taken: duet (CPU, memory), serial (anything that waits), exact (counts)."""
    about: Text
    disturbed_by: Text = ""
    probe: Probe = "plain"
    """The trials that it is taken from."""
    threshold: Annotated[float, Meta(ge=0)] | None = None
    """Smallest effect (a fraction) worth a verdict, where it is not the release's own."""


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a comparison: a full toggle vector, or a revision of the subject."""

    name: Name
    toggles: Switches
    revision: Name | None = None


class Contrast(Struct, frozen=True, forbid_unknown_fields=True):
    """The question "what does B change against A, on this scenario?"."""

    scenario: Name
    name: Name
    """The toggle that differs; `A/A` for the noise floor."""
    a: Arm
    b: Arm


class Trial(Struct, frozen=True):
    """One run of the subject in a fresh process."""

    scenario: str
    contrast: str
    mode: Mode
    pair: int
    """Pair 0 warms the machine and is never counted."""
    side: Side
    slot: int
    """0 was started first, 1 second."""
    arm: Arm
    seed: int
    probe: Probe = "plain"


class RequestLog(Struct, frozen=True):
    """One request as the provider saw it."""

    arrived: float
    """The last byte of the request was read (monotonic seconds)."""
    replied: float
    """The last byte of the reply was handed to the kernel."""
    connection: int
    received: int
    """Bytes of the request's body."""
    sent: int
    """Bytes of the reply, head and body."""
    status: int
    """0 where the client did not wait for it, or got no status."""
    stream: int = 0
    """Number of the HTTP/2 stream on its connection; 0 for HTTP/1.1."""


class SessionLog(Struct, frozen=True):
    """What the provider knows of one session."""

    requests: tuple[RequestLog, ...]
    connections: int
    last_body: bytes
    """Body of the last request: with full-history protocols, the whole transcript."""
    unexpected: int = 0
    """Requests after the script had ended, or with an unknown path."""
    cpu_seconds: float = 0.0
    """CPU the provider spent while this session was open, all sessions together."""
    handshakes: int = 0


class SessionAnswer(Struct, frozen=True):
    """What one session came to, as the child says it."""

    success: bool
    final_text: str


class ChildReport(Struct, frozen=True):
    """What the child says over its own pipe, after the work and before it exits."""

    success: bool
    """All sessions say that they succeeded."""
    final_text: str
    """Of the first session."""
    steps: int
    """Of all sessions."""
    error: str | None = None
    """The first one, where any session gave up."""
    counters: dict[str, float] = {}
    """In-process figures: modules imported, longest stall of the loop, and so on."""
    sessions: tuple[SessionAnswer, ...] = ()
    """Each session's own answer, where the trial had several."""
    memory: tuple[tuple[float, float], ...] = ()
    """Moments (monotonic seconds) and the agent's own memory then (bytes), where it was watched."""


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """One trial, measured. Written to the journal the moment it is born."""

    scenario: Name
    contrast: Name
    mode: Mode
    pair: int
    side: Side
    slot: int
    arm: Name
    status: Status
    started: float
    """Spawn of the process (monotonic seconds)."""
    exit_status: int | None
    pid: int
    metrics: Values = {}
    transcript: Name = ""
    """Hex digest of requests, calls, results and final text; paths and clocks normalised."""
    workspace: Name = ""
    """Hex digest of the files that the session left."""
    correct: bool = False
    """The scenario's oracle agrees."""
    problem: Text | None = None
    """Why this sample is not ok, with the child's last lines."""
    probe: Probe = "plain"


def of_trial(trial: Trial) -> dict[str, Any]:
    """What a sample carries of its trial, as arguments of `Sample`."""
    shared = ("scenario", "contrast", "mode", "pair", "side", "slot", "probe")
    return {name: getattr(trial, name) for name in shared} | {"arm": trial.arm.name}


class Interval(Struct, frozen=True, forbid_unknown_fields=True):
    """A two-sided confidence interval."""

    low: float
    high: float


class Estimate(Struct, frozen=True, forbid_unknown_fields=True):
    """Effect of B against A on one metric, from `n` pairs.

    `log_ratio` is the mean of ln(b/a), trimmed where the rule trims; `interval` is on the same
    scale.
    """

    n: int
    log_ratio: float | None
    """None where a value is zero or negative: there is no ratio, only `a`, `b`, `difference`."""
    sd: float
    """Standard deviation of the pairs' log ratios, as observed (Winsorised where the rule trims);
    0 where there is no ratio."""
    interval: Interval | None
    """None where there is no ratio, or only one pair."""
    a: float
    """Median of side A, in the metric's unit."""
    b: float
    difference: float
    """Median of the pairs' b - a."""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict and what it rests on."""

    verdict: Verdict
    look: int
    """Number of pairs at which it was reached; 0 where it was never looked at."""
    settled: bool
    """A settled metric takes no more pairs."""
    p: float
    """Two-sided p-value of no effect at the last look."""


class Pairs(Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the pairs of one contrast and mode; pair 0 is left out."""

    measured: int
    answers_differ: int
    not_measured: int
    reasons: Annotated[tuple[Text, ...], Meta(max_length=100)] = ()


class Confirmation(Struct, frozen=True, forbid_unknown_fields=True):
    """What fresh pairs say of a regression that was found."""

    stands: bool
    """They show it, too. Where they do not, the row's verdict is `inconclusive`."""
    wanted: int
    """Fresh pairs that it takes: as many as it took to find it."""
    p: float
    """One-sided p-value of no slowdown in these pairs; 1 where they are too few."""
    estimate: Estimate | None
    """From the first `wanted` of them; None without any."""
    pairs: Pairs


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table."""

    scenario: Name
    contrast: Name
    metric: Name
    mode: Mode
    estimate: Estimate | None
    judgement: Judgement
    threshold: float
    """Smallest effect worth a verdict (a fraction: 0.02 is 2 %)."""
    pairs: Pairs
    gated: bool = True
    """Its verdict counts; that of A/A, or of a metric too noisy here, is for information only."""
    confirmation: Confirmation | None = None
    """Of a regression found in a run that asks for one."""


class SessionEndpoint(Struct, frozen=True):
    """Where one session of a trial finds what it needs."""

    base_url: str
    """Of its provider; empty where the trial asks none."""
    workspace: str
    """Its folder."""


class Command(Struct, frozen=True):
    """A subject's command line, ready to be spawned."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """What it adds to the environment that every trial gets; the user's own never reaches it."""
    cwd: str
