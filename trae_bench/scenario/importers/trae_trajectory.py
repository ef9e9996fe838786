"""Trajectories of agent_core and Trae Agent (written for Trae Agent of October 2025)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from trae_bench.scenario.importers.session import (
    CalledFunction,
    Document,
    RecordedReply,
    RecordedSession,
    recorded_call,
)
from trae_bench.scenario.model import Protocol

TRAE_AGENT = "trae-agent"
"""Name of the agent whose tools agent_core has."""
_PROTOCOLS: Mapping[str, Protocol] = {
    "anthropic": "anthropic_messages",
    "google": "gemini",
    "ollama": "ollama_chat",
}
"""Protocols by provider name. Any other provider uses one of OpenAI's."""
_RESPONSES_ITEM = "fc_"
"""Start of the item id of a call in OpenAI Responses. Chat Completions has no such id."""
_RESPONSES_STATUSES = frozenset({"completed", "incomplete"})
"""Finish reasons that only OpenAI Responses has."""
_FOLDER = re.compile(r"^\[Project root path\]:\n(/.*)$", re.MULTILINE)
"""How Trae Agent names the working folder in its first message."""


class _Call(CalledFunction, frozen=True):
    id: str | None = None


class _Response(Struct, frozen=True):
    content: str | None = None
    tool_calls: tuple[_Call, ...] | None = None
    finish_reason: str | None = None


class _Message(Struct, frozen=True):
    content: Any = None


class _Interaction(Struct, frozen=True):
    response: _Response
    input_messages: tuple[_Message, ...] = ()


class _Trajectory(Struct, frozen=True):
    """The fields of a trajectory file that the import uses; other fields are ignored."""

    task: str
    llm_interactions: tuple[_Interaction, ...]
    provider: str = ""
    model: str = ""
    success: bool = False
    final_result: str | None = None


def matches(document: Document) -> bool:
    return document.shape == "object" and document.has("llm_interactions")


def read(document: Document) -> RecordedSession:
    """Convert a trajectory. Raises `NotThisFormat`."""
    trajectory: _Trajectory = document.decode(_Trajectory)
    responses = [interaction.response for interaction in trajectory.llm_interactions]
    return RecordedSession(
        source="the trajectory",
        replies=tuple(
            RecordedReply(
                response.content or "", tuple(map(recorded_call, response.tool_calls or ()))
            )
            for response in responses
        ),
        task=trajectory.task,
        agent=TRAE_AGENT,
        protocol=_protocol(trajectory),
        model=trajectory.model,
        final_text=trajectory.final_result or "",
        success=trajectory.success,
        workspace=next(_folders(trajectory), ""),
    )


def _protocol(trajectory: _Trajectory) -> Protocol:
    for interaction in trajectory.llm_interactions:
        response = interaction.response
        if response.finish_reason in _RESPONSES_STATUSES and trajectory.provider == "openai":
            return "openai_responses"
        if any((call.id or "").startswith(_RESPONSES_ITEM) for call in response.tool_calls or ()):
            return "openai_responses"
    return _PROTOCOLS.get(trajectory.provider, "openai_chat")


def _folders(trajectory: _Trajectory) -> Iterator[str]:
    for interaction in trajectory.llm_interactions[:1]:
        for message in interaction.input_messages:
            if isinstance(message.content, str) and (found := _FOLDER.search(message.content)):
                yield found[1].strip()
