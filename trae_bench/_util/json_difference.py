"""The first difference of two JSON values, and how a message shows it."""

import json
from typing import Any, Final

MISSING: Final = object()
"""Stands for a value that one side does not have."""
Names = tuple[str, str]
"""What a message calls the two sides."""
_MAX_PATH = 200
_BEFORE, _AFTER = 20, 40
"""Characters that an excerpt shows before the first difference, and from it on."""


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Return the path of the first difference of two JSON values and both values there."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            place = f"{path}.{key}" if key.isidentifier() else f"{path}[{key!r}]"
            found = first_difference(a.get(key, MISSING), b.get(key, MISSING), place)
            if found is not None:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list):
        for index in range(max(len(a), len(b))):
            left, right = (side[index] if index < len(side) else MISSING for side in (a, b))
            found = first_difference(left, right, f"{path}[{index}]")
            if found is not None:
                return found
        return None
    # In JSON, 1 and true differ.
    return None if type(a) is type(b) and a == b else (path, a, b)


def difference_text(path: str, a: Any, b: Any, names: Names) -> str:
    """Return where two values differ and what each side has there, as the end of a sentence."""
    place = f", {path.lstrip('.')[:_MAX_PATH]}" if path else ""
    start = 0
    if isinstance(a, str) and isinstance(b, str):
        different = (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        start = next(different, min(len(a), len(b)))
        place += f", offset {start}"
    of_a, of_b = _excerpt(a, start), _excerpt(b, start)
    return f"{place}: {names[0]} has {of_a}, {names[1]} has {of_b}"


def _excerpt(value: Any, start: int) -> str:
    if value is MISSING:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value)
    begin, end = max(0, start - _BEFORE), start + _AFTER
    shown = f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
    # repr() escapes control characters and line breaks.
    return repr(shown)
