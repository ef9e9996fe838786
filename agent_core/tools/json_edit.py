"""The tool `json_edit_tool`: view and edit JSON files by JSONPath."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.tools import TOOLS
from agent_core.tools.json_path import JsonPath, NumberText, Place, parse
from agent_core.tools.paths import clip, editing, names


class JSONEditTool:
    """Parses the file, changes the data and writes the file again.

    Numbers that are not edited keep their spelling.
    """

    spec = TOOLS["json_edit_tool"].spec

    def __init__(self, context: ToolContext) -> None:
        self._files = context.files
        self._workspace = context.workspace

    def access(self, arguments: Mapping[str, Any]) -> Access:
        touched = names(self._workspace.resolve(arguments["file_path"]))
        if arguments["operation"] == "view":
            return Access("files", reads=touched)
        return Access("files", writes=touched)

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        path = self._workspace.resolve(arguments["file_path"])
        operation = arguments["operation"]
        json_path = parse(arguments.get("json_path") or "$")
        indent = None if arguments.get("pretty_print") is False else 2
        if operation == "view":
            data = _loads(await self._files.read(path), path)
            return ToolOutput(True, clip(_dumps(_matches(data, json_path), indent)))
        if not arguments.get("json_path"):
            raise ToolError(f"'json_path' is missing; the operation '{operation}' needs it.")
        if operation != "remove" and "value" not in arguments:
            raise ToolError(f"'value' is missing; the operation '{operation}' needs it.")
        async with editing(path):
            text = await self._files.read(path)
            data, count = _apply(operation, _loads(text, path), json_path, arguments.get("value"))
            end = "\n" if text.endswith("\n") else ""
            await self._files.write(path, _dumps(data, indent) + end)
        return ToolOutput(True, f"{path}: {_PAST[operation]} {count} at {arguments['json_path']}.")

    async def close(self) -> None:
        pass


_PAST = {"set": "set", "add": "added", "remove": "removed"}

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _loads(text: str, path: Path) -> Any:
    def as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        parsed = dict(pairs)
        if len(parsed) < len(pairs):
            keys = [key for key, _ in pairs]
            duplicate = next(key for key in keys if keys.count(key) > 1)
            raise ToolError(
                f"{path} has the key '{duplicate}' twice in one object; edit it as text."
            )
        return parsed

    try:
        return json.loads(
            text,
            object_pairs_hook=as_dict,
            parse_int=NumberText,
            parse_float=NumberText,
            parse_constant=NumberText,
        )
    except json.JSONDecodeError as error:
        raise ToolError(f"{path} is not JSON: {error}.") from error
    except RecursionError as error:
        raise ToolError(f"{path} is nested too deeply.") from error


def _dumps(data: Any, indent: int | None, margin: str = "\n") -> str:
    """Lays out `data` like `json.dumps`. `margin` precedes the closing bracket."""
    if isinstance(data, NumberText):
        return data
    if not data or not isinstance(data, dict | list):
        return _ENCODER.encode(data)
    inner = margin + " " * (indent or 0)
    if isinstance(data, dict):
        opening, closing = "{}"
        items = [f"{_ENCODER.encode(k)}: {_dumps(v, indent, inner)}" for k, v in data.items()]
    else:
        opening, closing = "[]"
        items = [_dumps(item, indent, inner) for item in data]
    if indent is None:
        return f"{opening}{', '.join(items)}{closing}"
    return f"{opening}{inner}{f',{inner}'.join(items)}{margin}{closing}"


def _matches(data: Any, path: JsonPath) -> Any:
    """The data that `view` shows: the match as it is, or a list if there can be several."""
    matches = path.find(data)
    if not matches:
        raise _no_match()
    return matches[0] if path.is_single() else matches


def _apply(operation: str, data: Any, path: JsonPath, value: Any) -> tuple[Any, int]:
    """The data after the operation, and the number of changed places."""
    if path.keys == ():
        if operation == "set":
            return value, 1
        raise ToolError(f"'{operation}' needs a place below the root '$'.")
    if operation == "add":
        return data, _add(data, path, value)
    if operation not in _PAST:
        raise ToolError(
            f"Unknown operation '{operation}'. Known operations: view, set, add, remove."
        )
    matches = path.places(data)
    if not matches:
        raise _no_match()
    for place in _last_first(matches):
        _put(place, value) if operation == "set" else _drop(place)
    return data, len(matches)


def _last_first(places: list[Place]) -> list[Place]:
    """Higher indexes first, so that a removal does not shift the remaining ones."""
    return sorted(places, key=lambda place: -place.key if isinstance(place.key, int) else 0)


def _put(place: Place, value: Any) -> None:
    place.parent[place.key] = value


def _drop(place: Place) -> None:
    del place.parent[place.key]


def _add(data: Any, path: JsonPath, value: Any) -> int:
    container, key = path.split()
    parents = container.find(data)
    if not parents:
        raise _no_match()
    for parent in parents:
        if isinstance(parent, dict) and isinstance(key, str):
            if key in parent:
                raise ToolError(f"The key '{key}' exists; use 'set' to change it.")
        elif not (isinstance(parent, list) and isinstance(key, int)):
            raise ToolError("'add' takes a key in an object, or an index in an array.")
        elif key != -1 and not -len(parent) <= key <= len(parent):
            raise ToolError(
                f"The index {key} is out of range: the array has {len(parent)} items; -1 appends."
            )
    for parent in parents:
        if isinstance(parent, dict):
            parent[key] = value
        else:
            parent.insert(len(parent) if key == -1 else key, value)
    return len(parents)


def _no_match() -> ToolError:
    return ToolError("Nothing in the file matches json_path.")
