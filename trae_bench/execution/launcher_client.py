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
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from trae_bench._util.child_env import inherited
from trae_bench._util.child_output import last_words
from trae_bench.errors import CannotMeasure
from trae_bench.execution.run_delay import Group
from trae_bench.model.sample import ProcessResult

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

    def run(self, jobs: Sequence[Job], seconds: float) -> tuple[ProcessResult, ...]:
        """Start all jobs at once and wait until all have ended. Each has `seconds` to run.

        An interruption such as Ctrl-C kills the jobs. Raises `CannotMeasure` if the launcher
        does not start or dies.
        """
        running: tuple[int, ...] = ()
        try:
            if self._process is None:
                self._start()
            self._send({"seconds": seconds, "jobs": jobs})
            running = self._receive().pids
            message = self._receive()
        except CannotMeasure:
            # The launcher can no longer kill them.
            _kill_groups(running)
            raise
        except BaseException:
            self.close()
            raise
        return tuple(_without_inherited_rss(result, message.floor) for result in message.done)

    def close(self) -> None:
        """Stop the launcher and kill its jobs. The next call to `run` starts a new launcher."""
        if self._process is None:
            return
        self._control.close()
        self._process.wait()
        self._process = None
        self._errors.close()
        self._inbox.clear()

    def _start(self) -> None:
        if not hasattr(os, "posix_spawn"):
            raise CannotMeasure(f"{sys.platform} has no posix_spawn; run trials on Linux or macOS")
        script = Path(__file__).with_name("launcher.py")
        self._control, launcher_end = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        with launcher_end:
            self._process = subprocess.Popen(
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
        output = last_words(self._errors.read())
        return CannotMeasure(f"the launcher, which starts the trials, has died{output}")


def _without_inherited_rss(result: ProcessResult, floor: int) -> ProcessResult:
    """Drop a peak memory that the child may have inherited from the launcher (`floor`, bytes)."""
    if result.max_rss is None or result.max_rss > floor:
        return result
    return msgspec.structs.replace(result, max_rss=None)


def _kill_groups(pids: Sequence[int]) -> None:
    for pid in pids:
        if pid > 0:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
