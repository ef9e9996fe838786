"""Runs inside a trial that measures an install: takes the inventory of an environment.

    python -I -S inventory.py WORK.json

It is a script that no module imports. It imports nothing of this package, and neither imports
nor runs what it measures. Fields of `WORK.json`:

    prefix      folder of an environment
    empty       folder of an environment without distributions, which is subtracted
    records     instead of both: RECORD files, which list the files of a distribution
    report_fd   file descriptor that receives the `ChildReport` (see `model/sample.py`)

Sizes are bytes of content (`st_size`). Links are not followed, and hard links count once.
Byte-code is counted separately, because it depends on the installer and on earlier runs.
"""

import csv
import json
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

MEASURED = "measured"
"""The report's final text."""

Sizes = dict[str, int]
"""Bytes by path."""


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if work["records"]:
        counters = of_records(list(map(Path, work["records"])))
    else:
        counters = of_environment(Path(work["prefix"]), Path(work["empty"]))
    report = {"success": True, "final_text": MEASURED, "steps": 0, "counters": counters}
    with os.fdopen(work["report_fd"], "w", encoding="utf-8") as pipe:
        json.dump(report, pipe)


def of_records(records: Sequence[Path]) -> dict[str, int]:
    """Measure installed distributions by their RECORD files."""
    return {"closure_size": sum(listed(records).values()), "distributions": len(records)}


def of_environment(prefix: Path, empty: Path) -> dict[str, int]:
    """Measure the files that an environment has in addition to the empty one."""
    full, base = sizes(prefix), sizes(empty)
    records, base_records = _records(full), _records(base)
    closure = _difference(
        _below(prefix, listed(prefix / path for path in records)),
        _below(empty, listed(empty / path for path in base_records)),
    )
    files = _difference(_without_bytecode(full), _without_bytecode(base))
    everything = sum(full.values()) - sum(base.values())
    return {
        "install_size": sum(files.values()),
        "bytecode_size": everything - sum(files.values()),
        "closure_size": sum(closure.values()),
        "unrecorded_size": sum(map(abs, _difference(files, closure).values())),
        "distributions": len(records) - len(base_records),
    }


def sizes(root: Path) -> Sizes:
    """Return the sizes of all regular files, by path relative to `root`. Raises `OSError`."""
    found: Sizes = {}
    seen: set[tuple[int, int]] = set()
    for folder, _, names in os.walk(root, onerror=_raise):
        for path in (Path(folder, name) for name in names):
            status = path.lstat()
            inode = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and inode not in seen:
                seen.add(inode)
                found[str(path.relative_to(root))] = status.st_size
    return found


def listed(records: Iterable[Path]) -> Sizes:
    """Return the sizes in RECORD files, by absolute path. A file in two of them counts once.

    Byte-code is left out. A RECORD file does not list its own size, which is the length of its
    other lines. Raises `OSError`, and `ValueError` if a file is not a RECORD file.
    """
    found: Sizes = {}
    for record in records:
        own = 0
        for line in record.read_bytes().splitlines(keepends=True):
            ((path, _, size),) = csv.reader([line.decode()])
            if not _is_bytecode(path):
                own += len(line)
                # The paths of scripts start with `../`.
                found[os.path.normpath(record.parent.parent / path)] = int(size or 0)
        found[os.path.normpath(record)] = own
    return found


def _records(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.endswith(".dist-info/RECORD")]


def _below(root: Path, found: Sizes) -> Sizes:
    return {os.path.relpath(path, root): size for path, size in found.items()}


def _without_bytecode(found: Sizes) -> Sizes:
    return {path: size for path, size in found.items() if not _is_bytecode(path)}


def _is_bytecode(path: str) -> bool:
    return path.endswith(".pyc")


def _difference(left: Sizes, right: Sizes) -> Sizes:
    """Subtract path by path. The size of a missing path is 0."""
    return {path: left.get(path, 0) - right.get(path, 0) for path in left.keys() | right}


def _raise(error: OSError) -> None:
    raise error


if __name__ == "__main__":
    main()
