"""Anthropic's SDK."""

from typing import Any
from urllib.parse import parse_qsl

import anthropic

from agent_core.config import ProviderSettings
from agent_core.models.sdk.sdk_model import TIMEOUT
from agent_core.models.sdk.stainless import StainlessVendor
from agent_core.providers import PROVIDERS, without_query


class AnthropicVendor(StainlessVendor):
    """Messages."""

    unnamed = ("temperature", "top_p", "top_k")

    def __init__(self, provider: str, settings: ProviderSettings) -> None:
        super().__init__(anthropic)
        base_url, query = without_query(settings.base_url or PROVIDERS[provider].base_url or "")
        self._options: dict[str, Any] = {
            "api_key": settings.api_key or "none",
            # The SDK adds "/v1" itself.
            "base_url": base_url.rstrip("/").removesuffix("/v1"),
            "default_query": dict(parse_qsl(query)),
            "max_retries": settings.max_retries,
            "timeout": TIMEOUT,
        }

    def connect(self) -> Any:
        return anthropic.AsyncAnthropic(**self._options)

    def endpoint(self, client: Any) -> Any:
        return client.messages
