"""The import path of the guide. The code is in the module of this name in `guide/`."""

from agent_core.errors import MissingDependencyError
from agent_core.guide.dynamic_imports import (
    check_provider_availability,
    get_dependency_report,
    validate_all_providers,
)
from agent_core.sdks import load_llm_client

__all__ = [
    "MissingDependencyError",
    "check_provider_availability",
    "get_dependency_report",
    "load_llm_client",
    "validate_all_providers",
]
