"""Runs any agent as a subject, by its entry."""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.json_tree import is_utf8
from trae_bench.errors import CannotMeasure
from trae_bench.model.experiment import AnswerPlace, Arm, Command, Equal, SessionEndpoint, Trial
from trae_bench.scenario import Scenario
from trae_bench.scenario.actions import AgentInterface
from trae_bench.scenario.adaptation import adapted
from trae_bench.subject.agents.entry import AgentEntry, filled

API_KEY = "key-to-nothing"
MODEL = "scripted"
TASK_FILE, STDIN_FILE, SESSIONS_FILE = "task.txt", "stdin.txt", "sessions.json"
"""Files in the home folder of an agent."""
REFUSED_PROXY = "http://127.0.0.1:9"
"""A port on which nothing listens. A request to another host than the provider fails at once."""
_SESSION_URL = re.compile(r"\w+://[^/]+/s/[^/]+")
_LOCAL = "127.0.0.1,localhost,::1"


Side = Literal["", "base", "head"]
"""Which of two revisions an agent is; empty if no revisions are compared."""


class PreparedAgent(Struct, frozen=True):
    """An agent that is ready to start."""

    name: str
    entry: AgentEntry
    folder: Path
    """Folder of its code."""
    env: Path | None = None
    """Its environment, if its entry builds one."""
    interface: AgentInterface = AgentInterface()
    side: Side = ""

    @property
    def label(self) -> str:
        """Its name in messages: `tiny`, or `tiny (base)`."""
        return f"{self.name} ({self.side})" if self.side else self.name

    @property
    def digest(self) -> str:
        """SHA-256 of its entry."""
        return hashlib.sha256(msgspec.json.encode(self.entry, order="sorted")).hexdigest()

    @property
    def bin_folders(self) -> list[str]:
        """The folders of the commands that its environment has."""
        if self.env is None:
            return []
        places = (self.env / "bin", self.env / "node_modules" / ".bin")
        return [str(place) for place in places if place.is_dir()]

    @property
    def path(self) -> str:
        """Its PATH: its environment, then the user's, without the virtual one of trae-bench.

        Without a virtual environment, trae-bench shares its folder with the user's programs.
        """
        users = os.environ.get("PATH", os.defpath).split(os.pathsep)
        if sys.prefix != sys.base_prefix:
            users = [one for one in users if os.path.normpath(one) != _own_folder()]
        return os.pathsep.join([*self.bin_folders, *users])

    @property
    def python(self) -> str:
        """The interpreter of its environment; without one, the one on its PATH."""
        found = (shutil.which(name, path=self.path) for name in ("python", "python3"))
        return next(filter(None, found), sys.executable)

    def program(self, name: str) -> str:
        """The path of a program: on its PATH, beside trae-bench, or relative to its folder.

        A name that is not found stays, so that the start fails and says so.
        """
        if "/" in name:
            return str(self.folder / name)
        found = (shutil.which(name, path=path) for path in (self.path, _own_folder()))
        return next(filter(None, found), name)


def _own_folder() -> str:
    """The folder of the commands that are installed beside trae-bench."""
    return os.path.normpath(Path(sys.executable).parent)


class AgentKey(Struct, frozen=True):
    """Which agent an arm runs, at which revision."""

    agent: str
    revision: str | None = None


def key_of(arm: Arm) -> AgentKey:
    """Raises `CannotMeasure` if the arm names no agent."""
    if not arm.agent:
        raise CannotMeasure(f"the arm {arm.name!r} names no agent; start a new run")
    return AgentKey(arm.agent, arm.revision)


class CommandSubject:
    """Starts agents by the command lines of their entries, in the session's workspace.

    An agent whose entry does not use `{report_fd}` succeeds if its exit status is 0. Its metrics
    are those observed from outside. One process runs one session, or all of them by the command
    line in `sessions` of its entry. `equal` overrides what the entries say both sides of a pair
    must have equal. `proxy` is the proxy for all other hosts.
    """

    def __init__(
        self,
        agents: Mapping[AgentKey, PreparedAgent],
        *,
        equal: Equal | None = None,
        proxy: str = REFUSED_PROXY,
    ) -> None:
        self._agents = agents
        self._proxy = proxy
        self._equal = equal
        self._adapted: dict[tuple[str, AgentKey], Scenario] = {}

    def adapted(self, trial: Trial, scenario: Scenario) -> Scenario:
        """Return the scenario as the trial's agent plays it. Raises `CannotMeasure`."""
        key = (scenario.name, key_of(trial.arm))
        if key not in self._adapted:
            self._adapted[key] = scenario_for(scenario, self._agent(trial.arm))
        return self._adapted[key]

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        agent = self._agent(trial.arm)
        entry = agent.entry
        values = _values(agent, scenario, endpoints[0], home, report_fd)
        stdin = {STDIN_FILE: entry.stdin} if entry.stdin else {}
        write_files(home, {**entry.files, **stdin}, values)
        argv = entry.argv if len(endpoints) == 1 else entry.sessions_argv
        if entry.sessions:
            (home / SESSIONS_FILE).write_bytes(_sessions(scenario, endpoints))
        program, *arguments = (filled(text, values) for text in argv)
        return Command(
            argv=(agent.program(program), *arguments),
            env=_environment(agent, values, self._proxy),
            cwd=endpoints[0].workspace,
            stdin=str(home / STDIN_FILE) if stdin else "",
            answer=answer_place(entry),
            equal=self._equal or entry.equal,
        )

    def _agent(self, arm: Arm) -> PreparedAgent:
        key = key_of(arm)
        if key not in self._agents:
            raise CannotMeasure(f"the agent {key.agent!r} is not prepared; start a new run")
        return self._agents[key]


