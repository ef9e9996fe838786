"""Journals and run files: what is kept of a run, and how it is read back.

A journal is JSON lines: a header, then one line a sample, each on the disk before the next
trial starts. Whatever ends a run, its journal can be gone on from. The run file is made from
it at the end, whole or not at all.

Both come from strangers, too. They are read strictly (types, versions, bounds on size and
number of values, no NaN) and whatever is wrong ends in `BadRunFile`.
"""

import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from trae_bench._util.atomic_write import write_whole
from trae_bench._util.bounded_io import first_bytes
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError
from trae_bench.model.run import (
    FORMAT,
    VERSION,
    Header,
    Resumed,
    RunFile,
)
from trae_bench.model.sample import Sample
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import CellKey, key_of, key_of_sample

MAX_BYTES = 128 * 1024 * 1024
"""A file larger than this is not read. 10,000 samples take about 15 MB."""

MAX_VALUES = 5_000_000
"""Nor is one with more values: each costs memory, however few bytes it takes in the file."""

MAX_ROWS = 50_000
"""Rows of a table that are worked out or shown; the run of a day has some hundreds."""

MAX_SAMPLES = 200_000
"""Of real ones half as many fit in a file."""

MAX_COMPARED = 3_000_000
"""Values that are compared: pairs of each cell times its metrics."""

MAX_PROBLEM = 4000
"""Characters of a sample's problem that are kept: the last ones."""


class Line(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a journal; exactly one field is set."""

    header: Header | None = None
    sample: Sample | None = None
    resumed: Resumed | None = None


class Contents(Struct, frozen=True):
    """What a journal holds."""

    header: Header
    samples: tuple[Sample, ...]
    """In whole pairs."""
    resumed: tuple[Resumed, ...]
    spent: float
    """Seconds that taking the samples took, breaks left out."""
    keep: int
    """Bytes up to the end of the last whole pair; what follows was in flight when it ended."""
    dropped: int
    """Whole samples after that: the first side of a pair whose second is not there."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def digest(scenario: Scenario) -> str:
    """Of a scenario's content, as `ScenarioUsed.digest` has it."""
    return hashlib.sha256(msgspec.json.encode(scenario, order="sorted")).hexdigest()


# -- journal ----------------------------------------------------------------------------


class Journal:
    """Appends samples to a file and forces each to the disk. A context manager.

    Raises `CannotMeasure` where the file cannot be written, with the remedy.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def create(cls, path: Path, header: Header, *, force: bool = False) -> "Journal":
        """A new journal. Raises `UsageError` where there is one, unless `force` is given."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if force:
                path.unlink(missing_ok=True)
            file = path.open("xb", buffering=0)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.exists():
                raise UsageError(
                    f"{path} exists; go on with it (--resume {path}), remove it, or name another "
                    "--out"
                ) from error
            raise _unwritable(path, error) from error
        try:
            return cls._begun(path, file, Line(header=header))
        except CannotMeasure:
            # Nothing is in it; left there, it would be in the next run's way.
            with suppress(OSError):
                path.unlink()
            raise

    @classmethod
    def reopen(cls, path: Path, contents: Contents, resumed: Resumed) -> "Journal":
        """Go on with a journal that `read_journal` has read; what was in flight is cut off."""
        try:
            os.truncate(path, contents.keep)
            file = path.open("ab", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls._begun(path, file, Line(resumed=resumed))

    @classmethod
    def _begun(cls, path: Path, file: BinaryIO, first: Line) -> "Journal":
        journal = cls(path, file)
        try:
            journal._write(first)
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, sample: Sample) -> None:
        """On the disk when this returns."""
        problem = sample.problem and sample.problem[-MAX_PROBLEM:]
        self._write(Line(sample=msgspec.structs.replace(sample, problem=problem)))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Line) -> None:
        try:
            data = msgspec.json.encode(line) + b"\n"
            # What cannot be read back (a NaN, a name without end) must not get into the file.
            _LINE.decode(data)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            raise CannotMeasure(f"a line does not fit the journal {self.path}: {error}") from error
        try:
            start = self._file.tell()
            try:
                _write_all(self._file, data)
                os.fsync(self._file.fileno())
            except OSError:
                # Half a line on a full disk; without it the journal is valid as it stands.
                with suppress(OSError):
                    self._file.truncate(start)
                raise
        except OSError as error:
            raise _unwritable(self.path, error) from error


