"""Do a call's arguments fit the tool's schema? In words that a model can act on."""

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

    Strict schemas make every argument required and the optional ones nullable, so null is
    how a model leaves one out; it stays where the schema itself allows null.
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
    """Each misfit as a clause; none where the arguments fit."""
    fields: Mapping[str, Any] = schema.get("properties", {})
    found = [f"'{name}' is missing" for name in schema.get("required", ()) if name not in arguments]
    for name, value in arguments.items():
        if name in fields:
            found += _violations(f"'{name}'", value, fields[name])
        elif schema.get("additionalProperties") is False:
            known = ", ".join(fields) or "none"
            found.append(f"'{name}' is not an argument (arguments: {known})")
    return found


def _violations(what: str, value: Any, field: Mapping[str, Any]) -> list[str]:
    kinds = _types(field)
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{what} has to be {_named(' or '.join(kinds))}, not {_named(_type_of(value))}"]
    if "enum" in field and value not in field["enum"]:
        return [f"{what} has to be one of {', '.join(field['enum'])}, not {value!r:.100}"]
    if "items" in field and isinstance(value, list):
        return [
            misfit
            for index, item in enumerate(value)
            for misfit in _violations(f"{what}[{index}]", item, field["items"])
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


def _named(kind: str) -> str:
    if kind == "null":
        return kind
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
