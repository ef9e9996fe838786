"""The providers: protocol, address, and how each takes an API key."""

from typing import Literal, get_args
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

LimitField = Literal["max_tokens", "max_completion_tokens"]
LIMIT_FIELDS: tuple[LimitField, ...] = get_args(LimitField)
"""Names of the field that limits a reply's length, in Chat Completions."""


class Provider(Struct, frozen=True, kw_only=True):
    """How to reach one provider."""

    protocol: str
    """A name in `agent_core.models.PROTOCOLS`."""
    base_url: str | None
    """None if each customer has a different address."""
    key_env: tuple[str, ...]
    """Environment variables that may hold the key. The first one set wins."""
    key_header: str = "authorization"
    extra_headers: dict[str, str] = {}
    deployments: bool = False
    """True if the path contains the model and the query a version, as on Azure."""
    api_version: str | None = None
    limit_field: LimitField = "max_tokens"
    """Chat Completions only. The other name is tried if the server does not know this one."""

    def headers(self, api_key: str) -> dict[str, str]:
        """The headers of every request. The API key is added to a request only here."""
        if not api_key:
            return dict(self.extra_headers)
        value = f"Bearer {api_key}" if self.key_header == "authorization" else api_key
        return {self.key_header: value, **self.extra_headers}

    def rooted(self, base_url: str, model: str) -> str:
        """The base address of the protocol's own paths."""
        base_url = base_url.rstrip("/")
        if self.deployments and "/openai" not in base_url:
            return f"{base_url}/openai/deployments/{model}"
        return base_url

    def versioned(self, url: str, api_version: str | None) -> str:
        """`url` with the `api-version` query, if the provider requires one."""
        version = (api_version or self.api_version) if self.deployments else None
        return with_query(url, urlencode({"api-version": version}) if version else "")


def takes_cache_key(base_url: str) -> bool:
    """Whether a server accepts `prompt_cache_key`: OpenAI's, also in a region (`eu.api…`).

    Azure and other compatible servers may refuse a field that they do not know.
    """
    host = urlsplit(base_url).hostname or ""
    return f".{host}".endswith(".api.openai.com")


def without_query(base_url: str) -> tuple[str, str]:
    """Splits `base_url` into the address, to which paths are appended, and its query."""
    address, _, query = base_url.partition("#")[0].partition("?")
    return address, query


def with_query(url: str, query: str) -> str:
    """`url` with `query` added."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


PROVIDERS: dict[str, Provider] = {
    # Trae Agent uses Responses for "openai". The default here is Chat Completions, because
    # a base_url for "openai" mostly names a compatible server, which supports only that.
    # `protocol = "openai_responses"` selects Responses.
    "openai": Provider(
        protocol="openai_chat",
        base_url="https://api.openai.com/v1",
        key_env=("OPENAI_API_KEY",),
        limit_field="max_completion_tokens",
    ),
    "anthropic": Provider(
        protocol="anthropic_messages",
        base_url="https://api.anthropic.com/v1",
        key_env=("ANTHROPIC_API_KEY",),
        key_header="x-api-key",
        extra_headers={"anthropic-version": "2023-06-01"},
    ),
    "google": Provider(
        protocol="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        key_header="x-goog-api-key",
    ),
    "azure": Provider(
        protocol="openai_chat",
        base_url=None,
        key_env=("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
        key_header="api-key",
        deployments=True,
        api_version="2024-10-21",
        limit_field="max_completion_tokens",
    ),
    "openrouter": Provider(
        protocol="openai_chat",
        base_url="https://openrouter.ai/api/v1",
        key_env=("OPENROUTER_API_KEY",),
    ),
    "doubao": Provider(
        protocol="openai_chat",
        base_url="https://ark.cn-beijing.volces.com/api/v3",
        key_env=("DOUBAO_API_KEY", "ARK_API_KEY"),
    ),
    "ollama": Provider(
        protocol="ollama_chat",
        base_url="http://localhost:11434",
        key_env=("OLLAMA_API_KEY",),
    ),
}
