"""Config files: JSON or YAML, in the guide's shape or in Trae Agent's, to `Settings`.

The suffix says which: `.json`, `.yaml`, `.yml`. JSON may carry `//` and `/* */` comments,
as the guide's examples do; trailing commas stay errors. Trae Agent's shape is known by
its tables `agents` and `models`. A key that is not known is an error, because a misspelt
setting that is silently dropped looks like a setting that does not work.
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
    LakeviewSettings,
    NotNegative,
    PerformanceSettings,
    ProviderSettings,
    Settings,
    Share,
    Temperature,
    suggestion,
)
from agent_core.errors import ConfigError, MissingDependencyError

DEFAULT_FILES = ("trae_config.yaml", "trae_config.yml", "trae_config.json")
"""Where a command line looks when no file is named, in this order."""


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
    top_p: Share | None = None
    top_k: NotNegative | None = None
    max_retries: NotNegative = 10
    parallel_tool_calls: bool = True
    # Read and without effect:
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
"""Which record msgspec was reading, by the path that it reports."""


class _InvalidValue(Exception):
    """A value that cannot stay, and where it stands; becomes a `ConfigError` with its line."""

    def __init__(self, where: tuple[str, ...], message: str) -> None:
        self.where = where
        super().__init__(message)


def _from_trae(file: _TraeFile) -> Settings:
    """The settings that Trae Agent's three-table shape stands for."""
    if file.allow_mcp_servers:
        raise _InvalidValue(
            ("allow_mcp_servers",), "MCP servers are not supported; remove allow_mcp_servers."
        )
    agent = _named(file.agents, "trae_agent", ("agents",), "agent")
    chosen = _named(file.models, agent.model, ("agents", "trae_agent", "model"), "model")
    models = {model.model_provider: model for model in reversed(file.models.values())}
    models[chosen.model_provider] = chosen
    for name, model in file.models.items():
        place = ("models", name, "model_provider")
        _named(file.model_providers, model.model_provider, place, "model provider")
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


def _named(table: Mapping[str, _Entry], name: str, place: tuple[str, ...], what: str) -> _Entry:
    if name not in table:
        known = ", ".join(table) or "none"
        raise _InvalidValue(place, f"No {what} {name!r}.{suggestion(name, table)} Known: {known}.")
    return table[name]


def _merged(entry: _TraeProvider, model: _TraeModel | None) -> ProviderSettings:
    values = msgspec.structs.asdict(entry)
    if model is not None:
        values |= msgspec.structs.asdict(model)
    known = ProviderSettings.__struct_fields__
    return ProviderSettings(**{name: values[name] for name in known if name in values})


# --------------------------------------------------------------------------------- reading


def parse_settings(data: bytes, path: Path) -> Settings:
    """The settings in `data`, the bytes of the file `path`; its suffix says how to read them.

    Raises `ConfigError`, which names file, line, field and remedy and shows no
    key, and `MissingDependencyError` for YAML where PyYAML is not installed.
    """
    text = _decode(data, path)
    reader = _reader(path)
    raw = reader.parse(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected an object with settings, got {type(raw).__name__}.")
    try:
        if "agents" in raw or "models" in raw:
            return _from_trae(_convert(raw, _TraeFile))
        # Trae Agent's JSON may have them, and tokens in them, which nothing here should keep.
        raw.pop("mcp_servers", None)
        return _convert(raw, Settings)
    except _InvalidValue as wrong:
        line = reader.line(text, tuple(re.sub(r"\[\d+\]$", "", part) for part in wrong.where))
        place = f"{path}, line {line}" if line else str(path)
        field = ".".join(wrong.where) or "the top level"
        raise ConfigError(f"{place}, {field}: {wrong}") from None


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
    """What msgspec says, in our words and with the place that it leaves half open."""
    message, _, place = error.partition(" - at `")
    _, is_key, table = place.partition("key` in `")
    pattern = (table if is_key else place).rstrip("`") or "$"
    where: tuple[str, ...] = _where(raw, shape, message, pattern)
    if is_key:
        return _InvalidValue(where, "a key in it is no text; put it in quotes.")
    if message.startswith("Object missing required field"):
        return _InvalidValue(where, f"{message}; add it.")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL)
    if unknown is None:
        return _InvalidValue(where, f"{message}; correct the value.")
    known = _RECORDS[shape][pattern].__struct_fields__
    return _InvalidValue(
        (*where, unknown[1]),
        f"unknown key.{suggestion(unknown[1], known)} Known here: {', '.join(known)}.",
    )


