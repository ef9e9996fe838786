"""Streamed replies: how text is split into events, and how each stream ends."""

import json
from typing import Any, get_args

import pytest

from trae_bench.provider.protocols import CODECS, encode_error, stream_turns
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.provider.usage import INPUT
from trae_bench.scenario import Protocol, ProviderConditions

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
TURN = PlayedTurn("abcdefgh", (PlayedCall("call_1", "bash", {"command": "ls"}),))


def events(protocol: Protocol, turn: PlayedTurn = TURN, size: int = 3) -> list[bytes]:
    conditions = ProviderConditions(protocol=protocol, chunk_characters=size)
    (found,) = stream_turns(Script((turn,), conditions))
    return found


def parsed(protocol: Protocol, turn: PlayedTurn = TURN, size: int = 3) -> list[Any]:
    lines = [
        line.removeprefix(b"data: ")
        for line in b"".join(events(protocol, turn, size)).splitlines()
        if line and not line.startswith(b"event: ")
    ]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def test_text_is_split_into_chunks() -> None:
    pieces = {
        "openai_chat": [
            choice["delta"].get("content")
            for event in parsed("openai_chat")
            for choice in event["choices"]
        ],
        "openai_responses": [e.get("delta") for e in parsed("openai_responses")],
        "anthropic_messages": [
            e.get("delta", {}).get("text") for e in parsed("anthropic_messages")
        ],
        "gemini": [e["candidates"][0]["content"]["parts"][0].get("text") for e in parsed("gemini")],
        "ollama_chat": [e["message"]["content"] for e in parsed("ollama_chat")],
    }
    for protocol, found in pieces.items():
        assert [piece for piece in found if piece][:3] == ["abc", "def", "gh"], protocol


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_chunk_is_one_event(protocol: Protocol) -> None:
    ending = b"\n" if protocol == "ollama_chat" else b"\n\n"
    for event in events(protocol):
        assert event.endswith(ending)
        assert event.count(ending) == 1
    assert len(events(protocol, size=1)) > len(events(protocol, size=100))
    assert CODECS[protocol].media_type in ("text/event-stream", "application/x-ndjson")


def test_end_of_each_stream() -> None:
    assert events("openai_chat")[-1] == b"data: [DONE]\n\n"
    *_, finish, usage = parsed("openai_chat")
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["prompt_tokens"]) == ([], INPUT)
    last = parsed("openai_responses")[-1]
    assert (last["type"], last["response"]["status"]) == ("response.completed", "completed")
    assert parsed("anthropic_messages")[-1] == {"type": "message_stop"}
    assert parsed("gemini")[-1]["candidates"][0]["finishReason"] == "STOP"
    assert "usageMetadata" in parsed("gemini")[-1]
    assert [event["done"] for event in parsed("ollama_chat")][-2:] == [False, True]


def test_events_have_a_type_and_a_number() -> None:
    for protocol in ("openai_responses", "anthropic_messages"):
        for raw, event in zip(events(protocol), parsed(protocol), strict=True):
            assert raw.startswith(f"event: {event['type']}\n".encode())
    numbers = [event["sequence_number"] for event in parsed("openai_responses")]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_empty_reply_has_an_end(protocol: Protocol) -> None:
    assert len(events(protocol, PlayedTurn(""))) >= 1


def test_paths_of_streamed_requests() -> None:
    assert CODECS["gemini"].endpoint.suffix_for(stream=True) == ":streamGenerateContent"
    assert CODECS["gemini"].endpoint.suffix_for(stream=False) == ":generateContent"
    assert CODECS["openai_chat"].endpoint.suffix_for(stream=True) == "/chat/completions"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_errors_have_the_protocols_format(protocol: Protocol) -> None:
    error = json.loads(encode_error(protocol, 529))["error"]
    assert "529" in (error if protocol == "ollama_chat" else error["message"])
