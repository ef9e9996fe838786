"""The command `trae-bench run`."""

import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench._util.keys import without_keys
from trae_bench.cli.common import (
    FILE,
    NEW_FILE,
    REPORT,
    RenamedOptions,
    check_writable,
    current_metrics,
    is_given,
    on_stdout,
    print_error,
    print_path,
)
from trae_bench.cli.completion import (
    complete_agent,
    complete_metric,
    complete_scenario,
    complete_toggle,
)
from trae_bench.cli.results import report_failure, show_result, write_reports
from trae_bench.errors import UsageError

if TYPE_CHECKING:
    from trae_bench.model.run import RunFile
    from trae_bench.run.planner import RunRequest
    from trae_bench.run.runner import Result

PROFILES = ("smoke", "quick", "full")
DESIGNS = ("add-one", "remove-one", "both", "fraction", "factorial", "full")
_MAX_COMMAND = 8000
"""Characters of the command line in a run file."""
RENAMED = {
    "--comment": "--markdown",
    "--only": "--filter",
    "--plan": "--dry-run",
    "--repeat-until": "--precision",
}
"""Options of the previous release."""


class Whole(click.IntRange):
    """A range of whole numbers, whose error gives an example."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number; write one such as 8.", param, ctx)
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A range that also rejects infinity and NaN, which passes every comparison of click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            float(value)
        except ValueError:
            example = "0.02" if self.max == 1 else "60"
            self.fail(f"{value!r} is not a number; write one such as {example}.", param, ctx)
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class RunCommand(RenamedOptions):
    """Rejects `--compare=-x`; click would parse the value as an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            if word.startswith("--compare=-"):
                raise UsageError(f"{word}: a commit, branch or file cannot begin with a dash")
        return super().parse_args(ctx, args)