def _where(raw: dict[str, Any], shape: type[Struct], message: str, pattern: str) -> tuple[str, ...]:
    """The path that msgspec means by `pattern`, whose `[...]` stands for a key it does not name.

    The key is found by reading the table again with one entry at a time.
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
        """`text` with blanks for its comments, so that every line keeps its number."""
        if "//" not in text and "/*" not in text:
            return text
        return self._TOKEN.sub(lambda match: self._blank(match[0]), text)

    @staticmethod
    def _blank(token: str) -> str:
        return re.sub(r"[^\n]", " ", token) if token.startswith("/") else token

    @staticmethod
    def _complaint(text: str, error: Exception) -> str:
        import json  # slower than msgspec, but it knows the line: asked only once all is lost

        try:
            json.loads(text)
        except json.JSONDecodeError as found:
            return f", line {found.lineno}, column {found.colno}: not valid JSON: {found.msg}."
        except RecursionError:
            return ": nested too deeply."
        # It takes what JSON does not have (`NaN`); then msgspec says why, and often where.
        problem, _, at = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
        line = text.encode().count(b"\n", 0, int(at.rstrip(")"))) + 1 if at else None
        place = f", line {line}" if line else ""
        return f"{place}: not valid JSON: {problem.partition(' - at')[0]}."

    def line(self, text: str, where: tuple[str, ...]) -> int | None:
        """The line of the key that `where` leads to."""
        wanted = list(where)
        for path, start in self._keys(text):
            if path == wanted:
                return text.count("\n", 0, start) + 1
        return self.line(text, where[:-1]) if where else None

    def _keys(self, text: str) -> Iterator[tuple[list[str], int]]:
        """Every key of every object, with the keys that lead to it."""
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
    """YAML, by PyYAML, which is an extra."""

    def parse(self, text: str, path: Path) -> Any:
        yaml = self._library(path)
        try:
            return yaml.load(text, Loader=self._loader(yaml))
        except yaml.YAMLError as error:
            # Not str(error): it quotes the file around the place, and with it perhaps a key.
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise ConfigError(f"{path}{place}: not valid YAML: {problem}.") from None
        except RecursionError:
            raise ConfigError(f"{path}: nested too deeply.") from None
        except Exception:  # whatever PyYAML's constructors raise for a value not of its tag
            raise ConfigError(f"{path}: not valid YAML: a tag does not fit its value.") from None

    @staticmethod
    def _loader(yaml: Any) -> Any:
        """PyYAML's safe loader, to which a date is text: `api_version: 2024-10-21`."""
        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        resolvers = {
            first: [entry for entry in entries if not entry[0].endswith(":timestamp")]
            for first, entries in base.yaml_implicit_resolvers.items()
        }
        return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})

    @staticmethod
    def _library(path: Path) -> Any:
        try:
            import yaml  # an extra, and slow to import: only for a file that needs it
        except ModuleNotFoundError:
            install = "pip install 'trae-bench[yaml]'"
            raise MissingDependencyError(f"The file {path}", "PyYAML", install) from None
        return yaml

    def line(self, text: str, where: tuple[str, ...]) -> int | None:
        """The line of the key that `where` leads to, or of the last key that is there."""
        import yaml

        node, line = yaml.compose(text, Loader=self._loader(yaml)), None
        for name in where:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            found = [(key, value) for key, value in pairs if key.value == name]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line + 1
        return line


def _reader(path: Path) -> _Json | _Yaml:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _Json()
    if suffix in (".yaml", ".yml"):
        return _Yaml()
    raise ConfigError(f"{path}: unknown kind of file; name it .json, .yaml or .yml.")


def read_config_file(path: Path) -> tuple[bytes, int]:
    """The bytes of one coherent state of `path`, and its mtime in ns. Raises `ConfigError`.

    The file is looked at before and after it is read, through the one open descriptor;
    where it changed meanwhile it is read again.
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
    raise ConfigError(f"{path}: is being written again and again; try once it is at rest.")


def location_of(path: Path, *ways: tuple[str, ...]) -> str:
    """Where a setting stands, to begin an error with: the first of `ways` that `path` has."""
    reader, text = _reader(path), _decode(read_config_file(path)[0], path)
    for way in ways:
        if line := reader.line(text, way):
            return f"{path}, line {line}, {'.'.join(way)}: "
    return f"{path}: "


def find_config_file(environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file that `TRAE_CONFIG_FILE` names, else the first of `DEFAULT_FILES` in `folder`."""
    if named := environ.get("TRAE_CONFIG_FILE"):
        return Path(named)
    return next((path for name in DEFAULT_FILES if (path := folder / name).is_file()), None)
