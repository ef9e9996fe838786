"""Fits a call's arguments to the tool's JSON Schema, then checks them.

A model reads the messages.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}

_SPELLINGS = {
    "command": ("cmd", "operation", "action"),
    "operation": ("command", "action"),
    "path": ("file_path", "file", "filename", "target_file"),
    "file_path": ("path", "file", "filename", "target_file"),
    "file_text": ("content", "contents", "text", "file_content"),
    "old_str": ("old_string", "old_text", "search"),
    "new_str": ("new_string", "insert_text", "new_text", "replace"),
    "insert_line": ("line", "line_number"),
    "view_range": ("line_range", "range", "lines"),
    "json_path": ("jsonpath",),
    "timeout": ("timeout_seconds", "timeout_secs"),
}
"""Other names that models give an argument. They are taken if the schema does not have them."""

_WRAPPERS = ("arguments", "parameters", "args", "input")

_FENCE = r"(?s)```\w*\s*\n(.*?)\n?```"

_MAX_WHOLE = 2**53
"""Up to here a float has the exact value of the integer that the model meant."""


def unwrapped(text: str) -> dict[str, Any] | None:
    """The object in `text`: fenced, encoded twice, with raw line breaks in strings, or null."""
    fenced = re.fullmatch(_FENCE, text.strip())
    value: Any = fenced[1] if fenced else text
    for _ in range(2):
        if not isinstance(value, str):
            break
        try:
            value = _loads(value)
        except (ValueError, RecursionError):
            return None
    return {} if value is None else value if isinstance(value, dict) else None


def _loads(text: str) -> Any:
    """The JSON value in `text`, with raw line breaks in strings. Raises `ValueError`."""
    import json  # the agent needs it only for unusual arguments

    return json.loads(text, strict=False)


def fitted(
    arguments: Mapping[str, Any], schema: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """`arguments` as `schema` names and types them, and the names that it does not know.

    Strict schemas make every argument required and the optional ones nullable, so a model
    omits an argument by sending null. Null stays if the schema itself allows it.
    """
    fields: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    closed = schema.get("additionalProperties") is False
    given = _without_wrapper(arguments, fields) if closed else arguments
    if closed and not given.keys() <= fields.keys():
        given = dict(_renamed(given, fields))
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            unknown.append(name) if closed else known.update({name: value})
        elif value is not None or name in required or "null" in _types(field):
            known[name] = _converted(value, field)
    return known, unknown


def schema_violations(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """One clause per violation; empty if the arguments are valid."""
    fields: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    violations = [f"'{name}' is missing" for name in required if name not in arguments]
    for name, value in arguments.items():
        if name in fields:
            violations += _violations(f"'{name}'", value, fields[name])
    return violations


def unknown_arguments(unknown: list[str], schema: Mapping[str, Any]) -> str:
    """The sentence about ignored arguments."""
    names = ", ".join(f"'{name:.50}'" for name in unknown[:5])
    verb = "is not an argument" if len(unknown) == 1 else "are not arguments"
    known = ", ".join(schema.get("properties", ())) or "none"
    return f"{names} {verb} (arguments: {known})"


def _without_wrapper(arguments: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inner object, if the model put all arguments into one, such as `arguments`."""
    if len(arguments) != 1:
        return arguments
    ((name, value),) = arguments.items()
    if name in fields or name not in _WRAPPERS:
        return arguments
    inner = unwrapped(value) if isinstance(value, str) else value
    return inner if isinstance(inner, dict) else arguments


def _renamed(arguments: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each argument under the schema's name, unless that one is given as well."""
    plain = {_plain(name): name for name in fields}
    spellings = {
        _plain(other): name
        for name in reversed(list(fields))  # the first field wins
        for other in _SPELLINGS.get(name, ())
    }
    taken = set(arguments)
    for given, value in arguments.items():
        name = given
        if given not in fields:
            name = plain.get(_plain(given)) or spellings.get(_plain(given)) or given
            name = given if name in taken else name
            taken.add(name)
        yield name, value


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _converted(value: Any, field: Mapping[str, Any]) -> Any:
    """`value` in the field's type, if it is that value in another notation."""
    kinds = _types(field)
    if isinstance(value, str) and kinds and "string" not in kinds:
        decoded = _converted(_decoded(value), field)
        return decoded if any(_is(decoded, kind) for kind in kinds) else value
    if isinstance(value, float) and "integer" in kinds and "number" not in kinds:
        return int(value) if value.is_integer() and abs(value) <= _MAX_WHOLE else value
    if isinstance(value, list) and "items" in field:
        return [_converted(item, field["items"]) for item in value]
    return value


def _decoded(text: str) -> Any:
    """The JSON value in `text`, such as `1`, `True` or `[1, 2]`. None if there is none."""
    try:
        value = _loads(text.lower() if text in ("True", "False") else text)
    except (ValueError, RecursionError):
        return None
    return None if isinstance(value, str) else value


def _violations(what: str, value: Any, field: Mapping[str, Any]) -> list[str]:
    kinds = _types(field)
    if kinds and not any(_is(value, kind) for kind in kinds):
        expected, actual = _with_article(" or ".join(kinds)), _with_article(_type_of(value))
        return [f"{what} must be {expected}, not {actual}"]
    if "enum" in field and value not in field["enum"]:
        return [f"{what} must be one of {', '.join(field['enum'])}, not {value!r:.100}"]
    if "items" in field and isinstance(value, list):
        return [
            violation
            for index, item in enumerate(value)
            for violation in _violations(f"{what}[{index}]", item, field["items"])
        ]
    return []


def _types(field: Mapping[str, Any]) -> tuple[str, ...]:
    kind = field.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)


def _is(value: Any, kind: str) -> bool:
    # In Python a bool is an int; in JSON it is not.
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _type_of(value: Any) -> str:
    return next((kind for kind in _TYPES if _is(value, kind)), type(value).__name__)


def _with_article(kind: str) -> str:
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
