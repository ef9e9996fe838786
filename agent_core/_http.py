"""The only module that uses the HTTP library: one connection, and its errors.

It uses httpcore, the transport inside httpx, instead of `httpx.AsyncClient`. Measured on
one loopback server (Python 3.11; ms per request in one session; sessions per second with
100 sessions of 10 requests and 50 ms of think time):

    httpx.AsyncClient, shared           0.70 ms     70/s
    httpx.AsyncClient, one a session    0.70 ms    106/s
    httpx.AsyncHTTPTransport            0.54 ms
    httpcore.AsyncConnectionPool        0.50 ms    129/s
    httpcore.AsyncHTTPConnection        0.30 ms    157/s

httpcore's pool scans every connection and waiting request whenever a request begins or
ends. `loop_pools.py` hands out single connections instead. Tools that patch httpcore, such
as respx, still see every request. Importing httpcore takes half as long as importing httpx.

A transport on the C parser of httptools was tried and is not used. Instructions per request
(valgrind --tool=cachegrind --cache-sim=no; sessions of 50 steps less sessions of none; requests
of up to 120 kB to a loopback server; Python 3.11; millions):

                                     HTTP/1.1    HTTP/1.1, TLS    HTTP/2, TLS
    httpcore                              1.6              2.2            5.2
    httpcore on asyncio streams           1.2                -              -
    httptools on asyncio streams          0.4              1.0   not possible

One million is about 0.3 ms. httptools has no HTTP/2, no proxies and no bound on headers, and its
connection would be invisible to respx. It would be a second client beside httpcore.

This module neither retries nor stores an API key.
"""

import logging
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
from msgspec import Struct

from agent_core.compression import BodyError, Decompressor, check_size, coding_of
from agent_core.errors import ConfigError, ConnectionFailedError
from agent_core.retries import AttemptFailed


class Target(Struct, frozen=True):
    """A request's address, parsed once."""

    url: httpcore.URL
    host: bytes

    @property
    def secure(self) -> bool:
        return self.url.scheme == b"https"

    @property
    def origin(self) -> str:
        """The origin, for messages and pool keys. Unlike a path or a query, it holds no secret."""
        return f"{self.url.scheme.decode()}://{self.host.decode()}"


class Call(Struct, frozen=True):
    """One request."""

    to: Target
    headers: list[tuple[bytes, bytes]]
    """All headers except `host` and `content-length`."""
    body: bytes
    timeouts: dict[str, float | None]
    """Seconds for each "connect", "read" and "write", and for a free slot in the "pool". None
    means no limit.
    """
    method: bytes = b"POST"
    safe_to_repeat: bool = True
    """Whether it may be sent again even if it may have arrived."""
    repeat_timeouts: bool = True
    """False if a timeout is the caller's limit and not a sign of a broken server."""


class StaleConnection(Exception):
    """A kept-alive connection was already closed. Nothing of a response arrived."""


class NotAvailable(Exception):
    """The connection takes no more requests for now."""


Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]


