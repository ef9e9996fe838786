"""The agent's part of a request does not depend on ids and replies, and contains all else."""

import json
from typing import Any

import pytest

from trae_bench.provider.protocols.authored import authored
from trae_bench.run.agent_check import drift_from
from trae_bench.scenario import Protocol


def request(protocol: Protocol, ids: str, reply: str, result: str, system: str) -> str:
    """Return the last request of a session of one call."""
    tools = [{"name": "run"}]
    user = {"role": "user", "content": "do it"}
    bodies: dict[Protocol, dict[str, Any]] = {
        "openai_chat": {
            "messages": [
                {"role": "system", "content": system},
                user,
                {"role": "assistant", "content": reply, "tool_calls": [{"id": ids}]},
                {"role": "tool", "tool_call_id": ids, "content": result},
            ]
        },
        "openai_responses": {
            "instructions": system,
            "input": [
                user,
                {"type": "reasoning", "id": ids, "summary": [reply]},
                {"type": "message", "role": "assistant", "content": reply},
                {"type": "function_call", "call_id": ids, "name": "run", "arguments": "{}"},
                {"type": "function_call_output", "call_id": ids, "output": result},
            ],
        },
        "anthropic_messages": {
            "system": system,
            "messages": [
                user,
                {"role": "assistant", "content": [{"type": "tool_use", "id": ids}]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": ids, "content": result}],
                },
            ],
        },
        "gemini": {
            "systemInstruction": {"parts": [{"text": system}]},
            "contents": [
                {"role": "user", "parts": [{"text": "do it"}]},
                {"role": "model", "parts": [{"functionCall": {"id": ids, "name": reply}}]},
                {"role": "user", "parts": [{"functionResponse": {"response": {"out": result}}}]},
            ],
        },
        "ollama_chat": {
            "messages": [
                {"role": "system", "content": system},
                user,
                {"role": "assistant", "content": reply},
                {"role": "tool", "content": result},
            ]
        },
    }
    return json.dumps({"model": ids, "stream": True, "tools": tools, **bodies[protocol]})


PROTOCOLS: tuple[Protocol, ...] = (
    "openai_chat",
    "openai_responses",
    "anthropic_messages",
    "gemini",
    "ollama_chat",
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_what_the_agent_writes_counts(protocol: Protocol) -> None:
    part = authored(protocol, request(protocol, "id-1", "yes", "ok", "be good"))
    assert part is not None
    assert part == authored(protocol, request(protocol, "id-2", "no", "ok", "be good"))
    assert "be good" in json.dumps(part.prompt)
    assert "run" in json.dumps(part.prompt)
    other = authored(protocol, request(protocol, "id-1", "yes", "failed", "be good"))
    assert other is not None
    assert (part.prompt == other.prompt, part.results == other.results) == (True, False)
    other = authored(protocol, request(protocol, "id-1", "yes", "ok", "be bad"))
    assert other is not None
    assert (part.prompt == other.prompt, part.results == other.results) == (False, True)


@pytest.mark.parametrize("body", ["", "[1]", "{", b"\xff", "[" * 5000])
def test_what_is_no_object_has_no_part(body: str | bytes) -> None:
    assert authored("openai_chat", body) is None


def test_a_prompt_can_be_a_text() -> None:
    part = authored("openai_responses", '{"input": "do it"}')
    assert part is not None
    assert part.prompt == {"input": ["do it"]}
    assert part.results == []


def test_a_deep_request_cannot_be_compared() -> None:
    """A recording can come from a stranger."""
    deep = '{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}"
    drift, varying = drift_from("openai_chat", deep, deep)
    assert "cannot be compared" in drift
    assert varying == ()
