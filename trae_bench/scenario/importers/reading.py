"""Read a recorded session in any known format, which is recognised by its content."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from trae_bench._util.bounded_io import whole
from trae_bench.errors import UsageError
from trae_bench.scenario.importers import (
    atif,
    chat_messages,
    claude_code,
    codex,
    mini_swe_agent,
    trae_trajectory,
)
from trae_bench.scenario.importers.session import (
    MAX_SESSION_BYTES,
    Document,
    NotThisFormat,
    RecordedSession,
)

_Kind = TypeVar("_Kind")
_FIRST_LINES = 200
"""Lines that are searched for the fields of a format."""


class Reader(Struct, frozen=True):
    """A reader of one format."""

    format: str
    """Name of the format, for messages."""
    matches: Callable[[Document], bool]
    read: Callable[[Document], RecordedSession]
    """Raises `NotThisFormat`."""


READERS = (
    Reader("Trae Agent trajectory", trae_trajectory.matches, trae_trajectory.read),
    Reader("ATIF trajectory", atif.matches, atif.read),
    Reader("mini-swe-agent trajectory", mini_swe_agent.matches, mini_swe_agent.read),
    Reader("Claude Code session", claude_code.matches, claude_code.read),
    Reader("Codex rollout", codex.matches, codex.read),
    Reader("list of OpenAI messages", chat_messages.matches, chat_messages.read),
)
"""Readers in the order in which they are tried: the general formats come last."""


def read_session(path: Path, readers: Sequence[Reader] = READERS) -> RecordedSession:
    """Read a file. Raises `UsageError`, also if it is unreadable or in no known format."""
    try:
        data = whole(path, MAX_SESSION_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    document = _document(data)
    if document is None:
        raise UsageError(f"{path}: not JSON or lines of JSON, so not a recorded session")
    for reader in readers:
        if not reader.matches(document):
            continue
        try:
            return reader.read(document)
        except (NotThisFormat, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{path}: not a valid {reader.format}: {error}") from error
    tried = ", ".join(reader.format for reader in readers)
    raise UsageError(f"{path}: not a recorded session of a known format; tried: {tried}")


def _document(data: bytes) -> Document | None:
    """Return the content with its shape. None if it is neither JSON nor lines of JSON."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    start = data[:1000].lstrip()[:1]
    if start == b"[":
        items = _decoded(data, tuple[Raw, ...])
        if items is None:
            return None
        fields = (_decoded(item, dict[str, Raw]) for item in items[:_FIRST_LINES])
        return Document(data, "array", tuple(found for found in fields if found is not None))
    whole_object = _decoded(data, dict[str, Raw])
    if whole_object is not None:
        return Document(data, "object", (whole_object,))
    lines = data.split(b"\n", _FIRST_LINES)[:_FIRST_LINES]
    fields = (_decoded(line, dict[str, Raw]) for line in lines)
    found = tuple(line for line in fields if line is not None)
    return Document(data, "lines", found) if found else None


def _decoded(data: bytes | Raw, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
