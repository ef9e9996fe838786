"""A whole run: how it was planned, what it measured, what it concludes."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from trae_bench.model.experiment import Cell, Metric, Mode, Name, Text
from trae_bench.model.result import Comparison, NoiseEstimate, Rule
from trae_bench.model.sample import Sample

Stopped = Literal["done", "budget", "interrupted", "error"]
"""Why a run ended."""


# Format history, of run files and journals together:
#   1  (0.1.0)  the first.
FORMAT: Literal["trae-bench run"] = "trae-bench run"


VERSION: Literal[1] = 1


Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number that every reader can hold, and a float come near."""


Facts = Annotated[dict[Name, Text | Whole | float | bool | None], Meta(max_length=200)]


class ScenarioUsed(Struct, frozen=True, forbid_unknown_fields=True):
    """Which scenario was run, and in what state it was."""

    asked: Text
    """Its name, or the path to its file as it was given."""
    digest: Name
    """SHA-256 of its content; comments and layout of the file do not count."""


class Compared(Struct, frozen=True, forbid_unknown_fields=True):
    """Two revisions of the subject, where a run compares these and not toggles."""

    base: Name
    """As `Arm.revision` has it."""
    base_commit: Name
    said: Text
    """What the base was asked for as."""
    head: Name
    head_commit: Name
    changed: bool
    """Head has changes on top of its commit."""
    own_environments: bool = False
    """Each side ran in an environment of its own, because they declare different dependencies."""
    new: Annotated[dict[Name, Text], Meta(max_length=1000)] = {}
    """Scenarios that only head can run, and what becomes of the base there."""


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """All that must be known beside the samples to run this again, or to go on."""

    format: Literal["trae-bench run"]
    version: Literal[1]
    created: Name
    """ISO 8601, UTC."""
    command: Text
    """The command line as typed."""
    profile: Name
    seed: int
    budget: float | None
    """Seconds."""
    pairs: int | None
    """Counted pairs that a cell takes at most; None is the last look of its rules."""
    noise_pairs: int
    scenarios: Annotated[dict[Name, ScenarioUsed], Meta(max_length=1000)]
    cells: Annotated[tuple[Cell, ...], Meta(max_length=10_000)]
    metrics: Annotated[dict[Name, Metric], Meta(max_length=500)]
    rules: dict[Mode, Rule]
    machine: Facts
    code: Facts
    """Commit and state of the working tree."""
    versions: Facts
    design: Name = "add-one"
    """Which arms are compared."""
    precision: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Where given, cells ended at intervals so narrow (a fraction, to either side)."""
    compared: Compared | None = None


class Resumed(Struct, frozen=True, forbid_unknown_fields=True):
    """A run was gone on with; times before and after have nothing to do with each other."""

    created: Name
    command: Text


class RunFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One run: what was asked, what was seen, what was concluded."""

    header: Header
    stopped: Stopped
    """Why it ended; `done` is that no comparison would have taken another pair."""
    elapsed: float
    """Seconds of measuring."""
    noise: tuple[NoiseEstimate, ...]
    comparisons: tuple[Comparison, ...]
    """Rows of the table. They follow from the samples; they are kept to be read by others."""
    samples: tuple[Sample, ...]
    resumed: tuple[Resumed, ...] = ()
    seal: Name = ""
    """See `seal_of`."""
