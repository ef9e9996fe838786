"""Persistent bash shells: `PollingShell` checks every 0.2 s, `EventShell` reacts to output.

Both use the same protocol with bash, so the same commands give the same bytes. After each
command, bash prints a marker on stdout (with the exit status) and one on stderr. Everything
before the markers is the command's output. Each marker has a random token per command and
bytes that bash's own traces never contain.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent_core.errors import ToolError
from agent_core.ports import Shell, ShellResult
from agent_core.shell_state import StateReport

POLL_INTERVAL = 0.2
"""Seconds between two checks, as in Trae Agent."""

STOP_INTERVAL = 1.0
"""Seconds between two checks whether bash is stopped."""

MAX_OUTPUT = 16_000
"""Characters of one stream in a result: half from the start, half from the end."""

_HALF = MAX_OUTPUT // 2
_HALF_BYTES = 4 * _HALF + 4  # UTF-8 has at most four bytes per character; one may be cut
_MAX_HELD = 16 * _HALF_BYTES  # bytes a stream holds before its middle is dropped
_READ_SIZE = 64 * 1024  # the usual capacity of a pipe
_MAX_FINAL_READS = 64  # a background process may write forever; bash's own output comes first
_OUT, _ERR = 98, 99  # duplicates of bash's streams, which `exec >file` does not redirect


class _BashShell:
    """The common part of both shells: everything except the waiting."""

    def __init__(
        self, cwd: Path, environ: Mapping[str, str] | None = None, *, first_line: int = 0
    ) -> None:
        """`environ` is the environment of bash, by default that of this process.

        `first_line` is added to the line numbers in the errors of the first bash.
        """
        self._cwd = cwd
        self._environ = environ
        self._skipped = first_line
        self._bash: _Bash | None = None
        self._busy = False

    async def run(
        self, command: str, timeout: float, report: StateReport | None = None
    ) -> ShellResult:
        """Runs `command` for at most `timeout` seconds.

        After a cancellation or timeout, the shell and all its processes are killed and the next
        command gets a new shell. Raises `ToolError` if bash cannot start, if `command` cannot be
        encoded, or if another command is running.
        """
        if self._busy:
            raise ToolError("The shell is busy with another command.")
        script, token = _script(command)  # first, since an invalid command starts no bash
        self._busy = True
        try:
            bash = self._started()
            if report is not None:
                script, token = _script(command, bash.report_to(report))
            script, self._skipped = b"\n" * self._skipped + script, 0
            bash.expect(token)
            return await self._exchange(bash, script, timeout)
        except BaseException:
            self._kill()
            raise
        finally:
            self._busy = False

    def twin(self, report: StateReport, between: Sequence[str]) -> Shell | None:
        """See `Shell`."""
        state = report.state(os.environ if self._environ is None else self._environ)
        if state is None or self._bash is None:
            return None
        line = self._bash.lines + sum(map(_lines_of, between))
        return type(self)(state.folder, state.environ, first_line=line)

    def skip(self, commands: Sequence[str]) -> None:
        """See `Shell`."""
        self._skipped += sum(map(_lines_of, commands))

    async def restart(self) -> None:
        """Ends the shell. The next command gets a new one."""
        self._kill()

    async def close(self) -> None:
        """Ends the shell with all its processes and waits for it."""
        self._kill()

    async def _exchange(self, bash: "_Bash", script: bytes, seconds: float) -> ShellResult:
        try:
            async with asyncio.timeout(seconds):
                await bash.send(script)
                await self._wait_until_ended(bash)
        except TimeoutError:
            if not bash.ended():
                self._kill()
                return bash.result(
                    None,
                    f"The command ran longer than {seconds:g} s. It was killed and the shell"
                    " restarted: directory and variables are those of a new shell.",
                )
        if bash.marked():
            return bash.result(bash.exit_status)
        self._kill()
        return bash.result(
            bash.exit_status, "The shell has ended; the next command gets a new one."
        )

    async def _wait_until_ended(self, bash: "_Bash") -> None:
        """Returns once `bash.ended()` is true."""
        raise NotImplementedError

    def _started(self) -> "_Bash":
        if self._bash is not None and self._bash.exited():
            self._kill()
        if self._bash is None:
            try:
                self._bash = _Bash(self._cwd, self._environ)
            except OSError as error:
                raise ToolError(f"Cannot start bash in {self._cwd}: {error.strerror}.") from error
        self._bash.attach(asyncio.get_running_loop())
        return self._bash

    def _kill(self) -> None:
        bash, self._bash = self._bash, None
        self._skipped = 0
        if bash is not None:
            bash.kill()


class PollingShell(_BashShell):
    """Waits 0.2 s before each check, as Trae Agent does."""

    async def _wait_until_ended(self, bash: "_Bash") -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if bash.ended():
                return


class EventShell(_BashShell):
    """Waits until the shell prints output or ends."""

    async def _wait_until_ended(self, bash: "_Bash") -> None:
        while not bash.ended():
            await bash.changed()


class _Bash:
    """A bash process and its pipes. The event loop reads output as it arrives."""

    def __init__(self, cwd: Path, environ: Mapping[str, str] | None) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash"],
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # identifies all processes that it starts
        )
        self._pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, out, err = (pipe.fileno() for pipe in self._pipes if pipe is not None)
        for fd in (self._stdin, out, err):
            os.set_blocking(fd, False)
        self._out, self._err = _Stream(), _Stream()
        self._streams = {out: self._out, err: self._err}
        self._exit_fd = _exit_fd(self._process.pid)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._change = asyncio.Event()
        self._is_busy = False
        self._next_check: asyncio.TimerHandle | None = None
        self.lines = 0
        """Lines of all scripts that were sent."""
        os.write(self._stdin, b"exec %d>&1 %d>&2\n" % (_OUT, _ERR))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes `loop` watch the pipes. A shell can outlive the loop that started it."""
        if loop is self._loop:
            return
        self._detach()
        self._loop, self._change = loop, asyncio.Event()
        for fd in self._streams:
            loop.add_reader(fd, self._read, fd)
        if self._exit_fd is not None:
            loop.add_reader(self._exit_fd, self._notice_exit, self._exit_fd)

    def _detach(self) -> None:
        if self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None
        if self._loop is not None and not self._loop.is_closed():
            for fd in self._streams:
                self._loop.remove_reader(fd)
            if self._exit_fd is not None:
                self._loop.remove_reader(self._exit_fd)
        self._loop = None

    @property
    def exit_status(self) -> int | None:
        """Exit status of the last command, or of the shell if it has ended."""
        if self._out.status is not None:
            return self._out.status
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    def expect(self, token: bytes) -> None:
        """Prepares for a command whose markers contain `token`."""
        for stream in self._streams.values():
            stream.expect(token)
        self._is_busy = True
        if self._next_check is None:
            self._check_later()

    async def send(self, script: bytes) -> None:
        """Writes `script`. Stops if bash ends."""
        self.lines += script.count(b"\n")
        rest = memoryview(script)
        while rest and not self.exited():
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                return

    def report_to(self, report: StateReport) -> str:
        """The beginning of a script that reports the state of this bash."""
        pid = self._process.pid
        return report.script(pid, bool(_members_of(pid, _process_table()) - {pid}))

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._change.clear()
        loop.add_writer(self._stdin, self._change.set)
        try:
            await self._change.wait()
        finally:
            if not self.exited():
                loop.remove_writer(self._stdin)

    def _check_later(self) -> None:
        assert self._loop is not None
        self._next_check = self._loop.call_later(STOP_INTERVAL, self._check)

    def _check(self) -> None:
        """Continues bash if it is stopped (`kill -STOP $$`). It could not even notice its end."""
        self._next_check = None
        if self._is_busy:
            if self._is_stopped():
                os.kill(self._process.pid, signal.SIGCONT)
            self._check_later()

    def _is_stopped(self) -> bool:
        if self.exited() or not hasattr(os, "waitid"):
            return False
        return os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG) is not None

    def marked(self) -> bool:
        """Whether both markers have arrived."""
        return self._out.status is not None and self._err.status is not None

    def exited(self) -> bool:
        return self._process.poll() is not None

    def ended(self) -> bool:
        """Whether the command has ended: both markers are here, or bash itself has ended."""
        return self.marked() or self.exited()

    async def changed(self) -> None:
        """Returns after the next marker, or after bash ends."""
        self._change.clear()
        if self._exit_fd is not None:
            await self._change.wait()
            return
        with contextlib.suppress(TimeoutError):  # without pidfd, check whether bash has ended
            await asyncio.wait_for(self._change.wait(), POLL_INTERVAL / 4)

    def result(self, exit_status: int | None, note: str | None = None) -> ShellResult:
        self._is_busy = False
        error = self._err.text()
        if note is not None:
            error = f"{error}\n{note}" if error else note
        return ShellResult(self._out.text(), error, exit_status)

    def kill(self) -> None:
        """Kills all processes that bash started, reads the rest of the pipes, and reaps bash.

        It does not await, so it completes even if the caller is being cancelled.
        """
        for group in _groups_of(self._process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._process.wait()
        for fd in self._streams:
            for _ in range(_MAX_FINAL_READS):
                if not self._read(fd):
                    break
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_writer(self._stdin)
        self._detach()
        for pipe in self._pipes:
            if pipe is not None:
                pipe.close()
        if self._exit_fd is not None:
            os.close(self._exit_fd)
        self._change.set()  # wakes a pending `changed`

    def _read(self, fd: int) -> bool:
        """Reads a chunk of output. False if there is none now, or at the end of the stream."""
        try:
            data = os.read(fd, _READ_SIZE)
        except BlockingIOError:
            return False
        if not data and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(fd)
        if self._streams[fd].feed(data):
            self._change.set()
        return bool(data)

    def _notice_exit(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        self._change.set()


class _Stream:
    """One output stream, split at the marker. It keeps a bounded amount of output."""

    def __init__(self) -> None:
        self.status: int | None = None
        """The exit status in the marker, or None before the marker."""
        self._marker = b""
        self._held = bytearray()
        self._dropped = 0
        self._text = ""

    def expect(self, token: bytes) -> None:
        """Begins a command. Output of background processes since the last one is part of it."""
        self.status = None
        self._marker = b"\1" + token + b":"

    def feed(self, data: bytes) -> bool:
        """Adds output. Returns whether it completes the marker."""
        # The marker may begin in earlier data; this is its maximum length.
        start = max(0, len(self._held) - len(self._marker) - 4)
        self._held += data
        complete = bool(self._marker) and self._cut(start)
        if len(self._held) > _MAX_HELD:
            self._dropped += len(self._held) - 2 * _HALF_BYTES
            del self._held[_HALF_BYTES:-_HALF_BYTES]
        return complete

    def _cut(self, start: int) -> bool:
        begin = self._held.find(self._marker, start)
        end = self._held.find(b"\2", begin) if begin >= 0 else -1
        if end < 0:
            return False
        self.status = int(self._held[begin + len(self._marker) : end])
        self._text = _clipped(self._held[:begin], self._dropped)
        self._marker, self._dropped = b"", 0
        del self._held[: end + 1]
        return True

    def text(self) -> str:
        """The command's output; before its marker, the output so far."""
        return self._text if self.status is not None else _clipped(self._held, self._dropped)


def _clipped(held: bytearray, dropped: int) -> str:
    """The text of a stream. `dropped` bytes are already missing from its middle."""
    if dropped:
        head = held[:_HALF_BYTES].decode(errors="replace")[:_HALF]
        tail = held[-_HALF_BYTES:].decode(errors="replace")[-_HALF:]
    else:
        text = held.decode(errors="replace")
        if len(text) <= MAX_OUTPUT:
            return text.removesuffix("\n")
        head, tail = text[:_HALF], text[-_HALF:]
    size = len(held) + dropped
    return f"{head}\n[... cut here: {size} bytes in all ...]\n{tail}".removesuffix("\n")


def _lines_of(command: str) -> int:
    """The number of lines of the script for `command`."""
    return _script(command)[0].count(b"\n")


def _script(command: str, before: str = "") -> tuple[bytes, bytes]:
    """The bash script for `command`, and the token of its markers.

    `before` are commands on the same line.

    `eval` ensures that a syntax error in the command does not consume the markers, and limits
    the command's redirections. After such an error, bash does not recognise the next word as a
    keyword, hence the leading `:` and a single group. The markers' first and last bytes are
    escapes here, and tracing goes to /dev/null, so `set -x` neither prints nor forges them.
    """
    if "\0" in command:
        raise ToolError("A command cannot contain a NUL character.")
    token = os.urandom(16).hex()
    script = (
        f":\n{{ {before}eval -- {shlex.quote(command)} </dev/null >&{_OUT} 2>&{_ERR}\n"
        f"builtin printf '\\001{token}:%d\\002' $? >&{_OUT}\n"
        f"builtin printf '\\001{token}:0\\002' >&{_ERR}\n}} 2>/dev/null\n"
    )
    try:
        return script.encode(), token.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"The command is not text that bash can read: {error.reason}.") from error


def _groups_of(leader: int) -> set[int]:
    """The process groups of the session of `leader`, and of all its descendants.

    `timeout`, `set -m` and `setsid` create groups, so one group is not enough. A daemon that
    left the session and lost its parent is not found. Without /proc, only the leader's own
    group is found.
    """
    table = _process_table()
    return {leader, *(table[pid][1] for pid in _members_of(leader, table))}


def _members_of(leader: int, table: Mapping[int, tuple[int, int, int]]) -> set[int]:
    """The processes of the session of `leader`, and all their descendants."""
    members = {pid for pid, (_, _, session) in table.items() if session == leader}
    while below := {pid for pid, (parent, _, _) in table.items() if parent in members} - members:
        members |= below
    return members


def _process_table() -> dict[int, tuple[int, int, int]]:
    """Parent, group and session of every visible process."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - pathlib takes six times as long
    except FileNotFoundError:
        return {}
    table = {}
    for name in filter(str.isdecimal, names):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb", 0) as file:  # noqa: PTH123
            # The process name before them may contain spaces and brackets.
            _, parent, group, session, *_ = file.read(1024).rpartition(b")")[2].split(None, 4)
            table[int(name)] = (int(parent), int(group), int(session))
    return table


def _exit_fd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends. None if not supported."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a sandbox without it
        return None