def target(url: str) -> Target:
    """Raises `ValueError` if `url` is not an http or https URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the address must begin with http:// or https:// and name a host")
    path = parts.path or "/"
    host = (
        parts.hostname.encode("idna") if not parts.hostname.isascii() else parts.hostname.encode()
    )
    bracketed = b"[" + host + b"]" if b":" in host else host
    return Target(
        httpcore.URL(
            scheme=parts.scheme.encode(),
            host=host,
            port=parts.port,
            target=(f"{path}?{parts.query}" if parts.query else path).encode(),
        ),
        bracketed if parts.port is None else bracketed + b":" + str(parts.port).encode(),
    )


_CONTEXTS: dict[bool, ssl.SSLContext] = {}
"""The process's TLS contexts, by `http2`. There are two, because httpcore sets the ALPN list
of the context on every connect. Reading the certificates takes about 25 ms.
"""


def ssl_context(*, http2: bool) -> ssl.SSLContext:
    """The shared TLS context, created at the first use.

    Honours `SSL_CERT_FILE` and `SSL_CERT_DIR`, as httpx does. Raises `ConfigError` if they
    cannot be used.
    """
    if http2 not in _CONTEXTS:
        _CONTEXTS[http2] = _new_context()
    return _CONTEXTS[http2]


def _new_context() -> ssl.SSLContext:
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # includes ssl.SSLError
            raise ConfigError(
                f"SSL_CERT_FILE={file}: cannot read certificates"
                f" ({error.strerror or error}); correct or unset it."
            ) from None
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    import certifi  # needed only for https with the default certificates

    return ssl.create_default_context(cafile=certifi.where())


@cache
def http2_possible() -> bool:
    """Whether h2 is installed. It is imported with the first HTTP/2 connection."""
    return find_spec("h2") is not None


def connector(
    to: Target, *, http2: bool, keepalive: float, shared_tls: bool = True
) -> Callable[[], httpcore.AsyncConnectionInterface]:
    """A factory of unconnected connections to the origin of `to`.

    It uses the proxy that the environment names. `keepalive` is in seconds. Without
    `shared_tls`, each connection reads the certificates into its own TLS context, like a
    client created for every request. Raises `ConfigError` if the certificates or the proxy
    cannot be used.
    """
    if http2:
        _keep_headers_out_of_the_log()
    proxy = _proxy(to)

    def factory(context: ssl.SSLContext | None) -> httpcore.AsyncConnectionPool:
        # This pool never sends a request. It is httpcore's public API for a single
        # connection with proxy support.
        return httpcore.AsyncConnectionPool(
            ssl_context=context, http2=http2, keepalive_expiry=keepalive, proxy=proxy
        )

    if to.secure and not shared_tls:
        return lambda: factory(_new_context()).create_connection(to.url.origin)
    shared = factory(ssl_context(http2=http2) if to.secure else None)
    return lambda: shared.create_connection(to.url.origin)


def _keep_headers_out_of_the_log() -> None:
    """The library hpack logs every header that it encodes, including the API key."""
    log = logging.getLogger("hpack")
    log.setLevel(max(log.level, logging.INFO))


def _proxy(to: Target) -> httpcore.Proxy | None:
    name, address = _proxy_setting(to)
    if not address:
        return None
    try:
        return _proxy_at(address if "//" in address else f"http://{address}")
    except ValueError as error:
        # Without the address, which may contain a password.
        raise ConfigError(f"{name} is not a usable proxy address: {error}.") from None


def _proxy_setting(to: Target) -> tuple[str, str]:
    """The variable that names the proxy for `to`, and its value; empty without a proxy."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return "", ""
    from urllib.request import getproxies, proxy_bypass  # slow to import and rarely needed

    proxies, scheme = getproxies(), to.url.scheme.decode()
    kind = scheme if proxies.get(scheme) else "all"
    address = proxies.get(kind)
    if not address or proxy_bypass(to.host.decode()):
        return "", ""
    return f"{kind}_proxy".upper(), address


def _proxy_at(address: str) -> httpcore.Proxy:
    """Raises `ValueError`. Its message does not quote `address`."""
    parts = urlsplit(address)
    socks = parts.scheme in ("socks5", "socks5h") and find_spec("socksio") is not None
    if parts.scheme not in ("http", "https") and not socks:
        raise ValueError("it must begin with http:// or https://; socks5:// needs socksio")
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise ValueError("its port must be a number up to 65535") from None
    if not parts.hostname:
        raise ValueError("it has no host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    auth = (user, password) if user else None
    return httpcore.Proxy(f"{parts.scheme}://{host}{port}", auth=auth)


_BROKEN = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.RemoteProtocolError,
)


