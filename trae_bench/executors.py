"""Ways to run a trial: in a fresh process, and the scripted twin that runs nothing.

`FreshProcess` prepares folders and a session at the provider, lets the launcher start the
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

from trae_bench.answers import cleaner, transcript_digest, workspace_digest, wrong_in
from trae_bench.jobs import REPORT_FD, Ended, Job, Launcher, environment, last_words, printable
from trae_bench.meters import figures
from trae_bench.records import ChildReport, Command, Sample, SessionLog, Status, Trial
from trae_bench.scenario import Scenario

FILE_LIMIT = 256 * 1024 * 1024
"""Bytes; room for any honest file, and none for a flood that fills the disk."""
SMALLEST_MEMORY = 64 * 1024 * 1024
"""Bytes of address space below which not even the launcher could work."""
MOST_STEPS = 10**9
"""A report of more steps is nonsense, and no float would hold the largest of them."""
_LONGEST_PROBLEM = 3000

ScriptT = TypeVar("ScriptT")
ScriptT_contra = TypeVar("ScriptT_contra", contravariant=True)


class Provider(Protocol[ScriptT_contra]):
    """Plays a script to a session. Raises `ProviderDown`."""

    def register(self, session: str, script: ScriptT_contra, /) -> str:
        """The base URL under which this session finds its provider."""
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
        base_url: str,
        home: Path,
        workspace: Path,
        report_fd: int,
    ) -> Command:
        """Its command line for one trial. May put files into `home`."""
        ...


# -- the executor -----------------------------------------------------------------------


class _Prepared(Struct, frozen=True):
    """A trial, ready to be started."""

    trial: Trial
    scenario: Scenario
    session: str
    base_url: str
    folder: Path
    job: Job

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"


class _Finished(Struct, frozen=True):
    """A trial after its end, its answer not looked at yet."""

    prepared: _Prepared
    ended: Ended
    log: SessionLog
    report: ChildReport | None
    status: Status
    problem: str | None


class FreshProcess(Generic[ScriptT]):
    """Runs each trial in a new process; two trials at the same time, on one core.

    `script` makes the provider's script of a scenario and the session's workspace.
    `scratch` is a folder for this executor alone. `duet_core` is the core of both sides of
    a duet; None leaves them to the kernel, and then their times are no duet's. `timeout`
    (seconds) stands in for the scenario's own. `memory_limit` (bytes) bounds the address
    space of each process; without one, the kernel takes the trial first when memory ends.
    `file_limit` (bytes) bounds each file that it writes, its log included. Folders of trials
    that went wrong are moved to `keep`, those of all with `keep_all`.

    A trial that crashes, hangs or talks nonsense is a `Sample` that says so. Raises
    `CannotMeasure` (or the provider's `ProviderDown`) where no further trial can work.
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
        if memory_limit is not None and memory_limit < SMALLEST_MEMORY:
            raise ValueError(f"a memory limit of {memory_limit} bytes is below {SMALLEST_MEMORY}")
        self._subject = subject
        self._provider = provider
        self._scenarios = scenarios
        self._script = script
        self._scratch = scratch.resolve()
        self._duet_core = duet_core
        self._timeout = timeout
        self._limits = {"RLIMIT_FSIZE": file_limit}
        if memory_limit is not None:
            self._limits["RLIMIT_AS"] = memory_limit
        self._keep = keep
        self._keep_all = keep_all
        self._launcher = Launcher()
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

    @property
    def layout_fixed(self) -> bool:
        """Trials get the same address layout each time; known after the first trial."""
        return self._launcher.layout_fixed

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """One trial, or the two of a duet in the order of their slots."""
        prepared = [self._prepare(trial, slot) for slot, trial in enumerate(trials)]
        try:
            ended = self._launcher.run([one.job for one in prepared], self._seconds(prepared))
            finished = [self._finish(*both) for both in zip(prepared, ended, strict=True)]
            verdicts = self._ask_oracles(finished)
            samples = [self._sample(*both) for both in zip(finished, verdicts, strict=True)]
            return [self._kept(*both) for both in zip(finished, samples, strict=True)]
        finally:
            for one in prepared:
                _remove(one.folder)

    def _seconds(self, prepared: Sequence[_Prepared]) -> float:
        if self._timeout is not None:
            return self._timeout
        return max(one.scenario.timeout_seconds for one in prepared)

    # -- before

    def _prepare(self, trial: Trial, slot: int) -> _Prepared:
        scenario = self._scenarios[trial.scenario]
        self._sessions += 1
        # Names of one length for all: a longer path would cost its side memory and time.
        session = f"{self._sessions:07}"
        folder = self._scratch / f"{slot}"
        _remove(folder)
        home, workspace = folder / "home", folder / "workspace"
        (home / "tmp").mkdir(parents=True)
        workspace.mkdir()
        for relative, text in scenario.workspace.files.items():
            path = workspace / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        base_url = self._provider.register(session, self._script(scenario, workspace))
        command = self._subject.command(trial, scenario, base_url, home, workspace, REPORT_FD)
        job = Job(
            argv=command.argv,
            env=environment(home) | command.env,
            cwd=command.cwd,
            log=str(folder / "log"),
            cores=self._cores(trial),
            limits=self._limits,
        )
        return _Prepared(trial, scenario, session, base_url, folder, job)

    def _cores(self, trial: Trial) -> tuple[int, ...]:
        # A serial trial may use every core, as it would in a user's hands.
        if trial.mode == "serial" or self._duet_core is None:
            return ()
        return (self._duet_core,)

    # -- after

    def _finish(self, prepared: _Prepared, ended: Ended) -> _Finished:
        log = self._provider.collect(prepared.session)
        report: ChildReport | None = None
        status: Status = "ok"
        if (problem := ended.wrong) is not None:
            status = "timeout" if ended.timed_out else "failed"
        elif self._subject.reports:
            report, problem = _read_report(ended)
            if report is None:
                status = "garbage"
            elif report.error is not None:
                status, problem = "failed", f"the subject gave up: {printable(report.error)}"
        if problem is not None:
            problem += last_words(prepared.folder / "log")
        return _Finished(prepared, ended, log, report, status, problem)

    def _ask_oracles(self, finished: Sequence[_Finished]) -> list[tuple[str, str | None]]:
        """For each trial the digest of its workspace, and what is wrong with its answer."""
        digests = [_workspace(one) if one.status == "ok" else "" for one in finished]
        # The digests come first, for an oracle may leave files, too.
        wrong = [
            wrong_in(one.prepared.scenario.oracle, one.prepared.workspace, one.report)
            if one.status == "ok"
            else None
            for one in finished
        ]
        asked = [
            number
            for number, one in enumerate(finished)
            if one.status == "ok" and not wrong[number] and one.prepared.scenario.oracle.command
        ]
        if asked:
            jobs = [self._oracle_job(finished[number].prepared) for number in asked]
            seconds = self._seconds([finished[number].prepared for number in asked])
            for number, ended in zip(asked, self._launcher.run(jobs, seconds), strict=True):
                if ended.wrong is not None:
                    log = finished[number].prepared.folder / "oracle.log"
                    wrong[number] = f"oracle: {ended.wrong}{last_words(log)}"
        return list(zip(digests, wrong, strict=True))

    def _oracle_job(self, prepared: _Prepared) -> Job:
        return Job(
            argv=("sh", "-c", prepared.scenario.oracle.command),
            env=environment(prepared.home),
            cwd=str(prepared.workspace),
            log=str(prepared.folder / "oracle.log"),
            limits=self._limits,
        )

    def _sample(self, finished: _Finished, verdict: tuple[str, str | None]) -> Sample:
        trial, ended, ok = finished.prepared.trial, finished.ended, finished.status == "ok"
        digest, wrong = verdict
        usage = ended.usage(self._launcher.floor)
        problem = finished.problem or wrong
        return Sample(
            scenario=trial.scenario,
            contrast=trial.contrast,
            mode=trial.mode,
            pair=trial.pair,
            side=trial.side,
            slot=trial.slot,
            arm=trial.arm.name,
            status=finished.status,
            started=ended.started,
            exit_status=ended.exit_status,
            pid=ended.pid,
            metrics=figures(usage, finished.log, finished.report) if ok else {},
            transcript=_transcript(finished) if ok else "",
            workspace=digest,
            correct=ok and wrong is None,
            problem=problem[:_LONGEST_PROBLEM] if problem else None,
        )

    def _kept(self, finished: _Finished, sample: Sample) -> Sample:
        """Move the trial's folder out of the way of the next one, if it is wanted."""
        if self._keep is None or (sample.correct and not self._keep_all):
            return sample
        name = f"{sample.scenario}-{sample.contrast}-{sample.pair}-{sample.side}-{sample.mode}"
        target = self._keep / re.sub(r"[^\w.-]+", "_", name)
        _remove(target)
        self._keep.mkdir(parents=True, exist_ok=True)
        shutil.move(finished.prepared.folder, target)
        if sample.problem is None:
            return sample
        return msgspec.structs.replace(sample, problem=f"{sample.problem}\nkept in {target}")


def _read_report(ended: Ended) -> tuple[ChildReport | None, str | None]:
    if ended.report_cut:
        return None, "its report does not end"
    if not ended.report:
        return None, "it ended without a report"
    try:
        report = msgspec.json.decode(ended.report.encode("latin-1"), type=ChildReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"its report is not one: {error}"
    if not 0 <= report.steps <= MOST_STEPS:
        return None, f"its report is not one: {report.steps} steps"
    return report, None


def _workspace(finished: _Finished) -> str:
    prepared = finished.prepared
    ignore = prepared.scenario.workspace.ignore
    return workspace_digest(prepared.workspace, ignore, _cleaner(prepared))


def _transcript(finished: _Finished) -> str:
    return transcript_digest(finished.log, finished.report, _cleaner(finished.prepared))


def _cleaner(prepared: _Prepared) -> Callable[[str], str]:
    places = {
        "workspace": str(prepared.workspace),
        "home": str(prepared.home),
        "provider": prepared.base_url,
    }
    return cleaner(places, prepared.scenario.normalise)


def _remove(folder: Path) -> None:
    """Remove a trial's folder, also where the trial took away the right to."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        _unlock(folder)
        shutil.rmtree(folder)


def _unlock(folder: Path) -> None:
    folder.chmod(0o700)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _unlock(entry)


# -- the scripted twin ------------------------------------------------------------------


class Scripted:
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
            scenario=trial.scenario,
            contrast=trial.contrast,
            mode=trial.mode,
            pair=trial.pair,
            side=trial.side,
            slot=trial.slot,
            arm=trial.arm.name,
            status="ok",
            started=float(len(self.batches)),
            exit_status=0,
            pid=1,
            metrics=dict(answer),
            transcript="scripted",
            workspace="scripted",
            correct=True,
        )
