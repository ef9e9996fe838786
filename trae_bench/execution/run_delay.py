"""Measures how long a trial waited for a processor that others used.

Each trial runs in a cgroup. The group's `cpu.pressure` file (pressure stall information, PSI;
Linux 5.13 or later) counts as "full" the time in which some task of the group was runnable and
no task of it ran. Tasks that wait at the same time count once. Waiting behind a task of the
same trial does not count, because the trial would wait for it on an idle core too.

The figure is exact only if all tasks share one core: with several cores the kernel reports a
mean over the cores. It is therefore used only for the pinned trials of a duet.

A read adds the time since the previous read of the same file, but only if the group was
runnable for at least one jiffy (1 to 10 ms) in between; otherwise the kernel drops that time.
A step of an agent can be shorter. A group is therefore a chain of nested cgroups. Each level
counts the same tasks, and the levels are read in turn. The top level is read only at the start
and at the end of a trial; a level that ends with less than the top one has lost time.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

METHOD = "cgroup cpu.pressure"
"""Name of the method, for reports."""
LEVELS = 8
"""Levels that are read in turn: a level must be runnable for a jiffy between two reads."""
MAX_LOST_SECONDS = 0.001
"""A level that lost more than this (or MAX_LOST_SHARE) makes the requests' delays unusable."""
MAX_LOST_SHARE = 0.02
_PREFIX = "trae-bench-"
_FULL = re.compile(rb"^full .*total=(\d+)$", re.MULTILINE)

Readings = tuple[int, ...]
"""Microseconds of "full" pressure, one number a file, the top level first."""


class Group(Struct, frozen=True):
    """The cgroup of a trial, as the launcher needs it."""

    procs: str
    """The launcher writes itself into this file before it starts the trial."""
    home_procs: str
    """The launcher writes itself into this file afterwards."""
    pressure: tuple[str, ...]
    """The `cpu.pressure` files of all levels, the top level first."""


class PressureGroups:
    """One chain of cgroups for each trial that runs at the same time.

    `groups` is empty if this system does not allow it; `problem` then says why.
    """

    def __init__(self, count: int = 2, home: Path | None = None) -> None:
        self.groups: tuple[Group, ...] = ()
        self.problem: str | None = None
        self._folders: list[Path] = []
        """Deepest last."""
        home = own_cgroup() if home is None else home
        if home is None:
            self.problem = "cgroup v2 is not mounted"
            return
        try:
            self._make(home, count)
        except OSError as error:
            self.problem = f"cannot use a cgroup in {home}: {error.strerror}"
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the cgroups. A group with a live process stays; a later run removes it."""
        self.groups = ()
        while self._folders:
            _remove_folder(self._folders.pop())

    def _make(self, home: Path, count: int) -> None:
        _remove_stale(home)
        top = self._make_folder(home / f"{_PREFIX}{os.getpid()}-{id(self):x}")
        groups = []
        for slot in range(count):
            levels = [self._make_folder(top / f"{slot}")]
            for _ in range(LEVELS):
                levels.append(self._make_folder(levels[-1] / "level"))
            pressure = tuple(str(level / "cpu.pressure") for level in levels)
            group = Group(
                str(levels[-1] / "cgroup.procs"), str(home / "cgroup.procs"), pressure
            )
            _check(group)
            groups.append(group)
        self.groups = tuple(groups)

    def _make_folder(self, folder: Path) -> Path:
        folder.mkdir()
        self._folders.append(folder)
        return folder


def own_cgroup() -> Path | None:
    """The cgroup v2 folder of this process; None if there is none."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        membership = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:
        return None
    return cgroup_folder(mounts, membership)


def cgroup_folder(mounts: str, membership: str) -> Path | None:
    """The cgroup v2 folder by the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    inside = next(
        (line[3:] for line in membership.splitlines() if line.startswith("0::")), None
    )
    if inside is None:
        return None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if not after.startswith("cgroup2 ") or len(fields) < 5:
            continue
        root, point = fields[3], fields[4]
        if inside == root or inside.startswith(root.rstrip("/") + "/"):
            return Path(point) / inside[len(root.rstrip("/")) :].lstrip("/")
    return None


def full_microseconds(pressure: bytes) -> int | None:
    """The total of the "full" line of a pressure file; None if there is no such line."""
    found = _FULL.search(pressure)
    return int(found[1]) if found else None


def tree_delay(start: Readings, end: Readings) -> float | None:
    """Seconds for which a trial was kept from running; None without readings."""
    if not start or len(start) != len(end):
        return None
    return (end[0] - start[0]) / 1e6


def request_delays(
    readings: Sequence[int], start: Readings, end: Readings
) -> tuple[float, ...] | None:
    """Seconds for which a trial had been kept from running when each request arrived.

    Reading number i is of level 1 + i % LEVELS. None if a level lost too much: the requests
    came too fast.
    """
    total = tree_delay(start, end)
    if total is None or len(start) != LEVELS + 1:
        return None
    allowed = max(MAX_LOST_SECONDS, MAX_LOST_SHARE * total)
    levels = [(last - first) / 1e6 for first, last in zip(start, end, strict=True)]
    if any(abs(level - total) > allowed for level in levels):
        return None
    delays = []
    highest = 0.0
    for number, reading in enumerate(readings):
        # Levels differ by rounding, so that a later reading can be a microsecond lower.
        highest = max(highest, (reading - start[1 + number % LEVELS]) / 1e6)
        delays.append(highest)
    return tuple(delays)


def _check(group: Group) -> None:
    """Raises OSError if the files of a group do not work as they must."""
    for path in group.pressure:
        if full_microseconds(Path(path).read_bytes()) is None:
            raise OSError(0, "its cpu.pressure has no full line")
    pid = str(os.getpid())
    Path(group.procs).write_text(pid, encoding="ascii")
    Path(group.home_procs).write_text(pid, encoding="ascii")


def _remove_stale(home: Path) -> None:
    """Remove the groups of runs that were killed."""
    for folder in home.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            inner = sorted(path for path in folder.rglob("*") if path.is_dir())
            for path in reversed([folder, *inner]):
                _remove_folder(path)


def _remove_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
