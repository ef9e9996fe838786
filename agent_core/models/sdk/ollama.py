"""Ollama's SDK. It never retries, so `max_retries` has no effect here."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx
import ollama

from agent_core.config import ProviderSettings
from agent_core.encoding import encode_json
from agent_core.errors import ConnectionFailedError, ProviderError
from agent_core.models.sdk.sdk_model import TIMEOUT
from agent_core.ports import Response
from agent_core.providers import PROVIDERS, without_query


class OllamaVendor:
    """Ollama's chat."""

    def __init__(self, provider: str, settings: ProviderSettings) -> None:
        base_url, query = without_query(settings.base_url or PROVIDERS[provider].base_url or "")
        self._query = parse_qsl(query)
        # Like `OllamaChat.url`, this accepts the address of the OpenAI-compatible interface.
        self._host = base_url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}

    def connect(self) -> Any:
        return ollama.AsyncClient(
            host=self._host, headers=self._headers, params=self._query, timeout=TIMEOUT
        )

    async def disconnect(self, client: Any) -> None:
        await client.close()

    async def ask(self, client: Any, document: dict[str, Any]) -> bytes:
        return _json(await client.chat(**document))

    async def stream(self, client: Any, document: dict[str, Any]) -> AsyncIterator[bytes]:
        async for event in await client.chat(**document):
            yield _json(event)

    def failure(self, error: Exception) -> ProviderError | Response | None:
        if isinstance(error, ollama.ResponseError):
            # `error` is that field of the body and may have any type.
            detail = (
                error.error if isinstance(error.error, str) else encode_json(error.error).decode()
            )
            if error.status_code < 100:
                return ProviderError(detail)
            return Response(error.status_code, {}, detail.encode())
        if isinstance(error, httpx.TransportError | ConnectionError):
            return ConnectionFailedError(str(error) or type(error).__name__)
        return None


def _json(model: Any) -> bytes:
    text: str = model.model_dump_json(exclude_none=True, warnings=False)
    return text.encode()
