"""The shapes of config files, and their conversion to `Settings`.

A file has the guide's shape, which is that of `Settings`, or Trae Agent's shape with the tables
`agents` and `models`. An unknown key is an error, because a misspelt setting would otherwise be
ignored silently. A known key without effect here gives a note.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from agent_core.config import (
    AtLeastOne,
    Fraction,
    LakeviewSettings,
    McpServer,
    NotNegative,
    PerformanceSettings,
    Prices,
    ProviderSettings,
    Settings,
    Temperature,
    suggestion,
)

Keys = tuple[str, ...]
"""The keys that lead to a value."""


class InvalidValue(Exception):
    """An invalid value and its path. Becomes a `ConfigError` with a line number."""

    def __init__(self, path: Keys, message: str) -> None:
        self.path = path
        super().__init__(message)


# ---------------------------------------------------------------------- the guide's shape


class _GuideProvider(ProviderSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_completion_tokens: AtLeastOne | None = None
    # Accepted without effect:
    supports_tool_calling: bool = True
    candidate_count: int | None = None
    stop_sequences: tuple[str, ...] | None = None


class _GuideFile(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model_providers: dict[str, _GuideProvider] = msgspec.field(  # type: ignore[assignment]
        default_factory=dict
    )
    allow_mcp_servers: tuple[str, ...] = ()
    # The guide also shows these outside any entry. They are the defaults of all entries.
    max_tokens: AtLeastOne | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: NotNegative | None = None
    parallel_tool_calls: bool | None = None
    max_retries: NotNegative | None = None


_SHARED = ("max_tokens", "temperature", "top_p", "top_k", "parallel_tool_calls", "max_retries")


def _from_guide(file: _GuideFile, raw: dict[str, Any]) -> Settings:
    shared = {name: getattr(file, name) for name in _SHARED if getattr(file, name) is not None}
    given: Mapping[str, Mapping[str, Any]] = raw.get("model_providers", {})
    entries: dict[str, _GuideProvider] = dict(file.model_providers)
    if shared:
        entries.setdefault(file.default_provider, _GuideProvider())
    values = {name: getattr(file, name) for name in Settings.__struct_fields__}
    values["model_providers"] = {
        name: _merged(entry, {key: shared[key] for key in shared if key not in given.get(name, ())})
        for name, entry in entries.items()
    }
    return Settings(**values)


# --------------------------------------------------------------------- Trae Agent's shape


class _TraeProvider(Struct, frozen=True, forbid_unknown_fields=True):
    api_key: str = ""
    provider: str | None = None
    base_url: str | None = None
    api_version: str | None = None


class _TraeModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model_provider: str
    model: str
    max_tokens: AtLeastOne = 4096
    max_completion_tokens: AtLeastOne | None = None
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: NotNegative | None = None
    max_retries: NotNegative = 10
    parallel_tool_calls: bool = True
    prices: Prices | None = None
    # Accepted without effect:
    supports_tool_calling: bool = True
    candidate_count: int | None = None
    stop_sequences: tuple[str, ...] | None = None


class _TraeAgent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    max_steps: AtLeastOne = 20
    tools: tuple[str, ...] | None = None
    enable_lakeview: bool = False


class _TraeFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    agents: dict[str, _TraeAgent]
    model_providers: dict[str, _TraeProvider]
    models: dict[str, _TraeModel]
    performance_settings: PerformanceSettings = PerformanceSettings()
    lakeview: LakeviewSettings | None = None
    mcp_servers: dict[str, McpServer] = {}
    allow_mcp_servers: tuple[str, ...] = ()


_Shape = TypeVar("_Shape", _GuideFile, _TraeFile)

_RECORDS: dict[type[Struct], dict[str, type[Struct]]] = {
    _GuideFile: {
        "$": _GuideFile,
        "$.model_providers[...]": _GuideProvider,
        "$.model_providers[...].prices": Prices,
        "$.performance_settings": PerformanceSettings,
        "$.lakeview_config": LakeviewSettings,
        "$.mcp_servers[...]": McpServer,
    },
    _TraeFile: {
        "$": _TraeFile,
        "$.agents[...]": _TraeAgent,
        "$.model_providers[...]": _TraeProvider,
        "$.models[...]": _TraeModel,
        "$.models[...].prices": Prices,
        "$.performance_settings": PerformanceSettings,
        "$.lakeview": LakeviewSettings,
        "$.mcp_servers[...]": McpServer,
    },
}
"""The record that msgspec reads, by the path in its error message."""


def _from_trae(file: _TraeFile) -> Settings:
    """Converts Trae Agent's three-table shape."""
    agent = _lookup(file.agents, "trae_agent", ("agents",), "agent")
    chosen = _lookup(file.models, agent.model, ("agents", "trae_agent", "model"), "model")
    models = {model.model_provider: model for model in reversed(file.models.values())}
    models[chosen.model_provider] = chosen
    for name, model in file.models.items():
        path = ("models", name, "model_provider")
        _lookup(file.model_providers, model.model_provider, path, "model provider")
    providers = {
        name: _merged(entry, models.get(name)) for name, entry in file.model_providers.items()
    }
    tools = {} if agent.tools is None else {"tools": agent.tools}
    return Settings(
        default_provider=chosen.model_provider,
        max_steps=agent.max_steps,
        enable_lakeview=agent.enable_lakeview,
        lakeview_config=file.lakeview,
        model_providers=providers,
        performance_settings=file.performance_settings,
        mcp_servers=file.mcp_servers,
        **tools,
    )


