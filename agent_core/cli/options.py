"""The options that several commands share, and the settings that they give.

Trae Agent's spelling of an option is another name of ours.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent_core.cli.group import print_error

if TYPE_CHECKING:
    from agent_core.config import Settings
    from agent_core.redaction import Redactor
    from agent_core.toggles import Toggles


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


def _refused(reason: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that refuses the option."""

    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            raise click.BadParameter(reason)

    return refuse


_NO_KEYS = (
    "Other users can read command lines. Set a variable such as OPENAI_API_KEY, or put it"
    " into the file .env."
)
_NO_DOCKER = "There is no Docker mode. Start agent-core inside the container."


def _refuse(*names: str, reason: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option of Trae Agent that would do something else here."""
    return click.option(*names, hidden=True, expose_value=False, callback=_refused(reason))


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
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
        click.option(
            *("--base-url", "--model-base-url", "base_url"),
            metavar="URL",
            help="Address of the provider.",
        ),
        click.option("--model", "-m", metavar="NAME", help="Model to use."),
        click.option("--provider", "-p", metavar="NAME", help="Provider to use."),
        click.option(
            *("--config", "--config-file", "-c", "config"),
            type=click.Path(path_type=Path, dir_okay=False),
            help="Config file, JSON or YAML. Default: TRAE_CONFIG_FILE, then trae_config.yaml,"
            " .yml or .json in the current folder.",
        ),
        _refuse("--api-key", "-k", reason=_NO_KEYS),
    ):
        command = option(command)
    return command


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of a session: where it works, what it records and shows."""
    options: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
        click.option(
            *("--console-type", "-ct", "console"),
            type=click.Choice(["simple", "rich"]),
            help="How to show the work. Default: rich on a terminal, if rich is installed.",
        ),
        click.option("--quiet", "-q", is_flag=True, help="Show nothing of the work."),
        click.option("--stream/--no-stream", default=None, help="Ask for streamed replies."),
        click.option("--unconfined", is_flag=True, help="Let file tools leave the workspace."),
        click.option("--no-trajectory", is_flag=True, help="Write no trajectory."),
        click.option(
            *("--trajectory", "--trajectory-file", "-t", "trajectory"),
            type=click.Path(path_type=Path, dir_okay=False),
            help="Trajectory file. Default: a new file in the user's folder for program state.",
        ),
        click.option(
            "--working-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Like --workspace. The folder is made if it is absent.",
        ),
        click.option(
            *("--workspace", "-w"),
            type=click.Path(path_type=Path, file_okay=False, exists=True),
            help="Folder to work in. Default: the current folder.",
        ),
        click.option(
            *("--agent-type", "-at"),
            type=click.Choice(["trae_agent"]),
            hidden=True,
            expose_value=False,
        ),
        *(
            _refuse(name, reason=_NO_DOCKER)
            for name in (
                "--docker-image",
                "--docker-container-id",
                "--dockerfile-path",
                "--docker-image-file",
                "--docker-keep",
            )
        ),
    )
    for option in options:
        command = option(command)
    return command


def workspace_of(workspace: Path | None, working_dir: Path | None) -> Path:
    """The folder of the session. Raises `click.UsageError`."""
    if workspace is not None and working_dir is not None:
        raise click.UsageError("Give either --workspace or --working-dir.")
    if working_dir is not None:
        try:
            working_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{working_dir} cannot be made: {error.strerror}."
            raise click.BadParameter(reason, param_hint="'--working-dir'") from None
    return workspace or working_dir or Path()


class Setup(NamedTuple):
    """What the options, the environment and the config file give."""

    path: Path | None
    """The config file, if any."""
    settings: "Settings"
    toggles: "Toggles"
    redactor: "Redactor"


def environment() -> Mapping[str, str]:
    """The process environment, and `.env` in the current folder."""
    from agent_core.env_file import with_env_file

    return with_env_file(os.environ, Path.cwd())


def prepared(
    config: Path | None, switches: Mapping[str, bool], *, stream: bool | None = None, **options: Any
) -> Setup:
    """The settings of this invocation. Raises `ConfigError`."""
    from msgspec.structs import replace

    from agent_core.build import check_known_names, effective_toggles, load_settings, redactor_for
    from agent_core.config import Overrides, effective_settings
    from agent_core.config_file import find_config_file

    environ = environment()
    path = config or find_config_file(environ, Path.cwd())
    loaded = load_settings(path, environ, switches)
    settings = effective_settings(loaded, environ, Overrides(**options))
    if settings.mcp_servers and config is None and not environ.get("TRAE_CONFIG_FILE"):
        print_error(
            f"{path}: its MCP servers are not started, because the file was only found in the"
            f" current folder. If you trust it, name it: --config {path}"
        )
        settings = replace(settings, mcp_servers={})
    check_known_names(settings, path, requested=options["provider"])
    toggles = effective_toggles(settings, switches)
    if stream is not None:
        settings = settings.with_selected(stream=stream)
    return Setup(path, settings, toggles, redactor_for(settings, environ))
