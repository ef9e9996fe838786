"""The command line: says what is wished for, shows what came of it, ends in an exit code.

Nothing else prints or exits. Rooms are imported where a command needs them, so that
`--help` and `list` stay quick.
"""

import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trae_bench import __version__
from trae_bench.errors import BadRunFile, BenchError, CannotMeasure, UsageError

if TYPE_CHECKING:
    from trae_bench.doctor import Checkup
    from trae_bench.laboratory import Plan, Result, Wish
    from trae_bench.scenario import Scenario

INTERRUPTED = 130
WIDEST = 120
PROFILES = ("smoke", "quick", "full")
EXPORTS = (
    "pyperf",
    "bmf",
    "github-action",
    "github-action-bigger",
    "pytest-benchmark",
    "hyperfine",
    "csv",
)
DESIGNS = ("add-one", "remove-one", "both", "fraction", "factorial", "full")

EXAMPLES = """\b
Examples:
  trae-bench run                          the default scenarios, at most 5 minutes
  trae-bench run --profile smoke          does it work here? seconds, no verdicts
  trae-bench run bugfix --toggle parallel_tools --budget 60
  trae-bench run my-session.toml --plan   what would be run, without running it
  trae-bench run --resume trae-bench-results/20260101T120000-quick.journal.jsonl
  trae-bench verify trae-bench-results/20260101T120000-quick.json
  trae-bench list toggles
  trae-bench doctor                       how noisy is this machine?
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is what the process should end in.

    This is the one place where an error becomes a message: no traceback for anything that
    was raised on purpose.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(args, prog_name="trae-bench", standalone_mode=False, obj=args)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BenchError as error:
        _tell(f"Error: {error}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _tell("Interrupted; a journal that was begun can be gone on with (--resume).")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trae-bench")
def cli() -> None:
    """Measure which optimisations of an agent are worth having, on which work, by how much.

    Two fresh processes a pair, equal answers first, and no number without its interval.
    """


RUN_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
REPORT = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
"""A file to write a report to; `-` is the standard output."""


# -- run --------------------------------------------------------------------------------


class Seconds(click.FloatRange):
    """A time that can be told from its end: no infinity, no NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


@cli.command()
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
    type=Seconds(min=0, min_open=True),
    metavar="SECONDS",
    help="Start no pair after this time.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N counted pairs for each comparison.",
)
@click.option(
    "--repeat-until",
    "precision",
    type=click.FloatRange(min=0, max=1, min_open=True),
    metavar="PRECISION",
    help="End a comparison at intervals of this half-width (0.02 is 2 %), not at a verdict.",
)
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
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
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
    """Measure what each toggle changes.

    On against off, in pairs of fresh processes. A SCENARIO is a name (see
    `trae-bench list scenarios`) or a path to a .toml file. Ctrl-C keeps what was
    measured; `--resume` goes on from it.
    """
    wish = _wish(context, options)
    if options["resume"] is not None:
        _only_with_resume(context)
    elif options["plan_only"]:
        from trae_bench.laboratory import plan

        _show_plan(plan(wish), wish, as_json=options["as_json"])
        return 0
    result = _measure(options, wish)
    unwritten = _write_reports(result, options["comment"], options["junit"], summary=True)
    _show_result(result, as_json=options["as_json"])
    _tell_ci(result, as_json=options["as_json"])
    if error := result.error or unwritten:
        raise error
    return INTERRUPTED if result.run.stopped == "interrupted" else 0


def _wish(context: click.Context, options: dict[str, Any]) -> "Wish":
    from trae_bench.laboratory import Wish

    return Wish(
        command=shlex.join(["trae-bench", *context.obj]),
        **{name: options[name] for name in Wish.__struct_fields__ if name != "command"},
    )


def _measure(options: dict[str, Any], wish: "Wish") -> "Result":
    """Run with a progress line on stderr; a terminal that hangs up is a Ctrl-C, too."""
    import time

    from trae_bench import laboratory
    from trae_bench.report.progress import ProgressLine

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with ProgressLine(sys.stderr, time.monotonic) as listener:
        bench = laboratory.Bench(listener.say, listener, keep_scratch=options["keep_scratch"])
        if options["resume"] is None:
            return laboratory.start(wish, options["out"], force=options["force"], bench=bench)
        return laboratory.resume(options["resume"], wish, options["out"], bench=bench)


GO_WITH_RESUME = frozenset(
    {"resume", "budget", "out", "as_json", "keep_scratch", "comment", "junit"}
)


