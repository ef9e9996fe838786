"""Ways to run a trial: in a fresh process, and the scripted twin that runs nothing.

`SubprocessExecutor` prepares folders and a session at the provider, lets the launcher start the
subject, and makes a `Sample` of what it left. All that is not the subject's own work lies
before the spawn or after the exit.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import msgspec
from msgspec import Struct

from trae_bench._util.bounded_io import first_bytes
from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words, printable
from trae_bench.execution import callgrind
from trae_bench.execution.fingerprint import (
    AgentAnswer,
    Clean,
    cleaner,
    combined,
    told_command,
    transcript_digest,
    workspace_digest,
    wrong_in,
)
from trae_bench.execution.launcher_client import REPORT_FD, Job, LauncherClient, ProcessResult
from trae_bench.execution.workspace import lay_out, remove, room_for_trials
from trae_bench.metrics import figures
from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, Sample, SessionAnswer, SessionLog, Status, of_trial
from trae_bench.scenario import Scenario

FILE_LIMIT = 256 * 1024 * 1024
"""Bytes; room for any honest file, and none for a flood that fills the disk."""
MIN_MEMORY = 64 * 1024 * 1024
"""Bytes below which not even an empty agent could work."""
MAX_STEPS = 10**9
"""A report of more steps is nonsense, and no float would hold the largest of them."""
MAX_PRINTED = 1024 * 1024
"""Bytes of a command's output that are looked at."""
COUNTS = "callgrind.out"
"""In a trial's folder, where its instructions are counted."""
_OUT_OF_MEMORY = re.compile(
    "MemoryError|bad_alloc|ENOMEM|cannot allocate memory|out of memory", re.IGNORECASE
)
_ORACLES_AT_ONCE = 8
_MAX_PROBLEM = 3000

ScriptT = TypeVar("ScriptT")
ScriptT_contra = TypeVar("ScriptT_contra", contravariant=True)


class Provider(Protocol[ScriptT_contra]):
    """Plays a script to a session. Raises `ProviderDown`."""

    def register(self, session: str, script: ScriptT_contra, /) -> str:
        """The base URL under which this session finds its provider."""
        ...

    def environ(self, session: str, /) -> dict[str, str]:
        """What the subject's environment must say for it to find its provider there."""
        ...

    def collect(self, session: str, /) -> SessionLog:
        """What the session asked; it is over from now on."""
        ...


class Subject(Protocol):
    """What is measured: anything with a command line that talks to a provider."""

    @property
    def reports(self) -> bool:
        """It writes a `ChildReport` to its report pipe; if not, its exit status must do."""
        ...

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        seats: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        """Its command line for one trial, which is one process for all the `seats`, one a
        session. May put files into `home`. Raises `CannotMeasure` for what it cannot do."""
        ...


# -- the executor -----------------------------------------------------------------------


class _Prepared(Struct, frozen=True):
    """A trial, ready to be started."""

    trial: Trial
    scenario: Scenario
    sessions: tuple[str, ...]
    """Their names at the provider; none where there is no session."""
    seats: tuple[SessionEndpoint, ...]
    folder: Path
    job: Job

    @property
    def home(self) -> Path:
        return self.folder / "home"


class _Finished(Struct, frozen=True):
    """A trial after its end, its answer not looked at yet."""

    prepared: _Prepared
    ended: ProcessResult
    logs: tuple[SessionLog, ...]
    report: ChildReport | None
    told: tuple[AgentAnswer | None, ...]
    """What was said of each seat's session; None where the subject does not say."""
    status: Status
    problem: str | None


class _Answer(Struct, frozen=True):
    """What became of one session, and whether that is right."""

    workspace: str
    """Digest."""
    wrong: str | None


