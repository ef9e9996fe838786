"""JSON Schema of scenario files, for editors that complete TOML."""

import json
from inspect import cleandoc
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from trae_bench.scenario.model import Scenario


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of scenario files, for editors that complete TOML."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trae-bench scenario",
    }
    schema = head | msgspec.json.schema(Scenario)
    for struct in schema["$defs"].values():
        # Newer Pythons take a docstring's indentation away themselves.
        struct["description"] = cleandoc(struct.get("description", ""))
    for (struct, field), text in field_docs(Path(__file__).with_name("model.py")).items():
        described = schema["$defs"].get(struct, {}).get("properties", {}).get(field)
        if described is not None:
            described["description"] = cleandoc(text)
    return schema


def write_json_schema(path: Path | None = None) -> None:
    """Refresh the committed schema after a change of the records above."""
    path = path or Path(__file__).resolve().parents[2] / "docs/schemas/scenario.schema.json"
    path.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")


def field_docs(source: Path) -> dict[tuple[str, str], str]:
    """The docstrings below the records' fields, which exist in the source only."""
    import ast  # for the schema's maker only; every start would pay for it above

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
