"""The report of `agent-core doctor`: the guide's performance report as plain data."""

import platform
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import agent_core
from agent_core.build import check, effective_toggles
from agent_core.config import Overrides, Settings, effective_settings
from agent_core.config_sources import CachedConfig, cache_directory
from agent_core.connection_metrics import pool_metrics
from agent_core.errors import ConfigError, MissingDependencyError
from agent_core.guide.config_cache import ConfigLoadTimer
from agent_core.guide.dynamic_imports import get_dependency_report
from agent_core.guide.lazy_tools import OptimizedToolManager
from agent_core.providers import PROVIDERS
from agent_core.toggles import ABOUT


def diagnose(
    config: Path | None,
    environ: Mapping[str, str],
    switches: Mapping[str, bool],
    overrides: Overrides,
) -> dict[str, Any]:
    """All sections of the report. Imports no SDK and opens no connection.

    An invalid configuration is reported as a problem and raises no error.
    """
    source = CachedConfig(environ)
    settings = Settings()
    problem = None
    with ConfigLoadTimer() as timer:
        try:
            loaded = settings if config is None else source.load(config)
            settings = effective_settings(loaded, environ, overrides)
            check(settings, config, requested=overrides.provider)
        except (ConfigError, MissingDependencyError) as error:
            problem = str(error)
    toggles = effective_toggles(settings, switches).as_dict()
    return {
        "version": agent_core.__version__,
        "python": platform.python_version(),
        "configuration": {
            "file": None if config is None else str(config),
            "load_ms": round(timer.duration_ms, 2),
            "provider": settings.default_provider,
            "model": settings.model_parameters.model,
            "problem": problem,
        },
        "keys": {name: _has_key(name, settings, environ) for name in PROVIDERS},
        "configuration_cache": {
            "folder": str(cache_directory(environ)),
            **source.cache.get_cache_stats(),
        },
        "dependencies": get_dependency_report(),
        "connection_pool": {
            "http2_possible": find_spec("h2") is not None,
            **pool_metrics.get_stats(),
        },
        "tools": OptimizedToolManager().get_performance_report(),
        "toggles": {n: {"on": on, "about": ABOUT[n]} for n, on in toggles.items()},
    }


def _has_key(name: str, settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the file or the environment has a key for this provider."""
    entry = settings.model_providers.get(name)
    return bool(entry and entry.api_key) or any(map(environ.get, PROVIDERS[name].key_env))
