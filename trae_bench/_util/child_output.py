"""Output of a child process, made safe for a terminal."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from trae_bench._util.bounded_io import last_bytes

_TAIL_BYTES = 8192
_TAIL_LINES = 15
_TAIL_CHARACTERS = 2000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(data: bytes | str) -> str:
    """Remove escape sequences, and replace control characters except tab and newline."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", _ESCAPES.sub("", text))


def output_of(*command: str, seconds: float, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output, stripped. Empty if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            env=env,
            capture_output=True,
            timeout=seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip()


def last_words(output: bytes | Path) -> str:
    """Format the last lines of an output or log file, as an appendix to an error message.

    The result is empty if there is no output.
    """
    try:
        text = printable(output if isinstance(output, bytes) else last_bytes(output, _TAIL_BYTES))
    except OSError:
        return ""
    lines = text.strip().splitlines()[-_TAIL_LINES:]
    return "; its last lines:\n" + "\n".join(lines)[-_TAIL_CHARACTERS:] if lines else ""
