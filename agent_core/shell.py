"""Persistent bash shells: `PollingShell` looks every 0.2 s, `EventShell` is woken by output.

Both speak the same protocol with bash, so the same commands give the same bytes. Each
command is followed by a mark on stdout (with the exit status) and one on stderr; whatever
stands before both marks is the command's output. The marks carry a random token that is
new for each command, inside bytes that bash's own traces never print.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

from agent_core.errors import ToolError
from agent_core.ports import ShellResult

POLL_INTERVAL = 0.2
"""Seconds between two looks, as in Trae Agent."""

MAX_OUTPUT = 16_000
"""Characters of one stream that a result shows, half from the start and half from the end."""

_END = MAX_OUTPUT // 2
_HALF_BYTES = 4 * _END + 4  # UTF-8 takes at most four bytes a character; one may be cut
_MAX_HELD = 16 * _HALF_BYTES  # how much a stream may hold before its middle is dropped
_READ = 64 * 1024  # a pipe's usual capacity
_MAX_FINAL_READS = 64  # a background process may write for ever; what bash wrote comes first
_OUT, _ERR = 98, 99  # duplicates of bash's own streams, where `exec >file` does not reach


class _BashShell:
    """What both shells share: all but the waiting."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._bash: _Bash | None = None
        self._busy = False

    async def run(self, command: str, timeout: float) -> ShellResult:
        """Runs `command`, for `timeout` seconds at most.

        Cancelled or out of time, it kills the shell with all that it started; the next
        command gets a fresh one. Raises `ToolError` where bash cannot be started, where
        `command` is no text for it, or where another command is still running.
        """
        if self._busy:
            raise ToolError("The shell is busy with another command.")
        script, token = _script(command)
        self._busy = True
        try:
            bash = self._started()
            bash.expect(token)
            return await self._exchange(bash, script, timeout)
        except BaseException:
            self._kill()
            raise
        finally:
            self._busy = False

    async def restart(self) -> None:
        """Ends the shell; the next command gets a fresh one."""
        self._kill()

    async def close(self) -> None:
        """Ends the shell with all that it started, and waits for it."""
        self._kill()

    async def _exchange(self, bash: "_Bash", script: bytes, seconds: float) -> ShellResult:
        try:
            async with asyncio.timeout(seconds):
                await bash.send(script)
                await self._ended(bash)
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

    async def _ended(self, bash: "_Bash") -> None:
        """Returns when `bash.ended()` is true."""
        raise NotImplementedError

    def _started(self) -> "_Bash":
        if self._bash is not None and self._bash.exited():
            self._kill()
        if self._bash is None:
            try:
                self._bash = _Bash(self._cwd)
            except OSError as error:
                raise ToolError(f"Cannot start bash in {self._cwd}: {error.strerror}.") from error
        self._bash.attach(asyncio.get_running_loop())
        return self._bash

    def _kill(self) -> None:
        bash, self._bash = self._bash, None
        if bash is not None:
            bash.kill()


class PollingShell(_BashShell):
    """Waits 0.2 s before each look, as Trae Agent does."""

    async def _ended(self, bash: "_Bash") -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if bash.ended():
                return


class EventShell(_BashShell):
    """Sleeps until the shell's output, or its end, wakes it."""

    async def _ended(self, bash: "_Bash") -> None:
        while not bash.ended():
            await bash.changed()


