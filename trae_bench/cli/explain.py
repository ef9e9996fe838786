"""The command `trae-bench explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, current_metrics, print_json, terminal_width
from trae_bench.cli.completion import complete_metric, complete_scenario, complete_toggle
from trae_bench.errors import BadRunFile

if TYPE_CHECKING:
    from trae_bench.stats.pairs import RowKey


@click.command()
@click.argument("run_file", type=FILE)
@click.argument("scenario", required=False, shell_complete=complete_scenario)
@click.argument("toggle", required=False, shell_complete=complete_toggle)
@click.argument("metric", required=False, shell_complete=complete_metric, callback=current_metrics)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    run_file: Path, scenario: str | None, toggle: str | None, metric: str | None, as_json: bool
) -> None:
    """Explain a verdict step by step.

    Prints what was compared, the result of each look, and the limits that decided.
    Everything is recomputed from the samples.

    Without a METRIC, lists the rows that can be explained. TOGGLE is the name after
    the slash in the table, or A/A for the noise floor.

    \b
    Examples:
      trae-bench explain RUN.json
      trae-bench explain RUN.json bugfix batched_trajectory wall_net
      trae-bench explain RUN.json bugfix A/A cpu
    """
    from trae_bench.report.text import explanation
    from trae_bench.run.runner import read_result

    result = read_result(run_file)
    run = result.run
    names = {"scenario": scenario, "toggle": toggle, "metric": metric}
    given = {kind: name for kind, name in names.items() if name is not None}
    rows = _matching(explanation.rows(run), given)
    if not rows:
        raise BadRunFile(f"{run_file}: no comparison was planned, so there is nothing to explain")
    if metric is None:
        if as_json:
            lines = explanation.lines(run, rows)
            print_json([dict(zip(explanation.HEADINGS, line, strict=True)) for line in lines])
        else:
            click.echo(explanation.table(run, rows, terminal_width()))
        return
    facts = explanation.explain(run, rows[0], run.header.limits, claimed=result.claimed)
    if as_json:
        print_json({"facts": facts, "story": explanation.story(facts)})
    else:
        click.echo(explanation.text(facts, terminal_width()))


def _matching(keys: "list[RowKey]", names: dict[str, str]) -> "list[RowKey]":
    """The rows with these names. Raises `UsageError` if a name matches no row."""
    from trae_bench.run.planner import unknown

    for index, (kind, name) in enumerate(names.items()):
        matching = [key for key in keys if key[index] == name]
        if not matching and keys:
            raise unknown(kind, name, {key[index] for key in keys})
        keys = matching
    return keys