def read_journal(path: Path, *, max_bytes: int = MAX_BYTES) -> Contents:
    """Everything a journal holds. A torn last line is not an error: it was in flight.

    Raises `BadRunFile` for anything else that is wrong, with the number of the line.
    """
    data = _read(path, max_bytes)
    if data.startswith(_RUN_FILE_BEGINS):
        raise BadRunFile(
            f"{path}: a run file, whose run is over; to go on with a run name its journal"
        )
    ends = [match.end() for match in re.finditer(rb"\n", data)]
    lines = [
        _journal_line(path, number, data[start:end])
        for number, (start, end) in enumerate(pairwise([0, *ends]), start=1)
    ]
    header = lines[0].header if lines else None
    if not lines:
        raise BadRunFile(
            f"{path}:1: it ends within its first line; if it is a journal nothing was measured: "
            "remove it and start again"
        )
    if header is None:
        raise BadRunFile(f"{path}:1: not a journal of trae-bench: the first line has no header")
    _hold_together(path, header)
    _no_strangers(path, header, lines)
    _no_doubles(path, lines)
    whole = _whole(lines)
    return Contents(
        header=header,
        samples=tuple(line.sample for line in lines[:whole] if line.sample),
        resumed=tuple(line.resumed for line in lines if line.resumed),
        spent=_spent(lines[:whole]),
        keep=ends[whole - 1],
        dropped=len(lines) - whole,
    )


def _journal_line(path: Path, number: int, text: bytes) -> Line:
    try:
        line = _LINE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if number == 1:
            raise BadRunFile(f"{path}:1: not a journal of trae-bench: {error}") from error
        raise BadRunFile(
            f"{path}:{number}: {error}; the lines before it are good: cut it off there to go on"
        ) from error
    filled = [field for field in (line.header, line.sample, line.resumed) if field is not None]
    if len(filled) != 1 or (line.header is not None) != (number == 1):
        raise BadRunFile(f"{path}:{number}: expected one sample, and the header in line 1 only")
    return line


def _hold_together(path: Path, header: Header) -> None:
    """What the plan names must be described beside it."""
    for name, metric in header.metrics.items():
        if metric.name != name:
            raise BadRunFile(f"{path}: {name!r} is described under the name {metric.name!r}")
    for cell in header.cells:
        missing = [name for name in cell.metrics if name not in header.metrics]
        if missing or cell.scenario not in header.scenarios:
            name = missing[0] if missing else cell.scenario
            raise BadRunFile(f"{path}: the plan names {name!r}, which the header does not describe")


def _hold_rows(path: Path, run: RunFile) -> None:
    """Rows are of metrics that are described, and no more than can be worked out in seconds."""
    named = {*(row.metric for row in run.comparisons), *(floor.metric for floor in run.noise)}
    for name in named - run.header.metrics.keys():
        raise BadRunFile(f"{path}: a row is of {name!r}, which the header does not describe")
    planned: Counter[CellKey] = Counter()
    for cell in run.header.cells:
        planned[key_of(cell)] += len(cell.metrics)
    if max(planned.total(), *map(len, (run.comparisons, run.noise, run.resumed))) > MAX_ROWS:
        raise BadRunFile(f"{path}: more than {MAX_ROWS:,} rows; no run has that many")
    if len(run.samples) > MAX_SAMPLES:
        raise BadRunFile(f"{path}: more than {MAX_SAMPLES:,} samples; no run has that many")
    if sum(planned[key_of_sample(sample)] for sample in run.samples) > MAX_COMPARED:
        raise BadRunFile(f"{path}: more than {MAX_COMPARED:,} values to compare; no run has them")


def _no_strangers(path: Path, header: Header, lines: Sequence[Line]) -> None:
    planned = {key_of(cell) for cell in header.cells}
    for number, line in enumerate(lines, start=1):
        if line.sample is not None and key_of_sample(line.sample) not in planned:
            raise BadRunFile(f"{path}:{number}: a sample that the plan has no place for")


