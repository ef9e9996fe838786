"""An append-only file of JSON lines, and its conversion to a trajectory."""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

import msgspec

from agent_core.encoding import encode_json
from agent_core.errors import RecordingError
from agent_core.trajectory_format import (
    empty_trajectory,
    replace_file,
    write_error,
    write_trajectory,
)

_LOG = logging.getLogger(__name__)


class Journal:
    """An append-only file of lines. If it grows large, a background thread may write it.

    The file is always new. If `path` exists, from a killed or a running session, another name
    is used (`session.1.jsonl`) and logged. Lines are bytes, which cannot change later. After a
    failed write nothing more is written, because a gap would go unnoticed.

    With `background`, the thread starts once the file has `MIN_THREAD_SIZE` bytes, because a
    thread costs more than writing less. Without a running event loop it starts at once.

    A line is written with `batch_size` others, or `MAX_AGE` after it was appended. Only
    without a thread and without a running event loop does it wait for the next lines. A kill
    therefore costs at most `batch_size - 1` lines of the last `MAX_AGE` seconds and what the
    thread owes, which is bounded.
    """

    MIN_THREAD_SIZE = 64 * 1024
    """Bytes."""
    MAX_AGE = 1.0
    """Seconds."""
    MAX_OWED = 1024 * 1024
    """Bytes. `append` blocks while the thread owes this much. One batch may exceed it."""

    def __init__(self, path: Path, *, batch_size: int, background: bool) -> None:
        self.path, self._fd = _new_file(path)
        self.records = self.kept = self.lost = self.writes = self.high_water = 0
        self.accepted = 0
        """Bytes appended."""
        self.size = 0
        """Bytes in the file."""
        self._batch_size = max(1, batch_size)
        self._batch: deque[bytes] = deque()
        self._queue: deque[bytes] = deque()
        self._owed = 0  # bytes that the thread has to write, in `_queue` or at work
        # Its lock is reentrant: a signal handler may flush in the thread that holds it.
        self._changed = threading.Condition()
        self._writing = False
        self._closing = False
        self._error: OSError | None = None
        self._background = background
        self._thread: threading.Thread | None = None
        self._timed: asyncio.AbstractEventLoop | None = None
        """The event loop that has a timer for the current batch."""

    @property
    def waiting(self) -> int:
        """Records not yet in the file."""
        return self.records - self.kept - self.lost

    def append(self, line: bytes) -> None:
        """Raises `RecordingError` after a failed write."""
        self.check()
        loop = _running_loop()
        # Only here and not in `flush`, because a signal handler may interrupt a direct write.
        if self._background and (loop is None or self.accepted >= self.MIN_THREAD_SIZE):
            self._start_thread()
        self._batch.append(line)
        self.records += 1
        self.accepted += len(line)
        if len(self._batch) >= self._batch_size:
            self._submit()
            self.check()
        elif self._thread is None and loop is not None and self._timed is not loop:
            self._timed = loop
            loop.call_later(self.MAX_AGE, self._submit_in_time)

    def flush(self) -> None:
        """Waits until all lines are written. Raises `RecordingError`."""
        self._submit()
        with self._changed:
            # A signal handler may run between the arrival of a batch and its notification.
            self._changed.notify_all()
            while self._thread is not None and (self._queue or self._writing):
                self._changed.wait()
        self.check()

    def close(self) -> None:
        """Writes the remaining lines and ends the thread. A second call does nothing.

        Raises no error; see `check`.
        """
        with self._changed:
            if self._closing:
                return
            self._submit()
            self._closing = True
            self._background = False
            self._changed.notify_all()
        if self._thread is None:
            os.close(self._fd)
        elif self._thread is not threading.current_thread():
            # The garbage collector may call this in any thread, including the writer's.
            self._thread.join()

    def check(self) -> None:
        """Raises `RecordingError` if lines were lost."""
        if self._error is not None:
            raise write_error(self.path, self._error, lost=self.lost) from self._error

    def _start_thread(self) -> None:
        self._background = False
        # A daemon thread, because the interpreter joins other threads before it runs the exit
        # handler that ends this one.
        self._thread = threading.Thread(target=self._run, name="trajectory", daemon=True)
        self._thread.start()

    def _submit_in_time(self) -> None:
        """Without a thread, the event loop writes the batch at `MAX_AGE`."""
        self._timed = None
        if self._thread is None:
            self._submit()

    def _submit(self) -> None:
        if self._thread is None:
            if batch := self._take():
                self._write(batch)
            return
        with self._changed:
            while self._owed >= self.MAX_OWED:
                self._changed.wait()
            if batch := self._take():
                self._owed += len(batch)
                self._queue.append(batch)
                self.high_water = max(self.high_water, len(self._queue))
                self._changed.notify_all()

    def _take(self) -> bytes:
        """Removes the current batch. Counts it as lost if the file is closed."""
        lines = []
        # Popped one at a time, because a signal handler may flush in between.
        with suppress(IndexError):
            while True:
                lines.append(self._batch.popleft())
        if self._closing:
            self.lost += len(lines)
            return b""
        return b"".join(lines)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    if not self._changed.wait(self.MAX_AGE):
                        self._submit()
                if not self._queue:
                    os.close(self._fd)
                    return
                batch = b"".join(self._queue)
                self._queue.clear()
                self._writing = True
            self._write(batch)
            with self._changed:
                self._writing = False
                self._owed -= len(batch)
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        if self._error is not None:
            self.lost += data.count(b"\n")
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._error = error
            # The disk is full: keep the complete lines, remove the partial one.
            kept = data.rfind(b"\n", 0, len(data) - len(rest)) + 1
            self.kept += data.count(b"\n", 0, kept)
            self.lost += data.count(b"\n", kept)
            self.size += kept
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
        else:
            self.kept += data.count(b"\n")
            self.size += len(data)
            self.writes += 1


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _new_file(path: Path) -> tuple[Path, int]:
    """Creates a new file, `path` or a numbered variant of it. Returns its path and descriptor."""
    for number in count():
        free = path.with_stem(f"{path.stem}.{number}") if number else path
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptor = os.open(free, flags, 0o600)
            break
    if free != path:
        _LOG.warning(
            "%s is the journal of another session, killed or still running. It stays for"
            " `agent-core recover`; this session writes %s.",
            *(path, free),
        )
    return free, descriptor


