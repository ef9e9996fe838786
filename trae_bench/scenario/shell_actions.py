"""Shell commands that do an action, for agents that have no tool for it.

Every command is one line of words, or has line breaks inside quotes only. A here-document would
break in agents that append text to a command, such as `; echo $?`. Any string is quoted
correctly. The path that later replaces `{workspace}` must not contain a single quote.

Edits use python3: the catalogue's sessions need it anyway, and a pattern of sed or perl, or an
expansion of the shell, is slow or not exact on large files. `-IS` skips what python3 does not
need at its start. A lock orders edits that an agent runs at the same time.
"""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

NOTHING = "true"
"""A command that does nothing."""

_EDIT = """\
import fcntl, os, sys
path, {names} = map(os.fsencode, sys.argv[1:])
with open(path, "rb+") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    data = file.read()
{body}
    file.seek(0)
    file.truncate()
    file.write(data)
"""
_REPLACE = _EDIT.format(
    names="old, new",
    body="""\
    at = data.find(old)
    if at < 0 or not old or data.find(old, at + 1) >= 0:
        sys.exit("Nothing was replaced: the text does not occur exactly once.")
    data = data[:at] + new + data[at + len(old) :]""",
)
_INSERT = _EDIT.format(
    names="line, new",
    body="""\
    lines = data.split(b"\\n")
    if not 0 <= int(line) <= len(lines):
        sys.exit("Nothing was inserted: the file has no such line.")
    lines[int(line) : int(line)] = new.split(b"\\n")
    data = b"\\n".join(lines)""",
)


def view(path: str, lines: Sequence[int] = ()) -> str:
    """Print a file, or its lines from the first to the last, where -1 is the end."""
    if not lines:
        return f"cat -- {shlex.quote(path)}"
    first, last = lines
    return f"sed -n '{first},{'$' if last == -1 else last}p' -- {shlex.quote(path)}"


def list_folder(path: str) -> str:
    """Print the names in a folder."""
    return f"ls -- {shlex.quote(path)}"


def write(path: str, text: str) -> str:
    """Write a whole file, and create its folder. Raises `ValueError` for a NUL character."""
    folder = str(PurePosixPath(path).parent)
    made = "" if folder in ("{workspace}", ".", "/") else f"mkdir -p -- {shlex.quote(folder)} && "
    return f"{made}printf %s {_quoted(text)} > {shlex.quote(path)}"


def replace(path: str, old: str, new: str) -> str:
    """Replace a text that occurs exactly once. Raises `ValueError` for a NUL character."""
    return _python(_REPLACE, path, old, new)


def insert(path: str, line: object, new: str) -> str:
    """Insert lines after a line; 0 is the top. Raises `ValueError` for a NUL character."""
    return _python(_INSERT, path, str(line), new)


def _python(program: str, *arguments: str) -> str:
    return f"python3 -IS -c {_quoted(program)} {' '.join(map(_quoted, arguments))}"


def _quoted(text: str) -> str:
    if "\0" in text:
        raise ValueError("a shell command cannot contain a NUL character")
    return shlex.quote(text)
