"""HTTP connection pooling under the guide's names, as `httpx` clients."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from agent_core.connections import default_timeouts
from agent_core.loop_pools import digest, forget_closed_loops
from agent_core.pooled_connections import PooledConnections
from agent_core.providers import PROVIDERS

if TYPE_CHECKING:
    import httpx


class ConnectionPoolManager(PooledConnections):
    """`PooledConnections` with the guide's class methods, which hand out `httpx` clients."""

    _clients: ClassVar[dict[tuple[Any, ...], "httpx.AsyncClient"]] = {}

    @classmethod
    async def get_client(
        cls,
        provider: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        max_connections: int = 10,
        max_keepalive_connections: int = 5,
    ) -> "httpx.AsyncClient":
        """The `httpx.AsyncClient` for one provider, address, key and event loop.

        The client is kept until `close_all`. `api_key` and `base_url` default to the
        provider's environment variables, such as `OPENAI_API_KEY` and `OPENAI_BASE_URL`, and
        `base_url` then to the provider's address. With an `api_key` of "" the client sends
        no key. `timeout` (seconds) replaces the
        provider's timeouts and also limits the wait for a free connection; a timeout is
        raised, not retried. Raises `ValueError` for a provider without an address.
        """
        loop = asyncio.get_running_loop()
        known = PROVIDERS.get(provider)
        address = base_url or _address_in_environment(provider)
        address = address or (known.base_url if known else None)
        if api_key is None:
            api_key = _key_in_environment(provider)
        if address is None:
            raise ValueError(f"{provider!r} has no default address; pass base_url.")
        tenant = digest([(api_key or "").encode()])
        key = (loop, provider, address, tenant, timeout, max_connections, max_keepalive_connections)
        if key not in cls._clients or cls._clients[key].is_closed:
            from agent_core.guide.httpx_client import pooled_client

            cls._forget_clients_of_closed_loops()
            transport = cls(
                max_connections=max_connections,
                max_keepalive_connections=max_keepalive_connections,
            )
            timeouts = default_timeouts(provider) if timeout is None else timeout
            headers = known.headers(api_key or "") if known else _bearer(api_key)
            cls._clients[key] = pooled_client(transport, provider, address, headers, timeouts)
        return cls._clients[key]

    @classmethod
    @asynccontextmanager
    async def get_pooled_client(
        cls, provider: str, **options: Any
    ) -> AsyncIterator["httpx.AsyncClient"]:
        """`get_client` as a context manager. Leaving it keeps the client open."""
        yield await cls.get_client(provider, **options)

    @classmethod
    async def close_all(cls) -> None:
        """Closes every client of the running loop."""
        loop = asyncio.get_running_loop()
        for key in [key for key in cls._clients if key[0] is loop]:
            await cls._clients.pop(key).aclose()
        cls._forget_clients_of_closed_loops()
        forget_closed_loops()

    @classmethod
    def _forget_clients_of_closed_loops(cls) -> None:
        for key in list(cls._clients):
            if key[0].is_closed():
                cls._clients.pop(key, None)


def get_pooled_client(
    provider: str, **options: Any
) -> AbstractAsyncContextManager["httpx.AsyncClient"]:
    """See `ConnectionPoolManager.get_pooled_client`."""
    return ConnectionPoolManager.get_pooled_client(provider, **options)


class PooledOpenAIClient:
    """Chat Completions over pooled connections. Requests and replies are dictionaries."""

    def __init__(self, api_key: str, base_url: str | None = None) -> None:
        self._api_key = api_key
        self._base_url = base_url

    async def chat_completion(self, **fields: Any) -> dict[str, Any]:
        """Posts `fields` and returns the reply. Raises `httpx.HTTPStatusError`."""
        client = await self._client()
        response = await client.post("/chat/completions", json=fields)
        response.raise_for_status()
        reply: dict[str, Any] = response.json()
        return reply

    async def chat_completion_stream(self, **fields: Any) -> AsyncIterator[str]:
        """Yields the data of each event, `[DONE]` last. Raises `httpx.HTTPStatusError`."""
        client = await self._client()
        body = {**fields, "stream": True}
        async with client.stream("POST", "/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    yield line[5:].strip()

    async def _client(self) -> "httpx.AsyncClient":
        # Looked up for each request, because the running loop may have changed.
        return await ConnectionPoolManager.get_client(
            "openai",
            base_url=self._base_url,
            api_key=self._api_key,
            max_connections=15,
            max_keepalive_connections=8,
        )


def _address_in_environment(provider: str) -> str | None:
    prefix = re.sub(r"\W", "_", provider).upper()
    return os.environ.get(f"{prefix}_BASE_URL")


def _key_in_environment(provider: str) -> str:
    names = PROVIDERS[provider].key_env if provider in PROVIDERS else ()
    return next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")


def _bearer(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}
