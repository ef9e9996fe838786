"""Commands on names and scenario files: `list`, `validate`, `show`, `schema`."""

from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import file_name, print_error, print_json, terminal_width
from trae_bench.cli.completion import complete_scenario
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.scenario import Scenario


@click.command("list")
@click.argument("what", type=click.Choice(("scenarios", "toggles", "metrics")), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_names(what: str | None, as_json: bool) -> None:
    """List scenarios, toggles and metrics.

    Profiles in brackets run the scenario by default.

    \b
    Examples:
      trae-bench list scenarios
      trae-bench list metrics --json
    """
    kinds = {"scenarios": _scenarios, "toggles": _toggles, "metrics": _metrics}
    listed = {kind: kinds[kind]() for kind in ([what] if what else kinds)}
    if as_json:
        print_json(listed[what] if what else listed)
        return
    from trae_bench.report.text.listing import names

    if "scenarios" in listed:
        listed["scenarios"] = {
            name: f"{about}{_profiles_of(name)}" for name, about in listed["scenarios"].items()
        }
    for index, (kind, abouts) in enumerate(listed.items()):
        if not what:
            click.echo(("\n" if index else "") + f"{kind}:")
        click.echo(names(abouts, terminal_width()))


def _scenarios() -> dict[str, str]:
    from trae_bench.scenario import catalogue, load

    abouts: dict[str, str] = {}
    for name, path in catalogue().items():
        scenario = load(path)
        abouts[name] = scenario.about
        abouts |= {f"{name}@{variant.name}": variant.about for variant in scenario.variants}
    return abouts


def _profiles_of(name: str) -> str:
    """The profiles that run a scenario by default, in brackets; empty if none does."""
    from trae_bench.model.presets import PROFILES

    profiles = [kind for kind, profile in PROFILES.items() if name in profile.scenarios]
    return f" [{', '.join(profiles)}]" if profiles else ""


def _toggles() -> dict[str, str]:
    from trae_bench.subject.agent_core import toggles

    return dict(toggles())


def _metrics() -> dict[str, str]:
    from trae_bench.metrics import METRICS

    return {
        name: f"{metric.about} ({metric.unit or 'count'}, {metric.better} is better, {metric.mode})"
        for name, metric in METRICS.items()
    }


@click.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", shell_complete=complete_scenario
)
def validate(files: tuple[str, ...]) -> int:
    """Check scenario files for errors.

    Prints the file, line and field of each error, and how to correct it. FILE is a
    path to a .toml file or the name of a shipped scenario.

    \b
    Examples:
      trae-bench validate my-session.toml
      trae-bench validate bugfix fan-out
    """
    from trae_bench.run.planner import lacking

    code = 0
    for file in files:
        try:
            scenarios = _load_checked(file)
        except UsageError as error:
            code = error.exit_code
            for line in str(error).splitlines():
                print_error(f"Error: {line}")
        else:
            variants = len(scenarios) - 1
            also = f", with {variants} variant{'s' * (variants > 1)}" if variants else ""
            click.echo(f"{file_name(file)}: ok{also}")
            if missing := lacking(scenarios[0]):
                print_error(f"Note: {missing}")
    return code


@click.command()
@click.argument("scenario", shell_complete=complete_scenario)
def show(scenario: str) -> None:
    """Print a scenario as a readable dialogue.

    SCENARIO is a name or a path to a .toml file.

    \b
    Examples:
      trae-bench show bugfix
      trae-bench show my-session.toml
    """
    from trae_bench.report.text.scenario import session_text

    click.echo(session_text(_load_checked(scenario)[0], terminal_width()))


@click.command()
@click.argument("kind", type=click.Choice(("agent", "scenario", "run", "settings")))
def schema(kind: str) -> None:
    """Print the JSON schema of a file format.

    \b
    The formats are:
      agent     an agent's entry (.toml)
      scenario  a scenario file (.toml)
      run       a run file (.json)
      settings  the table [tool.trae-bench] of pyproject.toml

    \b
    Examples:
      trae-bench schema scenario
      trae-bench schema run
    """
    from trae_bench.run import settings
    from trae_bench.scenario import json_schema
    from trae_bench.storage import run_file

    schemas = {
        "agent": settings.agent_schema,
        "scenario": json_schema,
        "run": run_file.schema,
        "settings": settings.schema,
    }
    print_json(schemas[kind]())


def _load_checked(name: str) -> "list[Scenario]":
    """A scenario, followed by its variants. Raises `UsageError` if one is invalid."""
    from trae_bench.run.planner import check_names
    from trae_bench.scenario import find, load, split

    path = find(name)
    first = load(path, split(name)[1])
    scenarios = [first, *(load(path, variant.name) for variant in first.variants)]
    for scenario in scenarios:
        check_names(scenario, path)
    return scenarios
