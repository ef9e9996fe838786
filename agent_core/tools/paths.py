"""Names, locks and output limits of the file tools."""

import asyncio
import re
import stat
from pathlib import Path
from weakref import WeakValueDictionary

LIMIT = 16_000
"""Characters of one result for the model."""

_SURROGATES = "[\ud800-\udfff]"

_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()


def names(path: Path) -> frozenset[str]:
    """The names of a file for `Access`: its path, and its inode if it has several hard links."""
    return frozenset({str(path), _identity(path)})


def editing(path: Path) -> asyncio.Lock:
    """The lock of one file. Its holder may read, change and write the file.

    There is one table per process, so two tools or sessions that edit one file exclude each
    other. A lock exists while it is held or awaited.
    """
    key = (id(asyncio.get_running_loop()), _identity(path))
    lock = _locks.get(key)
    if lock is None:
        lock = _locks[key] = asyncio.Lock()
    return lock


def _identity(path: Path) -> str:
    # Only a file with several hard links is identified by its inode. It is written in
    # place and keeps the inode; an atomic replace gives any other file a new one.
    try:
        status = path.stat()
    except OSError:
        return str(path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return f"inode:{status.st_dev}:{status.st_ino}"
    return str(path)


def clip(text: str, length: int | None = None) -> str:
    """The beginning of `text`, with a note if more follows.

    `length` is the total number of characters, if `text` is already truncated. Bytes of a file
    or name that are not UTF-8 become U+FFFD, because no request can contain them.
    """
    length = length or len(text)
    if not text.isascii():
        text = re.sub(_SURROGATES, "\N{REPLACEMENT CHARACTER}", text)
    if length <= LIMIT:
        return text
    return (
        f"{text[:LIMIT]}\n[Cut here: {length} characters in total. Search with `grep -n` and"
        " view the relevant lines with view_range.]"
    )
