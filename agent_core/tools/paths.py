"""How the file tools name, guard and cut: what they share."""

import asyncio
import stat
from pathlib import Path
from weakref import WeakValueDictionary

LIMIT = 16_000
"""Characters of one result that a model is shown."""

_locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()


def names(path: Path) -> frozenset[str]:
    """The names that a file goes by, for `Access`: its path, and its inode where it has more."""
    return frozenset({str(path), _identity(path)})


def editing(path: Path) -> asyncio.Lock:
    """The lock of one file: who holds it may read, change and write.

    One table for the process, since files belong to nobody: two tools, or two sessions,
    that edit one file exclude each other. A lock lives while somebody holds or awaits it.
    """
    key = (id(asyncio.get_running_loop()), _identity(path))
    lock = _locks.get(key)
    if lock is None:
        lock = _locks[key] = asyncio.Lock()
    return lock


def _identity(path: Path) -> str:
    # Only a file with several hard links goes by its inode: such a file is written in
    # place, so its inode lasts, while an atomic replace gives every other file a new one.
    try:
        status = path.stat()
    except OSError:
        return str(path)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return f"inode:{status.st_dev}:{status.st_ino}"
    return str(path)


def clip(text: str, length: int | None = None) -> str:
    """The beginning of `text`, with a note where more follows.

    `length` says how many characters there are in all, where `text` lacks the end of them.
    """
    length = length or len(text)
    if length <= LIMIT:
        return text
    return (
        f"{text[:LIMIT]}\n[Cut here: {length} characters in all. Search with `grep -n` and"
        " view the lines that matter with view_range.]"
    )
