"""Prompts of a session: read by protocol, and compared with the earlier ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench._util.common_prefix import common_prefix
from trae_bench.model.sample import PromptLog
from trae_bench.prompt import PrefixTracker, PromptReader
from trae_bench.prompt.reading import MAX_PARTS
from trae_bench.provider.sent_bodies import SentBodies, restored

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("view", "run")]
SYSTEM = {"role": "system", "content": "You work."}
USER = {"role": "user", "content": "Mend it."}


def logs(*bodies: Any, protocol: str = "openai_chat") -> list[PromptLog]:
    reader, tracker = PromptReader(), PrefixTracker()
    prompts = [reader.read(protocol, json.dumps(body).encode()) for body in bodies]
    assert all(prompt is not None for prompt in prompts)
    return [tracker.add(float(n), prompt) for n, prompt in enumerate(prompts) if prompt]


def chat(*messages: Any, tools: Any = TOOLS, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), "tools": tools, **more}


def step(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    call = {"id": f"c{number}", "type": "function", "function": {"name": "run"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    return asked, {"role": "tool", "tool_call_id": f"c{number}", "content": f"out {number}"}


def test_a_history_that_grows_is_reused_though_its_bodies_are_no_prefixes() -> None:
    bodies = [chat(SYSTEM, USER), chat(SYSTEM, USER, *step(1)), chat(SYSTEM, USER, *step(1), USER)]
    assert not json.dumps(bodies[1]).startswith(json.dumps(bodies[0]))
    first, second, third = logs(*bodies)
    assert first.reused == 0
    assert (second.reused, third.reused) == (first.size, second.size)
    assert [one.broken for one in (first, second, third)] == [None, None, None]
    assert [one.first for one in (first, second, third)] == [True, False, False]


def test_a_clock_in_the_system_prompt_breaks_every_request() -> None:
    def body(second: int, *steps: Any) -> dict[str, Any]:
        return chat({"role": "system", "content": f"It is 10:00:0{second}. Work."}, USER, *steps)

    found = logs(body(1), body(2, *step(1)), body(3, *step(1), *step(2)))
    breaks = [one.broken or "" for one in found]
    assert breaks[0] == ""
    assert breaks[1] == (
        "messages[0].content, offset 13: request 1 has 'It is 10:00:01. Work.', "
        "request 2 has 'It is 10:00:02. Work.'"
    )
    assert "request 2 has" in breaks[2]
    tools = sum(len(json.dumps(tool, separators=(",", ":"))) for tool in TOOLS)
    assert tools < found[1].reused < tools + 60


def test_tools_in_another_order_break_the_prefix_at_the_tools() -> None:
    found = logs(chat(SYSTEM, USER), chat(SYSTEM, USER, *step(1), tools=TOOLS[::-1]))
    assert (found[1].broken or "").startswith("tools[0].function.name, offset 0")


def test_a_dropped_message_is_named() -> None:
    found = logs(
        chat(SYSTEM, USER, *step(1), *step(2)), chat(SYSTEM, USER, *step(2), *step(3), *step(4))
    )
    assert (found[1].broken or "").startswith("messages[2].tool_calls[0].id, offset 1")


def test_a_shorter_prompt_breaks_the_prefix() -> None:
    found = logs(chat(SYSTEM, USER, *step(1), *step(2)), chat(SYSTEM, USER, *step(1)))
    assert (found[1].broken or "").startswith("messages[4]: request 1 has")
    assert (found[1].broken or "").endswith("request 2 has nothing")
    assert found[1].reused == found[1].size


def test_another_model_has_another_cache() -> None:
    found = logs(chat(SYSTEM, USER), {**chat(SYSTEM, USER, *step(1)), "model": "other"})
    assert found[1].reused == 0
    assert (found[1].broken or "").startswith("model: request 1 asks 'm'")


def test_conversations_that_alternate_do_not_break_each_other() -> None:
    other = {"role": "user", "content": "Look for tests."}
    bodies = [
        chat(SYSTEM, USER),
        chat(SYSTEM, USER, *step(1)),
        chat(SYSTEM, other),
        chat(SYSTEM, USER, *step(1), *step(2)),
        chat(SYSTEM, other, *step(3)),
        chat(SYSTEM, other, *step(3), *step(4)),
        chat(SYSTEM, USER, *step(1), *step(2), *step(5)),
    ]
    assert [one.broken for one in logs(*bodies)] == [None] * len(bodies)


def test_a_repeated_request_is_reused_in_full() -> None:
    first, again = logs(chat(SYSTEM, USER), chat(SYSTEM, USER))
    assert again.reused == again.size == first.size
    assert again.broken is None


@pytest.mark.parametrize(
    ("protocol", "places"),
    [
        ("openai_chat", ["tools[0]", "messages[0]", "messages[1]"]),
        ("openai_responses", ["tools[0]", "instructions", "input[0]", "input[1]"]),
        ("anthropic_messages", ["tools[0]", "system", "messages[0]", "messages[0].content[1]"]),
        ("gemini", ["tools[0]", "systemInstruction", "contents[0]"]),
        ("ollama_chat", ["tools[0]", "messages[0]"]),
    ],
)
def test_parts_are_in_the_order_of_the_provider(protocol: str, places: list[str]) -> None:
    tool, text = {"name": "view"}, {"type": "text", "text": "Go."}
    bodies: dict[str, Any] = {
        "openai_chat": {"messages": [SYSTEM, USER], "tools": [tool]},
        "openai_responses": {
            "input": [USER, {"type": "function_call", "name": "view"}],
            "instructions": "You work.",
            "tools": [tool],
        },
        "anthropic_messages": {
            "messages": [{"role": "user", "content": [text, text]}],
            "system": "You work.",
            "tools": [tool],
        },
        "gemini": {
            "contents": [{"role": "user", "parts": [{"text": "Go."}]}],
            "systemInstruction": {"parts": [{"text": "You work."}]},
            "tools": [tool],
        },
        "ollama_chat": {"messages": [USER], "tools": [tool]},
    }
    prompt = PromptReader().read(protocol, json.dumps(bodies[protocol]).encode(), "in-path")
    assert prompt is not None
    assert [part.place for part in prompt.parts] == places
    assert prompt.model == "in-path"
    assert prompt.is_first == (protocol != "openai_responses")


def test_a_mark_of_the_whole_request_is_one_of_its_last_block() -> None:
    def marks(control: Any, *blocks: Any, protocol: str = "anthropic_messages") -> list[str]:
        body = {"messages": [{"role": "user", "content": [*blocks]}], "cache_control": control}
        prompt = PromptReader().read(protocol, json.dumps(body).encode())
        assert prompt is not None
        return [part.cache_mark for part in prompt.parts]

    text = {"type": "text", "text": "a"}
    own = {**text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert marks({"type": "ephemeral"}, text, text) == ["", "5m"]
    assert marks({"type": "ephemeral"}, text, own) == ["", "1h"]
    assert marks(None, text) == [""]
    assert marks({"type": "ephemeral"}) == []
    assert marks({"type": "ephemeral"}, text, protocol="openai_chat") == [""]


def test_cache_marks_are_read_and_are_no_part_of_the_text() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    text = {"type": "text", "text": "Go."}
    marked = {
        "tools": [{"name": "a"}, {"name": "b", **hour}],
        "system": [{"type": "text", "text": "You work.", **mark}],
        "messages": [{"role": "user", "content": [text, {**text, **mark}]}],
    }
    plain = {
        "tools": [{"name": "a"}, {"name": "b"}],
        "system": "You work.",
        "messages": [{"role": "user", "content": [text, text]}],
    }
    read = PromptReader()
    one, other = (read.read("anthropic_messages", json.dumps(b).encode()) for b in (marked, plain))
    assert one is not None
    assert other is not None
    assert [part.text for part in one.parts] == [part.text for part in other.parts]
    assert [part.cache_mark for part in one.parts] == ["", "1h", "5m", "", "5m"]
    found = logs(plain, {**marked, "messages": marked["messages"]}, protocol="anthropic_messages")
    assert found[1].reused == found[0].size


def test_a_text_is_the_block_that_it_stands_for() -> None:
    text = {"messages": [{"role": "user", "content": "Go."}]}
    block = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Go."}]}]}
    found = logs(text, block, protocol="anthropic_messages")
    assert found[1].reused == found[0].size


@pytest.mark.parametrize(
    ("protocol", "field", "blocks"),
    [("anthropic_messages", "messages", "content"), ("gemini", "contents", "parts")],
)
def test_a_block_more_in_the_last_message_does_not_break_the_prefix(
    protocol: str, field: str, blocks: str
) -> None:
    def body(*texts: str) -> dict[str, Any]:
        said = {"role": "model", blocks: [{"text": "I look."}]}
        return {field: [said, {"role": "user", blocks: [{"text": text} for text in texts]}]}

    first, second, third = logs(body("a"), body("a", "b"), body("b", "b"), protocol=protocol)
    assert second.broken is None
    assert second.reused == first.size
    assert third.broken is not None
    assert third.broken.startswith(f"{field}[1].{blocks}.text, offset 0")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"messages": [}', b'{"tools": ["\xff"]}', b"1"]
)
def test_what_is_no_prompt_is_none(body: bytes) -> None:
    assert PromptReader().read("openai_chat", body) is None


@pytest.mark.parametrize(
    "body",
    [
        {"messages": 1, "tools": "x"},
        {"messages": [1, None, "x", []], "tools": {}, "model": 3},
        {"messages": [{"role": 5, "content": [1, {"cache_control": 1}]}], "system": [None]},
    ],
)
@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages"])
def test_odd_fields_are_parts_like_others(protocol: str, body: Any) -> None:
    (found,) = logs(body, protocol=protocol)
    assert found.size > 0


TEXTS = st.text(alphabet="ab", max_size=3)
MESSAGES = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text},
        st.sampled_from(["user", "assistant"]),
        TEXTS,
    ),
    max_size=4,
)


@given(st.lists(MESSAGES, min_size=1, max_size=6))
def test_reuse_is_the_longest_common_beginning_with_any_earlier_prompt(
    histories: list[list[Any]],
) -> None:
    reader = PromptReader()
    flat: list[list[bytes]] = []
    for history, found in zip(histories, logs(*(chat(*h) for h in histories)), strict=True):
        prompt = reader.read("openai_chat", json.dumps(chat(*history)).encode())
        assert prompt is not None
        texts = [part.text for part in prompt.parts]
        expected = max((_shared(texts, earlier) for earlier in flat), default=0)
        assert found.reused == expected <= found.size
        flat.append(texts)


def _shared(a: list[bytes], b: list[bytes]) -> int:
    shared = 0
    for left, right in zip(a, b, strict=False):
        shared += len(left) if left == right else common_prefix(left, right)
        if left != right:
            break
    return shared


@given(st.lists(st.tuples(MESSAGES, st.booleans()), min_size=1, max_size=8))
def test_a_history_that_is_only_appended_to_never_breaks(steps: list[tuple[Any, bool]]) -> None:
    history: list[Any] = [SYSTEM, USER]
    bodies = []
    for more, _ in steps:
        bodies.append(chat(*history))
        history += [{"role": "assistant", "content": "x"}, *more]
    found = logs(*bodies)
    assert [one.broken for one in found] == [None] * len(found)
    assert [later.reused for later in found[1:]] == [earlier.size for earlier in found[:-1]]


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 300_000))
def test_common_prefix_is_that_of_a_loop(a: bytes, b: bytes, length: int) -> None:
    start = bytes(length)
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(start + a, start + b) == length + expected


@given(st.lists(st.binary(max_size=40), max_size=8), st.sets(st.integers(0, 7)))
def test_bodies_come_back_as_they_were_sent(bodies: list[bytes], settled: set[int]) -> None:
    kept = SentBodies()
    for number, body in enumerate(bodies):
        kept.add(float(number), b"/s/x/v1/messages", number + 7, body)
        if number in settled:
            kept.settle()
    came = list(restored(*kept.account()))
    assert came == [(float(n), "/v1/messages", n + 7, body) for n, body in enumerate(bodies)]


def test_bodies_that_are_too_large_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trae_bench.provider.sent_bodies.MAX_STORED", 10)
    kept = SentBodies()
    for body in (b"12345", b"123456", b"abcdefghijk"):
        kept.add(0.0, b"/s/x/y", 1, body)
    assert kept.account() == ([], [])


@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages"])
def test_prompts_of_countless_parts_are_not_read(protocol: str) -> None:
    """A part costs more memory than its two bytes: two requests of 4 MB took 2.8 GB."""
    blocks = {"role": "user", "content": [1] * (MAX_PARTS + 1)}
    messages = [1] * (MAX_PARTS + 1) if protocol == "openai_chat" else [blocks]
    long, fitting = ({"messages": messages[:n]} for n in (None, MAX_PARTS))
    if protocol == "anthropic_messages":
        fitting = {"messages": [{**blocks, "content": [1] * MAX_PARTS}]}
    assert PromptReader().read(protocol, json.dumps(long).encode()) is None
    prompt = PromptReader().read(protocol, json.dumps(fitting).encode())
    assert prompt is not None
    assert len(prompt.parts) == MAX_PARTS


def test_sessions_of_countless_parts_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trae_bench.prompt.reading.MAX_SESSION_PARTS", 50)
    reader = PromptReader()
    histories = [chat(*range(n), tools=[]) for n in (40, 50, 51)]
    read = [reader.read("openai_chat", json.dumps(one).encode()) for one in histories]
    assert [prompt is None for prompt in read] == [False, False, True]