class Exchange:
    """A response whose body stays on the connection until `read` or `close`."""

    def __init__(
        self,
        response: httpcore.Response,
        release: Callable[[], Awaitable[None]],
        *,
        safe_to_repeat: bool,
    ) -> None:
        self.status = response.status
        self.raw_headers = response.headers
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }
        self.extensions = response.extensions
        self._body: bytes | None = None
        """The whole body as sent, once it has been read."""
        self._response = response
        self._release = release
        self._safe_to_repeat = safe_to_repeat
        self._open = True

    async def read(self) -> None:
        """Reads the whole body. Raises `AttemptFailed`."""
        chunks, size = [], 0
        try:
            async for chunk in self._response.aiter_stream():
                size += len(chunk)
                check_size(size)
                chunks.append(chunk)
        except _BROKEN as error:
            raise AttemptFailed(_interrupted(error), retryable=self._safe_to_repeat) from error
        except BodyError as error:
            raise AttemptFailed(str(error), retryable=False) from None
        self._body = b"".join(chunks)

    def content(self) -> bytes:
        """The body that was read, decompressed. Raises `AttemptFailed`."""
        body = self._body or b""
        try:
            decompressor = self._decompressor()
            if decompressor is None:
                return body
            plain = decompressor.feed(body)
            decompressor.end()
        except BodyError as error:
            raise AttemptFailed(str(error), retryable=error.retryable) from None
        return plain

    async def chunks(self, *, plain: bool = False) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives, decompressed and bounded if `plain`.

        Raises `ConnectionFailedError`.
        The caller has already seen a part of the body, so only the caller can retry.
        """
        try:
            decompressor, size = self._decompressor() if plain else None, 0
            async for chunk in self._stream():
                if plain:
                    size += len(chunk)
                    check_size(size)
                yield chunk if decompressor is None else decompressor.feed(chunk)
            if decompressor is not None:
                decompressor.end()
        except BodyError as error:
            raise ConnectionFailedError(str(error)) from None
        except _BROKEN as error:
            raise ConnectionFailedError(_interrupted(error)) from error

    def _decompressor(self) -> Decompressor | None:
        coding = coding_of(self.headers)
        return None if coding is None else Decompressor(coding)

    def _stream(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream() if self._body is None else _once(self._body)

    async def close(self) -> None:
        """Releases the connection. A second call does nothing."""
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                await self._release()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _interrupted(error: Exception) -> str:
    return f"The connection broke in the middle of a reply: {_reason(error)}"


async def send(
    connection: httpcore.AsyncConnectionInterface,
    call: Call,
    *,
    reused: bool,
    trace: Trace | None,
) -> httpcore.Response:
    """Sends `call` and waits for the response headers.

    Raises `NotAvailable`, `StaleConnection` (only if `reused`), or `AttemptFailed` for any
    other failure.
    """
    try:
        return await connection.handle_async_request(_http_request(call, trace))
    except httpcore.ConnectionNotAvailable:
        raise NotAvailable from None
    except httpcore.LocalProtocolError:
        # From None and without the text, because h11 quotes the header, which may hold a key.
        raise AttemptFailed("A header of the request is not valid HTTP", retryable=False) from None
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
        raise _no_connection(error, call) from error
    except _BROKEN as error:
        if reused and not isinstance(error, httpcore.TimeoutException):
            raise StaleConnection from error
        reason = f"No reply from {call.to.origin}: {_reason(error)}"
        retryable = call.safe_to_repeat and _may_repeat(error, call)
        raise AttemptFailed(reason, retryable=retryable) from error


def _no_connection(error: Exception, call: Call) -> AttemptFailed:
    """The failure of a connection, which names the proxy if the proxy is the culprit."""
    origin, reason = call.to.origin, _cause(error)
    retryable = _may_reconnect(error) and _may_repeat(error, call)
    variable, _ = _proxy_setting(call.to)
    proxy = _proxy(call.to) if variable else None
    if proxy is None or _tls_failure(error):
        remedy = "check base_url and the network"
        text = f"No connection to {origin}: {reason}"
        return AttemptFailed(text, retryable=retryable, unreachable=True, remedy=remedy)
    port = f":{proxy.url.port}" if proxy.url.port else ""
    address = f"{proxy.url.scheme.decode()}://{proxy.url.host.decode()}{port}"
    if isinstance(error, httpcore.ProxyError):
        text = f"The proxy {address} gives no connection to {origin}: {reason}"
        retryable = retryable and not reason.startswith("4")  # an HTTP status
    else:
        text = f"No connection to the proxy {address} on the way to {origin}: {reason}"
    remedy = f"check {variable}, or name the host in NO_PROXY"
    return AttemptFailed(text, retryable=retryable, unreachable=True, remedy=remedy)


def _http_request(call: Call, trace: Trace | None) -> httpcore.Request:
    length = (b"content-length", str(len(call.body)).encode())
    headers = [(b"host", call.to.host), *call.headers]
    if call.body or call.method == b"POST":
        headers.append(length)
    extensions: dict[str, Any] = {"timeout": call.timeouts}
    if trace is not None:
        extensions["trace"] = trace
    return httpcore.Request(
        call.method, call.to.url, headers=headers, content=call.body, extensions=extensions
    )


def _cause(error: Exception) -> str:
    """The system's words for a failed connection, if it has any."""
    causes: list[BaseException] = [error]
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            break
        if isinstance(cause, OSError) and cause.errno:
            known = cause.errno > 0  # the resolver's numbers are negative
            return os.strerror(cause.errno) if known else str(cause.strerror)
        following = cause.__cause__ or cause.__context__
        if isinstance(following, BaseExceptionGroup):  # one for each address of the host
            following = following.exceptions[0]
        if following is not None:
            causes.append(following)
    return _reason(error)


def _may_repeat(error: Exception, call: Call) -> bool:
    return call.repeat_timeouts or not isinstance(error, httpcore.TimeoutException)


def _may_reconnect(error: Exception) -> bool:
    """False if the certificate is the cause: a new connection would fail the same way."""
    return not isinstance(_tls_failure(error), ssl.SSLCertVerificationError)


def _tls_failure(error: Exception) -> ssl.SSLError | None:
    """The cause of `error`, if it is TLS."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
