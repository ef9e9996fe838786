"""Runs a trial in this process, for scenarios whose provider is a mock in this process.

No process is started, so start-up time, memory and connections are not measured. CPU time
includes the mock provider. Only the metrics in `IN_PROCESS_METRICS` are kept.
"""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.child_env import environment
from trae_bench._util.child_output import printable
from trae_bench.execution.launcher_client import LauncherClient
from trae_bench.execution.pair_difference import PairMemory
from trae_bench.execution.ports import InProcessSubject, Provider
from trae_bench.execution.trial_result import (
    TrialResult,
    TrialSetup,
    agent_error,
    build_sample,
    check_sessions,
    with_session_problem,
)
from trae_bench.execution.workspace import create_home, lay_out, remove, room_for_trials
from trae_bench.model.experiment import SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, ProcessResult, Sample, Status
from trae_bench.scenario import Scenario
from trae_bench.scenario.measurable import IN_PROCESS_METRICS

ScriptT = TypeVar("ScriptT")


class InProcessExecutor(Generic[ScriptT]):
    """An `Executor` that runs the trials of a duet one after the other.

    `script` builds the provider's script from a scenario and the session's workspace.
    `scratch` is a folder that only this executor uses.

    A trial that crashes or exceeds its timeout gives a `Sample` that says so. A trial that
    blocks the event loop cannot be stopped.
    """

    def __init__(
        self,
        subject: InProcessSubject,
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
        self._memory = PairMemory()

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """Run the trials in order. Raises `CannotMeasure` if the file system refuses."""
        # The launcher runs the oracles' commands.
        with room_for_trials(str(self._scratch)), closing(LauncherClient()) as launcher:
            return [self._run(trial, launcher) for trial in trials]

    def _run(self, trial: Trial, launcher: LauncherClient) -> Sample:
        scenario = self._scenarios[trial.scenario]
        self._sessions += 1
        session, folder = f"{self._sessions:07}", self._scratch / "trial"
        create_home(folder)
        workspace = folder / "workspace"
        workspace.mkdir()
        try:
            lay_out(scenario.workspace, workspace)
            base_url = self._provider.register(session, self._script(scenario, workspace))
            endpoint = SessionEndpoint(base_url, str(workspace))
            setup = TrialSetup(trial, scenario, (session,), (endpoint,), folder)
            result = self._play(setup)
            (checks,) = check_sessions([result], launcher, scenario.timeout_seconds, {})
            sample = build_sample(result, checks, self._memory)
        finally:
            remove(folder)
        kept = {n: value for n, value in sample.metrics.items() if n in IN_PROCESS_METRICS}
        return replace(sample, metrics=kept)

    def _play(self, setup: TrialSetup) -> TrialResult:
        scenario, (endpoint,) = setup.scenario, setup.endpoints

        async def session() -> ChildReport:
            async with asyncio.timeout(scenario.timeout_seconds):
                return await self._subject.perform(setup.trial, scenario, endpoint, setup.home)

        report: ChildReport | None = None
        status: Status = "ok"
        problem: str | None = None
        before = _Counters.read()
        with _environment(setup.home):
            try:
                report = asyncio.run(session())
            except TimeoutError:
                status, problem = "timeout", f"not done after {scenario.timeout_seconds:g} s"
            except Exception as error:  # any error of the agent is a failed trial
                status, problem = "failed", f"{type(error).__name__}: {printable(str(error))}"
        process = _process_result(before, _Counters.read())
        if report is not None and report.error is not None:
            status, problem = "failed", agent_error(report.error)
        logs = tuple(map(self._provider.collect, setup.sessions))
        if problem is not None:
            problem = with_session_problem(problem, logs)
        return TrialResult(setup, process, logs, report, (report,), status, problem)


@contextmanager
def _environment(home: Path) -> Iterator[None]:
    """Replace the user's environment by the one that a fresh process gets."""
    users, trials = dict(os.environ), environment(home)
    os.environ.clear()
    os.environ.update(trials)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(users)


class _Counters(Struct, frozen=True):
    """The kernel's resource counters of this process and of its children."""

    moment: float
    """Monotonic seconds."""
    own: resource.struct_rusage
    children: resource.struct_rusage

    @classmethod
    def read(cls) -> "_Counters":
        return cls(
            time.monotonic(),
            resource.getrusage(resource.RUSAGE_SELF),
            resource.getrusage(resource.RUSAGE_CHILDREN),
        )

    def total(self, field: str) -> float:
        return float(getattr(self.own, field) + getattr(self.children, field))


def _process_result(before: _Counters, after: _Counters) -> ProcessResult:
    def spent(field: str) -> float:
        return after.total(field) - before.total(field)

    return ProcessResult(
        pid=os.getpid(),
        started=before.moment,
        ended=after.moment,
        user=spent("ru_utime"),
        system=spent("ru_stime"),
        minor_faults=int(spent("ru_minflt")),
        major_faults=int(spent("ru_majflt")),
        voluntary_switches=int(spent("ru_nvcsw")),
        involuntary_switches=int(spent("ru_nivcsw")),
    )
