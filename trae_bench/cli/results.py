"""Prints the result of a run and writes its reports."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.common import (
    can_encode,
    file_name,
    print_error,
    print_json,
    takes_colour,
    terminal_width,
    write,
)
from trae_bench.errors import BenchError, CannotMeasure

if TYPE_CHECKING:
    from trae_bench.model.run import RunFile
    from trae_bench.run.runner import Result

MAX_TABLE_WIDTH = 200


def show_result(result: "Result", *, as_json: bool, quiet: bool = False) -> None:
    """Print the result of a run; with `quiet`, without the hint how to resume it."""
    if as_json:
        print_json(_document(result))
        return
    from trae_bench.design.contrasts import NOISE_FLOOR
    from trae_bench.subject.agents.catalog import is_name

    show_noise(result.run)
    if figures := _figures(result.run):
        click.echo(f"{figures}\n")
    if any(cell.contrast.name != NOISE_FLOOR for cell in result.run.header.cells):
        click.echo(f"{_table(result)}\n", color=True)
    for line in _sentences(result):
        click.echo(line)
    if not result.written:
        click.echo(f"No run file was written; {file_name(result.journal)} has all samples.")
    elif result.run_file.exists():
        click.echo(f"Run file: {file_name(result.run_file)}")
    complete = result.run.stopped == "done" and result.written
    if not complete and not quiet and result.journal.exists():
        quoted = shlex.quote(str(result.journal))
        agents = (result.run.header.agents or {}).values()
        trust = "" if all(is_name(agent.requested) for agent in agents) else " --trust"
        click.echo(f"Resume with: trae-bench run --resume {file_name(quoted)}{trust}")


def _figures(run: "RunFile") -> str:
    """The absolute figures of a run that compares agents; empty for other runs."""
    if not run.header.agents or run.header.revisions is not None:
        return ""
    from trae_bench.report.text.agents import figures_text

    return figures_text(run, terminal_width(MAX_TABLE_WIDTH))


def show_noise(run: "RunFile") -> None:
    """Print the noise of the machine and the smallest detectable effect."""
    from trae_bench.report.text.listing import fill
    from trae_bench.report.text.terminal import noise_lines

    for line in noise_lines(run):
        click.echo(fill(line, terminal_width(), "", ""))
    click.echo()


def _document(result: "Result") -> dict[str, Any]:
    """The result for `--json`."""
    from trae_bench.verdicts.caveats import caveats_of
    from trae_bench.verdicts.gate import outcome

    run = result.run
    fields = ("stopped", "noise", "comparisons")
    document = {name: getattr(run, name) for name in fields}
    document |= {"run_file": str(result.run_file), "claimed": result.claimed}
    return document | {"notes": caveats_of(run), "outcome": outcome(run, claimed=result.claimed)}


def _table(result: "Result") -> str:
    from trae_bench.design.contrasts import is_fixed
    from trae_bench.report.text import attribution, terminal
    from trae_bench.report.text.sparkline import BLOCKS

    run = result.run
    if is_fixed(run.header.design):
        # A two-level design estimates each effect from all of its contrasts together.
        attributed = attribution.of_run(run)
        return attribution.text(attributed, run.header.metrics, width=terminal_width())
    return terminal.run_table(
        run,
        width=terminal_width(MAX_TABLE_WIDTH),
        colour=takes_colour(sys.stdout),
        claimed=result.claimed,
        plain=not can_encode(sys.stdout, BLOCKS),
    )


def _sentences(result: "Result") -> Iterator[str]:
    """The text below the table, wrapped."""
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text import gate as gate_text
    from trae_bench.report.text import terminal, time_shares
    from trae_bench.verdicts.caveats import MAX_NOTE, caveats_of

    run, width = result.run, terminal_width()
    if run.header.revisions is not None:
        yield click.wrap_text(f"{gate_text.sentence(run, claimed=result.claimed)}.", width)
        for line in gate_text.details(run):
            yield click.wrap_text(line, width, subsequent_indent="  ")
    for line in (
        *time_shares.lines(run),
        terminal.closing(run, claimed=result.claimed),
        *(for_terminal(note, MAX_NOTE) for note in caveats_of(run)),
    ):
        yield click.wrap_text(line, width)


def write_reports(
    result: "Result", markdown: Path | None, junit: Path | None, *, summary: bool = False
) -> BenchError | None:
    """Write the reports of a run; with `summary`, also the summary of the GitHub job.

    Writes as many reports as possible and returns one error for those that failed.
    """
    from trae_bench.report.text.ci import SUMMARY_VARIABLE
    from trae_bench.report.text.junit import junit as junit_text
    from trae_bench.report.text.markdown import comment as markdown_text

    wanted = markdown or (summary and os.environ.get(SUMMARY_VARIABLE))
    text = markdown_text(result.run, claimed=result.claimed) if wanted else ""
    xml = junit_text(result.run, claimed=result.claimed) if junit else ""
    return _write_reports(text, xml, markdown, junit, summary=summary)


@contextmanager
def report_failure(markdown: Path | None, junit: Path | None) -> Iterator[None]:
    """Write reports of the error if the block raises before it has a result.

    Otherwise the reports of an earlier run stay in place and look like those of this run.
    """
    from trae_bench.report.text import unmeasured

    try:
        yield
    except (BenchError, KeyboardInterrupt) as error:
        reason = str(error) or "interrupted"
        text, xml = unmeasured.comment(reason), unmeasured.junit(reason)
        if write_error := _write_reports(text, xml, markdown, junit, summary=True):
            print_error(f"Error: {write_error}")
        raise


def _write_reports(
    text: str, xml: str, markdown: Path | None, junit: Path | None, *, summary: bool
) -> BenchError | None:
    from trae_bench.report.text import ci

    jobs: list[Callable[[], object]] = []
    if markdown:
        jobs.append(lambda: write(markdown, [text]))
    if junit:
        jobs.append(lambda: write(junit, [xml]))
    if summary:
        jobs.append(lambda: ci.add_to_summary(text, os.environ))
    errors = []
    for job in jobs:
        try:
            job()
        except CannotMeasure as error:
            errors.append(error)
    return CannotMeasure("; ".join(map(str, errors))) if errors else None
