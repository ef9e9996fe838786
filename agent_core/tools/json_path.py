"""The subset of JSONPath in `json_edit_tool`: $ .name ['name'] [index] .* [*]."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from agent_core.errors import ToolError

Step = str | int | Literal[True]
"""A key, an index, or True for all children."""

_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]*'"\s]+) | \.(?P<each>\*) | \[(?P<every>\*)\] | \[(?P<index>-?\d+)\]
      | \['(?P<single>(?:[^'\\]|\\.)*)'\] | \["(?P<double>(?:[^"\\]|\\.)*)"\]""",
    re.VERBOSE,
)


class Place(Struct, frozen=True):
    """One child of a container. For `add`, it need not exist yet."""

    parent: Any
    key: str | int

    def value(self) -> Any:
        return self.parent[self.key]


def parse(path: str) -> list[Step]:
    """The steps of `path`. Raises `ToolError` for unsupported syntax."""
    rest = path.strip()
    at = 1 if rest.startswith("$") else 0
    if at == 0 and rest and rest[0] not in ".[":
        rest = f".{rest}"
    steps: list[Step] = []
    while at < len(rest):
        match = _STEP.match(rest, at)
        if match is None:
            raise ToolError(
                f"json_path '{path}' is invalid from '{rest[at:]}' on. Paths consist of"
                " .name, ['name'], [index], .* and [*]."
            )
        steps.append(_step(match))
        at = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    kind = str(match.lastgroup)
    if kind in ("each", "every"):
        return True
    if kind == "index":
        return int(match["index"])
    if kind == "name":
        return match["name"]
    return re.sub(r"\\(.)", r"\1", match[kind])


def find(data: Any, steps: list[Step]) -> list[Any]:
    """The values at `steps`, or `data` itself if there are none."""
    return [data] if not steps else [place.value() for place in places(data, steps)]


def places(data: Any, steps: list[Step]) -> list[Place]:
    """The existing places at `steps`, which must not be empty."""
    return [
        Place(parent, key) for parent in find(data, steps[:-1]) for key in _keys(parent, steps[-1])
    ]


def _keys(container: Any, step: Step) -> Iterator[str | int]:
    """The existing keys of `container` that match `step`."""
    if isinstance(container, dict):
        if step is True:
            yield from container
        elif isinstance(step, str) and step in container:
            yield step
    elif isinstance(container, list):
        if step is True:
            yield from range(len(container))
        elif isinstance(step, int) and -len(container) <= step < len(container):
            yield step % len(container)
