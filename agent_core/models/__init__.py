"""The wire protocols, one module each, on top of `ports.Connections`.

This package imports no codec; `codec_named` imports the one it returns.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from agent_core.errors import ConfigError
from agent_core.providers import PROVIDERS, Provider

if TYPE_CHECKING:
    from agent_core.models.codec import Codec, Parameters

__all__ = ["PROTOCOLS", "PROVIDERS", "Provider", "codec_named"]

PROTOCOLS: dict[str, str] = {
    "openai_chat": "agent_core.models.openai_chat:OpenAIChat",
    "openai_responses": "agent_core.models.openai_responses:OpenAIResponses",
    "anthropic_messages": "agent_core.models.anthropic_messages:AnthropicMessages",
    "gemini": "agent_core.models.gemini:Gemini",
    "ollama_chat": "agent_core.models.ollama_chat:OllamaChat",
}
"""`module:Class` of each protocol's codec."""


def codec_named(protocol: str, provider: str, parameters: "Parameters") -> "Codec":
    """A codec for one session. Raises `ConfigError` for an unknown protocol."""
    if protocol not in PROTOCOLS:
        raise ConfigError(f"Unknown protocol {protocol!r}. Known: {', '.join(PROTOCOLS)}.")
    module, _, name = PROTOCOLS[protocol].partition(":")
    options = {}
    if protocol == "openai_chat" and provider in PROVIDERS:
        options["limit_field"] = parameters.limit_field or PROVIDERS[provider].limit_field
    codec: Codec = getattr(import_module(module), name)(parameters, **options)
    return codec
