"""What the commands have in common: how they print, write files, and know the terminal."""

import json
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from trae_bench.errors import CannotMeasure, UsageError

INTERRUPTED = 130
"""Exit code."""
WIDEST = 120
"""Columns of text; more are hard to read. A table may have more."""

LEAST = 40
"""With fewer, the terminal has to wrap them."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""One that is there."""
REPORT = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
"""A file to write a report to; `-` is the standard output."""


def write(path: Path, parts: Iterable[str | bytes]) -> None:
    """A file whole or not at all, its folder made where there is none. Raises `CannotMeasure`."""
    # Opened by its name, what goes to a file would begin anew there, over what was printed.
    if str(path) in ("-", "/dev/stdout"):
        for one in parts:
            click.echo(one, nl=False)
        return
    from trae_bench._util.atomic_write import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (one.encode() if isinstance(one, str) else one for one in parts))
    except OSError as error:
        raise _unwritable(path, error) from error


def make_room(path: Path) -> None:
    """Make the folder of a file that shall be written; `-`, a device or a pipe needs none.

    Raises `CannotMeasure` where it cannot be made, or nothing can be written into it.
    """
    if str(path) == "-":
        return
    import tempfile

    from trae_bench._util.bounded_io import is_inherited_descriptor

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_inherited_descriptor(path) or _is_device(path):
            return
        # Rights do not tell: root has them all, also where nothing can be made (/proc).
        with tempfile.NamedTemporaryFile(dir=Path(os.path.realpath(path)).parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_device(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # none is there; a name that is too long is told once the rest is written
        return False


def _unwritable(path: Path, error: OSError) -> CannotMeasure:
    files = (each for each in path.parents if os.path.isfile(each))  # noqa: PTH113 - never raises
    why = next((f"{each} is no folder" for each in files), error.strerror or str(error))
    return CannotMeasure(f"cannot write {path}: {why}")


def file_name(path: Path | str) -> str:
    """For a sentence. Whoever called a file something may have been a stranger."""
    from trae_bench.report.escape import for_terminal

    return for_terminal(str(path), 1000)


def on_stdout(*files: Path | None, as_json: bool = False) -> bool:
    """Whether a report goes to the standard output. Raises `UsageError` where two would, one into
    the other."""
    count = [str(path) for path in files].count("-") + as_json
    if count > 1:
        raise UsageError("the standard output takes one report; name files for the others")
    return count == 1


def say_where(what: str, path: Path) -> None:
    """What was written, on stderr: the standard output may have another report."""
    if str(path) != "-":
        click.echo(f"{what}: {file_name(path)}", err=True)


def print_json(value: object) -> None:
    import msgspec

    from trae_bench.report.escape import for_json

    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:
        # A file's name need not be text; with escapes it can be told, and found by them.
        text = json.dumps(msgspec.to_builtins(value), indent=2)
    click.echo(for_json(text))


def tell(message: str) -> None:
    """On stderr. Parts of a message may come from a file of a stranger."""
    from trae_bench.report.escape import for_terminal

    for line in message.splitlines():
        click.echo(for_terminal(line, 1000), err=True)


def terminal_width(widest: int = WIDEST, least: int = LEAST) -> int:
    return max(least, min(widest, shutil.get_terminal_size((80, 24)).columns))


def takes(stream: Any, text: str) -> bool:
    """Whether the stream's encoding can say it."""
    try:
        text.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def takes_colour(stream: Any) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return bool(stream.isatty() and not plain)
