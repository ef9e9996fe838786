"""Records that describe how an agent speaks: its protocol, and the tools for each action.

A scenario's tool calls are those of agent_core. For another agent each call is read as an action
(run a command, view a file, ...), which the agent's interface maps to one of its own tools.
"""

from typing import Any, Literal

from msgspec import Struct

from trae_bench.scenario.model import Protocol

Action = Literal["run", "view", "write", "replace", "finish"]
"""What a scripted call does, whatever the tool is named:

    run      run a shell command               {command}
    view     read a file                       {path}
    write    write a whole file                {path} {text}
    replace  replace a text in a file          {path} {old} {new}
    finish   end the session with an answer    {text}
"""


class ToolSchema(Struct, frozen=True):
    """A tool that an agent offers to the model."""

    name: str
    parameters: dict[str, Any] = {}
    """JSON Schema of its arguments."""


class ToolMapping(Struct, frozen=True, forbid_unknown_fields=True):
    """How an agent does one action. A placeholder of the action is replaced in every string."""

    tool: str = ""
    """Name of its tool."""
    arguments: dict[str, Any] = {}
    """A string that is exactly one placeholder takes the value itself, such as an array.

    Besides those of its action, there are for views `{range}` (first and last line, -1 for the
    end), `{first}`, `{last}` and `{count}`; an argument whose placeholder has no value is left out.
    `{text_sh}` and `{text_json}`, and so on, are quoted for a shell and as a JSON string.
    """
    text: str = ""
    """For an agent that reads actions from the reply's text: that text, instead of a tool."""


class AgentInterface(Struct, frozen=True, forbid_unknown_fields=True):
    """How an agent speaks: its protocol, streaming, and the tools for each action."""

    protocol: Protocol = "openai_chat"
    stream: bool = False
    tools: dict[Action, ToolMapping] = {}
    """Actions without an entry are done by `run`, where a shell command can do them."""
    parallel_calls: bool = True
    """False if a reply must not have more than one call."""
    offered: tuple[str, ...] = ()
    """Names of the tools in its requests. If it offers any, a request without tools is no step."""
