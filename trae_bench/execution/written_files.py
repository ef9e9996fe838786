"""The files that a trial created or changed in its folders, by their stamps before and after.

A file that is removed before the end is not seen; `bytes_written` counts its bytes.
"""

import os
import stat
from collections.abc import Mapping
from itertools import chain, islice
from pathlib import Path

from trae_bench.execution.fingerprint import files_below
from trae_bench.model.sample import WrittenFiles

MAX_FILES = 100_000
"""A trial with more files is not measured."""

Stamps = Mapping[str, tuple[int, int, int]]
"""Inode, size and time of change (ns) of each file."""


def stamps(*folders: Path) -> Stamps | None:
    """Return the stamps of all files below some folders. None for more than `MAX_FILES`."""
    found = chain.from_iterable(map(files_below, folders))
    paths = [path for _, path in islice(found, MAX_FILES + 1)]
    if len(paths) > MAX_FILES:
        return None
    return {str(path): stamp for path in paths if (stamp := _stamp(path)) is not None}


def written_files(before: Stamps | None, after: Stamps | None) -> WrittenFiles | None:
    """Return the files that are new or have another stamp. None if one side is not known."""
    if before is None or after is None:
        return None
    sizes = [stamp[1] for path, stamp in after.items() if before.get(path) != stamp]
    return WrittenFiles(len(sizes), sum(sizes))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return the stamp of a file or link. None for anything else."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