def recover(
    journal: Path, trajectory: Path | None = None, *, max_interactions: int | None = None
) -> Path:
    """Makes a trajectory from a journal, complete or left by a killed process.

    Skips a truncated last line. The default for `trajectory` is the session's own name, next
    to the journal. The file is replaced atomically; the journal stays. Raises
    `RecordingError`, also if the file is not a journal or both paths are the same file.
    """
    try:
        with journal.open("rb") as file:
            contents = _Contents(journal, file, max_interactions)
            trajectory = trajectory or contents.default_trajectory()
            if trajectory.exists() and trajectory.samefile(journal):
                problem = f"{journal} is the journal; name another file for the trajectory."
                raise RecordingError(problem)
            replace_file(trajectory, contents.write)
    except OSError as error:
        raise write_error(trajectory or journal, error) from error
    except msgspec.DecodeError as error:
        raise RecordingError(f"{journal} is not a trajectory journal: {error}.") from error
    return trajectory


class _Step(msgspec.Struct):
    step_number: int


_STEP = msgspec.json.Decoder(_Step)


class _Contents:
    """A journal, read in several passes, so that memory use does not grow with its records.

    `newest` is the number of records of each kind to keep; None keeps all.
    """

    def __init__(self, journal: Path, file: BinaryIO, newest: int | None) -> None:
        self._journal = journal
        self._file = file
        self._newest = newest
        self.fields = empty_trajectory()
        self._counts = {b"interaction": 0, b"step": 0}
        self._numbers: list[int] = []
        self._summaries: dict[int, str] = {}
        """By the index of the step."""
        if next(self._lines(), (b"", b""))[0] != b"start":
            raise RecordingError(f"{journal} is not a trajectory journal: it has no start.")
        for kind, data in self._lines():
            if kind in self._counts:
                self._counts[kind] += 1
                if kind == b"step":
                    self._numbers.append(_STEP.decode(data).step_number)
            elif kind == b"summary":
                self._summarise(**msgspec.json.decode(data))
            else:
                self.fields |= msgspec.json.decode(data)

    def default_trajectory(self) -> Path:
        """The default trajectory file. Its suffix is not always `.json`."""
        journal = self._journal
        if self.fields.get("file") == journal.stem:
            return journal.with_name(journal.stem)
        return journal.with_suffix(".json")

    def write(self, out: BinaryIO) -> None:
        """Writes the trajectory to `out`."""
        write_trajectory(out, self.fields, self.records(b"interaction"), self.records(b"step"))

    def records(self, kind: bytes) -> Iterator[bytes]:
        """The JSON of the kept records of one kind."""
        first, index = self._first(self._counts[kind]), -1
        for line_kind, data in self._lines():
            index += line_kind == kind
            if line_kind == kind and index >= first:
                summary = self._summaries.get(index) if kind == b"step" else None
                yield data if summary is None else _with_summary(data, summary)

    def _first(self, count: int) -> int:
        return 0 if self._newest is None else max(0, count - self._newest)

    def _summarise(self, step_number: int, lakeview_summary: str) -> None:
        """Adds the summary to the first step of this number that was kept at that time."""
        first = self._first(len(self._numbers))
        with suppress(ValueError):
            self._summaries[self._numbers.index(step_number, first)] = lakeview_summary

    def _lines(self) -> Iterator[tuple[bytes, bytes]]:
        """The lines from the first one. Only the newest iterator may be used."""
        self._file.seek(0)
        for line in self._file:
            head, separator, data = line.partition(b',"data":')
            if separator and data.endswith(b"}\n"):
                yield head[len(b'{"kind":"') : -1], data[:-2]


def _with_summary(step: bytes, summary: str) -> bytes:
    return encode_json(msgspec.json.decode(step) | {"lakeview_summary": summary})
