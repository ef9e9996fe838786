"""What is compared, and in which trials.

Units are in `Metric.unit`; times are seconds, sizes bytes.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Mode = Literal["duet", "serial", "exact"]


Probe = Literal["plain", "memory", "tracemalloc", "callgrind", "tree"]
"""The instrumentation of a trial. Probes that disturb other metrics run in separate trials:

    plain        measured from outside, and reported by the child at its end
    memory       the agent's memory, every 20 ms or, in a long session, less often
    tracemalloc  every Python allocation
    callgrind    every instruction, under valgrind
    tree         the memory of all processes of the trial, every 5 ms or less often
"""


Better = Literal["lower", "higher"]


Side = Literal["A", "B"]


AnswerPlace = Literal["report", "output", "none"]
"""Where a subject gives its answer: in a `ChildReport`, on its standard output, or nowhere.
Without a report, its exit status says whether it succeeded."""


Equal = Literal["conversation", "work"]
"""What both sides of a pair must have equal: requests, answer and files, or only the oracle's
verdict and the files."""


# Run files are untrusted input: these bounds hold when a record is read from a file.
Name = Annotated[str, Meta(max_length=200)]


Text = Annotated[str, Meta(max_length=8000)]


Switches = Annotated[dict[Name, bool], Meta(max_length=100)]


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity that is measured."""

    name: Name
    unit: Name
    """`s`, `B`, `1/s`, `ms`, `USD`, or `` for a count."""
    better: Better
    mode: Mode
    """How it is measured: duet (CPU, memory, net times), serial (plain times), exact (counts)."""
    about: Text
    disturbed_by: Text = ""
    probe: Probe = "plain"
    """The kind of trials that it is taken from."""
    threshold: Annotated[float, Meta(ge=0)] | None = None
    """Smallest effect (a fraction) that gets a verdict, if a project sets it."""


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    """One side of a comparison: a full toggle vector, a revision of the subject, or an agent."""

    name: Name
    toggles: Switches
    revision: Name | None = None
    agent: Name | UnsetType = UNSET
    """The agent that runs; unset for agent_core, which alone has toggles."""


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
    """Base URL and workspace of one session of a trial."""

    base_url: str
    """Base URL of its provider; empty if the trial uses none."""
    workspace: str
    """Path of its folder."""


class Command(Struct, frozen=True):
    """The command line of a subject."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """Variables that are added to the environment of every trial. The user's environment is not
    passed on."""
    cwd: str
    stdin: str = ""
    """File for its standard input. Default: an empty input."""
    answer: AnswerPlace = "none"
    """Where it gives its answer."""
    equal: Equal = "conversation"
    """What both sides of a pair must have equal."""


class Cell(Struct, frozen=True, forbid_unknown_fields=True):
    """Pairs of one contrast in one mode."""

    scenario: Name
    contrast: Contrast
    mode: Mode
    """`duet` or `serial`. Exact metrics are taken from duet trials."""
    metrics: tuple[Name, ...]
    probe: Probe = "plain"
    confirms: Name = ""
    """The contrast whose regressions this cell confirms. It runs only after a regression."""


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
    checked: Annotated[int, Meta(ge=0, le=1000)] | UnsetType = UNSET
    """Runs of head whose answers are checked in each scenario before a gate passes. Files of
    earlier releases have no such field, and their seals cover its absence."""
