"""The command `interactive`: one session after another."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from agent_core.cli.group import print_error
from agent_core.cli.options import prepared, with_session, with_settings, workspace_of
from agent_core.cli.run import Session, default_record, play
from agent_core.errors import AgentError

_HELP = """\
Type a task to work on it. Each task is a session of its own.
  status      show the provider, the model, the folder and the config file
  clear       clear the screen
  exit, quit  end"""


@click.command()
@with_settings
@with_session
def interactive(
    config: Path | None,
    workspace: Path | None,
    working_dir: Path | None,
    trajectory: Path | None,
    no_trajectory: bool,
    unconfined: bool,
    quiet: bool,
    stream: bool | None,
    console: str | None,
    switches: dict[str, bool],
    **options: Any,
) -> None:
    """Ask for tasks and work on each of them.

    `help` lists the commands. An interrupted task does not end the program.
    """
    if no_trajectory and trajectory is not None:
        raise click.UsageError("Give either --trajectory or --no-trajectory.")
    setup = prepared(config, switches, stream=stream, **options)
    folder = workspace_of(workspace, working_dir)
    session = Session(setup, folder, unconfined, quiet, console)
    print_error("Type a task, or help.")
    number = 0
    while (line := _asked()) is not None:
        word = line.strip().lower()
        if word in ("exit", "quit"):
            break
        if word == "help":
            print_error(_HELP)
        elif word == "status":
            print_error(_status(session))
        elif word == "clear":
            click.clear()
        elif word:
            number += 1
            _work(line, session, None if no_trajectory else _record(trajectory, number))


def _asked() -> str | None:
    """The next line, or None at the end of the input."""
    if sys.stdin is not None and sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 - editing and history for `input`
    while True:
        try:
            return input("> ")
        except EOFError:
            return None
        except KeyboardInterrupt:
            print_error("\nType exit to end.")


def _record(trajectory: Path | None, number: int) -> Path:
    """A trajectory file of its own for each task."""
    if trajectory is None:
        return default_record()
    return trajectory if number == 1 else trajectory.with_stem(f"{trajectory.stem}-{number}")


def _work(task: str, session: Session, record: Path | None) -> None:
    try:
        play(task, session, record)
    except AgentError as error:  # the next task may do better
        print_error(f"Error: {error}")


def _status(session: Session) -> str:
    settings = session.setup.settings
    return "\n".join(
        (
            f"Provider: {settings.default_provider}",
            f"Model: {settings.model_parameters.model or 'none'}",
            f"Tools: {', '.join(settings.tools)}",
            f"Config file: {session.setup.path or 'none'}",
            f"Folder: {session.workspace.resolve()}",
        )
    )
