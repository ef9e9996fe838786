"""A reverse proxy on loopback that records the session of an agent with a real provider.

    with RecordingProxy("https://api.openai.com/v1") as proxy:
        ...                       # an agent sends requests to proxy.base_url
    proxy.exchanges               # its model requests and their replies

Every path is passed on, and every reply is passed back byte for byte as it arrives. Keys go
upstream. They are kept in memory only, to remove them from what is stored.
"""

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import httpx
from msgspec.structs import replace

from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.provider.conversations import continued
from trae_bench.provider.exchanges import Exchange, exchange_of
from trae_bench.provider.foreign_session import decoded
from trae_bench.provider.http1_parser import BadRequest, Request, RequestReader
from trae_bench.provider.protocols.replies import MAX_REPLY_BYTES
from trae_bench.provider.routes import find_route

MAX_CONVERSATIONS = 100
"""Conversations of which the last request is kept."""
MAX_EXCHANGES = 20_000
"""Maximum model requests of a recording."""
_CONNECT_SECONDS = 30.0
_REPLY_SECONDS = 3600.0
"""Maximum silence of the provider. Reasoning models think for minutes before they reply."""
_STOP_SECONDS = 10.0
_READ_SIZE = 65_536
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade")
) | {b"transfer-encoding"}
_NOT_FORWARDED = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding"}
_KEY_HEADER = re.compile(rb"(?:^|-)(?:key|token|auth|authorization|secret|cookie)$")
"""Headers of providers and gateways, such as x-goog-api-key and Helicone-Auth."""
_KEY_QUERIES = frozenset(("key", "api_key", "access_token"))
_MIN_KEY = 8
"""Characters of a key. Shorter ones, such as `none`, occur in ordinary text."""


