"""Runs a trial in the bench's own process: for scenarios whose provider is in it, too.

Nothing is started, so start, memory and connections cannot be seen here, and processor time
includes what the provider's mock takes. Only the metrics in `IN_PROCESS_METRICS` are kept.
"""

import asyncio
import os
import resource
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from trae_bench._util.child_env import environment
from trae_bench._util.child_output import printable
from trae_bench.execution.fingerprint import (
    Clean,
    cleaner,
    told_command,
    transcript_digest,
    workspace_digest,
    wrong_in,
)
from trae_bench.execution.workspace import lay_out, remove, room_for_trials
from trae_bench.metrics import Usage, figures
from trae_bench.model.experiment import SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, Sample, SessionLog, Status, of_trial
from trae_bench.scenario import Scenario
from trae_bench.scenario.measurable import IN_PROCESS_METRICS

_MAX_PROBLEM = 3000

ScriptT = TypeVar("ScriptT")
ScriptT_contra = TypeVar("ScriptT_contra", contravariant=True)


class Provider(Protocol[ScriptT_contra]):
    """Plays a script to a session in this process."""

    def register(self, session: str, script: ScriptT_contra, /) -> str: ...

    def collect(self, session: str, /) -> SessionLog: ...


class Subject(Protocol):
    """An agent that can work in this process."""

    async def perform(
        self, trial: Trial, scenario: Scenario, seat: SessionEndpoint, home: Path
    ) -> ChildReport:
        """One session. May put files into `home`."""
        ...


class _Played(Struct, frozen=True):
    """A session after its end."""

    usage: Usage
    status: Status
    report: ChildReport | None
    problem: str | None


class InProcessExecutor(Generic[ScriptT]):
    """Satisfies `session.Executor`; the trials of a duet run one after the other.

    `script` makes the provider's script of a scenario and the session's workspace; `scratch`
    is a folder for this executor alone. A trial that crashes or takes longer than its
    scenario allows is a `Sample` that says so; one that never lets the event loop run cannot
    be stopped.
    """

    def __init__(
        self,
        subject: Subject,
        provider: Provider[ScriptT],
        scenarios: Mapping[str, Scenario],
        *,
        script: Callable[[Scenario, Path], ScriptT],
        scratch: Path,
    ) -> None:
        self._subject = subject
        self._provider = provider
        self._scenarios = scenarios
        self._script = script
        self._scratch = scratch.resolve()
        self._sessions = 0

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        with room_for_trials(str(self._scratch)):
            return [self._run(trial) for trial in trials]

    def _run(self, trial: Trial) -> Sample:
        scenario = self._scenarios[trial.scenario]
        self._sessions += 1
        session, folder = f"{self._sessions:07}", self._scratch / "trial"
        home, workspace = folder / "home", folder / "workspace"
        (home / "tmp").mkdir(parents=True)
        workspace.mkdir()
        try:
            lay_out(scenario.workspace, workspace)
            base_url = self._provider.register(session, self._script(scenario, workspace))
            seat = SessionEndpoint(base_url, str(workspace))
            played = self._play(trial, scenario, seat, home)
            return _sample(trial, scenario, seat, home, played, self._provider.collect(session))
        finally:
            remove(folder)

    def _play(self, trial: Trial, scenario: Scenario, seat: SessionEndpoint, home: Path) -> _Played:
        async def session() -> ChildReport:
            async with asyncio.timeout(scenario.timeout_seconds):
                return await self._subject.perform(trial, scenario, seat, home)

        report: ChildReport | None = None
        status: Status = "ok"
        problem: str | None = None
        before = _accounts()
        with _environment(home):
            try:
                report = asyncio.run(session())
            except TimeoutError:
                status, problem = "timeout", f"not done after {scenario.timeout_seconds:g} s"
            except Exception as error:  # whatever an agent does wrong is a failed trial
                status, problem = "failed", f"{type(error).__name__}: {printable(str(error))}"
        usage = _spent(before)
        if report is not None and report.error is not None:
            status, problem = "failed", f"the subject gave up: {printable(report.error)}"
        return _Played(usage, status, report, problem)


