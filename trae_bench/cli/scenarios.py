"""Commands on names and scenario files: `list`, `validate`, `show`, `record`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, file_name, print_json, tell, terminal_width, write
from trae_bench.errors import ScenarioError, UsageError

if TYPE_CHECKING:
    from trae_bench.scenario import Scenario


@click.command("list")
@click.argument("what", type=click.Choice(("scenarios", "toggles", "metrics")), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_names(what: str | None, as_json: bool) -> None:
    """List scenarios, toggles and metrics.

    All three where none is named. Behind a scenario stand the profiles of `run` that
    take it where no scenario is named.

    \b
    Examples:
      trae-bench list scenarios
      trae-bench list metrics --json
    """
    kinds = {"scenarios": _scenarios, "toggles": _toggles, "metrics": _metrics}
    found = {kind: kinds[kind]() for kind in ([what] if what else kinds)}
    if as_json:
        print_json(found[what] if what else found)
        return
    from trae_bench.report.text.listing import names

    if "scenarios" in found:
        found["scenarios"] = {
            name: f"{about}{_taken_by(name)}" for name, about in found["scenarios"].items()
        }
    for number, (kind, of_kind) in enumerate(found.items()):
        if not what:
            click.echo(("\n" if number else "") + f"{kind}:")
        click.echo(names(of_kind, terminal_width()))


def _scenarios() -> dict[str, str]:
    from trae_bench.scenario import catalogue, load

    found: dict[str, str] = {}
    for name, path in catalogue().items():
        scenario = load(path)
        found[name] = scenario.about
        found |= {f"{name}@{each.name}": each.about for each in scenario.variants}
    return found


def _taken_by(name: str) -> str:
    """The profiles that run a scenario unasked, in brackets; empty where none does."""
    from trae_bench.model.presets import PROFILES

    found = [kind for kind, profile in PROFILES.items() if name in profile.scenarios]
    return f" [{', '.join(found)}]" if found else ""


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
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...]) -> int:
    """Check scenario files.

    Says what is wrong with file, line, path and remedy. A FILE may be the name of a shipped
    scenario, too.

    \b
    Examples:
      trae-bench validate my-session.toml
      trae-bench validate bugfix fan-out
    """
    from trae_bench.run.planner import lacking

    code = 0
    for file in files:
        try:
            found = _checked(file)
        except UsageError as error:
            code = error.exit_code
            for line in str(error).splitlines():
                tell(f"Error: {line}")
        else:
            variants = len(found) - 1
            also = f", with {variants} variant{'s' * (variants > 1)}" if variants else ""
            click.echo(f"{file_name(file)}: ok{also}")
            if lost := lacking(found[0]):
                tell(f"Note: {lost}")
    return code


@click.command()
@click.argument("scenario")
def show(scenario: str) -> None:
    """Print a session as a person would read it.

    A SCENARIO is a name, or a path to a .toml file.

    \b
    Examples:
      trae-bench show bugfix
      trae-bench show my-session.toml
    """
    from trae_bench.report.text.scenario import session_text

    click.echo(session_text(_checked(scenario)[0], terminal_width()))


@click.command()
@click.argument("trajectory", type=FILE)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Scenario file to write; its name without .toml is the scenario's.",
)
@click.option("--workspace", default="", metavar="PATH", help="Folder that the session worked in.")
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="What lay in it at the start: text files, taken into the scenario.",
)
@click.option("--force", is_flag=True, help="Overwrite the scenario file.")
def record(trajectory: Path, out: Path, workspace: str, files: Path | None, force: bool) -> None:
    """Turn a recorded session into a scenario.

    TRAJECTORY is the file that agent-core or Trae Agent wrote.

    \b
    Examples:
      trae-bench record trajectory.json --files start/ --out my-session.toml
      trae-bench run my-session.toml --plan
    """
    from trae_bench.run.planner import check_names
    from trae_bench.scenario.importers.trae_trajectory import read_trajectory, recorded, text_files
    from trae_bench.subject.agent_core import toggles

    if out.suffix != ".toml":
        raise UsageError(f"{out}: a scenario file is called NAME.toml")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; name another file with --out, or give --force")
    recording = recorded(
        read_trajectory(trajectory),
        out.stem,
        toggles=tuple(toggles()),
        workspace=workspace,
        files=text_files(files) if files else None,
    )
    write(out, [recording.text])
    for note in recording.notes:
        tell(f"Note: {note}")
    try:
        check_names(recording.scenario, out)
    except ScenarioError as error:
        # The agent that was recorded may have had other tools, and its model may have slipped.
        tell(f"Note: to be mended before it can be run:\n{error}")
    click.echo(f"{file_name(out)}: {len(recording.scenario.turns)} turns")


def _checked(asked: str) -> "list[Scenario]":
    """The scenario that is asked for, then its variants. Raises `UsageError`."""
    from trae_bench.run.planner import check_names
    from trae_bench.scenario import find, load, split

    path = find(asked)
    first = load(path, split(asked)[1])
    found = [first, *(load(path, variant.name) for variant in first.variants)]
    for scenario in found:
        check_names(scenario, path)
    return found
