"""Commands that compare with a stored run: `compare`, `baseline`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench.cli.common import (
    FILE,
    REPORT,
    file_name,
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
    help="Where results are kept.",
)


@click.command()
@click.argument("base", type=FILE)
@click.argument("head", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--comment", type=REPORT, help="Write Markdown, for a pull request.")
@click.option("--strict", is_flag=True, help="End in 3 where a gated row stays open.")
def compare(base: Path, head: Path, as_json: bool, comment: Path | None, strict: bool) -> int:
    """Compare two stored runs.

    \b
    Machines and days differ, so each kind of figure is held to what travels:
      counters       exactly
      toggle ratios  on to off, each taken on one machine
      memory         with a margin of its own, on machines of one kind
      times          for information only, never gated
    Ends in 1 where a gated row is a regression, in 4 where nothing could be
    compared.

    \b
    Examples:
      trae-bench compare BASE.json HEAD.json
      trae-bench compare BASE.json HEAD.json --comment comment.md --strict
    """
    on_stdout(comment, as_json=as_json)
    from trae_bench.storage.baselines import read_base

    runs = read_base(base), read_base(head)
    return show_across(runs, as_json=as_json, comment=comment, strict=strict)


def show_across(
    runs: "tuple[RunFile, RunFile]", *, as_json: bool, comment: Path | None, strict: bool
) -> int:
    """Compare a base and a head, write and print all that is asked for; the exit code.

    Raises `CannotMeasure` after that, where there was nothing to compare or no place to write to.
    """
    from trae_bench.report.text import run_diff as across_text
    from trae_bench.verdicts.run_diff import compare_runs, exit_code

    found = compare_runs(*runs)
    code = exit_code(found, strict=strict)
    unwritten = None
    if comment is not None:
        try:
            write(comment, [across_text.comment(found, runs)])
        except CannotMeasure as error:
            unwritten = error
    if as_json:
        noise = {"base": runs[0].noise, "head": runs[1].noise}
        shown = {"exit_code": code, "same_kind": found.same_kind, "noise": noise, "found": found}
        print_json(shown)
    elif str(comment) != "-":
        click.echo(across_text.text(found, runs, width=terminal_width()))
    if unwritten is not None:
        raise unwritten
    if code == CannotMeasure.exit_code:
        raise CannotMeasure("nothing that is gated could be compared; the report says why")
    return code


@click.group()
def baseline() -> None:
    """Keep a run to compare later ones with.

    One run file for each set of scenarios and kind of machine, in
    results/baselines.

    \b
    Examples:
      trae-bench baseline set RUN.json
      trae-bench baseline show
    """


@baseline.command("set")
@click.argument("run_file", type=FILE)
@FOLDER
@click.option("--force", is_flag=True, help="Also a run that contradicts itself, or is dirty.")
def set_baseline(run_file: Path, folder: Path, force: bool) -> None:
    """Make a run the baseline of its scenarios.

    For machines of its kind; it takes the place of an older one. A run that
    contradicts itself is refused, and so is one of changes that are not committed.

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
    """List the baselines that there are.

    Those for machines of this one's kind come first, marked with a star.

    \b
    Examples:
      trae-bench baseline show
      trae-bench baseline show --json
    """
    from trae_bench._util.host_facts import fingerprint, kind_of
    from trae_bench.storage.baselines import kept

    named = context.get_parameter_source("folder") is not click.core.ParameterSource.DEFAULT
    if named and not folder.is_dir():
        raise UsageError(f"no folder {str(folder)!r}; name the one that results are kept in")
    facts = fingerprint()
    found = kept(folder, facts)
    if as_json:
        print_json({"machine": kind_of(facts), "baselines": found})
        return
    click.echo(f"This machine: {kind_of(facts)}")
    if not found:
        click.echo(f"No baselines in {file_name(folder)}.")
    else:
        _show_baselines(found)


def _show_baselines(found: "list[Baseline]") -> None:
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.text.listing import names

    for one in found:
        star = "*" if one.fits else " "
        if one.problem:
            click.echo(f"{star} {for_terminal(one.problem, 1000)}")
            continue
        click.echo(f"{star} {for_terminal(', '.join(one.scenarios), 1000)}")
        facts = {
            "measured": one.created,
            "commit": one.commit[:12] or "unknown",
            "machine": one.machine,
            "file": one.path,
        }
        click.echo(names(facts, terminal_width()))
