"""Cost of loading a config file: parsed, from the cache on disk, from the cache in memory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_core.config import Settings
from agent_core.config_sources import ConfigurationCache, PlainConfig
from tests.benchmarks.side_by_side import Comparison

_ENTRY = {"api_key": "sk-benchmark", "model": "some-model", "max_tokens": 4096, "temperature": 0.5}
_PROVIDERS = ("openai", "anthropic", "google", "azure", "openrouter", "doubao")
_CONFIG = {
    "default_provider": "openai",
    "max_steps": 50,
    "model_providers": dict.fromkeys(_PROVIDERS, _ENTRY),
    "performance_settings": {"trajectory_batch_size": 10, "connection_pool_size": 20},
}


def _plain(path: Path, folder: Path) -> Callable[[], Settings]:
    return lambda: PlainConfig().load(path)


def _from_disk(path: Path, folder: Path) -> Callable[[], Settings]:
    ConfigurationCache(directory=folder).load(path)

    def load() -> Settings:
        cache = ConfigurationCache(directory=folder)  # empty in memory, as in a new process
        settings = cache.get_config(path)
        assert settings is not None
        return settings

    return load


def _from_memory(path: Path, folder: Path) -> Callable[[], Settings]:
    cache = ConfigurationCache(directory=folder)
    cache.load(path)
    return lambda: cache.load(path)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
@pytest.mark.parametrize(
    ("side", "loader"),
    [("parsed", _plain), ("cache on disk", _from_disk), ("cache in memory", _from_memory)],
)
def test_load(
    comparison: Comparison,
    tmp_path: Path,
    suffix: str,
    side: str,
    loader: Callable[[Path, Path], Callable[[], Settings]],
) -> None:
    if suffix == "yaml":
        pytest.importorskip("yaml")
    path = tmp_path / f"config.{suffix}"
    # JSON is valid YAML, but the usual block style takes longer to parse.
    path.write_text(json.dumps(_CONFIG, indent=2) if suffix == "json" else _as_yaml(_CONFIG))
    load = loader(path, tmp_path / "cache")
    assert load() == PlainConfig().load(path)
    comparison.measure(f"load a config in {suffix.upper()}", side, load)


def _as_yaml(value: object, indent: str = "") -> str:
    if not isinstance(value, dict):
        return f" {value}\n"
    lines = "".join(f"{indent}{key}:{_as_yaml(item, indent + '  ')}" for key, item in value.items())
    return f"\n{lines}" if indent else lines
