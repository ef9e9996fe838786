"""The journal of a run: JSON lines, one header and then one line for each sample.

Each sample is on the disk before the next trial starts, so a run can be resumed from its
journal whatever ended it. Reading is strict: a journal is untrusted input.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from trae_bench.design.plan import HEAD
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError
from trae_bench.model.run import FORMAT, VERSION, Header, Resumed
from trae_bench.model.sample import Sample
from trae_bench.stats.head_runs import is_check_of
from trae_bench.stats.pairs import key_of, key_of_sample
from trae_bench.storage.bounds import MAX_BYTES, check_header, read_bounded, unwritable

MAX_PROBLEM = 4000
"""Maximum characters of a sample's problem. The last ones are kept."""


class Line(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a journal. Exactly one field is set."""

    header: Header | None = None
    sample: Sample | None = None
    check: Sample | None = None
    """A run in which only the answer of head was checked."""
    resumed: Resumed | None = None


class Contents(Struct, frozen=True):
    """What a journal holds."""

    header: Header
    samples: tuple[Sample, ...]
    """Samples of whole pairs."""
    checks: tuple[Sample, ...]
    """Runs in which only the answer of head was checked."""
    resumed: tuple[Resumed, ...]
    spent: float
    """Seconds of measuring, without the breaks."""
    keep: int
    """Bytes up to the end of the last whole pair. The rest was in flight when the run ended."""
    dropped: int
    """Samples after that: the first side of a pair without its second side."""


class AnyHeader(Struct, frozen=True):
    """The part of a header that every format version has."""

    format: str
    version: int


class _AnyLine(Struct, frozen=True, forbid_unknown_fields=True):
    header: AnyHeader


_LINE = msgspec.json.Decoder(Line)
_ANY_LINE = msgspec.json.Decoder(_AnyLine)
RUN_FILE_START = b'{\n"header"'
"""The first bytes of a run file as trae-bench writes it."""


class Journal:
    """Appends samples to a file and syncs each to the disk. A context manager.

    Raises `CannotMeasure`, with a remedy, if the file cannot be written.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.resumed: Resumed | None = None
        """The note of this resumption, if the journal was reopened."""
        self._file = file

    @classmethod
    def create(cls, path: Path, header: Header, *, force: bool = False) -> "Journal":
        """Start a new journal. Raises `UsageError` if one exists and `force` is not given."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if force:
                path.unlink(missing_ok=True)
            file = path.open("xb", buffering=0)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise UsageError(
                    f"{path} exists; resume it with --resume {path}, remove it, or name another "
                    "--out"
                ) from error
            raise unwritable(path, error) from error
        try:
            return cls._opened(path, file, Line(header=header))
        except CannotMeasure:
            # The journal is empty; it would block the next run.
            with suppress(OSError):
                path.unlink()
            raise

    @classmethod
    def reopen(cls, path: Path, contents: Contents, resumed: Resumed) -> "Journal":
        """Continue a journal that `read_journal` has read. What was in flight is cut off."""
        try:
            os.truncate(path, contents.keep)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error
        journal = cls._opened(path, file, Line(resumed=resumed))
        journal.resumed = resumed
        return journal

    @classmethod
    def _opened(cls, path: Path, file: BinaryIO, first: Line) -> "Journal":
        journal = cls(path, file)
        try:
            journal._write(first)
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, sample: Sample) -> Sample:
        """Write a sample; it is on the disk when this returns. The sample as it was stored."""
        line = self._write(Line(sample=_bounded(sample)))
        assert line.sample is not None
        return line.sample

    def append_check(self, check: Sample) -> Sample:
        """The same for a run in which only the answer of head was checked."""
        line = self._write(Line(check=_bounded(check)))
        assert line.check is not None
        return line.check

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Line) -> Line:
        """Write a line. What a reader would decode from it."""
        try:
            data = msgspec.json.encode(line) + b"\n"
            # The only validation of a sample: a NaN or an oversized name must not get into the
            # file, because nothing could read it back.
            stored = _LINE.decode(data)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise CannotMeasure(f"a line does not fit the journal {self.path}: {error}") from error
        try:
            start = self._file.tell()
            try:
                _write_all(self._file, data)
                os.fsync(self._file.fileno())
            except OSError:
                # Remove half a line from a full disk, so that the journal stays valid.
                with suppress(OSError):
                    self._file.truncate(start)
                raise
        except OSError as error:
            raise unwritable(self.path, error) from error
        return stored


def _bounded(sample: Sample) -> Sample:
    problem = sample.problem and sample.problem[-MAX_PROBLEM:]
    return msgspec.structs.replace(sample, problem=problem)


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


# -- reading ----------------------------------------------------------------------------


def read_journal(path: Path, *, max_bytes: int = MAX_BYTES) -> Contents:
    """Everything a journal holds. A torn last line was in flight and is ignored.

    Raises `BadRunFile`, with the line number, for anything else that is wrong.
    """
    data = read_bounded(path, max_bytes)
    if data.startswith(RUN_FILE_START):
        raise BadRunFile(f"{path}: this is a run file, and its run is over; name its journal")
    ends = [match.end() for match in re.finditer(rb"\n", data)]
    if not ends:
        raise BadRunFile(
            f"{path}:1: the file ends within its first line; if it is a journal, it has no "
            "samples: remove it and start again"
        )
    _check_version(path, data[: ends[0]])
    lines = [
        _journal_line(path, number, data[start:end])
        for number, (start, end) in enumerate(pairwise([0, *ends]), start=1)
    ]
    header = lines[0].header
    if header is None:
        raise BadRunFile(f"{path}:1: not a journal of trae-bench: the first line has no header")
    check_header(path, header)
    _check_samples(path, header, lines)
    # The last line may be the first side of a pair without its second side.
    last_two = [line.sample for line in lines[-2:] if line.sample and lines[-1].sample]
    whole = len(lines) - (len(last_two) - len(whole_pairs(last_two)))
    return Contents(
        header=header,
        samples=tuple(line.sample for line in lines[:whole] if line.sample),
        checks=tuple(line.check for line in lines[:whole] if line.check),
        resumed=tuple(line.resumed for line in lines if line.resumed),
        spent=_spent(lines[:whole]),
        keep=ends[whole - 1],
        dropped=len(lines) - whole,
    )


def is_journal(data: bytes) -> bool:
    """Whether a file starts like a journal of any version."""
    try:
        return _ANY_LINE.decode(data.partition(b"\n")[0]).header.format == FORMAT
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _check_version(path: Path, first: bytes) -> None:
    try:
        header = _ANY_LINE.decode(first).header
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # `_journal_line` says what is wrong.
    if header.format == FORMAT and header.version != VERSION:
        raise BadRunFile(
            f"{path}:1: journal of format version {header.version}, this trae-bench reads "
            f"{VERSION}; resume it with the release that wrote it"
        )


def _journal_line(path: Path, number: int, text: bytes) -> Line:
    try:
        line = _LINE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if number == 1:
            raise BadRunFile(f"{path}:1: not a journal of trae-bench: {error}") from error
        raise BadRunFile(
            f"{path}:{number}: {error}; the lines before it are good: cut the file there to resume"
        ) from error
    fields = (line.header, line.sample, line.check, line.resumed)
    filled = [field for field in fields if field is not None]
    if len(filled) != 1 or (line.header is not None) != (number == 1):
        raise BadRunFile(f"{path}:{number}: expected one sample; only line 1 is a header")
    return line


def _check_samples(path: Path, header: Header, lines: Sequence[Line]) -> None:
    """Each sample is in the plan, and only once."""
    planned = {key_of(cell) for cell in header.cells}
    compared = {cell.scenario for cell in header.cells if cell.contrast.name == HEAD}
    seen: dict[tuple[object, ...], int] = {}
    for number, line in enumerate(lines, start=1):
        if line.check is not None and not is_check_of(line.check, compared):
            raise BadRunFile(f"{path}:{number}: this check of head is not in the plan")
        if (sample := line.sample) is None:
            continue
        if key_of_sample(sample) not in planned:
            raise BadRunFile(f"{path}:{number}: this sample is not in the plan")
        first = seen.setdefault((*_pair_of(sample), sample.side), number)
        if first != number:
            raise BadRunFile(f"{path}:{number}: the same sample as in line {first}")


def whole_pairs(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples without the first side of an unfinished pair at the end."""
    unfinished = samples and (len(samples) < 2 or _pair_of(samples[-2]) != _pair_of(samples[-1]))
    return tuple(samples[:-1] if unfinished else samples)


def _pair_of(sample: Sample) -> tuple[object, ...]:
    return *key_of_sample(sample), sample.pair


def _spent(lines: Sequence[Line]) -> float:
    """Seconds from the first to the last sample, summed over the parts of a resumed run."""
    total, start, end = 0.0, None, 0.0
    for line in lines:
        if line.resumed is not None:
            total += end - start if start is not None else 0.0
            start, end = None, 0.0
        elif (sample := line.sample or line.check) is not None:
            start = sample.started if start is None else start
            # The other side of a duet may have ended later.
            end = max(end, sample.started + sample.metrics.get("wall", 0.0))
    return max(0.0, total + (end - start if start is not None else 0.0))
