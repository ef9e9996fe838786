"""Counts the instructions of a trial with valgrind's callgrind.

Only the agent's process is counted, not the tools that it starts. The count barely depends on
other load. It does not cover caches, waiting or kernel code.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from trae_bench._util.bounded_io import last_bytes

SLOWDOWN = 100
"""Factor on a trial's timeout. Callgrind slows a program down by 20 to 80."""

_TOTALS = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)
_TAIL_BYTES = 4096


def available() -> bool:
    """Return whether valgrind is on the PATH."""
    return shutil.which("valgrind") is not None


def wrapped(argv: Sequence[str], out: Path) -> tuple[str, ...]:
    """Return the command that runs `argv` and writes its counts to `out`."""
    return (
        *("valgrind", "--tool=callgrind", "--quiet", "--trace-children=no"),
        f"--callgrind-out-file={out}",
        *argv,
    )


def instructions(out: Path) -> int | None:
    """Return the count of a finished run. None if it wrote none."""
    try:
        totals = _TOTALS.findall(last_bytes(out, _TAIL_BYTES))
    except OSError:
        return None
    return int(totals[-1]) if totals else None