class SubprocessExecutor(Generic[ScriptT]):
    """Runs each trial in a new process; two trials at the same time, on one core.

    `script` makes the provider's script of a scenario and the session's workspace.
    `scratch` is a folder for this executor alone. `duet_core` is the core of both sides of
    a duet; None leaves them to the kernel, and then their times are no duet's. `timeout`
    (seconds) stands in for the scenario's own. `memory_limit` (bytes) bounds what each process
    can write to of its own memory (Linux; address space that is only set aside is free, which
    some runtimes need); without one, the kernel takes the trial first when memory ends.
    `file_limit` (bytes) bounds each file that it writes, its log included. Folders of trials
    that went wrong are moved to `keep`, those of all with `keep_all`.

    Where a scenario wants several runs in one home, the last one is the sample, or the first
    that went wrong. A trial that crashes, hangs or talks nonsense is a `Sample` that says so.
    Raises `CannotMeasure` (or the provider's `ProviderDown`) where no further trial can work.
    """

    def __init__(
        self,
        subject: Subject,
        provider: Provider[ScriptT],
        scenarios: Mapping[str, Scenario],
        *,
        script: Callable[[Scenario, Path], ScriptT],
        scratch: Path,
        duet_core: int | None = None,
        timeout: float | None = None,
        memory_limit: int | None = None,
        file_limit: int = FILE_LIMIT,
        keep: Path | None = None,
        keep_all: bool = False,
    ) -> None:
        if memory_limit is not None and memory_limit < MIN_MEMORY:
            raise ValueError(f"a memory limit of {memory_limit} bytes is below {MIN_MEMORY}")
        self._subject = subject
        self._provider = provider
        self._scenarios = scenarios
        self._script = script
        self._scratch = scratch.resolve()
        self._duet_core = duet_core
        self._timeout = timeout
        self._limits = {"RLIMIT_FSIZE": file_limit}
        if memory_limit is not None:
            self._limits["RLIMIT_DATA"] = memory_limit
        self._keep = keep
        self._keep_all = keep_all
        self._launcher = LauncherClient()
        self._sessions = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the launcher; whatever runs is killed."""
        self._launcher.close()

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """One trial, or the two of a duet in the order of their slots."""
        with room_for_trials(str(self._scratch)):
            return self._run(trials)

    def _run(self, trials: Sequence[Trial]) -> list[Sample]:
        prepared = [self._prepare(trial, slot) for slot, trial in enumerate(trials)]
        try:
            finished = self._play(prepared)
            for _ in range(1, max(one.scenario.subject.runs for one in prepared)):
                if all(one.status == "ok" for one in finished):
                    for one in prepared:
                        self._make_ready(one)
                    finished = self._play(prepared)
            answers = self._ask_oracles(finished)
            samples = [self._sample(*both) for both in zip(finished, answers, strict=True)]
            return [self._kept(*both) for both in zip(finished, samples, strict=True)]
        finally:
            for one in prepared:
                remove(one.folder)

    def _play(self, prepared: Sequence[_Prepared]) -> list[_Finished]:
        ended = self._launcher.run([one.job for one in prepared], self._seconds(prepared))
        return [self._finish(*both) for both in zip(prepared, ended, strict=True)]

    def _seconds(self, prepared: Sequence[_Prepared]) -> float:
        if self._timeout is not None:
            return self._timeout
        return max(
            one.scenario.timeout_seconds
            * (callgrind.SLOWDOWN if one.trial.probe == "callgrind" else 1)
            for one in prepared
        )

    # -- before

    def _prepare(self, trial: Trial, slot: int) -> _Prepared:
        scenario = self._scenarios[trial.scenario]
        self._sessions += 1
        # Names of one length for all: a longer path would cost its side memory and time.
        name = f"{self._sessions:07}"
        folder = self._scratch / f"{slot}"
        remove(folder)
        home = folder / "home"
        (home / "tmp").mkdir(parents=True)
        sessions, workspaces = _places(scenario, name, folder / "workspace")
        urls = self._open_sessions(scenario, sessions, workspaces) or ("",)
        seats = tuple(map(SessionEndpoint, urls, map(str, workspaces)))
        command = self._subject.command(trial, scenario, seats, home, REPORT_FD)
        counted = trial.probe == "callgrind"
        job = Job(
            argv=callgrind.wrapped(command.argv, folder / COUNTS) if counted else command.argv,
            env=environment(home) | self._provider_environ(sessions) | command.env,
            cwd=command.cwd,
            log=str(folder / "log"),
            cores=self._cores(trial),
            limits=self._limits,
        )
        return _Prepared(trial, scenario, sessions, seats, folder, job)

    def _make_ready(self, prepared: _Prepared) -> None:
        """For a further run in the same home, under the same addresses: fresh workspaces."""
        workspaces = [Path(seat.workspace) for seat in prepared.seats]
        for workspace in workspaces:
            remove(workspace)
        self._open_sessions(prepared.scenario, prepared.sessions, workspaces)

    def _open_sessions(
        self, scenario: Scenario, sessions: Sequence[str], workspaces: Sequence[Path]
    ) -> tuple[str, ...]:
        """Lay out the workspaces, register the sessions; their base URLs."""
        for workspace in workspaces:
            workspace.mkdir(parents=True)
            lay_out(scenario.workspace, workspace)
        return tuple(
            self._provider.register(session, self._script(scenario, workspace))
            for session, workspace in zip(sessions, workspaces, strict=False)
        )

    def _provider_environ(self, sessions: Sequence[str]) -> dict[str, str]:
        # Sessions of one scenario differ in their names only.
        return self._provider.environ(sessions[0]) if sessions else {}

    def _cores(self, trial: Trial) -> tuple[int, ...]:
        # A serial trial may use every core, as it would in a user's hands.
        if trial.mode == "serial" or self._duet_core is None:
            return ()
        return (self._duet_core,)

    # -- after

    def _finish(self, prepared: _Prepared, ended: ProcessResult) -> _Finished:
        logs = tuple(map(self._provider.collect, prepared.sessions))
        report: ChildReport | None = None
        told: tuple[AgentAnswer | None, ...] = (None,) * len(prepared.seats)
        status: Status = "ok"
        if (problem := ended.wrong) is not None:
            status = "timeout" if ended.timed_out else "failed"
        elif prepared.scenario.subject.command:
            told = (SessionAnswer(True, _printed(prepared.folder / "log")),)
        elif self._subject.reports:
            report, problem = _read_report(ended, len(prepared.seats))
            report = _with_instructions(report, prepared.folder / COUNTS)
            if report is None:
                status = "garbage"
            elif report.error is not None:
                status, problem = "failed", f"the subject gave up: {printable(report.error)}"
            else:
                told = report.sessions or (report,)
        if problem is not None:
            words = last_words(prepared.folder / "log")
            problem += self._memory_ended(problem + words) + words
        return _Finished(prepared, ended, logs, report, told, status, problem)

    def _memory_ended(self, said: str) -> str:
        """What to know of a trial that speaks of too little memory."""
        limit = self._limits.get("RLIMIT_DATA")
        if limit is None or not _OUT_OF_MEMORY.search(said):
            return ""
        return f" (each process of a trial may take {limit / 1e9:.3g} GB here)"

    def _ask_oracles(self, finished: Sequence[_Finished]) -> list[list[_Answer]]:
        """For each trial the answers of its sessions; none where the trial is not ok."""
        # The digests come first, for an oracle may leave files, too.
        digests = [_workspaces(one) if one.status == "ok" else [] for one in finished]
        wrong = [_wrong(one) if one.status == "ok" else [] for one in finished]
        asked = [
            (trial, session)
            for trial, one in enumerate(finished)
            for session, problem in enumerate(wrong[trial])
            if one.prepared.scenario.oracle.command and problem is None
        ]
        for start in range(0, len(asked), _ORACLES_AT_ONCE):
            now = asked[start : start + _ORACLES_AT_ONCE]
            prepared = [(finished[trial].prepared, session) for trial, session in now]
            jobs = [self._oracle_job(*one) for one in prepared]
            seconds = self._seconds([one for one, _ in prepared])
            all_ended = self._launcher.run(jobs, seconds)
            for (trial, session), job, ended in zip(now, jobs, all_ended, strict=True):
                if ended.wrong is not None:
                    command = told_command(job.argv[-1])
                    told = f"oracle: {ended.wrong} ({command}){last_words(Path(job.log))}"
                    wrong[trial][session] = told
        return [
            [_Answer(*both) for both in zip(*each, strict=True)]
            for each in zip(digests, wrong, strict=True)
        ]

    def _oracle_job(self, prepared: _Prepared, session: int) -> Job:
        return Job(
            argv=("sh", "-c", prepared.scenario.oracle.command),
            env=environment(prepared.home),
            cwd=prepared.seats[session].workspace,
            log=str(prepared.folder / f"oracle-{session}.log"),
            limits=self._limits,
        )

    def _sample(self, finished: _Finished, answers: Sequence[_Answer]) -> Sample:
        trial, ended, ok = finished.prepared.trial, finished.ended, finished.status == "ok"
        wrong = [answer.wrong for answer in answers if answer.wrong is not None]
        usage = ended.usage(self._launcher.floor)
        problem = finished.problem or _first_wrong(wrong, len(answers))
        correct = 1 - len(wrong) / len(answers) if answers else None
        return Sample(
            **of_trial(trial),
            status=finished.status,
            started=ended.started,
            exit_status=ended.exit_status,
            pid=ended.pid,
            metrics=figures(usage, finished.logs, finished.report, correct) if ok else {},
            transcript=_transcript(finished) if ok else "",
            workspace=combined([answer.workspace for answer in answers]) if ok else "",
            correct=ok and not wrong,
            problem=problem[:_MAX_PROBLEM] if problem else None,
        )

    def _kept(self, finished: _Finished, sample: Sample) -> Sample:
        """Move the trial's folder out of the way of the next one, if it is wanted."""
        if self._keep is None or (sample.correct and not self._keep_all):
            return sample
        kind = sample.mode if sample.probe == "plain" else f"{sample.mode}-{sample.probe}"
        name = f"{sample.scenario}-{sample.contrast}-{sample.pair}-{sample.side}-{kind}"
        target = self._keep / re.sub(r"[^\w.-]+", "_", name)
        remove(target)
        self._keep.mkdir(parents=True, exist_ok=True)
        shutil.move(finished.prepared.folder, target)
        if sample.problem is None:
            return sample
        return msgspec.structs.replace(sample, problem=f"{sample.problem}\nkept in {target}")


