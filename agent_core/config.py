"""The settings records, and how the environment and the command line override them.

Priority: command line, environment, file (`config_file.py`), defaults.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from agent_core.errors import ConfigError
from agent_core.providers import PROVIDERS, LimitField

AtLeastOne = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Seconds = Annotated[float, Meta(ge=0)]
NotNegativeNumber = Annotated[float, Meta(ge=0)]


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in dollars per million tokens."""

    input: NotNegativeNumber
    output: NotNegativeNumber
    cache_read: NotNegativeNumber | None = None
    """None is the price of input."""
    cache_write: NotNegativeNumber | None = None


class ProviderSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `model_providers`. Its `repr` masks the key."""

    provider: str | None = None
    """The provider's name, if the entry's own name is not in `providers.PROVIDERS`."""
    api_key: str = ""
    model: str = ""
    base_url: str | None = None
    api_version: str | None = None
    protocol: str | None = None
    """The wire protocol, if it is not the provider's default (`openai_chat`, ...)."""
    max_tokens: AtLeastOne = 4096
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: NotNegative | None = None
    parallel_tool_calls: bool = True
    max_retries: NotNegative = 10
    stream: bool = False
    prices: Prices | None = None
    """For the cost that the command line shows. This package knows no prices."""
    limit_field: LimitField | None = None
    """The request field for `max_tokens` in Chat Completions. None is the provider's default."""
    context_window: AtLeastOne | None = None
    """Tokens that the model reads and writes in one request. None if they are not known."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The key, and the credentials and query values in the URL. They must not be displayed."""
        address = split_url(self.base_url or "")
        values = {self.api_key, address.password or "", unquote(address.password or "")}
        values |= {value for _, value in parse_qsl(address.query)}
        return tuple(sorted(values - {""}))

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values["api_key"] = masked(self.api_key)
        values.pop("replaced", None)
        values["base_url"] = self.base_url and strip_credentials(self.base_url)
        return f"ProviderSettings({', '.join(f'{k}={v!r}' for k, v in values.items())})"


