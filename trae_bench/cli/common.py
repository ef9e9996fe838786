"""Helpers shared by the commands: output, files, renamed options, the terminal."""

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from trae_bench.errors import CannotMeasure, UsageError

INTERRUPTED = 130
"""Exit code after Ctrl-C, SIGTERM or SIGHUP."""
MAX_WIDTH = 120
"""Maximum columns of prose; wider lines are hard to read. Tables may be wider."""
MIN_WIDTH = 40
"""Minimum columns. A narrower terminal wraps the lines itself."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""An existing file."""
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
"""A file to write."""
REPORT = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
"""A file to write a report to; `-` is the standard output."""


class RenamedOptions(click.Command):
    """A command that accepts the option names of the previous release.

    The old names appear in no help text. Each use prints one line on stderr.
    """

    def __init__(self, *args: Any, renamed: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.renamed = renamed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments with every old option replaced by its current name."""
        end = args.index("--") if "--" in args else len(args)
        current = [self._current(word, quiet=ctx.resilient_parsing) for word in args[:end]]
        return super().parse_args(ctx, current + args[end:])

    def _current(self, word: str, *, quiet: bool) -> str:
        name, equals, value = word.partition("=")
        new = self.renamed.get(name)
        if new is None:
            return word
        if not quiet:
            print_error(f"Warning: {name} is deprecated; use {new}.")
        return f"{new}{equals}{value}"


def current_metrics(
    context: click.Context, _: click.Parameter, value: str | tuple[str, ...] | None
) -> Any:
    """Callback of an option: replace metric names of the previous release.

    Accepts metric names and patterns that end in one (`scenario/toggle/metric`).
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _current_metric(value, quiet=context.resilient_parsing)
    return tuple(_current_metric(name, quiet=context.resilient_parsing) for name in value)


def _current_metric(pattern: str, *, quiet: bool) -> str:
    from trae_bench.model.aliases import current_metric

    front, slash, old = pattern.rpartition("/")
    new = current_metric(old)
    if new != old and not quiet:
        print_error(f"Warning: metric {old} is deprecated; use {new}.")
    return f"{front}{slash}{new}"


def write(path: Path, parts: Iterable[str | bytes]) -> None:
    """Write a file atomically and create its folder. Raises `CannotMeasure` if that fails."""
    # Opening /dev/stdout by name would truncate a redirected file and lose earlier output.
    if str(path) in ("-", "/dev/stdout"):
        for part in parts:
            click.echo(part, nl=False)
        return
    from trae_bench._util.atomic_write import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (part.encode() if isinstance(part, str) else part for part in parts))
    except OSError as error:
        raise _cannot_write(path, error) from error


def check_writable(path: Path) -> None:
    """Create the folder of a report and check that files can be created in it.

    Ignores `-`, devices and pipes. Raises `CannotMeasure` if the check fails.
    """
    if str(path) == "-":
        return
    import tempfile

    from trae_bench._util.bounded_io import is_inherited_descriptor

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_inherited_descriptor(path) or _is_device(path):
            return
        # Permission bits are not enough: root has all of them, even in /proc.
        with tempfile.NamedTemporaryFile(dir=Path(os.path.realpath(path)).parent):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error


def _is_device(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # No such file. A name that is too long fails later, in `write`.
        return False


def _cannot_write(path: Path, error: OSError) -> CannotMeasure:
    files = (parent for parent in path.parents if os.path.isfile(parent))  # noqa: PTH113 - never raises
    reason = next((f"{file} is not a folder" for file in files), error.strerror or str(error))
    return CannotMeasure(f"cannot write {path}: {reason}")


def is_given(context: click.Context, name: str) -> bool:
    """Whether the user gave a parameter. Otherwise it has its default."""
    return context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def file_name(path: Path | str) -> str:
    """A path with control characters escaped, for the terminal."""
    from trae_bench.report.escape import for_terminal

    return for_terminal(str(path), 1000)


def on_stdout(*files: Path | None, as_json: bool = False) -> bool:
    """Whether a report goes to the standard output. Raises `UsageError` if more than one does."""
    count = [str(path) for path in files].count("-") + as_json
    if count > 1:
        raise UsageError("the standard output takes one report; name files for the others")
    return count == 1


def print_path(what: str, path: Path) -> None:
    """Print the path of a written file on stderr; the standard output may hold a report."""
    if str(path) != "-":
        click.echo(f"{what}: {file_name(path)}", err=True)


def print_json(value: object) -> None:
    """Print any msgspec-encodable value as indented JSON."""
    import msgspec

    from trae_bench.report.escape import for_json

    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:
        # A file name may be invalid UTF-8. The json module escapes such bytes.
        text = json.dumps(msgspec.to_builtins(value), indent=2)
    click.echo(for_json(text))


def print_error(message: str) -> None:
    """Print a message on stderr, with control characters escaped."""
    from trae_bench.report.escape import for_terminal

    for line in message.splitlines():
        click.echo(for_terminal(line, 1000), err=True)


def terminal_width(max_width: int = MAX_WIDTH, min_width: int = MIN_WIDTH) -> int:
    """Columns to use for output, between the two bounds; 80 without a terminal."""
    return max(min_width, min(max_width, shutil.get_terminal_size((80, 24)).columns))


def can_encode(stream: Any, text: str) -> bool:
    """Whether the stream's encoding can represent a text."""
    try:
        text.encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def takes_colour(stream: Any) -> bool:
    """Whether to print colours: on a terminal, unless NO_COLOR is set or TERM is `dumb`."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return bool(stream.isatty() and not plain)