class RecordingProxy:
    """Passes requests on to one provider and records them. A context manager."""

    def __init__(self, upstream: str) -> None:
        """`upstream` is the provider's base URL. Raises `UsageError` if it is not one."""
        self._upstream = _checked(upstream)
        self._found: dict[int, Exchange] = {}
        self._last: list[int] = []
        """Numbers of the exchanges whose body is kept: the last one of each conversation."""
        self._arrived = 0
        self._errors: list[str] = []
        self._secrets: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="recording proxy", daemon=True)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._problem: OSError | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._problem is not None:
            self._thread.join()
            raise CannotMeasure(f"cannot listen on loopback: {self._problem}") from self._problem
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # The loop has ended.
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_SECONDS)

    @property
    def base_url(self) -> str:
        """The URL to give to the agent instead of the provider's base URL."""
        return self._origin + self._upstream.path.rstrip("/")

    @property
    def server_url(self) -> str:
        """The same URL without `/v1`, as Anthropic, Google and Ollama clients expect it."""
        return self.base_url.removesuffix("/v1")

    @property
    def _origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> int:
        """Number of model requests that arrived."""
        return self._arrived

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The model requests in order of arrival. Complete once the proxy has stopped."""
        return tuple(self._found[number] for number in sorted(self._found))

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong between proxy and provider."""
        return tuple(dict.fromkeys(self._errors))

    @property
    def secrets(self) -> frozenset[str]:
        """The keys that requests carried."""
        return frozenset(self._secrets)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except OSError as error:
            self._problem = error
        finally:
            self._started.set()
            self._loop.close()

    async def _listen(self) -> None:
        timeout = httpx.Timeout(_REPLY_SECONDS, connect=_CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(http2=True, timeout=timeout, limits=limits) as client:
            tasks: set[asyncio.Task[None]] = set()

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await self._connection(client, reader, writer)

            server = await asyncio.start_server(accept, "127.0.0.1", 0)
            self._port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(
        self, client: httpx.AsyncClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        requests = RequestReader()
        try:
            while (request := await _read_request(reader, writer, requests)) is not None:
                if not await self._serve(client, request, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # The agent closed the connection, or the recording ends.
        except BadRequest as error:
            with suppress(ConnectionError):
                await _answer(writer, error.status, error.reason)
        finally:
            writer.close()

    async def _serve(
        self, client: httpx.AsyncClient, request: Request, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request. Return whether the connection stays open."""
        # An absolute URL would name another host.
        if not request.target.startswith(b"/"):
            raise BadRequest(400, "the target of the request is not a path")
        headers = request.headers
        if b"upgrade" in headers and b"upgrade" in headers.get(b"connection", b"").lower():
            raise BadRequest(426, "only plain HTTP requests are recorded")
        self._secrets.update(_keys(request))
        number = None
        if request.method == b"POST" and find_route(_path(request)) is not None:
            self._arrived += 1
            number = self._arrived
        return await self._pass_on(client, request, writer, number) and request.keep_alive

    async def _pass_on(
        self,
        client: httpx.AsyncClient,
        request: Request,
        writer: asyncio.StreamWriter,
        number: int | None,
    ) -> bool:
        headers = [pair for pair in _headers(request) if pair[0] not in _NOT_FORWARDED]
        # The record needs the plain text of the reply.
        headers.append((b"accept-encoding", b"identity"))
        url = _same_target(self._upstream, request.target)
        method, content = request.method.decode(), request.body
        upstream = httpx.Request(method, url, headers=headers, content=content)
        received, status, coding = bytearray(), 0, b""
        try:
            response = await client.send(upstream, stream=True)
            status = response.status_code
            coding = response.headers.get("content-encoding", "").encode()
            async with aclosing(response):
                await _pass_back(request, response, writer, received)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            self._errors.append(f"{self._upstream.host}: {reason}")
            if status:
                return False  # A part was sent; only a closed connection can say that it ended.
            await _answer(writer, 502, f"the provider cannot be reached: {reason}")
        finally:
            if number is not None:
                self._note(number, request, status, bytes(received), coding)
        return True

    def _note(
        self, number: int, request: Request, status: int, reply: bytes, coding: bytes
    ) -> None:
        if number > MAX_EXCHANGES:
            self._errors.append(f"only {MAX_EXCHANGES} model requests are recorded")
            return
        try:
            body = decoded(request.body, request.headers.get(b"content-encoding", b""))
            reply = decoded(reply, coding)
        except BadRequest as error:
            self._errors.append(f"request {number} is not recorded: {error.reason}")
            return
        found = exchange_of(_path(request), body, status, reply)
        if found is None:
            self._errors.append(f"request {number} is not recorded: its body is no model request")
        else:
            self._keep(number, found)

    def _keep(self, number: int, found: Exchange) -> None:
        """Keep an exchange, and of all bodies only the last one of each conversation."""
        with_body = [self._found[one] for one in self._last]
        beside = not found.facts.tools and any(one.facts.tools for one in with_body)
        if not found.body or beside:
            self._found[number] = replace(found, body=b"")
            return
        self._found[number] = found
        if with_body and not found.history.begins:
            place = continued(found.history, [one.history.digests for one in with_body])
            before = self._last.pop(place)
            self._found[before] = replace(self._found[before], body=b"")
        self._last.append(number)
        if len(self._last) > MAX_CONVERSATIONS:
            oldest = self._last.pop(1)
            self._found[oldest] = replace(self._found[oldest], body=b"")


def _checked(upstream: str) -> httpx.URL:
    try:
        url = httpx.URL(upstream)
    except httpx.InvalidURL as error:
        raise UsageError(f"--upstream {upstream!r}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.userinfo:
        remedy = "write the provider's base URL, such as https://api.openai.com/v1"
        raise UsageError(f"--upstream is not a plain http or https URL; {remedy}")
    return url


def _same_target(upstream: httpx.URL, target: bytes) -> httpx.URL:
    """Return the URL of a path and query at the provider."""
    try:
        return upstream.copy_with(raw_path=target)
    except (httpx.InvalidURL, UnicodeDecodeError) as error:
        raise BadRequest(400, "the target of the request is not a valid path") from error


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: RequestReader
) -> Request | None:
    """Return the next complete request; None if the agent closed the connection."""
    continued = False
    while (request := requests.next()) is None:
        if requests.wants_continue():
            writer.write(_CONTINUE)
            continued = True
        data = await reader.read(_READ_SIZE)
        if not data:
            return None
        requests.feed(data)
    if not continued and request.headers.get(b"expect", b"").lower() == b"100-continue":
        # The body came with the head.
        writer.write(_CONTINUE)
    return request


def _path(request: Request) -> str:
    return request.path.decode("ascii", "backslashreplace")


def _headers(request: Request) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers, names in lower case. A name can come several times."""
    for line in request.header_lines:
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()


async def _pass_back(
    request: Request,
    response: httpx.Response,
    writer: asyncio.StreamWriter,
    received: bytearray,
) -> None:
    """Send the reply as it arrives, and append up to `MAX_REPLY_BYTES` of it to `received`."""
    headers = [
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in _HOP_BY_HOP
    ]
    no_body = request.method == b"HEAD" or response.status_code in (204, 304)
    chunked = not no_body and "content-length" not in response.headers
    if chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    lines = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}".encode("latin-1")]
    lines += [name + b": " + value for name, value in headers]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    await writer.drain()
    if no_body:
        return
    async with aclosing(_pieces(response)) as pieces:
        async for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            # One byte more than allowed shows that the reply is too long.
            received += piece[: MAX_REPLY_BYTES + 1 - len(received)]
            await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in response.aiter_raw():
        if piece:
            yield piece


async def _answer(writer: asyncio.StreamWriter, status: int, reason: str) -> None:
    body = httpx.Response(status, json={"error": {"message": f"trae-bench record: {reason}"}})
    head = f"HTTP/1.1 {status} {body.reason_phrase}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body.content)}\r\n\r\n".encode() + body.content)
    await writer.drain()


def _keys(request: Request) -> Iterator[str]:
    """Yield the keys of a request."""
    for name, value in _headers(request):
        if _KEY_HEADER.search(name):
            text = value.decode("latin-1")
            yield from (word for word in (text, *text.split()) if len(word) >= _MIN_KEY)
    query = urlsplit(request.target.decode("latin-1")).query
    for key, text in parse_qsl(query):
        if key in _KEY_QUERIES and len(text) >= _MIN_KEY:
            yield text