class OverriddenProvider(ProviderSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry that lost secrets to the environment or the command line.

    They stay secrets: the tools can still read the file and show them. No file has this record.
    """

    replaced: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(sorted({*super().secrets, *self.replaced}))


class PerformanceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`performance_settings`, with the guide's keys."""

    trajectory_batch_size: AtLeastOne = 5
    trajectory_background_io: bool = True
    max_trajectory_interactions: AtLeastOne | None = None
    connection_pool_size: AtLeastOne = 10
    max_parallel_tools: AtLeastOne = 8
    """Calls of one reply that run at the same time."""
    lazy_tool_loading: bool | None = None
    """None leaves the choice to the toggle `lazy_tools`."""
    config_cache_ttl: Seconds = 3600
    """Seconds a cached configuration is valid. 0 disables the cache."""


class LakeviewSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accepted so that Trae Agent's files load. It has no effect: there is no Lakeview here."""

    model: str | None = None
    model_provider: str | None = None
    model_name: str | None = None


class McpServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of the Model Context Protocol: a command or an address. Its `repr` hides secrets."""

    command: str | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Added to the few variables that a server inherits."""
    cwd: str | None = None
    http_url: str | None = None
    url: str | None = None
    """Another name for `http_url`."""
    headers: dict[str, str] = {}
    timeout: Annotated[float, Meta(gt=0)] = 60
    """Seconds for the start and for each call."""
    # Accepted without effect:
    type: str | None = None
    tcp: str | None = None
    trust: bool | None = None
    description: str | None = None

    @property
    def address(self) -> str | None:
        return self.http_url or self.url

    def __repr__(self) -> str:
        return f"McpServer(command={self.command!r})"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The validated contents of a config file."""

    default_provider: str = "openai"
    max_steps: AtLeastOne = 20
    enable_lakeview: bool = False
    lakeview_config: LakeviewSettings | None = None
    model_providers: dict[str, ProviderSettings] = {}
    performance_settings: PerformanceSettings = PerformanceSettings()
    mcp_servers: dict[str, McpServer] = {}
    """The servers that the file allows."""
    tools: tuple[str, ...] = (
        "bash",
        "str_replace_based_edit_tool",
        "json_edit_tool",
        "sequentialthinking",
        "task_done",
    )

    @property
    def model_parameters(self) -> ProviderSettings:
        """The default provider's entry, or the defaults if the file has none."""
        return self.model_providers.get(self.default_provider, ProviderSettings())

    def with_selected(self, **changes: Any) -> "Settings":
        """A copy with changes to the default provider's entry."""
        entry = msgspec.structs.replace(self.model_parameters, **changes)
        providers = {**self.model_providers, self.default_provider: entry}
        return msgspec.structs.replace(self, model_providers=providers)

    @property
    def provider_kind(self) -> str:
        """The provider to use, a name in `providers.PROVIDERS`.

        Raises `ConfigError` for an unknown provider.
        """
        kind = self.model_parameters.provider or self.default_provider
        if kind not in PROVIDERS:
            raise ConfigError(
                f"Unknown provider {kind!r}.{suggestion(kind, PROVIDERS)} Known: "
                f"{', '.join(PROVIDERS)}. For an entry with another name, set "
                f"model_providers.{self.default_provider}.provider."
            )
        return kind


class Overrides(Struct, frozen=True, kw_only=True):
    """Values from the command line. None keeps the setting."""

    provider: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    max_steps: int | None = None

    def __repr__(self) -> str:
        return f"Overrides(provider={self.provider!r}, model={self.model!r})"


def masked(key: str) -> str:
    """Shows that a key is set, without any part of it."""
    return "****" if key else ""


def strip_credentials(url: str) -> str:
    """`url` without user, password and query, which may be secret."""
    parts = split_url(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def split_url(url: str) -> SplitResult:
    """The parts of `url`, all empty if it cannot be parsed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def is_address(url: str) -> bool:
    """Whether `url` is http or https, names a host, and has a valid port if any."""
    parts = split_url(url)
    try:
        named, port = _is_host(parts.hostname or ""), parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and named and port != 0


def _is_host(name: str) -> bool:
    """Raises `ValueError` for some invalid names."""
    if name.isascii():  # avoids the idna codec, whose tables take a third of a megabyte
        return all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))
    return bool(name.encode("idna"))


def suggestion(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or an empty string if no known word is similar."""
    import difflib  # needed only for error messages

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


# ------------------------------------------------------------ environment and command line

_PERFORMANCE_VARIABLES = {
    "TRAE_CONFIG_CACHE_TTL": "config_cache_ttl",
    "TRAE_TRAJECTORY_BATCH_SIZE": "trajectory_batch_size",
    "TRAE_CONNECTION_POOL_SIZE": "connection_pool_size",
    "TRAE_MAX_PARALLEL_TOOLS": "max_parallel_tools",
    "TRAE_BACKGROUND_IO": "trajectory_background_io",
    "TRAE_LAZY_LOADING": "lazy_tool_loading",
}
_WORDS = {"on": True, "yes": True, "true": True, "1": True}
_WORDS |= {"off": False, "no": False, "false": False, "0": False}


def effective_settings(
    settings: Settings, environ: Mapping[str, str], overrides: Overrides | None = None
) -> Settings:
    """`settings` overridden by `environ`, then by `overrides`.

    In the result, `default_provider` is the selected provider and `model_providers` has its
    complete entry. Raises `ConfigError`.
    """
    overrides = overrides or Overrides()
    selected = overrides.provider or settings.default_provider
    entries = {selected: ProviderSettings(), **settings.model_providers}
    providers = {name: _from_environment(name, entry, environ) for name, entry in entries.items()}
    providers[selected] = _with_values(
        providers[selected],
        model=overrides.model or None,
        base_url=overrides.base_url or None,
        api_key=(overrides.api_key or "").strip() or None,
    )
    providers = {name: _keep_secrets(entries[name], now) for name, now in providers.items()}
    result = _with_values(
        settings,
        default_provider=selected,
        max_steps=overrides.max_steps,
        model_providers=providers,
        performance_settings=_performance(settings.performance_settings, environ),
    )
    if result.max_steps < 1:
        raise ConfigError(f"max_steps is {result.max_steps}; give a number of at least 1.")
    return result


def _keep_secrets(before: ProviderSettings, now: ProviderSettings) -> ProviderSettings:
    """`now`, which still knows the secrets of `before`."""
    lost = set(before.secrets) - set(now.secrets)
    if not lost:
        return now
    values = {name: getattr(now, name) for name in now.__struct_fields__}
    lost |= set(values.pop("replaced", ()))
    return OverriddenProvider(**values, replaced=tuple(sorted(lost)))


def key_variables(settings: Settings) -> set[str]:
    """The environment variables from which a key of `settings` can come."""
    names = {variable for provider in PROVIDERS.values() for variable in provider.key_env}
    return names.union(*(_key_variables(name) for name in settings.model_providers))


def _key_variables(name: str) -> tuple[str, ...]:
    return PROVIDERS[name].key_env if name in PROVIDERS else (f"{_prefix(name)}_API_KEY",)


def _prefix(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


_Record = TypeVar("_Record", bound=Struct)


def _with_values(record: _Record, **changes: Any) -> _Record:
    given = {name: value for name, value in changes.items() if value is not None}
    return msgspec.structs.replace(record, **given)


def _from_environment(
    name: str, entry: ProviderSettings, environ: Mapping[str, str]
) -> ProviderSettings:
    # A key that was read from a file often ends with a newline.
    keys = (environ.get(variable, "").strip() for variable in _key_variables(name))
    parallel = environ.get("TRAE_PARALLEL_TOOLS")
    return _with_values(
        entry,
        api_key=next(filter(None, keys), entry.api_key.strip()),
        base_url=environ.get(f"{_prefix(name)}_BASE_URL") or None,
        parallel_tool_calls=_boolean("TRAE_PARALLEL_TOOLS", parallel) if parallel else None,
    )


def _performance(settings: PerformanceSettings, environ: Mapping[str, str]) -> PerformanceSettings:
    changes: dict[str, Any] = {}
    for variable, field in _PERFORMANCE_VARIABLES.items():
        if value := environ.get(variable):
            boolean = field in ("trajectory_background_io", "lazy_tool_loading")
            given: Any = _boolean(variable, value) if boolean else value
            changes[field] = _performance_field(variable, field, given)
    return _with_values(settings, **changes)


def _performance_field(variable: str, field: str, given: Any) -> Any:
    try:
        return getattr(msgspec.convert({field: given}, PerformanceSettings, strict=False), field)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at")[0]
        raise ConfigError(f"{variable}={given!r}: {reason}; correct or unset it.") from None


def _boolean(variable: str, value: str) -> bool:
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise ConfigError(
            f"{variable}={value!r}: expected true or false; correct or unset it."
        ) from None


def cache_ttl(environ: Mapping[str, str]) -> float | None:
    """`TRAE_CONFIG_CACHE_TTL` in seconds, or None. Needed before any file is read."""
    value = environ.get("TRAE_CONFIG_CACHE_TTL")
    if not value:
        return None
    return float(_performance_field("TRAE_CONFIG_CACHE_TTL", "config_cache_ttl", value))
