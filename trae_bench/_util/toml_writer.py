"""Writes readable TOML from tables of strings, numbers, lists and tables."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# Not allowed in a literal string: its delimiter, and characters that a parser changes or rejects.
_NOT_LITERAL = re.compile(r"'''|'\Z|[\x00-\x08\x0b-\x1f\x7f]")


def toml_text(document: Mapping[str, Any]) -> str:
    """Format a document: plain values first, then each table under its header.

    Raises `ValueError` if TOML cannot represent a value, such as None.
    """
    return "\n".join(_table(document, ())).lstrip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    below = {name: value for name, value in table.items() if _has_header(value)}
    for name, value in table.items():
        if name not in below:
            yield f"{_key(name)} = {_value(value)}"
    for name, value in below.items():
        inner = (*path, name)
        header = ".".join(map(_key, inner))
        if isinstance(value, Mapping):
            if not all(map(_has_header, value.values())):
                yield f"\n[{header}]"
            yield from _table(value, inner)
            continue
        for row in value:
            yield f"\n[[{header}]]"
            yield from _table(row, inner)


def _has_header(value: object) -> bool:
    """Return whether a value is a table, or a list of tables only."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping) and bool(value)


def _value(value: object) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    raise ValueError(f"TOML cannot represent {value!r}")


def _string(text: str) -> str:
    if "\n" in text and not _NOT_LITERAL.search(text):
        return f"'''\n{text}'''"
    return _quoted(text)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    # TOML has the escapes of JSON, and also requires one for DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
