"""Which wire protocol each provider speaks, at which address, and how it takes a key."""

from urllib.parse import urlencode

from msgspec import Struct


class Provider(Struct, frozen=True, kw_only=True):
    """How one provider is reached."""

    protocol: str
    """A name in `agent_core.models.PROTOCOLS`."""
    base_url: str | None
    """None where every customer has an address of his own."""
    key_env: tuple[str, ...]
    """Environment variables that may hold the key; the first one wins."""
    key_header: str = "authorization"
    extra_headers: dict[str, str] = {}
    deployments: bool = False
    """True where the model is a part of the address and the query names a version (Azure)."""
    api_version: str | None = None
    limit_field: str = "max_tokens"
    """Chat Completions only: what the bound on the reply's length is called."""

    def headers(self, api_key: str) -> dict[str, str]:
        """What every request carries. The only place where a key is put into a request."""
        if not api_key:
            return dict(self.extra_headers)
        value = f"Bearer {api_key}" if self.key_header == "authorization" else api_key
        return {self.key_header: value, **self.extra_headers}

    def rooted(self, base_url: str, model: str) -> str:
        """The address under which the protocol's own path begins."""
        base_url = base_url.rstrip("/")
        if self.deployments and "/openai" not in base_url:
            return f"{base_url}/openai/deployments/{model}"
        return base_url

    def versioned(self, url: str, api_version: str | None) -> str:
        """`url` with the query that the provider wants."""
        version = (api_version or self.api_version) if self.deployments else None
        return with_query(url, urlencode({"api-version": version}) if version else "")


def without_query(base_url: str) -> tuple[str, str]:
    """`base_url` without its query, and the query: paths are put on the one before the other."""
    address, _, query = base_url.partition("#")[0].partition("?")
    return address, query


def with_query(url: str, query: str) -> str:
    """`url`, asked with `query` too."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


PROVIDERS: dict[str, Provider] = {
    # Chat Completions and not Responses, which Trae Agent uses: a base_url set for
    # "openai" leads to some compatible server far more often than to OpenAI, and those
    # speak Chat Completions. `protocol = "openai_responses"` picks the other.
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
