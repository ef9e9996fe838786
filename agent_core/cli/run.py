"""The command `run`, and what `interactive` shares with it: one session with its view."""

import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from agent_core.cli.group import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCESS, print_error
from agent_core.cli.options import Setup, prepared, with_session, with_settings, workspace_of
from agent_core.errors import ConfigError

if TYPE_CHECKING:
    from agent_core.agent import Objection
    from agent_core.cli.views import JsonView, LineView
    from agent_core.messages import Outcome
    from agent_core.patches import Patch


class Session(NamedTuple):
    """What the sessions of one command have in common."""

    setup: Setup
    workspace: Path
    unconfined: bool
    quiet: bool
    console: str | None
    """`simple`, `rich`, or None for a view that suits the output."""
    as_json: bool = False


@click.command()
@click.argument("task", required=False)
@click.option(
    *("--file", "-f", "task_file"),
    type=click.File(encoding="utf-8"),
    help="Read the task from a file, or from standard input with '-'.",
)
@with_settings
@with_session
@click.option("--json", "as_json", is_flag=True, help="Print every event as a line of JSON.")
@click.option(
    *("--patch-path", "-pp"),
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what differs from the last commit to this file, as a patch.",
)
@click.option(
    "--must-patch", "-mp", is_flag=True, help="Go on while nothing but tests has changed."
)
def run(
    task: str | None,
    task_file: Any,
    config: Path | None,
    workspace: Path | None,
    working_dir: Path | None,
    trajectory: Path | None,
    no_trajectory: bool,
    unconfined: bool,
    quiet: bool,
    stream: bool | None,
    console: str | None,
    as_json: bool,
    patch_path: Path | None,
    must_patch: bool,
    switches: dict[str, bool],
    **options: Any,
) -> None:
    """Work on TASK in the workspace.

    Prints the answer to standard output and one line per call to standard error. Exit
    codes: 0 success, 1 the session failed, 2 wrong usage or configuration, 130 interrupted
    (the trajectory is still complete).
    """
    if (task is None) == (task_file is None):
        raise click.UsageError("Give either a TASK or --file.")
    if no_trajectory and trajectory is not None:
        raise click.UsageError("Give either --trajectory or --no-trajectory.")
    setup = prepared(config, switches, stream=stream, **options)
    text = _text_of(task_file) if task is None else task
    if not text.strip():
        raise click.UsageError("The task is empty. Describe it in TASK or in the --file.")
    folder = workspace_of(workspace, working_dir)
    record = None if no_trajectory else trajectory or default_record()
    patch = _patch(folder, patch_path, record) if patch_path or must_patch else None
    session = Session(setup, folder, unconfined, quiet, console, as_json)
    objection = _must_patch(patch) if patch is not None and must_patch else None
    outcome = play(text, session, record, objection)
    if patch is not None and patch_path is not None:
        _write_patch(patch_path, patch)
    raise SystemExit(exit_code(outcome))


def _text_of(task_file: Any) -> str:
    """The contents of `task_file`. Raises `click.BadParameter`."""
    try:
        return str(task_file.read())
    except UnicodeDecodeError:
        message = f"{task_file.name!r} is not UTF-8; save it as UTF-8."
        raise click.BadParameter(message, param_hint="'--file'") from None


def default_record() -> Path:
    from agent_core.trajectory_format import default_path

    return default_path()


# ------------------------------------------------------------------------------ patches


def _patch(workspace: Path, path: Path | None, record: Path | None) -> "Patch":
    from agent_core.patches import Patch

    return Patch(workspace, [file for file in (path, record) if file is not None])


def _must_patch(patch: "Patch") -> "Objection":
    import asyncio

    async def objection() -> str | None:
        if await asyncio.to_thread(patch.has_work):
            return None
        return "The patch is empty: nothing but tests differs from the last commit. Solve the task."

    return objection


