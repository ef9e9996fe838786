"""From a provider's bytes to a reply: whole, streamed, split and truncated."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import MalformedReplyError
from agent_core.messages import Reply, ToolCall
from agent_core.models import PROTOCOLS, codec_named
from agent_core.models.codec import Codec, Parameters, Refused, StreamDecoder
from tests.agent_core.wire_fixtures import WIRES

each_protocol = pytest.mark.parametrize("protocol", sorted(PROTOCOLS))


def codec(protocol: str, *, stream: bool = False) -> Codec:
    return codec_named(protocol, "some", Parameters(model="m", stream=stream))


def streamed(protocol: str, *chunks: bytes) -> Reply:
    decoder = StreamDecoder(codec(protocol, stream=True))
    for chunk in chunks:
        decoder.feed(chunk)
    return decoder.finish()


@each_protocol
def test_whole_reply(protocol: str) -> None:
    wire = WIRES[protocol]
    assert codec(protocol).decode(wire.whole) == wire.means


@each_protocol
@given(cuts=st.lists(st.integers(0, 5000), max_size=12), crlf=st.booleans())
def test_streamed_reply_for_any_chunk_boundaries(
    protocol: str, cuts: list[int], crlf: bool
) -> None:
    wire = WIRES[protocol]
    body = wire.streamed.replace(b"\n", b"\r\n") if crlf else wire.streamed
    edges = [0, *sorted(cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    assert streamed(protocol, *chunks) == wire.means


@each_protocol
def test_streamed_reply_byte_by_byte(protocol: str) -> None:
    wire = WIRES[protocol]
    assert streamed(protocol, *(bytes([byte]) for byte in wire.streamed)) == wire.means


@each_protocol
def test_truncated_stream_is_not_a_reply(protocol: str) -> None:
    """Truncated at each byte: an error, or the complete reply after the protocol's end marker."""
    wire = WIRES[protocol]
    whole = 0
    for end in range(len(wire.streamed)):
        try:
            reply = streamed(protocol, wire.streamed[:end])
        except MalformedReplyError:
            assert not whole or wire.usage_comes_last, f"a reply at {whole} bytes, none at {end}"
            continue
        whole = whole or end
        assert reply.message == wire.means.message
        assert wire.usage_comes_last or reply == wire.means
    assert whole or protocol in ("openai_responses", "gemini", "ollama_chat")


@each_protocol
def test_truncated_json_is_not_a_reply(protocol: str) -> None:
    whole = WIRES[protocol].whole
    for end in range(len(whole)):
        with pytest.raises(MalformedReplyError):
            codec(protocol).decode(whole[:end])


@each_protocol
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'"text"', b"\xff", b"[" * 10_000])
def test_invalid_bodies_are_not_replies(protocol: str, body: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        codec(protocol).decode(body)


@each_protocol
def test_token_counts_may_be_floats(protocol: str) -> None:
    whole = re.sub(rb'((?:[Tt]okens?|Count|_count)": ?\d+)', rb"\1.0", WIRES[protocol].whole)
    assert whole != WIRES[protocol].whole
    reply = codec(protocol).decode(whole)
    assert reply == WIRES[protocol].means
    assert isinstance(reply.usage.input_tokens, int)


# Arguments that are not a JSON object: the call keeps the original text.

CHAT = {"id": "c", "function": {"name": "bash", "arguments": "{oops"}}
MALFORMED: dict[str, tuple[Any, str]] = {
    "openai_chat": ({"choices": [{"message": {"tool_calls": [CHAT]}}]}, "{oops"),
    "openai_responses": (
        {
            "output": [
                {"type": "function_call", "call_id": "c", "name": "bash", "arguments": "{oops"}
            ]
        },
        "{oops",
    ),
    "anthropic_messages": (
        {"content": [{"type": "tool_use", "id": "c", "name": "bash", "input": ["no", "object"]}]},
        '["no","object"]',
    ),
    "gemini": (
        {
            "candidates": [
                {"content": {"parts": [{"functionCall": {"id": "c", "name": "bash", "args": [1]}}]}}
            ]
        },
        "[1]",
    ),
    "ollama_chat": (
        {
            "message": {
                "tool_calls": [{"id": "c", "function": {"name": "bash", "arguments": "{oops"}}]
            },
            "done": True,
        },
        "{oops",
    ),
}


@each_protocol
def test_malformed_arguments_do_not_end_the_session(protocol: str) -> None:
    body, text = MALFORMED[protocol]
    (call,) = codec(protocol).decode(json.dumps(body).encode()).message.calls
    assert call == ToolCall("c", "bash", {}, malformed=text)


def test_arguments_truncated_by_the_token_limit_are_malformed() -> None:
    body = WIRES["anthropic_messages"].streamed
    start = b'"partial_json": "'
    cut_short = (
        body[: body.rindex(start) + len(start)] + b'"}}\n\n' + b'data: {"type":"message_stop"}\n\n'
    )
    (call,) = streamed("anthropic_messages", cut_short).message.calls
    assert call.malformed == '{"command'


# A refusal in a response of status 200.

REFUSALS: dict[str, tuple[Any, str]] = {
    "openai_chat": ({"error": {"message": "no", "type": "server_error"}}, "server_error"),
    "openai_responses": (
        {"status": "failed", "error": {"code": "server_error", "message": "no"}},
        "server_error",
    ),
    "anthropic_messages": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "no"}},
        "overloaded_error",
    ),
    "gemini": ({"error": {"code": 503, "message": "no", "status": "UNAVAILABLE"}}, "UNAVAILABLE"),
    "ollama_chat": ({"error": "no"}, ""),
}


