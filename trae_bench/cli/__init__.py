"""The command line of trae-bench: the only package that prints or exits.

Each module holds a group of commands. A command imports what it needs when it runs, so that
`--help` and `list` stay fast.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

import click

from trae_bench.cli.agents import agents
from trae_bench.cli.bill import bill
from trae_bench.cli.bisect import bisect
from trae_bench.cli.claims import claims
from trae_bench.cli.common import INTERRUPTED, print_error
from trae_bench.cli.compare import baseline, compare
from trae_bench.cli.doctor import doctor
from trae_bench.cli.explain import explain
from trae_bench.cli.history import history
from trae_bench.cli.plot import plot
from trae_bench.cli.record import record
from trae_bench.cli.run import run
from trae_bench.cli.scenarios import list_names, schema, show, validate
from trae_bench.cli.stored import effects, export, report, verify
from trae_bench.errors import BenchError, CannotMeasure

EXAMPLES = """\b
Examples:
  trae-bench run                             run the default scenarios, 5 min
  trae-bench run --profile smoke             check that all works, under 1 min
  trae-bench run bugfix --toggle parallel_tools --budget 60
  trae-bench run my-session.toml --dry-run   print the plan without running it
  trae-bench run --resume trae-bench-results/NAME.journal.jsonl
  trae-bench verify trae-bench-results/NAME.json
  trae-bench list toggles
  trae-bench run bugfix --agent mini-swe-agent --agent openai-agents
  trae-bench bill bugfix --agent mini-swe-agent
  trae-bench doctor                          measure the noise of this machine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of the process.

    Turns every error into a message. Errors raised on purpose print no traceback. An unexpected
    error never returns 1, the exit code of a regression.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    _handle_signals()
    code = _run_command(args)
    _flush_streams()
    return code


def _run_command(args: list[str]) -> int:
    try:
        code = cli.main(args, prog_name="trae-bench", standalone_mode=False, obj=args)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return _report_error(error.exit_code, error.show)
    except BenchError as error:
        return _report_error(error.exit_code, print_error, f"Error: {error}")
    except (click.Abort, KeyboardInterrupt):
        hint = "Interrupted."
        if "run" in args[:1]:
            hint += " If a journal was written, resume with --resume."
        return _report_error(INTERRUPTED, print_error, hint)
    except BrokenPipeError:
        return INTERRUPTED
    except SystemExit as error:
        # Click exits with 0 after shell completion, with 1 if the output pipe is closed.
        return INTERRUPTED if error.code else 0
    except OSError as error:
        message = f"Error: {error.filename or 'the output'}: {error.strerror or error}"
        return _report_error(CannotMeasure.exit_code, print_error, message)
    except Exception:
        message = f"Error: a bug in trae-bench; please report it:\n{traceback.format_exc()}"
        return _report_error(CannotMeasure.exit_code, print_error, message)


def _open_closed_streams() -> None:
    """Replace a standard stream that is closed (`>&-`) by the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _handle_signals() -> None:
    """Treat SIGTERM and SIGHUP like Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)


def _report_error(code: int, show: Callable[..., object], *message: str) -> int:
    """Show an error and return the exit code, even if stderr cannot be written."""
    with suppress(OSError):
        show(*message)
    return code


def _flush_streams() -> None:
    """Flush the standard streams; redirect those that fail to the null device.

    Otherwise Python flushes them again at exit, fails, and changes the exit code to 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from trae_bench.cli.version import version_text

        click.echo(version_text())
        context.exit()


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Print the versions that a bug report needs, and exit.",
)
def cli() -> None:
    """Measure how much each optimisation of an LLM agent saves.

    trae-bench runs scripted sessions in pairs of fresh processes, one with the
    optimisation and one without. It checks that both give the same answers and
    reports every effect with its confidence interval. It compares two revisions of
    an agent, and different agents, in the same way.
    """


for command in (
    run,
    list_names,
    agents,
    bill,
    doctor,
    validate,
    show,
    record,
    schema,
    effects,
    verify,
    export,
    report,
    claims,
    explain,
    compare,
    bisect,
    history,
    baseline,
    plot,
):
    cli.add_command(command)