def _sample(
    trial: Trial,
    scenario: Scenario,
    seat: SessionEndpoint,
    home: Path,
    played: _Played,
    log: SessionLog,
) -> Sample:
    ok, wrong, transcript, workspace = played.status == "ok", None, "", ""
    metrics: dict[str, float] = {}
    if ok:
        clean = _cleaner(scenario, seat, home)
        transcript = transcript_digest(log, played.report, clean)
        # The digest comes first, for an oracle may leave files, too.
        workspace = workspace_digest(Path(seat.workspace), scenario.workspace.ignore, clean)
        wrong = _wrong(scenario, seat, home, played.report)
        found = figures(played.usage, [log], played.report)
        metrics = {name: found[name] for name in IN_PROCESS_METRICS if name in found}
    problem = played.problem or wrong
    return Sample(
        **of_trial(trial),
        status=played.status,
        started=played.usage.started,
        exit_status=None,
        pid=os.getpid(),
        metrics=metrics,
        transcript=transcript,
        workspace=workspace,
        correct=ok and wrong is None,
        problem=problem[:_MAX_PROBLEM] if problem else None,
    )


def _cleaner(scenario: Scenario, seat: SessionEndpoint, home: Path) -> Clean:
    places = {"workspace": seat.workspace, "home": str(home), "provider": seat.base_url}
    return cleaner(places, scenario.normalise)


def _wrong(
    scenario: Scenario, seat: SessionEndpoint, home: Path, report: ChildReport | None
) -> str | None:
    """What the oracle finds wrong."""
    oracle = scenario.oracle
    wrong = wrong_in(oracle, Path(seat.workspace), report)
    if wrong is not None or not oracle.command:
        return wrong
    try:
        done = subprocess.run(
            ["sh", "-c", oracle.command],
            cwd=seat.workspace,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=scenario.timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"oracle: its command does not end ({told_command(oracle.command)})"
    if done.returncode == 0:
        return None
    said = printable(done.stdout)
    return f"oracle: exit status {done.returncode} ({told_command(oracle.command)}); {said}"


@contextmanager
def _environment(home: Path) -> Iterator[None]:
    """What a fresh process would see: no key, no proxy, no home of the user's."""
    users, ours = dict(os.environ), environment(home)
    os.environ.clear()
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(users)


_Accounts = tuple[float, resource.struct_rusage, resource.struct_rusage]


def _accounts() -> _Accounts:
    """The time, and what the kernel has charged to this process and to its children so far."""
    return (
        time.monotonic(),
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )


def _spent(before: _Accounts) -> Usage:
    after = _accounts()

    def spent(field: str) -> float:
        both = zip(after[1:], before[1:], strict=True)
        return float(sum(getattr(late, field) - getattr(early, field) for late, early in both))

    return Usage(
        started=before[0],
        ended=after[0],
        user=spent("ru_utime"),
        system=spent("ru_stime"),
        max_rss=None,
        minor_faults=int(spent("ru_minflt")),
        major_faults=int(spent("ru_majflt")),
        voluntary_switches=int(spent("ru_nvcsw")),
        involuntary_switches=int(spent("ru_nivcsw")),
        run_delay=None,
        written_bytes=None,
        write_syscalls=None,
    )


# -- beside other executors -------------------------------------------------------------


class Executor(Protocol):
    """As `session.Executor`."""

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]: ...


class ExecutorRouter:
    """Trials of some scenarios go to one executor, all others to the usual one."""

    def __init__(self, usual: Executor, other: Executor, scenarios: Collection[str]) -> None:
        self._usual = usual
        self._other = other
        self._scenarios = frozenset(scenarios)

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """The trials of one call are of one scenario."""
        to_other = trials[0].scenario in self._scenarios
        return (self._other if to_other else self._usual).run(trials)
