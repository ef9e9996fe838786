"""The settings records; parse, validate, environment overrides."""

from msgspec import Struct


class ProviderSettings(Struct, frozen=True, kw_only=True):
    """One entry of `model_providers`."""

    api_key: str = ""
    model: str = ""
    base_url: str | None = None
    api_version: str | None = None
    protocol: str | None = None
    """Wire protocol, where it is not the provider's usual one (`openai_chat`, ...)."""
    max_tokens: int = 4096
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    parallel_tool_calls: bool = True
    max_retries: int = 10
    stream: bool = False


class PerformanceSettings(Struct, frozen=True, kw_only=True):
    """`performance_settings`: the guide's keys, each in force."""

    trajectory_batch_size: int = 5
    trajectory_background_io: bool = True
    max_trajectory_interactions: int | None = None
    connection_pool_size: int = 10
    lazy_tool_loading: bool | None = None
    config_cache_ttl: float = 3600


class Settings(Struct, frozen=True, kw_only=True):
    """A whole config file, validated."""

    default_provider: str = "openai"
    max_steps: int = 20
    enable_lakeview: bool = False
    model_providers: dict[str, ProviderSettings] = {}
    performance_settings: PerformanceSettings = PerformanceSettings()
    tools: tuple[str, ...] = (
        "bash",
        "str_replace_based_edit_tool",
        "json_edit_tool",
        "sequentialthinking",
        "task_done",
    )
