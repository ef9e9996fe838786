"""The commands that report: `show-config`, `tools`, `doctor`, `recover`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent_core.cli.group import EXIT_USAGE
from agent_core.cli.options import environment, prepared, with_settings

if TYPE_CHECKING:
    from agent_core.config import Settings


@click.command("show-config")
@with_settings
def show_config(config: Path | None, switches: dict[str, bool], **options: Any) -> None:
    """Show the effective settings as JSON, with keys masked."""
    import msgspec

    setup = prepared(config, switches, **options)
    shown = {
        "file": None if setup.path is None else str(setup.path),
        "settings": _without_keys(setup.settings),
        "toggles": setup.toggles.as_dict(),
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
    for server in shown["mcp_servers"].values():
        for field in ("env", "headers"):
            server[field] = {name: masked(value) for name, value in server[field].items()}
        for field in ("url", "http_url"):
            server[field] = server[field] and strip_credentials(server[field])
    return shown


@click.command()
def tools() -> None:
    """List the tools with a short description."""
    from agent_core.tools import TOOLS

    width = max(map(len, TOOLS))
    for name, entry in TOOLS.items():
        click.echo(f"{name:<{width}}  {entry.spec.description.partition('. ')[0].rstrip('.')}.")


@click.command(short_help="Report on configuration, cache, dependencies and tools.")
@with_settings
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(config: Path | None, switches: dict[str, bool], as_json: bool, **options: Any) -> None:
    """Report on configuration, cache, dependencies, connections, tools and toggles.

    Connection and tool statistics are those of this process, which has just started. Exits
    with 2 if the configuration is invalid.
    """
    from agent_core.config import Overrides
    from agent_core.config_file import find_config_file
    from agent_core.diagnosis import diagnose

    environ = environment()
    path = config or find_config_file(environ, Path.cwd())
    report = diagnose(path, environ, switches, Overrides(**options))
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


@click.command(short_help="Make a trajectory from a killed session's journal.")
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
