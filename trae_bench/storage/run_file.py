"""Run files: written whole or not at all, and read strictly.

A run file is untrusted input. Its types, version, size and number of values are checked,
and NaN is refused. Whatever is wrong raises `BadRunFile`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from trae_bench._util.atomic_write import write_whole
from trae_bench.errors import BadRunFile, UsageError
from trae_bench.model.run import FORMAT, VERSION, RunFile
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.noise import noise_floor
from trae_bench.stats.pairs import CellKey, key_of, key_of_sample
from trae_bench.storage.bounds import (
    MAX_BYTES,
    MAX_COMPARED,
    MAX_ROWS,
    MAX_SAMPLES,
    check_header,
    read_bounded,
    unwritable,
)
from trae_bench.storage.journal import AnyHeader, is_journal
from trae_bench.storage.seal import BROKEN_SEAL, Sealer, as_read_back, seal_fits, sealed
from trae_bench.storage.upgrade import seal_of_v1, upgrade

_ONE_PER_LINE = frozenset({"header", "cells", "noise", "comparisons", "checks"})


class _AnyRun(Struct, frozen=True):
    header: AnyHeader


_ANY_RUN = msgspec.json.Decoder(_AnyRun)
_RUN = msgspec.json.Decoder(RunFile)


# -- writing ----------------------------------------------------------------------------


def write_run(path: Path, run: RunFile, *, force: bool = False, remedy: str = "") -> RunFile:
    """Write a run file whole or not at all. The run with its seal.

    A run without a seal gets one while it is written; an existing seal stays, even a broken one.
    Raises `UsageError` if the file exists and `force` is not given, `CannotMeasure` if it cannot
    be written. `remedy` is the advice in that case, if it is not --out.
    """
    if path.exists() and not force:
        raise UsageError(f"{path} exists; name another file with --out, or give --force")
    run = as_read_back(run)
    sealer = Sealer(run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _layout(run, sealer))
    except OSError as error:
        raise unwritable(path, error, remedy) from error
    return msgspec.structs.replace(run, seal=run.seal or sealer.seal)


def _layout(run: RunFile, sealer: Sealer) -> Iterator[bytes]:
    """JSON with one sample, row or cell a line, so that a change of one is one line of a diff."""
    yield b"{"
    present = (name for name in RunFile.__struct_fields__ if getattr(run, name) is not UNSET)
    for number, name in enumerate(present):
        yield (b",\n" if number else b"\n") + msgspec.json.encode(name) + b": "
        if name == "samples":
            yield from _array(map(sealer.add, run.samples))
        elif name == "seal":
            yield msgspec.json.encode(run.seal or sealer.seal)
        else:
            yield from _value(name, getattr(run, name))
    yield b"\n}\n"


def _value(name: str, value: Struct | Sequence[Struct]) -> Iterator[bytes]:
    """A value; if it is named above, each of its items is on a line of its own."""
    if name not in _ONE_PER_LINE:
        yield msgspec.json.encode(value)
    elif isinstance(value, Struct):
        yield b"{"
        fields = [name for name in value.__struct_fields__ if getattr(value, name) is not UNSET]
        for number, field in enumerate(fields):
            yield (b",\n" if number else b"\n") + msgspec.json.encode(field) + b": "
            yield from _value(field, getattr(value, field))
        yield b"\n}"
    else:
        yield from _array(map(msgspec.json.encode, value))


def _array(items: Iterator[bytes]) -> Iterator[bytes]:
    yield b"["
    for number, item in enumerate(items):
        yield (b",\n" if number else b"\n") + item
    yield b"\n]"


# -- reading ----------------------------------------------------------------------------


def read_run(path: Path, *, max_bytes: int = MAX_BYTES) -> RunFile:
    """Read a run file strictly; one of format version 1 is upgraded. Raises `BadRunFile`."""
    data = read_bounded(path, max_bytes)
    try:
        header = _ANY_RUN.decode(data).header
        if header.format != FORMAT:
            raise BadRunFile(
                f"{path}: not a run file of trae-bench (format {header.format[:40]!r})"
            )
        if header.version not in (1, VERSION):
            raise BadRunFile(
                f"{path}: format version {header.version}, this trae-bench reads 1 and {VERSION}; "
                "install the release that wrote it, or a newer one"
            )
        was_sealed = False
        if header.version == VERSION:
            run = _RUN.decode(data)
            _load(path, data, keep=False)
        else:
            document = _load(path, data, keep=True)
            was_sealed = document.get("seal") == seal_of_v1(document)
            run = msgspec.convert(upgrade(document), RunFile)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        if is_journal(data):
            raise BadRunFile(
                f"{path}: a journal, not a run file; `trae-bench run --resume {path}` makes the "
                "run file"
            ) from error
        raise BadRunFile(f"{path}: not a valid run file: {field_first(error)}") from error
    check_header(path, run.header)
    _check_size(path, run)
    # A seal that fitted in version 1 fits the upgraded run, too; a broken one stays broken.
    return _with_conclusions(run) if was_sealed else run


def field_first(error: Exception) -> str:
    """Return a message of msgspec with the field before the problem."""
    problem, _, field = str(error).partition(" - at `$.")
    return f"{field.removesuffix('`')}: {problem}" if field else problem


def read_sealed(path: Path) -> RunFile:
    """A run file that was not changed since its run. Raises `BadRunFile`."""
    run = read_run(path)
    if not seal_fits(run):
        raise BadRunFile(f"{path}: {BROKEN_SEAL}; `trae-bench verify {path}` tells more")
    return run


def _with_conclusions(run: RunFile) -> RunFile:
    """The run with the conclusions that this release draws from its samples, and a new seal."""
    rows = comparisons(run.samples, run.header.cells, run.header.metrics)
    noise = tuple(noise_floor(rows, run.header.metrics))
    return sealed(msgspec.structs.replace(run, seal="", comparisons=tuple(rows), noise=noise))


def _load(path: Path, data: bytes, *, keep: bool) -> Any:
    """The document as plain values, if `keep`. Raises `BadRunFile` if an object has a key twice.

    One reader would see the first of two values under one key, another reader the last.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > len({key for key, _ in pairs}):
            ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise BadRunFile(f"{path}: {key[:40]!r} stands twice in one object")
        return dict(pairs) if keep else {}

    return json.loads(data, object_pairs_hook=unique)


def _check_size(path: Path, run: RunFile) -> None:
    """Rows are of known metrics, and few enough to be recomputed in seconds."""
    named = {*(row.metric for row in run.comparisons), *(noise.metric for noise in run.noise)}
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


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a run file; `trae-bench schema run` prints it."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FORMAT} file, version {VERSION}",
    }
    # By way of JSON, where a default of () is an empty array.
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(head | msgspec.json.schema(RunFile))
    )
    for struct in found["$defs"].values():
        # Newer Pythons remove the indentation of a docstring themselves.
        if "description" in struct:
            struct["description"] = cleandoc(struct["description"])
    return found
