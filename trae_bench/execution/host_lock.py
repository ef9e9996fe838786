"""Allows one run at a time per host, because concurrent runs disturb each other."""

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from trae_bench.errors import CannotMeasure

LOCK_VARIABLE = "TRAE_BENCH_LOCK"
"""Environment variable with the path of the lock file, for containers with separate /tmp."""

# TMPDIR is not used: it may differ between users, who would then not share the lock.
PLACE = Path("/tmp/trae-bench.lock")

TIMEOUT = 600.0
"""Seconds to wait for another run."""
POLL_SECONDS = 0.2


class HostLock:
    """A file lock that is held from entry to exit. The kernel releases it if the holder dies.

    If another process holds the lock, the entry calls `waiting` once with a message and waits
    up to `timeout` seconds. Raises `CannotMeasure` after that, or if the file cannot be locked.
    """

    def __init__(
        self,
        waiting: Callable[[str], None],
        *,
        place: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._waiting = waiting
        self._place = place or Path(os.environ.get(LOCK_VARIABLE) or PLACE)
        self._timeout = timeout
        self._descriptor = -1

    def __enter__(self) -> "HostLock":
        try:
            self._descriptor = _open(self._place)
            self._acquire()
            self._write_pid()
        except OSError as error:
            self._close()
            there = os.path.lexists(self._place)
            remedy = "remove that file" if there else f"name another file with {LOCK_VARIABLE}"
            raise CannotMeasure(
                f"cannot use the lock {self._place}: {error.strerror or error}; {remedy}"
            ) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The file stays. If it were removed, two waiters could lock different files.
        self._close()

    def _acquire(self) -> None:
        if self._try():
            return
        self._waiting(f"{self._holder()} is measuring on this host; waiting for it to end")
        end = time.monotonic() + self._timeout
        while not self._try():
            if time.monotonic() >= end:
                raise CannotMeasure(
                    f"{self._holder()} is still measuring on this host after "
                    f"{self._timeout:.0f} s; concurrent runs disturb each other: "
                    "wait for it to end or stop it, then try again"
                )
            time.sleep(POLL_SECONDS)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> str:
        pid = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        return f"another trae-bench (process {pid})" if pid.isdigit() else "another trae-bench"

    def _write_pid(self) -> None:
        """Write the process id into the file, for the message of waiting processes."""
        # It may be another user's file, or the disk may be full. The lock works without it.
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            writable = os.open(self._place, flags)
            try:
                os.write(writable, f"{os.getpid()}\n".encode())
            finally:
                os.close(writable)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(place: Path) -> int:
    """Open the file read-only, which is enough to lock a file that another user owns."""
    with suppress(FileExistsError):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor
