"""From a file to a checked `Scenario`."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from trae_bench._util import bounded_io
from trae_bench.errors import ScenarioError
from trae_bench.scenario.diagnostics import Diagnostic, error_at, raise_for, suggestion
from trae_bench.scenario.model import Oracle, Scenario
from trae_bench.scenario.toml_errors import explain, read_toml
from trae_bench.scenario.validation import contradictions
from trae_bench.scenario.variants import MARK, at_home, merged

MAX_FOLDER = 16 * 1024 * 1024
"""Bytes; a folder larger than this is no fixture."""


def load(path: Path, variant: str = "") -> Scenario:
    """Read and check one file; the workspace's `folder` is read into its `files`.

    With `variant`, the scenario is that variant of the file's, and its name says so. Raises
    `ScenarioError`, also where something cannot be read, and for any variant of the file.
    """
    text = text_of(path)
    scenario = parse(text, str(path), variant)
    if scenario.name.partition(MARK)[0] != path.stem:
        named = f"the name is {scenario.name!r} but the file is called {path.name!r}"
        remedy = f"call the file {scenario.name}.toml, so that no name can occur twice"
        raise error_at(str(path), text, ("name",), f"{named}; {remedy}")
    try:
        return _with_folder(scenario, path.parent)
    except ValueError as error:
        raise error_at(str(path), text, ("workspace", "folder"), str(error)) from error


def parse(text: str, source: str = "<scenario>", variant: str = "") -> Scenario:
    """Check a scenario's text. `source` names it in errors. Raises `ScenarioError`.

    A `folder` of the workspace is left as it is: only `load` knows where it would be.
    """
    document = read_toml(text, source)
    try:
        scenario = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error))
        raise error_at(source, text, path, problem) from error
    raise_for([*contradictions(scenario), *_idle(document, scenario)], source, text)
    found = {
        each.name: _variant(document, index, text, source)
        for index, each in enumerate(scenario.variants)
    }
    if variant and variant not in found:
        raise ScenarioError(f"{source}: no variant {variant!r}{suggestion(variant, found)}")
    return found[variant] if variant else scenario


def _idle(document: Mapping[str, Any], scenario: Scenario) -> Iterator[Diagnostic]:
    """Not of a variant: an empty text there takes back what the scenario asks for."""
    if "oracle" in document and scenario.oracle == Oracle():
        remedy = "give it `command`, `files` or `final_text`, or drop it"
        yield ("oracle",), f"an oracle that looks at nothing; {remedy}"


def _variant(document: dict[str, Any], index: int, text: str, source: str) -> Scenario:
    """One variant of the document, checked like a scenario of its own."""
    changes = document["variants"][index]
    try:
        scenario = msgspec.convert(merged(document, changes), Scenario)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error))
        raise error_at(source, text, at_home(path, changes, index), problem) from error
    found = [
        (at_home(path, changes, index), f"variant {changes['name']}: {problem}")
        for path, problem in contradictions(scenario)
    ]
    raise_for(found, source, text)
    return msgspec.structs.replace(scenario, name=f"{scenario.name}{MARK}{changes['name']}")


def text_of(path: Path) -> str:
    """A TOML file's text. Raises `ScenarioError`."""
    try:
        return bounded_io.text(path)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: byte {error.start}: not UTF-8; save it as UTF-8") from error


def _with_folder(scenario: Scenario, beside: Path) -> Scenario:
    """The scenario as if its folder's files stood in it, so that they count in its digest.

    Raises `ValueError` for a folder that cannot be a fixture.
    """
    fixture = scenario.workspace
    if not fixture.folder:
        return scenario
    beside = beside.resolve()
    root = (beside / fixture.folder).resolve()
    if not root.is_relative_to(beside) or root == beside or not root.is_dir():
        raise ValueError(f"no folder {fixture.folder!r} below the scenario's own; add it there")
    # An installer may have put byte-code beside them.
    files = files_below(root, fixture.ignore) | fixture.files
    return msgspec.structs.replace(
        scenario, workspace=msgspec.structs.replace(fixture, files=files)
    )


def ignored(relative: str, ignore: Sequence[str]) -> bool:
    """Whether one of these shell patterns is of this name, or of this whole relative path."""
    spellings = (relative.rpartition("/")[2], relative)
    return any(fnmatch(spelling, pattern) for spelling in spellings for pattern in ignore)


def files_below(root: Path, ignore: Sequence[str] = ()) -> dict[str, str]:
    """Text by relative path, but for what is ignored or lies in an ignored folder.

    Raises `ValueError` for what cannot be a fixture.
    """
    found: dict[str, str] = {}
    size = 0
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if any(ignored(each.as_posix(), ignore) for each in (place, *place.parents[:-1])):
            continue
        relative = place.as_posix()
        if path.is_symlink():
            raise ValueError(f"{relative} is a link; put the file itself there")
        if not path.is_file():
            continue
        size += path.stat().st_size
        if size > MAX_FOLDER:
            raise ValueError(f"the folder has more than {MAX_FOLDER >> 20} MB; take some out")
        try:
            relative.encode()
            found[relative] = path.read_bytes().decode()
        except UnicodeError as error:
            remedy = "only text can be a fixture; let the task make it"
            raise ValueError(f"{relative} is not UTF-8; {remedy}") from error
    return found
