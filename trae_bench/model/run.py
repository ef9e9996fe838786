"""A whole run: how it was planned, what it measured, what it concludes."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from trae_bench.model.experiment import Cell, Equal, Limits, Metric, Mode, Name, Switches, Text
from trae_bench.model.result import Comparison, NoiseEstimate, Rule
from trae_bench.model.sample import Sample

Stopped = Literal["done", "budget", "interrupted", "error"]
"""Why a run ended. `done` means that no comparison needs another pair."""

# Format history, of run files and journals together:
#   1  (0.1.0)  the first.
#   2  (0.2.0)  new metric names; the header holds what the cells are generated from, its limits
#               in one object and each revision in one; the seal covers the samples as written.
FORMAT: Literal["trae-bench run"] = "trae-bench run"
VERSION: Literal[2] = 2

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""An integer that fits 64 bits, so that every reader can hold it."""
Facts = Annotated[dict[Name, Text | Integer | float | bool | None], Meta(max_length=200)]


class ScenarioUsed(Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario of a run, and what its cells are generated from."""

    requested: Text
    """Its name, or the path of its file as the user gave it."""
    digest: Name
    """SHA-256 of its content; comments and layout of the file do not count."""
    metrics: Annotated[tuple[Name, ...], Meta(max_length=500)]
    varied: Annotated[tuple[Name, ...], Meta(max_length=100)]
    """The toggles that the design varies; empty if two revisions are compared."""
    baseline: Switches
    """The toggles of side A: all varied ones are off."""
    head: Switches | None = None
    """The toggles of the head revision, if two revisions are compared."""


class RevisionId(Struct, frozen=True, forbid_unknown_fields=True):
    """One revision of the subject."""

    name: Name
    """As in `Arm.revision`."""
    commit: Name
    modified: bool
    """The working tree has changes on top of the commit."""


class RevisionPair(Struct, frozen=True, forbid_unknown_fields=True):
    """The two revisions of the subject that a run compares instead of toggles."""

    base: RevisionId
    head: RevisionId
    requested: Text
    """The base as the user named it."""
    own_environments: bool = False
    """Each side has its own environment, because their dependencies differ."""
    new: Annotated[dict[Name, Text], Meta(max_length=1000)] = {}
    """Scenarios that only head can run, with the error of the base."""
    notes: Annotated[tuple[Text, ...], Meta(max_length=1000)] | UnsetType = UNSET
    """Settings and scenario files that head changes without effect, and whether the sides are
    equal. Files of earlier releases have no such field, and their seals cover its absence."""


class AgentAtHead(Struct, frozen=True, forbid_unknown_fields=True):
    """What head changes of an agent, field by field as in `AgentUsed`."""

    command: Annotated[tuple[Text, ...], Meta(max_length=1000)]
    digest: Name
    interface: Text
    requirements: Annotated[tuple[Text, ...], Meta(max_length=1000)] = ()
    installed: Integer = 0


class AgentUsed(Struct, frozen=True, forbid_unknown_fields=True):
    """An agent of a run that compares agents, or two revisions of one agent."""

    requested: Text
    """Its name, the path of its file, or its command line, as the user gave it."""
    command: Annotated[tuple[Text, ...], Meta(max_length=1000)]
    """Its command line, with placeholders."""
    digest: Name
    """SHA-256 of its entry."""
    interface: Text
    """How it speaks (`AgentInterface` in JSON), from its entry and its first request."""
    requirements: Annotated[tuple[Text, ...], Meta(max_length=1000)] = ()
    """What its entry installs."""
    equal: Equal = "conversation"
    """What both sides of a pair must have equal."""
    installed: Integer = 0
    """Bytes of the files in its environment, without byte-code; 0 without an environment."""
    head: AgentAtHead | UnsetType = UNSET
    """The agent at head, if two revisions are compared; the other fields are those of the base."""


class Header(Struct, frozen=True, forbid_unknown_fields=True):
    """All that is needed, besides the samples, to repeat a run or to resume it."""

    format: Literal["trae-bench run"]
    version: Literal[2]
    created: Name
    """ISO 8601, UTC."""
    command: Text
    """The command line as typed."""
    profile: Name
    seed: int
    limits: Limits
    scenarios: Annotated[dict[Name, ScenarioUsed], Meta(max_length=1000)]
    cells: Annotated[tuple[Cell, ...], Meta(max_length=10_000)]
    """Generated from `scenarios`, `design`, `filters` and `revisions`."""
    metrics: Annotated[dict[Name, Metric], Meta(max_length=500)]
    rules: dict[Mode, Rule]
    machine: Facts
    code: Facts
    """Commit and state of the working tree; `tree` is a digest of the packages' files."""
    versions: Facts
    design: Name = "add-one"
    """Which arms are compared."""
    filters: Annotated[tuple[Text, ...], Meta(max_length=50_000)] = ()
    """Patterns of the comparisons that are planned; none stands for all."""
    revisions: RevisionPair | None = None
    agents: Annotated[dict[Name, AgentUsed], Meta(max_length=100)] | UnsetType = UNSET
    """The agents that are compared, the baseline first; unset for agent_core with its toggles."""


def agent_names(header: Header) -> tuple[str, ...]:
    """The names of a run's agents, the baseline first; none for agent_core."""
    return tuple(header.agents or ())


class Resumed(Struct, frozen=True, forbid_unknown_fields=True):
    """A run was resumed. Clock readings before and after are not comparable."""

    created: Name
    command: Text


class RunFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One run: what was asked, what was measured, what was concluded."""

    header: Header
    stopped: Stopped
    elapsed: float
    """Seconds of measuring."""
    noise: tuple[NoiseEstimate, ...]
    comparisons: tuple[Comparison, ...]
    """Rows of the table. They follow from the samples and are kept for other readers."""
    samples: tuple[Sample, ...]
    resumed: tuple[Resumed, ...] = ()
    checks: Annotated[tuple[Sample, ...], Meta(max_length=10_000)] | UnsetType = UNSET
    """Runs in which only the answer of head was checked; see `trae_bench.stats.head_runs`. Files of
    earlier releases have no such field."""
    seal: Name = ""
    """See `trae_bench.storage.seal`."""
