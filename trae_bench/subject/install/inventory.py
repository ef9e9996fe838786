"""The child's side of a trial that weighs an install: takes the inventory of an environment.

    python -I -S inventory.py WORK.json

Run as a script, imported by no room; it imports nothing of this package, and nothing of what
it counts is imported or run. `WORK.json` says what to count:

    prefix      folder of an environment
    empty       folder of one like it with nothing installed, which is taken away
    records     in place of both, where there is no such environment: `RECORD` files, each the
                list that a distribution brings of its own files
    report_fd   where the report goes; `records.ChildReport` says what it holds

Sizes are bytes of content (`st_size`). Links are not followed, and of hard links one counts.
Byte-code is counted apart: whether it is there depends on who installed, and on who has run it.
"""

import csv
import json
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

MEASURED = "measured"
"""What the report says where an agent's would have its answer."""

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
    """Of distributions that lie anywhere, as their own lists have it."""
    return {"closure_size": sum(listed(records).values()), "distributions": len(records)}


def of_environment(prefix: Path, empty: Path) -> dict[str, int]:
    """What an environment has more than the empty one, and what its lists say of that."""
    there, before = sizes(prefix), sizes(empty)
    records, records_before = _records(there), _records(before)
    closure = _less(
        _below(prefix, listed(prefix / path for path in records)),
        _below(empty, listed(empty / path for path in records_before)),
    )
    files = _less(_without_bytecode(there), _without_bytecode(before))
    everything = sum(there.values()) - sum(before.values())
    return {
        "install_size": sum(files.values()),
        "bytecode_size": everything - sum(files.values()),
        "closure_size": sum(closure.values()),
        "unrecorded_size": sum(map(abs, _less(files, closure).values())),
        "distributions": len(records) - len(records_before),
    }


def sizes(root: Path) -> Sizes:
    """Of every regular file below `root`, by its path from there. Raises `OSError`."""
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
    """What `RECORD` files list, by whole path: a file in two of them counts once.

    Byte-code is left out. A list does not tell its own size, which is that of the other lines.
    Raises `OSError`, and `ValueError` for a file that is no such list.
    """
    found: Sizes = {}
    for record in records:
        own = 0
        for line in record.read_bytes().splitlines(keepends=True):
            ((path, _, size),) = csv.reader([line.decode()])
            if not _is_bytecode(path):
                own += len(line)
                # Scripts are listed by a way out of the folder and down again.
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


def _less(these: Sizes, those: Sizes) -> Sizes:
    """The differences, path by path; a path that is missing has 0."""
    return {path: these.get(path, 0) - those.get(path, 0) for path in these.keys() | those}


def _raise(error: OSError) -> None:
    raise error


if __name__ == "__main__":
    main()
