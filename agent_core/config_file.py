"""Reads config files: JSON or YAML, in the guide's or Trae Agent's shape, into `Settings`.

The suffix (`.json`, `.yaml`, `.yml`) selects the format. JSON may contain `//` and `/* */`
comments, as in the guide; trailing commas are errors. Trae Agent's shape has the tables
`agents` and `models`. An unknown key is an error, because a misspelt setting would
otherwise be ignored silently.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from agent_core.config import (
    AtLeastOne,
    Fraction,
    LakeviewSettings,
    NotNegative,
    PerformanceSettings,
    ProviderSettings,
    Settings,
    Temperature,
    suggestion,
)
from agent_core.errors import ConfigError, MissingDependencyError

DEFAULT_FILES = ("trae_config.yaml", "trae_config.yml", "trae_config.json")
"""Files that the command line looks for if none is named, in this order."""


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
    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: NotNegative | None = None
    max_retries: NotNegative = 10
    parallel_tool_calls: bool = True
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
    mcp_servers: dict[str, Any] | None = None
    allow_mcp_servers: tuple[str, ...] = ()


_Shape = TypeVar("_Shape", Settings, _TraeFile)

_RECORDS: dict[type[Struct], dict[str, type[Struct]]] = {
    Settings: {
        "$": Settings,
        "$.model_providers[...]": ProviderSettings,
        "$.performance_settings": PerformanceSettings,
        "$.lakeview_config": LakeviewSettings,
    },
    _TraeFile: {
        "$": _TraeFile,
        "$.agents[...]": _TraeAgent,
        "$.model_providers[...]": _TraeProvider,
        "$.models[...]": _TraeModel,
        "$.performance_settings": PerformanceSettings,
        "$.lakeview": LakeviewSettings,
    },
}
"""The record that msgspec reads, by the path in its error message."""


class _InvalidValue(Exception):
    """An invalid value and its path. Becomes a `ConfigError` with a line number."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        self.path = path
        super().__init__(message)


def _from_trae(file: _TraeFile) -> Settings:
    """Converts Trae Agent's three-table shape."""
    if file.allow_mcp_servers:
        raise _InvalidValue(
            ("allow_mcp_servers",), "MCP servers are not supported; remove allow_mcp_servers."
        )
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
        **tools,
    )


_Entry = TypeVar("_Entry")


def _lookup(table: Mapping[str, _Entry], name: str, path: tuple[str, ...], what: str) -> _Entry:
    if name not in table:
        known = ", ".join(table) or "none"
        raise _InvalidValue(path, f"No {what} {name!r}.{suggestion(name, table)} Known: {known}.")
    return table[name]


def _merged(entry: _TraeProvider, model: _TraeModel | None) -> ProviderSettings:
    values = msgspec.structs.asdict(entry)
    if model is not None:
        values |= msgspec.structs.asdict(model)
    known = ProviderSettings.__struct_fields__
    return ProviderSettings(**{name: values[name] for name in known if name in values})


# --------------------------------------------------------------------------------- reading


def parse_settings(data: bytes, path: Path) -> Settings:
    """The settings in `data`, the contents of the file `path`. Its suffix selects the format.

    Raises `ConfigError`, which names file, line, field and remedy and shows no key. Raises
    `MissingDependencyError` for YAML if PyYAML is not installed.
    """
    text = _decode(data, path)
    reader = _reader(path)
    raw = reader.parse(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected an object with settings, got {type(raw).__name__}.")
    try:
        if "agents" in raw or "models" in raw:
            return _from_trae(_convert(raw, _TraeFile))
        # Trae Agent's JSON may have MCP servers with tokens. Do not keep them.
        raw.pop("mcp_servers", None)
        return _convert(raw, Settings)
    except _InvalidValue as error:
        line = reader.line(text, tuple(re.sub(r"\[\d+\]$", "", part) for part in error.path))
        place = f"{path}, line {line}" if line else str(path)
        field = ".".join(error.path) or "the top level"
        raise ConfigError(f"{place}, {field}: {error}") from None


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the file as UTF-8.") from None


def _convert(raw: dict[str, Any], shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        raise _invalid_value(str(error), raw, shape) from None


def _invalid_value(error: str, raw: dict[str, Any], shape: type[_Shape]) -> _InvalidValue:
    """Translates msgspec's message and completes its path."""
    message, _, place = error.partition(" - at `")
    _, is_key, table = place.partition("key` in `")
    pattern = (table if is_key else place).rstrip("`") or "$"
    path: tuple[str, ...] = _complete_path(raw, shape, message, pattern)
    if is_key:
        return _InvalidValue(path, "a key in it is not a string; put it in quotes.")
    if message.startswith("Object missing required field"):
        return _InvalidValue(path, f"{message}; add it.")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL)
    if unknown is None:
        return _InvalidValue(path, f"{message}; correct the value.")
    known = _RECORDS[shape][pattern].__struct_fields__
    return _InvalidValue(
        (*path, unknown[1]),
        f"unknown key.{suggestion(unknown[1], known)} Known here: {', '.join(known)}.",
    )


def _complete_path(
    raw: dict[str, Any], shape: type[Struct], message: str, pattern: str
) -> tuple[str, ...]:
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


# --------------------------------------------------------------------------------- formats


class _Json:
    """JSON with comments."""

    _TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|[{}\[\],]', re.DOTALL)

    def parse(self, text: str, path: Path) -> Any:
        try:
            return msgspec.json.decode(self._plain(text))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"{path}{self._complaint(self._plain(text), error)}") from None

    def _plain(self, text: str) -> str:
        """`text` with comments replaced by spaces, so that line numbers stay the same."""
        if "//" not in text and "/*" not in text:
            return text
        return self._TOKEN.sub(lambda match: self._blank(match[0]), text)

    @staticmethod
    def _blank(token: str) -> str:
        return re.sub(r"[^\n]", " ", token) if token.startswith("/") else token

    @staticmethod
    def _complaint(text: str, error: Exception) -> str:
        import json  # slower than msgspec, but reports the line

        try:
            json.loads(text)
        except json.JSONDecodeError as bad:
            return f", line {bad.lineno}, column {bad.colno}: not valid JSON: {bad.msg}."
        except RecursionError:
            return ": nested too deeply."
        # `json` accepts `NaN`, which is not JSON. msgspec gives the reason and often the place.
        problem, _, at = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        line = text.encode().count(b"\n", 0, int(at.rstrip(")"))) + 1 if at else None
        place = f", line {line}" if line else ""
        return f"{place}: not valid JSON: {problem.partition(' - at')[0]}."

    def line(self, text: str, keys: tuple[str, ...]) -> int | None:
        """The line of the key at the path `keys`."""
        wanted = list(keys)
        for path, start in self._keys(text):
            if path == wanted:
                return text.count("\n", 0, start) + 1
        return self.line(text, keys[:-1]) if keys else None

    def _keys(self, text: str) -> Iterator[tuple[list[str], int]]:
        """Every key of every object: its path and its position in `text`."""
        path: list[str] = []
        for match in self._TOKEN.finditer(text):
            token = match[0]
            if token in "{[":
                path.append("")
            elif token in "}]":
                del path[-1:]
            elif token.startswith('"') and path and text[match.end() :].lstrip()[:1] == ":":
                path[-1] = str(msgspec.json.decode(token))
                yield list(path), match.start()


