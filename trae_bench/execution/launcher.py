"""Starts, watches and reaps the trials of a run: one small process between them and trae-bench.

It runs as a script (`python -I -S launcher.py`). It imports nothing of this package, so that it
stays small. Orders arrive and answers leave over the socket on its standard input, one JSON
object per line. `launcher_client.LauncherClient` is the other end.

    in   {"seconds": 60.0, "jobs": [Job, ...]}      start all jobs, back to back
    out  {"ready": true}                            once
         {"pids": [71, 72]}                         right after the spawns
         {"done": [...], "floor": 12328960}         when the last job has ended

When the other end closes the socket, every running trial is killed.

Reasons for a separate process:

- Linux lets a child inherit the memory high-water mark of its parent: `ru_maxrss` of an empty
  interpreter reads 216 MB below a parent that once used 200 MB. This process stays near 12 MB,
  less than any agent needs, and reports its own mark (`floor`).
- If trae-bench is killed, even by SIGKILL, the socket closes here and every trial is killed.
  A parent-death signal set in the child would cost it milliseconds that are measured.
- It adopts orphans (PR_SET_CHILD_SUBREAPER), so that it finds and kills processes that a trial did
  not wait for, and adds what they used to the figures of their trial.
- It can change its own core, cgroup, folder, limits and address layout around a spawn. The child
  starts with them, and no code runs between fork and exec.

While trials run it sleeps in one `poll`, until SIGCHLD, a report or the socket wakes it.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, TypedDict

CONTROL = 0
REPORT_LIMIT = 1 << 20
"""Maximum bytes of a report. The pipe of a child that writes more is closed."""
KILL_SECONDS = 5.0
"""Seconds to wait for a killed process to end."""
_RESET_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
)
"""Signals that Python, or the parent of trae-bench, may ignore. A child gets the default."""
_PR_SET_CHILD_SUBREAPER = 36
_ADDR_NO_RANDOMIZE = 0x0040000
_PERSONALITY_QUERY = 0xFFFFFFFF


class Group(TypedDict):
    """The cgroup of a trial; see `run_delay.Group`."""

    procs: str
    home_procs: str
    pressure: list[str]


class Job(TypedDict):
    """One process to start."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    log: str
    """File for its standard output and standard error."""
    report_fd: int
    """File descriptor of the report pipe in the child."""
    cores: list[int]
    """Cores that it may use. Empty means every core of this process."""
    limits: dict[str, int]
    """Soft limits by the name of their constant, for example `RLIMIT_FSIZE`."""
    group: Group | None
    """Cgroup to start it in. None means the cgroup of this process."""
    stdin: str
    """File for its standard input. Empty for an empty input."""


