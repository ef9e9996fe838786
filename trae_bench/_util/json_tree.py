"""Plain data of JSON or TOML: strings, numbers, lists and dictionaries."""

from collections.abc import Callable
from typing import Any


def map_strings(value: Any, convert: Callable[[str], str]) -> Any:
    """Apply `convert` to every string in a tree of lists and dictionaries, except the keys."""
    if isinstance(value, str):
        return convert(value)
    if isinstance(value, list):
        return [map_strings(item, convert) for item in value]
    if isinstance(value, dict):
        return {key: map_strings(item, convert) for key, item in value.items()}
    return value


def is_utf8(text: str) -> bool:
    """Return whether a text has a UTF-8 form. Surrogates, as in file names, have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
