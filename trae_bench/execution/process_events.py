"""Records when the processes of trials start and end, from the perf events of Linux.

The kernel writes a record into a buffer of each core at each start and end of a process, with the
parent and the time. Nothing polls, and no process is missed, however short. The events are those
of the core, not of a process: they cost nothing at a context switch, where events of a process
cost 1 us. So plain trials are recorded, too. It needs root, the capability `CAP_PERFMON`, or
`kernel.perf_event_paranoid` at 0 or less.

Other sources were rejected. Cgroups count no starts, and /proc/stat does not say whose they are.
The process connector also needs root, and its socket must be read while the trial runs. ptrace
stops each process.
"""

import errno
import math
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from trae_bench._util import cpu_affinity
from trae_bench._util.system_files import read_text
from trae_bench.model.sample import Lifetime

METHOD = "perf_event_open"
"""Name of the method, for reports."""
BUFFER_PAGES = 256
"""Pages of a core's buffer, a power of two: 16,000 processes and threads at 4 KiB a page."""
_CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
"""Number of the system call by architecture."""
_SOFTWARE, _DUMMY = 1, 9
_EVERY_PROCESS, _NO_GROUP = -1, -1
_TASKS, _OWN_CLOCK = 1 << 13, 1 << 25
_CLOSE_ON_EXEC = 8
_ATTRIBUTES = struct.pack(
    "=IIQQQQQIIQQQQIiQII",
    _SOFTWARE,
    112,  # the size of this structure
    _DUMMY,
    *(0, 0, 0),
    _TASKS | _OWN_CLOCK,
    *(0, 0, 0, 0, 0, 0, 0),
    1,  # CLOCK_MONOTONIC, that of the provider's log
    *(0, 0, 0),
)
_HEADER = struct.Struct("=IHH")
_TASK = struct.Struct("=IIIIQ")
_POSITIONS = struct.Struct("=QQQQ")
_POSITIONS_AT = 1024
EXIT, FORK = 4, 7
"""Kinds of events."""
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


class Event(NamedTuple):
    """The start or the end of a process or of one of its threads."""

    moment: float
    kind: int
    pid: int
    parent: int
    """At a start: the process that started it; for a thread, its own process."""


class ProcessEvents:
    """Records the processes that start on some cores from now on.

    Raises OSError if the kernel does not allow it.
    """

    def __init__(self, cores: Iterable[int]) -> None:
        self._buffers: list[mmap.mmap] = []
        try:
            for core in cores:
                self._buffers.append(_buffer(core))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the recording."""
        while self._buffers:
            # Unmapping closes the last file descriptor of the event.
            self._buffers.pop().close()

    def descendants(self, roots: Sequence[int]) -> dict[int, tuple[Lifetime, ...]] | None:
        """Return the processes below each root, in order of their start.

        Roots are process ids. A process that has not ended ends in the infinite future. None if
        there were more events than fit the buffers.
        """
        events: list[Event] = []
        for buffer in self._buffers:
            if (found := _events(buffer)) is None:
                return None
            events += found
        return trees(sorted(events), roots)


@cache
def unavailable() -> str | None:
    """Why this process cannot record the processes of trials; None if it can."""
    cores = cpu_affinity.cores()[:1]
    if not cores:
        return "perf events need Linux"
    try:
        with ProcessEvents(cores):
            return None
    except OSError as error:
        level = read_text(_PARANOID)
        hint = f"; kernel.perf_event_paranoid is {level}" if level else ""
        return f"perf events are not allowed here ({error.strerror}{hint})"


def trees(events: Iterable[Event], roots: Sequence[int]) -> dict[int, tuple[Lifetime, ...]]:
    """Return the processes below each root, from the events in order of time."""
    root_of = {root: root for root in roots}
    latest: dict[int, list[float]] = {}
    """Start and end of the latest process with each id."""
    found: dict[int, list[list[float]]] = {root: [] for root in roots}
    for event in events:
        if event.kind == EXIT:
            # Each thread has such an event. The process ends with the last one.
            if event.pid in latest:
                latest[event.pid][1] = event.moment
        elif event.pid != event.parent and event.parent in root_of:
            root = root_of[event.pid] = root_of[event.parent]
            latest[event.pid] = [event.moment, math.inf]
            found[root].append(latest[event.pid])
        elif event.pid != event.parent and latest.pop(event.pid, None) is not None:
            # A stranger has got the id of a process that has ended.
            del root_of[event.pid]
    return {root: tuple(Lifetime(*one) for one in ones) for root, ones in found.items()}


def _buffer(core: int) -> mmap.mmap:
    """Open an event of all processes on a core, and return its buffer."""
    number = _CALLS.get(os.uname().machine) if sys.platform == "linux" else None
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # Commands that only plan or list import this module, but not ctypes.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(_ATTRIBUTES, len(_ATTRIBUTES))
    fd = libc.syscall(number, attributes, _EVERY_PROCESS, core, _NO_GROUP, _CLOSE_ON_EXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        # The map has its own copy of the descriptor.
        return mmap.mmap(fd, (1 + BUFFER_PAGES) * mmap.PAGESIZE)
    finally:
        os.close(fd)


def _events(buffer: mmap.mmap) -> Iterator[Event] | None:
    """Yield the events of a buffer. None if it was too small."""
    head, _, start, size = _POSITIONS.unpack_from(buffer, _POSITIONS_AT)
    # Nothing is read before the end, so that a full buffer stays full.
    if head > size - 2 * (_HEADER.size + _TASK.size):
        return None
    return _parsed(buffer, start, start + head)


def _parsed(buffer: mmap.mmap, place: int, end: int) -> Iterator[Event]:
    while place < end:
        kind, _, length = _HEADER.unpack_from(buffer, place)
        if kind in (FORK, EXIT):
            pid, parent, _, _, moment = _TASK.unpack_from(buffer, place + _HEADER.size)
            yield Event(moment / 1e9, kind, pid, parent)
        place += length
