"""One bench at a time on a host: two would measure each other."""

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from trae_bench.errors import CannotMeasure

PLACE_VARIABLE = "TRAE_BENCH_LOCK"
"""Environment variable with another place, for hosts that share their cores but not /tmp."""

# Not the temporary folder of the environment: that may differ between two users or shells,
# and they would not see each other.
PLACE = Path("/tmp/trae-bench.lock")

PATIENCE = 600.0
POLL_SECONDS = 0.2


class HostLock:
    """Held from entry to exit; the kernel frees it however the holder ends.

    Where another holds it, `waiting` is told once and the entry waits for `patience`
    seconds. Raises `CannotMeasure` after that, and where there can be no lock.
    """

    def __init__(
        self,
        waiting: Callable[[str], None],
        *,
        place: Path | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._waiting = waiting
        self._place = place or Path(os.environ.get(PLACE_VARIABLE) or PLACE)
        self._patience = patience
        self._descriptor = -1

    def __enter__(self) -> "HostLock":
        try:
            self._descriptor = _open(self._place)
            self._acquire()
            self._sign()
        except OSError as error:
            self._close()
            there = os.path.lexists(self._place)
            remedy = "remove that file" if there else f"name another file with {PLACE_VARIABLE}"
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
        # The file stays: with it removed, two waiters could lock two different files.
        self._close()

    def _acquire(self) -> None:
        if self._try():
            return
        self._waiting(f"{self._holder()} is measuring on this host; waiting for it to end")
        end = time.monotonic() + self._patience
        while not self._try():
            if time.monotonic() >= end:
                raise CannotMeasure(
                    f"{self._holder()} is still measuring on this host after "
                    f"{self._patience:.0f} s; two at once would measure each other: "
                    "wait for it or end it, then try again"
                )
            time.sleep(POLL_SECONDS)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> str:
        said = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        return f"another trae-bench (process {said})" if said.isdigit() else "another trae-bench"

    def _sign(self) -> None:
        """Leave the process id for whoever waits, where the file is this user's to write."""
        # Another user's file, or a full disk: the lock holds, only the name is missing.
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
    """For reading only, which is all that a lock takes, so that users can share the file."""
    with suppress(FileExistsError):
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor
