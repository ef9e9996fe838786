"""Variants: named changes to a scenario in the same file.

`api-sequential@tls` is `api-sequential.toml` with the tables of its variant `tls` merged into
the scenario's tables. This module works on names and parsed TOML only; `loader` validates the
result like any scenario.
"""

import re
from collections.abc import Mapping
from typing import Any

from trae_bench._util.toml_positions import TomlPath

SEPARATOR = "@"
"""Separates the scenario's name or file from the variant's name."""
_VARIANT = re.compile(rf"(?P<scenario>.*){SEPARATOR}(?P<variant>[a-z0-9-]+)", re.DOTALL)


def split(name: str) -> tuple[str, str]:
    """Split `scenario@variant` into the scenario's name or file and the variant's name.

    The variant is empty for the scenario itself.
    """
    # The path to a file can contain the separator, so the last one counts.
    match = _VARIANT.fullmatch(name)
    return (match["scenario"], match["variant"]) if match else (name, "")


def apply_variant(document: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the variant applied: its tables merged, other values replaced."""
    result = {name: value for name, value in document.items() if name != "variants"}
    for name, value in variant.items():
        if name == "name":
            continue
        before = result.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            value = {**before, **value}
        result[name] = value
    return result


def source_path(path: TomlPath, variant: Mapping[str, Any], index: int) -> TomlPath:
    """Return the path in the file of a value of the merged document.

    It points into `variants[index]` if the variant sets the value, else into the scenario.
    """
    changed = variant.get(str(path[0])) if path else None
    inherited = isinstance(changed, Mapping) and len(path) > 1 and path[1] not in changed
    return path if changed is None or inherited else ("variants", index, *path)
