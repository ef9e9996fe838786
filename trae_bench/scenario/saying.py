"""How a fault of a scenario file is said: `file:line: path: what; remedy`."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from trae_bench.errors import ScenarioError
from trae_bench.toml_lines import TomlPath, line_of

Finding = tuple[TomlPath, str]
"""Where, and what with its remedy."""


def raise_for(findings: Sequence[Finding], source: str, text: str) -> None:
    """Raises one `ScenarioError` that names them all; does nothing where there are none."""
    if findings:
        errors = [str(error_at(source, text, path, problem)) for path, problem in findings]
        raise ScenarioError("\n".join(errors))


def error_at(source: str, text: str, path: TomlPath, problem: str) -> ScenarioError:
    """`text` is the file's, for the line; empty where it is not known."""
    line = f":{line_of(text, path)}" if text else ""
    return ScenarioError(f"{source}{line}: {_show(path)}: {problem}")


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
