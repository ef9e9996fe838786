"""The import path of the guide. The code is in the module of this name in `guide/`."""

from agent_core.config_sources import ConfigurationCache
from agent_core.guide.config_cache import (
    ConfigLoadTimer,
    clear_config_cache,
    get_config_cache_stats,
    load_config_cached,
    optimize_config_cache,
)

optimize_cache = optimize_config_cache
"""The guide writes `config_cache.optimize_cache()`."""

__all__ = [
    "ConfigLoadTimer",
    "ConfigurationCache",
    "clear_config_cache",
    "get_config_cache_stats",
    "load_config_cached",
    "optimize_cache",
    "optimize_config_cache",
]
