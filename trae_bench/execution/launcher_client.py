"""Runs processes through the launcher: takes `Job` records, returns `ProcessResult` records.

`launcher.py` is the other side. Its docstring says why it is a separate process.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from select import select
from typing import IO, TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from trae_bench._util.child_env import inherited
from trae_bench._util.child_output import last_words
from trae_bench.errors import CannotMeasure
from trae_bench.execution.run_delay import Group
from trae_bench.model.sample import ProcessResult

if TYPE_CHECKING:
    from trae_bench.execution.process_events import ProcessEvents

Watch = Literal["nothing", "processes", "memory"]
"""What is recorded of the processes of a job. `memory` delays them, and includes `processes`."""
REPORT_FD = 3
"""File descriptor of a child's report pipe."""


class Job(Struct, frozen=True, kw_only=True):
    """One process for the launcher to start. `launcher.Job` describes the fields."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    log: str
    report_fd: int = REPORT_FD
    cores: tuple[int, ...] = ()
    limits: dict[str, int] = {}
    group: Group | None = None
    """The process starts in this cgroup; None for the launcher's own."""
    stdin: str = ""


class _Message(Struct, frozen=True):
    """A message from the launcher. The fields that are set give its kind."""

    ready: bool = False
    pids: tuple[int, ...] = ()
    done: tuple[ProcessResult, ...] = ()
    floor: int = 0


class LauncherClient:
    """A client of `launcher.py`. The first call to `run` starts the launcher, `close` stops it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket
        self._errors: IO[bytes]
        self._inbox = bytearray()

    def run(
        self, jobs: Sequence[Job], seconds: float, watch: Watch = "nothing"
    ) -> tuple[ProcessResult, ...]:
        """Start all jobs at once and wait until all have ended. Each has `seconds` to run.

        With `watch`, the results have the processes that the jobs started, if the system tells,
        and their peak memory. An interruption such as Ctrl-C kills the jobs. Raises
        `CannotMeasure` if the launcher does not start or dies.
        """
        running: tuple[int, ...] = ()
        try:
            launcher = self._started()
            with _recorded(jobs, watch) as events:
                self._send({"seconds": seconds, "jobs": jobs})
                running = self._receive().pids
                peaks = self._sampled(launcher, jobs, running) if watch == "memory" else {}
                message = self._receive()
                started = {} if events is None else events.descendants(running) or {}
        except CannotMeasure:
            # The launcher can no longer kill them.
            _kill_groups(running)
            raise
        except BaseException:
            self.close()
            raise
        return tuple(
            msgspec.structs.replace(
                result,
                max_rss=_own_rss(result, message.floor),
                peak_tree=_peak_tree(result, peaks),
                started_processes=started.get(result.pid),
            )
            for result in message.done
        )

    def close(self) -> None:
        """Stop the launcher and kill its jobs. The next call to `run` starts a new launcher."""
        if self._process is None:
            return
        self._control.close()
        self._process.wait()
        self._process = None
        self._errors.close()
        self._inbox.clear()

    def _sampled(
        self, launcher: int, jobs: Sequence[Job], running: Sequence[int]
    ) -> Mapping[int, int]:
        """Sample the memory of the jobs until they have ended. Return the peaks by process id."""
        from trae_bench.execution.tree_memory import TreeMemory

        homes = {pid: job.env["HOME"] for pid, job in zip(running, jobs, strict=True) if pid}
        memory, pause = TreeMemory(launcher, homes), 0.0
        while b"\n" not in self._inbox and not select((self._control,), (), (), pause)[0]:
            pause = memory.sample()
        return memory.peaks

    def _started(self) -> int:
        """Start the launcher if it does not run. Return its process id."""
        if self._process is None:
            self._process = self._start()
            self._receive()
        return self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        if not hasattr(os, "posix_spawn"):
            raise CannotMeasure(f"{sys.platform} has no posix_spawn; run trials on Linux or macOS")
        script = Path(__file__).with_name("launcher.py")
        self._control, launcher_end = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        with launcher_end:
            return subprocess.Popen(
                # Without site-packages, because its children inherit its peak memory.
                [sys.executable, "-I", "-S", str(script)],
                stdin=launcher_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=inherited(),
                cwd="/",
                # The terminal's Ctrl-C must not reach it: trae-bench decides what to stop.
                start_new_session=True,
            )

    def _send(self, order: Mapping[str, object]) -> None:
        try:
            self._control.sendall(msgspec.json.encode(order) + b"\n")
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> _Message:
        while (end := self._inbox.find(b"\n")) < 0:
            try:
                data = self._control.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise self._died()
            self._inbox += data
        line = bytes(self._inbox[:end])
        del self._inbox[: end + 1]
        return msgspec.json.decode(line, type=_Message)

    def _died(self) -> CannotMeasure:
        self._errors.seek(0)
        output = last_words(self._errors.read())
        return CannotMeasure(f"the launcher, which starts the trials, has died{output}")


def _recorded(jobs: Sequence[Job], watch: Watch) -> "AbstractContextManager[ProcessEvents | None]":
    """Record the processes of the jobs, if they are to be watched and this system can."""
    # Commands that run no trial import this module.
    from trae_bench._util import cpu_affinity
    from trae_bench.execution import process_events

    if watch == "nothing" or process_events.unavailable() is not None:
        return nullcontext()
    cores = {core for job in jobs for core in job.cores or cpu_affinity.cores()}
    try:
        return process_events.ProcessEvents(cores)
    except OSError:
        # There is no memory or no file descriptor left for it. The trial still counts.
        return nullcontext()


def _own_rss(result: ProcessResult, floor: int) -> int | None:
    """The peak memory. None if the child may have inherited it from the launcher (`floor`, B)."""
    return None if result.max_rss is None or result.max_rss <= floor else result.max_rss


def _peak_tree(result: ProcessResult, peaks: Mapping[int, int]) -> int | None:
    """The sampled peak of all processes, at least that of the largest one. None without samples."""
    sampled = peaks.get(result.pid)
    return max(sampled, result.max_rss or 0) if sampled else None


def _kill_groups(pids: Sequence[int]) -> None:
    for pid in pids:
        if pid > 0:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
