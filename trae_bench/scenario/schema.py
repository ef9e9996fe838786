"""JSON Schema of scenario files, for editors that complete TOML."""

from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from trae_bench.scenario.model import Scenario


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of scenario files, with the fields' docstrings.

    The committed copy is `docs/schemas/scenario.schema.json`.
    """
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trae-bench scenario",
    }
    schema = head | msgspec.json.schema(Scenario)
    for struct in schema["$defs"].values():
        # Python 3.13 and later remove a docstring's indentation themselves.
        struct["description"] = cleandoc(struct.get("description", ""))
    for (struct, field), text in field_docs(Path(__file__).with_name("model.py")).items():
        described = schema["$defs"].get(struct, {}).get("properties", {}).get(field)
        if described is not None:
            described["description"] = cleandoc(text)
    return schema


def field_docs(source: Path) -> dict[tuple[str, str], str]:
    """Return the docstring of each record field in a source file, by record and field name.

    Python keeps no docstrings of fields at run time, so this parses the source.
    """
    import ast  # only the schema needs it; at module level every start would pay for it

    docs: dict[tuple[str, str], str] = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for field, below in pairwise(node.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    docs[node.name, field.target.id] = str(below.value.value)
    return docs
