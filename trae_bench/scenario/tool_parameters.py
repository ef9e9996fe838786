"""An agent's tool and its parameters, read from the JSON Schema that the agent sends.

The schema is untrusted: whatever is not as expected counts as absent.
"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


ROLES: dict[str, frozenset[str]] = {
    "command": words("command cmd commands commandline shellcommand args"),
    "path": words(
        "path file filepath filename absolutepath absolutefilepath targetfile relativepath "
        "relpath relativeworkspacepath"
    ),
    "text": words("text content contents filetext filecontent filecontents codecontent data body"),
    "old": words("old oldstr oldstring oldtext oldcontent search searchstring find"),
    "new": words("new newstr newstring newtext newcontent replace replacement replacestring"),
    "range": words("viewrange linerange"),
    "first": words("offset startline linestart firstline"),
    "last": words("endline lineend lastline"),
    "count": words("limit numlines linecount maxlines"),
    "answer": words("answer text message summary result output finalanswer response content"),
    "folder": words("workdir cwd workingdirectory workingdir directory dir"),
}
"""Names of parameters by what they hold, in lower case without separators."""
PLAIN_VALUES = words(
    "overwrite write w create success successful succeeded done complete completed true"
)
"""Values of an enum that stand for a whole file, or for success."""
_MAX_REFERENCES = 5


class Parameter(Struct, frozen=True):
    """A parameter of a tool."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    nullable: bool

    @property
    def plain(self) -> str:
        """Its name in lower case, without separators."""
        return plain(self.name)

    @property
    def choices(self) -> list[str]:
        """The strings that it may have, if they are listed."""
        options = [one.get("const") for one in _alternatives(self.schema)]
        return [one for one in _list(self.schema.get("enum")) or options if isinstance(one, str)]

    @property
    def type(self) -> str:
        """Its JSON type; empty if unknown."""
        return next((one for one in _types(self.schema) if one != "null"), "")

    @property
    def constant(self) -> Any:
        """A plausible value, if the parameter must be given and nothing is known for it."""
        if self.nullable:
            return None
        if choices := self.choices:
            return next((one for one in choices if one.lower() in PLAIN_VALUES), choices[0])
        if self.plain in ROLES["folder"]:
            return "{workspace}"
        if "timeout" in self.plain and self.type in ("integer", "number"):
            return 60_000 if self.plain.endswith(("ms", "milliseconds", "millis")) else 60
        if self.type == "integer" and (numbers := _list(self.schema.get("enum"))):
            return numbers[0]
        values: dict[str, Any] = {"boolean": False, "integer": 1, "number": 1, "array": []}
        return values.get(self.type, {} if self.type == "object" else "benchmark")


class Tool(Struct, frozen=True):
    """A tool with the words of its name."""

    name: str
    words: frozenset[str]
    parameters: tuple[Parameter, ...]

    def having(self, role: str) -> Parameter | None:
        """The parameter with a role; a required one first."""
        found = [one for one in self.parameters if one.plain in ROLES[role]]
        return max(found, key=lambda one: one.required, default=None)


def read_tool(name: str, schema: Mapping[str, Any]) -> Tool:
    """Read a tool from its name and the JSON Schema of its arguments."""
    properties = schema.get("properties")
    required = _list(schema.get("required"))
    parameters = tuple(
        Parameter(key, _resolved(value, schema), key in required, _is_nullable(value))
        for key, value in (properties.items() if isinstance(properties, dict) else ())
    )
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", last_part(name))
    return Tool(name, frozenset(map(str.lower, found)), parameters)


def last_part(name: str) -> str:
    """A tool's name without the prefix of its server, as in `fs__read_file`."""
    return re.split(r"__|[./:]", name)[-1] or name


def plain(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _resolved(schema: object, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter's schema behind a local reference, or the first type of several."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        options = [
            one for one in _alternatives(schema) if "null" not in _types(one) and "const" not in one
        ]
        if isinstance(reference := schema.get("$ref"), str):
            schema = _referenced(reference, root)
        elif options and "type" not in schema:
            # Of a string or an array, the string is simpler.
            schema = next((one for one in options if "string" in _types(one)), options[0])
        else:
            return schema
    return {}


def _referenced(reference: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _is_nullable(schema: object) -> bool:
    if not isinstance(schema, dict):
        return False
    alternatives = [schema, *_alternatives(schema)]
    return schema.get("nullable") is True or any("null" in _types(one) for one in alternatives)


def _types(schema: Mapping[str, Any]) -> list[str]:
    """In lower case; Gemini's are in capitals."""
    kinds = _list(schema.get("type")) or [schema.get("type")]
    return [one.lower() for one in kinds if isinstance(one, str)]


def _alternatives(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
    return [one for one in parts if isinstance(one, dict)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
