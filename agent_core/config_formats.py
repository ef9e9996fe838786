"""The formats of config files: JSON with comments, and YAML.

A reader parses a text and finds the line of a key. It raises `ConfigError` with the line, and
shows no text of the file, which may contain a key.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agent_core.errors import ConfigError, MissingDependencyError


class Reader(Protocol):
    """Reads one format."""

    def parse(self, text: str, path: Path) -> Any:
        """Raises `ConfigError`."""
        ...

    def line(self, text: str, keys: tuple[str, ...]) -> int | None:
        """The line of the key at the path `keys`, or of its last part that exists."""
        ...


def reader_of(path: Path) -> Reader:
    """The reader for the suffix of `path`. A last suffix `.example` is ignored.

    Raises `ConfigError` for an unknown suffix.
    """
    suffix = Path(path.name.removesuffix(".example")).suffix.lower()
    if suffix == ".json":
        return _Json()
    if suffix in (".yaml", ".yml"):
        return _Yaml()
    raise ConfigError(f"{path}: unknown file type; name it .json, .yaml or .yml.")


def decode(data: bytes, path: Path) -> str:
    """The text of `data`. Raises `ConfigError`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the file as UTF-8.") from None


class _Json:
    """JSON with comments: `//`, `/* */`, and `#` at the start of a line."""

    _TOKEN = re.compile(
        r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|^[ \t]*#[^\n]*|[{}\[\],]',
        re.DOTALL | re.MULTILINE,
    )

    def parse(self, text: str, path: Path) -> Any:
        try:
            return msgspec.json.decode(self._plain(text))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"{path}{self._complaint(self._plain(text), error)}") from None

    def _plain(self, text: str) -> str:
        """`text` with comments replaced by spaces, so that line numbers stay the same."""
        if not any(mark in text for mark in ("//", "/*", "#")):
            return text
        return self._TOKEN.sub(lambda match: self._blank(match[0]), text)

    @staticmethod
    def _blank(token: str) -> str:
        return re.sub(r"[^\n]", " ", token) if token.lstrip()[0] in "/#" else token

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
