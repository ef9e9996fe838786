"""The vendors' SDKs and the wire clients send the same requests and read the same replies.

Each test is skipped if its SDK is not installed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.connections import FreshConnections
from agent_core.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    InvalidRequestError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
    RateLimitError,
)
from agent_core.messages import Message, Reply, ToolCall, ToolResult
from agent_core.models import codec
from agent_core.models.wire import open_model
from agent_core.ports import Model
from agent_core.sdks import SDKS, load_llm_client
from agent_core.tools import TOOLS
from tests.agent_core.scripted_server import Answer, ReceivedRequest, scripted_server

pytestmark = pytest.mark.anyio

KEY = "sk-planted-key"
SPECS = [entry.spec for entry in TOOLS.values()]
VIEW = {"command": "view", "path": "/w/a.txt"}
CALL = ToolCall("call_1", "str_replace_based_edit_tool", VIEW)
HISTORY = [
    Message("system", "You are careful."),
    Message("user", "Look at a.txt — é."),
    Message("assistant", "I look.", (CALL, replace(CALL, id="call_2"))),
    Message("tool", result=ToolResult("call_1", CALL.name, True, "alpha\nbeta")),
    Message("tool", result=ToolResult("call_2", CALL.name, False, "", "no such file")),
]


def chat(**message: Any) -> dict[str, Any]:
    return {
        "id": "r",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16},
    }


CHAT = chat(
    role="assistant",
    content="Seen.",
    tool_calls=[
        {
            "id": "call_3",
            "type": "function",
            "function": {"name": CALL.name, "arguments": json.dumps(VIEW)},
        }
    ],
)
RESPONSES = {
    "id": "r",
    "object": "response",
    "created_at": 1,
    "model": "m-1",
    "status": "completed",
    "output": [
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Seen.", "annotations": []}],
        },
        {
            "id": "f",
            "type": "function_call",
            "call_id": "call_3",
            "name": CALL.name,
            "arguments": json.dumps(VIEW),
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 11,
        "output_tokens": 5,
        "total_tokens": 16,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 1},
    },
}
MESSAGES = {
    "id": "r",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "content": [
        {"type": "text", "text": "Seen."},
        {"type": "tool_use", "id": "call_3", "name": CALL.name, "input": VIEW},
    ],
    "usage": {"input_tokens": 11, "output_tokens": 5, "cache_read_input_tokens": 2},
}
GEMINI = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Seen."},
                    {"functionCall": {"id": "call_3", "name": CALL.name, "args": VIEW}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 5, "totalTokenCount": 16},
    "modelVersion": "m-1",
}
OLLAMA = {
    "model": "m-1",
    "created_at": "2025-01-01T00:00:00Z",
    "message": {
        "role": "assistant",
        "content": "Seen.",
        "tool_calls": [{"function": {"name": CALL.name, "arguments": VIEW}}],
    },
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 11,
    "eval_count": 5,
}

WHOLE = {
    "openai": CHAT,
    "openrouter": CHAT,
    "doubao": CHAT,
    "azure": CHAT,
    "openai_responses": RESPONSES,
    "anthropic": MESSAGES,
    "google": GEMINI,
    "ollama": OLLAMA,
}
"""A reply of each provider. `openai_responses` is the provider openai with that protocol."""


def settings_for(case: str, url: str, **changes: Any) -> tuple[str, ProviderSettings]:
    provider = "openai" if case == "openai_responses" else case
    settings = ProviderSettings(
        api_key=KEY,
        model="m-1",
        base_url=url + {"google": "/v1beta", "ollama": "", "azure": ""}.get(provider, "/v1"),
        protocol=case if case == "openai_responses" else None,
        temperature=0.5,
        max_retries=0,
    )
    pytest.importorskip(SDKS[provider].module)
    return provider, replace(settings, **changes)


async def both(
    case: str, answers: list[Answer], history: list[Message] = HISTORY, **changes: Any
) -> tuple[list[Reply], list[ReceivedRequest]]:
    """The reply over the SDK, the one over the wire, and the two requests."""
    async with scripted_server(*answers, *answers) as server:
        provider, settings = settings_for(case, server.url, **changes)
        models: list[Model] = [
            load_llm_client(provider, settings),
            open_model(provider, settings, FreshConnections(max_retries=0)),
        ]
        replies = []
        for model in models:
            replies.append(await model.reply(history, SPECS))
            await model.close()
        return replies, server.seen


# --------------------------------------------------------------------- the same transcript


@pytest.mark.parametrize("case", WHOLE)
async def test_sdk_and_wire_client_send_and_read_the_same(case: str) -> None:
    (sdk, wire), (asked, expected) = await both(case, [Answer(json.dumps(WHOLE[case]).encode())])
    assert sdk == wire
    assert (sdk.message.text, sdk.message.calls[0].arguments) == ("Seen.", VIEW)
    assert sdk.usage.input_tokens == 11
    assert asked.path == expected.path
    assert as_ollama_sends(asked.json) == as_ollama_sends(expected.json)
    if case != "ollama":
        assert asked.json == expected.json
    for request in (asked, expected):  # the header may differ, but there is only one
        assert sum(KEY in value for value in request.headers.values()) == 1
        assert KEY not in request.path and KEY.encode() not in request.body


def as_ollama_sends(body: dict[str, Any]) -> dict[str, Any]:
    """`body` without the schema keywords that Ollama's SDK does not support."""
    lost = ("additionalProperties", "minimum")

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in lost}
        return [kept(item) for item in value] if isinstance(value, list) else value

    return {**body, "tools": kept(body.get("tools", []))}


