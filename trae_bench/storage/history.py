"""The history of a project: points beside their commits, as git notes.

Each line of a note is one point as JSON. Lines are sorted and unique, so adding a run twice changes
nothing, and the notes of two clones merge by uniting their lines. Notes come from whoever can push
them: they are read strictly and within limits, and nothing in them is executed or opened.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from trae_bench._util.host_facts import CHANGING, kind_of
from trae_bench.design.plan import HEAD
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError
from trae_bench.metrics import METRICS
from trae_bench.model.history import Point
from trae_bench.model.run import Facts, Header, RunFile, agent_names
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import fit_row
from trae_bench.stats.pairs import RowKey
from trae_bench.storage.run_file import field_first, read_run
from trae_bench.storage.verify import verify
from trae_bench.subject.notes import FETCHED, REF, Notes
from trae_bench.subject.revisions import NAME_LENGTH, Repository

MAX_LINE = 4096
"""Bytes of a point; the longest names fit."""
MAX_POINTS = 200_000
"""Maximum number of points: each costs memory and time."""
AGENT_CORE = "agent_core"
"""The name of the agent in a run of agent_core."""
_PUSHES = 3
"""Attempts to push while others push."""

_POINT = msgspec.json.Decoder(Point)


# -- from a run file --------------------------------------------------------------------


def read_points(path: Path, repository: Repository) -> list[Point]:
    """Return the points of a run file.

    Raises `BadRunFile` if it cannot be read or contradicts itself, `UsageError` if it is no
    finished comparison of two commits of this repository.
    """
    run = read_run(path)
    wrong = [finding for finding in verify(run) if finding.severity == "wrong"]
    if wrong:
        raise BadRunFile(
            f"{path}: it is inconsistent ({wrong[0].place}: {wrong[0].problem}); "
            f"`trae-bench verify {path}` tells more"
        )
    if problem := _unfit(run, repository):
        raise UsageError(f"{path}: {problem}")
    points = list(points_of(run))
    if not points:
        raise UsageError(f"{path}: no row has a ratio of two or more pairs; measure again")
    for point in points:
        try:
            _POINT.decode(msgspec.json.encode(point))
        except msgspec.DecodeError as error:
            raise BadRunFile(f"{path}: {point.metric} makes no point: {error}") from error
    return points


def _unfit(run: RunFile, repository: Repository) -> str:
    compared = run.header.revisions
    if compared is None:
        return "it compares no commits; make it with `trae-bench run --compare ANCHOR`"
    if run.stopped in ("interrupted", "error"):
        return f"the run was not finished ({run.stopped}); resume it with `trae-bench run --resume`"
    if compared.head.modified:
        return "head is a working tree with changes; commit them and run again"
    for commit in (compared.head.commit, compared.base.commit):
        # A name such as HEAD, which another commit can have tomorrow, is no hash.
        if not repository.has(commit) or repository.commit(commit) != commit:
            return f"commit {commit[:NAME_LENGTH]} is not in {repository.top}; fetch it first"
    return ""


def points_of(run: RunFile) -> Iterator[Point]:
    """Yield a point for each row that compares the two commits of a run and has a ratio."""
    header, compared = run.header, run.header.revisions
    assert compared is not None
    rows = rows_of(run.samples, header.cells, header.metrics)
    for row in run.comparisons:
        key = RowKey(row.scenario, row.contrast, row.metric)
        values, estimate = rows.get(key), row.estimate
        if row.contrast != HEAD or values is None or estimate is None or estimate.n < 2:
            continue
        if (fit := fit_row(values, estimate.n)) is None:
            continue
        metric = header.metrics[row.metric]
        yield Point(
            commit=compared.head.commit,
            anchor=compared.base.commit,
            scenario=row.scenario,
            metric=row.metric,
            unit=metric.unit,
            better=metric.better,
            log_ratio=fit.mean,
            error=fit.error,
            pairs=estimate.n,
            base=estimate.a,
            head=estimate.b,
            machine=machine_of(header.machine),
            agent=agent_of(header),
            created=header.created,
            seal=run.seal,
        )


def agent_of(header: Header) -> str:
    """Return the name of the agent whose revisions a run compares."""
    return next(iter(agent_names(header)), AGENT_CORE)


def machine_of(facts: Facts) -> str:
    """Return the kind of a machine, and a digest of the facts that do not change."""
    lasting = {name: value for name, value in facts.items() if name not in CHANGING}
    digest = hashlib.sha256(msgspec.json.encode(lasting, order="sorted")).hexdigest()
    return f"{kind_of(facts)[:180]}-{digest[:12]}"


# -- notes ------------------------------------------------------------------------------


def add(repository: Repository, points: Iterable[Point]) -> int:
    """Store points. Returns how many were new. Raises `UsageError` and `CannotMeasure`."""
    lines: dict[str, set[bytes]] = {}
    for point in points:
        lines.setdefault(point.commit, set()).add(msgspec.json.encode(point))
    notes = Notes(repository)
    return sum(notes.add(commit, of_commit) for commit, of_commit in lines.items())


def stored(repository: Repository, ref: str = REF) -> list[Point]:
    """Return all points of a repository. Raises `CannotMeasure` if a line is no valid point."""
    return parse(Notes(repository).read(ref), ref)


def parse(notes: Mapping[str, bytes], ref: str = REF) -> list[Point]:
    """Return the points of notes, each once.

    Raises `CannotMeasure` that names the commit, the line, the field and a remedy.
    """
    found: dict[Point, None] = {}
    for commit, text in notes.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if line:
                found[_point(line, commit, ref, number)] = None
            if len(found) > MAX_POINTS:
                raise CannotMeasure(f"{ref}: more than {MAX_POINTS:,} points; no history has them")
    return list(found)


def _point(line: bytes, commit: str, ref: str, number: int) -> Point:
    place = f"{ref}, commit {commit[:NAME_LENGTH]}, line {number}"
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"longer than {MAX_LINE:,} bytes")
        point = _POINT.decode(line)
        if point.commit != commit:
            raise ValueError("the point is of another commit - at `$.commit`")
        if (metric := METRICS.get(point.metric)) and metric.better != point.better:
            raise ValueError(f"{point.metric} is better {metric.better} - at `$.better`")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise CannotMeasure(f"{place}: {field_first(error)}; {_remedy(commit, ref)}") from error
    return point


def _remedy(commit: str, ref: str) -> str:
    remove = f"remove the note with `git notes --ref={ref} remove {commit[:NAME_LENGTH]}`"
    # A note that was fetched is also in the remote, and the next fetch would bring it again.
    back = f" and `git push REMOTE {ref}:{REF}`" if ref == FETCHED else ""
    return f"{remove}{back}, or install the release that wrote it"


# -- remotes ----------------------------------------------------------------------------


def fetch(repository: Repository, remote: str) -> int:
    """Unite the points with those of a remote. Returns how many were new.

    The points of the remote are checked first. Raises `UsageError` and `CannotMeasure`.
    """
    notes = Notes(repository)
    if not notes.fetch(remote):
        return 0
    theirs = stored(repository, FETCHED)
    new = set(theirs) - set(stored(repository))
    notes.merge()
    return len(new)


def push(repository: Repository, remote: str) -> int:
    """Unite the points with those of a remote, and send them there. Returns how many it has.

    Raises `UsageError` if there is nothing to push, `CannotMeasure` if the remote refuses them.
    """
    notes, problem = Notes(repository), ""
    # Others may push between the fetch and the push.
    for _ in range(_PUSHES):
        fetch(repository, remote)
        points = stored(repository)
        if not points:
            raise UsageError("there are no points to push; add runs with `trae-bench history add`")
        problem = notes.push(remote)
        if not problem:
            return len(points)
    raise CannotMeasure(f"{remote} refuses the notes: {problem}")
