"""HTTP archives of a session (HAR 1.2), as browsers, mitmproxy and Proxyman export them.

It is here and not beside the other readers, because it decodes replies of the protocols.
Headers, cookies and queries are not read, so a key in them is not stored.
"""

import base64
from collections.abc import Iterator
from urllib.parse import urlsplit

from msgspec import Struct

from trae_bench.provider.exchanges import Exchange, exchange_of, session_of
from trae_bench.scenario.importers.reading import READERS, Reader
from trae_bench.scenario.importers.session import Document, NotThisFormat, RecordedSession


class _Text(Struct, frozen=True):
    text: str | None = None
    encoding: str | None = None


class _Request(Struct, frozen=True, rename={"post_data": "postData"}):
    method: str
    url: str
    post_data: _Text | None = None


class _Response(Struct, frozen=True):
    status: int
    content: _Text = _Text()


class _Entry(Struct, frozen=True, rename={"started": "startedDateTime"}):
    request: _Request
    response: _Response
    started: str = ""


class _Log(Struct, frozen=True):
    entries: tuple[_Entry, ...]


class _Archive(Struct, frozen=True):
    log: _Log


def matches(document: Document) -> bool:
    return document.shape == "object" and document.has("log")


def read(document: Document) -> RecordedSession:
    """Convert the model requests of an archive. Raises `NotThisFormat`."""
    archive: _Archive = document.decode(_Archive)
    # The sort is stable, so entries without a time stay in their order.
    entries = sorted(archive.log.entries, key=lambda entry: entry.started)
    return session_of(_exchanges(entries), "the HTTP archive")


def _exchanges(entries: list[_Entry]) -> Iterator[Exchange]:
    for entry in entries:
        if entry.request.method != "POST" or entry.request.post_data is None:
            continue
        try:
            path = urlsplit(entry.request.url).path
        except ValueError as error:
            raise NotThisFormat(f"the URL of a request: {error}") from error
        found = exchange_of(
            path,
            _bytes(entry.request.post_data),
            entry.response.status,
            _bytes(entry.response.content),
        )
        if found is not None:
            yield found


def _bytes(content: _Text) -> bytes:
    text = content.text or ""
    try:
        return base64.b64decode(text) if content.encoding == "base64" else text.encode()
    except ValueError as error:
        raise NotThisFormat(f"the content of a reply: {error}") from error


ALL_READERS = (*READERS[:-1], Reader("HTTP archive", matches, read), READERS[-1])
"""The readers of all formats; the most general one is the last."""
