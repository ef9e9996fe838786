"""The vendors' SDKs: which ones are installed, and importing them.

    import_installed_sdks   imports every installed SDK at the start (the baseline)
    load_llm_client         imports only the SDK of the selected provider

Every SDK is an extra. Without any, each provider works over the wire clients in
`agent_core.models`; only `native_client` off needs an SDK. If no SDK is installed, the
toggle `optional_deps` has no effect.
"""

import importlib
import importlib.util
from typing import Any

from msgspec import Struct

from agent_core.config import ProviderSettings, suggestion
from agent_core.errors import ConfigError, MissingDependencyError
from agent_core.ports import Model


class Sdk(Struct, frozen=True):
    """A vendor's SDK and the client that uses it."""

    package: str
    """The name of its distribution."""
    module: str
    extra: str
    """The extra of this distribution that installs it."""
    vendor: str
    """`module:Class` of the `Vendor` for `SdkModel`."""

    @property
    def install_command(self) -> str:
        return f"pip install 'trae-bench[{self.extra}]'"


_OPENAI = Sdk("openai", "openai", "openai", "agent_core.models.sdk.openai:OpenAIVendor")
SDKS: dict[str, Sdk] = {
    "openai": _OPENAI,
    "anthropic": Sdk(
        "anthropic", "anthropic", "anthropic", "agent_core.models.sdk.anthropic:AnthropicVendor"
    ),
    "google": Sdk(
        "google-genai", "google.genai", "google", "agent_core.models.sdk.google:GoogleVendor"
    ),
    "azure": _OPENAI,
    "openrouter": _OPENAI,
    "doubao": _OPENAI,
    "ollama": Sdk("ollama", "ollama", "ollama", "agent_core.models.sdk.ollama:OllamaVendor"),
}
"""By provider. Azure, OpenRouter and Doubao use OpenAI's."""


def import_installed_sdks() -> tuple[str, ...]:
    """Imports every installed SDK, like an agent without optional imports.

    Returns the names of the imported modules. An SDK that cannot be imported fails later,
    when it is used.
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
    provider: str,
    model_parameters: ProviderSettings,
    *,
    reuse_connections: bool = True,
    prompt_cache: bool = True,
) -> Model:
    """A model that uses the provider's SDK. Imports no other SDK.

    Raises `MissingDependencyError` if the SDK is not installed. Raises `ConfigError` for an
    unknown provider or an incompatible SDK version.
    """
    from agent_core.models.sdk.sdk_model import SdkModel  # only a session with an SDK needs it

    sdk = sdk_of(provider)
    if not is_installed(sdk):
        raise MissingDependencyError(provider, sdk.package, sdk.install_command)
    path, _, name = sdk.vendor.partition(":")
    try:
        vendor: type[Any] = getattr(importlib.import_module(path), name)
    except ImportError as error:
        raise ConfigError(
            f"The installed '{sdk.package}' does not work with this agent ({error}). "
            f"Upgrade it with: {sdk.install_command.replace('install', 'install -U', 1)}"
        ) from error
    return SdkModel(
        provider,
        model_parameters,
        vendor(provider, model_parameters),
        reuse_connections=reuse_connections,
        prompt_cache=prompt_cache,
    )


def sdk_of(provider: str) -> Sdk:
    try:
        return SDKS[provider]
    except KeyError:
        known = ", ".join(SDKS)
        raise ConfigError(
            f"Unknown provider {provider!r}.{suggestion(provider, SDKS)} Known: {known}."
        ) from None


def is_installed(sdk: Sdk) -> bool:
    # For `google.genai` this imports the namespace package `google`, which may be missing.
    try:
        return importlib.util.find_spec(sdk.module) is not None
    except ModuleNotFoundError:
        return False
