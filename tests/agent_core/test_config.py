"""The effective settings, and the masking of keys."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.config import (
    Overrides,
    PerformanceSettings,
    ProviderSettings,
    Settings,
    cache_ttl,
    effective_settings,
    is_address,
    strip_credentials,
)
from agent_core.errors import ConfigError
from agent_core.providers import PROVIDERS

FILE = Settings(
    default_provider="anthropic",
    model_providers={
        "anthropic": ProviderSettings(
            api_key="your_key", model="claude", max_tokens=4096, parallel_tool_calls=False
        ),
        "openai": ProviderSettings(api_key="your_key", model="gpt-4o"),
    },
    performance_settings=PerformanceSettings(
        trajectory_batch_size=7,
        trajectory_background_io=False,
        connection_pool_size=11,
        lazy_tool_loading=False,
        config_cache_ttl=60,
    ),
)
"""Settings of a file."""


# -------------------------------------------------------------------------------- secrets


def test_repr_shows_no_key_and_no_password() -> None:
    entry = ProviderSettings(
        api_key="sk-planted", base_url="https://user:sk-planted@host/v1?key=sk-planted"
    )
    settings = Settings(model_providers={"openai": entry})
    for shown in (entry, settings, Overrides(api_key="sk-planted", base_url=entry.base_url)):
        assert "sk-planted" not in repr(shown)
        assert "sk-planted" not in str(shown)
    assert "api_key='****'" in repr(entry)
    assert "https://host/v1" in repr(entry)


def test_url_without_credentials_is_unchanged() -> None:
    assert strip_credentials("http://127.0.0.1:8/v1/a@b") == "http://127.0.0.1:8/v1/a@b"
    assert strip_credentials("http://[::1]:8/v1") == "http://[::1]:8/v1"
    assert strip_credentials("http://[broken/sk-planted") == ""


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (None, {"key"}),
        ("http://host/v1", {"key"}),
        ("http://user:p%40ss@host/v1?key=abc&version=2", {"key", "p%40ss", "p@ss", "abc", "2"}),
        ("http://[broken", {"key"}),
    ],
)
def test_secrets_of_an_entry(url: str | None, secrets: set[str]) -> None:
    assert set(ProviderSettings(api_key="key", base_url=url).secrets) == secrets
    assert ProviderSettings().secrets == ()


# --------------------------------------------------------- environment and command line


def test_command_line_overrides_environment_overrides_file() -> None:
    settings = FILE
    environ = {"ANTHROPIC_API_KEY": "from-env", "ANTHROPIC_BASE_URL": "http://env"}

    assert effective_settings(settings, {}).model_parameters.api_key == "your_key"
    assert effective_settings(settings, environ).model_parameters.api_key == "from-env"
    assert effective_settings(settings, environ).model_parameters.base_url == "http://env"
    overrides = Overrides(api_key="override", base_url="http://override", model="m", max_steps=3)
    result = effective_settings(settings, environ, overrides)
    assert result.model_parameters.api_key == "override"
    assert result.model_parameters.base_url == "http://override"
    assert (result.model_parameters.model, result.max_steps) == ("m", 3)
    assert result.model_parameters.max_tokens == 4096, "other settings are unchanged"


@pytest.mark.parametrize(
    ("provider", "variable"),
    [(name, variable) for name in PROVIDERS for variable in PROVIDERS[name].key_env],
)
def test_every_provider_reads_key_and_url_from_its_variables(provider: str, variable: str) -> None:
    environ = {variable: "key", f"{provider.upper()}_BASE_URL": "http://url"}
    result = effective_settings(Settings(), environ, Overrides(provider=provider))
    assert result.default_provider == result.provider_kind == provider
    assert result.model_parameters.api_key == "key"
    assert result.model_parameters.base_url == "http://url"


def test_variables_of_one_entry_do_not_affect_another() -> None:
    gateway = ProviderSettings(provider="openai", base_url="http://elsewhere")
    settings = Settings(default_provider="my-gateway", model_providers={"my-gateway": gateway})
    result = effective_settings(
        settings, {"OPENAI_API_KEY": "secret", "OPENAI_BASE_URL": "http://o"}
    )
    assert result.model_parameters == gateway
    assert effective_settings(settings, {"MY_GATEWAY_API_KEY": "k"}).model_parameters.api_key == "k"


def test_key_is_stripped() -> None:
    settings = Settings(model_providers={"openai": ProviderSettings(api_key="in-file\n")})
    assert effective_settings(settings, {}).model_parameters.api_key == "in-file"
    environ = {"OPENAI_API_KEY": "in-environment\r\n"}
    assert effective_settings(settings, environ).model_parameters.api_key == "in-environment"
    assert (
        effective_settings(settings, {"OPENAI_API_KEY": "\n"}).model_parameters.api_key == "in-file"
    )
    overrides = Overrides(api_key=" override\n")
    assert effective_settings(settings, environ, overrides).model_parameters.api_key == "override"


@pytest.mark.parametrize(
    ("url", "whether"),
    [
        ("http://localhost:8/v1?a=b", True),
        ("https://[::1]/", True),
        ("http://ä.example", True),
        ("http://127.0.0.1:99999999/v1", False),
        ("http://host:port", False),
        ("http:///v1", False),
        ("http://ä..b/v1", False),
        ("http://host./v1", True),
        ("http://a..b/v1", False),
        (f"http://{'a' * 63}.b", True),
        (f"http://{'a' * 64}.b", False),
        ("http://[broken", False),
        ("ftp://host", False),
        ("", False),
    ],
)
def test_address_validation(url: str, whether: bool) -> None:
    assert is_address(url) is whether


@given(st.text("ab.-", max_size=8))
def test_ascii_host_check_agrees_with_the_idna_codec(host: str) -> None:
    try:
        named = bool(host.encode("idna"))
    except UnicodeError:
        named = False
    assert is_address(f"http://{host}/") is named


def test_ascii_host_does_not_import_the_idna_codec() -> None:
    code = "import sys, agent_core.config as c; c.is_address('http://a.b/v1'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "encodings.idna" not in loaded.stdout.split()


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("TRAE_CONFIG_CACHE_TTL", "12.5", "config_cache_ttl", 12.5),
        ("TRAE_TRAJECTORY_BATCH_SIZE", "9", "trajectory_batch_size", 9),
        ("TRAE_CONNECTION_POOL_SIZE", "3", "connection_pool_size", 3),
        ("TRAE_MAX_PARALLEL_TOOLS", "3", "max_parallel_tools", 3),
        ("TRAE_BACKGROUND_IO", "false", "trajectory_background_io", False),
        ("TRAE_BACKGROUND_IO", "ON", "trajectory_background_io", True),
        ("TRAE_LAZY_LOADING", "0", "lazy_tool_loading", False),
        ("TRAE_LAZY_LOADING", "yes", "lazy_tool_loading", True),
    ],
)
def test_every_performance_variable_of_the_guide_has_an_effect(
    variable: str, value: str, field: str, expected: object
) -> None:
    settings = FILE
    result = effective_settings(settings, {variable: value}).performance_settings
    assert getattr(result, field) == expected
    untouched = effective_settings(settings, {variable: ""}).performance_settings
    assert untouched == settings.performance_settings, "an empty variable has no effect"


def test_trae_parallel_tools_overrides_every_provider() -> None:
    settings = FILE
    assert effective_settings(
        settings, {"TRAE_PARALLEL_TOOLS": "true"}
    ).model_parameters.parallel_tool_calls
    off = effective_settings(
        settings, {"TRAE_PARALLEL_TOOLS": "false"}, Overrides(provider="ollama")
    )
    assert not off.model_parameters.parallel_tool_calls
    assert not off.model_providers["openai"].parallel_tool_calls


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRAE_TRAJECTORY_BATCH_SIZE", "many"),
        ("TRAE_TRAJECTORY_BATCH_SIZE", "0"),
        ("TRAE_CONFIG_CACHE_TTL", "-1"),
        ("TRAE_CONNECTION_POOL_SIZE", "1.5"),
        ("TRAE_PARALLEL_TOOLS", "perhaps"),
        ("TRAE_LAZY_LOADING", "2"),
    ],
)
def test_invalid_variable_is_reported_with_its_value(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}='{value}'.*correct or unset it"):
        effective_settings(Settings(), {variable: value})


def test_invalid_overrides_are_errors() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        effective_settings(Settings(), {}, Overrides(max_steps=0))
    chosen = effective_settings(Settings(), {}, Overrides(provider="opnai"))
    with pytest.raises(ConfigError, match="Did you mean 'openai'"):
        _ = chosen.provider_kind


def test_cache_ttl_needs_no_file() -> None:
    assert cache_ttl({}) is None
    assert cache_ttl({"TRAE_CONFIG_CACHE_TTL": "5"}) == 5.0
    with pytest.raises(ConfigError, match="TRAE_CONFIG_CACHE_TTL"):
        cache_ttl({"TRAE_CONFIG_CACHE_TTL": "soon"})