def _write_patch(path: Path, patch: "Patch") -> None:
    try:
        path.write_bytes(patch.text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from None
    print_error(f"Patch: {path}")


# ------------------------------------------------------------------------------ sessions


def play(
    task: str, session: Session, record: Path | None, objection: "Objection | None" = None
) -> "Outcome | None":
    """Runs one session, shows it and prints its outcome. None means interrupted."""
    from agent_core.build import run_task

    setup, view = session.setup, _view(session)
    outcome = _run_until_signal(
        run_task(
            task,
            settings=setup.settings,
            workspace=session.workspace,
            trajectory=record,
            toggles=setup.toggles,
            view=view,
            objection=objection,
            redactor=setup.redactor,
            confined=not session.unconfined,
        )
    )
    if record is not None and record.exists():
        print_error(f"Trajectory: {record}")
    _print_outcome(outcome, session, view)
    return outcome


def exit_code(outcome: "Outcome | None") -> int:
    if outcome is None:
        return EXIT_INTERRUPTED
    return EXIT_SUCCESS if outcome.success else EXIT_FAILED


def _run_until_signal(work: "Coroutine[Any, Any, Outcome]") -> "Outcome | None":
    """The outcome, or None after SIGINT, SIGTERM or SIGHUP.

    The first signal cancels the work, which then cleans up. A second signal ends the process.
    """
    import asyncio
    import signal

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it
        numbers.append(signal.SIGHUP)

    async def supervised() -> "Outcome | None":
        loop = asyncio.get_running_loop()
        session = asyncio.ensure_future(work)

        def stop() -> None:
            for number in numbers:
                loop.remove_signal_handler(number)
            session.cancel()

        for number in numbers:
            loop.add_signal_handler(number, stop)
        try:
            return await session
        except asyncio.CancelledError:
            return None

    return asyncio.run(supervised())


def _print_outcome(
    outcome: "Outcome | None", session: Session, view: "JsonView | LineView | None"
) -> None:
    from agent_core.cli.views import JsonView, harmless, steps

    redactor = session.setup.redactor
    if session.as_json:
        JsonView(click.echo, redactor).outcome(outcome)
    if outcome is None:
        print_error("Interrupted.")
        return
    shown = session.as_json or (
        getattr(view, "shows_result", False) and _on_terminal(sys.stdout, sys.stderr)
    )
    if outcome.final_text and not shown:
        text = redactor.text(outcome.final_text)
        click.echo(harmless(text) if _on_terminal(sys.stdout) else text)
    if not outcome.success:
        reason = outcome.error or f"stopped by {outcome.stop} after {steps(outcome.steps)}"
        print_error(harmless(redactor.text(f"Failed: {reason}")))


def _on_terminal(*streams: TextIO | None) -> bool:
    """Whether all streams are terminals. A closed one is None (`2>&-`)."""
    return all(stream is not None and stream.isatty() for stream in streams)


def _view(session: Session) -> "JsonView | LineView | None":
    """The view that suits the options and the output."""
    from agent_core.cli.views import JsonView, LineView, Totals
    from agent_core.providers import PROVIDERS

    setup = session.setup
    if session.as_json and not session.quiet:
        return JsonView(click.echo, setup.redactor)
    if session.quiet or session.as_json:
        return None
    entry = setup.settings.model_parameters
    protocol = entry.protocol or PROVIDERS[setup.settings.provider_kind].protocol
    totals = Totals(entry.prices, cache_is_extra=protocol == "anthropic_messages")
    terminal = _on_terminal(sys.stderr)
    dumb = os.environ.get("TERM") in (None, "dumb", "unknown")
    wanted = terminal and not dumb if session.console is None else session.console == "rich"
    if wanted:
        try:
            from rich.console import Console

            from agent_core.cli.rich_view import RichView
        except ModuleNotFoundError as error:
            if session.console == "rich":
                install = "pip install 'trae-bench[rich]'"
                raise ConfigError(f"--console-type rich needs {error.name}: {install}") from None
        else:
            return RichView(Console(stderr=True), setup.redactor, totals)
    colours = terminal and "NO_COLOR" not in os.environ
    return LineView(print_error, setup.redactor, totals, colours=colours)
