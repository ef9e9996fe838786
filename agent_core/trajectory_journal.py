"""A file of JSON lines that only grows, and the way from it to a trajectory."""

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
from agent_core.trajectory_format import blank, replace_file, write_error, write_trajectory

_LOG = logging.getLogger(__name__)


class Journal:
    """A file of lines that only grows, and where asked for the thread that writes it.

    A new file: where `path` is there, left by a killed session or held by a living one,
    another name is taken (`session.1.jsonl`), and logged. What goes in is bytes, which nobody
    can change afterwards. After the first failed
    write nothing more is written: a gap in the middle would look like a whole diary.
    """

    QUEUED_BATCHES = 64
    """Then `append` waits for the disk."""

    def __init__(self, path: Path, *, batch_size: int, background: bool) -> None:
        self.path, self._fd = _new_file(path)
        self.records = self.kept = self.lost = self.writes = self.high_water = 0
        self.accepted = 0
        """Bytes that came in."""
        self.size = 0
        """Bytes in the file."""
        self._batch_size = max(1, batch_size)
        self._batch: deque[bytes] = deque()
        self._queue: deque[bytes] = deque()
        # Its lock is reentrant: a signal handler may flush in the very thread that is here.
        self._with_values = threading.Condition()
        self._writing = False
        self._closing = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None
        if background:
            # A daemon, because the interpreter waits for other threads before it runs the
            # exit handlers, one of which is what ends this thread.
            self._thread = threading.Thread(target=self._run, name="trajectory", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that are not in the file yet."""
        return self.records - self.kept - self.lost

    def append(self, line: bytes) -> None:
        """Raises `RecordingError` once a write has failed."""
        self.check()
        self._batch.append(line)
        self.records += 1
        self.accepted += len(line)
        if len(self._batch) >= self._batch_size:
            self._submit()
            self.check()

    def flush(self) -> None:
        """Returns when all lines are written. Raises `RecordingError`."""
        self._submit()
        with self._with_values:
            # A signal handler may be here between a batch's arrival and the notice of it.
            self._with_values.notify_all()
            while self._thread is not None and (self._queue or self._writing):
                self._with_values.wait()
        self.check()

    def close(self) -> None:
        """Writes the rest and ends the thread; a second call does nothing. Raises nothing:
        `check` says how it went."""
        with self._with_values:
            if self._closing:
                return
            self._submit()
            self._closing = True
            self._with_values.notify_all()
        if self._thread is None:
            os.close(self._fd)
        elif self._thread is not threading.current_thread():
            # The garbage collector may call this in any thread, the writer's among them.
            self._thread.join()

    def check(self) -> None:
        """Raises `RecordingError` where lines were lost."""
        if self._error is not None:
            raise write_error(self.path, self._error, lost=self.lost) from self._error

    def _submit(self) -> None:
        lines = []
        # Popped one at a time: a signal handler that flushes in between takes others.
        with suppress(IndexError):
            while True:
                lines.append(self._batch.popleft())
        if not lines or self._closing:
            self.lost += len(lines)
            return
        batch = b"".join(lines)
        if self._thread is None:
            self._write(batch)
            return
        with self._with_values:
            while len(self._queue) >= self.QUEUED_BATCHES:
                self._with_values.wait()
            self._queue.append(batch)
            self.high_water = max(self.high_water, len(self._queue))
            self._with_values.notify_all()

    def _run(self) -> None:
        while True:
            with self._with_values:
                while not self._queue and not self._closing:
                    self._with_values.wait()
                if not self._queue:
                    os.close(self._fd)
                    return
                batch = b"".join(self._queue)
                self._queue.clear()
                self._writing = True
                self._with_values.notify_all()
            self._write(batch)
            with self._with_values:
                self._writing = False
                self._with_values.notify_all()

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
            # The disk is full: the lines that found room stay, the torn one goes.
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


def _new_file(path: Path) -> tuple[Path, int]:
    """A file that was not there, `path` or one beside it, and its descriptor."""
    for number in count():
        free = path.with_stem(f"{path.stem}.{number}") if number else path
        with suppress(FileExistsError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            descriptor = os.open(free, flags, 0o666)
            break
    if free != path:
        _LOG.warning(
            "%s is the journal of a session that did not end, or has not yet ended; it stays for"
            " `agent-core recover`, and this session's is %s.",
            *(path, free),
        )
    return free, descriptor


def recover(
    journal: Path, trajectory: Path | None = None, *, max_interactions: int | None = None
) -> Path:
    """Makes the trajectory from a journal, whole or left by a killed process.

    A last line that was cut is left out. The trajectory stands beside the journal, under
    the name that the session gave it, unless it is named; it is replaced in one piece. The
    journal stays. Raises `RecordingError`, also for a file that no recorder began, and for
    one file as both: whoever takes one for the other must not lose it.
    """
    try:
        contents = _Contents(journal, max_interactions)
        trajectory = trajectory or contents.beside()
        if trajectory.exists() and trajectory.samefile(journal):
            raise RecordingError(f"{journal} is the journal; name another file for the trajectory.")

        def write(out: BinaryIO) -> None:
            write_trajectory(
                out, contents.fields, contents.records(b"interaction"), contents.records(b"step")
            )

        replace_file(trajectory, write)
    except OSError as error:
        raise write_error(trajectory or journal, error) from error
    except msgspec.DecodeError as error:
        raise RecordingError(f"{journal} is no journal of a trajectory: {error}.") from error
    return trajectory


class _Step(msgspec.Struct):
    step_number: int


_STEP = msgspec.json.Decoder(_Step)


class _Contents:
    """A journal, read in passes, so that a long session never stands in memory as a whole.

    `newest` is how many records of each kind are kept; None keeps all.
    """

    def __init__(self, journal: Path, newest: int | None) -> None:
        self._journal = journal
        self._newest = newest
        self.fields = blank()
        self._counts = {b"interaction": 0, b"step": 0}
        self._numbers: list[int] = []
        self._summaries: dict[int, str] = {}
        """By the place of the step, from 0."""
        if next(self._lines(), (b"", b""))[0] != b"start":
            raise RecordingError(f"{journal} is no journal of a trajectory: it has no start.")
        for kind, data in self._lines():
            if kind in self._counts:
                self._counts[kind] += 1
                if kind == b"step":
                    self._numbers.append(_STEP.decode(data).step_number)
            elif kind == b"summary":
                self._summarise(**msgspec.json.decode(data))
            else:
                self.fields |= msgspec.json.decode(data)

    def beside(self) -> Path:
        """Where the trajectory belongs: not every one of them is called `.json`."""
        journal = self._journal
        if self.fields.get("file") == journal.stem:
            return journal.with_name(journal.stem)
        return journal.with_suffix(".json")

    def records(self, kind: bytes) -> Iterator[bytes]:
        """The JSON of the records of a kind that are kept."""
        first, place = self._first(self._counts[kind]), -1
        for found, data in self._lines():
            place += found == kind
            if found == kind and place >= first:
                summary = self._summaries.get(place) if kind == b"step" else None
                yield data if summary is None else _with_summary(data, summary)

    def _first(self, count: int) -> int:
        return 0 if self._newest is None else max(0, count - self._newest)

    def _summarise(self, step_number: int, lakeview_summary: str) -> None:
        """Belongs to the first step of its number among those kept when it was made."""
        first = self._first(len(self._numbers))
        with suppress(ValueError):
            self._summaries[self._numbers.index(step_number, first)] = lakeview_summary

    def _lines(self) -> Iterator[tuple[bytes, bytes]]:
        with self._journal.open("rb") as file:
            for line in file:
                head, found, data = line.partition(b',"data":')
                if found and data.endswith(b"}\n"):
                    yield head[len(b'{"kind":"') : -1], data[:-2]


def _with_summary(step: bytes, summary: str) -> bytes:
    return encode_json(msgspec.json.decode(step) | {"lakeview_summary": summary})
