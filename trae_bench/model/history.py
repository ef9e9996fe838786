"""A point of the history of a project: one comparison of a commit with a pinned one."""

from typing import Annotated

from msgspec import Meta, Struct

from trae_bench.model.experiment import Better, Name

CommitHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?\Z")]
Value = Annotated[float, Meta(ge=-1e300, le=1e300)]


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a run that compares a commit with an anchor. It is one line of JSON in a note."""

    commit: CommitHash
    anchor: CommitHash
    """The pinned commit, side A of each pair. The drift of the machine cancels."""
    scenario: Name
    metric: Name
    unit: Name
    better: Better
    log_ratio: Annotated[float, Meta(ge=-700, le=700)]
    """Mean of ln(commit / anchor) over the pairs, trimmed if the rule of the metric trims."""
    error: Annotated[float, Meta(ge=0, le=700)]
    """Standard error of `log_ratio`; 0 for counts that do not vary."""
    pairs: Annotated[int, Meta(ge=1, le=1_000_000)]
    base: Value
    """Median of the anchor in the metric's unit, for information."""
    head: Value
    """Median of the commit."""
    machine: Name
    """Kind of the machine, and a digest of its facts."""
    agent: Name
    created: Name
    """Start of the run: ISO 8601, UTC."""
    seal: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """The seal of its run file."""
