"""Files of others, read within a bound, and only where a read comes to an end.

A named pipe that nobody writes to would be waited for without end, and a device or a file of
mere holes has more to say than there is memory. What the shell opened for this very command
(`<(...)`, `/dev/stdin`) may be a pipe: whoever passed it writes to it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MAX_TEXT = 16 * 1024 * 1024
"""Bytes of a text that a person could have written."""
_PASSED = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/self/fd/")


def passed(path: Path) -> bool:
    """Whether this names a descriptor that the process got from whoever started it."""
    return str(path).startswith(_PASSED)


def first_bytes(path: Path, most: int) -> bytes:
    """A file's beginning, or all of it. Raises `OSError`, also for what is no regular file."""
    with _opened(path) as file:
        return file.read(most)


def last_bytes(path: Path, most: int) -> bytes:
    """A file's end, or all of it. Raises `OSError`, also for what is no regular file."""
    with _opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - most))
        return file.read(most)


def whole(path: Path, most: int = MAX_TEXT) -> bytes:
    """All of a file. Raises `OSError`, also for what is larger or no regular file."""
    data = first_bytes(path, most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes")
    return data


def text(path: Path) -> str:
    """All of a text, without a byte order mark; the ends of its lines are as they are.

    Raises `OSError`, `UnicodeDecodeError`.
    """
    return whole(path).decode("utf-8-sig")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    waits = passed(path)
    with open(path, "rb", opener=None if waits else _at_once) as file:
        if not waits and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
