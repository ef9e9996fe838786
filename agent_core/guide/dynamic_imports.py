"""Optional vendor SDKs under the guide's names."""

from typing import Any

from agent_core.config import ProviderSettings
from agent_core.errors import AgentError
from agent_core.sdks import SDKS, is_installed, load_llm_client, sdk_of


def check_provider_availability(provider: str) -> bool:
    """Whether the provider's SDK is installed. Does not import it.

    Raises `ConfigError` for an unknown provider.
    """
    return is_installed(sdk_of(provider))


def validate_all_providers() -> dict[str, bool]:
    """Whether the client of each provider's SDK can be built. Opens no connection.

    Imports every installed SDK, which takes seconds.
    """
    return {provider: _can_be_built(provider) for provider in SDKS}


def get_dependency_report() -> dict[str, Any]:
    """Which SDKs are installed, and how to install the others. Imports none."""
    details = {
        provider: {
            "available": is_installed(sdk),
            "package": sdk.package,
            "install_command": sdk.install_command,
        }
        for provider, sdk in SDKS.items()
    }
    available = [provider for provider, detail in details.items() if detail["available"]]
    missing = [provider for provider in details if provider not in available]
    return {
        "available_providers": available,
        "missing_providers": missing,
        "installation_commands": {name: SDKS[name].install_command for name in missing},
        "provider_count": {
            "available": len(available),
            "missing": len(missing),
            "total": len(details),
        },
        "dependency_details": details,
    }


def _can_be_built(provider: str) -> bool:
    # Azure has no default address, so the probe names one.
    probe = ProviderSettings(api_key="none", model="none", base_url="http://127.0.0.1:9")
    try:
        load_llm_client(provider, probe)
    except (AgentError, TypeError, AttributeError):
        return False
    return True