@click.command(cls=RunCommand, renamed=RENAMED)
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...", shell_complete=complete_scenario)
@click.option(
    "--toggle",
    "toggles",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_toggle,
    help="Measure only this toggle. Can be repeated.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_metric,
    callback=current_metrics,
    help="Measure this metric instead of the scenario's metrics. Can be repeated.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="PATTERN",
    callback=current_metrics,
    help="Run only comparisons that match scenario/toggle/metric, such as 'bugfix/*/cpu'. Can be "
    "repeated.",
)
@click.option(
    "--design",
    type=click.Choice(DESIGNS),
    default="add-one",
    show_default=True,
    help="Experimental design: which toggle combinations to compare. `trae-bench effects --help` "
    "explains the designs.",
)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="quick",
    show_default=True,
    help="Preset of scenarios, pairs and time limit.",
)
@click.option(
    "--budget",
    type=Finite(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit. No new pair starts after it.",
)
@click.option(
    "--pairs",
    type=Whole(min=1),
    metavar="N",
    help="Maximum pairs per comparison, not counting the warm-up pair.",
)
@click.option(
    "--precision",
    type=Finite(min=0, max=1, min_open=True),
    metavar="FRACTION",
    help="Stop a comparison when its confidence interval is at most ± this fraction (0.02 is 2 %), "
    "whatever the verdict.",
)
@click.option(
    "--compare",
    is_flag=False,
    flag_value="",
    default=None,
    metavar="[REF|FILE.json]",
    help="Compare the working tree with this commit instead of toggles. Without a value: "
    "the merge base with the default branch. With a run file: measure toggles and compare with "
    "that run. Exit with 1 on a regression.",
)
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="AGENT",
    shell_complete=complete_agent,
    help="Measure this agent instead of the toggles: a name from `trae-bench agents list`, "
    "NAME=FOLDER with its code in FOLDER, a .toml file, or a command line with {base_url} and "
    "{task}. The first one is the baseline. Can be repeated.",
)
@click.option(
    "--equal",
    type=click.Choice(("conversation", "work")),
    help="What both sides must have equal: requests and files, or files only. The default is "
    "files for different agents, and what the agent's entry says for two revisions.",
)
@click.option(
    "--prices",
    type=FILE,
    help="File of prices for the metric cost. The default is the one that ships.",
)
@click.option("--strict", is_flag=True, help="Exit with 3 if a result is inconclusive.")
@click.option(
    "--seed",
    type=Whole(min=0, max=2**53),
    metavar="N",
    help="Seed for the pair order. Random by default.",
)
@click.option(
    "-o",
    "--out",
    type=NEW_FILE,
    help="Run file to write. The default is a new file in ./trae-bench-results.",
)
@click.option("--force", is_flag=True, help="Overwrite the run file and its journal.")
@click.option("--resume", type=FILE, metavar="JOURNAL", help="Resume an interrupted run.")
@click.option(
    "--trust",
    is_flag=True,
    help="With --resume: run the command lines and files of agents that the journal names. Read "
    "them first, if the journal is not yours.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
@click.option("--dry-run", is_flag=True, help="Print the plan without running it.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print no progress and no hints, only results and errors."
)
@click.option(
    "--keep-scratch",
    is_flag=True,
    help="Keep the working folder of every trial, next to the run file.",
)
@click.option("--markdown", type=REPORT, help="Write a Markdown report for a pull request.")
@click.option("--junit", type=REPORT, help="Write a JUnit XML report.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> int:
    """Measure the effect of each toggle, of a code change, or of another agent.

    Runs pairs of fresh processes: a toggle on and off, base and head with --compare,
    or two agents with --agent. SCENARIO is a name from `trae-bench list scenarios`, a
    path to a .toml file, or `all` for all scenarios and their variants.

    Ctrl-C keeps the samples; --resume continues the run.

    \b
    Examples:
      trae-bench run bugfix --toggle parallel_tools --budget 60
      trae-bench run 'trajectory-long@memory' --metric agent_rss --pairs 12
      trae-bench run all --filter '*/*/cpu' --dry-run
      trae-bench run bugfix fan-out --compare v1.2.0 --strict
      trae-bench run bugfix --agent 'my-agent --base-url {base_url} -p {task}'
      trae-bench run bugfix --agent old.toml --agent new.toml
      trae-bench run --resume trae-bench-results/NAME.journal.jsonl
    """
    if options["trust"] and options["resume"] is None:
        raise UsageError("--trust needs --resume; a new run starts what you name")
    if options["dry_run"] and options["resume"] is None:
        from trae_bench.cli.dry_run import show_plan

        request = _request(context, options)
        if options["strict"]:
            _check_strict(request)
        show_plan(request, as_json=options["as_json"])
        return 0
    markdown, junit = options["markdown"], options["junit"]
    report_on_stdout = on_stdout(markdown, junit, as_json=options["as_json"])
    for report in filter(None, (markdown, junit)):
        # Fail now rather than after an hour of measuring.
        check_writable(report)
    with report_failure(markdown, junit):
        request = _request(context, options)
        if options["resume"] is not None:
            _check_resume_options(context)
        elif options["strict"]:
            _check_strict(request)
        result = _measure(options, request)
    return _finish(result, request.stored, options, report_on_stdout=report_on_stdout)


def _finish(
    result: "Result", stored: "RunFile | None", options: dict[str, Any], *, report_on_stdout: bool
) -> int:
    """Print and write the results of a run and return the exit code."""
    from trae_bench.run.runner import scratch_of
    from trae_bench.verdicts.gate import outcome

    if result.run.stopped == "interrupted" or result.error is not None:
        # An incomplete run cannot be compared with a stored one. Its own report gives the reason.
        stored = None
    markdown = options["markdown"] if stored is None else None
    write_error = write_reports(result, markdown, options["junit"], summary=True)
    as_json, quiet = options["as_json"], options["quiet"]
    if not report_on_stdout or (as_json and stored is None):
        show_result(result, as_json=as_json, quiet=quiet)
    elif not as_json and result.written and not quiet:
        print_path("Run file", result.run_file)
    if options["keep_scratch"] and not quiet:
        print_path("Folders of the trials", scratch_of(result.run_file))
    if not as_json:
        _annotate(result)
    if result.error and write_error:
        print_error(f"Error: {write_error}")
    if error := result.error or write_error:
        raise error
    if stored is not None:
        return _compare_with_stored(stored, result, options)
    return outcome(result.run, claimed=result.claimed).code(strict=options["strict"])


def _compare_with_stored(stored: "RunFile", result: "Result", options: dict[str, Any]) -> int:
    """Compare with a stored run. This report replaces the report of the run."""
    from trae_bench.cli.compare import show_run_diff

    return show_run_diff(
        (stored, result.run),
        as_json=options["as_json"],
        markdown=options["markdown"],
        strict=options["strict"],
    )


def _request(context: click.Context, options: dict[str, Any]) -> "RunRequest":
    """The request for the planner, from the command line and the project's settings."""
    from trae_bench.run.gate_base import find_base, settings_of_run
    from trae_bench.run.planner import RunRequest
    from trae_bench.run.settings import Settings, find_agents_here, load
    from trae_bench.storage.baselines import read_base
    from trae_bench.subject.agent_core import PACKAGE

    stored = None
    if (options["compare"] or "").endswith(".json"):
        path = Path(options["compare"])
        if not path.is_file():
            raise UsageError(f"{path}: no such run file to compare with")
        stored = read_base(path, remedy="give a run of toggles, or a commit")
        options = options | {"compare": None}
        if not options["scenarios"]:
            options = options | {"scenarios": _scenarios_of(stored, path)}
    settings = Settings()
    # A resumed run keeps its settings and agents in its journal.
    if options["resume"] is not None:
        options = options | {"compare": None, "agents": {}}
    else:
        settings = load(Path.cwd())
        of_toggles = options["toggles"] or options["design"] != "add-one"
        wanted = options["agents"] or (() if of_toggles else tuple(settings.agents))
        # The command line goes to the run file. The scripted provider checks no key.
        named = [without_keys(text) for text in wanted]
        options = options | {"agents": find_agents_here(named) if named else {}}
        if options["compare"] is not None:
            package = "" if options["agents"] else PACKAGE
            base = find_base(options["compare"], Path.cwd(), package)
            options, settings = options | {"compare": base}, base.settings
        elif stored is not None:
            settings, notes = settings_of_run(stored, settings)
            for note in notes:
                print_error(f"Note: {note}")
    if not is_given(context, "profile"):
        options = options | {"profile": settings.profile or options["profile"]}
    fields = {name: options[name] for name in RunRequest.__struct_fields__ if name in options}
    # A file name on the command line may be invalid UTF-8.
    command = shlex.join(["trae-bench", *map(without_keys, context.obj)])
    # A longer one would make the run file unreadable.
    command = command.encode(errors="backslashreplace").decode()[:_MAX_COMMAND]
    return RunRequest(command=command, settings=settings, stored=stored, **fields)


def _scenarios_of(stored: "RunFile", path: Path) -> tuple[str, ...]:
    """The names of the scenarios of a stored run.

    Raises `UsageError` if one does not ship with trae-bench. Scenarios run commands, so a run
    file from an untrusted source must not choose them.
    """
    from trae_bench.scenario import catalogue, split

    known = catalogue()
    for name, used in stored.header.scenarios.items():
        if used.requested != name or split(name)[0] not in known:
            raise UsageError(
                f"{path}: scenario {used.requested!r} does not ship with this release; name the "
                "scenarios to run"
            )
    return tuple(stored.header.scenarios)


def _check_strict(request: "RunRequest") -> None:
    """Raises `UsageError` if the profile never gives a verdict."""
    from trae_bench.model.presets import PROFILES

    if request.stored is None and not PROFILES[request.profile].claimed:
        raise UsageError(
            f"--strict needs verdicts, but profile {request.profile} gives none; leave out "
            "--strict or choose another profile"
        )


def _measure(options: dict[str, Any], request: "RunRequest") -> "Result":
    """Start or resume the run, with progress on stderr."""
    from trae_bench.cli.progress import progress
    from trae_bench.run import runner

    with progress(sys.stderr, quiet=options["quiet"]) as (say, listener):
        bench = runner.Bench(say, listener, keep_scratch=options["keep_scratch"])
        if options["resume"] is None:
            return runner.start(request, options["out"], force=options["force"], bench=bench)
        return runner.resume(
            options["resume"], request, options["out"], bench=bench, trusted=options["trust"]
        )


RESUME_OPTIONS = frozenset(
    {"budget", "out", "as_json", "quiet", "keep_scratch", "markdown", "junit", "strict", "trust"}
)


def _check_resume_options(context: click.Context) -> None:
    """Raises `UsageError` for an option that would change a resumed run."""
    parameters = {parameter.name or "": parameter for parameter in context.command.params}
    allowed = [_long_name(parameters[name]) for name in parameters if name in RESUME_OPTIONS]
    for name, parameter in parameters.items():
        if is_given(context, name) and name not in {*RESUME_OPTIONS, "resume"}:
            option = _long_name(parameter) if isinstance(parameter, click.Option) else "SCENARIO"
            raise UsageError(
                f"{option} cannot be combined with --resume, only {', '.join(allowed)} can; a "
                "resumed run keeps its other options"
            )


def _long_name(option: click.Parameter) -> str:
    return max(option.opts, key=len)


def _annotate(result: "Result") -> None:
    """Print annotations if this is a job on GitHub."""
    from trae_bench.report.text import ci

    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in ci.annotations(result.run, claimed=result.claimed):
            click.echo(line)
