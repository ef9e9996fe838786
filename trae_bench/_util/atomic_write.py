"""Writes a file completely or not at all."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trae_bench._util.bounded_io import is_inherited_descriptor


def write_whole(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file atomically, also across a power failure. Raises `OSError`.

    If `path` is a symbolic link, its target is replaced. Devices and pipes are written in place.
    """
    if is_inherited_descriptor(path) or (path.exists() and not path.is_file()):
        with path.open("ab") as file:
            file.writelines(parts)
        return
    path = Path(os.path.realpath(path))
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