# -- what lies around a trial -----------------------------------------------------------


def _places(scenario: Scenario, name: str, root: Path) -> tuple[tuple[str, ...], list[Path]]:
    """Names of the sessions at the provider, and a workspace for each.

    Where something else is done in place of a session, there is one workspace and no session.
    """
    if not scenario.subject.has_session:
        return (), [root]
    if scenario.load.sessions == 1:
        return (name,), [root]
    numbers = [f"{number:05}" for number in range(1, scenario.load.sessions + 1)]
    return tuple(f"{name}-{number}" for number in numbers), [root / number for number in numbers]


def _read_report(ended: ProcessResult, sessions: int) -> tuple[ChildReport | None, str | None]:
    if ended.report_cut:
        return None, "its report does not end"
    if not ended.report:
        return None, "it ended without a report"
    try:
        report = msgspec.json.decode(ended.report.encode("latin-1"), type=ChildReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"its report is not one: {error}"
    if not 0 <= report.steps <= MAX_STEPS:
        return None, f"its report is not one: {report.steps} steps"
    told = len(report.sessions) or 1
    if told != sessions:
        return None, f"its report is not one: it tells of {told} of {sessions} sessions"
    return report, None


def _with_instructions(report: ChildReport | None, counts: Path) -> ChildReport | None:
    """What callgrind counted, beside the child's own counters."""
    found = callgrind.instructions(counts)
    if report is None or found is None:
        return report
    return msgspec.structs.replace(report, counters=report.counters | {"instructions": found})


def _printed(log: Path) -> str:
    return printable(first_bytes(log, MAX_PRINTED))


def _workspaces(finished: _Finished) -> list[str]:
    prepared = finished.prepared
    ignore = prepared.scenario.workspace.ignore
    return [
        workspace_digest(Path(seat.workspace), ignore, _cleaner(prepared, seat))
        for seat in prepared.seats
    ]


def _transcript(finished: _Finished) -> str:
    prepared = finished.prepared
    logs = finished.logs or (SessionLog((), 0, b""),)
    return combined(
        [
            transcript_digest(log, told, _cleaner(prepared, seat))
            for log, told, seat in zip(logs, finished.told, prepared.seats, strict=True)
        ]
    )


def _wrong(finished: _Finished) -> list[str | None]:
    prepared = finished.prepared
    return [
        wrong_in(prepared.scenario.oracle, Path(seat.workspace), told)
        for seat, told in zip(prepared.seats, finished.told, strict=True)
    ]


def _first_wrong(wrong: Sequence[str], sessions: int) -> str | None:
    if not wrong or sessions == 1:
        return wrong[0] if wrong else None
    return f"{len(wrong)} of {sessions} sessions are wrong, the first: {wrong[0]}"


def _cleaner(prepared: _Prepared, seat: SessionEndpoint) -> Clean:
    places = {"workspace": seat.workspace, "home": str(prepared.home)}
    if seat.base_url:
        places["provider"] = seat.base_url
    return cleaner(places, prepared.scenario.normalise)


# -- the scripted twin ------------------------------------------------------------------


class ScriptedExecutor:
    """Test twin: runs no process and has no clock; `answer` says what each trial gives.

    An answer is the trial's metrics, or a whole `Sample` where more has to be said.
    """

    def __init__(self, answer: Callable[[Trial], Mapping[str, float] | Sample]) -> None:
        self._answer = answer
        self.batches: list[tuple[Trial, ...]] = []
        """What was asked for, in order."""

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        self.batches.append(tuple(trials))
        return [self._sample(trial) for trial in trials]

    def _sample(self, trial: Trial) -> Sample:
        answer = self._answer(trial)
        if isinstance(answer, Sample):
            return answer
        return Sample(
            **of_trial(trial),
            status="ok",
            started=float(len(self.batches)),
            exit_status=0,
            pid=1,
            metrics=dict(answer),
            transcript="scripted",
            workspace="scripted",
            correct=True,
        )
