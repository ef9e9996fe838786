"""Several conversations of one session: which one a request belongs to."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.provider.test_exchanges import answered, exchange
from trae_bench.model.sample import SessionLog
from trae_bench.provider.conversations import continued, history_of, joined, requests_in
from trae_bench.provider.exchanges import session_of
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Conversation, PlayedCall, PlayedTurn, Script

USER, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}
GEMINI = {"role": "user", "parts": [{"text": "Hi"}]}


@pytest.mark.parametrize(
    ("protocol", "first", "later"),
    [
        ("openai_chat", [USER], {"role": "tool", "tool_call_id": "c", "content": ""}),
        ("ollama_chat", [USER], REPLY),
        ("anthropic_messages", [USER], {"role": "user", "content": [{"type": "tool_result"}]}),
        ("openai_responses", [USER], {"type": "function_call_output", "call_id": "c"}),
        ("openai_responses", "Hi", {"type": "reasoning"}),
        ("gemini", [GEMINI], {"role": "user", "parts": [{"functionResponse": {}}]}),
        ("gemini", ["Hi"], {"role": "model", "parts": []}),
    ],
)
def test_a_request_without_reply_or_result_begins(protocol: str, first: Any, later: Any) -> None:
    field = {"openai_responses": "input", "gemini": "contents"}.get(protocol, "messages")
    history = history_of(protocol, {field: first, "tools": [1]})
    assert (history.begins, history.prompt) == (True, "Hi")
    items = first if isinstance(first, list) else [first]
    more = history_of(protocol, {field: [*items, later]})
    assert not more.begins
    assert more.shared(history.digests) == 1
    assert not history_of(protocol, {field: first, "previous_response_id": "r"}).begins


def test_where_the_cache_ends_does_not_count() -> None:
    marked = {"role": "user", "content": [{"text": "Hi", "cache_control": {"type": "ephemeral"}}]}
    plain = {"role": "user", "content": [{"text": "Hi"}]}
    one, other = (history_of("anthropic_messages", {"messages": [m]}) for m in (marked, plain))
    assert one.digests == other.digests


def test_a_request_continues_the_conversation_that_it_repeats_longest() -> None:
    def digests(*texts: str) -> bytes:
        messages = [{"role": "user", "content": text} for text in texts]
        return history_of("openai_chat", {"messages": messages}).digests

    latest = [digests("a", "b"), digests("a", "c"), digests("d")]
    for texts, expected in (
        (("a", "b", "x"), 0),
        (("a", "c"), 1),
        (("d", "e"), 2),
        (("a", "z"), 1),
    ):
        messages = [*({"role": "user", "content": text} for text in texts)]
        assert continued(history_of("openai_chat", {"messages": messages}), latest) == expected


def test_bodies_nested_too_deep_have_no_history() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert history_of("openai_chat", {"messages": [deep]}).digests == b""


def test_joined_requests_are_found_again() -> None:
    assert requests_in(joined([b'{"a": 1}']).decode()) == ['{"a": 1}']
    assert requests_in(joined([b'{"a": 1}', b""]).decode()) == ['{"a": 1}', "null"]
    assert requests_in("no JSON") == ["no JSON"]


# -- a session with sub-agents


SHELL = [{"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}]
PROMPTS = ("", "Look.", "Write.", "Look.")
LENGTHS = (3, 3, 2, 3)


def script() -> Script:
    """Each conversation calls a tool until its last turn. Turns are named `A1`, `A2`, `B1`."""
    turns = []
    for name, length in zip("ABCD", LENGTHS, strict=True):
        for turn in range(1, length + 1):
            number = len(turns) + 1
            call = PlayedCall(f"call_{number:05}_1", "shell", {"command": "true"})
            turns.append(PlayedTurn(f"{name}{turn}", (call,) if turn < length else ()))
    parts = tuple(map(Conversation, PROMPTS, LENGTHS))
    return Script(tuple(turns), client="foreign", conversations=parts)


class Speaker:
    """One conversation of an agent."""

    def __init__(self, url: str, prompt: str) -> None:
        self._url = url
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        self.heard: list[str] = []

    def body(self) -> dict[str, Any]:
        return {"messages": self.messages, "tools": SHELL}

    def step(self, client: httpx.Client) -> None:
        reply = client.post(f"{self._url}/chat/completions", json=self.body()).raise_for_status()
        message = reply.json()["choices"][0]["message"]
        self.heard.append(message["content"])
        self.messages.append(message)
        for call in message.get("tool_calls") or ():
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": ""})


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def played(provider: Loopback, order: list[int]) -> tuple[list[list[str]], SessionLog]:
    """Play the script, in which the speakers 1 to 3 are sub-agents, in an order of steps."""
    url = provider.register("several", script())
    speakers = [Speaker(url, prompt or "Do it.") for prompt in PROMPTS]
    with httpx.Client(trust_env=False) as client:
        for number in order:
            speakers[number].step(client)
    return [one.heard for one in speakers], provider.collect("several")


STEPS = [number for number, length in enumerate(LENGTHS) for _ in range(length)][1:]


@given(st.permutations(STEPS))
def test_each_conversation_hears_its_own_replies(provider: Loopback, order: list[int]) -> None:
    heard, log = played(provider, [0, *order])
    assert (log.unplayed, log.unexpected) == (0, 0)
    assert heard[0] == ["A1", "A2", "A3"]
    assert heard[2] == ["C1", "C2"]
    # Two with one prompt: whichever asks first is the first.
    assert sorted([heard[1], heard[3]]) == [["B1", "B2", "B3"], ["D1", "D2", "D3"]]
    assert [request.conversation for request in log.requests].count(0) == LENGTHS[0]
    # Each prompt is compared with the one before in its conversation.
    assert len(log.prompts) == sum(LENGTHS)
    assert [one.broken for one in log.prompts] == [None] * sum(LENGTHS)
    # The tokens of a reply are those of its own turn, which has a call or only a text.
    with_call = {token.output for token in log.tokens}
    assert len(with_call) == 2
    assert sum(token.output == min(with_call) for token in log.tokens) == len(LENGTHS)


def test_sessions_of_one_process_may_start_in_any_order(provider: Loopback) -> None:
    heard, log = played(provider, [2, 1, 0, 3, *STEPS[:2], 1, 1, 2, 3, 3])
    assert heard == [["A1", "A2", "A3"], ["B1", "B2", "B3"], ["C1", "C2"], ["D1", "D2", "D3"]]
    assert (log.unplayed, log.unexpected) == (0, 0)


def test_the_last_requests_are_in_the_order_of_the_script(provider: Loopback) -> None:
    orders = ([0, 1, 2, 3, *STEPS[:2], 1, 1, 2, 3, 3], [0, 1, 3, 1, 3, 1, 3, 2, 2, 0, 0])
    bodies = [played(provider, order)[1].last_body for order in orders]
    assert bodies[0] == bodies[1]
    assert len(requests_in(bodies[0].decode())) == len(PROMPTS)


def test_a_repeated_request_of_a_sub_agent_gets_its_answer_again(provider: Loopback) -> None:
    url = provider.register("again", script())
    main, sub = Speaker(url, "Do it."), Speaker(url, "Write.")
    with httpx.Client(trust_env=False) as client:
        main.step(client)
        sub.step(client)
        before = sub.body()
        sub.messages = sub.messages[:1]
        sub.step(client)
        main.step(client)
        sub.step(client)
    log = provider.collect("again")
    assert sub.heard == ["C1", "C1", "C2"]
    assert before["messages"][:2] == sub.messages[:2]
    assert log.repeats == 1


# -- recorded


def recorded(*steps: tuple[str, str]) -> list[list[str]]:
    """The replies of each conversation in a recording. A step is a prompt and a reply."""
    histories: dict[str, list[dict[str, Any]]] = {}
    exchanges = []
    for prompt, text in steps:
        messages = histories.setdefault(prompt, [{"role": "user", "content": prompt}])
        body = json.dumps({"messages": messages, "tools": SHELL}).encode()
        exchanges.append(exchange(body, answered(text)))
        messages.append({"role": "assistant", "content": text})
        messages.append({"role": "user", "content": "Go on."})
    session = session_of(exchanges, "x")
    conversations = [session.replies, *(one.replies for one in session.sub_agents)]
    return [[reply.text for reply in replies] for replies in conversations]


def test_a_recording_is_split_into_its_conversations() -> None:
    steps = (("m", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("b", "5"), ("m", "6"))
    assert recorded(*steps) == [["1", "6"], ["2", "4"], ["3", "5"]]
    steps = (("m", "1"), ("a", "2"), ("m", "3"), ("b", "4"), ("m", "5"))
    assert recorded(*steps) == [["1", "3", "5"], ["2"], ["4"]]


def test_a_conversation_that_none_outlives_is_no_sub_agent() -> None:
    """Such as an agent that shortens its history, or sends each step as one message."""
    assert recorded(("m", "1"), ("m", "2"), ("a", "3"), ("a", "4")) == [["1", "2", "3", "4"]]
    assert recorded(("m", "1"), ("a", "2"), ("b", "3")) == [["1", "2", "3"]]
