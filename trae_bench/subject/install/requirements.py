"""The requirements of this distribution and its extras, as PEP 508 defines them.

They come from pyproject.toml in a checkout, otherwise from the installed metadata.
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
    """A distribution that another one requires."""

    name: str
    """Normalised by PEP 503: lower case, with dashes."""
    extras: tuple[str, ...] = ()
    version: str = ""
    """Version specifier such as `>=1,<2`, or `@URL`. Empty for any version."""
    marker: str = ""
    """Condition under which it is required. Empty for always."""

    def __str__(self) -> str:
        """Format for a command line, without the marker."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras} {self.version}".rstrip()


class Declared(Struct, frozen=True):
    """The requirements and extras that a distribution declares."""

    requirements: tuple[Requirement, ...] = ()
    extras: frozenset[str] = frozenset()


class Project(Struct, frozen=True):
    """The fields of `[project]` in pyproject.toml that are used here."""

    name: str = ""
    dependencies: tuple[str, ...] = ()
    extras: dict[str, tuple[str, ...]] = msgspec.field(
        default_factory=dict, name="optional-dependencies"
    )
    python: str = msgspec.field(default="", name="requires-python")


def parse(text: str) -> Requirement:
    """Parse a requirement. Raises `ValueError` if it is invalid."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a requirement")
    extras = (normal(extra.strip()) for extra in (match["extras"] or "").split(","))
    return Requirement(
        normal(match["name"]),
        tuple(extra for extra in extras if extra),
        match["version"].replace(" ", "").strip("()"),
        match["marker"] or "",
    )


def normal(name: str) -> str:
    """Normalise the name of a distribution or extra (PEP 503, PEP 685)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: Path | None = None) -> Declared:
    """Return what this distribution declares. Empty if there is neither project nor metadata.

    `package` is this package's folder. Raises `CannotMeasure` if a requirement is invalid.
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
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Declared()
    extras = frozenset(installed.metadata.get_all("Provides-Extra") or ())
    return Declared(tuple(map(parse, installed.requires or ())), extras)


def project_of(file: Path) -> Project:
    """Read `[project]` from pyproject.toml. Raises `OSError`, or `ValueError` if it is invalid."""
    try:
        table = tomllib.loads(bounded_io.text(file)).get("project", {})
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return msgspec.convert(table, Project)


def _of_project(project: Project) -> Declared:
    extras = project.extras
    always = [parse(text) for text in project.dependencies]
    optional = [
        Requirement(need.name, need.extras, need.version, _with_extra(need.marker, extra))
        for extra, texts in extras.items()
        for need in map(parse, texts)
    ]
    return Declared((*always, *optional), frozenset(extras))


def _with_extra(marker: str, extra: str) -> str:
    condition = f'extra == "{extra}"'
    return f"({marker}) and {condition}" if marker else condition


def needed(extras: Collection[str], project: Declared) -> tuple[Requirement, ...]:
    """Return the requirements of these extras on this host, sorted by name, without markers.

    References to the distribution's own extras are followed. Raises `CannotMeasure` if a marker
    is invalid.
    """
    found: set[tuple[str, tuple[str, ...], str]] = set()
    todo, done = ["", *extras], set()
    while todo:
        extra = todo.pop()
        if extra in done:
            continue
        done.add(extra)
        for need in project.requirements:
            try:
                applies = holds(need.marker, extra)
            except ValueError as error:
                raise CannotMeasure(f"{need.name}: {error}") from error
            if not applies:
                continue
            if need.name == DISTRIBUTION:
                todo += need.extras
            else:
                found.add((need.name, need.extras, need.version))
    return tuple(Requirement(*fields) for fields in sorted(found))


def closure(requirements: Collection[Requirement]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions of these requirements and their dependencies, by name.

    Raises `LookupError` if one is not installed, `ValueError` if its metadata is invalid.
    """
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    todo = list(requirements)
    while todo:
        need = todo.pop()
        if need.name not in found:
            found[need.name] = _installed(need.name)
        for extra in ("", *need.extras):
            if (need.name, extra) not in done:
                done.add((need.name, extra))
                dependencies = map(parse, found[need.name].requires or ())
                todo += [other for other in dependencies if holds(other.marker, extra)]
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
    """Return whether a marker is true for this Python, this host and this extra.

    Markers are parsed as Python expressions. The operators `~=` and `===` are not supported.
    Raises `ValueError` if a marker cannot be read.
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
    """Return the release numbers without trailing zeros, so that 3.11 equals 3.11.0."""
    match = re.match(r"\d+(\.\d+)*$|\d+(\.\d+)*(?=[a-z+])", text)
    if match is None:
        raise ValueError(f"{text!r} cannot be read as a version in a marker")
    numbers = [int(number) for number in match[0].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


_CLAUSE = re.compile(r"(?P<operator>~=|===?|!=|[<>]=?)(?P<version>\d+(\.\d+)*)(?P<any>\.\*)?.*")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def allows_python(specifier: str) -> bool:
    """Return whether a version specifier (PEP 440) allows the running version of Python.

    Parts of a version after its numbers, such as `rc1`, are ignored. Raises `ValueError` if the
    specifier cannot be read.
    """
    clauses = [clause.replace(" ", "") for clause in specifier.split(",") if clause.strip()]
    return all(map(_clause_holds, clauses))


def _clause_holds(text: str) -> bool:
    clause = _CLAUSE.fullmatch(text)
    if clause is None:
        raise ValueError(f"{text!r} cannot be read as a version of requires-python")
    here, kind = list(sys.version_info[:3]), clause["operator"]
    numbers = [int(number) for number in clause["version"].split(".")]
    padded = numbers + [0] * (len(here) - len(numbers))
    if kind in _COMPARE:
        return _COMPARE[kind](here, padded)
    if kind == "~=":
        return here >= padded and here[: len(numbers) - 1] == numbers[:-1]
    equal = here[: len(numbers)] == numbers if clause["any"] else here == padded
    return equal != (kind == "!=")


def _here() -> dict[str, str]:
    """Return the environment variables of markers (PEP 508)."""
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
