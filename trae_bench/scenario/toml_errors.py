"""Convert TOML syntax errors and type errors to messages with a remedy."""

import re
import tomllib
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from trae_bench._util.toml_positions import TomlPath
from trae_bench.errors import ScenarioError
from trae_bench.scenario.diagnostics import Diagnostic, suggestion
from trae_bench.scenario.model import Scenario

_AT = re.compile(
    r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end.*)\)$", re.S
)
# tomllib reports what it found; these texts name what it expected.
_EXPECTED = {
    "Invalid value": 'expected a value: "text", a number, true, false, [array] or {table}',
    "Invalid statement": "expected `key = value`, `[table]`, `[[table]]` or a comment",
    "Invalid initial character for a key part": "expected a key: letters, digits, _, -, or quoted",
    "Unterminated string": "expected the closing quotes of a string",
    "Illegal character '\\n'": "expected the closing quotes of a string",
    "Unclosed array": "expected `,` or the closing `]` of an array",
    "Unclosed inline table": "expected `,` or the closing `}` of an inline table",
    "Cannot overwrite a value": "expected a new key; this key is already set",
}


def read_toml(text: str, source: str) -> dict[str, Any]:
    """Parse TOML. Raises `ScenarioError` with line, column and the expected token."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _AT.match(str(error))
        what = match["what"] if match else str(error)
        if match and match["line"]:
            line, column = int(match["line"]), int(match["column"])
        else:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        expected = _EXPECTED.get(what)
        hint = f"{expected} ({what[0].lower()}{what[1:]})" if expected else what
        raise ScenarioError(f"{source}:{line}:{column}: {hint}") from error
    except (ValueError, RecursionError) as error:
        # For example a number with thousands of digits, or brackets nested thousands deep.
        raise ScenarioError(f"{source}: not readable as TOML: {error}") from error


_TYPE_NAMES = {
    "str": 'a string ("...")',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array ([...])",
    "object": "a table ([name] or {...})",
}
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def explain(message: str, root: type[Struct] = Scenario) -> Diagnostic:
    """Convert a msgspec error message to a path and a message with a remedy.

    `root` is the record type of the whole file.
    """
    of_key = " - at `key` in `$" in message
    what, _, location = message.replace("`key` in `$", "`$").partition(" - at `$")
    path = _parse_path(location.removesuffix("`"))
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.S):
        known = _fields_at(root, path)
        return (*path, match[1]), f"unknown field{suggestion(match[1], known)}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return path, f"`{match[1]}` is missing; add `{match[1]} = ...` here"
    if match := re.fullmatch(r"Invalid enum value '?(.*?)'?", what, re.S):
        choices = _choices_at(root, path, of_key=of_key)
        known = suggestion(match[1], choices) if choices else ""
        return path, f"{match[1]!r} is not allowed here{known}"
    if match := re.fullmatch(r"Expected `(\w+)`, got `(.+)`", what):
        expected = _TYPE_NAMES.get(match[1], match[1])
        return path, f"expected {expected}, got {_TYPE_NAMES.get(match[2], match[2])}"
    if what.startswith("Expected `str` matching regex"):
        return path, "expected lower-case letters and digits, words joined by single dashes"
    return path, what[0].lower() + what[1:]


def _parse_path(location: str) -> TomlPath:
    steps: list[str | int] = []
    for name, index in _STEP.findall(location):
        if index == "...":
            break
        steps.append(name if name else int(index))
    return tuple(steps)


def _type_at(root: type[Struct], path: TomlPath) -> Any:
    current: Any = root
    for step in path:
        if isinstance(current, type) and issubclass(current, Struct):
            types = {field.encode_name: field.type for field in msgspec.structs.fields(current)}
            current = types.get(str(step))
        else:
            arguments = get_args(current)
            current = arguments[0 if isinstance(step, int) else -1] if arguments else None
        if get_origin(current) in (Union, UnionType):
            current = get_args(current)[0]
        if get_origin(current) is Annotated:
            current = get_args(current)[0]
    return current


def _fields_at(root: type[Struct], path: TomlPath) -> Sequence[str]:
    found = _type_at(root, path)
    if isinstance(found, type) and issubclass(found, Struct):
        return found.__struct_encode_fields__
    return ()


def _choices_at(root: type[Struct], path: TomlPath, *, of_key: bool) -> Sequence[str]:
    found = get_args(_type_at(root, path))
    return [str(choice) for choice in (get_args(found[0]) if found and of_key else found)]
