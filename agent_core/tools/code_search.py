"""The tool `ckg`: finds Python functions, classes and methods by name, using `ast`."""

import ast
import asyncio
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.tools import TOOLS
from agent_core.tools.paths import clip

_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Hit(Struct, frozen=True):
    """One definition."""

    where: str
    body: str


class CodeSearchTool:
    """Reads the files at each call, because an index would have to track every edit.

    Only files that contain the name as text are parsed.
    """

    spec = TOOLS["ckg"].spec

    def __init__(self, context: ToolContext) -> None:
        self._files = context.files
        self._workspace = context.workspace

    def access(self, arguments: Mapping[str, Any]) -> Access:
        path = self._workspace.resolve(arguments["path"])
        return Access("files", reads=frozenset({str(path)}))

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        root = self._workspace.resolve(arguments["path"])
        if not root.exists():
            raise ToolError(f"{root} does not exist.")
        name, kind = arguments["identifier"], arguments["command"].removeprefix("search_")
        hits: list[Hit] = []
        skipped: list[str] = []
        for path in _sources(root):
            # Parsing blocks the event loop for one file at most.
            await asyncio.sleep(0)
            try:
                text = await self._files.read(path)
                if name in text:
                    hits += _hits(path, text, kind, name)
            except (ToolError, SyntaxError, ValueError, RecursionError, MemoryError):
                # One broken file must not hide the others. The report names it.
                skipped.append(str(path))
        return ToolOutput(
            True, clip(_report(kind, name, hits, skipped, arguments.get("print_body") is not False))
        )

    async def close(self) -> None:
        pass


def _sources(root: Path) -> Iterator[Path]:
    """Python files in a fixed order, without hidden folders and links."""
    if root.is_file():
        yield root
        return
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        for file in sorted(files):
            path = Path(folder, file)
            if file.endswith(".py") and not path.is_symlink():
                yield path


def _hits(path: Path, text: str, kind: str, name: str) -> list[Hit]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the searched code
        tree = ast.parse(text)
    lines = list(io.StringIO(text, newline=None))  # Python's line ends, unlike `splitlines`
    return [
        _hit(path, lines, node, owners)
        for node, owners in _definitions(tree, ())
        if node.name == name and _kind(node, owners) == kind
    ]


def _definitions(
    tree: ast.AST, owners: tuple[Definition, ...]
) -> Iterator[tuple[Definition, tuple[Definition, ...]]]:
    """Each definition below `tree` with its enclosing definitions, outermost first."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            yield node, owners
            yield from _definitions(node, (*owners, node))
        else:
            yield from _definitions(node, owners)


def _kind(node: Definition, owners: tuple[Definition, ...]) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    return "class_method" if owners and isinstance(owners[-1], ast.ClassDef) else "function"


def _hit(path: Path, lines: list[str], node: Definition, owners: tuple[Definition, ...]) -> Hit:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = node.end_lineno or node.lineno
    inside = f" in {'.'.join(owner.name for owner in owners)}" if owners else ""
    fields = f"; methods: {', '.join(_methods(node))}" if isinstance(node, ast.ClassDef) else ""
    body = "".join(lines[first - 1 : last]).rstrip("\n")
    return Hit(f"{path}:{first}-{last}{inside}{fields}", body)


def _methods(node: ast.ClassDef) -> list[str]:
    return [
        child.name
        for child in node.body
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
    ] or ["none"]


def _report(kind: str, name: str, hits: list[Hit], skipped: list[str], bodies: bool) -> str:
    plain = kind.replace("class_method", "method")
    count = f"{len(hits)} found" if hits else "none found"
    parts = [f"{plain} '{name}': {count}."]
    parts += [
        f"{number}. {hit.where}" + (f"\n{hit.body}" if bodies else "")
        for number, hit in enumerate(hits, 1)
    ]
    if skipped:
        parts.append(f"Not readable as Python: {', '.join(skipped)}.")
    return "\n".join(parts)
