"""Text that a child process printed, safe to show."""

import re
from pathlib import Path

from trae_bench._util.bounded_io import last_bytes

_TAIL_BYTES = 8192


_TAIL_LINES = 15


_TAIL_CHARACTERS = 2000


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(data: bytes | str) -> str:
    """A text that can do no harm to a terminal: no control character but tab and newline."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))


def last_words(said: bytes | Path) -> str:
    """A postscript with the last lines that a child printed; empty where it was silent."""
    try:
        text = printable(said if isinstance(said, bytes) else last_bytes(said, _TAIL_BYTES))
    except OSError:
        return ""
    lines = text.strip().splitlines()[-_TAIL_LINES:]
    return "; its last lines:\n" + "\n".join(lines)[-_TAIL_CHARACTERS:] if lines else ""
