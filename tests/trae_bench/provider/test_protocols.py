"""Each reply, parsed as a client of its protocol parses it, gives the same turn."""

import json
from collections.abc import Callable
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.protocols import CODECS, encode_turns
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.scenario import Protocol, ProviderConditions

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

Parsed = tuple[str, list[tuple[str, dict[str, Any]]], tuple[int, int, int]]
"""Text, calls, and tokens: total input, cached input, output."""


def parse_openai_chat(reply: dict[str, Any]) -> Parsed:
    message, usage = reply["choices"][0]["message"], reply["usage"]
    calls = message.get("tool_calls", [])
    assert reply["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return (
        message["content"] or "",
        [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls],
        (
            usage["prompt_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage["completion_tokens"],
        ),
    )


def parse_openai_responses(reply: dict[str, Any]) -> Parsed:
    items, usage = reply["output"], reply["usage"]
    texts = [i["content"][0]["text"] for i in items if i["type"] == "message"]
    calls = [i for i in items if i["type"] == "function_call"]
    assert reply["status"] == "completed"
    return (
        "".join(texts),
        [(call["name"], json.loads(call["arguments"])) for call in calls],
        (
            usage["input_tokens"],
            usage["input_tokens_details"]["cached_tokens"],
            usage["output_tokens"],
        ),
    )


def parse_anthropic_messages(reply: dict[str, Any]) -> Parsed:
    blocks, usage = reply["content"], reply["usage"]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    cached = usage["cache_read_input_tokens"]
    assert reply["stop_reason"] == ("tool_use" if calls else "end_turn")
    return (
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        [(call["name"], call["input"]) for call in calls],
        (usage["input_tokens"] + cached, cached, usage["output_tokens"]),
    )


def parse_gemini(reply: dict[str, Any]) -> Parsed:
    parts, usage = reply["candidates"][0]["content"]["parts"], reply["usageMetadata"]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return (
        "".join(part.get("text", "") for part in parts),
        [(call["name"], call["args"]) for call in calls],
        (
            usage["promptTokenCount"],
            usage["cachedContentTokenCount"],
            usage["candidatesTokenCount"],
        ),
    )


def parse_ollama_chat(reply: dict[str, Any]) -> Parsed:
    message = reply["message"]
    calls = [call["function"] for call in message.get("tool_calls", [])]
    assert reply["done"] is True
    return (
        message["content"],
        [(call["name"], call["arguments"]) for call in calls],
        (reply["prompt_eval_count"], 0, reply["eval_count"]),
    )


PARSERS: dict[Protocol, Callable[[dict[str, Any]], Parsed]] = {
    "openai_chat": parse_openai_chat,
    "openai_responses": parse_openai_responses,
    "anthropic_messages": parse_anthropic_messages,
    "gemini": parse_gemini,
    "ollama_chat": parse_ollama_chat,
}

VALUES = st.recursive(
    st.text() | st.integers(-(2**53), 2**53) | st.booleans() | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: "inf" not in repr(value))
CALLS = st.builds(
    PlayedCall,
    id=st.from_regex(r"call_[0-9]{5}", fullmatch=True),
    name=st.sampled_from(["bash", "task_done"]),
    arguments=st.dictionaries(st.text(), VALUES, max_size=3),
)
TURNS = st.builds(PlayedTurn, text=st.text(), calls=st.lists(CALLS, max_size=3).map(tuple))


def test_every_protocol_has_a_parser_and_a_codec() -> None:
    assert set(PARSERS) == set(CODECS) == set(PROTOCOLS)


@given(st.lists(TURNS, max_size=4).map(tuple))
def test_all_protocols_encode_the_same_turns(turns: tuple[PlayedTurn, ...]) -> None:
    expected = [(turn.text, [(call.name, call.arguments) for call in turn.calls]) for turn in turns]
    counts = set()
    for protocol in PROTOCOLS:
        bodies = encode_turns(Script(turns), protocol)
        parsed = [PARSERS[protocol](json.loads(body)) for body in bodies]
        assert [(text, calls) for text, calls, _ in parsed] == expected
        counts.add(tuple((tokens[0], tokens[2]) for *_, tokens in parsed))
    assert len(counts) == 1, "token counts are equal"


def test_the_scripts_own_protocol_is_the_default() -> None:
    script = Script((PlayedTurn("a"),), ProviderConditions(protocol="gemini"))
    assert (
        encode_turns(script)
        == encode_turns(script, "gemini")
        != encode_turns(script, "ollama_chat")
    )


def test_call_ids_are_encoded() -> None:
    script = Script((PlayedTurn("", (PlayedCall("call_00001_1", "bash", {}),)),))
    for protocol in PROTOCOLS:
        assert b'"call_00001_1"' in encode_turns(script, protocol)[0]
