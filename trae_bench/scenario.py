"""Scenario files: TOML in, a checked `Scenario` out. Data only; nothing in one is executed
by reading it.

    load(path)            read, parse and check one file
    catalogue(), find()   the files that ship with the package, by name
    check(...)            the names that only other rooms know: tools, toggles, metrics
    json_schema()         for editors; committed as `scenario.schema.json`

Whatever is wrong with a file ends in `ScenarioError`: `file:line: path: what; remedy`.
"""

import json
import math
import re
import tomllib
import warnings
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from trae_bench.errors import ScenarioError, UsageError
from trae_bench.toml_lines import TomlPath, line_of

Protocol = Literal["openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama_chat"]
# `$` alone would let a trailing newline through.
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)")]

FINISH = "task_done"
"""The tool that ends a session."""
MOST_TURNS = 100_000
"""A script longer than this, repeats counted, is a slip of the keyboard."""


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call of a scripted turn; `{workspace}` in a string is the session's folder."""

    tool: str
    arguments: dict[str, Any] = {}


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the scripted model."""

    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    repeat: Annotated[int, Meta(ge=1, le=MOST_TURNS)] = 1
    """Played so many times; where this is more than 1, `{n}` in a string is the count, from 1."""


class ProviderConditions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the scripted provider behaves."""

    protocol: Protocol = "openai_chat"
    think_seconds: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """Waited before each reply."""


class ToggleUse(Struct, frozen=True, forbid_unknown_fields=True):
    """Which optimisations this scenario can feel, and which are held on or off in every arm."""

    vary: tuple[str, ...]
    hold: dict[str, bool] = {}


class WorkspaceFixture(Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in the session's folder at the start."""

    files: dict[str, str] = {}
    """Text by relative path."""
    ignore: tuple[str, ...] = ("__pycache__", "*.pyc")
    """Names that do not count in the digest of what the session left."""


class Oracle(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be true after the session, whatever was switched on."""

    command: str = ""
    """Run by `sh -c` in the workspace after the session; must exit 0."""
    files: dict[str, str] = {}
    """Exact content by relative path."""
    final_text: str = ""
    """Must occur in the agent's final text."""


class Normalise(Struct, frozen=True, forbid_unknown_fields=True):
    """A pattern in tool output that legitimately varies (a test runner's clock, say)."""

    pattern: str
    """A regular expression of Python's `re`."""
    replace: str
    r"""What stands there instead; `\1` is the first group."""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One scripted session and how it is to be measured."""

    name: Name
    """Lower-case words joined by dashes; the file is called `<name>.toml`."""
    about: str
    """What it can show and what it cannot."""
    task: str
    turns: tuple[Turn, ...]
    toggles: ToggleUse
    metrics: tuple[str, ...]
    provider: ProviderConditions = ProviderConditions()
    workspace: WorkspaceFixture = WorkspaceFixture()
    oracle: Oracle = Oracle()
    normalise: tuple[Normalise, ...] = ()
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 60.0


# -- the catalogue ----------------------------------------------------------------------


def scenario_folder() -> Path:
    """Where the shipped scenarios lie: inside an installed package, beside it in a checkout.

    Raises `UsageError` where they are in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_scenarios", package.parent / "scenarios"):
        if folder.is_dir():
            return folder
    raise UsageError(f"no scenarios beside {package}; install the package again")


def catalogue(folder: Path | None = None) -> dict[str, Path]:
    """The scenario files of a folder by scenario name, sorted. Reads none of them.

    `load` insists that a file is called after its scenario, so no name occurs twice.
    """
    files = (folder or scenario_folder()).glob("*.toml")
    return {path.stem: path for path in sorted(files) if path.stem != "claims"}


def find(name: str) -> Path:
    """The file of a shipped scenario, or `name` itself where it is a path to a file.

    Raises `UsageError` with the nearest known names.
    """
    if name.endswith(".toml"):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"no scenario file {name!r}")
    known = catalogue()
    if name in known:
        return known[name]
    raise UsageError(f"no scenario {name!r}{_suggest(name, known)}")


# -- reading ----------------------------------------------------------------------------


def load(path: Path) -> Scenario:
    """Read and check one file. Raises `ScenarioError`, also where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: byte {error.start}: not UTF-8; save it as UTF-8") from error
    scenario = parse(text, str(path))
    if scenario.name != path.stem:
        named = f"the name is {scenario.name!r} but the file is called {path.name!r}"
        remedy = f"call the file {scenario.name}.toml, so that no name can occur twice"
        raise _error(str(path), text, ("name",), f"{named}; {remedy}")
    return scenario


def parse(text: str, source: str = "<scenario>") -> Scenario:
    """Check a scenario's text. `source` names it in errors. Raises `ScenarioError`."""
    document = _read_toml(text, source)
    try:
        scenario = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        path, problem = _explain(str(error))
        raise _error(source, text, path, problem) from error
    _raise_for(list(_contradictions(scenario)), source, text)
    return scenario


def check(
    scenario: Scenario,
    *,
    tools: Collection[str] | None = None,
    toggles: Collection[str] | None = None,
    metrics: Collection[str] | None = None,
    source: Path | None = None,
) -> None:
    """Hold a scenario's names to the known ones; None leaves a kind unchecked.

    `source` is the file it came from, for the line numbers. Raises `ScenarioError` that
    lists every unknown name.
    """
    found = [
        *(_unknown("tool", _tools(scenario), tools) if tools is not None else ()),
        *(_unknown("toggle", _toggles(scenario), toggles) if toggles is not None else ()),
        *(_unknown("metric", _metrics(scenario), metrics) if metrics is not None else ()),
    ]
    if not found:
        return
    text = source.read_text(encoding="utf-8-sig") if source else ""
    _raise_for(found, str(source or scenario.name), text)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of scenario files, for editors that complete TOML."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trae-bench scenario",
    }
    schema = head | msgspec.json.schema(Scenario)
    for (struct, field), text in _field_docs().items():
        described = schema["$defs"].get(struct, {}).get("properties", {}).get(field)
        if described is not None:
            described["description"] = text
    return schema


