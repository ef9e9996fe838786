"""The guide's `httpx` clients, over real sockets."""

import asyncio
import gc
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
from tests.agent_core.raw_server import Asked, Step, answers, http, serving

pytestmark = pytest.mark.anyio


async def test_the_guides_pooled_client() -> None:
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


async def test_the_guides_client_is_a_tenants_own() -> None:
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
    assert [each.headers["authorization"] for each in server.asked] == [
        "Bearer key-a",
        "Bearer key-b",
        "Bearer key-a",
    ]
    assert server.connections == 2


async def test_the_guides_client_knows_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    client = await ConnectionPoolManager.get_client("openai")
    assert str(client.base_url) == "https://api.openai.com/v1/"
    with pytest.raises(ValueError, match="base_url"):
        await ConnectionPoolManager.get_client("azure")
    await ConnectionPoolManager.close_all()


async def test_the_guides_limits_and_http2_are_in_force(tls: ssl.SSLContext) -> None:
    """The fork handed httpx a transport of its own, and with it lost both."""
    async with serving(answers(Step(http(), after=0.01))) as server:
        client = await ConnectionPoolManager.get_client(
            "openai", base_url=server.url, max_connections=2
        )
        await asyncio.gather(*(client.post("/x") for _ in range(6)))
        assert server.most_at_once == 2
        await ConnectionPoolManager.close_all()
    async with serving_h2(tls) as h2:
        client = await ConnectionPoolManager.get_client("openai", base_url=h2.url)
        await client.post("/x", content=b"a")
        await ConnectionPoolManager.close_all()
    assert h2.http2_connections == 1


def test_the_guides_client_lives_through_several_loops() -> None:
    """The fork's said "Event loop is closed" in the second."""

    async def session() -> int:
        async with serving(answers(http())) as server:
            client = await ConnectionPoolManager.get_client("openai", base_url=server.url)
            return (await client.post("/x")).status_code

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nobody called close_all
        assert [asyncio.run(session()) for _ in range(2)] == [200, 200]
        asyncio.run(ConnectionPoolManager.close_all())
        gc.collect()


async def test_the_guides_client_fails_as_httpx_does() -> None:
    async with serving(answers(Step(http(b"12345")[:-1], "close"))) as server:
        async with get_pooled_client("openai", base_url=server.url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/x")
        await ConnectionPoolManager.close_all()


async def test_a_timeout_of_the_guides_client_is_the_end_of_a_call() -> None:
    async with serving(answers(Step(then="stall"))) as server:
        async with get_pooled_client("openai", base_url=server.url, timeout=0.05) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/x")
        await ConnectionPoolManager.close_all()
    assert len(server.asked) == 1


async def test_a_timeout_in_the_middle_of_a_reply_is_one_too() -> None:
    async with serving(answers(Step(http(b"12345")[:-1], "stall"))) as server:
        async with get_pooled_client("openai", base_url=server.url, timeout=0.05) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/x")
        await ConnectionPoolManager.close_all()


async def test_the_wait_for_a_free_connection_is_bounded_too() -> None:
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


async def test_the_pooled_openai_client() -> None:
    def script(asked: Asked) -> Step:
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