def _no_doubles(path: Path, lines: Sequence[Line]) -> None:
    seen: dict[tuple[object, ...], int] = {}
    for number, line in enumerate(lines, start=1):
        if (sample := line.sample) is None:
            continue
        key = (*_pair_of(sample), sample.side)
        if key in seen:
            raise BadRunFile(f"{path}:{number}: the same sample as in line {seen[key]}")
        seen[key] = number


def _whole(lines: Sequence[Line]) -> int:
    """Number of lines without the last one, where that is the first side of an unfinished pair."""
    last = lines[-1].sample
    if last is None:
        return len(lines)
    earlier = lines[-2].sample
    together = earlier is not None and _pair_of(earlier) == _pair_of(last)
    return len(lines) if together else len(lines) - 1


def _pair_of(sample: Sample) -> tuple[object, ...]:
    return *key_of_sample(sample), sample.pair


def _spent(lines: Sequence[Line]) -> float:
    """Seconds from first to last sample, summed over the stretches between resumptions."""
    total, start, end = 0.0, None, 0.0
    for line in lines:
        if line.resumed is not None:
            total += end - start if start is not None else 0.0
            start, end = None, 0.0
        elif (sample := line.sample) is not None:
            start = sample.started if start is None else start
            # The other side of a duet may have gone on for longer.
            end = max(end, sample.started + sample.metrics.get("wall", 0.0))
    return max(0.0, total + (end - start if start is not None else 0.0))


# -- run file ---------------------------------------------------------------------------


def write_run(path: Path, run: RunFile, *, force: bool = False, remedy: str = "") -> None:
    """Write a run file whole or not at all.

    Raises `UsageError` where it exists and `force` is not given, `CannotMeasure` where it
    cannot be written; `remedy` is what helps then, where it is not --out.
    """
    if path.exists() and not force:
        raise UsageError(f"{path} exists; name another file with --out, or give --force")
    # What cannot be read back must not get into the file.
    _plain(run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _layout(run))
    except OSError as error:
        raise _unwritable(path, error, remedy) from error


def read_run(path: Path, *, max_bytes: int = MAX_BYTES) -> RunFile:
    """Read a run file strictly. Raises `BadRunFile`."""
    data = _read(path, max_bytes)
    try:
        head = _HEAD.decode(data).header
        if head.format != FORMAT:
            raise BadRunFile(f"{path}: not a run file of trae-bench (format {head.format[:40]!r})")
        if head.version != VERSION:
            raise BadRunFile(
                f"{path}: format version {head.version}, this trae-bench reads {VERSION}; "
                "install the release that wrote it, or a newer one"
            )
        run = _RUN.decode(data)
        _no_key_twice(path, data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_journal(data):
            raise BadRunFile(
                f"{path}: a journal, no run file; `trae-bench run --resume {path}` makes one of it"
            ) from error
        raise BadRunFile(f"{path}: not a valid run file: {error}") from error
    _hold_together(path, run.header)
    _hold_rows(path, run)
    return run


def _is_journal(data: bytes) -> bool:
    try:
        return _LINE.decode(data.partition(b"\n")[0]).header is not None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _no_key_twice(path: Path, data: bytes) -> None:
    """Of two values under one key a reader sees the first, another the last."""

    def once(pairs: list[tuple[str, object]]) -> None:
        if len(pairs) > len({key for key, _ in pairs}):
            ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise BadRunFile(f"{path}: {key[:40]!r} stands twice in one object")

    json.loads(data, object_pairs_hook=once)


def read_sealed(path: Path) -> RunFile:
    """A run file that nobody has changed since its run: one to be held to. Raises `BadRunFile`."""
    run = read_run(path)
    if not seal_fits(run):
        raise BadRunFile(f"{path}: {BROKEN_SEAL}; `trae-bench verify {path}` tells more")
    return run


BROKEN_SEAL = "its seal does not fit, so it was changed after the run, or not written by trae-bench"


def seal_fits(run: RunFile) -> bool:
    return run.seal == seal_of(run)


def seal_of(run: RunFile) -> str:
    """SHA-256 of all that a run file holds but the seal itself; its layout does not count.

    `run` is as it was read: a whole number that should be a float is one. This is no signature,
    for whoever wants to can make a new one. It tells of edits and damage.
    """
    # A field that a later release adds must be left out here while it has its default, or
    # that release raises VERSION.
    found = hashlib.sha256()
    # Piece by piece: a large run need not be in memory twice.
    for part in (msgspec.structs.replace(run, seal="", samples=()), *run.samples):
        found.update(msgspec.json.encode(part, order="sorted"))
    return found.hexdigest()


def sealed(run: RunFile) -> RunFile:
    """The same run with its seal. Raises `CannotMeasure` where it does not fit a run file."""
    plain = _plain(run)
    return msgspec.structs.replace(plain, seal=seal_of(plain))


def _plain(run: RunFile) -> RunFile:
    """As it would be read back. Raises `CannotMeasure` where it could not be."""
    try:
        head = _RUN.decode(msgspec.json.encode(msgspec.structs.replace(run, samples=())))
        samples = tuple(map(_plain_sample, run.samples))
    except msgspec.DecodeError as error:
        raise CannotMeasure(f"this run does not fit a run file: {error}") from error
    return msgspec.structs.replace(head, samples=samples)


def _plain_sample(sample: Sample) -> Sample:
    data = msgspec.json.encode(sample)
    plain = _SAMPLE.decode(data)
    # The very same where it can be: a long run need not be in memory twice.
    return sample if msgspec.json.encode(plain) == data else plain


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a run file; committed as `run.schema.json`."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FORMAT} file, version {VERSION}",
    }
    # By way of JSON, for a default of () is an empty array there.
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(head | msgspec.json.schema(RunFile))
    )
    for struct in found["$defs"].values():
        # Newer Pythons take a docstring's indentation away themselves.
        if "description" in struct:
            struct["description"] = cleandoc(struct["description"])
    return found


