"""What came of a run, as the terminal and the files for CI show it."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import print_json, takes_colour, terminal_width, write
from trae_bench.errors import BenchError, CannotMeasure

if TYPE_CHECKING:
    from trae_bench.laboratory import Result


def show_result(result: "Result", *, as_json: bool) -> None:
    from trae_bench.design import is_fixed
    from trae_bench.report import attribution, terminal

    run = result.run
    if as_json:
        fields = ("stopped", "noise", "comparisons")
        shown = {name: getattr(run, name) for name in fields}
        print_json({"run_file": str(result.run_file), "claimed": result.claimed} | shown)
        return
    rows, metrics, width = run.comparisons, run.header.metrics, terminal_width()
    if is_fixed(run.header.design):
        # The runs of a two-level design answer together.
        click.echo(attribution.text(attribution.of_run(run), metrics, width=width))
    else:
        coloured = takes_colour(sys.stdout)
        table = terminal.table(rows, metrics, width=width, colour=coloured, claimed=result.claimed)
        click.echo(table, color=True)
    click.echo()
    closing = terminal.closing(run, claimed=result.claimed)
    for line in (closing, terminal.noise_line(run.noise), *terminal.standing_lines(run.noise)):
        click.echo(click.wrap_text(line, width))
    if result.run_file.exists():
        click.echo(f"Run file: {click.format_filename(result.run_file)}")
    if run.stopped != "done" and result.journal.exists():
        click.echo(f"Go on with: trae-bench run --resume {shlex.quote(str(result.journal))}")


def write_reports(
    result: "Result", comment: Path | None, junit: Path | None, *, summary: bool = False
) -> BenchError | None:
    """Whatever can be written is; the first thing that could not be comes back."""
    from trae_bench.report import ci, markdown
    from trae_bench.report.junit import junit as as_xml

    in_markdown = markdown.comment(result.run, claimed=result.claimed)
    jobs: list[Callable[[], object]] = []
    if comment:
        jobs.append(lambda: write(comment, [in_markdown]))
    if junit:
        jobs.append(lambda: write(junit, [as_xml(result.run, claimed=result.claimed)]))
    if summary:
        jobs.append(lambda: ci.add_to_summary(in_markdown, os.environ))
    errors = []
    for job in jobs:
        try:
            job()
        except CannotMeasure as error:
            errors.append(error)
    return errors[0] if errors else None
