"""Checks a call's arguments against the tool's JSON Schema. A model reads the messages."""

from collections.abc import Mapping
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


def without_null_options(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` without the optional ones that are null.

    Strict schemas make every argument required and the optional ones nullable, so a model
    omits an argument by sending null. Null stays if the schema itself allows it.
    """
    fields, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: value
        for name, value in arguments.items()
        if value is not None
        or name in required
        or name not in fields
        or "null" in _types(fields[name])
    }


def schema_violations(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """One clause per violation; empty if the arguments are valid."""
    fields: Mapping[str, Any] = schema.get("properties", {})
    required = schema.get("required", ())
    violations = [f"'{name}' is missing" for name in required if name not in arguments]
    for name, value in arguments.items():
        if name in fields:
            violations += _violations(f"'{name}'", value, fields[name])
        elif schema.get("additionalProperties") is False:
            known = ", ".join(fields) or "none"
            violations.append(f"'{name}' is not an argument (arguments: {known})")
    return violations


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
