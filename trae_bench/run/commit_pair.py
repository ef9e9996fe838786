"""Compares two commits and keeps the run file, so that the same comparison is not made twice."""

from pathlib import Path

from trae_bench.errors import BadRunFile
from trae_bench.model.run import RunFile
from trae_bench.run.planner import RunRequest
from trae_bench.run.runner import Bench, Say, start
from trae_bench.run.scheduler import Listener
from trae_bench.storage.run_file import read_run


def compare_commits(
    request: RunRequest, path: Path, say: Say, listener: Listener | None = None
) -> RunFile:
    """Return the run of `request.head` against `request.compare`, or the one that is stored.

    Raises `BenchError` if it cannot be made, `KeyboardInterrupt` if it was interrupted.
    """
    if (stored := _stored(path, request)) is not None:
        return stored
    result = start(request, path, force=True, bench=Bench(say, listener))
    if result.run.stopped == "interrupted":
        raise KeyboardInterrupt
    if not result.written and result.error is not None:
        raise result.error
    return result.run


def _stored(path: Path, request: RunRequest) -> RunFile | None:
    """The complete run of the same two commits and the same rows; None if there is none."""
    assert request.compare is not None
    try:
        run = read_run(path)
    except BadRunFile:
        return None
    compared = run.header.revisions
    if compared is None or run.stopped in ("interrupted", "error"):
        return None
    commits = compared.base.commit, compared.head.commit
    planned = {used.requested for used in run.header.scenarios.values()}
    same = commits == (request.compare.commit, request.head)
    return run if same and (not request.scenarios or planned <= set(request.scenarios)) else None
