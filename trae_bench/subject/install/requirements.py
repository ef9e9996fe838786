"""What this distribution needs, by its extras: requirements and markers as PEP 508 has them.

In a checkout pyproject.toml says so, elsewhere the metadata of what is installed.
"""

import ast
import operator
import os
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench._util import bounded_io
from trae_bench.errors import CannotMeasure

DISTRIBUTION = "trae-bench"
_REQUIREMENT = re.compile(
    r"\s*(?P<name>[\w.-]+)\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<version>[^;]*?)\s*"
    r"(?:;\s*(?P<marker>.*\S))?\s*"
)


class Requirement(Struct, frozen=True):
    """A distribution that another one asks for."""

    name: str
    """Lower-case words joined by dashes, as PEP 503 has it."""
    extras: tuple[str, ...] = ()
    version: str = ""
    """Which will do, `>=1,<2` say, or `@URL`; empty for any."""
    marker: str = ""
    """When it is asked for at all; empty for always."""

    def __str__(self) -> str:
        """As a command line wants it, without the marker."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras} {self.version}".rstrip()


class Declared(Struct, frozen=True):
    """What a distribution says of itself."""

    requirements: tuple[Requirement, ...] = ()
    extras: frozenset[str] = frozenset()


class Project(Struct, frozen=True):
    """What is needed of the `[project]` of a pyproject.toml."""

    name: str = ""
    dependencies: tuple[str, ...] = ()
    extras: dict[str, tuple[str, ...]] = msgspec.field(
        default_factory=dict, name="optional-dependencies"
    )


def parse(text: str) -> Requirement:
    """Raises `ValueError` for what is no requirement."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no requirement")
    extras = (normal(extra.strip()) for extra in (match["extras"] or "").split(","))
    return Requirement(
        normal(match["name"]),
        tuple(extra for extra in extras if extra),
        match["version"].replace(" ", "").strip("()"),
        match["marker"] or "",
    )


def normal(name: str) -> str:
    """The one spelling of a distribution's or an extra's name (PEP 503, PEP 685)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: Path | None = None) -> Declared:
    """Of this distribution; nothing where nobody knows. `package` is this package's folder.

    Raises `CannotMeasure` for what cannot be read as requirements.
    """
    file = (package or Path(__file__).resolve().parents[2]).parent / "pyproject.toml"
    try:
        project = project_of(file)
    except (OSError, ValueError):
        project = Project()
    if project.name == DISTRIBUTION:
        try:
            return _of_project(project)
        except ValueError as error:
            raise CannotMeasure(f"{file}: {error}") from error
    try:
        there = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Declared()
    extras = frozenset(there.metadata.get_all("Provides-Extra") or ())
    return Declared(tuple(map(parse, there.requires or ())), extras)


def project_of(file: Path) -> Project:
    """The `[project]` of a pyproject.toml. Raises `OSError`, and `ValueError` for what is none."""
    try:
        table = tomllib.loads(bounded_io.text(file)).get("project", {})
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return msgspec.convert(table, Project)


def _of_project(project: Project) -> Declared:
    extras = project.extras
    always = [parse(text) for text in project.dependencies]
    sometimes = [
        Requirement(asked.name, asked.extras, asked.version, _with_extra(asked.marker, extra))
        for extra, texts in extras.items()
        for asked in map(parse, texts)
    ]
    return Declared((*always, *sometimes), frozenset(extras))


def _with_extra(marker: str, extra: str) -> str:
    asked = f'extra == "{extra}"'
    return f"({marker}) and {asked}" if marker else asked


def needed(extras: Collection[str], of: Declared) -> tuple[Requirement, ...]:
    """What has to be there for these extras, in order of names, without markers: those that
    are not true here are left out, and the distribution's own extras are followed.

    Raises `CannotMeasure` for a marker that cannot be read.
    """
    found: set[tuple[str, tuple[str, ...], str]] = set()
    todo, done = ["", *extras], set()
    while todo:
        extra = todo.pop()
        if extra in done:
            continue
        done.add(extra)
        for asked in of.requirements:
            try:
                wanted = holds(asked.marker, extra)
            except ValueError as error:
                raise CannotMeasure(f"{asked.name}: {error}") from error
            if not wanted:
                continue
            if asked.name == DISTRIBUTION:
                todo += asked.extras
            else:
                found.add((asked.name, asked.extras, asked.version))
    return tuple(Requirement(*each) for each in sorted(found))


def closure(asked: Collection[Requirement]) -> dict[str, metadata.Distribution]:
    """All that is installed here because of these requirements, by name.

    Raises `LookupError` for what is not installed, `ValueError` for what it cannot read.
    """
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    todo = list(asked)
    while todo:
        one = todo.pop()
        if one.name not in found:
            found[one.name] = _installed(one.name)
        for extra in ("", *one.extras):
            if (one.name, extra) not in done:
                done.add((one.name, extra))
                further = map(parse, found[one.name].requires or ())
                todo += [each for each in further if holds(each.marker, extra)]
    return found


def _installed(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise LookupError(f"{name} is not installed here") from error


# -- markers ----------------------------------------------------------------------------

_VERSIONS = frozenset({"python_version", "python_full_version", "implementation_version"})
_OPERATORS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


def holds(marker: str, extra: str = "") -> bool:
    """Whether a marker is true of this Python, here, with that extra.

    A marker is a Python expression but for the operators `~=` and `===`, which hardly anyone
    uses in one. Raises `ValueError` for what it cannot read.
    """
    if not marker:
        return True
    try:
        return _true(ast.parse(marker, mode="eval").body, _here() | {"extra": extra})
    except (SyntaxError, KeyError, RecursionError) as error:
        raise ValueError(f"{marker!r} cannot be read as a marker") from error


def _true(node: ast.expr, here: Mapping[str, str]) -> bool:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(_true(value, here) for value in node.values)
        case ast.BoolOp():
            return any(_true(value, here) for value in node.values)
        case ast.Compare(ops=[op], comparators=[right]):
            names = {side.id for side in (node.left, right) if isinstance(side, ast.Name)}
            texts = [_text(side, here) for side in (node.left, right)]
            if "extra" in names:
                texts = [normal(text) for text in texts]
            if names & _VERSIONS and not isinstance(op, ast.In | ast.NotIn):
                return _OPERATORS[type(op)](*map(_version, texts))
            return _OPERATORS[type(op)](*texts)
    raise ValueError(f"{ast.unparse(node)!r} cannot be read as part of a marker")


def _text(node: ast.expr, here: Mapping[str, str]) -> str:
    match node:
        case ast.Name(id=name):
            return here[name]
        case ast.Constant(value=str(text)):
            return text
    raise ValueError(f"{ast.unparse(node)!r} cannot be read as part of a marker")


def _version(text: str) -> list[int]:
    """The release, without zeros at the end: 3.11 and 3.11.0 are one."""
    match = re.match(r"\d+(\.\d+)*$|\d+(\.\d+)*(?=[a-z+])", text)
    if match is None:
        raise ValueError(f"{text!r} cannot be read as a version in a marker")
    numbers = [int(number) for number in match[0].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _here() -> dict[str, str]:
    """What a marker can ask for, by PEP 508."""
    return {
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "implementation_name": sys.implementation.name,
        "implementation_version": platform.python_version(),
    }
