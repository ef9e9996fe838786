"""One session as a plain command, for tools that know nothing of the laboratory.

A seat is a session that is ready to be played: its workspace laid out, its script registered
at a provider that runs beside. The command takes the next free seat and becomes the very
process that the laboratory would start, with the same arguments, environment and folder; what
it adds is a shell and a rename, the same on both sides. So the tools need no hook to prepare
anything, and nothing is prepared while they measure.
"""

import json
import shlex
import shutil
from pathlib import Path

from tests.studies.harness import BurdenedAgent
from trae_bench._util.child_env import environment
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import REPORT_FD
from trae_bench.execution.workspace import lay_out
from trae_bench.model.experiment import Arm, SessionEndpoint, Trial
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.scenario import Scenario

_TAKE = """\
for seat in "$1"/ready/*; do
  mv "$seat" "$1/taken/" && exec sh "$1/taken/${seat##*/}"
done
echo "no seat is left in $1" >&2
exit 1
"""


class Seats:
    """The seats of one arm, in a folder of their own."""

    def __init__(self, provider: Loopback, scenario: Scenario, arm: Arm, folder: Path) -> None:
        self._provider = provider
        self._scenario = scenario
        self._arm = arm
        self._folder = folder
        self._agent = BurdenedAgent(folder / "ledger")
        self._sessions: list[str] = []
        for name in ("ready", "taken"):
            (folder / name).mkdir(parents=True)
        (folder / "take.sh").write_text(_TAKE)

    @property
    def argv(self) -> list[str]:
        """Plays one session; exit status 1 where no seat is left."""
        return ["sh", str(self._folder / "take.sh"), str(self._folder)]

    def fill(self, count: int) -> None:
        for _ in range(count):
            self._prepare(f"{self._folder.name}-{len(self._sessions):05}")

    def _prepare(self, session: str) -> None:
        place = self._folder / session
        home, workspace = place / "home", place / "workspace"
        (home / "tmp").mkdir(parents=True)
        workspace.mkdir()
        lay_out(self._scenario.workspace, workspace)
        url = self._provider.register(session, expand(self._scenario, workspace))
        self._sessions.append(session)
        trial = Trial(self._scenario.name, "", "serial", 0, "A", 0, self._arm, 0)
        seats = [SessionEndpoint(url, str(workspace))]
        command = self._agent.command(trial, self._scenario, seats, home, REPORT_FD)
        env = environment(home) | self._provider.environ(session) | command.env
        argv = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), *command.argv]
        line = f"cd {shlex.quote(command.cwd)} && exec {shlex.join(argv)}"
        report = shlex.quote(str(place / "report"))
        (self._folder / "ready" / session).write_text(f"{line} {REPORT_FD}>{report}\n")

    @property
    def used(self) -> int:
        return len(list((self._folder / "taken").iterdir()))

    def check(self) -> None:
        """Raises `CannotMeasure` where a session that was begun did not succeed, for then there
        is nothing to compare."""
        for session in sorted(path.name for path in (self._folder / "taken").iterdir()):
            report = self._folder / session / "report"
            text = report.read_text() if report.exists() else ""
            if not text or not json.loads(text)["success"]:
                raise CannotMeasure(f"{session}: the session did not succeed: {text[:500]}")

    def clear(self) -> None:
        """Take all seats away."""
        for session in self._sessions:
            self._provider.collect(session)
        shutil.rmtree(self._folder)