def events(*bodies: dict[str, Any], done: bool = False) -> Answer:
    lines = [
        f"event: {body['type']}\ndata: {json.dumps(body)}\n\n"
        if "type" in body
        else f"data: {json.dumps(body)}\n\n"
        for body in bodies
    ]
    text = "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return Answer(text.encode(), kind="text/event-stream")


def chunk(**delta: Any) -> dict[str, Any]:
    finish = delta.pop("finish", None)
    return {
        "id": "r",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def part_of_call(**fields: Any) -> dict[str, Any]:
    return chunk(tool_calls=[{"index": 0, **fields}])


_BLOCK = {"type": "tool_use", "id": "call_3", "name": CALL.name, "input": {}}
_RESPONSE_ITEM = RESPONSES["output"][1]  # type: ignore[index]
STREAMED: dict[str, Callable[[], Answer]] = {
    "openai": lambda: events(
        chunk(role="assistant", content="Se"),
        chunk(content="en."),
        part_of_call(id="call_3", type="function", function={"name": CALL.name, "arguments": ""}),
        part_of_call(function={"arguments": json.dumps(VIEW)[:9]}),
        part_of_call(function={"arguments": json.dumps(VIEW)[9:]}),
        chunk(finish="tool_calls"),
        {**chunk(), "choices": [], "usage": CHAT["usage"]},
        done=True,
    ),
    "openai_responses": lambda: events(
        {"type": "response.created", "sequence_number": 0, "response": {**RESPONSES, "output": []}},
        {"type": "response.completed", "sequence_number": 1, "response": RESPONSES},
    ),
    "anthropic": lambda: events(
        {"type": "message_start", "message": {**MESSAGES, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Seen."},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": _BLOCK},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": json.dumps(VIEW)},
        },
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ),
    "google": lambda: events(GEMINI),
    "ollama": lambda: Answer(
        b"".join(
            json.dumps(line).encode() + b"\n"
            for line in (
                {**OLLAMA, "done": False, "message": {"role": "assistant", "content": "Se"}},
                {**OLLAMA, "message": {**OLLAMA["message"], "content": "en."}},  # type: ignore[dict-item]
            )
        ),
        kind="application/x-ndjson",
    ),
}


@pytest.mark.parametrize("case", STREAMED)
async def test_streamed_replies_are_equal(case: str) -> None:
    (sdk, wire), (asked, expected) = await both(case, [STREAMED[case]()], stream=True)
    assert sdk == wire
    assert (sdk.message.text, sdk.message.calls[0].arguments) == ("Seen.", VIEW)
    assert asked.path == expected.path
    assert as_ollama_sends(asked.json) == as_ollama_sends(expected.json)


async def test_malformed_arguments_are_kept() -> None:
    function = {"name": "bash", "arguments": '{"command": '}
    broken = chat(
        role="assistant",
        content=None,
        tool_calls=[{"id": "c", "type": "function", "function": function}],
    )
    (sdk, wire), _ = await both("openai", [Answer(json.dumps(broken).encode())])
    assert sdk == wire
    assert sdk.message.calls[0].malformed == '{"command": '


async def test_other_limit_field_is_tried_on_both_sides() -> None:
    refused = Answer(b'{"error": {"message": "Unknown field: max_completion_tokens"}}', 400)
    (sdk, wire), asked = await both("openai", [refused, Answer(json.dumps(CHAT).encode())])
    assert sdk == wire
    assert ["max_tokens" in request.json for request in asked] == [False, True] * 2


async def test_thoughts_and_signatures_come_back_on_both_sides() -> None:
    signed = {**CHAT["choices"][0]["message"]["tool_calls"][0], "extra_content": {"google": "s"}}
    thinking = chat(
        role="assistant", content=None, tool_calls=[signed], reasoning_content="Hm.", refusal=None
    )
    (sdk, wire), _ = await both("openai", [Answer(json.dumps(thinking).encode())])
    assert sdk == wire
    replies, asked = await both(
        "openai", [Answer(json.dumps(CHAT).encode())], [*HISTORY, sdk.message]
    )
    assert replies[0] == replies[1]
    for request in asked:
        sent_back = request.json["messages"][-1]
        assert sent_back["reasoning_content"] == "Hm."
        assert sent_back["tool_calls"][0]["extra_content"] == {"google": "s"}


async def test_refusal_in_words_is_one_on_both_sides() -> None:
    body = chat(role="assistant", content=None, refusal="I cannot help.")
    (sdk, wire), _ = await both("openai", [Answer(json.dumps(body).encode())])
    assert sdk == wire
    assert (sdk.ending, sdk.explanation) == ("refused", "I cannot help.")


async def test_calls_without_an_id_get_one() -> None:
    nameless = {"message": {**OLLAMA["message"], "content": ""}}  # type: ignore[dict-item]
    (sdk, wire), _ = await both("ollama", [Answer(json.dumps({**OLLAMA, **nameless}).encode())])
    assert sdk == wire
    assert sdk.message.calls[0].id


@pytest.mark.parametrize("case", ["openai", "openai_responses"])
async def test_openai_gets_the_cache_key_over_the_sdk(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "takes_cache_key", lambda url: True)
    _, (asked, expected) = await both(case, [Answer(json.dumps(WHOLE[case]).encode())])
    for request in (asked, expected):
        assert request.json["prompt_cache_key"].startswith("agent-core-")
    assert asked.json.keys() == expected.json.keys()


# ---------------------------------------------------------------------------- connections


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("reuse", [True, False])
async def test_connections_are_reused_or_new(case: str, reuse: bool) -> None:
    answer = Answer(json.dumps(WHOLE[case]).encode())
    async with scripted_server(answer, answer, answer) as server:
        provider, settings = settings_for(case, server.url)
        model = load_llm_client(provider, settings, reuse_connections=reuse)
        for _ in range(3):
            await model.reply(HISTORY, SPECS)
        await model.close()
        await model.close()
    assert server.connections == (1 if reuse else 3)


@pytest.mark.parametrize("case", ["openai", "anthropic"])
@pytest.mark.parametrize("retries", [0, 1])
async def test_sdk_retries_max_retries_times(case: str, retries: int) -> None:
    ill = Answer(b'{"error": {"message": "ill"}}', 503, headers={"retry-after-ms": "1"})
    async with scripted_server(ill, Answer(json.dumps(WHOLE[case]).encode())) as server:
        provider, settings = settings_for(case, server.url, max_retries=retries)
        model = load_llm_client(provider, settings)
        if retries:
            assert (await model.reply(HISTORY, SPECS)).message.text == "Seen."
        else:
            with pytest.raises(OverloadedError):
                await model.reply(HISTORY, SPECS)
        await model.close()
    assert len(server.seen) == 1 + retries


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("case", ["openai", "azure", "anthropic", "google", "ollama"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (429, RateLimitError),
        (500, OverloadedError),
        (529, OverloadedError),
    ],
)
async def test_refusal_gives_the_same_error_as_over_the_wire(
    case: str, status: int, kind: type[ProviderError]
) -> None:
    detail = {"message": f"wrong key {KEY}", "code": status, "status": "X", "type": "error"}
    body = {"error": detail["message"]} if case == "ollama" else {"error": detail, "type": "error"}
    answer = Answer(json.dumps(body).encode(), status)
    async with scripted_server(answer, answer) as server:
        provider, settings = settings_for(case, server.url)
        for model in (
            load_llm_client(provider, settings),
            open_model(provider, settings, FreshConnections(max_retries=0)),
        ):
            with pytest.raises(kind) as caught:
                await model.reply(HISTORY, SPECS)
            await model.close()
            assert type(caught.value) is kind
            assert caught.value.status == status
            assert "wrong key" in str(caught.value)
            assert KEY not in str(caught.value)
            assert caught.value.__cause__ is None


@pytest.mark.parametrize("case", ["openai", "anthropic", "google"])
async def test_requested_wait_is_in_the_error(case: str) -> None:
    error = {"error": {"message": "slower", "code": 429, "status": "X"}}
    answer = Answer(json.dumps(error).encode(), 429, headers={"Retry-After": "7"})
    async with scripted_server(answer) as server:
        model = load_llm_client(*settings_for(case, server.url))
        with pytest.raises(RateLimitError) as caught:
            await model.reply(HISTORY, SPECS)
        await model.close()
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("case", ["openai", "anthropic", "google", "ollama"])
async def test_truncated_or_empty_reply_is_malformed(case: str) -> None:
    whole = json.dumps(WHOLE[case]).encode()
    for body in (whole[:-20], b"{}"):
        async with scripted_server(Answer(body)) as server:
            model = load_llm_client(*settings_for(case, server.url))
            with pytest.raises(MalformedReplyError):
                await model.reply(HISTORY, SPECS)
            await model.close()


@pytest.mark.parametrize("case", ["openai", "anthropic", "google", "ollama"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>", "text/html"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b'{"candidates": 5, "choices": 5, "content": 5, "message": 5}', "application/json"),
        (b"[" * 100_000, "application/json"),
    ],
)
async def test_unexpected_shape_is_malformed(case: str, body: bytes, kind: str) -> None:
    async with scripted_server(Answer(body, kind=kind)) as server:
        model = load_llm_client(*settings_for(case, server.url))
        with pytest.raises(MalformedReplyError, match=f"^{case}: "):
            await model.reply(HISTORY, SPECS)
        await model.close()


@pytest.mark.parametrize("case", ["openai", "anthropic", "google", "ollama"])
@pytest.mark.parametrize("body", [b'{"error": {"message": "no"}}', b"[1]", b"[" * 100_000])
async def test_any_refusal_body_gives_an_error(case: str, body: bytes) -> None:
    async with scripted_server(Answer(body, 400)) as server:
        model = load_llm_client(*settings_for(case, server.url))
        with pytest.raises(ProviderError):
            await model.reply(HISTORY, SPECS)
        await model.close()


async def test_error_event_gives_the_same_error_as_over_the_wire() -> None:
    detail = {"type": "overloaded_error", "message": f"Overloaded, {KEY}"}
    event = events({"type": "error", "error": detail})
    async with scripted_server(event, event) as server:
        provider, settings = settings_for("anthropic", server.url, stream=True)
        raised = []
        for model in (
            load_llm_client(provider, settings),
            open_model(provider, settings, FreshConnections(max_retries=0)),
        ):
            with pytest.raises(OverloadedError) as caught:
                await model.reply(HISTORY, SPECS)
            await model.close()
            raised.append((str(caught.value), caught.value.status))
    assert raised[0] == raised[1] == ("anthropic answered 529: Overloaded, [REDACTED]", 529)


@pytest.mark.parametrize("case", WHOLE)
async def test_query_of_the_base_url_is_sent_as_over_the_wire(case: str) -> None:
    answer = Answer(json.dumps(WHOLE[case]).encode())
    async with scripted_server(answer, answer) as server:
        provider, settings = settings_for(case, server.url)
        settings = replace(settings, base_url=f"{settings.base_url}?token=abc")
        for model in (
            load_llm_client(provider, settings),
            open_model(provider, settings, FreshConnections(max_retries=0)),
        ):
            await model.reply(HISTORY, SPECS)
            await model.close()
    (sdk, sdk_query), (wire, wire_query) = (seen.path.split("?") for seen in server.seen)
    assert sdk == wire
    assert sorted(sdk_query.split("&")) == sorted(wire_query.split("&"))
    assert "token=abc" in wire_query


@pytest.mark.parametrize("case", ["openai", "anthropic", "google", "ollama"])
async def test_key_that_is_not_a_valid_header_is_not_quoted(case: str) -> None:
    async with scripted_server(Answer(b"{}")) as server:
        key = "sk-planted\nkey-0123456789"
        model = load_llm_client(*settings_for(case, server.url, api_key=key))
        with pytest.raises(ProviderError) as caught:
            await model.reply(HISTORY, SPECS)
        await model.close()
    assert "planted" not in str(caught.value)
    assert "0123456789" not in str(caught.value)


async def test_sdk_that_cannot_be_set_up_raises_config_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(_: object) -> None:  # as with an invalid SSL_CERT_FILE
        raise FileNotFoundError("/secret/path")

    model = load_llm_client(*settings_for("openai", "https://127.0.0.1:9"))
    monkeypatch.setattr("agent_core.models.sdk.openai.OpenAIVendor.connect", connect)
    with pytest.raises(ConfigError, match=r"openai .*FileNotFoundError.*certificates\.$"):
        await model.reply(HISTORY, SPECS)
    await model.close()


@pytest.mark.parametrize("case", ["openai", "anthropic", "google", "ollama"])
@pytest.mark.parametrize("stream", [True, False])
async def test_unreachable_server_raises_connection_failed(case: str, stream: bool) -> None:
    async with scripted_server(Answer(status=0)) as server:
        model = load_llm_client(*settings_for(case, server.url, stream=stream))
        with pytest.raises(ConnectionFailedError):
            await model.reply(HISTORY, SPECS)
        await model.close()
    model = load_llm_client(*settings_for(case, "http://127.0.0.1:9", stream=stream))
    with pytest.raises(ConnectionFailedError):
        await model.reply(HISTORY, SPECS)
    await model.close()


@pytest.mark.parametrize("case", ["openai", "anthropic"])
async def test_truncated_stream_is_malformed(case: str) -> None:
    whole = STREAMED[case]()
    cut_short = replace(whole, body=whole.body[: len(whole.body) // 2])
    async with scripted_server(cut_short) as server:
        model = load_llm_client(*settings_for(case, server.url, stream=True))
        with pytest.raises(MalformedReplyError):
            await model.reply(HISTORY, SPECS)
        await model.close()


# --------------------------------------------------------------------- complete session


@pytest.mark.parametrize("case", ["openai", "anthropic", "google"])
async def test_session_has_the_same_transcript_on_both_sides(case: str, tmp_path: Path) -> None:
    async with scripted_server(*[Answer(json.dumps(WHOLE[case]).encode())] * 6) as server:
        provider, entry = settings_for(case, server.url)
        settings = Settings(default_provider=provider, model_providers={provider: entry})
        outcomes = [
            await run_task(
                "look",
                settings=settings,
                workspace=tmp_path,
                max_steps=3,
                toggles={"native_client": native, "connection_pool": pooled},
            )
            for native, pooled in ((True, True), (False, False))
        ]
    assert outcomes[0] == outcomes[1]
    bodies = [seen.json for seen in server.seen]
    assert bodies[:3] == bodies[3:]
    assert len({seen.connection for seen in server.seen[:3]}) == 1
    assert len({seen.connection for seen in server.seen[3:]}) == 3
