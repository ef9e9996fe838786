"""The command line: says what is wished for, shows what came of it, ends in an exit code.

Nothing else prints or exits. One module a group of commands; rooms are imported where a
command needs them, so that `--help` and `list` stay quick.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

import click

from trae_bench import __version__
from trae_bench.cli.claims import claims
from trae_bench.cli.common import INTERRUPTED, tell
from trae_bench.cli.doctor import doctor
from trae_bench.cli.explain import explain
from trae_bench.cli.gate import baseline, compare
from trae_bench.cli.plot import plot
from trae_bench.cli.run import run
from trae_bench.cli.scenarios import list_names, record, show, validate
from trae_bench.cli.stored import effects, export, report, verify
from trae_bench.errors import BenchError, CannotMeasure

EXAMPLES = """\b
Examples:
  trae-bench run                          the default scenarios, at most 5 minutes
  trae-bench run --profile smoke          does it work here? a minute or two
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
    was raised on purpose. Whatever else goes wrong, it does not end in 1, which would be a
    regression.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    _take_terms()
    code = _ended(args)
    _hush()
    return code


def _ended(args: list[str]) -> int:
    try:
        code = cli.main(args, prog_name="trae-bench", standalone_mode=False, obj=args)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return _said(error.exit_code, error.show)
    except BenchError as error:
        return _said(error.exit_code, tell, f"Error: {error}")
    except (click.Abort, KeyboardInterrupt):
        hint = "Interrupted; a journal that was begun can be gone on with (--resume)."
        return _said(INTERRUPTED, tell, hint)
    except (SystemExit, BrokenPipeError):
        # Only of a closed pipe click makes an exit of its own. Whoever read the output has gone.
        return INTERRUPTED
    except OSError as error:
        told = f"Error: {error.filename or 'the output'}: {error.strerror or error}"
        return _said(CannotMeasure.exit_code, tell, told)
    except Exception:
        told = f"Error: a defect of trae-bench; please report it:\n{traceback.format_exc()}"
        return _said(CannotMeasure.exit_code, tell, told)


def _take_terms() -> None:
    """Whoever ends the command otherwise than by Ctrl-C means the same; a stream that is closed
    swallows what it is told."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)


def _said(code: int, say: Callable[..., object], *what: str) -> int:
    """The exit code, also where nobody can be told why."""
    with suppress(OSError):
        say(*what)
    return code


def _hush() -> None:
    """What could not be printed is not tried once more when Python ends, which would make the
    exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trae-bench")
def cli() -> None:
    """Measure which optimisations of an agent are worth having, on which work, by how much.

    Two fresh processes a pair, equal answers first, and no number without its interval.
    """


for command in (
    run,
    list_names,
    doctor,
    validate,
    show,
    record,
    effects,
    verify,
    export,
    report,
    claims,
    explain,
    compare,
    baseline,
    plot,
):
    cli.add_command(command)
