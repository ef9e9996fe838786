"""Commands on agents: `agents list`, `agents show`, `agents check`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench._util.keys import without_keys
from trae_bench.cli.common import print_json, terminal_width
from trae_bench.cli.completion import complete_agent
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.agent_check import Replay
    from trae_bench.subject.agents.catalog import FoundAgent

AGENT = click.argument("agent", metavar="AGENT", shell_complete=complete_agent)


@click.group()
def agents() -> None:
    """List, show and check the agents that can be measured.

    An agent is a table [tool.trae-bench.agents.NAME] of your pyproject.toml, a .toml
    file with the same keys, an agent that ships with trae-bench, or a command line.

    \b
    Examples:
      trae-bench agents list
      trae-bench agents show mini-swe-agent
      trae-bench agents check 'my-agent --base-url {base_url} -p {task}'
    """


@agents.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_agents(as_json: bool) -> None:
    """List the agents of this project and those that ship.

    \b
    Examples:
      trae-bench agents list
      trae-bench agents list --json
    """
    from trae_bench.report.text.listing import names
    from trae_bench.run.settings import load
    from trae_bench.subject.agents.catalog import shipped
    from trae_bench.subject.agents.entry import read_entry

    own = {name: entry.about for name, entry in load(Path.cwd()).agents.items()}
    ready = {name: read_entry(path).about for name, path in shipped().items()}
    if as_json:
        print_json({"project": own, "shipped": ready})
        return
    for title, found in (("this project", own), ("shipped", ready)):
        if found:
            click.echo(f"{title}:\n{names(found, terminal_width())}")


@agents.command()
@AGENT
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(agent: str, as_json: bool) -> None:
    """Print the entry of an agent.

    \b
    Examples:
      trae-bench agents show mini-swe-agent
      trae-bench agents show my-agent.toml --json
    """
    import msgspec

    from trae_bench._util.toml_writer import toml_text

    found = _find(agent)
    entry = msgspec.to_builtins(found.entry)
    entry["command"] = shlex.join(found.entry.argv)
    if as_json:
        print_json({"name": found.name, "folder": str(found.folder), **entry})
        return
    click.echo(f"# {found.name}, {found.source}; {{folder}} is {found.folder}")
    click.echo(toml_text({key: value for key, value in entry.items() if value not in _UNSET}))


_UNSET: tuple[Any, ...] = (None, "", (), [], {})


@agents.command()
@AGENT
@click.option(
    "--scenario",
    metavar="FILE",
    help="Play this scenario. If `record` made it, compare the requests with the recorded ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(agent: str, scenario: str | None, as_json: bool) -> int:
    """Start an agent against the scripted provider and say what it did.

    Builds its environment, learns its protocol and tools from its first request, and
    plays a session of three replies. Exits with 4 if the agent cannot be measured.

    \b
    Examples:
      trae-bench agents check mini-swe-agent
      trae-bench agents check 'my-agent --base-url {base_url} -p {task}'
      trae-bench agents check my-agent --scenario my-session.toml
    """
    from trae_bench.report.text.agents import check_lines
    from trae_bench.run.agent_check import check_agent

    replay = None if scenario is None else _replay(scenario)
    checked = check_agent(
        _find(without_keys(agent)), lambda text: click.echo(text, err=True), replay
    )
    if as_json:
        print_json(checked)
    else:
        for line in check_lines(checked, terminal_width()):
            click.echo(line)
    return 4 if checked.problem else 0


def _replay(name: str) -> "Replay":
    from trae_bench._util.bounded_io import text
    from trae_bench.cli.record import request_file
    from trae_bench.run.agent_check import Replay
    from trae_bench.scenario import find, load, split

    path = find(name)
    recorded = request_file(path)
    try:
        last = text(recorded) if recorded.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{recorded}: {error}") from error
    return Replay(load(path, split(name)[1]), last, name)


def _find(agent: str) -> "FoundAgent":
    from trae_bench.run.settings import find_agents_here

    (found,) = find_agents_here([agent]).values()
    return found
