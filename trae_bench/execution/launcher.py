"""Starts, watches and reaps the trials: a small process of its own, one for a whole run.

Run as a script (`python -I -S launcher.py`), imported by no room; it imports nothing of
this package, so that it stays small. Orders come in and answers go out over the socket
that is its standard input, one JSON object a line; `jobs.Launcher` is the other end.

    in   {"seconds": 60.0, "jobs": [Job, ...]}      start them all, back to back
    out  {"ready": true}                            once
         {"pids": [71, 72]}                         at once after the spawns
         {"done": [...], "floor": 12328960}         when the last one has ended

When the other end hangs up, all that runs is killed.

Why there is such a process between the bench and the trials:

- Linux lets a child inherit the memory high-water mark of whoever spawned it: `ru_maxrss`
  of a bare interpreter reads 216 MB below a parent that once had 200 MB. This process
  stays near 12 MB, less than any agent needs, and tells how much it is (`floor`).
- When the bench is killed, even with -9, the socket ends here and every trial is killed.
  A death signal set within the child would cost it milliseconds that are being measured.
- It adopts orphans (PR_SET_CHILD_SUBREAPER), so that a grandchild that left its session
  is found and killed, too.
- It can change its own processor, folder, limits and address layout around a spawn, so
  that the child has them before its first instruction, with no code between fork and exec.

It sleeps in one `poll` while trials run: woken by SIGCHLD, by a report, or by the bench
hanging up.
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
"""Bytes of a report that are kept; a child that writes more is hung up on."""
PATIENCE = 5.0
"""Seconds that a killed process gets to be gone."""
_DEFAULT_AGAIN = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
)
"""Signals that Python, or whoever started the bench, may have set to be ignored."""
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
    """File that takes its standard output and standard error."""
    report_fd: int
    """The child finds the writing end of its report pipe here."""
    cores: list[int]
    """Processors that it may use; empty for all that this process may use."""
    limits: dict[str, int]
    """Soft limits by the name of the constant, `RLIMIT_FSIZE` say."""
    group: Group | None
    """The process starts in this cgroup; None for the launcher's own."""


