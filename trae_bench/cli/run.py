"""`trae-bench run`."""

import math
import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench.cli.common import (
    FILE,
    REPORT,
    make_room,
    on_stdout,
    print_json,
    say_where,
    tell,
    terminal_width,
)
from trae_bench.cli.results import reported, show_result, write_reports
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.model.experiment import Cell
    from trae_bench.model.run import RunFile
    from trae_bench.run.duration import Span
    from trae_bench.run.planner import Plan, RunRequest
    from trae_bench.run.runner import Result

HOUR = 3600
PROFILES = ("smoke", "quick", "full")
DESIGNS = ("add-one", "remove-one", "both", "fraction", "factorial", "full")


class Finite(click.FloatRange):
    """No infinity, and no NaN, which lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class _Run(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click would take what `--compare=` is followed by for an option, if it looks like one."""
        for word in args:
            if word.startswith("--compare=-"):
                raise UsageError(f"{word}: no commit, branch or file; none begins with a dash")
        return super().parse_args(ctx, args)


@click.command(cls=_Run)
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
@click.option(
    "--toggle", "toggles", multiple=True, metavar="NAME", help="Only this toggle. Repeat for more."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="This metric in place of the scenario's. Repeat for more.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only comparisons that match, such as 'bugfix/*/cpu' (scenario/toggle/metric). Repeat "
    "for more.",
)
@click.option(
    "--design",
    type=click.Choice(DESIGNS),
    default="add-one",
    show_default=True,
    help="Which arms are compared; see `trae-bench effects`.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="quick",
    show_default=True,
    help="How long and how sure.",
)
@click.option(
    "--budget",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    help="Start no pair after this time.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N counted pairs for each comparison, of those that its rule looks at.",
)
@click.option(
    "--repeat-until",
    "precision",
    type=Finite(min=0, max=1, min_open=True),
    metavar="PRECISION",
    help="End a comparison at intervals of this half-width (0.02 is 2 %), not at a verdict.",
)
@click.option(
    "--compare",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[REF|FILE.json]",
    help="Compare the working tree with this commit in place of toggles, by default with where it "
    "left the default branch; or toggles with a stored run. End in 1 at a regression.",
)
@click.option("--strict", is_flag=True, help="End in 3 where something is inconclusive.")
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**53),
    metavar="N",
    help="Of the order of the pairs; drawn where not given.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Run file; by default in ./trae-bench-results.",
)
@click.option("--force", is_flag=True, help="Overwrite the run file and its journal.")
@click.option(
    "--resume",
    type=FILE,
    metavar="JOURNAL",
    help="Go on with an interrupted run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be run, and stop.")