def write_json_schema(path: Path | None = None) -> None:
    """Refresh the committed schema after a change of the records above."""
    path = path or Path(__file__).with_name("scenario.schema.json")
    path.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")


def _field_docs() -> dict[tuple[str, str], str]:
    """The docstrings below the records' fields, which exist in the source only."""
    import ast  # for the schema's maker only; every start would pay for it above

    docs: dict[tuple[str, str], str] = {}
    for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
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


# -- what is broken as TOML -------------------------------------------------------------

_AT = re.compile(
    r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end.*)\)$", re.S
)
# tomllib says what it met; these say what it would have liked.
_EXPECTED = {
    "Invalid value": 'expected a value: "text", a number, true, false, [array] or {table}',
    "Invalid statement": "expected `key = value`, `[table]`, `[[table]]` or a comment",
    "Invalid initial character for a key part": "expected a key: letters, digits, _, -, or quoted",
    "Unterminated string": "expected the closing quotes of a string",
    "Unclosed array": "expected `,` or the closing `]` of an array",
    "Unclosed inline table": "expected `,` or the closing `}` of an inline table",
    "Cannot overwrite a value": "expected a key that is not given yet; this one is",
}


def _read_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _AT.match(str(error))
        what = match["what"] if match else str(error)
        if match and match["line"]:
            line, column = int(match["line"]), int(match["column"])
        else:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        expected = _EXPECTED.get(what)
        hint = f"{expected} ({what[0].lower()}{what[1:]})" if expected else what
        raise ScenarioError(f"{source}:{line}:{column}: {hint}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, brackets thousands deep.
        raise ScenarioError(f"{source}: not readable as TOML: {error}") from error


# -- what is broken by type -------------------------------------------------------------

_TYPE_NAMES = {
    "str": 'a string ("...")',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array ([...])",
    "object": "a table ([name] or {...})",
}
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def _explain(message: str) -> tuple[TomlPath, str]:
    """msgspec's words to the path and a sentence with the remedy."""
    what, _, place = message.partition(" - at `$")
    path = _path_of(place.removesuffix("`"))
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.S):
        known = _fields_at(path)
        return (*path, match[1]), f"unknown field{_suggest(match[1], known)}"
    if match := re.fullmatch(r"Object missing required field `(.*)`", what):
        return path, f"`{match[1]}` is missing; add `{match[1]} = ...` here"
    if match := re.fullmatch(r"Invalid enum value '?(.*?)'?", what, re.S):
        return path, f"{match[1]!r} is not allowed here{_suggest(match[1], _choices_at(path))}"
    if match := re.fullmatch(r"Expected `(\w+)`, got `(.+)`", what):
        wanted = _TYPE_NAMES.get(match[1], match[1])
        return path, f"expected {wanted}, got {_TYPE_NAMES.get(match[2], match[2])}"
    if what.startswith("Expected `str` matching regex"):
        return path, "expected lower-case letters and digits, words joined by single dashes"
    return path, what[0].lower() + what[1:]


