"""Commands that read stored runs: `report`, `effects`, `verify` and `export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.claims import render_guide
from trae_bench.cli.common import (
    FILE,
    REPORT,
    RenamedOptions,
    file_name,
    on_stdout,
    print_json,
    print_path,
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


@click.command(cls=RenamedOptions, renamed={"--comment": "--markdown"})
@click.argument("run_files", nargs=-1, required=True, metavar="RUN...", type=FILE)
@click.option("--markdown", type=REPORT, help="Write a Markdown report for a pull request.")
@click.option("--junit", type=REPORT, help="Write a JUnit XML report.")
@click.option(
    "--html", type=REPORT, help="Write one HTML page for all runs. Needs the extra [report]."
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@click.option(
    "--guide",
    type=FILE,
    help="Update the tables of this document from the runs. Their rows are "
    "in NAME.tables.toml, beside NAME.md.",
)
@click.option(
    "--check", is_flag=True, help="With --guide: exit with 1 if the figures differ from the runs."
)
def report(
    run_files: tuple[Path, ...],
    markdown: Path | None,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
    guide: Path | None,
    check: bool,
) -> int:
    """Print a stored run or convert it to a report.

    Prints a table by default. The file name `-` is the standard output. With
    --guide, updates the tables in a document from one or several runs. Each row
    comes from the newest run that has it.

    \b
    Examples:
      trae-bench report RUN.json
      trae-bench report RUN.json --markdown -
      trae-bench report RUN.json --json
      trae-bench report BASE.json HEAD.json --html report.html
      trae-bench report results/*.json --guide docs/performance.md --check
    """
    outputs = {"Markdown": markdown, "JUnit": junit, "Page": html}
    files = {what: path for what, path in outputs.items() if path is not None}
    if guide is not None:
        if files or as_json:
            raise UsageError("--guide takes only --check; write other reports separately")
        return render_guide(guide, run_files, check=check)
    if check:
        raise UsageError("--check needs --guide FILE")
    if len(run_files) > 1 and (html is None or markdown or junit or as_json):
        raise UsageError("one run at a time; only --html FILE and --guide FILE take several")
    on_stdout(markdown, junit, html, as_json=as_json)
    from trae_bench.run.runner import read_result

    results = [read_result(path) for path in run_files]
    if html is not None:
        _write_page(html, results)
    if (markdown or junit) and (error := write_reports(results[0], markdown, junit)):
        raise error
    if as_json or not files:
        show_result(results[0], as_json=as_json)
    for what, path in files.items():
        print_path(what, path)
    return 0


def _write_page(path: Path, results: "Sequence[Result]") -> None:
    from trae_bench.report.html import Source, page

    sources = [Source(result.run_file.name, result.run, result.claimed) for result in results]
    write(path, [page(sources)])


@click.command()
@click.argument("run_file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def effects(run_file: Path, as_json: bool) -> None:
    """Attribute the effects in a run to toggles.

    \b
    Prints the main effect of each toggle, the interactions of pairs of toggles, and
    whether the parts add up to the whole. The --design of the run decides what can
    be estimated:
      add-one     the effect of each toggle alone
      remove-one  the effect of each toggle with all others on
      both        both of these, and all toggles together
      fraction    main effects, not confounded with two-way interactions
                  (16 runs for 5 to 8 toggles)
      factorial   main effects and two-way interactions (64 runs for 7 toggles)
      full        every combination of toggles

    \b
    Examples:
      trae-bench run bugfix --design both --out both.json
      trae-bench effects both.json
    """
    from trae_bench.report.text import attribution
    from trae_bench.storage.run_file import read_run

    run = read_run(run_file)
    attributed = attribution.of_run(run)
    if as_json:
        print_json(attributed)
    else:
        show_noise(run)
        click.echo(attribution.text(attributed, run.header.metrics, width=terminal_width()))


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(files: tuple[Path, ...], as_json: bool) -> int:
    """Check that run files are consistent.

    Recomputes every estimate and verdict from the samples. Checks the plan, the
    order, the times and the values for contradictions. The exit code is 4 if a file
    contradicts itself.

    \b
    Examples:
      trae-bench verify RUN.json
      trae-bench verify results/*.json --json
    """
    checks = {str(file): _verify(file) for file in files}
    if as_json:
        print_json(checks)
    else:
        from trae_bench.storage.verify import UNDETECTABLE

        for file, check in checks.items():
            _show_check(file, check)
        if any(check["error"] is None for check in checks.values()):
            limits = f"verify cannot detect: {'; '.join(UNDETECTABLE)}."
            click.echo("\n" + click.wrap_text(limits, terminal_width()))
    consistent = all(check["holds"] for check in checks.values())
    return 0 if consistent else CannotMeasure.exit_code


def _verify(file: Path) -> dict[str, Any]:
    from trae_bench.storage.run_file import read_run
    from trae_bench.storage.verify import origin
    from trae_bench.storage.verify import verify as find

    try:
        run = read_run(file)
    except BadRunFile as error:
        return {"holds": False, "error": str(error), "origin": (), "findings": []}
    findings = find(run)
    consistent = all(finding.severity != "wrong" for finding in findings)
    return {"holds": consistent, "error": None, "origin": origin(run), "findings": findings}


def _show_check(file: str, check: dict[str, Any]) -> None:
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text.listing import bullets

    if check["error"]:
        # The message begins with the name of the file.
        click.echo(for_terminal(check["error"], 2000))
        return
    verdict = "consistent" if check["holds"] else "NOT consistent"
    click.echo(f"{file_name(file)}: {verdict}")
    details = [*check["origin"], *check["findings"]]
    click.echo(bullets([str(detail) for detail in details], terminal_width()))


@click.command()
@click.argument("run_file", type=FILE)
@click.option(
    "--format", "format_", type=click.Choice(EXPORTS), required=True, help="Output format."
)
@click.option(
    "--side",
    type=click.Choice(("off", "on", "base", "head")),
    help="Export only this side, under names without the side. Use it for tools that compare "
    "two files.",
)
@click.option(
    "-o", "--out", type=REPORT, default="-", help="Output file. The default is standard output."
)
def export(run_file: Path, format_: str, side: str | None, out: Path) -> None:
    """Convert a run to the format of another tool.

    Data without a place in that format is left out. Other tools ignore the pairing
    of samples, so their verdicts can differ.

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
    print_path("Export", out)