class _Bash:
    """One bash process with its pipes, read whenever the loop finds output in them."""

    def __init__(self, cwd: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/bash"],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # which all that it starts belongs to
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
        os.write(self._stdin, b"exec %d>&1 %d>&2\n" % (_OUT, _ERR))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has `loop` watch the pipes; a shell may outlive the loop that it was started in."""
        if loop is self._loop:
            return
        self._detach()
        self._loop, self._change = loop, asyncio.Event()
        for fd in self._streams:
            loop.add_reader(fd, self._read, fd)
        if self._exit_fd is not None:
            loop.add_reader(self._exit_fd, self._notice_exit, self._exit_fd)

    def _detach(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            for fd in self._streams:
                self._loop.remove_reader(fd)
            if self._exit_fd is not None:
                self._loop.remove_reader(self._exit_fd)
        self._loop = None

    @property
    def exit_status(self) -> int | None:
        """Of the last command; of the shell itself where that has ended."""
        if self._out.status is not None:
            return self._out.status
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    def expect(self, token: bytes) -> None:
        """Makes ready for a command whose marks carry `token`."""
        for stream in self._streams.values():
            stream.expect(token)

    async def send(self, script: bytes) -> None:
        """Writes `script`, or as much of it as bash takes before it ends."""
        rest = memoryview(script)
        while rest and not self.exited():
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                return

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._change.clear()
        loop.add_writer(self._stdin, self._change.set)
        try:
            await self._change.wait()
        finally:
            if not self.exited():
                loop.remove_writer(self._stdin)

    def marked(self) -> bool:
        """Whether both streams have come to their marks."""
        return self._out.status is not None and self._err.status is not None

    def exited(self) -> bool:
        return self._process.poll() is not None

    def ended(self) -> bool:
        """Whether the command is over: both marks are there, or bash itself is gone."""
        return self.marked() or self.exited()

    async def changed(self) -> None:
        """Returns after the next mark or after bash's end."""
        self._change.clear()
        if self._exit_fd is not None:
            await self._change.wait()
            return
        with contextlib.suppress(TimeoutError):  # without pidfd, its end has to be looked for
            await asyncio.wait_for(self._change.wait(), POLL_INTERVAL / 4)

    def result(self, exit_status: int | None, note: str | None = None) -> ShellResult:
        error = self._err.text()
        if note is not None:
            error = f"{error}\n{note}" if error else note
        return ShellResult(self._out.text(), error, exit_status)

    def kill(self) -> None:
        """Kills all that bash started, takes what is left in the pipes, and reaps bash.

        Does not await, so that it is complete also where the caller is being cancelled.
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
        self._change.set()  # whoever waits for this bash waits no longer

    def _read(self, fd: int) -> bool:
        """Takes one piece of output; False where there is none for now, or never again."""
        try:
            data = os.read(fd, _READ)
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
    """One output stream, cut at the mark; a flood passes through without being kept."""

    def __init__(self) -> None:
        self.status: int | None = None
        """The exit status in the mark; None while there is no mark."""
        self._mark = b""
        self._held = bytearray()
        self._dropped = 0
        self._text = ""

    def expect(self, token: bytes) -> None:
        """Begins a command. What a background process wrote meanwhile belongs to it."""
        self.status = None
        self._mark = b"\1" + token + b":"

    def feed(self, data: bytes) -> bool:
        """Takes output in; True where it completes the mark."""
        # A mark may have begun in what came before, and has at most this many bytes.
        start = max(0, len(self._held) - len(self._mark) - 4)
        self._held += data
        found = bool(self._mark) and self._cut(start)
        if len(self._held) > _MAX_HELD:
            self._dropped += len(self._held) - 2 * _HALF_BYTES
            del self._held[_HALF_BYTES:-_HALF_BYTES]
        return found

    def _cut(self, start: int) -> bool:
        begin = self._held.find(self._mark, start)
        end = self._held.find(b"\2", begin) if begin >= 0 else -1
        if end < 0:
            return False
        self.status = int(self._held[begin + len(self._mark) : end])
        self._text = _clipped(self._held[:begin], self._dropped)
        self._mark, self._dropped = b"", 0
        del self._held[: end + 1]
        return True

    def text(self) -> str:
        """The command's output; all so far where its mark has not come."""
        return self._text if self.status is not None else _clipped(self._held, self._dropped)


def _clipped(held: bytearray, dropped: int) -> str:
    """The text of a stream whose middle, `dropped` bytes, may be gone already."""
    if dropped:
        head = held[:_HALF_BYTES].decode(errors="replace")[:_END]
        tail = held[-_HALF_BYTES:].decode(errors="replace")[-_END:]
    else:
        text = held.decode(errors="replace")
        if len(text) <= MAX_OUTPUT:
            return text.removesuffix("\n")
        head, tail = text[:_END], text[-_END:]
    size = len(held) + dropped
    return f"{head}\n[... cut here: {size} bytes in all ...]\n{tail}".removesuffix("\n")


def _script(command: str) -> tuple[bytes, bytes]:
    """What bash is sent for `command`, and the token of its marks.

    `eval` keeps a command with a syntax error from swallowing the marks, and ends its
    redirections with it. After such an error bash takes the next word for no keyword,
    hence one group, parsed before the command runs, and a `:` before it. The marks' first
    and last bytes stand here as escapes, and tracing goes to /dev/null, so that `set -x`
    neither forges nor shows them.
    """
    if "\0" in command:
        raise ToolError("A command cannot contain a NUL character.")
    token = os.urandom(16).hex()
    script = (
        f":\n{{ eval -- {shlex.quote(command)} </dev/null >&{_OUT} 2>&{_ERR}\n"
        f"builtin printf '\\001{token}:%d\\002' $? >&{_OUT}\n"
        f"builtin printf '\\001{token}:0\\002' >&{_ERR}\n}} 2>/dev/null\n"
    )
    try:
        return script.encode(), token.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"The command is not text that bash can read: {error.reason}.") from error


def _groups_of(leader: int) -> set[int]:
    """The process groups of the session that `leader` began, and of all below it.

    One group is not enough: `timeout`, `set -m` and `setsid` make groups of their own. What
    left the session and lost its parent, as a daemon does, is not found; without /proc
    nothing is but the leader's own group.
    """
    table = _process_table()
    found = {pid for pid, (_, _, session) in table.items() if session == leader}
    while below := {pid for pid, (parent, _, _) in table.items() if parent in found} - found:
        found |= below
    return {leader, *(table[pid][1] for pid in found)}


def _process_table() -> dict[int, tuple[int, int, int]]:
    """Parent, group and session of every process that can be seen."""
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - with pathlib all this takes six times as long
    except FileNotFoundError:
        return {}
    table = {}
    for name in filter(str.isdecimal, names):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb", 0) as file:  # noqa: PTH123
            # The name before them may hold anything, also spaces and brackets.
            _, parent, group, session, *_ = file.read(1024).rpartition(b")")[2].split(None, 4)
            table[int(name)] = (int(parent), int(group), int(session))
    return table


def _exit_fd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where there are none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or a sandbox without it
        return None