def _path_of(place: str) -> TomlPath:
    steps: list[str | int] = []
    for name, index in _STEP.findall(place):
        if index == "...":
            break
        steps.append(name if name else int(index))
    return tuple(steps)


def _type_at(path: TomlPath) -> Any:
    at: Any = Scenario
    for step in path:
        if isinstance(at, type) and issubclass(at, Struct):
            types = {field.encode_name: field.type for field in msgspec.structs.fields(at)}
            at = types.get(str(step))
        else:
            arguments = get_args(at)
            at = arguments[0 if isinstance(step, int) else -1] if arguments else None
        if get_origin(at) is Annotated:
            at = get_args(at)[0]
    return at


def _fields_at(path: TomlPath) -> Sequence[str]:
    at = _type_at(path)
    return at.__struct_fields__ if isinstance(at, type) and issubclass(at, Struct) else ()


def _choices_at(path: TomlPath) -> Sequence[str]:
    return [str(choice) for choice in get_args(_type_at(path))]


# -- what contradicts itself ------------------------------------------------------------

Finding = tuple[TomlPath, str]
"""Where, and what with its remedy."""


def _contradictions(scenario: Scenario) -> Iterator[Finding]:
    yield from _of_turns(scenario)
    yield from _of_arguments(scenario)
    yield from _of_lists(scenario)
    yield from _of_paths(scenario)
    for index, rule in enumerate(scenario.normalise):
        yield from _of_pattern(("normalise", index), rule)


def _of_turns(scenario: Scenario) -> Iterator[Finding]:
    if not scenario.turns:
        yield ("turns",), f"no turns; add [[turns]], the last with a call of {FINISH}"
        return
    last = len(scenario.turns) - 1
    for index, turn in enumerate(scenario.turns):
        path = ("turns", index)
        finishes = any(call.tool == FINISH for call in turn.calls)
        if not turn.text and not turn.calls:
            yield path, "an empty turn; give it `text` or `calls`"
        if finishes and index < last:
            yield path, f"{FINISH} ends the session here; drop the turns after it or this call"
        if finishes and turn.repeat > 1:
            yield path, f"a turn that calls {FINISH} is played once; drop `repeat`"
        if index == last and not finishes:
            yield path, f"the session does not end; add a last turn that calls {FINISH}"
    total = sum(turn.repeat for turn in scenario.turns)
    if total > MOST_TURNS:
        yield ("turns",), f"{total} turns, repeats counted; at most {MOST_TURNS} are allowed"


