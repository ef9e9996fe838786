"""Processes that the launcher starts for the bench: a `Job` goes in, an `ProcessResult` comes out.

`launcher.py` is the other end, and says why it is a process of its own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from trae_bench._util.child_env import _inherited
from trae_bench._util.child_output import last_words
from trae_bench.errors import CannotMeasure
from trae_bench.execution.run_delay import Group, Readings
from trae_bench.metrics import Usage

REPORT_FD = 3
"""Where a child finds the pipe that it reports over."""


class Job(Struct, frozen=True, kw_only=True):
    """One process that the launcher shall start; see `launcher.Job`."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    log: str
    report_fd: int = REPORT_FD
    cores: tuple[int, ...] = ()
    limits: dict[str, int] = {}
    group: Group | None = None
    """The process starts in this cgroup; None for the launcher's own."""


class ProcessResult(Struct, frozen=True, kw_only=True):
    """What became of a job."""

    pid: int = 0
    started: float = 0.0
    ended: float = 0.0
    exit_status: int | None = None
    """Negative for a signal; None where the process never ran or never ended."""
    user: float = 0.0
    system: float = 0.0
    max_rss: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    run_delay: float | None = None
    written_bytes: int | None = None
    write_syscalls: int | None = None
    pressure_start: Readings = ()
    pressure_end: Readings = ()
    report: str = ""
    """The report's bytes, one a character."""
    report_cut: bool = False
    timed_out: bool = False
    problem: str | None = None
    """Why there is no exit status."""

    @property
    def wrong(self) -> str | None:
        """Why this end is no good one; None where it is."""
        if self.timed_out:
            return f"killed after {self.ended - self.started:.1f} s"
        if self.exit_status is None:
            return self.problem or "its end was not seen"
        if self.exit_status == -signal.SIGKILL:
            return "killed by SIGKILL, which the kernel sends where memory ends"
        if self.exit_status < 0:
            return f"killed by {_signal_name(-self.exit_status)}"
        return f"exit status {self.exit_status}" if self.exit_status else None

    def usage(self, floor: int) -> Usage:
        """`floor` is the launcher's own high-water mark: no child's can be read below it."""
        shared = {name: getattr(self, name) for name in Usage.__struct_fields__}
        return Usage(**shared | {"max_rss": self.max_rss if self.max_rss > floor else None})


class _Message(Struct, frozen=True):
    """A line from the launcher; which kind it is shows in what is set."""

    ready: bool = False
    pids: tuple[int, ...] = ()
    done: tuple[ProcessResult, ...] = ()
    floor: int = 0


class LauncherClient:
    """The bench's end of `launcher.py`: started at its first jobs, ended by `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket
        self._errors: IO[bytes]
        self._inbox = bytearray()
        self.floor = 0
        """Its memory high-water mark (bytes), as of the last jobs; children inherit it."""

    def run(self, jobs: Sequence[Job], seconds: float) -> tuple[ProcessResult, ...]:
        """Start all jobs back to back and sleep until all have ended; each gets `seconds`.

        Whatever interrupts this, Ctrl-C say, kills them first. Raises `CannotMeasure` where
        the launcher does not start or dies.
        """
        running: tuple[int, ...] = ()
        try:
            if self._process is None:
                self._start()
            self._send({"seconds": seconds, "jobs": jobs})
            running = self._receive().pids
            message = self._receive()
        except CannotMeasure:
            # Nobody else is left to do it.
            _kill_groups(running)
            raise
        except BaseException:
            self.close()
            raise
        self.floor = message.floor
        return message.done

    def close(self) -> None:
        """End it, and with it whatever it still runs. A further `run` starts a new one."""
        if self._process is None:
            return
        self._control.close()
        self._process.wait()
        self._process = None
        self._errors.close()
        self._inbox.clear()

    def _start(self) -> None:
        if not hasattr(os, "posix_spawn"):
            raise CannotMeasure(f"trials need a POSIX system, and this is {sys.platform}")
        script = Path(__file__).with_name("launcher.py")
        self._control, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        with theirs:
            self._process = subprocess.Popen(
                # Without site-packages, because its children inherit how large it is.
                [sys.executable, "-I", "-S", str(script)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_inherited(),
                cwd="/",
                # Out of reach of the terminal's Ctrl-C: the bench decides what ends.
                start_new_session=True,
            )
        self._receive()

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
        words = last_words(self._errors.read())
        return CannotMeasure(f"the process that starts the trials has died{words}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill_groups(pids: Sequence[int]) -> None:
    for pid in pids:
        if pid > 0:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue


# -- what a child sees and says ---------------------------------------------------------
