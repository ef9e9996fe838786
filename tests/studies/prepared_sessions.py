"""Sessions as plain shell commands, for tools that know nothing about trae-bench.

A prepared session has a workspace and a script that is registered at a running provider. The
command takes the next prepared session and replaces itself with the process that trae-bench would
start, with the same arguments, environment and folder. It adds one shell and one rename, the same
on both sides. The tools need no setup hook, and no preparation takes place while they measure.
"""

import json
import shlex
import shutil
from pathlib import Path

from tests.studies.harness import LoadedAgent
from trae_bench._util.child_env import environment
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import REPORT_FD
from trae_bench.execution.workspace import lay_out
from trae_bench.model.experiment import Arm, SessionEndpoint, Trial
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.scenario import Scenario

_TAKE = """\
for session in "$1"/ready/*; do
  mv "$session" "$1/taken/" && exec sh "$1/taken/${session##*/}"
done
echo "no prepared session is left in $1" >&2
exit 1
"""


class PreparedSessions:
    """The prepared sessions of one arm, in a separate folder."""

    def __init__(self, provider: Loopback, scenario: Scenario, arm: Arm, folder: Path) -> None:
        self._provider = provider
        self._scenario = scenario
        self._arm = arm
        self._folder = folder
        self._agent = LoadedAgent(folder / "ledger")
        self._sessions: list[str] = []
        for name in ("ready", "taken"):
            (folder / name).mkdir(parents=True)
        (folder / "take.sh").write_text(_TAKE)

    @property
    def argv(self) -> list[str]:
        """Command that runs one session. It exits with status 1 if none is left."""
        return ["sh", str(self._folder / "take.sh"), str(self._folder)]

    def prepare(self, count: int) -> None:
        for _ in range(count):
            self._prepare(f"{self._folder.name}-{len(self._sessions):05}")

    def _prepare(self, session: str) -> None:
        folder = self._folder / session
        home, workspace = folder / "home", folder / "workspace"
        (home / "tmp").mkdir(parents=True)
        workspace.mkdir()
        lay_out(self._scenario.workspace, workspace)
        url = self._provider.register(session, expand(self._scenario, workspace))
        self._sessions.append(session)
        trial = Trial(self._scenario.name, "", "serial", 0, "A", 0, self._arm, 0)
        endpoints = [SessionEndpoint(url, str(workspace))]
        command = self._agent.command(trial, self._scenario, endpoints, home, REPORT_FD)
        env = environment(home) | self._provider.environ(session) | command.env
        argv = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *command.argv]
        line = f"cd {shlex.quote(command.cwd)} && exec {shlex.join(argv)}"
        report = shlex.quote(str(folder / "report"))
        (self._folder / "ready" / session).write_text(f"{line} {REPORT_FD}>{report}\n")

    @property
    def used(self) -> int:
        return len(list((self._folder / "taken").iterdir()))

    def check(self) -> None:
        """Raise `CannotMeasure` if a session that was started did not succeed."""
        for session in sorted(path.name for path in (self._folder / "taken").iterdir()):
            report = self._folder / session / "report"
            text = report.read_text() if report.exists() else ""
            if not text or not json.loads(text)["success"]:
                raise CannotMeasure(f"{session}: the session did not succeed: {text[:500]}")

    def remove(self) -> None:
        """Remove all sessions and their folder."""
        for session in self._sessions:
            self._provider.collect(session)
        shutil.rmtree(self._folder)
