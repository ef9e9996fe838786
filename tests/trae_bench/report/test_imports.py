"""The modules of the report package do not import each other in a cycle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import trae_bench.report

FOLDER = Path(trae_bench.report.__file__).parent


def modules() -> dict[str, Path]:
    paths = FOLDER.rglob("*.py")
    return {name_of(path): path for path in paths}


def name_of(path: Path) -> str:
    parts = path.relative_to(FOLDER.parent.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_imports_have_no_cycle() -> None:
    paths = modules()
    # `from package import module` also names the package, which is not a dependency.
    packages = {name for name, path in paths.items() if path.name == "__init__.py"}
    graph = {name: imports_of(path) & (paths.keys() - packages) for name, path in paths.items()}
    assert len(graph) > 20
    list(TopologicalSorter(graph).static_order())
