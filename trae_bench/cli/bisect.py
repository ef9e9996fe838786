"""The command `bisect`."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench._util.keys import without_keys
from trae_bench.cli.common import current_metrics, print_json
from trae_bench.cli.completion import complete_agent, complete_metric, complete_scenario
from trae_bench.cli.run import Finite

if TYPE_CHECKING:
    from trae_bench.run.bisect import Found, Search, Step

NOT_FOUND = 3
"""Exit code if there is no regression, or if no single commit was found."""


@click.command()
@click.argument("good")
@click.argument("bad", default="HEAD")
@click.option(
    "-s",
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="SCENARIO",
    shell_complete=complete_scenario,
    help="Search with this scenario instead of the default ones. Can be repeated.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_metric,
    callback=current_metrics,
    help="Search for a regression of this metric. Can be repeated.",
)
@click.option(
    "--agent",
    metavar="AGENT",
    shell_complete=complete_agent,
    help="The agent of this repository. The default is the one in pyproject.toml, else agent_core.",
)
@click.option(
    "--equal",
    type=click.Choice(("conversation", "work")),
    help="What both sides must have equal: requests and files, or files only.",
)
@click.option(
    "--budget",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit of the first and the last comparison.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the run files. A search with the same folder goes on where it stopped.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress, only the result.")
def bisect(good: str, bad: str, out: Path | None, **options: Any) -> int:
    """Find the commit in which a regression arises.

    Compares BAD with GOOD, then commits between them with GOOD, a few pairs each. A noisy step
    does not mislead the search: each is evidence, and the search ends when one commit has a
    probability of 99 %. That commit is then compared with the one before it.

    Commits that do not change the agent are left out, and commits that cannot be built are
    skipped. Exits with 3 if there is no regression, or if no single commit was found.

    \b
    Examples:
      trae-bench bisect v1.2.0
      trae-bench bisect v1.2.0 main --scenario bugfix --metric cpu
      trae-bench bisect HEAD~40 --agent my-agent --scenario my-session.toml
    """
    from trae_bench.cli.progress import progress
    from trae_bench.report.text.bisection import result_lines
    from trae_bench.run.bisect import bisect as find
    from trae_bench.run.bisect import is_confirmed

    search = _search(good, bad, out, options)
    with progress(sys.stderr, quiet=options["quiet"]) as (say, listener):
        found = find(search, say, _Reporter(say), listener)
    if options["as_json"]:
        print_json(found)
    else:
        for line in result_lines(found, search.repository.subject_of):
            click.echo(line)
    return 0 if is_confirmed(found) else NOT_FOUND


class _Reporter:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def begins(self, found: "Found") -> None:
        from trae_bench.report.text.bisection import begin_line

        self._say(begin_line(found))

    def step_ends(self, found: "Found", step: "Step") -> None:
        from trae_bench.report.text.bisection import step_line

        self._say(step_line(found, step))


def _search(good: str, bad: str, out: Path | None, options: Mapping[str, Any]) -> "Search":
    from trae_bench.run.bisect import Search
    from trae_bench.run.gate_base import find_base
    from trae_bench.run.planner import RunRequest
    from trae_bench.run.runner import RESULTS
    from trae_bench.run.settings import find_agents_here, load
    from trae_bench.subject.agent_core import PACKAGE

    agent = options["agent"]
    names = [without_keys(agent)] if agent else list(load(Path.cwd()).agents)[:1]
    agents = find_agents_here(names) if names else {}
    base = find_base(good, Path.cwd(), "" if agents else PACKAGE)
    request = RunRequest(
        command=f"trae-bench bisect {without_keys(good)} {without_keys(bad)}"[:1000],
        profile=base.settings.profile or "quick",
        settings=base.settings,
        compare=base,
        agents=agents,
        **{name: options[name] for name in ("scenarios", "metrics", "budget", "equal")},
    )
    folder = out or RESULTS / time.strftime("bisect-%Y%m%dT%H%M%S")
    return Search(
        repository=base.repository,
        request=request,
        bad=base.repository.commit(bad),
        folder=folder,
    )
