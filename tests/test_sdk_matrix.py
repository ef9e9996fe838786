"""The vendors' SDKs decode the replies of the scripted provider in five protocols.

Each SDK receives whole and streamed replies over real sockets. The tests compare text, calls with
their ids and arguments, finish reason, and token counts. Rows of SDKs that are not installed are
skipped.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, get_args

import pytest

from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.scenario import Fault, Protocol, ProviderConditions

ARGUMENTS = {"command": 'echo "é😀\\n"', "deep": [{"n": 1.5, "none": None, "yes": True}]}
CALLS = (
    PlayedCall("call_00001_1", "bash", ARGUMENTS),
    PlayedCall("call_00001_2", "task_done", {}),
)
TURNS = {
    "both": PlayedTurn("First é😀 this,\n\nthen that; and a sentence to be cut in pieces.", CALLS),
    "calls": PlayedTurn("", CALLS),
    "text": PlayedTurn("Only words."),
}
SECOND = PlayedTurn("And a second reply.")


class SdkReply(NamedTuple):
    """One reply as an SDK decodes it."""

    text: str
    calls: list[tuple[str, str, dict[str, Any]]]
    """Id, name, arguments."""
    tokens: tuple[int, int]
    """Input tokens, including cached ones, and output tokens."""
    finish: str


Request = Callable[[str, bool], SdkReply]
"""Sends one request to a base URL, streamed or not."""


def openai_chat(base_url: str, stream: bool) -> SdkReply:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        question: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        if stream:
            options = {"stream_options": {"include_usage": True}}
            with client.chat.completions.stream(**question, **options) as events:
                for _ in events:
                    pass
                reply = events.get_final_completion()
        else:
            reply = client.chat.completions.create(**question)
    message, usage = reply.choices[0].message, reply.usage
    calls = [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in message.tool_calls or ()
    ]
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    return SdkReply(message.content or "", calls, tokens, reply.choices[0].finish_reason)


def openai_responses(base_url: str, stream: bool) -> SdkReply:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        if stream:
            with client.responses.stream(model="m", input="hi") as events:
                deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
                reply = events.get_final_response()
            assert deltas == reply.output_text
        else:
            reply = client.responses.create(model="m", input="hi")
    calls = [
        (item.call_id, item.name, json.loads(item.arguments))
        for item in reply.output
        if item.type == "function_call"
    ]
    tokens = (reply.usage.input_tokens, reply.usage.output_tokens)
    return SdkReply(reply.output_text, calls, tokens, reply.status)


def anthropic_messages(base_url: str, stream: bool) -> SdkReply:
    anthropic = pytest.importorskip("anthropic")
    question: Any = {
        "model": "m",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
    }
    with anthropic.Anthropic(base_url=base_url, api_key="k", max_retries=0) as client:
        if stream:
            with client.messages.stream(**question) as events:
                reply = events.get_final_message()
        else:
            reply = client.messages.create(**question)
    usage = reply.usage
    tokens = (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens)
    text = "".join(block.text for block in reply.content if block.type == "text")
    calls = [(b.id, b.name, b.input) for b in reply.content if b.type == "tool_use"]
    return SdkReply(text, calls, tokens, reply.stop_reason)


def gemini(base_url: str, stream: bool) -> SdkReply:
    genai = pytest.importorskip("google.genai")
    options = genai.types.HttpOptions(base_url=base_url)
    with closing(genai.Client(api_key="k", http_options=options)) as client:
        ask = client.models.generate_content_stream if stream else client.models.generate_content
        answer = ask(model="m", contents="hi")
        chunks = list(answer) if stream else [answer]
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    found = [part.function_call for part in parts if part.function_call]
    usage = chunks[-1].usage_metadata
    return SdkReply(
        "".join(part.text or "" for part in parts),
        [(call.id, call.name, call.args) for call in found],
        (usage.prompt_token_count, usage.candidates_token_count),
        chunks[-1].candidates[0].finish_reason.value,
    )


def ollama_chat(base_url: str, stream: bool) -> SdkReply:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=base_url)
    question = [{"role": "user", "content": "hi"}]
    with closing(client._client):
        answer = client.chat(model="m", messages=question, stream=stream)
        chunks = list(answer) if stream else [answer]
    found = [call for chunk in chunks for call in chunk.message.tool_calls or ()]
    return SdkReply(
        "".join(chunk.message.content or "" for chunk in chunks),
        # The protocol has no call ids.
        [("", call.function.name, dict(call.function.arguments)) for call in found],
        (chunks[-1].prompt_eval_count, chunks[-1].eval_count),
        chunks[-1].done_reason,
    )


MATRIX: dict[Protocol, Request] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic_messages": anthropic_messages,
    "gemini": gemini,
    "ollama_chat": ollama_chat,
}
FINISHES: dict[Protocol, tuple[str, str]] = {
    "openai_chat": ("tool_calls", "stop"),
    "openai_responses": ("completed", "completed"),
    "anthropic_messages": ("tool_use", "end_turn"),
    "gemini": ("STOP", "STOP"),
    "ollama_chat": ("stop", "stop"),
}
"""Finish reasons with and without calls."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def test_the_matrix_is_complete() -> None:
    assert set(MATRIX) == set(FINISHES) == set(get_args(Protocol))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", TURNS)
@pytest.mark.parametrize("protocol", MATRIX)
def test_an_sdk_reads_the_reply(
    provider: Loopback, protocol: Protocol, kind: str, stream: bool
) -> None:
    turn = TURNS[kind]
    conditions = ProviderConditions(protocol=protocol, stream=stream, chunk_characters=7)
    name = f"{protocol}-{kind}-{stream}"
    base_url = provider.register(name, Script((turn, SECOND), conditions))
    first, second = (MATRIX[protocol](base_url, stream) for _ in range(2))
    assert first.text == turn.text
    ids = [""] * len(turn.calls) if protocol == "ollama_chat" else [c.id for c in turn.calls]
    assert first.calls == [
        (call_id, call.name, call.arguments) for call_id, call in zip(ids, turn.calls, strict=True)
    ]
    assert first.finish == FINISHES[protocol][0 if turn.calls else 1]
    assert (second.text, second.calls) == (SECOND.text, [])
    assert min(*first.tokens, *second.tokens) > 0
    # Far less than a placeholder.
    assert max(*first.tokens, *second.tokens) < 10_000
    log = provider.collect(name)
    assert [entry.status for entry in log.requests] == [200, 200]
    assert log.unexpected == 0


ERRORS = {
    "openai_chat": "openai:InternalServerError",
    "openai_responses": "openai:InternalServerError",
    "anthropic_messages": "anthropic:InternalServerError",
    "gemini": "google.genai.errors:ServerError",
    "ollama_chat": "ollama:ResponseError",
}


@pytest.mark.parametrize("protocol", MATRIX)
def test_an_sdk_reads_the_error(provider: Loopback, protocol: Protocol) -> None:
    module, _, error = ERRORS[protocol].partition(":")
    expected = getattr(pytest.importorskip(module), error)
    conditions = ProviderConditions(protocol=protocol, faults=(Fault(1, "status", 500),))
    base_url = provider.register(f"error-{protocol}", Script((SECOND,), conditions))
    with pytest.raises(expected, match="scripted fault: status 500"):
        MATRIX[protocol](base_url, False)
    assert MATRIX[protocol](base_url, False).text == SECOND.text
