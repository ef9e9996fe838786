"""The one place that knows the HTTP library: a single connection, and what went wrong on it.

It stands on httpcore, the transport inside httpx, and not on `httpx.AsyncClient`.
Measured against one loopback server (Python 3.11, ms per request, one session; sessions
per second at 100 sessions of 10 requests with 50 ms of think time):

    httpx.AsyncClient, shared           0.70 ms     70/s
    httpx.AsyncClient, one a session    0.70 ms    106/s
    httpx.AsyncHTTPTransport            0.54 ms
    httpcore.AsyncConnectionPool        0.50 ms    129/s
    httpcore.AsyncHTTPConnection        0.30 ms    157/s

The pool of httpx looks at every connection and every waiting request each time a request
begins or ends; `connection_pool.py` hands out single connections instead. What patches
httpcore (respx does) still sees every request, and importing httpcore takes half of the
time that httpx takes.

Nothing here retries, and nothing here keeps a key.
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
    """A request's address, taken apart once."""

    url: httpcore.URL
    host: bytes

    @property
    def secure(self) -> bool:
        return self.url.scheme == b"https"

    @property
    def origin(self) -> str:
        """The origin, for people; it holds no secret, as a path or a query may."""
        return f"{self.url.scheme.decode()}://{self.host.decode()}"


class Call(Struct, frozen=True):
    """One request as it goes out."""

    to: Target
    headers: list[tuple[bytes, bytes]]
    """All but `host` and the body's length."""
    body: bytes
    timeouts: dict[str, float | None]
    """Seconds for one "connect", one "read", one "write", and for a place in the "pool"; None
    waits for ever."""
    method: bytes = b"POST"
    safe_to_repeat: bool = True
    """Whether it may be sent again though it may have arrived."""
    repeat_timeouts: bool = True
    """False where a timeout is how long the caller will wait, and no sign of a broken server."""


class StaleConnection(Exception):
    """A kept-alive connection was already closed: nothing of a reply had arrived."""


class NotAvailable(Exception):
    """The connection takes no more requests at this time."""


Trace = Callable[[str, Mapping[str, Any]], Awaitable[None]]


def target(url: str) -> Target:
    """Raises `ValueError` for what is no http or https URL."""
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
"""One a process for each value of `http2`: httpcore sets the context's ALPN list on every
connect, and reading the certificates takes some 25 ms."""


def ssl_context(*, http2: bool) -> ssl.SSLContext:
    """The shared context, made when the first https address is used.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured, as httpx does. Raises `ConfigError`.
    """
    if http2 not in _CONTEXTS:
        _CONTEXTS[http2] = _new_context()
    return _CONTEXTS[http2]


def _new_context() -> ssl.SSLContext:
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"SSL_CERT_FILE={file}: no certificates can be read there"
                f" ({error.strerror or error}); correct or unset it."
            ) from None
    if folder := os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context(capath=folder)
    import certifi  # only for https without certificates of one's own

    return ssl.create_default_context(cafile=certifi.where())


@cache
def http2_possible() -> bool:
    """Whether h2 is installed; it is imported with the first HTTP/2 connection."""
    return find_spec("h2") is not None


def connector(
    to: Target, *, http2: bool, keepalive: float, shared_tls: bool = True
) -> Callable[[], httpcore.AsyncConnectionInterface]:
    """Makes unconnected connections to one origin, through a proxy where the environment
    names one. `keepalive` is in seconds.

    Without `shared_tls`, each connection reads the certificates into a TLS context of its
    own, as a client does that is made anew for every request. Raises `ConfigError` where
    certificates or proxy cannot be used.
    """
    if http2:
        _keep_headers_out_of_the_log()
    proxy = _proxy(to)

    def factory(context: ssl.SSLContext | None) -> httpcore.AsyncConnectionPool:
        # This pool never carries a request: it is httpcore's public way to make a single
        # connection that may lead through a proxy.
        return httpcore.AsyncConnectionPool(
            ssl_context=context, http2=http2, keepalive_expiry=keepalive, proxy=proxy
        )

    if to.secure and not shared_tls:
        return lambda: factory(_new_context()).create_connection(to.url.origin)
    shared = factory(ssl_context(http2=http2) if to.secure else None)
    return lambda: shared.create_connection(to.url.origin)


def _keep_headers_out_of_the_log() -> None:
    """HTTP/2's header library logs every header it encodes, and with them the key."""
    log = logging.getLogger("hpack")
    log.setLevel(max(log.level, logging.INFO))


def _proxy(to: Target) -> httpcore.Proxy | None:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # slow to import, and seldom needed

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
        # Without the address, which may hold a password.
        raise ConfigError(f"{name} names no proxy that can be used: {error}.") from None


def _proxy_at(address: str) -> httpcore.Proxy:
    """Raises `ValueError`, which quotes nothing of `address`."""
    parts = urlsplit(address)
    socks = parts.scheme in ("socks5", "socks5h") and find_spec("socksio") is not None
    if parts.scheme not in ("http", "https") and not socks:
        raise ValueError("it must begin with http:// or https://; socks5:// needs socksio")
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise ValueError("its port is no number up to 65535") from None
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
    """One request's answer; the body is still on the connection until `read` or `close`."""

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
        """The whole body into `body`. Raises `AttemptFailed`."""
        try:
            self.body = b"".join([chunk async for chunk in self._response.aiter_stream()])
        except _BROKEN as error:
            raise AttemptFailed(_broke_off(error), again=self._safe_to_repeat) from error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Raises `ConnectionFailedError`: some of it has been seen,
        so only who asked can decide to ask again."""
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except _BROKEN as error:
            raise ConnectionFailedError(_broke_off(error)) from error

    async def close(self) -> None:
        """Gives the connection back, whole or not; a second call does nothing."""
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                await self._release()


def _broke_off(error: Exception) -> str:
    return f"The connection broke off in the middle of a reply: {_reason(error)}"


async def send(
    connection: httpcore.AsyncConnectionInterface,
    call: Call,
    *,
    reused: bool,
    trace: Trace | None,
) -> httpcore.Response:
    """Sends `call` and waits for the head of its answer.

    Raises `NotAvailable`, `StaleConnection` (only where `reused`), and `AttemptFailed` for
    everything else that keeps an answer from coming.
    """
    try:
        return await connection.handle_async_request(_http_request(call, trace))
    except httpcore.ConnectionNotAvailable:
        raise NotAvailable from None
    except httpcore.LocalProtocolError:
        # From None, and without its text: h11 quotes the header it refuses, and with it a key.
        raise AttemptFailed("A header of the request is not valid HTTP", again=False) from None
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
        said = f"No connection to {call.to.origin}: {_reason(error)}"
        again = _worth_connecting(error) and _worth_waiting(error, call)
        raise AttemptFailed(said, again=again) from error
    except _BROKEN as error:
        if reused and not isinstance(error, httpcore.TimeoutException):
            raise StaleConnection from error
        said = f"No reply from {call.to.origin}: {_reason(error)}"
        again = call.safe_to_repeat and _worth_waiting(error, call)
        raise AttemptFailed(said, again=again) from error


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


def _worth_waiting(error: Exception, call: Call) -> bool:
    return call.repeat_timeouts or not isinstance(error, httpcore.TimeoutException)


def _worth_connecting(error: Exception) -> bool:
    """Whether connecting again may help: not where the certificate is the trouble."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