def _only_with_resume(context: click.Context) -> None:
    """A resumed run is the run that it was: what would change it is refused."""
    default = click.core.ParameterSource.DEFAULT
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is not default
        if given and name not in GO_WITH_RESUME:
            asked = parameter.opts[0] if isinstance(parameter, click.Option) else "SCENARIO"
            raise UsageError(
                f"{asked} cannot go with --resume: all but --budget and --out is as it was when "
                "the run began"
            )


def _show_plan(plan: "Plan", wish: "Wish", *, as_json: bool) -> None:
    from trae_bench.report.listing import columns
    from trae_bench.report.progress import clock

    if as_json:
        _print_json({"limits": plan.limits, "pairs": plan.most_pairs, "cells": plan.cells})
        return
    rows = [
        (
            cell.scenario,
            cell.contrast.name,
            cell.mode,
            str(plan.pairs_of(cell)),
            ", ".join(cell.metrics),
        )
        for cell in plan.cells
    ]
    click.echo(columns(("scenario", "toggle", "mode", "pairs", "metrics"), rows, _width()))
    budget = plan.limits.budget
    ends = f"takes {clock(budget)} minutes at most" if budget else "has no time limit"
    early = "no verdict ends it earlier" if plan.limits.fixed else "fewer where verdicts come early"
    click.echo(
        f"\nAt most {plan.most_pairs} pairs, the warming ones included; {early}."
        f"\nProfile {wish.profile} {ends}."
    )


def _show_result(result: "Result", *, as_json: bool) -> None:
    from trae_bench.design import is_fixed
    from trae_bench.report import attribution, terminal

    run = result.run
    if as_json:
        fields = ("stopped", "noise", "comparisons")
        shown = {name: getattr(run, name) for name in fields}
        _print_json({"run_file": str(result.run_file), "claimed": result.claimed} | shown)
        return
    rows, metrics, width = run.comparisons, run.header.metrics, _width()
    if is_fixed(run.header.design):
        # The runs of a two-level design answer together.
        click.echo(attribution.text(attribution.of_run(run), metrics, width=width))
    else:
        coloured = _coloured(sys.stdout)
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


# -- effects ----------------------------------------------------------------------------