_Entry = TypeVar("_Entry")


def _lookup(table: Mapping[str, _Entry], name: str, path: tuple[str, ...], what: str) -> _Entry:
    if name not in table:
        known = ", ".join(table) or "none"
        raise InvalidValue(path, f"No {what} {name!r}.{suggestion(name, table)} Known: {known}.")
    return table[name]


def _merged(entry: Struct, *more: Struct | Mapping[str, Any] | None) -> ProviderSettings:
    """One entry from several records. Later values win."""
    values: dict[str, Any] = {}
    for part in (entry, *more):
        if part is not None:
            values |= msgspec.structs.asdict(part) if isinstance(part, Struct) else part
    # Like Trae Agent, which prefers the newer name.
    values["max_tokens"] = values.get("max_completion_tokens") or values.get("max_tokens") or 4096
    known = ProviderSettings.__struct_fields__
    return ProviderSettings(**{name: values[name] for name in known if name in values})


# ---------------------------------------------------------------------------- conversion


def settings_of(raw: dict[str, Any]) -> Settings:
    """The settings in the contents of a file. Raises `InvalidValue`."""
    raw = _with_allowed_servers(raw)
    if "agents" in raw or "models" in raw:
        settings = _from_trae(_convert(raw, _TraeFile))
    else:
        settings = _from_guide(_convert(raw, _GuideFile), raw)
    for name, server in settings.mcp_servers.items():
        if not (server.command or server.address):
            raise InvalidValue(("mcp_servers", name), "give a command or an http_url.")
    return settings


def _with_allowed_servers(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` without the MCP servers that are not used. Their tokens are not kept."""
    servers, allowed = raw.get("mcp_servers"), raw.get("allow_mcp_servers") or []
    if not isinstance(servers or {}, dict) or not isinstance(allowed, list):
        return raw
    kept = {name: value for name, value in (servers or {}).items() if name in allowed}
    for name in allowed:
        if isinstance(name, str):
            _lookup(kept, name, ("allow_mcp_servers",), "MCP server")
    return {**raw, "mcp_servers": kept}


def notes_on(raw: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """What a valid file sets without effect: the path, and a sentence."""
    for path in _LAKEVIEW:
        value = _value(raw, path)
        if any(value.values()) if isinstance(value, dict) else value:
            yield path, "no effect; there is no Lakeview here."
    for name in _value(raw, ("agents",)) or ():
        if name != "trae_agent":
            yield ("agents", name), "no effect; only trae_agent is used."
    for table in ("models", "model_providers"):
        for name, entry in (_value(raw, (table,)) or {}).items():
            for key, harmless in _UNSUPPORTED.items():
                if entry.get(key, None) not in harmless:
                    yield (table, name, key), "no effect; this agent does not send it."
    for name, server in (_value(raw, ("mcp_servers",)) or {}).items():
        if name not in (raw.get("allow_mcp_servers") or ()):
            yield ("mcp_servers", name), "not started; add its name to allow_mcp_servers."
        elif server.get("trust") or server.get("tcp"):
            yield ("mcp_servers", name), "`trust` and `tcp` have no effect."


_LAKEVIEW: tuple[Keys, ...] = (
    ("enable_lakeview",),
    ("lakeview_config",),
    ("lakeview",),
    ("agents", "trae_agent", "enable_lakeview"),
)
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "supports_tool_calling": (None, True),
    "candidate_count": (None, 1),
    "stop_sequences": (None, []),
}
"""The keys without effect, and the values for which this makes no difference."""


def _value(raw: Any, path: Keys) -> Any:
    for key in path:
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


def _convert(raw: dict[str, Any], shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        raise _invalid_value(str(error), raw, shape) from None


def _invalid_value(error: str, raw: dict[str, Any], shape: type[_Shape]) -> InvalidValue:
    """Translates msgspec's message and completes its path."""
    message, _, place = error.partition(" - at `")
    _, is_key, table = place.partition("key` in `")
    pattern = (table if is_key else place).rstrip("`") or "$"
    path: Keys = _complete_path(raw, shape, message, pattern)
    if is_key:
        return InvalidValue(path, "a key in it is not a string; put it in quotes.")
    if message.startswith("Object missing required field"):
        return InvalidValue(path, f"{message}; add it.")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL)
    if unknown is None:
        return InvalidValue(path, f"{message}; correct the value.")
    known = _RECORDS[shape][pattern].__struct_fields__
    return InvalidValue(
        (*path, unknown[1]),
        f"unknown key.{suggestion(unknown[1], known)} Known here: {', '.join(known)}.",
    )


def _complete_path(raw: dict[str, Any], shape: type[Struct], message: str, pattern: str) -> Keys:
    """The path that msgspec means by `pattern`, which has `[...]` in place of a key.

    Finds the key by converting the table with one entry at a time.
    """
    table, hidden, rest = pattern.removeprefix("$").strip(".").partition("[...]")
    if not hidden:
        return tuple(part for part in table.split(".") if part)
    for key, value in raw[table].items():
        try:
            msgspec.convert({**raw, table: {key: value}}, shape)
        except msgspec.ValidationError as error:
            if str(error).startswith(message):
                return (table, str(key), *(part for part in rest.split(".") if part))
    return (table,)
