"""Configuration caching under the guide's names: one cache per process."""

import os
import time
from functools import cache
from pathlib import Path
from typing import Any, Self

from agent_core.config import Settings, effective_settings
from agent_core.config_sources import CachedConfig, ConfigurationCache


@cache
def _process_cache() -> ConfigurationCache:
    """Global state. The environment at the first use sets its folder and TTL."""
    return CachedConfig(os.environ).cache


def load_config_cached(config_file: str | Path = "trae_config.json") -> Settings:
    """The settings of the file, with the environment on top. Raises `ConfigError`."""
    return effective_settings(_process_cache().load(config_file), os.environ)


def get_config_cache_stats() -> dict[str, Any]:
    """See `ConfigurationCache.get_cache_stats`."""
    return _process_cache().get_cache_stats()


def clear_config_cache() -> None:
    """See `ConfigurationCache.clear_cache`."""
    _process_cache().clear_cache()


def optimize_config_cache() -> dict[str, int]:
    """See `ConfigurationCache.optimize_cache`."""
    return _process_cache().optimize_cache()


class ConfigLoadTimer:
    """Times a `with` block. `str()` gives, for instance, `Config load: 2.34ms`."""

    def __init__(self, description: str = "Config load") -> None:
        self.description = description
        self.duration_ms = 0.0
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.duration_ms = (time.perf_counter() - self._started) * 1000

    def __str__(self) -> str:
        return f"{self.description}: {self.duration_ms:.2f}ms"
