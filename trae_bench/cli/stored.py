"""Commands on stored runs: `report`, `effects`, `verify`, `export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.claims import render_guide
from trae_bench.cli.common import (
    FILE,
    REPORT,
    on_stdout,
    print_json,
    say_where,
    terminal_width,
    write,
)
from trae_bench.cli.results import show_noise, show_result, write_reports
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError

if TYPE_CHECKING:
    from trae_bench.run.runner import Result

EXPORTS = (
    "pyperf",
    "bmf",
    "github-action",
    "github-action-bigger",
    "pytest-benchmark",
    "hyperfine",
    "csv",
)


@click.command()
@click.argument("run_files", nargs=-1, required=True, metavar="RUN...", type=FILE)
@click.option("--comment", type=REPORT, help="Write Markdown, for a pull request.")
@click.option("--junit", type=REPORT, help="Write JUnit's XML.")
@click.option(
    "--html",
    type=REPORT,
    help="Write one page of all the runs, for a browser; needs the extra [report].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@click.option("--guide", type=FILE, help="Write the figures of this document anew.")
@click.option("--check", is_flag=True, help="With --guide: end in 1 where they are not the runs'.")
def report(
    run_files: tuple[Path, ...],
    comment: Path | None,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
    guide: Path | None,
    check: bool,
) -> int:
    """Show a stored run again.

    As a table, or in the files that are named; `-` is the standard output. With
    --guide, the tables of a document are those of one or several runs, the newest
    that has a row first.

    \b
    Examples:
      trae-bench report RUN.json
      trae-bench report RUN.json --comment -
      trae-bench report RUN.json --json
      trae-bench report BASE.json HEAD.json --html report.html
      trae-bench report results/*.json --guide docs/performance.md --check
    """
    written = {"Comment": comment, "JUnit": junit, "Page": html}
    files = {what: path for what, path in written.items() if path is not None}
    if guide is not None:
        if files or as_json:
            raise UsageError("--guide goes with --check only; write other reports apart")
        return render_guide(guide, run_files, check=check)
    if check:
        raise UsageError("--check goes with --guide FILE")
    if len(run_files) > 1 and (html is None or comment or junit or as_json):
        raise UsageError("one run at a time; only --html FILE and --guide FILE take several")
    on_stdout(comment, junit, html, as_json=as_json)
    from trae_bench.run.runner import read_result

    results = [read_result(path) for path in run_files]
    if html is not None:
        _write_page(html, results)
    if (comment or junit) and (error := write_reports(results[0], comment, junit)):
        raise error
    if as_json or not files:
        show_result(results[0], as_json=as_json)
    for what, path in files.items():
        say_where(what, path)
    return 0


def _write_page(path: Path, results: "Sequence[Result]") -> None:
    from trae_bench.report.html import Source, page

    sources = [Source(each.run_file.name, each.run, each.claimed) for each in results]
    write(path, [page(sources)])


@click.command()
@click.argument("run_file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def effects(run_file: Path, as_json: bool) -> None:
    """Say which toggle has which share in a run.

    \b
    What each toggle gives alone, with all others on and on average; what pairs of
    toggles make of each other; and whether the parts give the whole. Which of
    these there are depends on the run's --design:
      add-one     each toggle alone
      remove-one  each toggle with all others on
      both        both, and the whole
      fraction    means, clear of pairs, from few runs (16 for 5 to 8 toggles)
      factorial   all of it, each pair of toggles, too (64 runs for 7 toggles)

    \b
    Examples:
      trae-bench run bugfix --design both --out both.json
      trae-bench effects both.json
    """
    from trae_bench.report.text import attribution
    from trae_bench.storage.run_file import read_run

    run = read_run(run_file)
    found = attribution.of_run(run)
    if as_json:
        print_json(found)
    else:
        show_noise(run)
        click.echo(attribution.text(found, run.header.metrics, width=terminal_width()))


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(files: tuple[Path, ...], as_json: bool) -> int:
    """Check run files.

    Every estimate and verdict is worked out again from the samples; plan, order,
    times and figures are checked for what cannot be. Ends in 4 where a file
    contradicts itself.

    \b
    Examples:
      trae-bench verify RUN.json
      trae-bench verify results/*.json --json
    """
    found = {str(file): _verified(file) for file in files}
    if as_json:
        print_json(found)
    else:
        from trae_bench.storage.verify import UNDETECTABLE

        for file, checked in found.items():
            _show_verified(file, checked)
        if any(checked["error"] is None for checked in found.values()):
            cannot_tell = f"No file can tell: {'; '.join(UNDETECTABLE)}."
            click.echo("\n" + click.wrap_text(cannot_tell, terminal_width()))
    holds = all(checked["holds"] for checked in found.values())
    return 0 if holds else CannotMeasure.exit_code


def _verified(file: Path) -> dict[str, Any]:
    from trae_bench.storage.run_file import read_run
    from trae_bench.storage.verify import origin
    from trae_bench.storage.verify import verify as find

    try:
        run = read_run(file)
    except BadRunFile as error:
        return {"holds": False, "error": str(error), "origin": (), "findings": []}
    findings = find(run)
    holds = all(finding.severity != "wrong" for finding in findings)
    return {"holds": holds, "error": None, "origin": origin(run), "findings": findings}


def _show_verified(file: str, checked: dict[str, Any]) -> None:
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text.listing import bullets

    if checked["error"]:
        # It begins with the file's name.
        click.echo(for_terminal(checked["error"], 2000))
        return
    verdict = "holds together" if checked["holds"] else "does NOT hold together"
    click.echo(f"{for_terminal(file, 1000)}: {verdict}")
    told = [*checked["origin"], *checked["findings"]]
    click.echo(bullets([str(one) for one in told], terminal_width()))


@click.command()
@click.argument("run_file", type=FILE)
@click.option("--format", "format_", type=click.Choice(EXPORTS), required=True)
@click.option(
    "--side",
    type=click.Choice(("off", "on", "base", "head")),
    help="Only this side, its name without the word: for tools that compare two files.",
)
@click.option("--out", "-o", type=REPORT, default="-", help="By default the standard output.")
def export(run_file: Path, format_: str, side: str | None, out: Path) -> None:
    """Write a run in the format of another tool.

    What the tool has no place for is left out; its verdicts know nothing of pairs.

    \b
    Examples:
      trae-bench export RUN.json --format csv --out run.csv
      trae-bench export RUN.json --format pyperf --side off --out off.json
      trae-bench export RUN.json --format pyperf --side on --out on.json
    """
    from trae_bench.report.export import SIDES, chunks
    from trae_bench.report.text.terminal import side_names
    from trae_bench.storage.run_file import read_run

    run = read_run(run_file)
    names = side_names(run)
    if side is not None and side not in names:
        raise UsageError(f"--side {side}: the sides of this run are {' and '.join(names)}")
    write(out, chunks(run, format_, SIDES[side] if side else None))
    say_where("Export", out)