def _of_arguments(scenario: Scenario) -> Iterator[Finding]:
    """Arguments travel as JSON, which knows no dates, no NaN and no endless integers."""
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            root: TomlPath = ("turns", index, "calls", number, "arguments")
            for path, value in _leaves(root, call.arguments):
                if not _has_json_form(value):
                    yield path, f"{value} has no JSON form; write a string, number, true or false"


def _has_json_form(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _leaves(path: TomlPath, value: object) -> Iterator[tuple[TomlPath, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves((*path, key), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves((*path, index), item)
    else:
        yield path, value


def _of_lists(scenario: Scenario) -> Iterator[Finding]:
    if not scenario.metrics:
        yield ("metrics",), 'nothing to measure; name at least one, as in `metrics = ["cpu"]`'
    named = ((("metrics",), scenario.metrics), (("toggles", "vary"), scenario.toggles.vary))
    for path, names in named:
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield path, f"{name!r} stands here twice; drop one"
    for name in scenario.toggles.vary:
        if name in scenario.toggles.hold:
            yield ("toggles", "hold", name), f"{name!r} is both varied and held; drop one"


def _of_paths(scenario: Scenario) -> Iterator[Finding]:
    for table, files in (
        ("workspace", scenario.workspace.files),
        ("oracle", scenario.oracle.files),
    ):
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
        for name in files:
            path, clean = (table, "files", name), PurePosixPath(name)
            if not name.strip() or clean.is_absolute() or ".." in clean.parts or "\0" in name:
                yield path, f"{name!r} is not a path inside the workspace; write it relative to it"
            elif str(clean) != name:
                yield path, f"{name!r} is not the plain form of its path; write {str(clean)!r}"
            elif name in folders:
                yield path, f"{name!r} is a file here and a folder elsewhere; rename one"


def _of_pattern(path: TomlPath, rule: Normalise) -> Iterator[Finding]:
    try:
        with warnings.catch_warnings():
            # `[[` and the like: a pattern that will mean something else in a later Python.
            warnings.simplefilter("error")
            pattern = re.compile(rule.pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        yield (*path, "pattern"), f"not a regular expression: {error}; escape special characters"
        return
    try:
        pattern.sub(rule.replace, "")
    except (re.error, IndexError) as error:
        remedy = r"use \1 ... for groups of the pattern, \\ for a backslash"
        yield (*path, "replace"), f"not a replacement for that pattern: {error}; {remedy}"


# -- names that other rooms know --------------------------------------------------------

Named = Iterator[tuple[TomlPath, str]]


def _tools(scenario: Scenario) -> Named:
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            yield ("turns", index, "calls", number, "tool"), call.tool


def _toggles(scenario: Scenario) -> Named:
    for index, name in enumerate(scenario.toggles.vary):
        yield ("toggles", "vary", index), name
    for name in scenario.toggles.hold:
        yield ("toggles", "hold", name), name


def _metrics(scenario: Scenario) -> Named:
    for index, name in enumerate(scenario.metrics):
        yield ("metrics", index), name


def _unknown(kind: str, named: Named, known: Collection[str]) -> Iterator[Finding]:
    for path, name in named:
        if name not in known:
            yield path, f"no {kind} {name!r}{_suggest(name, known)}"


# -- saying it --------------------------------------------------------------------------


def _suggest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=2, cutoff=0.5)
    meant = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{meant} Known: {', '.join(sorted(known)) or 'none'}"


def _raise_for(findings: Sequence[Finding], source: str, text: str) -> None:
    if findings:
        errors = [str(_error(source, text, path, problem)) for path, problem in findings]
        raise ScenarioError("\n".join(errors))


def _error(source: str, text: str, path: TomlPath, problem: str) -> ScenarioError:
    line = f":{line_of(text, path)}" if text else ""
    return ScenarioError(f"{source}{line}: {_show(path)}: {problem}")


def _show(path: TomlPath) -> str:
    shown = "$"
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}"
    return shown
