"""The commands `history add`, `show`, `check`, `plot`, `push` and `fetch`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from trae_bench._util.keys import without_keys
from trae_bench.cli.common import (
    FILE,
    NEW_FILE,
    current_metrics,
    file_name,
    print_json,
    terminal_width,
    write,
)
from trae_bench.cli.completion import complete_agent, complete_metric, complete_scenario
from trae_bench.cli.run import Finite
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.run.history import Confirmer
    from trae_bench.run.settings import Settings
    from trae_bench.subject.agents.catalog import FoundAgent
    from trae_bench.subject.revisions import Repository
    from trae_bench.verdicts.history import Checked, Series

UNDECIDED = 3
"""Exit code if a regression was found and none of them could be confirmed or refuted."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _filters(command: Command) -> Command:
    """The options that select series."""
    options = (
        click.option(
            "--scenario",
            metavar="SCENARIO",
            shell_complete=complete_scenario,
            help="Only this scenario: a name, or a .toml file.",
        ),
        click.option(
            "--metric",
            metavar="NAME",
            shell_complete=complete_metric,
            callback=current_metrics,
            help="Only this metric.",
        ),
        click.option(
            "--agent",
            metavar="AGENT",
            shell_complete=complete_agent,
            help="Only this agent. The default is all.",
        ),
        click.option("--anchor", metavar="REF", help="Only points that compare with this commit."),
        click.option(
            "--branch",
            metavar="REF",
            default="HEAD",
            show_default=True,
            help="The branch whose commits are shown. Of a merge, the first parent counts.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def history() -> None:
    """Follow a metric over the commits of a branch.

    Each point is a run that compares a commit with one pinned commit, the anchor, so
    the drift of the machine cancels. The points are git notes of the commits, under
    refs/notes/trae-bench. No server is needed.

    \b
    Examples:
      trae-bench run bugfix --compare v1.0 --out run.json
      trae-bench history add run.json
      trae-bench history check
      trae-bench history push
    """


@history.command("add")
@click.argument("run_files", nargs=-1, required=True, metavar="RUN...", type=FILE)
def add_runs(run_files: tuple[Path, ...]) -> None:
    """Add the points of runs with --compare.

    Adding a run twice changes nothing. Refuses all files if one is inconsistent, was
    not finished, or measured uncommitted changes.

    \b
    Examples:
      trae-bench history add RUN.json
      trae-bench history add trae-bench-results/*.json
    """
    from trae_bench.report.text.listing import count
    from trae_bench.storage.history import add, read_points

    repository = _repository()
    points = [point for path in run_files for point in read_points(path, repository)]
    new = add(repository, points)
    known = "; the rest was there already" if new < len(points) else ""
    click.echo(f"Added {new} of {count(len(points), 'point')}{known}.")


@history.command()
@_filters
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool, **options: Any) -> None:
    """Print the points, oldest first.

    Prints a table of the series, or the commits of one series and its changes.

    \b
    Examples:
      trae-bench history show
      trae-bench history show --scenario bugfix --metric cpu
      trae-bench history show --json
    """
    from trae_bench.report.text import history as text
    from trae_bench.verdicts.history import shifts

    picked = _Picked(options)
    if as_json:
        print_json({"branch": picked.tip, "series": picked.series})
        return
    if not picked.series:
        click.echo(text.NOTHING)
        return
    width = terminal_width()
    if len(picked.series) > 1:
        click.echo(text.overview(picked.series, width))
        return
    (series,) = picked.series
    found = shifts(series, picked.threshold(series))
    for line in text.details(series, found, picked.line, width):
        click.echo(line)


@history.command()
@_filters
@click.option("--since", metavar="REF", help="Only changes after this commit.")
@click.option("--no-confirm", is_flag=True, help="Do not measure; list the changes.")
@click.option(
    "--budget",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit of each confirming run.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the confirming runs. A run that it has is not made again. The default is "
    "trae-bench-results/history.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress, only the result.")
def check(since: str | None, no_confirm: bool, as_json: bool, **options: Any) -> int:
    """Find the commits at which a metric changed.

    Searches each series for changes of its level. Each change is then confirmed: the
    commits before and after it are compared in fresh pairs. Changes that are surely
    below the threshold of their metric are listed and not confirmed.

    Exits with 1 for a confirmed regression, and with 3 if a regression was found but not
    measured.

    \b
    Examples:
      trae-bench history check
      trae-bench history check --scenario bugfix --metric cpu --since v1.0
      trae-bench history check --no-confirm --json
    """
    from trae_bench.cli.progress import progress
    from trae_bench.report.text.history import NOTHING
    from trae_bench.verdicts.history import Checked, shifts
    from trae_bench.verdicts.history import since as after

    picked = _Picked(options)
    found = [one for each in picked.series for one in shifts(each, picked.threshold(each))]
    if since is not None:
        found = after(found, list(picked.line), picked.on_line(since, "--since"))
    with progress(sys.stderr, quiet=options["quiet"]) as (say, listener):
        confirmer = None if no_confirm else picked.confirmer(options["out"], options["budget"])
        results = [
            Checked(one, "not checked")
            if confirmer is None or one.kind == "small"
            else confirmer.check(one, say, listener)
            for one in found
        ]
    if as_json:
        print_json({"branch": picked.tip, "series": len(picked.series), "changes": results})
    elif not picked.series:
        click.echo(NOTHING)
    else:
        _print_results(results, picked)
    return _exit_code(results)


def _print_results(results: "Sequence[Checked]", picked: "_Picked") -> None:
    from trae_bench.report.text.history import verdict
    from trae_bench.report.text.listing import count
    from trae_bench.stats.change_points import FEWEST

    for result in results:
        for text in verdict(result, picked.line, picked.scenarios):
            click.echo(text)
    found = count(len(results), "change") if results else "no change"
    click.echo(f"{len(picked.series)} series searched: {found}.")
    if short := sum(len(each.commits) < FEWEST for each in picked.series):
        click.echo(f"{short} of them can show no change: fewer than {FEWEST} commits.")


def _exit_code(results: "Sequence[Checked]") -> int:
    states = {one.status for one in results if one.shift.kind == "regression"}
    if "confirmed" in states:
        return 1
    return UNDECIDED if states & {"not measured", "not checked"} else 0


@history.command("plot")
@_filters
@click.option("-o", "--out", type=NEW_FILE, required=True, help="The page. Its name ends in .html.")
def plot_history(out: Path, **options: Any) -> None:
    """Write a page with a plot of each series over its commits.

    The page needs no other file and no network. Needs the extra [report].

    \b
    Examples:
      trae-bench history plot --out history.html
      trae-bench history plot --scenario bugfix --out bugfix.html
    """
    if out.suffix.lower() != ".html":
        raise UsageError(f"{out}: the name of a page ends in .html")
    from trae_bench.report.html.history import Shown, page
    from trae_bench.report.text.history import NOTHING
    from trae_bench.verdicts.history import shifts

    picked = _Picked(options)
    shown = [Shown(each, tuple(shifts(each, picked.threshold(each)))) for each in picked.series]
    write(out, [page(shown, picked.line)])
    if not shown:
        click.echo(NOTHING)
    click.echo(f"Page: {file_name(out)}")


@history.command()
@click.argument("remote", default="origin")
def fetch(remote: str) -> None:
    """Unite the points with those of a remote.

    The points of the remote are checked before they are merged.

    \b
    Examples:
      trae-bench history fetch
      trae-bench history fetch upstream
    """
    from trae_bench.report.text.listing import count
    from trae_bench.storage.history import fetch as fetch_points

    click.echo(f"{count(fetch_points(_repository(), remote), 'new point')} from {remote}.")


@history.command()
@click.argument("remote", default="origin")
def push(remote: str) -> None:
    """Send the points to a remote.

    Fetches and unites first, so that no points of others are lost.

    \b
    Examples:
      trae-bench history push
      trae-bench history push upstream
    """
    from trae_bench.report.text.listing import count
    from trae_bench.storage.history import push as push_points

    click.echo(f"{remote} has {count(push_points(_repository(), remote), 'point')}.")


# -- what a command works on ------------------------------------------------------------


def _repository() -> "Repository":
    from trae_bench.subject.revisions import Repository

    return Repository.around(Path.cwd())


class _Picked:
    """The series that the options select, and their branch."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from trae_bench.run.history import requested_scenarios
        from trae_bench.run.settings import load

        self._repository = _repository()
        self._settings = load(Path.cwd())
        self.tip = self._repository.commit(options["branch"])
        self.line = self._repository.first_parents(self.tip)
        """The commits of the branch, oldest first, with their subjects."""
        scenario, agent = options["scenario"] or "", options["agent"]
        named = [scenario] if ".toml" in scenario else []
        self.scenarios = requested_scenarios(named, self._settings)
        """What to request for a scenario of the project, by its name."""
        self._agents = _agents(agent, self._settings)
        wanted = {
            "scenario": next(iter(self.scenarios)) if named else scenario,
            "metric": options["metric"],
            "agent": next(iter(self._agents), agent) if agent else None,
            "anchor": options["anchor"] and self._repository.commit(options["anchor"]),
        }
        self.series = self._select({name: value for name, value in wanted.items() if value})

    def _select(self, wanted: Mapping[str, str]) -> "list[Series]":
        """The series of the options. Raises `UsageError` if there are others, but not these."""
        from trae_bench.run.planner import unknown
        from trae_bench.storage.history import stored
        from trae_bench.verdicts.history import series_of

        found = series_of(stored(self._repository), list(self.line))
        for name, value in wanted.items():
            known = {getattr(each.key, name) for each in found}
            if known and value not in known:
                raise unknown(f"point of {name}", value, known)
            found = [each for each in found if getattr(each.key, name) == value]
        return found

    def threshold(self, series: "Series") -> float:
        """The smallest change that counts: that of the metric, or of the project if larger."""
        from trae_bench.verdicts.history import threshold_of

        return max(threshold_of(series), self._settings.thresholds.get(series.key.metric, 0.0))

    def on_line(self, name: str, option: str) -> str:
        """The commit of a name. Raises `UsageError` if it is not on the branch."""
        commit = self._repository.commit(name)
        if commit not in self.line:
            raise UsageError(
                f"{option} {name}: this commit is not on the branch, or only behind the second "
                "parent of a merge; name one of `git log --first-parent`"
            )
        return commit

    def confirmer(self, out: Path | None, budget: float | None) -> "Confirmer":
        """What the confirming runs need."""
        from trae_bench.run.history import Confirmer
        from trae_bench.run.runner import RESULTS
        from trae_bench.subject.agent_core import PACKAGE
        from trae_bench.subject.revisions import Repository

        return Confirmer(
            repository=lambda package: Repository.around(Path.cwd(), package),
            package=PACKAGE,
            agents=self._agents,
            scenarios=self.scenarios,
            folder=out or RESULTS / "history",
            command="trae-bench history check",
            budget=budget,
        )


def _agents(named: str | None, settings: "Settings") -> "dict[str, FoundAgent]":
    """The agent that the user names, else those of the project."""
    from trae_bench.run.settings import find_agents_here
    from trae_bench.storage.history import AGENT_CORE

    if named == AGENT_CORE and named not in settings.agents:
        return {}
    return find_agents_here([without_keys(named)] if named else list(settings.agents))
