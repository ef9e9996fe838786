"""Replies of real providers: what is encoded is decoded again, and what vendors do differently."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.protocols import encode_turns, stream_turns
from trae_bench.provider.protocols.replies import MAX_REPLY_BYTES, ReplyError, decode_reply
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.scenario import Protocol, ProviderConditions
from trae_bench.scenario.importers.session import RecordedCall, RecordedReply

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CALLS = st.lists(
    st.tuples(st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=3)), max_size=3
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(text=st.text(), calls=CALLS, size=st.integers(1, 30))
def test_an_encoded_turn_is_decoded_again(
    protocol: Protocol,
    stream: bool,
    text: str,
    calls: list[tuple[str, dict[str, Any]]],
    size: int,
) -> None:
    played = tuple(PlayedCall(f"c{n}", *call) for n, call in enumerate(calls))
    conditions = ProviderConditions(protocol=protocol, stream=stream, chunk_characters=size)
    script = Script((PlayedTurn(text, played),), conditions)
    body = b"".join(stream_turns(script)[0]) if stream else encode_turns(script)[0]
    assert decode_reply(protocol, body) == RecordedReply(
        text, tuple(RecordedCall(*call) for call in calls)
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_that_ends_early_is_refused(protocol: Protocol) -> None:
    script = Script(
        (PlayedTurn("some text", ()),), ProviderConditions(protocol=protocol, stream=True)
    )
    events = [event for event in stream_turns(script)[0] if event != b"data: [DONE]\n\n"]
    end = next(
        number
        for number in range(len(events), 0, -1)
        if not _decodes(protocol, b"".join(events[:number]))
    )
    assert end >= len(events) - 2
    with pytest.raises(ReplyError, match="ends early"):
        decode_reply(protocol, b"".join(events[:end]))


def _decodes(protocol: Protocol, body: bytes) -> bool:
    try:
        decode_reply(protocol, body)
    except ReplyError:
        return False
    return True


def sse(*events: dict[str, Any], newline: str = "\n") -> bytes:
    lines = (f"data: {json.dumps(event)}{newline}{newline}" for event in events)
    return "".join(lines).encode()


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    def call(identity: str, name: str, arguments: str) -> dict[str, Any]:
        return {"id": identity, "function": {"name": name, "arguments": arguments}}

    body = sse(
        chunk(tool_calls=[call("a", "one", '{"x": 1}')]),
        chunk(tool_calls=[call("b", "two", "{}")]),
        END,
        newline="\r\n",
    )
    reply = decode_reply("openai_chat", b": keep-alive\r\n\r\n" + body)
    assert reply.calls == (RecordedCall("one", {"x": 1}), RecordedCall("two", {}))


def test_arguments_that_are_not_json_are_kept_as_text() -> None:
    body = sse(chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{a"}}]), END)
    assert decode_reply("openai_chat", body).calls == (RecordedCall("f", "{a"),)


def test_reasoning_is_ignored() -> None:
    anthropic = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "redacted_thinking", "data": "y"},
            {"type": "text", "text": "Done."},
        ],
    }
    responses = {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Done."}]},
        ],
    }
    part = [{"text": "hm", "thought": True}, {"text": "Done."}]
    gemini = [{"candidates": [{"content": {"parts": part}, "finishReason": "STOP"}]}]
    chat = {"choices": [{"message": {"content": "Done.", "reasoning_content": "hm"}}]}
    bodies: dict[Protocol, Any] = {
        "anthropic_messages": anthropic,
        "openai_responses": responses,
        "gemini": gemini,
        "openai_chat": chat,
    }
    for protocol, body in bodies.items():
        assert decode_reply(protocol, json.dumps(body).encode()) == RecordedReply("Done.")


def test_responses_without_a_final_output_and_with_custom_tools() -> None:
    patch = {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin Patch"}
    body = sse(
        {"type": "response.output_item.done", "output_index": 0, "item": patch},
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
    )
    call = RecordedCall("apply_patch", {"input": "*** Begin Patch"})
    assert decode_reply("openai_responses", body) == RecordedReply("", (call,))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "ends early"),
        (b"{}", "ends early"),
        (b"<html>", "ends early"),
        (b"{", "not JSON"),
        (b'{"error": {"message": "no quota"}}', "no quota"),
        (b'{"error": "no quota"}', "no quota"),
        (b"\xff" * 4, "ends early"),
        (b" " * (MAX_REPLY_BYTES + 1), "larger than 64 MB"),
    ],
    ids=range(8),
)
def test_bodies_that_are_no_reply(protocol: Protocol, body: bytes, problem: str) -> None:
    with pytest.raises(ReplyError, match=problem):
        decode_reply(protocol, body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(body=st.binary(max_size=60) | st.text(alphabet='{}[]":,data \n', max_size=60))
def test_any_bytes_are_a_reply_or_refused(protocol: Protocol, body: bytes | str) -> None:
    _decodes(protocol, body.encode() if isinstance(body, str) else body)
