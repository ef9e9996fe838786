"""JSONPath (RFC 9535) for `json_edit_tool`, evaluated by python-jsonpath.

A path that only names keys and indexes needs no library, whose import takes 35 ms of CPU
time. In such a path, an unquoted name may have any characters, such as `$.scripts.build:all`.
"""

import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from agent_core.errors import ToolError

Key = str | int

_STEP = re.compile(
    r"""\.?\[(?P<index>-?\d+)\] | \.(?P<name>[^.\[\]*?()'"\s]+)
      | (?:\.?\[|\.)(?:'(?P<single>(?:[^'\\]|\\.)*)'|"(?P<double>(?:[^"\\]|\\.)*)")\]?""",
    re.VERBOSE,
)


class Place(Struct, frozen=True):
    """One existing child of a container."""

    parent: Any
    key: Key

    def value(self) -> Any:
        return self.parent[self.key]


class JsonPath(Struct, frozen=True):
    """A parsed path."""

    text: str
    """It begins with `$`."""
    keys: tuple[Key, ...] | None
    """The keys and indexes of a path that consists of nothing else. Empty for the root."""

    def is_single(self) -> bool:
        """Whether the path can match one place at most."""
        return self.keys is not None

    def find(self, data: Any) -> list[Any]:
        """The values at the path. Raises `ToolError` for an invalid path."""
        return [data] if self.keys == () else [place.value() for place in self.places(data)]

    def places(self, data: Any) -> list[Place]:
        """The places at the path, each once, the root excluded. Raises `ToolError`."""
        found = [self.keys] if self.keys is not None else _evaluated(self.text, data)
        places = [place for keys in found if (place := _place(data, keys)) is not None]
        return list({(id(place.parent), place.key): place for place in places}.values())

    def split(self) -> tuple["JsonPath", Key]:
        """The path of the container, and the last key or index. Raises `ToolError`."""
        if self.keys:
            return JsonPath(self.text, self.keys[:-1]), self.keys[-1]
        for step in _STEP.finditer(self.text):
            if step.end() == len(self.text) and self.text[step.start() - 1] != ".":
                return parse(self.text[: step.start()]), _key(step)
        raise ToolError("'add' needs a key or an index at the end of json_path.")


def parse(path: str) -> JsonPath:
    """The parsed `path`, which may omit `$`. The library checks the others at their use."""
    text = path.strip()
    if not text.startswith("$"):
        text = f"${text}" if text[:1] in (".", "[", "") else f"$.{text}"
    keys: list[Key] = []
    at = 1
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            return JsonPath(text, None)
        keys.append(_key(step))
        at = step.end()
    return JsonPath(text, tuple(keys))


def _key(step: re.Match[str]) -> Key:
    kind = str(step.lastgroup)
    if kind == "index":
        return int(step["index"])
    return step["name"] if kind == "name" else re.sub(r"\\(.)", r"\1", step[kind])


def _evaluated(text: str, data: Any) -> Iterable[tuple[Key, ...]]:
    import jsonpath  # see the module's docstring

    if not isinstance(data, dict | list):
        data = []  # the library would parse a string as JSON
    try:
        query = jsonpath.compile(text, strict=True)
        return [match.parts for match in query.finditer(_with_numbers(data))]
    except (jsonpath.JSONPathError, RecursionError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ToolError(f"json_path '{text}' cannot be used: {reason}.") from None


def _with_numbers(data: Any) -> Any:
    """A copy of `data` for filters, which compare numbers and not their spellings."""
    if isinstance(data, dict):
        return {key: _with_numbers(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_with_numbers(value) for value in data]
    return data if type(data) is not NumberText else data.number()


class NumberText(str):
    """A number as spelled in the file, because a float may not preserve it (`1e400`)."""

    def number(self) -> int | float:
        try:
            return int(self)
        except ValueError:  # not an integer, or one with too many digits
            return float(self)


def _place(data: Any, keys: tuple[Key, ...]) -> Place | None:
    """The place at `keys`. None if it does not exist."""
    if not keys:
        return None
    for key in keys[:-1]:
        if _existing(data, key) is None:
            return None
        data = data[key]
    last = _existing(data, keys[-1])
    return None if last is None else Place(data, last)


def _existing(container: Any, key: Key) -> Key | None:
    """`key`, as an index from the start in an array. None if `container` has no such key."""
    if isinstance(container, dict):
        return key if isinstance(key, str) and key in container else None
    if isinstance(container, list) and isinstance(key, int):
        return key % len(container) if -len(container) <= key < len(container) else None
    return None
