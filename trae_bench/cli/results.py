"""What came of a run, as the terminal and the files for CI show it."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.common import (
    file_name,
    print_json,
    takes,
    takes_colour,
    tell,
    terminal_width,
    write,
)
from trae_bench.errors import BenchError, CannotMeasure

if TYPE_CHECKING:
    from trae_bench.model.run import RunFile
    from trae_bench.run.runner import Result

WIDEST_TABLE = 200


def show_result(result: "Result", *, as_json: bool) -> None:
    if as_json:
        print_json(_document(result))
        return
    show_noise(result.run)
    click.echo(_table(result), color=True)
    click.echo()
    for line in _sentences(result):
        click.echo(line)
    if not result.written:
        click.echo(f"No run file was written; {file_name(result.journal)} has everything.")
    elif result.run_file.exists():
        click.echo(f"Run file: {file_name(result.run_file)}")
    ended = result.run.stopped == "done" and result.written
    if not ended and result.journal.exists():
        quoted = shlex.quote(str(result.journal))
        click.echo(f"Go on with: trae-bench run --resume {file_name(quoted)}")


def show_noise(run: "RunFile") -> None:
    """Before any figure: how noisy the machine was, and the smallest effect that shows."""
    from trae_bench.report.text.terminal import noise_lines

    for line in noise_lines(run):
        # Wrapped, but never between a figure and its percent sign.
        wrapped = click.wrap_text(line.replace(" %", "\xa0%"), terminal_width())
        click.echo(wrapped.replace("\xa0", " "))
    click.echo()


def _document(result: "Result") -> dict[str, Any]:
    from trae_bench.verdicts.caveats import caveats_of
    from trae_bench.verdicts.gate import outcome

    run = result.run
    fields = ("stopped", "noise", "comparisons")
    shown = {name: getattr(run, name) for name in fields}
    shown |= {"run_file": str(result.run_file), "claimed": result.claimed}
    return shown | {"notes": caveats_of(run), "outcome": outcome(run, claimed=result.claimed)}


def _table(result: "Result") -> str:
    from trae_bench.design.contrasts import is_fixed
    from trae_bench.report.text import attribution, terminal
    from trae_bench.report.text.sparkline import BLOCKS

    run = result.run
    if is_fixed(run.header.design):
        # The runs of a two-level design answer together.
        found = attribution.of_run(run)
        return attribution.text(found, run.header.metrics, width=terminal_width())
    return terminal.run_table(
        run,
        width=terminal_width(WIDEST_TABLE),
        colour=takes_colour(sys.stdout),
        claimed=result.claimed,
        plain=not takes(sys.stdout, BLOCKS),
    )


def _sentences(result: "Result") -> Iterator[str]:
    """What stands below the table, wrapped."""
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text import gate as gate_text
    from trae_bench.report.text import terminal
    from trae_bench.verdicts.caveats import MAX_NOTE, caveats_of

    run, width = result.run, terminal_width()
    if run.header.revisions is not None:
        yield click.wrap_text(f"{gate_text.sentence(run, claimed=result.claimed)}.", width)
        for line in gate_text.details(run):
            yield click.wrap_text(line, width, subsequent_indent="  ")
    for line in (
        terminal.closing(run, claimed=result.claimed),
        *(for_terminal(note, MAX_NOTE) for note in caveats_of(run)),
    ):
        yield click.wrap_text(line, width)


def write_reports(
    result: "Result", comment: Path | None, junit: Path | None, *, summary: bool = False
) -> BenchError | None:
    """Whatever can be written is; what could not be comes back as one error."""
    from trae_bench.report.text.junit import junit as as_xml
    from trae_bench.report.text.markdown import comment as as_markdown

    in_markdown = as_markdown(result.run, claimed=result.claimed)
    in_xml = as_xml(result.run, claimed=result.claimed) if junit else ""
    return _write_reports(in_markdown, in_xml, comment, junit, summary=summary)


@contextmanager
def reported(comment: Path | None, junit: Path | None) -> Iterator[None]:
    """Whatever ends a run in here, before it has a result, is told in its reports, too: those of
    an earlier run must not be taken for them."""
    from trae_bench.report.text import unmeasured

    try:
        yield
    except (BenchError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        in_markdown, in_xml = unmeasured.comment(why), unmeasured.junit(why)
        if unwritten := _write_reports(in_markdown, in_xml, comment, junit, summary=True):
            tell(f"Error: {unwritten}")
        raise


def _write_reports(
    in_markdown: str, in_xml: str, comment: Path | None, junit: Path | None, *, summary: bool
) -> BenchError | None:
    from trae_bench.report.text import ci

    jobs: list[Callable[[], object]] = []
    if comment:
        jobs.append(lambda: write(comment, [in_markdown]))
    if junit:
        jobs.append(lambda: write(junit, [in_xml]))
    if summary:
        jobs.append(lambda: ci.add_to_summary(in_markdown, os.environ))
    errors = []
    for job in jobs:
        try:
            job()
        except CannotMeasure as error:
            errors.append(error)
    return CannotMeasure("; ".join(map(str, errors))) if errors else None
