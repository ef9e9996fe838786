"""Reads how long a trial, and this process, waited for a processor; see `execution.run_delay`."""

import os
from collections.abc import Sequence

_MAX_SIZE = 256
"""Bytes; both kinds of file are smaller."""

Pressure = tuple[int, int]
"""A level of the trial's cgroup, and its full CPU pressure (microseconds)."""


class PressureFiles:
    """The `cpu.pressure` files of one trial. Raises `OSError` if one cannot be opened."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._files: list[int] = []
        self._reads = 0
        try:
            for path in paths:
                self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def __bool__(self) -> bool:
        return bool(self._files)

    def read_next(self) -> Pressure:
        """Read the files in turn (2 us). The launcher reads level 0, so the first file is 1."""
        index = self._reads % len(self._files)
        self._reads += 1
        # The last total is that of the "full" line.
        text = os.pread(self._files[index], _MAX_SIZE, 0)
        return index + 1, int(text.rpartition(b"total=")[2])

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())


class OwnDelay:
    """Time for which this process was runnable and waited for its core (seconds).

    Always 0 on systems without /proc/self/schedstat.
    """

    def __init__(self) -> None:
        self._before_sleep = 0.0
        self._file = -1
        try:
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def going_to_sleep(self) -> None:
        """Call this before each wait for events."""
        self._before_sleep = self._total()

    def since_sleep(self) -> float:
        """Seconds that this process has waited for its core since `going_to_sleep`."""
        return self._total() - self._before_sleep

    def _total(self) -> float:
        if self._file < 0:
            return 0.0
        return int(os.pread(self._file, _MAX_SIZE, 0).split()[1]) / 1e9