class _AnyFormat(Struct, frozen=True):
    """Enough of a header to say what a file is, whatever its version."""

    format: str
    version: int


class _Head(Struct, frozen=True):
    header: _AnyFormat


_LINE = msgspec.json.Decoder(Line)
_HEAD = msgspec.json.Decoder(_Head)
_RUN = msgspec.json.Decoder(RunFile)
_SAMPLE = msgspec.json.Decoder(Sample)


_RUN_FILE_BEGINS = b'{\n"header"'
_ONE_A_LINE = frozenset({"header", "cells", "noise", "comparisons", "samples"})


def _layout(run: RunFile) -> Iterator[bytes]:
    """JSON with one sample, row or cell a line: a change of one is one line of a diff."""
    yield from _spread(run)
    yield b"\n"


def _spread(value: Struct | Sequence[Struct]) -> Iterator[bytes]:
    """An object or array, its items on lines of their own; those named above in turn."""
    if not isinstance(value, Struct):
        yield b"["
        for number, item in enumerate(value):
            yield (b",\n" if number else b"\n") + msgspec.json.encode(item)
        yield b"\n]"
        return
    yield b"{"
    for number, name in enumerate(value.__struct_fields__):
        field = getattr(value, name)
        yield (b",\n" if number else b"\n") + msgspec.json.encode(name) + b": "
        yield from _spread(field) if name in _ONE_A_LINE else [msgspec.json.encode(field)]
    yield b"\n}"


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        data = first_bytes(path, max_bytes + 1)
    except OSError as error:
        raise BadRunFile(f"{path}: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise BadRunFile(f"{path}: larger than {max_bytes:,} bytes; no run is that large")
    # Every value after the first of its array or object is led by a comma, and a journal's
    # line by the end of the one before.
    if data.count(b",") + data.count(b"\n") > MAX_VALUES:
        raise BadRunFile(f"{path}: more than {MAX_VALUES:,} values; no run has that many")
    return data


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


_REMEDIES = {
    errno.ENOSPC: "free some space or name a file on another disk with --out",
    errno.EDQUOT: "free some space or name a file on another disk with --out",
    errno.EROFS: "name a file in a writable folder with --out",
    errno.EACCES: "name a file in a writable folder with --out",
    errno.EPERM: "name a file in a writable folder with --out",
}


def _unwritable(path: Path, error: OSError, remedy: str = "") -> CannotMeasure:
    remedy = remedy or _REMEDIES.get(error.errno or 0, "name another file with --out")
    return CannotMeasure(f"cannot write {path}: {error.strerror or error}; {remedy}")