def unplayable(scenario: Scenario, name: str, entry: AgentEntry) -> str:
    """Why an agent cannot play a scenario by its entry; empty if it can."""
    if not scenario.subject.has_session:
        return f"{scenario.name} runs no session; it measures agent_core"
    if scenario.load.sessions > 1 and not entry.sessions:
        return (
            f"{scenario.name} runs several sessions in one process, and the entry of {name} has no "
            "`sessions`, the command line for it"
        )
    if scenario.load.arrival == "steady":
        return f"{scenario.name} starts its sessions at a fixed rate, as only agent_core can"
    if scenario.provider.transport == "respx":
        return f"{scenario.name} runs in the process of trae-bench, as only agent_core can"
    return ""


def scenario_for(scenario: Scenario, agent: PreparedAgent) -> Scenario:
    """The scenario as an agent plays it. Raises `CannotMeasure` if it cannot."""
    if reason := unplayable(scenario, agent.name, agent.entry):
        raise CannotMeasure(f"{scenario.name} cannot run with the agent {agent.name}: {reason}")
    _require_tools(scenario, agent)
    played = adapted(scenario, agent.interface)
    ignore = (*scenario.workspace.ignore, *agent.entry.ignore)
    return replace(
        played,
        agent=agent.name,
        workspace=replace(played.workspace, ignore=ignore),
        timeout_seconds=agent.entry.timeout_seconds or scenario.timeout_seconds,
    )


def _require_tools(scenario: Scenario, agent: PreparedAgent) -> None:
    """Raise `CannotMeasure` if a recorded session calls tools that the agent does not offer."""
    offered = agent.interface.offered
    if not scenario.agent or not offered:
        return
    called = {call.tool for turn in scenario.turns for call in turn.calls}
    if missing := sorted(called.difference(offered)):
        raise CannotMeasure(
            f"{scenario.name} calls {', '.join(missing)}, which the agent {agent.name} does not "
            f"offer; it is a recorded session of {scenario.agent}: run it with that agent"
        )


def _values(
    agent: PreparedAgent, scenario: Scenario, endpoint: SessionEndpoint, home: Path, report_fd: int
) -> dict[str, str]:
    server_url = _server_url(endpoint.base_url)
    return {
        "api_key": API_KEY,
        "base_url": f"{server_url}/v1",
        "env": str(agent.env or ""),
        "folder": str(agent.folder),
        "home": str(home),
        "model": MODEL,
        "python": agent.python,
        "report_fd": str(report_fd),
        "server_url": server_url,
        "sessions_file": str(home / SESSIONS_FILE),
        "task": _task(scenario, endpoint),
        "task_file": str(home / TASK_FILE),
        "workspace": endpoint.workspace,
    }


def _sessions(scenario: Scenario, endpoints: Sequence[SessionEndpoint]) -> bytes:
    """The content of the file that `{sessions_file}` names."""
    sessions = [
        {
            "base_url": f"{_server_url(endpoint.base_url)}/v1",
            "server_url": _server_url(endpoint.base_url),
            "task": _task(scenario, endpoint),
            "workspace": endpoint.workspace,
        }
        for endpoint in endpoints
    ]
    content = {"concurrency": scenario.load.concurrency, "sessions": sessions}
    return msgspec.json.encode(content)


def _task(scenario: Scenario, endpoint: SessionEndpoint) -> str:
    return scenario.task.replace("{workspace}", endpoint.workspace)


def _server_url(base_url: str) -> str:
    """The URL of a session without the path that its protocol adds."""
    found = _SESSION_URL.match(base_url)
    return found[0] if found else base_url


def _environment(agent: PreparedAgent, values: Mapping[str, str], proxy: str) -> dict[str, str]:
    """Variables of its environment: nothing of the user's but what its entry names."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
    proxies |= {name.lower(): value for name, value in proxies.items()}
    passed = {name: os.environ[name] for name in agent.entry.pass_env if name in os.environ}
    for name, value in passed.items():
        if not is_utf8(value):
            raise CannotMeasure(f"pass-env: the value of {name} is not UTF-8; remove the name")
    own = {name: filled(text, values) for name, text in agent.entry.env.items()}
    return {**proxies, "NO_PROXY": _LOCAL, "no_proxy": _LOCAL, "PATH": agent.path, **passed, **own}


def answer_place(entry: AgentEntry) -> AnswerPlace:
    """Where an agent gives its answer, which the oracle checks."""
    if any("{report_fd}" in text for text in (*entry.argv, *entry.env.values())):
        return "report"
    return "output" if entry.final_text == "stdout" else "none"


def write_files(home: Path, files: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Write the task and an agent's files below its home folder, placeholders replaced.

    Raises `CannotMeasure` if one cannot be written.
    """
    for relative, text in {TASK_FILE: "{task}", **files}.items():
        path = home / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(filled(text, values), encoding="utf-8")
        except OSError as error:
            # Such as a file where another entry of [files], or the trial, has a folder.
            raise CannotMeasure(f"cannot write {path}: {error.strerror}; see [files]") from error
