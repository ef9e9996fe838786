"""The command line: `agent-core run | show-config | tools | doctor | recover`.

Only this module prints and exits. Commands import slow modules themselves, so that
`--help` is fast.

Exit codes: 0 success, 1 the session failed, 2 wrong usage or configuration,
130 interrupted.
"""

import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import agent_core
from agent_core.errors import AgentError, ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from agent_core.config import Settings
    from agent_core.messages import Message, Outcome, Reply, ToolResult, Usage
    from agent_core.redaction import Redactor
    from agent_core.toggles import Toggles

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


class _Commands(click.Group):
    """Turns an `AgentError` into one sentence and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:  # click does not handle a full disk behind `> file`
            _print_error(f"Error: {error.filename or 'the output'}: {error.strerror or error}")
            sys.stdout = None  # see `_print_error`
            raise SystemExit(EXIT_FAILED) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # outside a session; a session handles signals itself
            _print_error("Interrupted.")
            raise SystemExit(EXIT_INTERRUPTED) from None
        except (ConfigError, MissingDependencyError) as error:
            _exit_with(error, EXIT_USAGE)
        except AgentError as error:
            _exit_with(error, EXIT_FAILED)


def _exit_with(error: AgentError, code: int) -> NoReturn:
    _print_error(f"Error: {error}")
    raise SystemExit(code)


def _print_error(text: str) -> None:
    """Prints a line on standard error. Ignores a closed reader (`2>&1 | head`)."""
    try:
        click.echo(text, err=True)
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
    API keys come from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, GOOGLE_API_KEY, ...)
    or the config file. There is no option for a key, because other users can read command lines.
    """


# ---------------------------------------------------------------------------- options