class Child:
    """One process that was started, or could not be."""

    def __init__(self) -> None:
        self.pid = 0
        self.started = 0.0
        self.pipe = -1
        self.group: Group | None = None
        self.pressure_start: list[int] = []
        self._report = bytearray()
        self._account: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        return self.pid > 0 and "exit_status" not in self._account

    def failed(self, problem: str) -> None:
        """Note that there will be no exit status, and why."""
        self._account["problem"] = problem
        self._hang_up()

    def kill_as_late(self) -> None:
        """Its time is up: kill its whole session."""
        if self.running:
            self._account["timed_out"] = True
            _kill_group(self.pid)

    def read_report(self) -> None:
        """Take what is there; hang up on a child that says too much."""
        while self.pipe >= 0:
            try:
                chunk = os.read(self.pipe, 65536)
            except BlockingIOError:
                return
            self._report += chunk
            if not chunk or len(self._report) > REPORT_LIMIT:
                self._hang_up()

    def reap_if_ended(self) -> None:
        """If it has ended: note what the kernel charged to it, kill what is left of its session."""
        if not self.running or (found := _reap(self.pid, self.group)) is None:
            return
        self._account |= found
        self.read_report()
        self._hang_up()

    def result(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "started": self.started,
            "report": self._report[:REPORT_LIMIT].decode("latin-1"),
            "report_cut": len(self._report) > REPORT_LIMIT,
            "pressure_start": self.pressure_start,
            **self._account,
        }

    def _hang_up(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class Launcher:
    """The loop: an order in, an answer out, until the bench hangs up."""

    def __init__(self) -> None:
        self._inbox = bytearray()
        self._hung_up = False
        self._all_cores = _cores()
        self._wake, wake_end = os.pipe()
        for fd in (CONTROL, self._wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        # A handler that does nothing, because a signal without one wakes nobody.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        while not self._hung_up:
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
                # The bench is gone; the next read finds the end of the socket.
                return

    def _run(self, jobs: list[Job], seconds: float) -> None:
        children = self._start(jobs)
        self.answer({"pids": [child.pid for child in children]})
        self._watch(children, time.monotonic() + seconds)
        for child in children:
            if child.running:
                child.failed("not even SIGKILL ended it")
        _kill_orphans()
        self.answer({"done": [child.result() for child in children], "floor": _high_water()})

    def _start(self, jobs: list[Job]) -> list[Child]:
        """Start all, one right after the other, in order."""
        children = []
        for job in jobs:
            child = Child()
            children.append(child)
            try:
                self._spawn(job, child)
            except (OSError, ValueError) as error:
                child.failed(f"cannot start {job['argv'][0]}: {error}")
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
            # The launcher waits for the trial's core inside the group; this precedes `started`.
            child.pressure_start = _pressure(child.group)
            child.started = time.monotonic()
            child.pid = os.posix_spawnp(
                job["argv"][0],
                job["argv"],
                job["env"],
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, job["log"], log_flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    (os.POSIX_SPAWN_DUP2, write_end, job["report_fd"]),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT_AGAIN,
            )
        finally:
            if group is not None:
                _move_to(group["home_procs"])
            os.close(write_end)

    def _watch(self, children: list[Child], deadline: float) -> None:
        """Sleep until all have ended; kill them at the deadline, and when the bench is gone."""
        killed = False
        while any(child.running for child in children):
            now = time.monotonic()
            if not killed and (self._hung_up or now >= deadline):
                for child in children:
                    child.kill_as_late()
                killed, deadline = True, now + PATIENCE
            elif now >= deadline:
                return
            self._sleep(children, deadline - now)
            for child in children:
                child.read_report()
                child.reap_if_ended()

    def _sleep(self, children: list[Child] | tuple[()], seconds: float | None) -> None:
        """Until something happens, at most `seconds`."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if not self._hung_up:
            poll.register(CONTROL, select.POLLIN)
        for child in children:
            if child.pipe >= 0:
                poll.register(child.pipe, select.POLLIN)
        # Rounded up, or the last millisecond would be spent spinning.
        awake = dict(poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1)))
        if self._wake in awake:
            os.read(self._wake, 4096)
        if CONTROL in awake:
            self._pull()

    def _pull(self) -> None:
        """Take what the bench sent."""
        try:
            while chunk := os.read(CONTROL, 65536):
                self._inbox += chunk
        except BlockingIOError:
            return
        except ConnectionError:
            pass
        self._hung_up = True

    def _next_order(self) -> dict[str, Any] | None:
        line, newline, rest = self._inbox.partition(b"\n")
        if not newline:
            return None
        self._inbox = rest
        order: dict[str, Any] = json.loads(line)
        return order


def _reap(pid: int, group: Group | None) -> dict[str, Any] | None:
    """What the kernel charged to a child that has ended; None while it runs."""
    ended = time.monotonic()
    accounts: dict[str, Any] = {"run_delay": None, "written_bytes": None, "write_syscalls": None}
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            return None
        ended = time.monotonic()
        pressure = _pressure(group)
        # A zombie still has its files in /proc, and holds its number: the group that is
        # killed can be no stranger's.
        accounts = _accounts(pid) | {"pressure_end": pressure}
        _kill_group(pid)
    found, status, usage = os.wait4(pid, os.WNOHANG)
    if not found:
        return None
    if not hasattr(os, "waitid"):
        _kill_group(pid)
    return {
        **accounts,
        "ended": ended,
        "exit_status": os.waitstatus_to_exitcode(status),
        "user": usage.ru_utime,
        "system": usage.ru_stime,
        "max_rss": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "minor_faults": usage.ru_minflt,
        "major_faults": usage.ru_majflt,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
    }


def _accounts(pid: int) -> dict[str, Any]:
    """What only /proc tells, while the zombie is there; None for each where it does not."""
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
    # No such group: nothing was left. No permission: macOS says so of a zombie's group.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _kill_orphans() -> None:
    """Kill what the trials left behind outside their sessions and this process adopted."""
    deadline = time.monotonic() + PATIENCE
    while (orphans := _children()) and time.monotonic() < deadline:
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        # They are only told so far, and their own children become ours when they are gone.
        time.sleep(0.002)
        while _children() and os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _children() -> list[int]:
    return [int(pid) for pid in _read(f"/proc/self/task/{os.getpid()}/children").split()]


def _high_water() -> int:
    """Most memory that this process ever had (bytes); 0 where children do not inherit it."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    """A file of /proc; empty where there is none or it may not be read."""
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
    """Soft limits, none above the hard one, which stays: so they can be taken back."""
    for name, wanted in limits.items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        # "Without limit" may be spelled -1, so it cannot go through `min`.
        known = [value for value in (wanted, hard) if value != resource.RLIM_INFINITY]
        resource.setrlimit(limit, (min(known, default=resource.RLIM_INFINITY), hard))


def _prepare() -> None:
    """What the children inherit for good."""
    if not sys.platform.startswith("linux"):
        return
    # Should a trial eat the memory, it shall be the kernel's first victim, not the run.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no pathlib
            file.write("1000")
    except OSError:
        pass
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # A layout drawn anew for each process moves peak memory by a few pages; containers
    # may forbid this, then it stays as it is.
    libc.personality(ctypes.c_ulong(libc.personality(_PERSONALITY_QUERY) | _ADDR_NO_RANDOMIZE))


def main() -> None:
    _prepare()
    server = Launcher()
    server.answer({"ready": True})
    server.serve()


if __name__ == "__main__":
    main()
