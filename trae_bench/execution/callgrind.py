"""Counts the instructions of a trial under valgrind's callgrind.

Only the agent's own process is counted, not the tools that it starts. The count hardly varies,
whatever else the machine does, and says nothing of caches, waiting or the kernel's work.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from trae_bench._util.bounded_io import last_bytes

SLOWDOWN = 100
"""How many times as long a trial may take as without: callgrind takes 20 to 80."""

_TOTALS = re.compile(rb"^(?:totals|summary): (\d+)", re.MULTILINE)
_TAIL_BYTES = 4096


def available() -> bool:
    return shutil.which("valgrind") is not None


def wrapped(argv: Sequence[str], out: Path) -> tuple[str, ...]:
    """The command line that runs `argv` and leaves the counts in `out`."""
    return (
        *("valgrind", "--tool=callgrind", "--quiet", "--trace-children=no"),
        f"--callgrind-out-file={out}",
        *argv,
    )


def instructions(out: Path) -> int | None:
    """The count of a run that has ended; None where it left none."""
    try:
        found = _TOTALS.findall(last_bytes(out, _TAIL_BYTES))
    except OSError:
        return None
    return int(found[-1]) if found else None
