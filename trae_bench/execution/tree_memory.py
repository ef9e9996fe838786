"""Samples the memory of all processes of a trial together, from outside.

What several processes of a tree share counts once: of anonymous memory each has its share
(`Pss_Anon` of smaps_rollup), and of a file or shared memory the largest resident part counts. So
the figure is that of `peak_rss` if there is one process, and it does not depend on what other
processes of the machine map.

A sample walks the page tables of each process and delays it, so it is taken in separate trials.
Between two samples the high-water mark of each process (`VmHWM`) shows a peak of that process.
What is missed: a process that starts and ends between two samples, and a peak of several
processes together.

The cgroup's `memory.peak` was rejected. It has no gaps, but counts the page cache of files that
the trial is the first to touch: writing a file of 100 MB counts 100 MB, and nothing the second
time. It also needs a cgroup with the memory controller, which few hosts give.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trae_bench._util.system_files import read_text

PAUSE = 0.005
"""Seconds between two samples, at least; and at least as long as the last sample took."""
MIN_MISSED = 1 << 20
"""Bytes by which a high-water mark must exceed the sample: the kernel's marks are less exact."""
_FILE_CHANGE = 1 << 18
"""Bytes by which the mapped files of a process must change before they are listed again."""
_MAPPING = re.compile(
    r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ (\S+) ([1-9]\d*) (?s:.*?)^Rss: +(\d+) kB(?s:.*?)"
    r"^Anonymous: +(\d+) kB",
    re.MULTILINE,
)
"""A mapping of a file: device, inode, resident and anonymous kB."""
_FORKED_NO_EXEC = 0x40
"""Flag of a process that has not yet started another program."""

Files = dict[tuple[str, str], int]
"""Resident bytes by device and inode."""


