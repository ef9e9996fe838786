"""Format errors in a scenario file: `file:line: field: problem; remedy`."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from trae_bench._util.toml_positions import Places, TomlPath, line_in, places
from trae_bench.errors import ScenarioError

Diagnostic = tuple[TomlPath, str]
"""The path of a wrong value, and the problem with its remedy."""
MAX_DIAGNOSTICS = 50
"""Maximum diagnostics in one error."""


def raise_for(diagnostics: Sequence[Diagnostic], source: str, text: str) -> None:
    """Raise one `ScenarioError` that lists the diagnostics; do nothing if there are none.

    At most `MAX_DIAGNOSTICS` are listed; the rest are counted. `text` is the content of the
    file, for line numbers; empty if unknown.
    """
    if not diagnostics:
        return
    lines = places(text)
    errors = [_message(source, lines, *found) for found in diagnostics[:MAX_DIAGNOSTICS]]
    if len(diagnostics) > MAX_DIAGNOSTICS:
        errors.append(f"{source}: and {len(diagnostics) - MAX_DIAGNOSTICS} more")
    raise ScenarioError("\n".join(errors))


def error_at(source: str, text: str, path: TomlPath, problem: str) -> ScenarioError:
    """Return the error for one value. `text` is as in `raise_for`."""
    return ScenarioError(_message(source, places(text), path, problem))


def _message(source: str, lines: Places, path: TomlPath, problem: str) -> str:
    line = f":{line_in(lines, path)}" if lines else ""
    field = f"{_format_path(path)}: " if path else ""
    return f"{source}{line}: {field}{problem}"


def suggestion(name: str, known: Collection[str]) -> str:
    """Return the closest known names, then all known names, as the end of a message."""
    close = get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}"


def _format_path(path: TomlPath) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")
