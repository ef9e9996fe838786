"""Allows one run at a time per host, because concurrent runs disturb each other."""

import fcntl
import os
import pwd
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trae_bench.errors import CannotMeasure

LOCK_VARIABLE = "TRAE_BENCH_LOCK"
"""Environment variable with the path of the lock file, for containers with separate /tmp."""

# TMPDIR is not used: it may differ between users, who would then not find each other's locks.
FOLDER = Path("/tmp")
_PREFIX, _SUFFIX = "trae-bench-", ".lock"
"""Each user has a lock file of this name in `FOLDER`, so a file that one leaves stops nobody."""

TIMEOUT = 600.0
"""Seconds to wait for another run."""
POLL_SECONDS = 0.2
MAX_SIZE = 32
"""Bytes. A lock file contains a process id at most."""
_PID = re.compile(rb"\s*\d{0,20}\s*")


class HostLock:
    """A file lock that is held from entry to exit. The kernel releases it if the holder dies.

    If another run of this user holds the lock, the entry calls `waiting` once with a message and
    waits up to `timeout` seconds. Raises `CannotMeasure` after that, if the lock is another
    user's, or if the file cannot be locked or is not a lock file.
    """

    def __init__(
        self,
        waiting: Callable[[str], None],
        *,
        place: Path | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._waiting = waiting
        named = place or os.environ.get(LOCK_VARIABLE)
        self._place = Path(named or FOLDER / f"{_PREFIX}{os.geteuid()}{_SUFFIX}")
        self._is_named = bool(named)
        self._timeout = timeout
        self._descriptor = -1

    def __enter__(self) -> "HostLock":
        try:
            self._descriptor = _open(self._place)
            self._acquire()
            if not self._is_named:
                self._refuse_other_users()
            self._write_pid()
        except OSError as error:
            self._close()
            raise _unusable(self._place, error.strerror or str(error)) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The file stays. If it were removed, two waiters could lock different files.
        self._close()

    def _acquire(self) -> None:
        if self._try():
            return
        self._refuse_foreign_holder()
        self._waiting(
            f"{self._holder()} is measuring on this host; waiting up to {self._timeout:.0f} s "
            "for it to end"
        )
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

    def _refuse_foreign_holder(self) -> None:
        """Raise `CannotMeasure` if another user's process holds the lock."""
        pid = _locking_process(self._descriptor)
        owner = _owner_of(pid) if pid is not None else None
        if owner is not None and owner != os.geteuid():
            raise CannotMeasure(
                f"process {pid} of {_user(owner)} holds the lock {self._place}; wait for its "
                f"end, or name another file with {LOCK_VARIABLE}"
            )

    def _refuse_other_users(self) -> None:
        """Raise `CannotMeasure` if a lock file of another user is locked."""
        for place in self._place.parent.glob(f"{_PREFIX}*{_SUFFIX}"):
            # The files of others are not opened: /proc tells whether they are locked.
            with suppress(OSError):
                found = os.lstat(place)
                pid = _locker(found) if found.st_uid != os.geteuid() else None
                if pid is not None:
                    raise CannotMeasure(
                        f"process {pid} of {_user(found.st_uid)} is measuring on this host and "
                        f"holds the lock {place}; wait for its end, or name another file with "
                        f"{LOCK_VARIABLE}"
                    )

    def _holder(self) -> str:
        pid = _locking_process(self._descriptor) or _written_pid(self._descriptor)
        return f"another trae-bench (process {pid})" if pid else "another trae-bench"

    def _write_pid(self) -> None:
        """Write the process id into the file, for the message of waiting processes."""
        # The disk may be full. The lock works without it.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(place: Path) -> int:
    """Create or open the lock file. Raises `CannotMeasure` if it is not a lock file of this user.

    Anybody can put a link or a file at a path in a shared folder. Without these checks, a run
    would overwrite the target of a link, or wait for a lock that another user never releases.
    """
    shared = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):
        return os.open(place, shared | os.O_CREAT | os.O_EXCL, 0o600)
    # Before the open, because another user's file may not be readable.
    _check(place, os.lstat(place))
    descriptor = os.open(place, shared | os.O_NONBLOCK)
    try:
        # After the open, because the file may have been replaced.
        found = os.fstat(descriptor)
        _check(place, found)
        if not _PID.fullmatch(os.pread(descriptor, MAX_SIZE + 1, 0)):
            raise _unusable(place, "not a lock file, it has other content")
        if stat.S_IMODE(found.st_mode) & 0o077:
            # Whoever can open the file can hold the lock. Older releases made it readable.
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(place: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        link = stat.S_ISLNK(found.st_mode)
        raise _unusable(place, "a symbolic link" if link else "not a regular file")
    if found.st_uid != os.geteuid():
        raise _unusable(place, f"it belongs to {_user(found.st_uid)}")
    if found.st_nlink != 1:
        raise _unusable(place, f"it has {found.st_nlink} hard links")
    if found.st_mode & 0o022:
        raise _unusable(place, f"other users can write it (mode {stat.S_IMODE(found.st_mode):03o})")


def _unusable(place: Path, reason: str) -> CannotMeasure:
    remedy = "remove that file, or " if os.path.lexists(place) else ""
    return CannotMeasure(
        f"cannot use the lock {place}: {reason}; {remedy}name another file with {LOCK_VARIABLE}"
    )


def _written_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, MAX_SIZE, 0).strip()
    return int(text) if text.isdigit() else None


def _locking_process(descriptor: int) -> int | None:
    """The process that holds the lock; None if the kernel does not report it."""
    return _locker(os.fstat(descriptor))


def _locker(found: os.stat_result) -> int | None:
    """The process that holds a lock on a file; None if the kernel does not report it."""
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # `1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF`. A process outside of this
            # container has the number 0 or -1. A waiting process has `->` after the number.
            match line.split():
                case [_, "FLOCK", _, _, pid, file, *_] if file == place and pid.isdigit():
                    return int(pid) or None
    return None


def _owner_of(pid: int) -> int | None:
    """The user of a process; None if it has ended or is not visible."""
    with suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid
    return None


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