@cli.command()
@click.argument("run_file", type=RUN_FILE)
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
    """
    from trae_bench.report import attribution
    from trae_bench.store import read_run

    run = read_run(run_file)
    found = attribution.of_run(run)
    if as_json:
        _print_json(found)
    else:
        click.echo(attribution.text(found, run.header.metrics, width=_width()))


# -- stored runs ------------------------------------------------------------------------


@cli.command()
@click.argument("run_file", type=RUN_FILE)
@click.option("--comment", type=REPORT, help="Write Markdown, for a pull request.")
@click.option("--junit", type=REPORT, help="Write JUnit's XML.")
def report(run_file: Path, comment: Path | None, junit: Path | None) -> None:
    """Show a stored run again.

    As a table, or in the files that are named; `-` is the standard output.
    """
    from trae_bench.laboratory import Result, journal_of
    from trae_bench.store import read_run

    result = Result(read_run(run_file), run_file, journal_of(run_file), None)
    if comment is None and junit is None:
        _show_result(result, as_json=False)
    elif error := _write_reports(result, comment, junit):
        raise error


@cli.command()
@click.argument("run_file", type=RUN_FILE)
@click.option("--format", "format_", type=click.Choice(EXPORTS), required=True)
@click.option(
    "--side",
    type=click.Choice(("off", "on")),
    help="Only this side, its name without the word: for tools that compare two files.",
)
@click.option("--out", "-o", type=REPORT, default="-", help="By default the standard output.")
def export(run_file: Path, format_: str, side: str | None, out: Path) -> None:
    """Write a run in the format of another tool.

    What the tool has no place for is left out; its verdicts know nothing of pairs.
    """
    from trae_bench.report.export import SIDES, chunks
    from trae_bench.store import read_run

    _write(out, chunks(read_run(run_file), format_, SIDES[side] if side else None))


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=RUN_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(files: tuple[Path, ...], as_json: bool) -> int:
    """Check run files.

    Every estimate and verdict is worked out again from the samples; plan, order,
    times and figures are checked for what cannot be. Ends in 4 where a file
    contradicts itself.
    """
    found = {str(file): _verified(file) for file in files}
    if as_json:
        _print_json(found)
    else:
        from trae_bench.verify import CANNOT_TELL

        for file, checked in found.items():
            _show_verified(file, checked)
        click.echo(f"\nNo file can tell: {'; '.join(CANNOT_TELL)}.")
    holds = all(checked["holds"] for checked in found.values())
    return 0 if holds else CannotMeasure.exit_code


def _verified(file: Path) -> dict[str, Any]:
    from trae_bench.store import read_run
    from trae_bench.verify import origin
    from trae_bench.verify import verify as find

    try:
        run = read_run(file)
    except BadRunFile as error:
        return {"holds": False, "error": str(error), "origin": (), "findings": []}
    findings = find(run)
    holds = all(finding.weight != "wrong" for finding in findings)
    return {"holds": holds, "error": None, "origin": origin(run), "findings": findings}


def _show_verified(file: str, checked: dict[str, Any]) -> None:
    from trae_bench.report.escape import for_terminal
    from trae_bench.report.listing import bullets

    verdict = "holds together" if checked["holds"] else "does NOT hold together"
    click.echo(f"{for_terminal(file, 1000)}: {verdict}")
    told = [checked["error"]] if checked["error"] else [*checked["origin"], *checked["findings"]]
    click.echo(bullets([str(one) for one in told], _width()))


def _write_reports(
    result: "Result", comment: Path | None, junit: Path | None, *, summary: bool = False
) -> BenchError | None:
    """Whatever can be written is; the first thing that could not be comes back."""
    from trae_bench.report import ci, markdown
    from trae_bench.report.junit import junit as as_xml

    in_markdown = markdown.comment(result.run, claimed=result.claimed)
    jobs: list[Callable[[], object]] = []
    if comment:
        jobs.append(lambda: _write(comment, [in_markdown]))
    if junit:
        jobs.append(lambda: _write(junit, [as_xml(result.run, claimed=result.claimed)]))
    if summary:
        jobs.append(lambda: ci.add_to_summary(in_markdown, os.environ))
    errors = []
    for job in jobs:
        try:
            job()
        except CannotMeasure as error:
            errors.append(error)
    return errors[0] if errors else None


def _tell_ci(result: "Result", *, as_json: bool) -> None:
    from trae_bench.report import ci

    if os.environ.get("GITHUB_ACTIONS") == "true" and not as_json:
        for line in ci.annotations(result.run, claimed=result.claimed):
            click.echo(line)


def _write(path: Path, texts: Iterable[str]) -> None:
    """A file whole or not at all. Raises `CannotMeasure`."""
    if str(path) == "-":
        for text in texts:
            click.echo(text, nl=False)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(texts)
        part.replace(path)
    except OSError as error:
        raise CannotMeasure(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


# -- list -------------------------------------------------------------------------------


@cli.command("list")
@click.argument("what", type=click.Choice(("scenarios", "toggles", "metrics")), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_names(what: str | None, as_json: bool) -> None:
    """List scenarios, toggles and metrics.

    All three where none is named.
    """
    kinds = {"scenarios": _scenarios, "toggles": _toggles, "metrics": _metrics}
    found = {kind: kinds[kind]() for kind in ([what] if what else kinds)}
    if as_json:
        _print_json(found[what] if what else found)
        return
    from trae_bench.report.listing import names

    for number, (kind, of_kind) in enumerate(found.items()):
        if not what:
            click.echo(("\n" if number else "") + f"{kind}:")
        click.echo(names(of_kind, _width()))


def _scenarios() -> dict[str, str]:
    from trae_bench.scenario import catalogue, load

    found: dict[str, str] = {}
    for name, path in catalogue().items():
        scenario = load(path)
        found[name] = scenario.about
        found |= {f"{name}@{each.name}": each.about for each in scenario.variants}
    return found


def _toggles() -> dict[str, str]:
    from trae_bench.subject.reference import toggles

    return dict(toggles())


def _metrics() -> dict[str, str]:
    from trae_bench.meters import METRICS

    return {
        name: f"{metric.about} ({metric.unit or 'count'}, {metric.better} is better, {metric.mode})"
        for name, metric in METRICS.items()
    }


# -- scenario files ---------------------------------------------------------------------


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def validate(files: tuple[str, ...]) -> None:
    """Check scenario files.

    Says what is wrong with file, line, path and remedy. A FILE may be the name of a shipped
    scenario, too.
    """
    wrong = []
    for file in files:
        try:
            variants = len(_checked(file)) - 1
        except UsageError as error:
            wrong.append(str(error))
        else:
            also = f", with {variants} variant{'s' * (variants > 1)}" if variants else ""
            click.echo(f"{click.format_filename(file)}: ok{also}")
    if wrong:
        raise UsageError("\n".join(wrong))


@cli.command()
@click.argument("scenario")
def show(scenario: str) -> None:
    """Print a session as a person would read it.

    A SCENARIO is a name, or a path to a .toml file.
    """
    from trae_bench.report.session_text import session_text

    click.echo(session_text(_checked(scenario)[0], _width()))


@cli.command()
@click.argument("trajectory", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Scenario file to write; its name without .toml is the scenario's.",
)
@click.option("--workspace", default="", metavar="PATH", help="Folder that the session worked in.")
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="What lay in it at the start: text files, taken into the scenario.",
)
@click.option("--force", is_flag=True, help="Overwrite the scenario file.")
def record(trajectory: Path, out: Path, workspace: str, files: Path | None, force: bool) -> None:
    """Turn a recorded session into a scenario.

    TRAJECTORY is the file that agent-core or Trae Agent wrote.
    """
    from trae_bench.recording import read_trajectory, recorded, text_files
    from trae_bench.subject.reference import toggles

    if out.suffix != ".toml":
        raise UsageError(f"{out}: a scenario file is called NAME.toml")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; name another file with --out, or give --force")
    recording = recorded(
        read_trajectory(trajectory),
        out.stem,
        toggles=tuple(toggles()),
        workspace=workspace,
        files=text_files(files) if files else None,
    )
    out.write_text(recording.text, encoding="utf-8")
    for note in recording.notes:
        _tell(f"Note: {note}")
    click.echo(f"{click.format_filename(out)}: {len(recording.scenario.turns)} turns")


def _checked(asked: str) -> "list[Scenario]":
    """The scenario that is asked for, then its variants. Raises `UsageError`."""
    from trae_bench.meters import METRICS
    from trae_bench.scenario import check, find, load, split
    from trae_bench.subject.reference import toggles

    path = find(asked)
    first = load(path, split(asked)[1])
    found = [first, *(load(path, variant.name) for variant in first.variants)]
    for scenario in found:
        check(scenario, toggles=toggles(), metrics=METRICS, source=path)
    return found


# -- doctor -----------------------------------------------------------------------------


@cli.command()
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="A/A pairs of each mode to find the noise with; 0 is none.",
)
@click.option("--quick", is_flag=True, help="Leave the noise out; it takes some 20 seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(pairs: int, quick: bool, as_json: bool) -> None:
    """Say how noisy this machine is.

    And what would make it quieter; nothing is changed, and no special right is needed.
    """
    import time

    from trae_bench.doctor import checkup
    from trae_bench.laboratory import Bench
    from trae_bench.report.progress import ProgressLine

    with ProgressLine(sys.stderr, time.monotonic) as listener:
        found = checkup(Bench(listener.say, listener), 0 if quick else pairs)
    if as_json:
        _print_json(found)
    else:
        _show_checkup(found)


def _show_checkup(found: "Checkup") -> None:
    from trae_bench.meters import METRICS
    from trae_bench.report.listing import bullets, names
    from trae_bench.report.terminal import noise_table, quantity

    facts = {
        name: quantity(value, "B") if name.startswith("memory") else str(value)
        for name, value in found.machine.items()
    }
    cost = found.provider
    advice = [*map(str, found.findings), *found.advice] or ["nothing to change was found"]
    click.echo("Machine:")
    click.echo(names(facts, _width()))
    click.echo("\nFindings:")
    click.echo(bullets(advice, _width()))
    click.echo(
        f"\nProvider: {cost.cpu_seconds * 1e6:.0f} µs of its own CPU a request "
        f"({cost.requests} requests of {cost.body_bytes} bytes)"
    )
    if found.noise:
        click.echo(f"\nNoise of A/A pairs:\n{noise_table(found.noise, METRICS, width=_width())}")


# -- what is printed --------------------------------------------------------------------


def _print_json(value: object) -> None:
    import msgspec

    from trae_bench.report.escape import for_json

    click.echo(for_json(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def _tell(message: str) -> None:
    """On stderr. Parts of a message may come from a file of a stranger."""
    from trae_bench.report.escape import for_terminal

    for line in message.splitlines():
        click.echo(for_terminal(line, 1000), err=True)


def _width() -> int:
    return max(80, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))


def _coloured(stream: Any) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return bool(stream.isatty() and not plain)
