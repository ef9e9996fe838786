"""Adapt a scenario to an agent with other tools than agent_core's.

The calls of a scripted turn are read as actions, and each action is done by the agent's own tool
or by a shell command. What has no action, such as thinking, is dropped; its text stays.
"""

import json
import re
import shlex
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from msgspec.structs import replace

from trae_bench._util.json_tree import map_strings
from trae_bench.errors import CannotMeasure
from trae_bench.scenario import shell_actions
from trae_bench.scenario.actions import AgentInterface, ToolMapping
from trae_bench.scenario.model import Scenario, ScriptedCall, Turn
from trae_bench.scenario.steps import (
    FINAL_TEXT,
    THINKING_TOOL,
    Step,
    actions_of,
    arguments_of,
    folders_of,
)

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_RANGE = ("{range}", "{first}")
_OPTIONAL = (*_RANGE, "{last}", "{count}")


def adapted(scenario: Scenario, interface: AgentInterface) -> Scenario:
    """The scenario as an agent with this interface plays it.

    The protocol and streaming become the agent's, and so do tools and arguments, unless the
    scenario names the agent whose tools it uses. Raises `CannotMeasure` if there is no session,
    if it plays in process, or if the agent can do an action neither by a tool nor by a command.
    """
    if not scenario.subject.has_session:
        raise CannotMeasure(
            f"{scenario.name}: it measures agent_core's command line or installation, not a "
            "session, so no other agent can play it; choose another scenario"
        )
    provider = scenario.provider
    if provider.transport == "respx":
        raise CannotMeasure(
            f"{scenario.name}: its transport is respx, inside agent_core's process; choose a "
            "scenario with the transport loopback"
        )
    pause = provider.chunk_seconds if interface.stream else 0.0
    provider = replace(
        provider, protocol=interface.protocol, stream=interface.stream, chunk_seconds=pause
    )
    if scenario.agent:
        return replace(scenario, provider=provider)
    try:
        turns = tuple(_adapted_turns(scenario, interface))
    except CannotMeasure as error:
        raise CannotMeasure(f"{scenario.name}: {error}") from error
    return replace(scenario, provider=provider, turns=turns)


def _adapted_turns(scenario: Scenario, interface: AgentInterface) -> Iterator[Turn]:
    folders = folders_of(scenario)
    last = len(scenario.turns) - 1
    for index, turn in enumerate(scenario.turns):
        if index == last and turn.repeat > 1 and actions_of(turn) == ():
            # Only the last of these replies ends the session.
            *earlier, final = _unrolled(turn)
            yield from chain(*(_adapted_turn(one, folders, interface) for one in earlier))
            yield from _adapted_turn(final, folders, interface, last=True)
        else:
            yield from _adapted_turn(turn, folders, interface, last=index == last)


def _adapted_turn(
    turn: Turn, folders: Collection[str], interface: AgentInterface, *, last: bool = False
) -> list[Turn]:
    """The turn with the agent's calls; several turns if it may have one call at a time."""
    steps = actions_of(turn, folders)
    if steps is None:
        return [turn]
    text = "\n\n".join(part for part in (turn.text, *_thoughts(turn)) if part)
    if last and not steps:
        steps = (Step("finish", {"text": text or FINAL_TEXT}),)
    if any(step.action == "finish" for step in steps):
        return [_final_turn(text, steps[0], interface)]
    # A reply without calls would end the session of most agents.
    steps = steps or (Step("run", {"command": shell_actions.NOTHING}),)
    if interface.parallel_calls or len(steps) == 1:
        return [_turn(text, steps, interface, turn.repeat)]
    return [
        _turn(one.text if number == 0 else "", (step,), interface)
        for one in _unrolled(replace(turn, text=text))
        for number, step in enumerate(actions_of(one, folders) or ())
    ]


def _thoughts(turn: Turn) -> Iterator[str]:
    for call in turn.calls:
        if call.tool == THINKING_TOOL:
            yield str(arguments_of(call).get("thought", ""))


def _unrolled(turn: Turn) -> list[Turn]:
    """The turns that `repeat` stands for, with `{n}` replaced."""
    if turn.repeat == 1:
        return [turn]
    return [_numbered(turn, str(number)) for number in range(1, turn.repeat + 1)]


def _numbered(turn: Turn, number: str) -> Turn:
    def convert(text: str) -> str:
        return text.replace("{n}", number)

    calls = tuple(_call(call.tool, map_strings(arguments_of(call), convert)) for call in turn.calls)
    return Turn(text=convert(turn.text), calls=calls)


