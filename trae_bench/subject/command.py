"""Runs any agent as a subject, by its command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trae_bench.errors import CannotMeasure
from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.scenario import Scenario

PLACEHOLDERS = ("base_url", "task", "workspace", "home", "report_fd")
"""Placeholders that are replaced in arguments and environment values, in braces."""


class CommandSubject:
    """Runs `argv` in the session's workspace after replacing its placeholders.

    {base_url}    URL of the provider's API
    {task}        the task of the scenario
    {workspace}   working folder
    {home}        home folder
    {report_fd}   file descriptor to which the agent writes a `ChildReport` in JSON

    An agent that does not use `{report_fd}` succeeds if its exit status is 0. Its metrics are
    those observed from outside. `env` is added to the environment of every trial, which does
    not include the user's. One process runs one session: `command` raises `CannotMeasure` for a
    scenario with several.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        if not argv:
            raise ValueError("argv is empty: a command line without a command")
        self._argv = tuple(argv)
        self._env = dict(env or {})

    @property
    def reports(self) -> bool:
        """True if an argument or environment value contains `{report_fd}`."""
        return any("{report_fd}" in text for text in (*self._argv, *self._env.values()))

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        if len(endpoints) > 1 or not scenario.subject.has_session:
            raise CannotMeasure(
                f"{scenario.name} cannot run with a command line; use scenarios of one session"
            )
        base_url, workspace = endpoints[0].base_url, endpoints[0].workspace
        task = scenario.task.replace("{workspace}", workspace)
        values = (base_url, task, workspace, str(home), str(report_fd))
        names = dict(zip(PLACEHOLDERS, values, strict=True))
        return Command(
            argv=tuple(_filled(text, names) for text in self._argv),
            env={name: _filled(text, names) for name, text in self._env.items()},
            cwd=workspace,
        )


def _filled(text: str, names: Mapping[str, str]) -> str:
    # A single pass, so that placeholders inside a replaced value are not replaced. Other
    # braces, such as JSON in an argument, stay.
    parts = text.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        filled.append(names[name] + rest if brace and name in names else "{" + part)
    return "".join(filled)