@click.option(
    "--keep-scratch", is_flag=True, help="Keep the folders of all trials beside the run file."
)
@click.option("--comment", type=REPORT, help="Write a report in Markdown, for a pull request.")
@click.option("--junit", type=REPORT, help="Write a report in JUnit's XML.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> int:
    """Measure what each toggle changes, or what a change of the code does.

    On against off, or with --compare base against head, in pairs of fresh processes.
    A SCENARIO is a name (see `trae-bench list scenarios`), a path to a .toml file, or
    `all`: every one that there is, with its variants.
    Ctrl-C keeps what was measured; `--resume` goes on from it.

    \b
    Examples:
      trae-bench run bugfix --toggle parallel_tools --budget 60
      trae-bench run 'trajectory-long@memory' --metric agent_rss --pairs 12
      trae-bench run all --only '*/*/cpu' --plan
      trae-bench run bugfix fan-out --compare v1.2.0 --strict
      trae-bench run --resume trae-bench-results/NAME.journal.jsonl
    """
    if options["plan_only"] and options["resume"] is None:
        wish = _wish(context, options)
        if options["strict"]:
            _verdicts_of(wish)
        _show_plan(wish, as_json=options["as_json"])
        return 0
    taken = on_stdout(options["comment"], options["junit"], as_json=options["as_json"])
    from trae_bench.run.runner import scratch_of
    from trae_bench.verdicts.gate import outcome

    for report in filter(None, (options["comment"], options["junit"])):
        # Not to find out after an hour.
        make_room(report)
    with reported(options["comment"], options["junit"]):
        wish = _wish(context, options)
        if options["resume"] is not None:
            _only_with_resume(context)
        elif options["strict"]:
            _verdicts_of(wish)
        result = _measure(options, wish)
    # Without a whole run there is nothing to compare; then its own report says why.
    whole = result.run.stopped != "interrupted" and result.error is None
    stored = wish.stored if whole else None
    comment = options["comment"] if stored is None else None
    unwritten = write_reports(result, comment, options["junit"], summary=True)
    if not taken or (options["as_json"] and stored is None):
        show_result(result, as_json=options["as_json"])
    elif not options["as_json"] and result.written:
        say_where("Run file", result.run_file)
    if options["keep_scratch"]:
        say_where("Folders of the trials", scratch_of(result.run_file))
    _tell_ci(result, as_json=options["as_json"])
    if result.error and unwritten:
        tell(f"Error: {unwritten}")
    if error := result.error or unwritten:
        raise error
    if stored is not None:
        return _against(stored, result, options)
    return outcome(result.run, claimed=result.claimed).code(strict=options["strict"])


def _against(stored: "RunFile", result: "Result", options: dict[str, Any]) -> int:
    """What has changed since a stored run; its report takes the place of the run's own."""
    from trae_bench.cli.gate import show_across

    return show_across(
        (stored, result.run),
        as_json=options["as_json"],
        comment=options["comment"],
        strict=options["strict"],
    )


def _wish(context: click.Context, options: dict[str, Any]) -> "RunRequest":
    from trae_bench.run.planner import RunRequest
    from trae_bench.run.settings import Settings, load
    from trae_bench.storage.baselines import read_base

    stored = None
    if (options["compare"] or "").endswith(".json"):
        path = Path(options["compare"])
        if not path.is_file():
            raise UsageError(f"{path}: no such run file to compare with")
        stored = read_base(path, remedy="give a run of toggles, or a commit")
        options = options | {"compare": None}
        if not options["scenarios"]:
            options = options | {"scenarios": _scenarios_of(stored, path)}
    # A resumed run has its own.
    settings = load(Path.cwd()) if options["resume"] is None else Settings()
    if context.get_parameter_source("profile") is click.core.ParameterSource.DEFAULT:
        options = options | {"profile": settings.profile or options["profile"]}
    asked = {name: options[name] for name in RunRequest.__struct_fields__ if name in options}
    # A file's name need not be text.
    command = shlex.join(["trae-bench", *context.obj]).encode(errors="backslashreplace").decode()
    asked["filters"] = options["only"]
    return RunRequest(command=command, settings=settings, stored=stored, **asked)


def _scenarios_of(stored: "RunFile", path: Path) -> tuple[str, ...]:
    """The names of those that a stored run is of. Raises `UsageError` for any but those that ship:
    a run file may come from a stranger, and an oracle's command is run."""
    from trae_bench.scenario import catalogue, split

    known = catalogue()
    for name, used in stored.header.scenarios.items():
        if used.requested != name or split(name)[0] not in known:
            raise UsageError(
                f"{path}: scenario {used.requested!r} does not ship with this release; name the "
                "scenarios to run"
            )
    return tuple(stored.header.scenarios)


def _verdicts_of(wish: "RunRequest") -> None:
    """Raises `UsageError` where nothing could ever be conclusive."""
    from trae_bench.model.presets import PROFILES

    if wish.stored is None and not PROFILES[wish.profile].claimed:
        raise UsageError(
            f"--strict asks for verdicts, and profile {wish.profile} gives none; leave one out"
        )


def _measure(options: dict[str, Any], wish: "RunRequest") -> "Result":
    """Run with a progress line on stderr."""
    import time

    from trae_bench.report.text.progress import ProgressLine
    from trae_bench.run import runner

    with ProgressLine(sys.stderr, time.monotonic) as listener:
        bench = runner.Bench(listener.say, listener, keep_scratch=options["keep_scratch"])
        if options["resume"] is None:
            return runner.start(wish, options["out"], force=options["force"], bench=bench)
        return runner.resume(options["resume"], wish, options["out"], bench=bench)


GO_WITH_RESUME = frozenset(
    {"budget", "out", "as_json", "keep_scratch", "comment", "junit", "strict"}
)


def _only_with_resume(context: click.Context) -> None:
    """A resumed run is the run that it was: what would change it is refused."""
    default = click.core.ParameterSource.DEFAULT
    parameters = {parameter.name or "": parameter for parameter in context.command.params}
    may = [parameters[name].opts[0] for name in parameters if name in GO_WITH_RESUME]
    for name, parameter in parameters.items():
        given = context.get_parameter_source(name) is not default
        if given and name not in {*GO_WITH_RESUME, "resume"}:
            asked = parameter.opts[0] if isinstance(parameter, click.Option) else "SCENARIO"
            raise UsageError(
                f"{asked} cannot go with --resume, only {', '.join(may)} can: all else is as it "
                "was when the run began"
            )


def _show_plan(wish: "RunRequest", *, as_json: bool) -> None:
    from trae_bench.report.text.listing import columns
    from trae_bench.report.text.progress import clock
    from trae_bench.run.duration import estimate
    from trae_bench.run.planner import plan as lay_out
    from trae_bench.run.runner import RESULTS

    plan = lay_out(wish)
    about = estimate(plan, RESULTS)
    if as_json:
        limits = {"limits": plan.limits, "pairs": plan.max_pairs, "seconds": about}
        print_json(limits | {"left_out": plan.left_out, "cells": plan.cells})
        return
    rows = [
        _in_columns(cell, plan.pairs_of(cell), span)
        for cell, span in zip(plan.cells, about.cells, strict=True)
        if not cell.confirms
    ]
    head = ("scenario", "toggle", "mode", "pairs", "about", "metrics")
    click.echo(columns(head, rows, terminal_width()))
    click.echo()
    for why in plan.left_out:
        click.echo(click.wrap_text(f"Left out: {why}.", terminal_width(), subsequent_indent="  "))
    budget = plan.limits.budget
    who = f"Profile {wish.profile}" if wish.budget is None else "With this --budget it"
    ends = f"takes {clock(budget)} minutes at most" if budget else "has no time limit"
    click.echo(
        f"At most {plan.max_pairs} pairs, the warming ones included; {_what_ends(plan)}."
        f"\nAbout {_in_words(about.total)}, {_by(about.guessed, plan.scenarios)}."
        f"\n{who} {ends}."
    )
    if budget and budget < about.total.minimum:
        click.echo("That is too little for most of it: name scenarios, or give a longer --budget.")
    most = max(plan.pairs_of(cell) for cell in plan.cells) - 1
    if wish.pairs is not None and wish.pairs > most:
        click.echo(f"No comparison takes more than {most} counted pairs, whatever --pairs says.")
    if plan.checkouts is not None:
        click.echo("Where head is slower, as many fresh pairs again are to confirm it.")


def _what_ends(plan: "Plan") -> str:
    """What makes it fewer pairs than the most."""
    if plan.limits.fixed:
        return "no verdict ends it earlier"
    if plan.limits.precision is not None:
        return "fewer once intervals are narrow"
    return "fewer where verdicts come early"


def _in_columns(cell: "Cell", pairs: int, span: "Span") -> tuple[str, ...]:
    names = ", ".join(cell.metrics)
    return cell.scenario, cell.contrast.name, cell.mode, str(pairs), _from_to(span), names


def _from_to(span: "Span") -> str:
    from trae_bench.report.text.progress import clock

    least, most = clock(span.minimum), clock(span.maximum)
    return least if least == most else f"{least}-{most}"


def _in_words(span: "Span") -> str:
    if span.maximum < HOUR:
        return f"{_from_to(span)} minutes"
    return f"{span.minimum / HOUR:.1f} to {span.maximum / HOUR:.1f} hours"


def _by(guessed: Collection[str], scenarios: Collection[str]) -> str:
    """What an estimate rests on."""
    if not guessed:
        return "by what these pairs took here before"
    if len(guessed) == len(scenarios):
        return "roughly guessed from the scenarios"
    return "by what pairs took here before, and where none did roughly guessed"


def _tell_ci(result: "Result", *, as_json: bool) -> None:
    from trae_bench.report.text import ci

    if os.environ.get("GITHUB_ACTIONS") == "true" and not as_json:
        for line in ci.annotations(result.run, claimed=result.claimed):
            click.echo(line)
