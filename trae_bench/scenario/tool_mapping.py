"""Derive an agent's tool for each action from the tools in its first request.

Names of tools and parameters decide. A tool that could do something else than its name says,
such as one that appends or that takes code, is left out: the action is then done by `run`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from trae_bench.scenario.actions import Action, ToolMapping, ToolSchema
from trae_bench.scenario.tool_parameters import (
    PLAIN_VALUES,
    Parameter,
    Tool,
    last_part,
    plain,
    read_tool,
    words,
)

_SHELLS = words("bash shell terminal exec execute run cmd sh console")
_OTHER_CODE = words(
    "python py ipython code repl node javascript js typescript sql query notebook jupyter browser "
    "powershell test tests ssh slash skill git background output kill"
)
_OTHER_FILES = words(
    "append dir directory folder image media notebook list tree todo todos memory memories plan "
    "url web page pdf lines regex all multi multiple batch many"
)
_REMOTE = words("owner repo repository bucket url branch sha")
_FINISHES = words(
    "taskdone finish finished finishtask submit submitanswer finalanswer done complete "
    "completetask taskcomplete attemptcompletion terminate"
)
_COMMANDS: dict[Action, tuple[str, ...]] = {
    "view": ("view", "read", "open"),
    "write": ("create", "write"),
    "replace": ("str_replace", "replace", "edit"),
}
"""Values of the `command` of an editor with several commands."""
_VERBS: dict[Action, frozenset[str]] = {
    "view": words("read view cat open"),
    "write": words("write create save"),
    "replace": words("edit replace str update patch"),
}
_FILE_ROLES: dict[Action, tuple[str, ...]] = {
    "view": ("path",),
    "write": ("path", "text"),
    "replace": ("path", "old", "new"),
}
_PREFERRED: dict[Action, frozenset[str]] = {
    "run": words("bash shell"),
    "view": words("read view readfile viewfile"),
    "write": words("write create writefile createfile"),
    "replace": words("edit replace strreplace editfile"),
    "finish": frozenset(),
}
"""Names that come first if several tools can do an action."""


def tools_from(schemas: Sequence[ToolSchema]) -> dict[Action, ToolMapping]:
    """The tool for each action that the tools of a request can do; others are left out.

    A required parameter without a role gets a constant of its type. If several tools fit, a
    tool that is named after the action comes first, then the first in the request.
    """
    tools = [read_tool(schema.name, schema.parameters) for schema in schemas]
    mapped: dict[Action, ToolMapping] = {}
    for action in get_args(Action):
        found = [made for tool in tools if (made := _mapped(action, tool))]
        if found:
            mapped[action] = min(found, key=lambda one: _is_second_choice(action, one))
    return mapped


def missing_actions(tools: Mapping[Action, ToolMapping]) -> dict[Action, str]:
    """A sentence for each action without a tool: how it is done instead, or that it cannot be."""
    by_run: dict[Action, str] = {
        "view": "by `run` with cat",
        "write": "by `run` with printf",
        "replace": "by `run` with python3",
    }
    sentences: dict[Action, str] = {}
    for action in get_args(Action):
        if action == "finish":
            how = "the last reply is plain text"
        elif action in by_run and "run" in tools:
            how = by_run[action]
        else:
            how = f"cannot be done; add [tools.{action}] to the entry"
        if action not in tools:
            sentences[action] = f"{action}: {how}"
    return sentences


def _mapped(action: Action, tool: Tool) -> ToolMapping | None:
    if action == "run":
        return _run(tool)
    return _finish(tool) if action == "finish" else _file_action(action, tool)


def _is_second_choice(action: Action, mapping: ToolMapping) -> bool:
    return plain(last_part(mapping.tool)) not in _PREFERRED[action]


def _run(tool: Tool) -> ToolMapping | None:
    if not (tool.words & _SHELLS or tool.words == {"command"}) or tool.words & _OTHER_CODE:
        return None
    command = tool.having("command") or _only_string(tool)
    if command is None or command.choices or _takes_code(command):
        return None
    template: object = "{command}"
    if command.type == "array":
        # A plural names a list of command lines, otherwise it is the words of one.
        several = command.plain == "commands"
        template = ["{command}"] if several else ["bash", "-lc", "{command}"]
    return _mapping(tool, {command.name: template})


def _only_string(tool: Tool) -> Parameter | None:
    """The parameter of a shell that takes one string under any name."""
    required = [one for one in tool.parameters if one.required]
    alone = len(required) == 1 and required[0].type == "string" and required[0].plain != "path"
    return required[0] if alone and tool.words & {"bash", "shell", "terminal"} else None


def _takes_code(parameter: Parameter) -> bool:
    text = str(parameter.schema.get("description", "")).lower()
    return bool(re.search(r"\b(python|javascript|typescript|sql|ruby) (code|script|query)", text))


def _finish(tool: Tool) -> ToolMapping | None:
    if plain(last_part(tool.name)) not in _FINISHES:
        return None
    strings = [one for one in tool.parameters if one.required and one.type == "string"]
    answer = tool.having("answer") or next((one for one in strings if not one.choices), None)
    if answer is None or answer.choices or answer.type not in ("", "string", "any"):
        return _mapping(tool, {})
    return _mapping(tool, {answer.name: "{text}"})


def _file_action(action: Action, tool: Tool) -> ToolMapping | None:
    """A tool for one action, or an editor with several commands, which an enum names."""
    if tool.words & _OTHER_FILES or {one.plain for one in tool.parameters} & _REMOTE:
        return None
    editor = next((one for one in tool.parameters if _is_editor_command(one)), None)
    if editor is not None:
        command = next((name for name in _COMMANDS[action] if name in editor.choices), None)
        # Only the values of that command are sent.
        return _file_tool(action, tool, {editor.name: command}) if command else None
    if not tool.words & _VERBS[action]:
        return None
    if action == "view" and (tool.having("text") or tool.having("old")):
        return None
    if action == "write" and tool.having("old"):
        return None
    return _file_tool(action, tool, {})


def _is_editor_command(parameter: Parameter) -> bool:
    choices = set(parameter.choices)
    return len([names for names in _COMMANDS.values() if choices & set(names)]) > 1


def _file_tool(action: Action, tool: Tool, constants: Mapping[str, object]) -> ToolMapping | None:
    """Fill the parameters of the action's roles. None if one is absent."""
    arguments = dict(constants)
    for role in _FILE_ROLES[action]:
        parameter = tool.having(role)
        if parameter is None or parameter.type == "array":
            return None
        arguments[parameter.name] = f"{{{role}}}"
    if action == "view":
        arguments |= _range_arguments(tool)
    if action == "write" and not _set_whole_file(tool, arguments):
        return None
    return _mapping(tool, arguments)


def _range_arguments(tool: Tool) -> dict[str, str]:
    for roles in (("range",), ("first", "count"), ("first", "last")):
        found = [(tool.having(role), role) for role in roles]
        if all(parameter for parameter, _ in found):
            return {one.name: f"{{{role}}}" for one, role in found if one is not None}
    return {}


def _set_whole_file(tool: Tool, arguments: dict[str, Any]) -> bool:
    """Ask a tool that may append to write the whole file. False if it cannot."""
    for parameter in tool.parameters:
        if parameter.plain == "append" and parameter.schema.get("default") is not False:
            arguments[parameter.name] = False
        if parameter.plain == "mode" and parameter.choices:
            if not set(parameter.choices) & PLAIN_VALUES:
                return False
            arguments[parameter.name] = parameter.constant
    return True


def _mapping(tool: Tool, arguments: Mapping[str, Any]) -> ToolMapping:
    absent = (one for one in tool.parameters if one.required and one.name not in arguments)
    return ToolMapping(tool.name, {**arguments, **{one.name: one.constant for one in absent}})
