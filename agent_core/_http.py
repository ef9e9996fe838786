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

This module neither retries nor stores an API key.
"""

import logging
import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
from msgspec import Struct

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
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # slow to import and rarely needed

    host = to.host.decode()
    proxies = getproxies()
    scheme = to.url.scheme.decode()
    address = proxies.get(scheme) or proxies.get("all")
    if not address or proxy_bypass(host):
        return None
    try:
        return _proxy_at(address if "//" in address else f"http://{address}")
    except ValueError as error:
        name = f"{scheme if proxies.get(scheme) else 'all'}_proxy".upper()
        # Without the address, which may contain a password.
        raise ConfigError(f"{name} is not a usable proxy address: {error}.") from None


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
        self.body = b""
        self._response = response
        self._release = release
        self._safe_to_repeat = safe_to_repeat
        self._open = True

    async def read(self) -> None:
        """Reads the whole body into `body`. Raises `AttemptFailed`."""
        try:
            self.body = b"".join([chunk async for chunk in self._response.aiter_stream()])
        except _BROKEN as error:
            raise AttemptFailed(_interrupted(error), retryable=self._safe_to_repeat) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the body as it arrives. Raises `ConnectionFailedError`.

        The caller has already seen a part of the body, so only the caller can retry.
        """
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except _BROKEN as error:
            raise ConnectionFailedError(_interrupted(error)) from error

    async def close(self) -> None:
        """Releases the connection. A second call does nothing."""
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                await self._release()


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
        reason = f"No connection to {call.to.origin}: {_reason(error)}"
        retryable = _may_reconnect(error) and _may_repeat(error, call)
        raise AttemptFailed(reason, retryable=retryable) from error
    except _BROKEN as error:
        if reused and not isinstance(error, httpcore.TimeoutException):
            raise StaleConnection from error
        reason = f"No reply from {call.to.origin}: {_reason(error)}"
        retryable = call.safe_to_repeat and _may_repeat(error, call)
        raise AttemptFailed(reason, retryable=retryable) from error


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


def _may_repeat(error: Exception, call: Call) -> bool:
    return call.repeat_timeouts or not isinstance(error, httpcore.TimeoutException)


def _may_reconnect(error: Exception) -> bool:
    """False if the certificate is the cause: a new connection would fail the same way."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
