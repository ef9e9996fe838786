"""What is compared, and in which trials.

Units are in `Metric.unit`; times are seconds, sizes bytes.
"""

from typing import Annotated, Literal

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


# Run files come from strangers: the bounds hold where a record is read from a file.
Name = Annotated[str, Meta(max_length=200)]


Text = Annotated[str, Meta(max_length=8000)]


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
    """The question "what does side B change against side A?"."""

    name: Name
    """The toggle that differs; `A/A` for the noise floor."""
    a: Arm
    b: Arm


class TrialKey(Struct, frozen=True):
    """Where a trial, and its sample, belong in the plan."""

    scenario: Name
    contrast: Name
    mode: Mode
    pair: int
    """Pair 0 warms the machine up and is never counted."""
    side: Side
    slot: int
    """0 starts first, 1 second."""


class Trial(TrialKey, frozen=True):
    """One run of the subject in a fresh process."""

    arm: Arm
    seed: int
    probe: Probe = "plain"


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


class Cell(Struct, frozen=True, forbid_unknown_fields=True):
    """Pairs of one contrast in one mode."""

    scenario: Name
    contrast: Contrast
    mode: Mode
    """`duet` or `serial`; metrics that are compared exactly ride along in a duet."""
    metrics: tuple[Name, ...]
    probe: Probe = "plain"
    confirms: Name = ""
    """The contrast whose regressions its pairs are to confirm; taken only if there are any."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """When a run stops, if its verdicts do not stop it earlier."""

    budget: float | None = None
    """Seconds for the whole run, including the parts before it was resumed."""
    pairs: int | None = None
    """Maximum counted pairs of a cell. None stands for the last look of its rules."""
    noise_pairs: int = 8
    """Counted A/A pairs of each mode and probe."""
    fixed: bool = False
    """Every cell takes all its pairs in turn; no verdict stops one earlier."""
    precision: Annotated[float, Meta(gt=0, le=1)] | None = None
    """A cell stops when the interval of each of its rows is this narrow: a fraction to either
    side. Verdicts then do not matter."""
