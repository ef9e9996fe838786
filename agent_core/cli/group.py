"""The group of commands: help, exit codes and error output."""

import sys
from importlib import import_module
from typing import Any, NoReturn

import click

import agent_core
from agent_core.errors import AgentError, ConfigError, MissingDependencyError

EXIT_SUCCESS = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_EXAMPLES = """\b
Examples:
  export ANTHROPIC_API_KEY=...
  agent-core run "Fix the failing test" --provider anthropic --model claude-sonnet-4-20250514
  agent-core run -f task.md --config trae_config.yaml --trajectory session.json
  agent-core run "Say hello" --base-url http://localhost:8000/v1 --model local --json
  agent-core run "Tidy up" --toggle parallel_tools=off --toggle lazy_tools=off
  agent-core doctor
"""


_COMMANDS = {
    "run": "agent_core.cli.run:run",
    "interactive": "agent_core.cli.interactive:interactive",
    "show-config": "agent_core.cli.reports:show_config",
    "tools": "agent_core.cli.reports:tools",
    "doctor": "agent_core.cli.reports:doctor",
    "recover": "agent_core.cli.reports:recover",
}


class _Commands(click.Group):
    """Turns an `AgentError` into one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:  # click does not handle a full disk behind `> file`
            print_error(f"Error: {error.filename or 'the output'}: {error.strerror or error}")
            sys.stdout = None  # see `print_error`
            raise SystemExit(EXIT_FAILED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # outside a session; a session handles signals itself
            print_error("Interrupted.")
            raise SystemExit(EXIT_INTERRUPTED) from None
        except (ConfigError, MissingDependencyError) as error:
            _exit_with(error, EXIT_USAGE)
        except AgentError as error:
            _exit_with(error, EXIT_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command, because a session needs no module of the others."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


def _exit_with(error: AgentError, code: int) -> NoReturn:
    print_error(f"Error: {error}")
    raise SystemExit(code)


def print_error(text: str, *, end: str = "\n") -> None:
    """Prints on standard error. Ignores a closed reader (`2>&1 | head`)."""
    try:
        click.echo(f"{text}{end}", err=True, nl=False)
    except OSError:
        # Otherwise Python flushes it again at exit and returns exit code 120.
        sys.stderr = None


@click.group(
    cls=_Commands,
    epilog=_EXAMPLES,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(agent_core.__version__, prog_name="agent-core")
def main() -> None:
    """A small, fast agent. It works on a task in a folder, with a model and tools.

    Settings come from the command line, then the environment, then the config file.
    API keys come from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GOOGLE_API_KEY, ...),
    the file .env in the current folder, or the config file. There is no option for a key, because
    other users can read command lines.
    """
