"""The floors of the two houses: imports run down, also inside functions and in tables."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from agent_core.toggles import Toggles

ROOT = Path(__file__).resolve().parent.parent

# A room may import rooms of a lower floor, never its own floor's or a higher one's,
# except where SAME_FLOOR says so. A room is a module or a package, by its longest match.
AGENT_CORE = {
    "errors": 0,
    "messages": 0,
    "toggles": 0,
    "providers": 0,
    "arguments": 0,
    "tool_names": 0,
    "encoding": 0,
    "error_bodies": 0,
    "compression": 0,
    "config": 1,
    "config_formats": 2,
    "config_shapes": 2,
    "config_file": 3,
    "shell_state": 1,
    "workspace": 1,
    "env_file": 1,
    "patches": 1,
    "redaction": 1,
    "retries": 1,
    "ports": 2,
    "_http": 2,
    "context": 1,
    "agent": 4,
    "files": 4,
    "dispatch": 4,
    "shell": 4,
    "recorders": 4,
    "trajectory_format": 2,
    "trajectory_journal": 3,
    "trajectory_recorder": 4,
    "connection_metrics": 0,
    "connections": 3,
    "loop_pools": 4,
    "pooled_connections": 5,
    "config_sources": 4,
    "tools": 4,
    "models": 4,
    "catalogs": 5,
    "sdks": 5,
    "mcp_servers": 5,
    "guide": 6,
    "connection_pool": 7,
    "config_cache": 7,
    "trajectory_recorder_optimized": 7,
    "lazy_tools": 7,
    "dynamic_imports": 7,
    "build": 6,
    "diagnosis": 7,
    "cli": 8,
    "__main__": 9,
}
TRAE_BENCH = {
    "errors": 1,
    "_util": 1,
    "model": 1,
    "metrics": 2,
    "prompt": 2,
    "scenario": 2,
    "design": 3,
    "provider": 3,
    "execution": 3,
    "subject": 4,
    "stats": 4,
    "storage": 5,
    "verdicts": 6,
    "run": 7,
    "report": 8,
    "cli": 9,
    "__main__": 10,
}
FLOORS = {"agent_core": AGENT_CORE, "trae_bench": TRAE_BENCH}
NAME_IN_TABLE = re.compile(r"(?:agent_core|trae_bench)(?:\.\w+)+(?=:\w+$|$)")


def modules(package: str) -> list[Path]:
    """All modules of a package. The scripts in `shipped` are programs of agents."""
    found = (ROOT / package).rglob("*.py")
    return sorted(path for path in found if path.parent.name != "shipped")


def imported_names(path: Path) -> set[str]:
    """Dotted names a module imports anywhere, or names in a string such as "a.b:C"."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it absolute"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and NAME_IN_TABLE.match(node.value)
        ):
            found.add(node.value.split(":")[0])
    return {name for name in found if name.split(".")[0] in FLOORS and "." in name}


def room_of(dotted: str) -> tuple[str, str]:
    """("trae_bench", "provider") for "trae_bench.provider.protocols"; "" is the package itself."""
    package, _, rest = dotted.partition(".")
    room = rest.split(".")[0]
    return package, room if room in FLOORS[package] else ""


def violations(path: Path) -> list[str]:
    here = path.relative_to(ROOT).with_suffix("")
    package, room = here.parts[0], here.parts[1]
    if room == "__init__":
        return [f"{here} imports {name}" for name in imported_names(path)]
    wrong = []
    for name in sorted(imported_names(path)):
        other_package, other_room = room_of(name)
        if other_package != package:
            if str(here) != "trae_bench/subject/agent_core":
                wrong.append(f"{here} knows {other_package} ({name})")
        elif other_room and other_room != room:
            floors = FLOORS[package]
            if floors[other_room] >= floors[room]:
                wrong.append(f"{here} (floor {floors[room]}) imports {name}")
    return wrong


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_imports_run_down(package: str) -> None:
    wrong = [line for path in modules(package) for line in violations(path)]
    assert not wrong, "\n".join(wrong)


def imports_at_the_start(path: Path) -> set[str]:
    """Modules of the two packages that a module imports at module level."""
    statements = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
    ]
    found = set()
    for node in statements:
        for name in node.names:
            submodule = f"{node.module}.{name.name}"
            found.add(submodule if submodule in MODULES else str(node.module))
    return found & MODULES.keys()


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in FLOORS
    for path in modules(package)
}


def test_module_imports_form_no_cycle() -> None:
    """Floors order the packages. This also orders the modules within a package."""
    graph = {name: imports_at_the_start(path) for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {
        path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in modules(package)
    }
    assert rooms - {"__init__"} <= set(FLOORS[package])


def test_one_place_reads_the_toggles() -> None:
    a_toggle = re.compile(rf"\.({'|'.join(Toggles.names())})\b(?! import)")
    readers = {p.name for p in modules("agent_core") if a_toggle.search(p.read_text("utf-8"))}
    assert readers == {"build.py"}


def test_a_violation_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker itself: an import upstairs, hidden in a function, and a name in a table."""
    house = tmp_path / "trae_bench"
    house.mkdir()
    bad = house / "stats.py"
    bad.write_text(
        'def f():\n    from trae_bench.cli import main\nT = {"x": "agent_core.tools:X"}\n'
    )
    monkeypatch.setattr("tests.test_architecture.ROOT", tmp_path)
    assert len(violations(bad)) == 2


@pytest.mark.parametrize("package", sorted(FLOORS))
def test_the_document_names_every_module(package: str) -> None:
    """docs/design.md lists modules by name, and packages within a package by `name/`."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = text[text.index(f"odules of {package}" if package == "agent_core" else "| module") :]
    named = set(re.findall(r"`([\w/]+)`", table))
    places = {path.relative_to(ROOT / package).with_suffix("") for path in modules(package)}
    missing = {
        str(place)
        for place in places
        if place.name not in ("__init__", "__main__", "errors", "metrics")
        and place.name not in named
        and not any(f"{part}/" in named for part in place.parts[:-1])
    }
    assert not missing
