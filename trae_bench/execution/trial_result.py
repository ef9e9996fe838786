"""What both executors do after a trial: check its sessions and build its `Sample`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import UNSET, Struct

from trae_bench._util.child_output import printable
from trae_bench.execution import oracle
from trae_bench.execution.fingerprint import (
    NOT_COMPARED,
    Clean,
    FileEntry,
    Transcript,
    cleaner,
    combined,
    transcript_of,
    workspace_digest,
    workspace_files,
)
from trae_bench.execution.launcher_client import LauncherClient
from trae_bench.execution.pair_difference import Answer, PairMemory
from trae_bench.metrics import compute_metrics
from trae_bench.model.experiment import AnswerPlace, Equal, SessionEndpoint, Trial
from trae_bench.model.sample import (
    AgentAnswer,
    ChildReport,
    ProcessResult,
    Sample,
    SessionLog,
    Status,
    WrittenFiles,
    of_trial,
)
from trae_bench.scenario import Scenario

_MAX_PARALLEL_ORACLES = 8
MAX_UNATTRIBUTED_SHARE = 0.01
"""Largest share of its CPU time that processes of unknown trials may use beside a trial."""
_MAX_PROBLEM = 3000
"""Characters of a sample's problem."""


class TrialSetup(Struct, frozen=True):
    """A trial's scenario, folder and sessions."""

    trial: Trial
    scenario: Scenario
    sessions: tuple[str, ...]
    """Names at the provider. Empty if the scenario runs no session."""
    endpoints: tuple[SessionEndpoint, ...]
    folder: Path
    answer: AnswerPlace = "report"
    equal: Equal = "conversation"

    @property
    def home(self) -> Path:
        """The trial's home folder, which all its sessions share."""
        return self.folder / "home"


class TrialResult(Struct, frozen=True):
    """A trial after its process has ended, before its sessions are checked."""

    setup: TrialSetup
    process: ProcessResult
    logs: tuple[SessionLog, ...]
    report: ChildReport | None
    answers: tuple[AgentAnswer | None, ...]
    """One per endpoint. None if the subject reports no answer."""
    status: Status
    problem: str | None
    files: WrittenFiles | None = None


class SessionCheck(Struct, frozen=True):
    """The workspace of one session, and whether its result is correct."""

    files: Sequence[FileEntry]
    problem: str | None


def agent_error(error: str) -> str:
    """Return why the agent stopped, from the error that it reports."""
    return f"the subject gave up: {printable(error)}"


def with_session_problem(problem: str, logs: Sequence[SessionLog]) -> str:
    """Add to the reason why a trial failed how its sessions differ from their scripts."""
    wrong = [text for log in logs if (text := oracle.session_problem(log)) is not None]
    first = _first_problem(wrong, len(logs))
    return problem if first is None else f"{problem}; {first}"


def went_well(result: TrialResult) -> bool:
    """Return whether the trial is ok and its sessions followed their scripts."""
    return result.status == "ok" and not any(map(oracle.session_problem, result.logs))


def check_sessions(
    results: Sequence[TrialResult],
    launcher: LauncherClient,
    seconds: float,
    limits: Mapping[str, int],
) -> list[list[SessionCheck]]:
    """Return one check per session of each trial. A trial that is not ok has no checks.

    Each oracle command has `seconds` to finish. Raises `CannotMeasure` if the launcher dies.
    """
    # An oracle may create files, so the digests come first.
    files = [_workspaces(result) if result.status == "ok" else [] for result in results]
    problems = [_problems(result) if result.status == "ok" else [] for result in results]
    pending = [
        (trial, session)
        for trial, result in enumerate(results)
        for session, problem in enumerate(problems[trial])
        if result.setup.scenario.oracle.command and problem is None
    ]
    for start in range(0, len(pending), _MAX_PARALLEL_ORACLES):
        batch = pending[start : start + _MAX_PARALLEL_ORACLES]
        jobs = [
            oracle.command_job(
                (setup := results[trial].setup).scenario.oracle,
                setup.endpoints[session].workspace,
                setup.home,
                setup.folder / f"oracle-{session}.log",
                limits,
            )
            for trial, session in batch
        ]
        processes = launcher.run(jobs, seconds)
        for (trial, session), job, process in zip(batch, jobs, processes, strict=True):
            problems[trial][session] = oracle.command_problem(job, process)
    return [
        [SessionCheck(*pair) for pair in zip(*columns, strict=True)]
        for columns in zip(files, problems, strict=True)
    ]


