"""Trajectories in ATIF, the interchange format of Harbor (written for ATIF 1.0 to 1.7)."""

from typing import Any

from msgspec import Struct

from trae_bench.scenario.actions import ToolSchema
from trae_bench.scenario.importers.session import (
    Content,
    Document,
    RecordedCall,
    RecordedReply,
    RecordedSession,
    text_of,
)
from trae_bench.scenario.model import Protocol

_PROTOCOLS: dict[str, tuple[Protocol, bool]] = {
    "claude-code": ("anthropic_messages", True),
    "codex": ("openai_responses", True),
    "gemini-cli": ("gemini", True),
}
"""Protocol and streaming by agent. ATIF records neither."""
_TEXT_ONLY = ("terminus",)
"""Agents whose calls ATIF derives from the reply's text."""


class _Call(Struct, frozen=True):
    function_name: str
    arguments: dict[str, Any] | str = {}


class _Step(Struct, frozen=True):
    source: str
    message: Content = None
    tool_calls: tuple[_Call, ...] | None = None
    is_copied_context: bool | None = None
    llm_call_count: int | None = None

    @property
    def is_reply(self) -> bool:
        """Copied steps belong to an earlier session, and an agent can act without its model."""
        return self.source == "agent" and not self.is_copied_context and self.llm_call_count != 0


class _Function(Struct, frozen=True):
    name: str = ""
    parameters: dict[str, Any] = {}


class _Tool(Struct, frozen=True):
    function: _Function = _Function()


class _Agent(Struct, frozen=True):
    name: str
    model_name: str | None = None
    tool_definitions: tuple[_Tool, ...] | None = None


class _Trajectory(Struct, frozen=True):
    agent: _Agent
    steps: tuple[_Step, ...]


def matches(document: Document) -> bool:
    return document.shape == "object" and any(
        bytes(fields.get("schema_version", b"")).startswith(b'"ATIF-v1') and "steps" in fields
        for fields in document.fields
    )


def read(document: Document) -> RecordedSession:
    """Convert a trajectory. Raises `NotThisFormat`."""
    trajectory: _Trajectory = document.decode(_Trajectory)
    agent = trajectory.agent
    protocol, stream = _PROTOCOLS.get(agent.name, ("openai_chat", False))
    steps = [step for step in trajectory.steps if step.is_reply]
    users = [text_of(step.message) for step in trajectory.steps if step.source == "user"]
    return RecordedSession(
        source="the ATIF trajectory",
        replies=tuple(
            RecordedReply(
                text_of(step.message),
                tuple(RecordedCall(c.function_name, c.arguments) for c in step.tool_calls or ()),
            )
            for step in steps
        ),
        task=users[0] if users else "",
        agent=agent.name,
        protocol=protocol,
        stream=stream,
        model=agent.model_name or "",
        tools=tuple(
            ToolSchema(tool.function.name, tool.function.parameters)
            for tool in agent.tool_definitions or ()
        ),
        final_text=text_of(steps[-1].message) if steps else "",
        notes=tuple(_notes(agent, users)),
    )


def _notes(agent: _Agent, users: list[str]) -> list[str]:
    notes = []
    if agent.name not in _PROTOCOLS:
        notes.append("ATIF does not record the protocol; openai_chat is assumed")
    if agent.name.startswith(_TEXT_ONLY):
        notes.append(f"{agent.name} reads its actions from the text, which ATIF shortens")
    if len(users) > 1:
        notes.append(f"the session has {len(users)} prompts; the first one is the task")
    return notes
