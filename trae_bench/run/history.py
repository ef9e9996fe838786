"""Confirms the changes of a history: the commits before and after one are compared again.

The notes of a history may come from strangers. A name in them selects a scenario or an agent that
the project or trae-bench itself has; it is never opened as a file or run as a command.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from trae_bench._util.host_facts import slug
from trae_bench.errors import BenchError, UsageError
from trae_bench.run.commit_pair import compare_commits
from trae_bench.run.gate_base import GateBase, settings_at
from trae_bench.run.planner import RunRequest, scenario_of
from trae_bench.run.runner import Say
from trae_bench.run.scheduler import Listener
from trae_bench.run.settings import Settings
from trae_bench.scenario import catalogue, split
from trae_bench.storage.history import AGENT_CORE
from trae_bench.subject.agents.catalog import FoundAgent
from trae_bench.subject.revisions import NAME_LENGTH, Repository
from trae_bench.verdicts.history import Checked, SeriesKey, Shift, checked


class Confirmer(Struct, frozen=True, kw_only=True):
    """What the confirming runs need."""

    repository: Callable[[str], Repository]
    """The repository of a subject: a package, or "" for the whole tree."""
    package: str
    """The package of agent_core."""
    agents: Mapping[str, FoundAgent]
    """The agents of the project, and those that the user names."""
    scenarios: Mapping[str, str]
    """What to request for a scenario that is no shipped one, by its name."""
    folder: Path
    """Receives the run files."""
    command: str
    budget: float | None = None

    def check(self, shift: Shift, say: Say, listener: Listener | None = None) -> Checked:
        """Compare the two commits of a change. Raises `KeyboardInterrupt`."""
        path = self.folder / _file_name(shift)
        try:
            run = compare_commits(self._request(shift), path, say, listener)
        except BenchError as error:
            # Other changes can be checked all the same.
            return Checked(shift, "not measured", problem=str(error))
        return checked(shift, run, str(path))

    def _request(self, shift: Shift) -> RunRequest:
        agents = self._agents(shift.key)
        repository = self.repository("" if agents else self.package)
        settings = settings_at(repository, shift.base, Path.cwd())
        base = GateBase(repository, shift.base, shift.base[:NAME_LENGTH], settings)
        return RunRequest(
            command=self.command,
            profile=settings.profile or "quick",
            settings=settings,
            compare=base,
            head=shift.head,
            agents=agents,
            scenarios=(self._scenario(shift.key),),
            metrics=(shift.key.metric,),
            budget=self.budget,
        )

    def _agents(self, key: SeriesKey) -> dict[str, FoundAgent]:
        if key.agent in self.agents:
            return {key.agent: self.agents[key.agent]}
        if key.agent == AGENT_CORE:
            return {}
        known = ", ".join(sorted(self.agents)) or "none"
        raise UsageError(
            f"the project has no agent {key.agent!r} (known: {known}); name its entry with --agent"
        )

    def _scenario(self, key: SeriesKey) -> str:
        if key.scenario in self.scenarios:
            return self.scenarios[key.scenario]
        if split(key.scenario)[0] in catalogue():
            return key.scenario
        raise UsageError(
            f"no scenario {key.scenario!r} in the settings of the project; name its file with "
            "--scenario"
        )


def requested_scenarios(named: Sequence[str], settings: Settings) -> dict[str, str]:
    """Return what to request for each scenario that the user or the project names, by its name.

    Raises `UsageError` and `ScenarioError` for one that the user names.
    """
    found = {scenario_of(requested).name: requested for requested in named}
    for requested in settings.scenarios:
        try:
            found.setdefault(scenario_of(requested).name, requested)
        except UsageError:
            # A file of another folder, or one that this checkout lacks.
            continue
    return found


def _file_name(shift: Shift) -> str:
    commits = f"{shift.base[:NAME_LENGTH]}-{shift.head[:NAME_LENGTH]}"
    return f"{commits}-{slug(f'{shift.key.agent} {shift.key.scenario} {shift.key.metric}')}.json"
