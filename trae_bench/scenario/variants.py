"""Variants: named changes of a scenario that stand in its file, one line each.

`api-sequential@tls` is the file `api-sequential.toml` with the tables of its variant `tls`
laid over its own. Texts and TOML documents only; what comes out is read like any scenario.
"""

import re
from collections.abc import Mapping
from typing import Any

from trae_bench._util.toml_positions import TomlPath

MARK = "@"
"""Stands between the name of a scenario, or of its file, and that of a variant."""
_ASKED = re.compile(rf"(?P<scenario>.*){MARK}(?P<variant>[a-z0-9-]+)", re.DOTALL)


def split(asked: str) -> tuple[str, str]:
    """Name or file of the scenario, and the variant's name; empty for the scenario itself."""
    # A folder on the way to a file may have the mark in its name.
    match = _ASKED.fullmatch(asked)
    return (match["scenario"], match["variant"]) if match else (asked, "")


def merged(document: Mapping[str, Any], variant: Mapping[str, Any]) -> dict[str, Any]:
    """The document as the variant has it: keys of its tables replace those of the document's
    tables, its other values replace the document's."""
    result = {name: value for name, value in document.items() if name != "variants"}
    for name, value in variant.items():
        if name == "name":
            continue
        before = result.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            value = {**before, **value}
        result[name] = value
    return result


def at_home(path: TomlPath, variant: Mapping[str, Any], index: int) -> TomlPath:
    """Where a value of a variant's document stands in the file: in the variant, if that has it,
    else where the scenario has it."""
    own = variant.get(str(path[0])) if path else None
    kept = isinstance(own, Mapping) and len(path) > 1 and path[1] not in own
    return path if own is None or kept else ("variants", index, *path)
