"""Reads files from untrusted sources with a size limit, without blocking.

A read from a named pipe without a writer would block forever. A device or a sparse file may
hold more bytes than fit in memory. Pipes that the shell opened for this command (`<(...)`,
`/dev/stdin`) are read normally, because the caller writes to them.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MAX_TEXT = 16 * 1024 * 1024
"""Maximum bytes of a text file. Larger than any file written by hand."""
_INHERITED = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/self/fd/")


def is_inherited_descriptor(path: Path) -> bool:
    """Return whether a path names a file descriptor that the parent process opened."""
    return str(path).startswith(_INHERITED)


def first_bytes(path: Path, limit: int) -> bytes:
    """Read up to `limit` bytes. Raises `OSError`, also if it is not a regular file."""
    with _opened(path) as file:
        return file.read(limit)


def last_bytes(path: Path, limit: int) -> bytes:
    """Read the last `limit` bytes. Raises `OSError`, also if it is not a regular file."""
    with _opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
        return file.read(limit)


def whole(path: Path, limit: int = MAX_TEXT) -> bytes:
    """Read a whole file. Raises `OSError`, also if it is too large or not a regular file."""
    data = first_bytes(path, limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes")
    return data


def text(path: Path) -> str:
    """Read a whole UTF-8 file without its byte order mark. Line ends are not translated.

    Raises `OSError` or `UnicodeDecodeError`.
    """
    return whole(path).decode("utf-8-sig")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    inherited = is_inherited_descriptor(path)
    with open(path, "rb", opener=None if inherited else _open_nonblocking) as file:
        if not inherited and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