def _parse_toggles(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, bool]:
    """Parses `("lazy_tools=off",)` to `{"lazy_tools": False}`."""
    if not values:
        return {}
    from agent_core.config import suggestion
    from agent_core.toggles import Toggles

    switches = {}
    for value in values:
        name, equals, word = value.partition("=")
        if not equals or word not in ("on", "off"):
            raise click.BadParameter(f"{value!r} is not NAME=on or NAME=off.")
        if name not in Toggles.names():
            known = ", ".join(Toggles.names())
            raise click.BadParameter(
                f"No toggle {name!r}.{suggestion(name, Toggles.names())} Known: {known}."
            )
        switches[name] = word == "on"
    return switches


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that change settings."""
    for option in (
        click.option(
            "--toggle",
            "switches",
            multiple=True,
            metavar="NAME=on|off",
            callback=_parse_toggles,
            help="Set a toggle; `agent-core doctor` lists them. Repeatable.",
        ),
        click.option("--max-steps", type=click.IntRange(min=1), help="Maximum number of steps."),
        click.option("--base-url", metavar="URL", help="Address of the provider."),
        click.option("--model", "-m", metavar="NAME", help="Model to use."),
        click.option("--provider", "-p", metavar="NAME", help="Provider to use."),
        click.option(
            "--config",
            "-c",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Config file, JSON or YAML. Default: TRAE_CONFIG_FILE, then trae_config.yaml,"
            " .yml or .json in the current folder.",
        ),
    ):
        command = option(command)
    return command


def _effective_settings(
    config: Path | None, switches: Mapping[str, bool], **options: Any
) -> "tuple[Path | None, Settings, Toggles]":
    """The config file, the settings and the toggles of this invocation."""
    from agent_core.build import check_known_names, effective_toggles, load_settings
    from agent_core.config import Overrides, effective_settings
    from agent_core.config_file import find_config_file

    path = config or find_config_file(os.environ, Path.cwd())
    loaded = load_settings(path, os.environ, switches)
    settings = effective_settings(loaded, os.environ, Overrides(**options))
    check_known_names(settings, path, requested=options["provider"])
    return path, settings, effective_toggles(settings, switches)


# -------------------------------------------------------------------------------- run


@main.command()
@click.argument("task", required=False)
@click.option(
    "--file",
    "-f",
    "task_file",
    type=click.File(encoding="utf-8"),
    help="Read the task from a file, or from standard input with '-'.",
)
@_with_settings
@click.option(
    "--workspace",
    "-w",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=".",
    help="Folder to work in. Default: the current folder.",
)
@click.option(
    "--trajectory",
    "-t",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Trajectory file. Default: trajectories/trajectory_TIME.json.",
)
@click.option("--no-trajectory", is_flag=True, help="Write no trajectory.")
@click.option("--unconfined", is_flag=True, help="Let file tools leave the workspace.")
@click.option("--quiet", "-q", is_flag=True, help="Print no line per step.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def run(
    task: str | None,
    task_file: Any,
    config: Path | None,
    workspace: Path,
    trajectory: Path | None,
    no_trajectory: bool,
    unconfined: bool,
    quiet: bool,
    as_json: bool,
    switches: dict[str, bool],
    **options: Any,
) -> None:
    """Work on TASK in the workspace.

    Prints the answer to standard output and one line per step to standard error. Exit
    codes: 0 success, 1 the session failed, 2 wrong usage or configuration, 130 interrupted
    (the trajectory is still complete).
    """
    if (task is None) == (task_file is None):
        raise click.UsageError("Give either a TASK or --file.")
    if no_trajectory and trajectory is not None:
        raise click.UsageError("Give either --trajectory or --no-trajectory.")
    from agent_core.build import redactor_for, run_task
    from agent_core.trajectory_format import default_path

    _, settings, toggles = _effective_settings(config, switches, **options)
    text = _text_of(task_file) if task is None else task
    if not text.strip():
        raise click.UsageError("The task is empty. Describe it in TASK or in the --file.")
    redactor = redactor_for(settings)
    record = None if no_trajectory else trajectory or default_path()
    outcome = _run_until_signal(
        run_task(
            text,
            settings=settings,
            workspace=workspace,
            trajectory=record,
            toggles=toggles,
            listener=None if quiet else _StepPrinter(redactor),
            confined=not unconfined,
        )
    )
    _print_outcome(outcome, record, redactor, as_json=as_json)


def _text_of(task_file: Any) -> str:
    """The contents of `task_file`. Raises `click.BadParameter`."""
    try:
        return str(task_file.read())
    except UnicodeDecodeError:
        message = f"{task_file.name!r} is not UTF-8; save it as UTF-8."
        raise click.BadParameter(message, param_hint="'--file'") from None


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
    outcome: "Outcome | None", record: Path | None, redactor: "Redactor", *, as_json: bool
) -> NoReturn:
    import msgspec

    if record is not None and record.exists():
        _print_error(f"Trajectory: {record}")
    if outcome is None:
        _print_error("Interrupted.")
        raise SystemExit(EXIT_INTERRUPTED)
    if as_json:
        click.echo(msgspec.json.encode(redactor.tree(msgspec.to_builtins(outcome))))
    elif outcome.final_text:
        click.echo(redactor.text(outcome.final_text))
    if not outcome.success:
        reason = outcome.error or f"stopped by {outcome.stop} after {outcome.steps} steps"
        _print_error(redactor.text(f"Failed: {reason}"))
    raise SystemExit(EXIT_SUCCESS if outcome.success else EXIT_FAILED)


class _StepPrinter:
    """Prints a line per step on standard error. Satisfies `ports.Recorder`."""

    def __init__(self, redactor: "Redactor") -> None:
        self._redactor = redactor

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        self._line(f"{provider} {model}, at most {max_steps} steps", dim=True)

    def interaction(
        self, new_messages: "Sequence[Message]", reply: "Reply", tools: Sequence[str]
    ) -> None:
        """Prints nothing: `step` has the same information."""

    def step(
        self,
        number: int,
        state: str,
        messages: "Sequence[Message]",
        reply: "Reply | None",
        results: "Sequence[ToolResult]",
        error: str | None = None,
    ) -> None:
        names = [f"{r.name}{'' if r.ok else ' (failed)'}" for r in results]
        if reply and not results:  # the calls of a `task_done` reply are not run
            names = [call.name for call in reply.message.calls]
        tokens = f"  {_tokens(reply.usage)}" if reply else ""
        summary = error or ", ".join(names) or state
        failed = bool(error) or any(not r.ok for r in results)
        self._line(f"step {number}: {summary}{tokens}", fg="yellow" if failed else None)

    async def finish(self, success: bool, final_result: str | None) -> None:
        self._line("done" if success else "not done", fg="green" if success else "red")

    def _line(self, text: str, **style: Any) -> None:
        text = self._redactor.text(text)
        # `sys.stderr` is None if it is closed (`2>&-`).
        plain = "NO_COLOR" in os.environ or not (sys.stderr and sys.stderr.isatty())
        _print_error(text if plain else click.style(text, **style))


def _tokens(usage: "Usage") -> str:
    read = usage.cache_read_input_tokens
    cached = f", {read} from the cache" if read else ""
    return f"{usage.input_tokens}+{usage.output_tokens} tokens{cached}"


# --------------------------------------------------------------------------- reports


@main.command("show-config")
@_with_settings
def show_config(config: Path | None, switches: dict[str, bool], **options: Any) -> None:
    """Show the effective settings as JSON, with keys masked."""
    import msgspec

    path, settings, toggles = _effective_settings(config, switches, **options)
    shown = {
        "file": None if path is None else str(path),
        "settings": _without_keys(settings),
        "toggles": toggles.as_dict(),
    }
    click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2))


def _without_keys(settings: "Settings") -> dict[str, Any]:
    import msgspec

    from agent_core.config import masked, strip_credentials

    shown: dict[str, Any] = msgspec.to_builtins(settings)
    for entry in shown["model_providers"].values():
        entry["api_key"] = masked(entry["api_key"])
        entry.pop("replaced", None)
        entry["base_url"] = entry["base_url"] and strip_credentials(entry["base_url"])
    return shown


@main.command()
def tools() -> None:
    """List the tools with a short description."""
    from agent_core.tools import TOOLS

    width = max(map(len, TOOLS))
    for name, entry in TOOLS.items():
        click.echo(f"{name:<{width}}  {entry.spec.description.partition('. ')[0].rstrip('.')}.")


@main.command(short_help="Report on configuration, cache, dependencies and tools.")
@_with_settings
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(config: Path | None, switches: dict[str, bool], as_json: bool, **options: Any) -> None:
    """Report on configuration, cache, dependencies, connections, tools and toggles.

    Connection and tool statistics are those of this process, which has just started. Exits
    with 2 if the configuration is invalid.
    """
    from agent_core.config import Overrides
    from agent_core.config_file import find_config_file
    from agent_core.diagnosis import diagnose

    path = config or find_config_file(os.environ, Path.cwd())
    report = diagnose(path, os.environ, switches, Overrides(**options))
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        click.echo("\n".join(_report_lines(report)))
    if report["configuration"]["problem"]:
        raise SystemExit(EXIT_USAGE)


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    configuration, cache = report["configuration"], report["configuration_cache"]
    dependencies, pool = report["dependencies"], report["connection_pool"]
    tools, keys = report["tools"], [name for name, found in report["keys"].items() if found]
    sections: dict[str, list[str]] = {
        f"agent-core {report['version']} on Python {report['python']}": [],
        "Configuration": [
            f"File: {configuration['file'] or 'none'}",
            f"Config load: {configuration['load_ms']}ms",
            f"Provider: {configuration['provider']}, model: {configuration['model'] or 'none'}",
            f"Keys found: {', '.join(keys) or 'none'}",
            *([f"Problem: {configuration['problem']}"] if configuration["problem"] else []),
        ],
        "Configuration cache": [
            f"Folder: {cache['folder']} ({cache['disk_entries']} entries)",
            f"Hit rate: {cache['hit_rate_percent']}%",
            f"Cache size: {cache['cache_size']}",
        ],
        "Dependencies (SDKs are needed only with native_client=off)": [
            f"Available: {', '.join(dependencies['available_providers']) or 'none'}",
            f"Missing: {', '.join(dependencies['missing_providers']) or 'none'}",
            *sorted(set(dependencies["installation_commands"].values())),
        ],
        "Connection pool": [
            f"HTTP/2: {'possible' if pool['http2_possible'] else 'not possible; install h2'}",
            f"Total requests: {pool['total_requests']}",
            f"Connection reuse rate: {pool['connection_reuse_rate_percent']}%",
            f"Average request time: {pool['average_request_time_ms']}ms",
        ],
        "Tools": [
            f"Available: {tools['loading_performance']['available_tools']}",
            f"Loaded: {tools['loading_performance']['instantiated_tools']}",
            f"Loading efficiency: {tools['loading_performance']['load_efficiency_percent']}%",
        ],
        "Toggles (off | on)": [
            f"{name:<20} {'on ' if toggle['on'] else 'off'}  {toggle['about']}"
            for name, toggle in report["toggles"].items()
        ],
    }
    return [
        text
        for title, lines in sections.items()
        for text in (title, *(f"  {line}" for line in lines), "")
    ]


@main.command(short_help="Make a trajectory from a killed session's journal.")
@click.argument("journal", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Trajectory file. Default: next to the journal.",
)
def recover(journal: Path, output: Path | None) -> None:
    """Make a trajectory from the JOURNAL (.jsonl) of a killed session."""
    from agent_core import trajectory_recorder

    click.echo(trajectory_recorder.recover(journal, output))