@each_protocol
def test_refusal_is_distinguished_from_a_reply(protocol: str) -> None:
    body, kind = REFUSALS[protocol]
    with pytest.raises(Refused, match="no") as caught:
        codec(protocol).decode(json.dumps(body).encode())
    assert caught.value.kind == kind


@each_protocol
def test_refusal_in_the_middle_of_a_stream(protocol: str) -> None:
    body, _ = REFUSALS[protocol]
    if protocol == "openai_responses":
        body = {"type": "response.failed", "response": body}
    event = json.dumps(body).encode()
    line = event + b"\n" if protocol == "ollama_chat" else b"data: " + event + b"\n\n"
    with pytest.raises(Refused, match="no"):
        streamed(protocol, line)


# Servers that are almost compatible.


def chunk(**call: Any) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": [call]}}]}).encode() + b"\n\n"
    )


def test_chat_calls_without_an_index() -> None:
    body = (
        chunk(id="a", function={"name": "bash", "arguments": '{"x":'})
        + chunk(function={"arguments": "1}"})
        + chunk(id="b", function={"name": "bash", "arguments": "{}"})
    )
    reply = streamed("openai_chat", body + b"data: [DONE]\n\n")
    assert reply.message.calls == (ToolCall("a", "bash", {"x": 1}), ToolCall("b", "bash", {}))


def test_chat_calls_that_all_have_the_index_0() -> None:
    body = (
        chunk(index=0, id="a", function={"name": "bash", "arguments": '{"x":'})
        + chunk(index=0, id="a", function={"arguments": "1}"})
        + chunk(index=0, id="b", function={"name": "bash", "arguments": "{}"})
    )
    reply = streamed("openai_chat", body + b"data: [DONE]\n\n")
    assert reply.message.calls == (ToolCall("a", "bash", {"x": 1}), ToolCall("b", "bash", {}))


def test_chat_content_in_parts_and_arguments_as_an_object() -> None:
    message = {
        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        "tool_calls": [{"id": "c", "function": {"name": "bash", "arguments": {"x": 1}}}],
    }
    body = json.dumps({"choices": [{"message": message}]}).encode()
    reply = codec("openai_chat").decode(body)
    assert reply.message.text == "ab"
    assert reply.message.calls == (ToolCall("c", "bash", {"x": 1}),)


def test_responses_whose_last_event_has_no_output() -> None:
    wire = WIRES["openai_responses"]
    head, last = wire.streamed.rsplit(b"event: response.completed\n", 1)
    event = json.loads(last.removeprefix(b"data: "))
    event["response"]["output"] = []
    assert streamed("openai_responses", head, b"data: " + json.dumps(event).encode()) == wire.means
