"""Token counts in scripted replies: estimated from the requests, in place of placeholders."""

import json
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.prompt import tokens
from trae_bench.provider import usage
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.protocols import encode_turns, stream_turns
from trae_bench.provider.protocols.replies import decode_reply
from trae_bench.provider.responses import Response, json_response, streamed_response
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.provider.usage import UsageEstimate, filled, tokens_of, with_slots
from trae_bench.scenario import Protocol, ProviderConditions

PROTOCOLS = get_args(Protocol)
TOOLS = [{"name": "bash", "description": "d" * 4000}]


def body(*contents: str, **fields: Any) -> bytes:
    """Return a request as most clients send it: the tools after the messages."""
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages, "tools": TOOLS, **fields}).encode()


def test_the_server_counts_as_the_estimate_does() -> None:
    assert usage._BYTES_PER_TOKEN == tokens.BYTES_PER_TOKEN


def test_a_growing_prompt_comes_from_the_cache() -> None:
    estimate = UsageEstimate("openai_chat")
    first, second = body("task"), body("task", "x" * 3000)
    assert estimate.add(first) == (tokens_of(first), 0)
    # Steps of 128; the tools are at the end of both bodies.
    assert estimate.add(second) == (tokens_of(second), len(first) // 4 // 128 * 128)
    third = body("task", "x" * 3000, "y" * 500)
    assert estimate.add(third)[1] == len(second) // 4 // 128 * 128


def test_what_follows_a_break_does_not() -> None:
    estimate = UsageEstimate("openai_chat")
    estimate.add(body("at 10:00:01", "x" * 40_000))
    found, cached = estimate.add(body("at 10:00:02", "x" * 40_000, "more"))
    # The tools and the first bytes.
    assert 1024 <= cached < 1300
    assert found > 10_000


@pytest.mark.parametrize(("protocol", "minimum"), [("openai_responses", 1024), ("gemini", 4096)])
def test_short_prompts_are_not_cached(protocol: str, minimum: int) -> None:
    for size, cached in ((minimum * 4 - 1, 0), (minimum * 4, minimum)):
        estimate = UsageEstimate(protocol)
        estimate.add(b"x" * size)
        assert estimate.add(b"x" * size)[1] == cached


def test_claude_needs_a_mark() -> None:
    marked = {"system": [{"cache_control": {"type": "ephemeral"}}]}
    for fields, cached in (({}, 0), (marked, len(body("task", **marked)) // 4)):
        estimate = UsageEstimate("anthropic_messages")
        estimate.add(body("task", **fields))
        assert estimate.add(body("task", **fields))[1] == cached


short = st.binary(max_size=12)


@given(st.sampled_from(PROTOCOLS), st.lists(st.tuples(short, short), max_size=6), short)
def test_no_more_is_cached_than_both_bodies_share(
    protocol: str, sent: list[tuple[bytes, bytes]], middle: bytes
) -> None:
    estimate, last = UsageEstimate(protocol), b""
    for start, end in sent:
        current = start + b'"cache_control"' + middle * 3000 + end
        found, cached = estimate.add(current)
        assert found == tokens_of(current)
        assert 0 <= cached <= min(len(current), len(last)) // 4
        last = current


def replies(protocol: Protocol, text: str) -> list[Response]:
    script = Script((PlayedTurn(text),), ProviderConditions(protocol=protocol))
    events = stream_turns(script)[0]
    return [
        json_response(200, encode_turns(script)[0]),
        streamed_response("text/event-stream", events, delay=0, gap=0),
        streamed_response("text/event-stream", events, delay=0, gap=0.1),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counts_change_no_length_and_no_other_byte(protocol: Protocol) -> None:
    for reply in replies(protocol, "100 % 7700000000 %d"):
        assert filled(reply, 5000, 4000) is reply
        known = with_slots(reply)
        made = filled(known, 5000, 4000)
        for before, after in ((known.chunks, made.chunks), (known.body, made.body)):
            assert [len(one) for one in after] == [len(one) for one in before]
            text = b"".join(after)
            assert b":%10d" not in text
            assert b"100 % 7700000000 %d" in text or protocol == "openai_responses"
            # Anthropic's input does not include what comes from the cache.
            shown = 1000 if protocol == "anthropic_messages" else 5000
            assert b"%10d" % shown in text
            assert (b"      4000" in text) == (protocol != "ollama_chat")
        assert (made.status, made.headers, made.gap) == (known.status, known.headers, known.gap)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True])
def test_numbers_of_a_script_stay(protocol: Protocol, stream: bool) -> None:
    numbers = {"a": 7_712_345_678, "b": usage.CACHED, "c": usage.INPUT - usage.CACHED}
    inner = json.dumps({"usage": {"input_tokens": usage.INPUT}}, separators=(",", ":"))
    call = PlayedCall("1", "bash", {**numbers, "text": inner})
    conditions = ProviderConditions(protocol=protocol, stream=stream)
    script = Script((PlayedTurn("t", (call,)),), conditions)
    if stream:
        events = stream_turns(script)[0]
        reply = with_slots(streamed_response("text/event-stream", events, delay=0, gap=0))
        made = b"".join(filled(reply, 5000, 4000).chunks)
    else:
        reply = with_slots(json_response(200, encode_turns(script)[0]))
        made = b"".join(filled(reply, 5000, 4000).body)
    read = decode_reply(protocol, made)
    assert read.calls[0].arguments == {**numbers, "text": inner}


def test_replies_of_a_session_count_its_requests() -> None:
    script = Script((PlayedTurn("a"), PlayedTurn("b")))
    sent = body("task"), body("task", "x" * 3000)
    with Loopback() as provider:
        url = provider.register("one", script) + "/chat/completions"
        found = [httpx.post(url, content=one).json()["usage"] for one in sent]
    assert [one["prompt_tokens"] for one in found] == [tokens_of(one) for one in sent]
    assert [one["total_tokens"] - one["prompt_tokens"] for one in found] == [1, 1]
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in found]
    assert cached == [0, 1024]


def test_replies_to_a_foreign_agent_count_its_requests() -> None:
    script = Script((PlayedTurn("a"), PlayedTurn("b")), client="foreign", has_tools=True)
    title = json.dumps({"messages": [{"role": "user", "content": "x" * 4000}]}).encode()
    sent = title, body("task"), body("task"), body("task", "x" * 3000)
    with Loopback() as provider:
        url = provider.register("one", script) + "/chat/completions"
        found = [httpx.post(url, content=one).json()["usage"] for one in sent]
    assert [one["prompt_tokens"] for one in found] == [tokens_of(one) for one in sent]
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in found]
    # A repeated request has sent its prompt before.
    assert cached == [0, 0, 1024, 1024]
