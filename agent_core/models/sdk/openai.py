"""OpenAI's SDK, also for Azure, OpenRouter and Doubao."""

from typing import Any
from urllib.parse import parse_qsl

import openai

from agent_core.config import ProviderSettings
from agent_core.errors import ConfigError
from agent_core.models.sdk.sdk_model import TIMEOUT
from agent_core.models.sdk.stainless import StainlessVendor
from agent_core.providers import PROVIDERS, without_query


class OpenAIVendor(StainlessVendor):
    """Chat Completions, or Responses if the settings' `protocol` is `openai_responses`."""

    unnamed = ("prompt_cache_key",)

    def __init__(self, provider: str, settings: ProviderSettings) -> None:
        super().__init__(openai)
        known = PROVIDERS[provider]
        base_url = settings.base_url or known.base_url
        if base_url is None:
            raise ConfigError(f"{provider} has no default address; set base_url (its endpoint).")
        base_url, query = without_query(base_url)
        self._responses = settings.protocol == "openai_responses"
        self._options: dict[str, Any] = {
            "api_key": settings.api_key or "none",
            "base_url": known.rooted(base_url, settings.model),
            "default_query": dict(parse_qsl(query)),
            "max_retries": settings.max_retries,
            "timeout": TIMEOUT,
        }
        self._client = openai.AsyncOpenAI
        if known.deployments:
            self._client = openai.AsyncAzureOpenAI
            self._options["api_version"] = settings.api_version or known.api_version

    def connect(self) -> Any:
        return self._client(**self._options)

    def endpoint(self, client: Any) -> Any:
        return client.responses if self._responses else client.chat.completions
