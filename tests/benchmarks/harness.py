"""Measure one subject under one workload in a fresh process, from outside.

Uses the provider, launcher and metrics of trae_bench. Subject and provider share one core, so a
request never waits for another core to wake up.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from tests.benchmarks.floors.conversation import FINISH, opening, tool_message
from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words
from trae_bench._util.cpu_affinity import duet_core
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import REPORT_FD, Job, LauncherClient
from trae_bench.metrics import compute_metrics
from trae_bench.model.experiment import Arm, Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, ProcessResult, SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.scenario import ProviderConditions, Scenario, ScriptedCall, ToggleUse, Turn
from trae_bench.subject.agent_core import AgentCoreSubject, toggles

ROOT = Path(__file__).resolve().parents[2]
SLEEP = 0.2
"""Seconds of one sleeping tool call."""
FILE_TEXT = "".join(f"{n:02} {'x' * 59}\n" for n in range(33))[:2047] + "\n"
"""Output of each `view`: 2048 bytes."""
_SLEEP = f"[ -p pause ] || mkfifo pause; read -t {SLEEP} <> pause || true"
"""Sleeps inside bash, because starting five `sleep` processes takes 8 ms."""
_TIMEOUT = 300.0


class Workload(Struct, frozen=True):
    """The task of a subject."""

    steps: int
    """Each step is one call that views the file, unless `sleeps` is set."""
    sessions: int = 1
    """Concurrent sessions in one process. With more than one, an uncounted warm-up comes first."""
    think_seconds: float = 0.0
    sleeps: int = 0
    """Sleeping calls per step instead of the view. Only agent_core has the tool."""

    def scenario(self) -> Scenario:
        return Scenario(
            name="peers",
            about="",
            task="Look at the file.",
            turns=(
                Turn(calls=self._calls(), repeat=self.steps),
                Turn(text="Done.", calls=(ScriptedCall(FINISH),)),
            ),
            toggles=ToggleUse(vary=()),
            metrics=(),
            provider=ProviderConditions(think_seconds=self.think_seconds),
        )

    def _calls(self) -> tuple[ScriptedCall, ...]:
        view = {"command": "view", "path": "{workspace}/file.txt"}
        return tuple(
            ScriptedCall("bash", {"command": _SLEEP, "session": f"s{n}"})
            for n in range(self.sleeps)
        ) or (ScriptedCall("str_replace_based_edit_tool", view),)


def _floor(entry: str) -> str:
    module, _, function = entry.partition(":")
    return f"from tests.benchmarks.{module} import {function}; {function}()"


AGENT = "agent_core"
_PREPARED = "raw socket"
"""The subject that receives its requests in encoded form."""
_SESSIONS: dict[str, str] = {
    _PREPARED: _floor("floors.raw_socket:main"),
    "raw append": _floor("floors.raw_append:main"),
    "httpx": _floor("floors.httpx_history:main"),
    "httpx, own clients": _floor("floors.httpx_history:main_own"),
    AGENT: _floor("agent_sessions:main"),
}
"""Python code of each subject."""
SUBJECTS = tuple(_SESSIONS)


class _Session(Struct, frozen=True):
    """Name, folder and address of one session."""

    name: str
    workspace: Path
    base_url: str


class Rig:
    """Provider and launcher for several runs."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch.resolve()
        self._launcher = LauncherClient()
        self._core = duet_core()
        self._subject = AgentCoreSubject()
        self._count = 0
        self._resources: ExitStack

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            self._provider = resources.enter_context(Loopback(pin=self._core))
            resources.callback(self._launcher.close)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def measure(self, subject: str, workload: Workload) -> dict[str, float]:
        """Run a subject and return the metrics of `trae_bench.metrics`.

        Raises `CannotMeasure` if the run fails or the session was incomplete.
        """
        folder = self._scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        count = workload.sessions + (workload.sessions > 1)
        sessions = [self._prepare(folder / str(number), workload) for number in range(count)]
        command = self._command(subject, workload, folder, sessions)
        result = self._run(command, folder)
        logs = [self._provider.collect(session.name) for session in sessions]
        for log in logs:
            check(subject, log, workload)
        report = json.loads(result.report) if result.report else None
        child = None if report is None else ChildReport(**report)
        counted = logs[count - workload.sessions :]
        return compute_metrics(result, counted, child)

    def _prepare(self, folder: Path, workload: Workload) -> _Session:
        workspace = folder / "workspace"
        workspace.mkdir(parents=True)
        (workspace / "file.txt").write_text(FILE_TEXT)
        self._count += 1
        name = f"{self._count:07}"
        base_url = self._provider.register(name, expand(workload.scenario(), workspace))
        return _Session(name, workspace, base_url)

    def _command(
        self, subject: str, workload: Workload, folder: Path, sessions: Sequence[_Session]
    ) -> Command:
        home, first = folder / "home", sessions[0]
        (home / "tmp").mkdir(parents=True)
        if subject == AGENT and len(sessions) == 1:
            arm = Arm("all", dict.fromkeys(toggles(), True))
            trial = Trial("peers", "", "serial", 0, "A", 0, arm, 0)
            endpoints = [SessionEndpoint(first.base_url, str(first.workspace))]
            return self._subject.command(trial, workload.scenario(), endpoints, home, REPORT_FD)
        prepared = folder / "prepared"
        if subject == _PREPARED:
            prepared.write_bytes(_encode_requests(expand(workload.scenario(), first.workspace)))
        arguments = [
            argument
            for session in sessions
            for argument in (session.base_url, str(session.workspace))
        ]
        return Command(
            argv=(sys.executable, "-P", "-c", _SESSIONS[subject], str(prepared), *arguments),
            env={"PYTHONPATH": str(ROOT)},
            cwd=str(first.workspace),
        )

    def _run(self, command: Command, folder: Path) -> ProcessResult:
        job = Job(
            argv=command.argv,
            env=environment(folder / "home") | command.env,
            cwd=command.cwd,
            log=str(folder / "log"),
            cores=() if self._core is None else (self._core,),
        )
        (result,) = self._launcher.run([job], _TIMEOUT)
        if result.failure is not None:
            raise CannotMeasure(f"{result.failure}{last_words(folder / 'log')}")
        return result


def _encode_requests(script: Script) -> bytes:
    """Return the input of `raw_socket`: the start of the first body, then a line per step."""
    lines = [json.dumps(opening())[:-2]]
    for turn in script.turns[:-1]:
        calls = [_encode_call(call.id, call.name, call.arguments) for call in turn.calls]
        messages: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": calls}]
        messages += [tool_message(call.id, call.arguments["path"]) for call in turn.calls]
        lines.append("".join(f",{json.dumps(message)}" for message in messages))
    return "".join(f"{line}\n" for line in lines).encode()


def _encode_call(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def check(subject: str, log: SessionLog, workload: Workload) -> None:
    """Raise `CannotMeasure` if a session did not send all requests and tool results."""
    requests, expected = len(log.requests), workload.steps + 1
    if (requests, log.unexpected) != (expected, 0):
        raise CannotMeasure(f"{subject} sent {requests} requests instead of {expected}")
    messages = json.loads(log.last_body)["messages"]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    views = sum(FILE_TEXT[:40] in text for text in results)
    complete = len(results) == workload.steps * (workload.sleeps or 1)
    if not complete or (not workload.sleeps and views != workload.steps):
        raise CannotMeasure(f"{subject} did not send all tool results")
