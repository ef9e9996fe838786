"""Models over real sockets: replies, refusals and connection failures."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import respx

from agent_core import __version__
from agent_core.config import ProviderSettings
from agent_core.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ContextLimitError,
    InvalidRequestError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
    RateLimitError,
)
from agent_core.messages import Message
from agent_core.models import PROVIDERS
from agent_core.models.history import FullHistory, IncrementalHistory
from agent_core.models.wire import WireModel, open_model
from agent_core.pooled_connections import PooledConnections
from agent_core.redaction import REPLACEMENT
from tests.agent_core.histories import TOOLS
from tests.agent_core.raw_server import (
    RawServer,
    ReceivedRequest,
    Script,
    Step,
    answers,
    http,
    serving,
)
from tests.agent_core.test_retries import Time
from tests.agent_core.wire_fixtures import WIRES

pytestmark = pytest.mark.anyio

KEY = "planted-key-0123456789"
PROVIDER_OF = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "google",
    "ollama_chat": "ollama",
}
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "gemini": "/v1/models/m-1:generateContent",
    "ollama_chat": "/api/chat",
}
HISTORY = [Message("system", "Be brief."), Message("user", "List the files.")]
each_protocol = pytest.mark.parametrize("protocol", sorted(PATHS))
whole_or_streamed = pytest.mark.parametrize("stream", [False, True])


@asynccontextmanager
async def speaking(
    script: Script, protocol: str = "openai_chat", *, retries: int = 0, **settings: Any
) -> AsyncIterator[tuple[WireModel, RawServer]]:
    """A model whose server follows the script."""
    async with serving(script) as server:
        clock = Time().clock
        connections = PooledConnections(max_retries=retries, clock=clock)
        settings = ProviderSettings(
            api_key=KEY,
            model="m-1",
            base_url=server.url,
            protocol=protocol,
            max_retries=retries,
            **settings,
        )
        model = open_model(PROVIDER_OF[protocol], settings, connections, clock=clock)
        yield model, server
        await model.close()
        await connections.close()


def body_of(protocol: str, stream: bool) -> bytes:
    return WIRES[protocol].streamed if stream else WIRES[protocol].whole


@each_protocol
@whole_or_streamed
async def test_reply_over_a_socket(protocol: str, stream: bool) -> None:
    script = answers(http(body_of(protocol, stream)))
    async with speaking(script, protocol, stream=stream) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES[protocol].means
    (asked,) = server.asked
    path = PATHS[protocol]
    if stream and protocol == "gemini":
        path = path.replace("generate", "streamGenerate") + "?alt=sse"
    assert asked.line == f"POST {path} HTTP/1.1"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"] == f"agent-core/{__version__}"
    assert asked.headers["accept-encoding"] == "identity"
    assert KEY in asked.headers[PROVIDERS[PROVIDER_OF[protocol]].key_header]
    assert KEY.encode() not in asked.body
    assert json.loads(asked.body)


@pytest.mark.parametrize("stream", [False, True])
async def test_query_of_the_base_url_follows_the_path(stream: bool) -> None:
    async with serving(answers(http(body_of("gemini", stream)))) as server:
        settings = ProviderSettings(
            model="m-1", base_url=f"{server.url}/?token=a%2Fb", stream=stream
        )
        async with PooledConnections(max_retries=0) as connections:
            await open_model("google", settings, connections).reply(HISTORY, TOOLS)
    (asked,) = server.asked
    method = "streamGenerateContent?alt=sse&" if stream else "generateContent?"
    assert asked.line == f"POST /v1/models/m-1:{method}token=a%2Fb HTTP/1.1"


@each_protocol
async def test_server_that_does_not_stream_is_supported(protocol: str) -> None:
    body = WIRES[protocol].whole
    script = answers(http(body, content_type="application/json; charset=utf-8"))
    async with speaking(script, protocol, stream=True) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES[protocol].means
    assert len(server.asked) == 1


@pytest.mark.parametrize("history", [FullHistory, IncrementalHistory])
async def test_session_resends_its_history(history: Any) -> None:
    wire = WIRES["openai_chat"]
    async with serving(answers(http(wire.whole))) as server, PooledConnections() as connections:
        settings = ProviderSettings(model="m-1", base_url=server.url)
        model = open_model("openai", settings, connections, history=history)
        growing = list(HISTORY)
        for _ in range(3):
            growing.append((await model.reply(growing, TOOLS)).message)
    lengths = [len(json.loads(asked.body)["messages"]) for asked in server.asked]
    assert lengths == [2, 3, 4]
    assert "authorization" not in server.asked[0].headers


async def test_calls_without_an_id_get_a_unique_id() -> None:
    calls = [{"function": {"name": "bash", "arguments": {}}}] * 2
    reply = {"message": {"role": "assistant", "content": "", "tool_calls": calls}, "done": True}
    script = answers(http(json.dumps(reply).encode()))
    async with speaking(script, "ollama_chat") as (model, _):
        ids = [call.id for _ in range(2) for call in (await model.reply(HISTORY, ())).message.calls]
    assert ids == ["local-1", "local-2", "local-3", "local-4"]


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, InvalidRequestError),
        (408, OverloadedError),
        (413, ContextLimitError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, OverloadedError),
        (503, OverloadedError),
        (529, OverloadedError),
    ],
)
@whole_or_streamed
async def test_status_becomes_error(status: int, kind: type[ProviderError], stream: bool) -> None:
    body = json.dumps({"error": {"message": f"no,\n not with {KEY}"}}).encode()
    script = answers(http(body, status, retry_after="7"))
    async with speaking(script, stream=stream) as (model, _):
        with pytest.raises(kind) as caught:
            await model.reply(HISTORY, TOOLS)
    error = caught.value
    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith(f"openai answered {status}: no, not with {REPLACEMENT}")
    if isinstance(error, RateLimitError | OverloadedError):
        assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'[{"error": {"code": 400, "message": "bad field"}}]', "bad field"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"message": "nope"}', "nope"),
        (b'{"detail": [{"loc": ["body"], "msg": "x"}]}', '"msg":"x"'),
        (b"<html>\n<b>Bad</b>", "answered 400: an HTML page"),
        (
            b"\n<!DOCTYPE html><head><title>\nBad  Gateway</title>" + b"x" * 9999,
            "answered 400: an HTML page, 'Bad Gateway'",
        ),
        (b"\xff\xfe", "\ufffd"),
        (b"", "answered 400"),
        (b"x" * 10_000, "x" * 500),
        (b"[" * 100_000, "[" * 500),
        (b"x" * 490 + KEY.encode(), "x" * 490 + REPLACEMENT),
    ],
)
async def test_providers_message_is_in_the_error(body: bytes, message: str) -> None:
    async with speaking(answers(http(body, 400))) as (model, _):
        with pytest.raises(InvalidRequestError) as caught:
            await model.reply(HISTORY, TOOLS)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


async def test_redirect_error_names_the_remedy() -> None:
    script = answers(http(b"", 308, location="https://elsewhere.example/v1"))
    async with speaking(script) as (model, _):
        with pytest.raises(InvalidRequestError, match=r"elsewhere.example/v1; correct base_url"):
            await model.reply(HISTORY, TOOLS)


@pytest.mark.parametrize(
    ("protocol", "event", "kind"),
    [
        (
            "anthropic_messages",
            {"type": "error", "error": {"type": "overloaded_error", "message": f"busy {KEY}"}},
            OverloadedError,
        ),
        (
            "openai_responses",
            {"type": "error", "code": "rate_limit_exceeded", "message": f"slow {KEY}"},
            RateLimitError,
        ),
        (
            "openai_chat",
            {"error": {"code": 401, "message": f"who is {KEY}"}},
            AuthenticationError,
        ),
        (
            "gemini",
            {"error": {"status": "RESOURCE_EXHAUSTED", "message": KEY}},
            RateLimitError,
        ),
        ("openai_chat", {"error": {"type": "odd", "message": KEY}}, ProviderError),
    ],
)
async def test_refusals_inside_a_stream(
    protocol: str, event: dict[str, Any], kind: type[ProviderError]
) -> None:
    script = answers(http(b"data: " + json.dumps(event).encode() + b"\n\n"))
    async with speaking(script, protocol, stream=True) as (model, server):
        with pytest.raises(kind) as caught:
            await model.reply(HISTORY, TOOLS)
    assert type(caught.value) is kind
    assert REPLACEMENT in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1


async def test_transient_refusal_in_a_reply_is_retried() -> None:
    busy = http(b'{"error": {"code": 429, "message": "slow down"}}')
    script = answers(busy, busy, http(WIRES["openai_chat"].whole))
    async with speaking(script, retries=2) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES["openai_chat"].means
    assert len(server.asked) == 3
    async with speaking(answers(busy), retries=2) as (model, server):
        with pytest.raises(RateLimitError):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 3


async def test_transient_refusal_in_a_stream_is_retried() -> None:
    event = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    script = answers(
        http(b"data: " + json.dumps(event).encode() + b"\n\n"),
        http(WIRES["anthropic_messages"].streamed),
    )
    async with speaking(script, "anthropic_messages", retries=1, stream=True) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES["anthropic_messages"].means
    assert len(server.asked) == 2


async def test_permanent_refusal_is_not_retried() -> None:
    script = answers(http(b'{"error": {"code": 400, "message": "no"}}'))
    async with speaking(script, retries=2) as (model, server):
        with pytest.raises(InvalidRequestError):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 1


NO_CREDIT = {
    "openai_chat": {"error": {"type": "insufficient_quota", "message": "no credit"}},
    "openai_responses": {
        "type": "response.failed",
        "status": "failed",
        "error": {"code": "insufficient_quota", "message": "no credit"},
    },
}


@pytest.mark.parametrize("protocol", sorted(NO_CREDIT))
@pytest.mark.parametrize("status", [200, 429])
@whole_or_streamed
async def test_used_up_credit_is_not_retried(protocol: str, status: int, stream: bool) -> None:
    refusal: dict[str, Any] = dict(NO_CREDIT[protocol])
    if stream and protocol == "openai_responses":
        refusal["response"] = {name: refusal[name] for name in ("status", "error")}
        if status == 200:
            del refusal["error"]
    body = json.dumps(refusal).encode()
    sent = b"data: " + body + b"\n\n" if stream and status == 200 else body
    async with speaking(answers(http(sent, status)), protocol, retries=9, stream=stream) as (m, s):
        with pytest.raises(RateLimitError, match="no credit"):
            await m.reply(HISTORY, TOOLS)
    assert len(s.asked) == 1


@whole_or_streamed
async def test_wait_in_googles_body_is_in_the_error(stream: bool) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "900s"}
    body = json.dumps({"error": {"code": 429, "message": "slow", "details": [detail]}}).encode()
    script = answers(http(body, 429))
    async with speaking(script, "gemini", retries=9, stream=stream) as (model, server):
        with pytest.raises(RateLimitError) as caught:
            await model.reply(HISTORY, TOOLS)
    assert caught.value.retry_after == 900
    assert len(server.asked) == 1, "longer than the agent waits"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000"),
        (400, "Your input exceeds the context window of this model."),
        (400, "prompt is too long: 213462 tokens > 200000 maximum"),
        (400, "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"),
        (400, "The input token count (1048577) exceeds the maximum number of tokens allowed"),
        (400, "the request exceeds the available context size, try increasing it"),
        (413, "Request exceeds the maximum size"),
        (429, "Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 12000"),
    ],
)
@whole_or_streamed
async def test_too_long_a_conversation_has_its_own_error(
    status: int, message: str, stream: bool
) -> None:
    body = json.dumps({"error": {"message": message}}).encode()
    async with speaking(answers(http(body, status)), retries=9, stream=stream) as (model, server):
        with pytest.raises(ContextLimitError) as caught:
            await model.reply(HISTORY, TOOLS)
    assert caught.value.status == status
    assert len(server.asked) == 1


async def test_too_long_a_conversation_inside_a_stream() -> None:
    event = {"type": "error", "code": "context_length_exceeded", "message": "too much"}
    script = answers(http(b"data: " + json.dumps(event).encode() + b"\n\n"))
    async with speaking(script, "openai_responses", stream=True) as (model, _):
        with pytest.raises(ContextLimitError, match="too much"):
            await model.reply(HISTORY, TOOLS)


PAGE = b"<!doctype html><html><head><title>Sign in</title></head>" + b"x" * 2000


@whole_or_streamed
async def test_page_of_a_wrong_path_names_the_remedy(stream: bool) -> None:
    async with speaking(answers(http(PAGE, 404)), stream=stream) as (model, _):
        with pytest.raises(InvalidRequestError) as caught:
            await model.reply(HISTORY, TOOLS)
    assert str(caught.value) == (
        "openai answered 404: an HTML page, 'Sign in'; check the path of base_url, which often ends"
        " in /v1"
    )


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json"])
@whole_or_streamed
async def test_page_instead_of_a_reply_is_not_asked_for_again(
    stream: bool, content_type: str
) -> None:
    script = answers(http(PAGE, content_type=content_type))
    async with speaking(script, retries=9, stream=stream) as (model, server):
        with pytest.raises(MalformedReplyError, match=r"not JSON but an HTML page, 'Sign in'"):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 1


async def test_proxy_that_wants_a_password_is_named() -> None:
    async with speaking(answers(http(b"", 407))) as (model, _):
        with pytest.raises(InvalidRequestError, match="407: this is the proxy"):
            await model.reply(HISTORY, TOOLS)


@pytest.mark.parametrize("history", [FullHistory, IncrementalHistory])
@whole_or_streamed
async def test_server_that_knows_the_other_limit_field(history: Any, stream: bool) -> None:
    def script(asked: ReceivedRequest) -> Step:
        if b'"max_completion_tokens"' in asked.body:
            message = "Unrecognized request argument supplied: max_completion_tokens"
            return Step(http(json.dumps({"error": {"message": message}}).encode(), 400))
        return Step(http(body_of("openai_chat", stream)))

    async with serving(script) as server, PooledConnections() as connections:
        settings = ProviderSettings(model="m-1", base_url=server.url, stream=stream)
        model = open_model("openai", settings, connections, history=history)
        for _ in range(2):
            await model.reply(HISTORY, TOOLS)
    fields = [("max_tokens" in json.loads(asked.body)) for asked in server.asked]
    assert fields == [False, True, True], "the answer is remembered"


async def test_server_that_knows_no_limit_field() -> None:
    body = b'{"error": {"message": "Unknown field: max_completion_tokens, max_tokens"}}'
    async with speaking(answers(http(body, 400))) as (model, server):
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match="Unknown field"):
                await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 3


async def test_limit_field_can_be_set() -> None:
    script = answers(http(WIRES["openai_chat"].whole))
    async with speaking(script, limit_field="max_tokens") as (model, server):
        await model.reply(HISTORY, TOOLS)
    assert json.loads(server.asked[0].body)["max_tokens"] == 4096


# ------------------------------------------------------------------------------- faults


@whole_or_streamed
async def test_interrupted_reply_is_asked_for_again_after_a_word_and_a_pause(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    body = body_of("openai_chat", stream)
    script = answers(http(body[: len(body) // 2]), http(body))
    async with serving(script) as server, PooledConnections() as connections:
        time = Time(chance=0.5)
        settings = ProviderSettings(model="m-1", base_url=server.url, stream=stream)
        model = open_model("openai", settings, connections, clock=time.clock)
        await model.reply(HISTORY, TOOLS)
    assert time.slept == [0.25]
    (line,) = caplog.messages
    assert line.endswith("retry 1 of 2 in 0.2 s")


@each_protocol
async def test_text_of_an_interrupted_stream_is_shown_once(protocol: str) -> None:
    body, shown = body_of(protocol, True), []
    script = answers(http(body[: len(body) // 2]), http(body), http(body))
    async with serving(script) as server, PooledConnections() as connections:
        settings = ProviderSettings(
            api_key=KEY, model="m-1", base_url=server.url, protocol=protocol, stream=True
        )
        model = open_model(
            *(PROVIDER_OF[protocol], settings, connections),
            clock=Time().clock,
            on_text=shown.append,
        )
        for count in (1, 2):
            reply = await model.reply(HISTORY, TOOLS)
            assert "".join(shown) == reply.message.text * count != ""
    assert len(server.asked) == 3


@each_protocol
@whole_or_streamed
async def test_truncated_reply_is_retried(protocol: str, stream: bool) -> None:
    body = body_of(protocol, stream)
    torn = body[: len(body) // 2]
    script = answers(http(torn), Step(http(body)[: -len(body) // 2], "reset"), http(body))
    async with speaking(script, protocol, retries=2, stream=stream) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES[protocol].means
    assert len(server.asked) == 3


@whole_or_streamed
@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (2, 3), (9, 3)])
async def test_always_truncated_reply_is_an_error(stream: bool, retries: int, asked: int) -> None:
    body = body_of("openai_chat", stream)[:200]
    async with speaking(answers(http(body)), retries=retries, stream=stream) as (model, server):
        with pytest.raises(MalformedReplyError, match="openai"):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == asked


@whole_or_streamed
async def test_unexpected_shape_is_not_retried(stream: bool) -> None:
    body = b'{"choices": 5}'
    script = answers(http(b"data: " + body + b"\n\n" if stream else body))
    async with speaking(script, retries=2, stream=stream) as (model, server):
        with pytest.raises(MalformedReplyError, match="unexpected shape"):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 1


@whole_or_streamed
async def test_connection_that_always_breaks(stream: bool) -> None:
    script = answers(Step(http(body_of("openai_chat", stream))[:-300], "reset"))
    async with speaking(script, retries=2, stream=stream) as (model, server):
        with pytest.raises(ConnectionFailedError, match="middle of a reply"):
            await model.reply(HISTORY, TOOLS)
    assert len(server.asked) == 3


async def test_server_that_recovers() -> None:
    script = answers(
        http(b"", 429, retry_after="1"),
        http(b"", 500),
        Step(then="close"),
        http(WIRES["openai_chat"].whole),
    )
    async with speaking(script, retries=5) as (model, server):
        assert await model.reply(HISTORY, TOOLS) == WIRES["openai_chat"].means
    assert len({asked.body for asked in server.asked}) == 1


async def test_respx_sees_every_request() -> None:
    """Other projects can test this agent without a server."""
    settings = ProviderSettings(api_key=KEY, model="m-1", base_url="https://mocked.example/v1")
    async with PooledConnections() as connections:
        model = open_model("openai", settings, connections)
        with respx.mock(using="httpcore") as mock:
            route = mock.post("https://mocked.example/v1/chat/completions")
            route.side_effect = [
                httpx.Response(200, content=WIRES["openai_chat"].whole) for _ in range(2)
            ]
            replies = [await model.reply(HISTORY, TOOLS) for _ in range(2)]
        assert replies[0] == WIRES["openai_chat"].means
        assert replies[1].message.text == replies[0].message.text
        assert route.call_count == 2
