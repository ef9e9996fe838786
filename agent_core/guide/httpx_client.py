"""An `httpx.AsyncClient` that sends its requests through a `Transport`."""

from collections.abc import AsyncIterator

import httpx

from agent_core._http import Call, Exchange, target
from agent_core.connections import Transport
from agent_core.errors import ConnectionFailedError

_OWN_HEADERS = (b"host", b"content-length", b"transfer-encoding", b"connection")
"""`agent_core._http` writes these itself."""


def pooled_client(
    transport: Transport,
    provider: str,
    base_url: str,
    headers: dict[str, str],
    timeouts: dict[str, float | None] | float,
) -> httpx.AsyncClient:
    """A client that uses the retries, pools and metrics of `transport`.

    Closing the client closes `transport`. A timeout is not retried, because it states how
    long the caller waits.
    """
    if isinstance(timeouts, dict):
        limits = httpx.Timeout(**timeouts, pool=None)
    else:
        limits = httpx.Timeout(timeouts)
    return httpx.AsyncClient(
        transport=_HttpxTransport(transport, provider),
        base_url=base_url,
        headers=headers,
        timeout=limits,
        trust_env=False,  # `transport` reads proxies and certificates from the environment
    )


def _as_httpx(
    error: ConnectionFailedError, default: type[httpx.TransportError]
) -> type[httpx.TransportError]:
    """The httpx class for the cause of `error`. httpx and httpcore share these names."""
    if isinstance(error.__cause__, TimeoutError):
        return httpx.PoolTimeout
    kind = getattr(httpx, type(error.__cause__).__name__, None)
    if isinstance(kind, type) and issubclass(kind, httpx.TransportError):
        return kind
    return default


class _HttpxTransport(httpx.AsyncBaseTransport):
    def __init__(self, transport: Transport, provider: str) -> None:
        self._transport = transport
        self._provider = provider

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = Call(
            to=target(str(request.url)),
            headers=[pair for pair in request.headers.raw if pair[0].lower() not in _OWN_HEADERS],
            body=await request.aread(),
            timeouts=request.extensions.get("timeout", {}),
            method=request.method.encode(),
            repeat_timeouts=False,
        )
        try:
            exchange = await self._transport.open(self._provider, call)
        except ConnectionFailedError as error:
            raise _as_httpx(error, httpx.ConnectError)(str(error), request=request) from error
        version = exchange.extensions.get("http_version", b"HTTP/1.1")
        return httpx.Response(
            exchange.status,
            headers=exchange.raw_headers,
            stream=_Body(exchange, request),
            extensions={"http_version": version},
        )

    async def aclose(self) -> None:
        await self._transport.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: Exchange, request: httpx.Request) -> None:
        self._exchange = exchange
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._exchange.chunks():
                yield chunk
        except ConnectionFailedError as error:
            kind = _as_httpx(error, httpx.ReadError)
            raise kind(str(error), request=self._request) from error

    async def aclose(self) -> None:
        await self._exchange.close()
