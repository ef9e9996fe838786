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
from functools import cache
from pathlib import Path
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.model.sample import ProcessResult, SessionLog

METHOD = "cgroup cpu.pressure"
"""Name of the method, for reports."""
LEVELS = 32
"""Levels that are read in turn, one at a request and one at its reply: enough for steps of 0.3 ms
at 250 jiffies a second. Each costs 0.02 us at a context switch."""
MAX_LOST_SECONDS = 0.001
"""A level that lost more than this (or MAX_LOST_SHARE) makes the requests' delays unusable."""
MAX_LOST_SHARE = 0.02
_PREFIX = "trae-bench-"
_FULL = re.compile(rb"^full .*total=(\d+)$", re.MULTILINE)


class Group(Struct, frozen=True):
    """The cgroup of a trial, as the launcher needs it."""

    procs: str
    """The launcher writes itself into this file before it starts the trial."""
    home_procs: str
    """The launcher writes itself into this file afterwards."""
    pressure: tuple[str, ...]
    """The `cpu.pressure` files of all levels, the top level first. Only the launcher reads the
    top level; the provider reads the others in turn."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The files that the provider reads."""
        return self.pressure[1:]


class PressureGroups:
    """One chain of cgroups for each trial that runs at the same time.

    `count` is how many run at the same time. `home` is the cgroup to create them in: by default
    that of this process. `groups` is empty if this system does not allow it; `problem` then says
    why.
    """

    def __init__(self, count: int = 2, home: Path | None = None) -> None:
        self.groups: tuple[Group, ...] = ()
        self.problem: str | None = None
        self._folders: list[Path] = []
        """Deepest last."""
        if count == 0:
            return
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

    def __exit__(self, *_: object) -> None:
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
            group = Group(str(levels[-1] / "cgroup.procs"), str(home / "cgroup.procs"), pressure)
            _check(group)
            groups.append(group)
        self.groups = tuple(groups)

    def _make_folder(self, folder: Path) -> Path:
        folder.mkdir()
        self._folders.append(folder)
        return folder


@cache
def unavailable() -> str | None:
    """Why this process cannot measure the delay of trials; None if it can."""
    with PressureGroups(count=1) as groups:
        return groups.problem


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
    inside = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), None)
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


def with_delays(log: SessionLog, process: ProcessResult) -> SessionLog:
    """Add to each request for how long the trial had been kept from running when it arrived, and
    when its reply was sent. In between, the agent may still be on its way to sleep.

    The log stays as it is without readings, and if a level lost too much time because the
    requests came too fast.
    """
    if _lost(process):
        return log
    highest = 0.0
    requests = []
    for request in sorted(log.requests, key=lambda request: request.arrived):
        if request.pressure is None or request.reply_pressure is None:
            return log
        delays = []
        for level, reading in (request.pressure, request.reply_pressure):
            # Levels differ by rounding, so that a later reading can be a microsecond lower.
            highest = max(highest, (reading - process.pressure_start[level]) / 1e6)
            delays.append(highest)
        requests.append(replace(request, delay=delays[0], reply_delay=delays[1]))
    return replace(log, requests=tuple(requests))


def _lost(process: ProcessResult) -> bool:
    """Whether a level that is read at requests has not all the delay of the top level."""
    total = process.tree_delay
    if total is None:
        return True
    allowed = max(MAX_LOST_SECONDS, MAX_LOST_SHARE * total)
    levels = zip(process.pressure_start, process.pressure_end, strict=True)
    return any(abs((last - first) / 1e6 - total) > allowed for first, last in levels)


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
