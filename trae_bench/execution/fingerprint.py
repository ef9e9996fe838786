"""What a session came to, in a form that two sides can be compared by: same answer first.

Everything here happens after the measured process has ended.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trae_bench.model.sample import AgentAnswer, SessionLog
from trae_bench.scenario import Normalise
from trae_bench.scenario.loader import ignored

Clean = Callable[[str], str]
"""Takes out of a text what may legitimately differ between two runs."""

MAX_CLEANED = 16 * 1024 * 1024
"""Bytes; a file larger than this is compared as it is."""


def cleaner(places: Mapping[str, str], rules: Iterable[Normalise]) -> Clean:
    """Puts `{name}` in place of each place's text, then applies the scenario's patterns.

    Where the text of one place begins with another's, the longer one is taken first. A
    place is also found under its real path, and as it stands inside a JSON string.
    """
    spellings = {
        spelling: "{" + name + "}"
        for name, text in places.items()
        for spelling in (text, os.path.realpath(text) if text.startswith("/") else text)
    }
    spellings |= {json.dumps(text)[1:-1]: name for text, name in spellings.items()}
    ordered = sorted(spellings.items(), key=lambda item: -len(item[0]))
    patterns = [(re.compile(rule.pattern), rule.replace) for rule in rules]

    def clean(text: str) -> str:
        for spelling, name in ordered:
            text = text.replace(spelling, name)
        for pattern, replacement in patterns:
            text = pattern.sub(replacement, text)
        return text

    return clean


def transcript_digest(log: SessionLog, report: AgentAnswer | None, clean: Clean) -> str:
    """Digest of the conversation: the last request carries the whole history before it."""
    told = None if report is None else [report.success, clean(report.final_text)]
    answer = [len(log.requests), log.unexpected, told, _cleaned_body(log.last_body, clean)]
    return _digest(json.dumps(answer, sort_keys=True).encode())


def workspace_digest(root: Path, ignore: Iterable[str], clean: Clean) -> str:
    """Digest of the files below `root`: path, kind, executable or not, content.

    `ignore` are shell patterns for a name, of a file or a folder, or for a whole relative
    path. Empty folders do not count.
    """
    entries = [
        [relative, *_content(path, clean)] for relative, path in sorted(_files(root, tuple(ignore)))
    ]
    return _digest(json.dumps(entries).encode())


def combined(digests: Sequence[str]) -> str:
    """One digest for several sessions, in their order; a single one's is its own."""
    return digests[0] if len(digests) == 1 else _digest(" ".join(digests).encode())


def _cleaned_body(body: bytes, clean: Clean) -> Any:
    try:
        return _cleaned(json.loads(body), clean)
    except (ValueError, RecursionError):
        return clean(body.decode(errors="backslashreplace"))


def _cleaned(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item, clean) for item in value]
    if isinstance(value, dict):
        return {key: _cleaned(item, clean) for key, item in value.items()}
    return value


def _files(root: Path, ignore: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """All that is no folder, and folders that cannot be looked into."""
    todo = [(".", root)]
    # No recursion: an agent may nest folders deeper than the stack has room for.
    while todo:
        within, here = todo.pop()
        try:
            with os.scandir(here) as found:
                entries = list(found)
        except OSError:
            yield within, here
            continue
        for entry in entries:
            # Not `relative_to`, which since Python 3.12 takes the square of the depth.
            relative = entry.name if here is root else f"{within}/{entry.name}"
            path = here / entry.name
            if ignored(relative, ignore):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append((relative, path))
            else:
                yield relative, path


def _content(path: Path, clean: Clean) -> tuple[str, bool, str]:
    """Kind, executable or not, and the digest of what is in it."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return "link", False, clean(str(path.readlink()))
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe that somebody left would wait for ever.
            return "special", False, ""
        executable = bool(status.st_mode & stat.S_IXUSR)
        if status.st_size > MAX_CLEANED:
            with path.open("rb") as file:
                return "file", executable, hashlib.file_digest(file, _hash).hexdigest()
        return "file", executable, _digest(_cleaned_bytes(path.read_bytes(), clean))
    except OSError as error:
        return "unreadable", False, error.strerror or ""


def _cleaned_bytes(data: bytes, clean: Clean) -> bytes:
    try:
        return clean(data.decode()).encode()
    except UnicodeDecodeError:
        return data


def _hash(data: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=16)


def _digest(data: bytes) -> str:
    return _hash(data).hexdigest()