class _Yaml:
    """YAML. Needs PyYAML, which is an extra."""

    def parse(self, text: str, path: Path) -> Any:
        yaml = self._library(path)
        try:
            return yaml.load(text, Loader=self._loader(yaml))
        except yaml.YAMLError as error:
            # Not str(error), which quotes the surrounding text and with it perhaps a key.
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise ConfigError(f"{path}{place}: not valid YAML: {problem}.") from None
        except RecursionError:
            raise ConfigError(f"{path}: nested too deeply.") from None
        except Exception:  # PyYAML's constructors raise anything for a value of the wrong tag
            raise ConfigError(f"{path}: not valid YAML: a tag does not fit its value.") from None

    @staticmethod
    def _loader(yaml: Any) -> Any:
        """PyYAML's safe loader, but it reads a date as text: `api_version: 2024-10-21`."""
        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        resolvers = {
            first: [entry for entry in entries if not entry[0].endswith(":timestamp")]
            for first, entries in base.yaml_implicit_resolvers.items()
        }
        return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})

    @staticmethod
    def _library(path: Path) -> Any:
        try:
            import yaml  # optional and slow to import
        except ModuleNotFoundError:
            install = "pip install 'trae-bench[yaml]'"
            raise MissingDependencyError(f"The file {path}", "PyYAML", install) from None
        return yaml

    def line(self, text: str, keys: tuple[str, ...]) -> int | None:
        """The line of the key at the path `keys`, or of its last part that exists."""
        import yaml

        node, line = yaml.compose(text, Loader=self._loader(yaml)), None
        for name in keys:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            matches = [(key, value) for key, value in pairs if key.value == name]
            if not matches:
                break
            key, node = matches[-1]
            line = key.start_mark.line + 1
        return line


def _reader(path: Path) -> _Json | _Yaml:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _Json()
    if suffix in (".yaml", ".yml"):
        return _Yaml()
    raise ConfigError(f"{path}: unknown file type; name it .json, .yaml or .yml.")


def read_config_file(path: Path) -> tuple[bytes, int]:
    """The bytes of one consistent state of `path`, and its mtime in ns.

    Compares the status of the open file before and after reading, and reads again if it
    changed. Raises `ConfigError`.
    """
    try:
        for _ in range(8):
            with path.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                data = file.read()
                after = os.fstat(file.fileno())
            if len(data) == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
                return data, after.st_mtime_ns
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{path}: cannot be read ({reason}); check --config or TRAE_CONFIG_FILE."
        ) from None
    raise ConfigError(f"{path}: keeps changing while it is read; try again later.")


def location_of(path: Path, *candidates: tuple[str, ...]) -> str:
    """A prefix for an error: the file, and line and path of the first of `candidates` in it."""
    reader, text = _reader(path), _decode(read_config_file(path)[0], path)
    for candidate in candidates:
        if line := reader.line(text, candidate):
            return f"{path}, line {line}, {'.'.join(candidate)}: "
    return f"{path}: "


def find_config_file(environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file named by `TRAE_CONFIG_FILE`, else the first of `DEFAULT_FILES` in `folder`."""
    if named := environ.get("TRAE_CONFIG_FILE"):
        return Path(named)
    return next((path for name in DEFAULT_FILES if (path := folder / name).is_file()), None)