def build_sample(result: TrialResult, checks: Sequence[SessionCheck], memory: PairMemory) -> Sample:
    """Build the sample of a trial from its measurements and the checks of its sessions.

    `memory` holds the answer of the pair's other side, if that side has run before.
    """
    process, ok = result.process, result.status == "ok"
    wrong = [check.problem for check in checks if check.problem is not None]
    problem = result.problem or _first_problem(wrong, len(checks))
    incomplete = _unattributed(process)
    problem = "; ".join(filter(None, (incomplete, problem))) or None
    correct = 1 - len(wrong) / len(checks) if checks else None
    conversation = result.setup.equal == "conversation"
    transcripts = _transcripts(result) if ok and conversation else []
    files = [check.files for check in checks]
    difference = memory.difference(result.setup.trial, Answer(transcripts, files)) if ok else ""
    return Sample(
        **of_trial(result.setup.trial),
        status=result.status,
        started=process.started,
        exit_status=process.exit_status,
        pid=process.pid,
        metrics=_metrics(result, correct) if ok else {},
        transcript=_transcript_digest(transcripts) if ok else "",
        workspace=combined([workspace_digest(of_session) for of_session in files]) if ok else "",
        correct=ok and not wrong and incomplete is None,
        problem=problem[:_MAX_PROBLEM] if problem else None,
        difference=difference or UNSET,
        prompt_break=(_prompt_break(result.logs) if ok else None) or UNSET,
    )


def _prompt_break(logs: Sequence[SessionLog]) -> str | None:
    return next((prompt.broken for log in logs for prompt in log.prompts if prompt.broken), None)


def _metrics(result: TrialResult, correct: float | None) -> dict[str, float]:
    return compute_metrics(result.process, result.logs, result.report, correct, result.files)


def _unattributed(process: ProcessResult) -> str | None:
    """Return why the figures may be incomplete: processes whose trial is unknown."""
    if process.unattributed <= MAX_UNATTRIBUTED_SHARE * process.cpu:
        return None
    return (
        f"processes that outlived their trial used {process.unattributed:.3g} s of CPU; this side "
        "or the other started them"
    )


def _transcript_digest(transcripts: Sequence[Transcript]) -> str:
    return combined([one.digest for one in transcripts]) if transcripts else NOT_COMPARED


def _workspaces(result: TrialResult) -> list[list[FileEntry]]:
    setup = result.setup
    ignore = setup.scenario.workspace.ignore
    return [
        workspace_files(Path(endpoint.workspace), ignore, _cleaner(setup, endpoint))
        for endpoint in setup.endpoints
    ]


def _problems(result: TrialResult) -> list[str | None]:
    setup = result.setup
    return [
        oracle.session_problem(log)
        or oracle.check_result(setup.scenario.oracle, Path(endpoint.workspace), answer)
        for log, endpoint, answer in zip(
            _logs(result), setup.endpoints, result.answers, strict=True
        )
    ]


def _transcripts(result: TrialResult) -> list[Transcript]:
    setup = result.setup
    return [
        transcript_of(log, answer, _cleaner(setup, endpoint))
        for log, answer, endpoint in zip(
            _logs(result), result.answers, setup.endpoints, strict=True
        )
    ]


def _logs(result: TrialResult) -> tuple[SessionLog, ...]:
    """The log of each endpoint. It is empty for a scenario without a session."""
    return result.logs or (SessionLog((), 0, b""),)


def _cleaner(setup: TrialSetup, endpoint: SessionEndpoint) -> Clean:
    places = {"workspace": endpoint.workspace, "home": str(setup.home)}
    if endpoint.base_url:
        places["provider"] = endpoint.base_url
    return cleaner(places, setup.scenario.normalise)


def _first_problem(problems: Sequence[str], sessions: int) -> str | None:
    if not problems or sessions == 1:
        return problems[0] if problems else None
    return f"{len(problems)} of {sessions} sessions are wrong, the first: {problems[0]}"
