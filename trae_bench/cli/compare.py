"""Commands that compare stored runs: `compare` and `baseline`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import (
    FILE,
    REPORT,
    RenamedOptions,
    file_name,
    is_given,
    on_stdout,
    print_json,
    terminal_width,
    write,
)
from trae_bench.errors import CannotMeasure, UsageError

if TYPE_CHECKING:
    from trae_bench.model.run import RunFile
    from trae_bench.storage.baselines import Baseline

FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="results",
    show_default=True,
    help="Results folder; the baselines are in its subfolder `baselines`.",
)


@click.command(cls=RenamedOptions, renamed={"--comment": "--markdown"})
@click.argument("base", type=FILE)
@click.argument("head", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", type=REPORT, help="Write a Markdown report for a pull request.")
@click.option("--strict", is_flag=True, help="Exit with 3 if a gated row is inconclusive.")
def compare(base: Path, head: Path, as_json: bool, markdown: Path | None, strict: bool) -> int:
    """Compare two stored runs.

    \b
    The two runs may come from different machines and days. So each kind of metric
    is compared in a way that does not depend on the machine:
      counters       exactly
      toggle ratios  off/on ratios, each measured on one machine
      memory         with an extra margin, between machines of the same kind
      times          shown only; they never affect the exit code

    The exit code is 1 if a counter, ratio or memory row is a regression, and 4 if no row can be
    compared.

    \b
    Examples:
      trae-bench compare BASE.json HEAD.json
      trae-bench compare BASE.json HEAD.json --markdown comment.md --strict
    """
    on_stdout(markdown, as_json=as_json)
    from trae_bench.storage.baselines import read_base

    runs = read_base(base), read_base(head)
    return show_run_diff(runs, as_json=as_json, markdown=markdown, strict=strict)


def show_run_diff(
    runs: "tuple[RunFile, RunFile]", *, as_json: bool, markdown: Path | None, strict: bool
) -> int:
    """Compare a base with a head, print and write the reports, and return the exit code.

    Raises `CannotMeasure`, after printing, if nothing was compared or a file cannot be written.
    """
    from trae_bench.report.text import run_diff as run_diff_text
    from trae_bench.verdicts.run_diff import compare_runs, exit_code

    found = compare_runs(*runs)
    code = exit_code(found, strict=strict)
    write_error = None
    if markdown is not None:
        try:
            write(markdown, [run_diff_text.comment(found, runs)])
        except CannotMeasure as error:
            write_error = error
    if as_json:
        noise = {"base": runs[0].noise, "head": runs[1].noise}
        shown = {"exit_code": code, "same_kind": found.same_kind, "noise": noise, "found": found}
        print_json(shown)
    elif str(markdown) != "-":
        click.echo(run_diff_text.text(found, runs, width=terminal_width()))
    if write_error is not None:
        raise write_error
    if code == CannotMeasure.exit_code:
        raise CannotMeasure("no gated row could be compared; the report gives the reasons")
    return code


@click.group()
def baseline() -> None:
    """Store a run as the baseline for later comparisons.

    Keeps one run file per set of scenarios and kind of machine, in
    results/baselines.

    \b
    Examples:
      trae-bench baseline set RUN.json
      trae-bench baseline show
    """


@baseline.command("set")
@click.argument("run_file", type=FILE)
@FOLDER
@click.option(
    "--force", is_flag=True, help="Accept a run that is inconsistent or of uncommitted changes."
)
def set_baseline(run_file: Path, folder: Path, force: bool) -> None:
    """Make a run the baseline of its scenarios.

    The baseline is valid for machines of the same kind and replaces an older one.
    Inconsistent runs and runs of uncommitted changes are refused.

    \b
    Examples:
      trae-bench run bugfix --profile full --out bugfix.json
      trae-bench baseline set bugfix.json
    """
    from trae_bench.storage.baselines import keep

    path = keep(run_file, folder, force=force)
    click.echo(f"Kept as {file_name(path)}")


@baseline.command("show")
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show_baselines(context: click.Context, /, folder: Path, as_json: bool) -> None:
    """List the stored baselines.

    Baselines for this kind of machine come first and are marked with a star.

    \b
    Examples:
      trae-bench baseline show
      trae-bench baseline show --json
    """
    from trae_bench._util.host_facts import fingerprint, kind_of
    from trae_bench.storage.baselines import kept

    if is_given(context, "folder") and not folder.is_dir():
        raise UsageError(f"no folder {str(folder)!r}; name the folder that holds the results")
    facts = fingerprint()
    baselines = kept(folder, facts)
    if as_json:
        print_json({"machine": kind_of(facts), "baselines": baselines})
        return
    click.echo(f"This machine: {kind_of(facts)}")
    if not baselines:
        click.echo(f"No baselines in {file_name(folder)}.")
    else:
        _show_baselines(baselines)


def _show_baselines(baselines: "list[Baseline]") -> None:
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text.listing import names

    for stored in baselines:
        star = "*" if stored.fits else " "
        if stored.problem:
            click.echo(f"{star} {for_terminal(stored.problem, 1000)}")
            continue
        click.echo(f"{star} {for_terminal(', '.join(stored.scenarios), 1000)}")
        facts = {
            "measured": stored.created,
            "commit": stored.commit[:12] or "unknown",
            "machine": stored.machine,
            "file": stored.path,
        }
        click.echo(names(facts, terminal_width()))