class _Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used."""

    state: str
    parent: int
    session: int
    flags: int
    start: str


class _Process(NamedTuple):
    """One process at a sample. Sizes are bytes."""

    private: int
    """Its share of anonymous memory."""
    files: Files
    missed: int
    """By how much its high-water mark, since the last sample, exceeds its memory now."""


class _Known:
    """What is remembered of a process between samples."""

    def __init__(self, root: int, start: str) -> None:
        self.root = root
        self.start = start
        self.mark = 0
        self.files: Files = {}
        self.listed = -_FILE_CHANGE
        """Bytes of mapped files when `files` was read."""


class TreeMemory:
    """Samples the trees of trials that the process `launcher` started.

    `homes` are the home folders of the trials by process id.
    """

    def __init__(self, launcher: int, homes: Mapping[int, str]) -> None:
        self._launcher = launcher
        self._homes = homes
        self._known: dict[int, _Known] = {}
        self.peaks = dict.fromkeys(homes, 0)
        """Peak bytes by root. 0 if the system does not tell."""

    def sample(self) -> float:
        """Take a sample. Return for how many seconds to pause."""
        begun = time.monotonic()
        found: dict[int, list[_Process]] = {root: [] for root in self.peaks}
        # Listed before the first is read: after a fork in between, the new process would have its
        # half of memory that its parent was read with in full.
        for pid, root, stat in list(self._members()):
            if (process := self._look(pid, root, stat)) is not None:
                found[root].append(process)
        for root, processes in found.items():
            self.peaks[root] = max(self.peaks[root], tree_bytes(processes))
        return max(PAUSE, time.monotonic() - begun)

    def _members(self) -> Iterator[tuple[int, int, _Stat]]:
        """Yield each process of the trees, with its root."""
        adopted = [(pid, self._root(pid)) for pid in children(self._launcher)]
        todo = [(pid, root) for pid, root in adopted if root is not None]
        while todo:
            pid, root = todo.pop()
            stat = _stat(pid)
            if stat is not None:
                yield pid, root, stat
                todo += [(child, root) for child in children(pid)]

    def _root(self, pid: int) -> int | None:
        """Return the trial of a child of the launcher, which may be an adopted orphan."""
        if pid in self.peaks:
            return pid
        if len(self.peaks) == 1:
            return next(iter(self.peaks))
        stat = _stat(pid)
        if stat is None:
            return None
        if (known := self._known.get(pid)) is not None and known.start == stat.start:
            return known.root
        if stat.session in self.peaks:
            return stat.session
        environ = _text(pid, "environ").split("\0")
        owners = [root for root, home in self._homes.items() if f"HOME={home}" in environ]
        return owners[0] if len(owners) == 1 else None

    def _look(self, pid: int, root: int, stat: _Stat) -> _Process | None:
        known = self._known.get(pid)
        if known is None or known.start != stat.start:
            known = self._known[pid] = _Known(root, stat.start)
        if stat.flags & _FORKED_NO_EXEC and stat.parent != self._launcher and _waits(stat.parent):
            # After vfork, it still uses the memory of its parent.
            return None
        rollup, status = _sizes(pid, "smaps_rollup"), _sizes(pid, "status")
        if "Pss_Anon" not in rollup or "VmHWM" not in status:
            return None
        mapped = status["RssFile"] + status["RssShmem"]
        if abs(mapped - known.listed) >= _FILE_CHANGE:
            known.files, known.listed = mapped_files(_text(pid, "smaps")), mapped
        missed = missed_peak(status["VmHWM"], known.mark, rollup["Rss"], status["VmRSS"])
        known.mark = status["VmHWM"]
        return _Process(rollup["Pss_Anon"], known.files, missed)


def unavailable() -> str | None:
    """Why the memory of a tree cannot be sampled on this host; None if it can."""
    rollup = read_text(Path("/proc/self/smaps_rollup"))
    return None if "Pss_Anon:" in rollup else "it needs Linux 5.4 or later"


def tree_bytes(processes: Sequence[_Process]) -> int:
    """Return the resident memory of some processes together."""
    files: Files = {}
    for process in processes:
        for file, size in process.files.items():
            files[file] = max(size, files.get(file, 0))
    private = sum(process.private for process in processes)
    missed = max((process.missed for process in processes), default=0)
    return private + sum(files.values()) + missed


def missed_peak(mark: int, before: int, *resident: int) -> int:
    """Return by how much a process was larger between two samples than at the second one.

    `mark` is its high-water mark, `before` that at the first sample. `resident` has its memory as
    read twice for the second sample: it can release memory between the two readings.
    """
    missed = mark - max(resident)
    return missed if mark > before and missed > MIN_MISSED else 0


def mapped_files(smaps: str) -> Files:
    """Return the resident bytes of each mapped file, from the text of /proc/PID/smaps."""
    files: Files = {}
    for device, inode, resident, anonymous in _MAPPING.findall(smaps):
        size = 1024 * (int(resident) - int(anonymous))
        files[device, inode] = files.get((device, inode), 0) + size
    return files


def children(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    found: list[int] = []
    for thread in _threads(pid):
        found += map(int, read_text(thread / "children").split())
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _waits(pid: int) -> bool:
    """Return whether a thread waits without a wake-up by signals, as after vfork."""
    stats = (read_text(thread / "stat") for thread in _threads(pid))
    return any(stat.rpartition(") ")[2][:1] == "D" for stat in stats)


def _stat(pid: int) -> _Stat | None:
    # After the name: state, parent, process group, session, and others.
    fields = _text(pid, "stat").rpartition(") ")[2].split()
    if len(fields) < 20 or fields[0] == "Z":
        return None
    return _Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[6]), fields[19])


def _sizes(pid: int, name: str) -> dict[str, int]:
    """Return the sizes in a file of /proc/PID, in bytes by name."""
    lines = (line.split() for line in _text(pid, name).splitlines())
    return {line[0][:-1]: 1024 * int(line[1]) for line in lines if line[-1:] == ["kB"]}


def _text(pid: int, name: str) -> str:
    return read_text(Path(f"/proc/{pid}/{name}"))
