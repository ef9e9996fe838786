"""Google's SDK."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from google import genai
from google.genai import errors, types

from agent_core.config import ProviderSettings
from agent_core.errors import ConnectionFailedError, ProviderError
from agent_core.models.sdk.sdk_model import TIMEOUT
from agent_core.ports import Response
from agent_core.providers import PROVIDERS, without_query

_CONNECTION_ERRORS = ("ConnectError", "TransportError", "ClientConnectionError", "TimeoutException")
"""By name, because the SDK uses whichever HTTP library is installed."""


class GoogleVendor:
    """generateContent."""

    def __init__(self, provider: str, settings: ProviderSettings) -> None:
        base_url, query = without_query(settings.base_url or PROVIDERS[provider].base_url or "")
        # The SDK takes the version separately.
        root, version = re.fullmatch(r"(.*?)(?:/(v\d\w*))?", base_url.rstrip("/")).groups()  # type: ignore[union-attr]
        self._model = settings.model
        self._key = settings.api_key or "none"
        self._options = types.HttpOptions(
            base_url=root,
            api_version=version or "v1beta",
            timeout=int(TIMEOUT * 1000),
            async_client_args={"params": parse_qsl(query)} if query else None,
            retry_options=types.HttpRetryOptions(attempts=settings.max_retries + 1),
        )

    def connect(self) -> Any:
        return genai.Client(api_key=self._key, vertexai=False, http_options=self._options)

    async def disconnect(self, client: Any) -> None:
        await client.aio.aclose()
        client.close()

    async def ask(self, client: Any, document: dict[str, Any]) -> bytes:
        return _json(await client.aio.models.generate_content(**self._arguments(document)))

    async def stream(self, client: Any, document: dict[str, Any]) -> AsyncIterator[bytes]:
        arguments = self._arguments(document)
        async for chunk in await client.aio.models.generate_content_stream(**arguments):
            yield _json(chunk)

    def failure(self, error: Exception) -> ProviderError | Response | None:
        if isinstance(error, errors.APIError):
            headers = dict(getattr(error.response, "headers", None) or {})
            body = msgspec.json.encode(error.details)
            return Response(error.code, {k.lower(): v for k, v in headers.items()}, body)
        if any(kind.__name__ in _CONNECTION_ERRORS for kind in type(error).__mro__):
            return ConnectionFailedError(str(error) or type(error).__name__)
        return None

    def _arguments(self, document: dict[str, Any]) -> dict[str, Any]:
        """The SDK's arguments for a request body: everything except the contents is in `config`."""
        config = types.GenerateContentConfig(
            system_instruction=document.get("systemInstruction"),
            # By default the SDK writes the schema field in snake case. The API accepts both,
            # but the transcripts of the two clients would differ.
            http_options=types.HttpOptions(extra_body={"tools": document.get("tools", [])}),
            **document["generationConfig"],
        )
        return {"model": self._model, "contents": document["contents"], "config": config}


def _json(reply: Any) -> bytes:
    text: str = reply.model_dump_json(by_alias=True, exclude_none=True, warnings=False)
    return text.encode()
