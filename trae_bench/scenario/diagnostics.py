"""How a fault of a scenario file is said: `file:line: path: what; remedy`."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from trae_bench._util.toml_positions import Places, TomlPath, line_in, places
from trae_bench.errors import ScenarioError

Diagnostic = tuple[TomlPath, str]
"""Where, and what with its remedy."""
MOST = 50
"""Findings that are told at once."""


def raise_for(findings: Sequence[Diagnostic], source: str, text: str) -> None:
    """Raises one `ScenarioError` that names them, at most `MOST`; does nothing where there are
    none. `text` is the file's, for the lines; empty where it is not known."""
    if not findings:
        return
    known = places(text)
    errors = [_said(source, known, *finding) for finding in findings[:MOST]]
    if len(findings) > MOST:
        errors.append(f"{source}: and {len(findings) - MOST} more")
    raise ScenarioError("\n".join(errors))


def error_at(source: str, text: str, path: TomlPath, problem: str) -> ScenarioError:
    """`text` is the file's, for the line; empty where it is not known."""
    return ScenarioError(_said(source, places(text), path, problem))


def _said(source: str, known: Places, path: TomlPath, problem: str) -> str:
    line = f":{line_in(known, path)}" if known else ""
    return f"{source}{line}: {_show(path)}: {problem}"


def suggestion(name: str, known: Collection[str]) -> str:
    """The nearest known names, then all of them."""
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{meant} Known: {', '.join(sorted(known)) or 'none'}"


def _show(path: TomlPath) -> str:
    shown = "$"
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}"
    return shown
