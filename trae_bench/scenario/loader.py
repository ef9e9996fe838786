"""Read a scenario file and validate it."""

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
from trae_bench.scenario.variants import SEPARATOR, apply_variant, source_path

MAX_FOLDER_BYTES = 16 * 1024 * 1024
"""Maximum size of a workspace folder."""


def load(path: Path, variant: str = "") -> Scenario:
    """Read and validate one file. The workspace's `folder` is read into its `files`.

    With `variant`, return that variant, named `scenario@variant`. Raises `ScenarioError` if the
    file is unreadable, or if the scenario or any of its variants is invalid.
    """
    text = text_of(path)
    return _placed(parse(text, str(path), variant), path, text)


def load_all(path: Path) -> list[Scenario]:
    """Read one file as `load` does. Return the scenario, followed by its variants."""
    text = text_of(path)
    scenario, variants = _parse_all(text, str(path))
    return [_placed(one, path, text) for one in (scenario, *variants.values())]


def _placed(scenario: Scenario, path: Path, text: str) -> Scenario:
    """Check the name against the file's, and read the workspace's folder."""
    if scenario.name.partition(SEPARATOR)[0] != path.stem:
        named = f"the name is {scenario.name!r} but the file is named {path.name!r}"
        remedy = f"rename the file to {scenario.name}.toml, so that names stay unique"
        raise error_at(str(path), text, ("name",), f"{named}; {remedy}")
    try:
        return _with_folder(scenario, path.parent)
    except ValueError as error:
        raise error_at(str(path), text, ("workspace", "folder"), str(error)) from error


def parse(text: str, source: str = "<scenario>", variant: str = "") -> Scenario:
    """Validate the text of a scenario. `source` names it in errors. Raises `ScenarioError`.

    The workspace's `folder` is not read, because its location is unknown here.
    """
    scenario, variants = _parse_all(text, source)
    if variant and variant not in variants:
        raise ScenarioError(f"{source}: no variant {variant!r}{suggestion(variant, variants)}")
    return variants[variant] if variant else scenario


def _parse_all(text: str, source: str) -> tuple[Scenario, dict[str, Scenario]]:
    """Validate the text. Return the scenario, and its variants by their names."""
    document = read_toml(text, source)
    try:
        scenario = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error))
        raise error_at(source, text, path, problem) from error
    raise_for([*contradictions(scenario), *_empty_oracle(document, scenario)], source, text)
    return scenario, {
        declared.name: _parse_variant(document, index, text, source)
        for index, declared in enumerate(scenario.variants)
    }


def _empty_oracle(document: Mapping[str, Any], scenario: Scenario) -> Iterator[Diagnostic]:
    """Reject an oracle without a condition. A variant may have one, to remove the scenario's."""
    if "oracle" in document and scenario.oracle == Oracle():
        remedy = "set `command`, `files` or `final_text`, or remove it"
        yield ("oracle",), f"the oracle checks nothing; {remedy}"


def _parse_variant(document: dict[str, Any], index: int, text: str, source: str) -> Scenario:
    """Return one variant of the document, validated like a scenario."""
    changes = document["variants"][index]
    try:
        scenario = msgspec.convert(apply_variant(document, changes), Scenario)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error))
        raise error_at(source, text, source_path(path, changes, index), problem) from error
    diagnostics = [
        (source_path(path, changes, index), f"variant {changes['name']}: {problem}")
        for path, problem in contradictions(scenario)
    ]
    raise_for(diagnostics, source, text)
    return msgspec.structs.replace(scenario, name=f"{scenario.name}{SEPARATOR}{changes['name']}")


def text_of(path: Path) -> str:
    """Return the text of a TOML file. Raises `ScenarioError` if it is unreadable or not UTF-8."""
    try:
        return bounded_io.text(path)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror or error}; check its path") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: byte {error.start}: not UTF-8; save it as UTF-8") from error


def _with_folder(scenario: Scenario, base: Path) -> Scenario:
    """Copy the files of the workspace's folder into the scenario, so its digest includes them.

    `base` is the folder of the scenario file. Raises `ValueError` if the folder is unusable.
    """
    fixture = scenario.workspace
    if not fixture.folder:
        return scenario
    base = base.resolve()
    root = (base / fixture.folder).resolve()
    if not root.is_relative_to(base) or root == base or not root.is_dir():
        raise ValueError(
            f"no folder {fixture.folder!r} below the scenario file's folder; create it there"
        )
    # An installer can add byte-code files; `ignore` leaves them out.
    files = files_below(root, fixture.ignore) | fixture.files
    return msgspec.structs.replace(
        scenario, workspace=msgspec.structs.replace(fixture, files=files)
    )


def ignored(relative: str, ignore: Sequence[str]) -> bool:
    """Return True if a shell pattern matches the file name or the whole relative path."""
    names = (relative.rpartition("/")[2], relative)
    return any(fnmatch(name, pattern) for name in names for pattern in ignore)


def files_below(root: Path, ignore: Sequence[str] = ()) -> dict[str, str]:
    """Return the text of all files below `root` by relative path.

    Ignored files and the content of ignored folders are left out. Raises `ValueError` for a
    link, a file that is not UTF-8, or more than `MAX_FOLDER_BYTES` in total.
    """
    files: dict[str, str] = {}
    size = 0
    for path in sorted(root.rglob("*")):
        location = path.relative_to(root)
        folders = location.parents[:-1]
        if any(ignored(part.as_posix(), ignore) for part in (location, *folders)):
            continue
        relative = location.as_posix()
        if path.is_symlink():
            raise ValueError(f"{relative} is a link; replace it with the file")
        if not path.is_file():
            continue
        size += path.stat().st_size
        if size > MAX_FOLDER_BYTES:
            raise ValueError(f"the folder has more than {MAX_FOLDER_BYTES >> 20} MB; remove files")
        try:
            relative.encode()
            files[relative] = path.read_bytes().decode()
        except UnicodeError as error:
            remedy = "a workspace file must be text; let the session create it"
            raise ValueError(f"{relative} is not UTF-8; {remedy}") from error
    return files