class Child:
    """One process, or the reason why it could not start."""

    def __init__(self, job: Job) -> None:
        self.home = job["env"].get("HOME", "")
        self.pid = 0
        self.started = 0.0
        self.pipe = -1
        self.group: Group | None = None
        self.pressure_start: list[int] = []
        self._report = bytearray()
        self._account: dict[str, Any] = {}
        self._orphans: dict[str, float] = {}
        """What the processes used that it did not wait for."""

    @property
    def running(self) -> bool:
        return self.pid > 0 and "exit_status" not in self._account

    def fail(self, problem: str) -> None:
        """Record why there is no exit status."""
        self._account["problem"] = problem
        self._close_pipe()

    def kill_at_timeout(self) -> None:
        """Kill its session and record the timeout."""
        if self.running:
            self._account["timed_out"] = True
            _kill_group(self.pid)

    def read_report(self) -> None:
        """Read what is available. Close the pipe if the report is too long."""
        while self.pipe >= 0:
            try:
                chunk = os.read(self.pipe, 65536)
            except BlockingIOError:
                return
            self._report += chunk
            if not chunk or len(self._report) > REPORT_LIMIT:
                self._close_pipe()

    def reap_if_ended(self) -> None:
        """If it has ended, record its resource use and kill the rest of its session."""
        if not self.running or (account := _reap(self.pid, self.group)) is None:
            return
        self._account |= account
        self.read_report()
        self._close_pipe()

    def add(self, usage: dict[str, float]) -> None:
        """Add what a process used that it did not wait for."""
        for name, value in usage.items():
            before = self._orphans.get(name, 0)
            self._orphans[name] = max(before, value) if name == "max_rss" else before + value

    def result(self, unattributed: float) -> dict[str, Any]:
        self.add({name: self._account.get(name, 0) for name in self._orphans})
        return {
            "pid": self.pid,
            "started": self.started,
            "report": self._report[:REPORT_LIMIT].decode("latin-1"),
            "report_cut": len(self._report) > REPORT_LIMIT,
            "pressure_start": self.pressure_start,
            **self._account,
            **self._orphans,
            "unattributed": unattributed,
        }

    def _close_pipe(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class Orphans:
    """The processes that trials started, did not wait for, and left to this process."""

    def __init__(self, children: list[Child]) -> None:
        self._children = [child for child in children if child.pid]
        self._owners: dict[int, Child | None] = {}
        """The trial of each orphan. It is found once, because a dead process has no environment."""
        self.unattributed = 0.0
        """CPU seconds of processes whose trial is unknown."""

    def kill_those_of_ended(self) -> None:
        """Kill what the trials left that have ended, while others still run."""
        running = [child.pid for child in self._children if child.running]
        if len(running) == len(self._children):
            return
        for pid in _children():
            owner = None if pid in running else self._owner(pid)
            if owner is not None and not owner.running:
                os.kill(pid, signal.SIGKILL)

    def reap(self) -> None:
        """Kill all orphans, and add what they used to their trials."""
        deadline = time.monotonic() + KILL_SECONDS
        while (orphans := _children()) and time.monotonic() < deadline:
            for pid in orphans:
                self._owner(pid)
                os.kill(pid, signal.SIGKILL)
            # They have not ended yet, and this process adopts their children when they do.
            time.sleep(0.002)
            for pid in _children():
                self._reap_if_ended(pid)

    def _reap_if_ended(self, pid: int) -> None:
        owner = self._owner(pid)
        reaped, _, rusage = os.wait4(pid, os.WNOHANG)
        if not reaped:
            return
        del self._owners[pid]
        usage = _usage(rusage)
        if owner is not None:
            owner.add(usage)
        else:
            self.unattributed += usage["user"] + usage["system"]

    def _owner(self, pid: int) -> Child | None:
        if pid not in self._owners:
            self._owners[pid] = self._find_owner(pid)
        return self._owners[pid]

    def _find_owner(self, pid: int) -> Child | None:
        """Return the trial that started a process: by its session, cgroup or home folder."""
        if len(self._children) == 1:
            return self._children[0]
        # After the name: state, parent, process group, session.
        groups = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[2:4]
        # Version 2 has one line: 0::/path.
        cgroup = _read(f"/proc/{pid}/cgroup").rpartition("0::")[2].strip()
        environ = _read(f"/proc/{pid}/environ").split("\0")
        for owners in (
            [child for child in self._children if str(child.pid) in groups],
            [child for child in self._children if _is_in(child.group, cgroup)],
            [child for child in self._children if f"HOME={child.home}" in environ],
        ):
            if len(owners) == 1:
                return owners[0]
        return None


class Launcher:
    """Handles one order after another until the client disconnects."""

    def __init__(self) -> None:
        self._inbox = bytearray()
        self._disconnected = False
        self._all_cores = _cores()
        self._wake, wake_end = os.pipe()
        for fd in (CONTROL, self._wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        # The handler is empty, but without one a signal does not write to the wake-up pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        while not self._disconnected:
            self._sleep((), None)
            while (order := self._next_order()) is not None:
                self._run(order["jobs"], order["seconds"])

    def answer(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            try:
                data = data[os.write(CONTROL, data) :]
            except BlockingIOError:
                select.select((), (CONTROL,), ())
            except OSError:
                # The client has gone. The next read returns the end of the socket.
                return

    def _run(self, jobs: list[Job], seconds: float) -> None:
        children = self._start(jobs)
        self.answer({"pids": [child.pid for child in children]})
        orphans = Orphans(children)
        self._watch(children, orphans, time.monotonic() + seconds)
        for child in children:
            if child.running:
                child.fail("SIGKILL did not end it")
        orphans.reap()
        done = [child.result(orphans.unattributed) for child in children]
        self.answer({"done": done, "floor": _high_water()})

    def _start(self, jobs: list[Job]) -> list[Child]:
        """Start all jobs back to back, in order."""
        children = []
        for job in jobs:
            child = Child(job)
            children.append(child)
            try:
                self._spawn(job, child)
            except (OSError, ValueError) as error:
                child.fail(f"cannot start {job['argv'][0]}: {error}")
        os.chdir("/")
        _set_cores(self._all_cores)
        _set_limits({name: resource.RLIM_INFINITY for job in jobs for name in job["limits"]})
        return children

    def _spawn(self, job: Job, child: Child) -> None:
        child.pipe, write_end = os.pipe()
        os.set_blocking(child.pipe, False)
        group = job.get("group")
        try:
            if group is not None and _move_to(group["procs"]):
                child.group = group
            os.chdir(job["cwd"])
            _set_cores(job["cores"] or self._all_cores)
            _set_limits(job["limits"])
            log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            # Read last: until here this process itself waited for the core, inside the group.
            child.pressure_start = _pressure(child.group)
            child.started = time.monotonic()
            child.pid = os.posix_spawnp(
                job["argv"][0],
                job["argv"],
                job["env"],
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, job["stdin"] or os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, job["log"], log_flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    (os.POSIX_SPAWN_DUP2, write_end, job["report_fd"]),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=_RESET_SIGNALS,
            )
        finally:
            if group is not None:
                _move_to(group["home_procs"])
            os.close(write_end)

    def _watch(self, children: list[Child], orphans: Orphans, deadline: float) -> None:
        """Wait until all have ended. Kill them at the deadline or if the client disconnects."""
        killed = False
        while any(child.running for child in children):
            now = time.monotonic()
            if not killed and (self._disconnected or now >= deadline):
                for child in children:
                    child.kill_at_timeout()
                killed, deadline = True, now + KILL_SECONDS
            elif now >= deadline:
                return
            self._sleep(children, deadline - now)
            for child in children:
                child.read_report()
                child.reap_if_ended()
            orphans.kill_those_of_ended()

    def _sleep(self, children: list[Child] | tuple[()], seconds: float | None) -> None:
        """Wait for an event, at most `seconds`."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._disconnected:
            poll.register(CONTROL, select.POLLIN)
        for child in children:
            if child.pipe >= 0:
                poll.register(child.pipe, select.POLLIN)
        # Rounded up, because rounding down would spin during the last millisecond.
        ready = dict(poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1)))
        if self._wake in ready:
            os.read(self._wake, 4096)
        if CONTROL in ready:
            self._receive()

    def _receive(self) -> None:
        """Read what the client sent."""
        try:
            while chunk := os.read(CONTROL, 65536):
                self._inbox += chunk
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self._disconnected = True

    def _next_order(self) -> dict[str, Any] | None:
        line, newline, rest = self._inbox.partition(b"\n")
        if not newline:
            return None
        self._inbox = rest
        order: dict[str, Any] = json.loads(line)
        return order


def _reap(pid: int, group: Group | None) -> dict[str, Any] | None:
    """Return the resource use of a child that has ended. None while it runs."""
    ended = time.monotonic()
    accounts: dict[str, Any] = {"run_delay": None, "written_bytes": None, "write_syscalls": None}
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            return None
        ended = time.monotonic()
        pressure = _pressure(group)
        # A zombie still has its files in /proc and keeps its process id, so that no other
        # process group can have this number yet.
        accounts = _accounts(pid) | {"pressure_end": pressure}
        _kill_group(pid)
    reaped, status, usage = os.wait4(pid, os.WNOHANG)
    if not reaped:
        return None
    if not hasattr(os, "waitid"):
        _kill_group(pid)
    return {
        **accounts,
        "ended": ended,
        "exit_status": os.waitstatus_to_exitcode(status),
        **_usage(usage),
    }


def _usage(usage: resource.struct_rusage) -> dict[str, float]:
    """Return what a process used, with the descendants it waited for."""
    return {
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "minor_faults": usage.ru_minflt,
        "major_faults": usage.ru_majflt,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
    }


def _accounts(pid: int) -> dict[str, Any]:
    """Read the figures that only /proc has, while the zombie exists. None if unavailable."""
    delay = _read(f"/proc/{pid}/schedstat").split()
    written = dict(line.split(": ") for line in _read(f"/proc/{pid}/io").splitlines())
    return {
        "run_delay": int(delay[1]) / 1e9 if len(delay) > 1 else None,
        "written_bytes": int(written["wchar"]) if "wchar" in written else None,
        "write_syscalls": int(written["syscw"]) if "syscw" in written else None,
    }


def _move_to(procs: str) -> bool:
    """Move this process to the cgroup of this `cgroup.procs` file; False if that fails."""
    try:
        with open(procs, "w") as file:  # noqa: PTH123 - no pathlib
            file.write("0")
    except OSError:
        return False
    return True


_pressure_fds: dict[str, int] = {}
"""Files that stay open, because opening one takes four times as long as reading it."""


def _pressure(group: Group | None) -> list[int]:
    """Microseconds of full CPU pressure (see `run_delay`), one number per level of a group.

    Empty without a group, and if a file cannot be read.
    """
    paths = group["pressure"] if group is not None else []
    try:
        for path in paths:
            if path not in _pressure_fds:
                _pressure_fds[path] = os.open(path, os.O_RDONLY)
        # The last total is that of the "full" line.
        texts = [os.pread(_pressure_fds[path], 256, 0) for path in paths]
    except OSError:
        return []
    return [int(text.rpartition(b"total=")[2]) for text in texts]


def _kill_group(pid: int) -> None:
    # ProcessLookupError: the group is empty. PermissionError: macOS, if only a zombie is left.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _is_in(group: Group | None, cgroup: str) -> bool:
    """Return whether a path of /proc/PID/cgroup is that of a trial's cgroup."""
    if group is None or len(cgroup) < 2:
        return False
    # The path starts at the mount point, or at the root that a container sees.
    return group["procs"].endswith(f"{cgroup}/cgroup.procs")


def _children() -> list[int]:
    return [int(pid) for pid in _read(f"/proc/self/task/{os.getpid()}/children").split()]


def _high_water() -> int:
    """Return the peak memory of this process (bytes). 0 if children do not inherit it."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    """Read a file of /proc. Empty if it does not exist or is not readable."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - no pathlib
            return file.read()
    except OSError:
        return ""


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _set_cores(cores: list[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _set_limits(limits: dict[str, int]) -> None:
    """Set soft limits, at most the hard limit, which stays, so that this can be undone."""
    for name, requested in limits.items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        # "No limit" can be -1, which `min` would select.
        finite = [value for value in (requested, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(limit, (min(finite, default=resource.RLIM_INFINITY), hard))


def _prepare() -> None:
    """Set what all children inherit."""
    if not sys.platform.startswith("linux"):
        return
    # If memory runs out, the kernel kills a trial first, not trae-bench.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no pathlib
            file.write("1000")
    except OSError:
        pass
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A random address layout changes peak memory by a few pages. Containers may forbid this
    # call; the layout then stays random.
    libc.personality(ctypes.c_ulong(libc.personality(_PERSONALITY_QUERY) | _ADDR_NO_RANDOMIZE))


def main() -> None:
    _prepare()
    server = Launcher()
    server.answer({"ready": True})
    server.serve()


if __name__ == "__main__":
    main()
