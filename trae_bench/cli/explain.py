"""`trae-bench explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import FILE, print_json, terminal_width
from trae_bench.errors import BadRunFile

if TYPE_CHECKING:
    from trae_bench.stats.pairs import RowKey


@click.command()
@click.argument("run_file", type=FILE)
@click.argument("scenario", required=False)
@click.argument("toggle", required=False)
@click.argument("metric", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    run_file: Path, scenario: str | None, toggle: str | None, metric: str | None, as_json: bool
) -> None:
    """Tell how a verdict came about.

    What was compared, what each look showed and what it was held against, all worked
    out again from the samples. Without a METRIC, list the rows that can be
    explained; a TOGGLE is what stands after the stroke in the table, or A/A for the
    noise floor.

    \b
    Examples:
      trae-bench explain RUN.json
      trae-bench explain RUN.json bugfix batched_trajectory wall
      trae-bench explain RUN.json bugfix A/A cpu
    """
    from trae_bench.report.text import explanation
    from trae_bench.run.runner import read_result

    result = read_result(run_file)
    run = result.run
    asked = {"scenario": scenario, "toggle": toggle, "metric": metric}
    found = _matching(
        explanation.rows(run), {kind: name for kind, name in asked.items() if name is not None}
    )
    if not found:
        raise BadRunFile(f"{run_file}: nothing was planned in it, so there is nothing to explain")
    if metric is None:
        if as_json:
            lines = explanation.lines(run, found)
            print_json([dict(zip(explanation.HEADINGS, line, strict=True)) for line in lines])
        else:
            click.echo(explanation.table(run, found, terminal_width()))
        return
    told = explanation.explain(run, found[0], run.header.limits, claimed=result.claimed)
    if as_json:
        print_json({"facts": told, "story": explanation.story(told)})
    else:
        click.echo(explanation.text(told, terminal_width()))


def _matching(keys: "list[RowKey]", asked: dict[str, str]) -> "list[RowKey]":
    """Rows with these names, the scenario's first. Raises `UsageError` where there are none."""
    from trae_bench.run.planner import unknown

    for place, (kind, name) in enumerate(asked.items()):
        here = [key for key in keys if key[place] == name]
        if not here and keys:
            raise unknown(kind, name, {key[place] for key in keys})
        keys = here
    return keys
