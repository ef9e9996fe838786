"""Read the calls of a scripted turn, which are agent_core's, as actions."""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from trae_bench.errors import CannotMeasure
from trae_bench.scenario import shell_actions
from trae_bench.scenario.actions import Action
from trae_bench.scenario.model import FINISH_TOOL, Scenario, ScriptedCall, Turn

FINAL_TEXT = "Done."
"""Text of a last turn that has none."""
THINKING_TOOL = "sequentialthinking"
_NO_ACTION = ("json_edit_tool", "ckg")
_WORKSPACE = "{workspace}"


class Step(Struct, frozen=True):
    """One action with its values.

    A view of some lines also has `range`, `first`, and unless they end the file `last` and `count`.
    """

    action: Action
    values: dict[str, Any]
    folder: bool = False
    """The view is of a folder."""


def actions_of(turn: Turn, folders: Collection[str] = ()) -> tuple[Step, ...] | None:
    """Read the calls of a turn as actions, without those that only think.

    Views of `folders` are marked. None if a tool is not agent_core's. Raises `CannotMeasure` for
    a call without an action.
    """
    steps: list[Step] = []
    for call in turn.calls:
        if call.tool not in _READERS and call.tool not in _NO_ACTION:
            return None
    for call in turn.calls:
        if call.tool in _NO_ACTION:
            raise CannotMeasure(
                f"no other agent has a tool like {call.tool}; write the call as a command of bash"
            )
        try:
            steps += _READERS[call.tool](arguments_of(call), folders)
        except (KeyError, TypeError, ValueError) as error:
            raise CannotMeasure(f"a call of {call.tool} is not an action: {error!r}") from error
    if any(step.action == "finish" for step in steps):
        # agent_core does not run the other calls of the reply that ends the session.
        return (Step("finish", {"text": turn.text or FINAL_TEXT}),)
    return tuple(steps)


def _bash(arguments: dict[str, Any], _: Collection[str]) -> Iterator[Step]:
    if not arguments.get("restart"):
        yield Step("run", {"command": _text(arguments, "command")})


def _edit(arguments: dict[str, Any], folders: Collection[str]) -> Iterator[Step]:
    path = _absolute(_text(arguments, "path"))
    match arguments["command"]:
        case "view":
            lines = _lines(arguments.get("view_range"))
            yield Step("view", {"path": path, **lines}, path in folders)
        case "create":
            yield Step("write", {"path": path, "text": _text(arguments, "file_text")})
        case "str_replace":
            old, new = _text(arguments, "old_str"), _text({"new_str": "", **arguments}, "new_str")
            yield Step("replace", {"path": path, "old": old, "new": new})
        case "insert":
            line, new = arguments["insert_line"], _text(arguments, "new_str")
            yield Step("run", {"command": shell_actions.insert(path, line, new)})
        case command:
            raise ValueError(f"no command {command!r}")


def _thinking(_: dict[str, Any], __: Collection[str]) -> Iterator[Step]:
    yield from ()


def _finish(_: dict[str, Any], __: Collection[str]) -> Iterator[Step]:
    yield Step("finish", {})


_READERS: dict[str, Callable[[dict[str, Any], Collection[str]], Iterator[Step]]] = {
    "bash": _bash,
    "str_replace_based_edit_tool": _edit,
    THINKING_TOOL: _thinking,
    FINISH_TOOL: _finish,
}
"""Tools of agent_core whose calls are actions."""


def _text(arguments: dict[str, Any], name: str) -> str:
    value = arguments[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value


def _absolute(path: str) -> str:
    """A relative path starts at the workspace. Many agents' tools demand absolute ones."""
    plain = str(PurePosixPath(path))
    return plain if plain.startswith(("/", _WORKSPACE)) else str(PurePosixPath(_WORKSPACE, plain))


def _lines(view_range: list[int] | None) -> dict[str, Any]:
    if not view_range:
        return {}
    first, last = view_range
    end = {} if last == -1 else {"last": last, "count": last - first + 1}
    return {"range": [first, last], "first": first, **end}


def arguments_of(call: ScriptedCall) -> dict[str, Any]:
    """The arguments of a call, whichever field has them."""
    given: dict[str, Any] = (
        json.loads(call.arguments_json) if call.arguments_json else call.arguments
    )
    return given


def folders_of(scenario: Scenario) -> set[str]:
    """The folders of the initial workspace."""
    generated = scenario.workspace.generate
    files = [*scenario.workspace.files, *([generated.pattern] if generated else ())]
    folders = {_WORKSPACE}
    for parts in (name.split("/") for name in files):
        folders |= {"/".join((_WORKSPACE, *parts[:end])) for end in range(1, len(parts))}
    return folders
