"""Digests of a session's transcript and workspace, by which two sides are compared.

They are computed after the measured process has ended.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from trae_bench._util.json_tree import map_strings
from trae_bench.model.sample import AgentAnswer, SessionLog
from trae_bench.scenario import Normalise
from trae_bench.scenario.loader import ignored

Clean = Callable[[str], str]
"""Removes from a text what may differ between two correct runs."""

MAX_CLEANED = 16 * 1024 * 1024
"""Bytes. A larger file is compared without cleaning."""


def cleaner(places: Mapping[str, str], rules: Iterable[Normalise]) -> Clean:
    """Return a function that replaces paths and URLs by `{name}`, then applies the patterns.

    `places` maps names to paths and URLs. Longer ones are replaced first. A path is also
    replaced in its resolved form and in its form inside a JSON string.
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


class Transcript(Struct, frozen=True):
    """A session: number of requests, last request and answer, cleaned."""

    requests: int
    unexpected: int
    """Requests after the end of the script, or with an unknown path."""
    answer: list[Any] | None
    """Success and final text. None if the subject reports no answer."""
    body: Any
    """The last request, which holds the whole history: JSON, or text if it is none."""
    size: int
    """Bytes of the last request."""
    digest: str


class FileEntry(Struct, frozen=True):
    """One file that a session left."""

    path: str
    kind: str
    executable: bool
    digest: str


def transcript_of(log: SessionLog, answer: AgentAnswer | None, clean: Clean) -> Transcript:
    """Return the transcript of a session. Its digest covers all other fields but the size."""
    final = None if answer is None else [answer.success, clean(answer.final_text)]
    body = _cleaned_body(log.last_body, clean)
    fields = [len(log.requests), log.unexpected, final, body]
    digest = _digest(json.dumps(fields, sort_keys=True).encode())
    return Transcript(len(log.requests), log.unexpected, final, body, len(log.last_body), digest)


def workspace_files(root: Path, ignore: Iterable[str], clean: Clean) -> list[FileEntry]:
    """Return the files below `root`, sorted by path.

    `ignore` has shell patterns that match the name of a file or folder, or a whole relative
    path. Empty folders are ignored.
    """
    found = sorted(files_below(root, tuple(ignore)))
    return [FileEntry(relative, *_content(path, clean)) for relative, path in found]


def workspace_digest(files: Iterable[FileEntry]) -> str:
    """Return the digest of a workspace: path, kind, executable bit and content of each file."""
    entries = [[one.path, one.kind, one.executable, one.digest] for one in files]
    return _digest(json.dumps(entries).encode())


def combined(digests: Sequence[str]) -> str:
    """Combine the digests of several sessions, in order. A single digest is unchanged."""
    return digests[0] if len(digests) == 1 else _digest(" ".join(digests).encode())


def _cleaned_body(body: bytes, clean: Clean) -> Any:
    try:
        request = json.loads(body)
        # An array has one request for each conversation.
        for one in request if isinstance(request, list) else [request]:
            if isinstance(one, dict):
                # Says which cache to use, and may be random in each session.
                one.pop("prompt_cache_key", None)
        return map_strings(_without_cache_marks(request), clean)
    except (ValueError, RecursionError):
        return clean(body.decode(errors="backslashreplace"))


def _without_cache_marks(value: Any) -> Any:
    """Return a request without the marks that tell a provider what to cache.

    The model does not see them, and they move from request to request. A mark needs a block, so
    a text equals a list of one block with this text.
    """
    if isinstance(value, list):
        return [_without_cache_marks(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        name: _without_cache_marks(item)
        for name, item in value.items()
        if not _is_cache_mark(name, item)
    }
    for name in kept.keys() & _TEXT_OR_BLOCKS:
        match kept[name]:
            case [{"type": "text", "text": str(text), **rest}] if not rest:
                kept[name] = text
    return kept


_TEXT_OR_BLOCKS = {"system", "content"}
"""Fields whose value is a text or a list of blocks."""


def _is_cache_mark(name: str, value: Any) -> bool:
    # Other values are arguments of a tool that has a parameter of this name.
    is_mark = isinstance(value, dict) and value.get("type") == "ephemeral"
    return name == "cache_control" and is_mark


def files_below(root: Path, ignore: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Yield all entries that are not folders, and folders that cannot be read."""
    todo = [(".", root)]
    # No recursion: an agent may nest folders deeper than the stack allows.
    while todo:
        parent, folder = todo.pop()
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError:
            yield parent, folder
            continue
        for entry in entries:
            # `relative_to` takes quadratic time in the depth since Python 3.12.
            relative = entry.name if folder is root else f"{parent}/{entry.name}"
            path = folder / entry.name
            if ignored(relative, ignore):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append((relative, path))
            else:
                yield relative, path


def _content(path: Path, clean: Clean) -> tuple[str, bool, str]:
    """Return the kind, the executable bit, and the digest of the content."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return "link", False, clean(str(path.readlink()))
        if not stat.S_ISREG(status.st_mode):
            # Opening a named pipe would block forever.
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


NOT_COMPARED = _digest(b"")
"""Digest of the transcripts where only the work counts, so that they are equal."""
