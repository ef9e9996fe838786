"""The guide's `httpx` clients, over real sockets."""

import asyncio
import gc
import gzip
import json
import ssl
import warnings

import httpx
import pytest

from agent_core.connection_pool import (
    ConnectionPoolManager,
    PooledOpenAIClient,
    get_pooled_client,
)
from tests.agent_core.h2_server import serving_h2
from tests.agent_core.raw_server import ReceivedRequest, Step, answers, http, serving

pytestmark = pytest.mark.anyio


async def test_pooled_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with serving(answers(http(b'{"ok": true}'))) as server:
        for _ in range(2):
            async with ConnectionPoolManager.get_pooled_client(
                "openai", base_url=server.url
            ) as client:
                response = await client.post("/chat/completions", json={"a": 1})
                assert response.json() == {"ok": True}
        async with get_pooled_client("openai", base_url=server.url) as same:
            assert same is client
            await same.get("/models")
        await ConnectionPoolManager.close_all()
        assert client.is_closed
    assert server.connections == 1
    assert "authorization" not in server.asked[0].headers
    assert server.asked[2].line == "GET /v1/models HTTP/1.1"


async def test_clients_are_separate_per_key() -> None:
    async with serving(answers(http())) as server:
        a, again, b = [
            await ConnectionPoolManager.get_client(
                provider="openai",
                base_url=server.url,
                api_key=key,
                max_connections=15,
                max_keepalive_connections=8,
            )
            for key in ("key-a", "key-a", "key-b")
        ]
        assert a is again
        assert a is not b
        for client in (a, b, a):
            await client.post("/x")
        await ConnectionPoolManager.close_all()
    assert [received.headers["authorization"] for received in server.asked] == [
        "Bearer key-a",
        "Bearer key-b",
        "Bearer key-a",
    ]
    assert server.connections == 2


async def test_client_uses_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answers(http())) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-environment\n")
        for options in ({}, {"api_key": "mine"}, {"api_key": ""}):
            async with get_pooled_client("openai", **options) as client:
                assert (await client.post("/x")).http_version == "HTTP/1.1"
        monkeypatch.setenv("OPENAI_API_KEY", "changed")
        async with get_pooled_client("openai") as client:
            await client.post("/x")
        await ConnectionPoolManager.close_all()
    assert [asked.headers.get("authorization") for asked in server.asked] == [
        "Bearer key-of-the-environment",
        "Bearer mine",
        None,
        "Bearer changed",
    ]


async def test_client_uses_the_providers_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    client = await ConnectionPoolManager.get_client("openai")
    assert str(client.base_url) == "https://api.openai.com/v1/"
    with pytest.raises(ValueError, match="base_url"):
        await ConnectionPoolManager.get_client("azure")
    await ConnectionPoolManager.close_all()


async def test_limits_and_http2_are_effective(tls: ssl.SSLContext) -> None:
    """The fork passed httpx its own transport, which disabled both."""
    async with serving(answers(Step(http(), after=0.01))) as server:
        client = await ConnectionPoolManager.get_client(
            "openai", base_url=server.url, max_connections=2
        )
        await asyncio.gather(*(client.post("/x") for _ in range(6)))
        assert server.max_concurrent == 2
        await ConnectionPoolManager.close_all()
    async with serving_h2(tls) as h2:
        client = await ConnectionPoolManager.get_client("openai", base_url=h2.url)
        assert (await client.post("/x", content=b"a")).http_version == "HTTP/2"
        await ConnectionPoolManager.close_all()
    assert h2.http2_connections == 1


def test_client_works_on_several_loops() -> None:
    """The fork's client raised "Event loop is closed" on the second."""

    async def session() -> int:
        async with serving(answers(http())) as server:
            client = await ConnectionPoolManager.get_client("openai", base_url=server.url)
            return (await client.post("/x")).status_code

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # close_all was not called
        assert [asyncio.run(session()) for _ in range(2)] == [200, 200]
        asyncio.run(ConnectionPoolManager.close_all())
        gc.collect()


async def test_client_raises_httpx_errors() -> None:
    async with serving(answers(Step(http(b"12345")[:-1], "close"))) as server:
        async with get_pooled_client("openai", base_url=server.url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/x")
        await ConnectionPoolManager.close_all()


async def test_failure_is_a_response_and_not_decoded_twice() -> None:
    packed = http(gzip.compress(b"no"), 400, content_encoding="gzip")
    async with serving(answers(packed)) as server:
        async with get_pooled_client("openai", base_url=server.url) as client:
            response = await client.post("/x")
            assert (response.status_code, response.text) == (400, "no")
        await ConnectionPoolManager.close_all()


async def test_timeout_is_not_retried() -> None:
    async with serving(answers(Step(then="stall"))) as server:
        async with get_pooled_client("openai", base_url=server.url, timeout=0.05) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/x")
        await ConnectionPoolManager.close_all()
    assert len(server.asked) == 1


async def test_timeout_while_reading_the_body_is_not_retried() -> None:
    async with serving(answers(Step(http(b"12345")[:-1], "stall"))) as server:
        async with get_pooled_client("openai", base_url=server.url, timeout=0.05) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/x")
        await ConnectionPoolManager.close_all()


async def test_timeout_limits_the_wait_for_a_free_connection() -> None:
    async with serving(answers(http(b"first"))) as server:
        client = await ConnectionPoolManager.get_client(
            "openai", base_url=server.url, timeout=0.05, max_connections=1
        )
        async with client.stream("POST", "/a"):
            with pytest.raises(httpx.PoolTimeout):
                await client.post("/b")
        assert (await client.post("/c")).status_code == 200
        await ConnectionPoolManager.close_all()
    assert [asked.line.split()[1] for asked in server.asked] == ["/v1/a", "/v1/c"]


async def test_pooled_openai_client() -> None:
    def script(asked: ReceivedRequest) -> Step:
        if json.loads(asked.body).get("stream"):
            return Step(http(b'data: {"n": 1}\n\ndata: [DONE]\n\n'))
        return Step(http(b'{"id": "x"}') if asked.number else http(b"{}", 400))

    async with serving(script) as server:
        client = PooledOpenAIClient("the-key", server.url)
        with pytest.raises(httpx.HTTPStatusError):
            await client.chat_completion(model="m", messages=[])
        assert await client.chat_completion(model="m", messages=[]) == {"id": "x"}
        stream = client.chat_completion_stream(model="m", messages=[])
        assert [data async for data in stream] == ['{"n": 1}', "[DONE]"]
        await ConnectionPoolManager.close_all()
    assert server.connections == 1
