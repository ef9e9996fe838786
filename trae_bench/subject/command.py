"""Any agent as a subject, by its command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trae_bench.errors import CannotMeasure
from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.scenario import Scenario

PLACEHOLDERS = ("base_url", "task", "workspace", "home", "report_fd")
"""What may stand in braces in an argument or an environment value."""


class CommandSubject:
    """Runs `argv` in the session's workspace, its placeholders filled in.

    `{base_url}` is where the agent finds its provider, `{task}` what it is told to do,
    `{workspace}` and `{home}` are its folders. An agent that names `{report_fd}` writes a
    `ChildReport` in JSON to that descriptor; of any other, success is the exit status 0,
    and everything that is seen from outside is measured all the same. `env` is added to
    the environment that every trial gets; the user's own does not reach it.

    One process is one session: `command` raises `CannotMeasure` for a scenario with several.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        if not argv:
            raise ValueError("a command line without a command")
        self._argv = tuple(argv)
        self._env = dict(env or {})

    @property
    def reports(self) -> bool:
        return any("{report_fd}" in text for text in (*self._argv, *self._env.values()))

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        seats: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        if len(seats) > 1 or not scenario.subject.has_session:
            raise CannotMeasure(
                f"{scenario.name} needs more of an agent than a command line can be told; "
                "take scenarios of one session"
            )
        base_url, workspace = seats[0].base_url, seats[0].workspace
        task = scenario.task.replace("{workspace}", workspace)
        values = (base_url, task, workspace, str(home), str(report_fd))
        names = dict(zip(PLACEHOLDERS, values, strict=True))
        return Command(
            argv=tuple(_filled(text, names) for text in self._argv),
            env={name: _filled(text, names) for name, text in self._env.items()},
            cwd=workspace,
        )


def _filled(text: str, names: Mapping[str, str]) -> str:
    # One pass, so that a task which speaks of {workspace} in its own text stays as it is;
    # other braces (JSON in an argument, say) are left alone.
    parts = text.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        filled.append(names[name] + rest if brace and name in names else "{" + part)
    return "".join(filled)
