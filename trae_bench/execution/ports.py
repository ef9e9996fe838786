"""Protocols of a trial's parts: executor, provider and the two kinds of subject."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, Sample, SessionLog
from trae_bench.scenario import Scenario

ScriptT_contra = TypeVar("ScriptT_contra", contravariant=True)


class Executor(Protocol):
    """Runs one serial trial, or both trials of a duet."""

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """Return one sample per trial, in the same order.

        A trial that crashes, hangs or writes an invalid report still gives a `Sample`.
        Raises `BenchError` if no further trial can run.
        """
        ...


class Provider(Protocol[ScriptT_contra]):
    """Replays a script to each session. Its methods raise `ProviderDown` if it has died."""

    def register(
        self, session: str, script: ScriptT_contra, pressure: Sequence[str] = (), /
    ) -> str:
        """Open a session and return its base URL.

        Each request's log has a reading of one of the `pressure` files, which take turns.
        """
        ...

    def environ(self, session: str, /) -> dict[str, str]:
        """Return the environment variables that a subject needs to reach the session."""
        ...

    def collect(self, session: str, /) -> SessionLog:
        """Close a session and return its log."""
        ...


class Subject(Protocol):
    """The agent under test, started as a command."""

    def adapted(self, trial: Trial, scenario: Scenario) -> Scenario:
        """Return the scenario with the protocol and the tools of the trial's agent.

        Raises `CannotMeasure` if the agent cannot play it.
        """
        ...

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        """Return the command of one process that runs a session per endpoint.

        It may create files in `home`. Raises `CannotMeasure` if it cannot run the scenario.
        """
        ...


class InProcessSubject(Protocol):
    """The agent under test, called as a coroutine."""

    async def perform(
        self, trial: Trial, scenario: Scenario, endpoint: SessionEndpoint, home: Path
    ) -> ChildReport:
        """Run one session. It may create files in `home`."""
        ...
