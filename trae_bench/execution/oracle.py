"""Decides whether a session is correct: its turns, files and final text, and a command."""

import errno
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

from trae_bench._util.bounded_io import first_bytes
from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words
from trae_bench.execution.launcher_client import Job
from trae_bench.model.sample import AgentAnswer, ProcessResult, SessionLog
from trae_bench.scenario import Oracle


def session_problem(log: SessionLog) -> str | None:
    """Return how a session differs from its script. None if every turn was played, no more."""
    if not log.requests and log.unplayed:
        return "the agent sent no request"
    problems = []
    if log.unexpected:
        requests = "1 request" if log.unexpected == 1 else f"{log.unexpected} requests"
        first = f", the first: {log.rejected[0]}" if log.rejected else ""
        problems.append(f"the agent sent {requests} that the script does not expect{first}")
    if log.unplayed:
        turns = log.played + log.unplayed
        problems.append(f"the agent ended after {log.played} of {turns} turns")
    return "; ".join(problems) or None


def check_result(oracle: Oracle, workspace: Path, answer: AgentAnswer | None) -> str | None:
    """Compare files and final text, without the oracle's command. Return the first problem.

    `answer` is None if the subject writes no report. Its final text is then not checked.
    """
    for relative, expected in oracle.files.items():
        try:
            content = _file_in(workspace, relative, len(expected.encode()) + 1)
        except OSError as error:
            return f"oracle: {relative}: {error.strerror}"
        if content != expected.encode():
            return f"oracle: {relative} is not as expected"
    if answer is not None:
        if not answer.success:
            return "the agent reports that it did not succeed"
        if oracle.final_text not in answer.final_text:
            return f"oracle: the final text does not contain {oracle.final_text!r}"
    return None


def command_job(
    oracle: Oracle, workspace: str, home: Path, log: Path, limits: Mapping[str, int]
) -> Job:
    """Return the job that runs the oracle's command in a session's workspace."""
    return Job(
        argv=("sh", "-c", oracle.command),
        env=environment(home),
        cwd=workspace,
        log=str(log),
        limits=dict(limits),
    )


def command_problem(job: Job, result: ProcessResult) -> str | None:
    """Return why the oracle's command rejects the session. None if it exits with 0."""
    if result.failure is None:
        return None
    command = textwrap.shorten(job.argv[-1], 60, placeholder=" ...")
    return f"oracle: {result.failure} ({command}){last_words(Path(job.log))}"


def _file_in(root: Path, relative: str, limit: int) -> bytes:
    """Read up to `limit` bytes of a file. Raises `OSError` if a link is on its path."""
    path = Path(os.path.realpath(root / relative))
    if path != Path(os.path.realpath(root), relative):
        raise OSError(errno.EINVAL, "not a regular file, or below a link")
    return first_bytes(path, limit)
