"""Limits on what is read from a run file or journal. Both may come from strangers."""

import errno
from pathlib import Path

from trae_bench._util.bounded_io import first_bytes
from trae_bench.errors import BadRunFile, CannotMeasure
from trae_bench.model.run import Header

MAX_BYTES = 128 * 1024 * 1024
"""Maximum size of a file. 10,000 samples take about 15 MB."""

MAX_VALUES = 3_000_000
"""Maximum number of JSON values: each costs memory, however few bytes it takes in the file."""

MAX_ROWS = 10_000
"""Maximum rows of a table. All scenarios with all toggles have some 1,300."""

MAX_SAMPLES = 100_000
"""Maximum number of samples. A day of one trial a second has 86,400."""

MAX_COMPARED = 500_000
"""Maximum number of values to compare: the samples of each cell times its metrics."""

MAX_PLANNED = 300_000
"""Maximum size of the plan that a header generates, before its filters: contrasts times the
toggles and the metrics of each. All scenarios in the largest design have some 10,000."""

MAX_MATCHES = 500_000
"""Maximum number of row names to match with patterns that have wildcards: patterns times rows."""

MAX_WILDCARDS = 100_000
"""Maximum characters of all patterns that have wildcards. Each must be compiled."""

_REMEDIES = {
    errno.ENOSPC: "free some space, or name a file on another disk with --out",
    errno.EDQUOT: "free some space, or name a file on another disk with --out",
    errno.EROFS: "name a file in a writable folder with --out",
    errno.EACCES: "name a file in a writable folder with --out",
    errno.EPERM: "name a file in a writable folder with --out",
}


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file within the limits. Raises `BadRunFile`."""
    try:
        data = first_bytes(path, max_bytes + 1)
    except OSError as error:
        raise BadRunFile(f"{path}: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise BadRunFile(f"{path}: larger than {max_bytes:,} bytes; no run is that large")
    # A comma precedes every value after the first of its array or object, and a newline every
    # line of a journal after the first.
    if data.count(b",") + data.count(b"\n") > MAX_VALUES:
        raise BadRunFile(f"{path}: more than {MAX_VALUES:,} values; no run has that many")
    return data


def check_header(path: Path, header: Header) -> None:
    """Check that the header describes every name in its plan. Raises `BadRunFile`."""
    for name, metric in header.metrics.items():
        if metric.name != name:
            raise BadRunFile(f"{path}: {name!r} is described under the name {metric.name!r}")
    planned = [(cell.scenario, cell.metrics) for cell in header.cells]
    planned += [(name, used.metrics) for name, used in header.scenarios.items()]
    for scenario, metrics in planned:
        missing = [name for name in metrics if name not in header.metrics]
        if missing or scenario not in header.scenarios:
            name = missing[0] if missing else scenario
            raise BadRunFile(f"{path}: the plan names {name!r}, which the header does not describe")


def unwritable(path: Path, error: OSError, remedy: str = "") -> CannotMeasure:
    """The error for a file that cannot be written, with a remedy."""
    remedy = remedy or _REMEDIES.get(error.errno or 0, "name another file with --out")
    return CannotMeasure(f"cannot write {path}: {error.strerror or error}; {remedy}")
