"""The folder of a run's trials. The next run removes it if the run was killed.

The process of a run holds a lock on a file in its folder, and the kernel releases the lock when
the process ends. The temporary folder is shared with other users and programs, so a folder is
removed only if it is clearly one of this user's dead runs.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trae_bench.execution.workspace import room_for_trials

PREFIX = "trae-bench-"
_PLACE = "the folder for temporary files"
LOCK = "lock"
_NEW_LOCK = "lock.new"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new private folder, removed at the end. Raises `CannotMeasure` if it cannot be created."""
    with room_for_trials(_PLACE):
        remove_stale_folders(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with room_for_trials(_PLACE):
            lock = _create_lock(folder)
        try:
            yield folder
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_lock(folder: Path) -> int:
    new = folder / _NEW_LOCK
    lock = os.open(new, _FILE | os.O_CREAT | os.O_EXCL, 0o600)
    # Some network file systems have no locks. Without one, no other run removes the folder.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed when it is locked: otherwise another run could remove the folder in between.
        new.rename(folder / LOCK)
    return lock


def remove_stale_folders(parent: Path) -> list[Path]:
    """Remove the folders of this user's runs that ended without removing them.

    Returns the removed folders. Errors are ignored: an old folder does no harm.
    """
    removed = []
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX):
                continue
            with suppress(OSError):
                if _remove_if_stale(entry.path):
                    removed.append(Path(entry.path))
    return removed


def _remove_if_stale(path: str) -> bool:
    """Whether the folder was removed. Follows no link. Raises `OSError`."""
    folder = os.open(path, _FOLDER)
    try:
        if not _is_private(os.fstat(folder)):
            return False
        lock = os.open(LOCK, _FILE, dir_fd=folder)
        try:
            found = os.fstat(lock)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return False
            if found.st_nlink != 1:
                return False
            # Raises `BlockingIOError` if the run is alive.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _remove(path, folder)
        finally:
            os.close(lock)
    finally:
        os.close(folder)


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700


def _remove(path: str, folder: int) -> bool:
    """Remove an open folder; the lock last, so that an interrupted removal can be continued."""
    # By descriptor: the path could lead to another folder by now.
    names = [name for name in os.listdir(folder) if name != LOCK]
    for name in names:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    os.unlink(LOCK, dir_fd=folder)
    # Removes only an empty folder.
    Path(path).rmdir()
    return True
