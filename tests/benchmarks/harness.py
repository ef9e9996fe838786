"""Runs one subject under one load in a fresh process, and says what was seen from outside.

The parts are the laboratory's own: its provider, its launcher, its meters. Subject and
provider share one core, so that a request never waits for another core to wake up.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from tests.benchmarks.floors.conversation import FINISH, opening, tool_message
from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words
from trae_bench._util.cpu_affinity import duet_core
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import REPORT_FD, Job, LauncherClient
from trae_bench.metrics import figures
from trae_bench.model.experiment import Arm, Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport, ProcessResult, SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.scenario import ProviderConditions, Scenario, ScriptedCall, ToggleUse, Turn
from trae_bench.subject.agent_core import AgentCoreSubject, toggles

ROOT = Path(__file__).resolve().parents[2]
NAP = 0.2
"""Seconds that a sleeping tool sleeps."""
FILE_TEXT = "".join(f"{n:02} {'x' * 59}\n" for n in range(33))[:2047] + "\n"
"""What each `view` shows: 2048 bytes."""
_NAP = f"[ -p nap ] || mkfifo nap; read -t {NAP} <> nap || true"
"""Sleeps inside bash: five processes called `sleep` cost 8 ms to start, whoever starts them."""
_PATIENCE = 300.0


class Load(Struct, frozen=True):
    """What a subject is given to do."""

    steps: int
    """Each is one call, to view the file, unless `naps` says otherwise."""
    sessions: int = 1
    """Side by side, in one process, after one that warms it up; that one is not counted."""
    think_seconds: float = 0.0
    naps: int = 0
    """So many calls in each step instead, each of which sleeps; only agent_core has the tool."""

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
            ScriptedCall("bash", {"command": _NAP, "session": f"s{n}"}) for n in range(self.naps)
        ) or (ScriptedCall("str_replace_based_edit_tool", view),)


def _floor(entry: str) -> str:
    module, _, function = entry.partition(":")
    return f"from tests.benchmarks.{module} import {function}; {function}()"


AGENT = "agent_core"
_PREPARED = "raw socket"
"""The one that is given its requests ready-made."""
_SESSIONS: dict[str, str] = {
    _PREPARED: _floor("floors.raw_socket:main"),
    "raw append": _floor("floors.raw_append:main"),
    "httpx": _floor("floors.httpx_history:main"),
    "httpx, own clients": _floor("floors.httpx_history:main_own"),
    AGENT: _floor("agent_sessions:main"),
}
"""What Python is told to run, by the subject's name."""
SUBJECTS = tuple(_SESSIONS)


class _Place(Struct, frozen=True):
    """One session's folder and address."""

    session: str
    workspace: Path
    base_url: str


class Rig:
    """Provider and launcher for a row of runs. Raises `CannotMeasure` where one goes wrong."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch.resolve()
        self._launcher = LauncherClient()
        self._core = duet_core()
        self._reference = AgentCoreSubject()
        self._count = 0
        self._opened: ExitStack

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._provider = opened.enter_context(Loopback(pin=self._core))
            opened.callback(self._launcher.close)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def measure(self, subject: str, load: Load) -> dict[str, float]:
        """The figures of `trae_bench.metrics`, by name."""
        folder = self._scratch / "run"
        shutil.rmtree(folder, ignore_errors=True)
        count = load.sessions + (load.sessions > 1)
        places = [self._place(folder / str(number), load) for number in range(count)]
        command = self._command(subject, load, folder, places)
        ended = self._run(command, folder)
        logs = [self._provider.collect(place.session) for place in places]
        for log in logs:
            check(subject, log, load)
        report = json.loads(ended.report) if ended.report else None
        child = None if report is None else ChildReport(**report)
        return figures(ended, logs[count - load.sessions :], child)

    def _place(self, folder: Path, load: Load) -> _Place:
        workspace = folder / "workspace"
        workspace.mkdir(parents=True)
        (workspace / "file.txt").write_text(FILE_TEXT)
        self._count += 1
        session = f"{self._count:07}"
        base_url = self._provider.register(session, expand(load.scenario(), workspace))
        return _Place(session, workspace, base_url)

    def _command(self, subject: str, load: Load, folder: Path, places: Sequence[_Place]) -> Command:
        home, first = folder / "home", places[0]
        (home / "tmp").mkdir(parents=True)
        if subject == AGENT and len(places) == 1:
            arm = Arm("all", dict.fromkeys(toggles(), True))
            trial = Trial("peers", "", "serial", 0, "A", 0, arm, 0)
            seats = [SessionEndpoint(first.base_url, str(first.workspace))]
            return self._reference.command(trial, load.scenario(), seats, home, REPORT_FD)
        prepared = folder / "prepared"
        if subject == _PREPARED:
            prepared.write_bytes(_prepared(expand(load.scenario(), first.workspace)))
        said = [text for each in places for text in (each.base_url, str(each.workspace))]
        return Command(
            argv=(sys.executable, "-P", "-c", _SESSIONS[subject], str(prepared), *said),
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
        (ended,) = self._launcher.run([job], _PATIENCE)
        if ended.failure is not None:
            raise CannotMeasure(f"{ended.failure}{last_words(folder / 'log')}")
        return ended


def _prepared(script: Script) -> bytes:
    """What `raw_socket` sends: the opening without its end, then each step's own bytes."""
    lines = [json.dumps(opening())[:-2]]
    for turn in script.turns[:-1]:
        calls = [_encoded(call.id, call.name, call.arguments) for call in turn.calls]
        messages: list[dict[str, Any]] = [{"role": "assistant", "tool_calls": calls}]
        messages += [tool_message(call.id, call.arguments["path"]) for call in turn.calls]
        lines.append("".join(f",{json.dumps(message)}" for message in messages))
    return "".join(f"{line}\n" for line in lines).encode()


def _encoded(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def check(subject: str, log: SessionLog, load: Load) -> None:
    """Raises `CannotMeasure` where a session did not do what it was measured for."""
    asked, wanted = len(log.requests), load.steps + 1
    if (asked, log.unexpected) != (wanted, 0):
        raise CannotMeasure(f"{subject} sent {asked} requests and not {wanted}")
    messages = json.loads(log.last_body)["messages"]
    results = [each["content"] for each in messages if each["role"] == "tool"]
    told = sum(FILE_TEXT[:40] in text for text in results)
    if len(results) != load.steps * (load.naps or 1) or (not load.naps and told != load.steps):
        raise CannotMeasure(f"{subject} did not send all results back")