def _call(tool: str, arguments: dict[str, Any]) -> ScriptedCall:
    """A call, with the arguments as JSON if one is null, which TOML does not have."""
    if None in arguments.values():
        return ScriptedCall(tool, arguments_json=json.dumps(arguments, ensure_ascii=False))
    return ScriptedCall(tool, arguments)


def _turn(text: str, steps: tuple[Step, ...], interface: AgentInterface, repeat: int = 1) -> Turn:
    done = [_done(step, interface) for step in steps]
    texts = [part for part in (text, *(one for one in done if isinstance(one, str))) if part]
    calls = tuple(one for one in done if isinstance(one, ScriptedCall))
    return Turn(text="\n\n".join(texts), calls=calls, repeat=repeat)


def _final_turn(text: str, step: Step, interface: AgentInterface) -> Turn:
    mapping = interface.tools.get("finish")
    if mapping is None:
        return Turn(text=text or FINAL_TEXT)
    done = _filled_mapping(mapping, step)
    if isinstance(done, ScriptedCall):
        return Turn(text=text, calls=(done,))
    return Turn(text=done if text in done else f"{text}\n\n{done}")


def _done(step: Step, interface: AgentInterface) -> ScriptedCall | str:
    """The call that does a step, or the text for an agent that reads actions from the text."""
    mapping = interface.tools.get(step.action)
    by_shell = mapping is None or step.folder or _loses_range(mapping, step)
    if step.action != "run" and by_shell and "run" in interface.tools:
        command = _command(step)
        mapping, step = interface.tools["run"], Step("run", {"command": command})
    if mapping is None:
        known = ", ".join(f"{action} by {_named(tool)}" for action, tool in interface.tools.items())
        tables = " or ".join(dict.fromkeys(("[tools.run]", f"[tools.{step.action}]")))
        raise CannotMeasure(
            f"the agent cannot {step.action}{_object(step)}: it has no tool for it (known: "
            f"{known or 'none'}); add {tables} to the entry"
        )
    return _filled_mapping(mapping, step)


def _loses_range(mapping: ToolMapping, step: Step) -> bool:
    """A view of some lines, by a tool that shows the whole file."""
    texts = (*mapping.arguments.values(), mapping.text)
    return "range" in step.values and not any(name in str(t) for name in _RANGE for t in texts)


def _command(step: Step) -> str:
    values = step.values
    try:
        match step.action:
            case "view" if step.folder:
                return shell_actions.list_folder(values["path"])
            case "view":
                return shell_actions.view(values["path"], values.get("range", ()))
            case "write":
                return shell_actions.write(values["path"], values["text"])
            case _:
                return shell_actions.replace(values["path"], values["old"], values["new"])
    except ValueError as error:
        remedy = f"add [tools.{step.action}] to the entry"
        raise CannotMeasure(f"cannot {step.action}{_object(step)}: {error}; {remedy}") from error


def _object(step: Step) -> str:
    return f" {step.values['path']}" if "path" in step.values else ""


def _named(mapping: ToolMapping) -> str:
    return mapping.tool or "text"


def _filled_mapping(mapping: ToolMapping, step: Step) -> ScriptedCall | str:
    values = dict(step.values)
    for name, value in step.values.items():
        if isinstance(value, str):
            values[f"{name}_sh"] = shlex.quote(value)
            values[f"{name}_json"] = json.dumps(value, ensure_ascii=False)
    if mapping.text:
        return str(_filled(mapping.text, values))
    arguments = {
        name: _filled_tree(template, values)
        for name, template in mapping.arguments.items()
        if not _without_value(template, values)
    }
    return _call(mapping.tool, arguments)


def _filled_tree(template: Any, values: dict[str, Any]) -> Any:
    if isinstance(template, dict):
        return {name: _filled_tree(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled_tree(value, values) for value in template]
    return _filled(template, values) if isinstance(template, str) else template


def _filled(template: str, values: dict[str, Any]) -> Any:
    """One pass, so that braces inside a value stay."""
    alone = _PLACEHOLDER.fullmatch(template)
    if alone and alone[1] in values:
        return values[alone[1]]
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), template)


def _without_value(template: object, values: dict[str, Any]) -> bool:
    return template in _OPTIONAL and str(template)[1:-1] not in values
