"""The vendors' SDKs: which are installed, and loading the one that is needed.

    import_installed_sdks   every installed SDK at start, needed or not (the baseline)
    load_llm_client         the one SDK of the chosen provider, and no other

Every SDK is an extra. Without any, each provider works over the wire clients of
`agent_core.models`; an SDK is needed only where `native_client` is off. In an
installation without SDKs there is nothing to import at start, and the two sides of the
toggle `optional_deps` are the same.
"""

import importlib
import importlib.util
from typing import Any

from msgspec import Struct

from agent_core.config import ProviderSettings, suggestion
from agent_core.errors import ConfigError, MissingDependencyError
from agent_core.ports import Model


class Sdk(Struct, frozen=True):
    """One vendor's SDK, and our client upon it."""

    package: str
    """The distribution, as pip knows it."""
    module: str
    extra: str
    """The extra of this distribution that brings it."""
    client: str
    """Our client's dotted path."""

    @property
    def install_command(self) -> str:
        return f"pip install 'trae-bench[{self.extra}]'"


_OPENAI = Sdk("openai", "openai", "openai", "agent_core.models.sdk.openai:OpenAIModel")
SDKS: dict[str, Sdk] = {
    "openai": _OPENAI,
    "anthropic": Sdk(
        "anthropic", "anthropic", "anthropic", "agent_core.models.sdk.anthropic:AnthropicModel"
    ),
    "google": Sdk(
        "google-genai", "google.genai", "google", "agent_core.models.sdk.google:GoogleModel"
    ),
    "azure": _OPENAI,
    "openrouter": _OPENAI,
    "doubao": _OPENAI,
    "ollama": Sdk("ollama", "ollama", "ollama", "agent_core.models.sdk.ollama:OllamaModel"),
}
"""By provider. Azure, OpenRouter and Doubao are reached with OpenAI's."""


def import_installed_sdks() -> tuple[str, ...]:
    """Imports every SDK that is installed, as an agent without optional imports does.

    Returns the names of the imported modules. An SDK that is installed and broken is
    left to fail where it is used.
    """
    modules = sorted({sdk.module for sdk in SDKS.values() if is_installed(sdk)})
    imported = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        imported.append(module)
    return tuple(imported)


def load_llm_client(
    provider: str, model_parameters: ProviderSettings, *, reuse_connections: bool = True
) -> Model:
    """A model behind the vendor's SDK, imported here and now, and no other with it.

    Raises `MissingDependencyError` where the SDK is not installed, and `ConfigError`
    for an unknown provider or an SDK of a version that does not fit.
    """
    sdk = sdk_of(provider)
    if not is_installed(sdk):
        raise MissingDependencyError(provider, sdk.package, sdk.install_command)
    path, _, name = sdk.client.partition(":")
    try:
        client: type[Any] = getattr(importlib.import_module(path), name)
    except ImportError as error:
        raise ConfigError(
            f"The installed '{sdk.package}' does not work with this agent ({error}). "
            f"Upgrade it with: {sdk.install_command.replace('install', 'install -U', 1)}"
        ) from error
    model: Model = client(provider, model_parameters, reuse_connections=reuse_connections)
    return model


def sdk_of(provider: str) -> Sdk:
    try:
        return SDKS[provider]
    except KeyError:
        known = ", ".join(SDKS)
        raise ConfigError(
            f"Unknown provider {provider!r}.{suggestion(provider, SDKS)} Known: {known}."
        ) from None


def is_installed(sdk: Sdk) -> bool:
    # For `google.genai` this imports `google`, an empty namespace, which may be missing itself.
    try:
        return importlib.util.find_spec(sdk.module) is not None
    except ModuleNotFoundError:
        return False
