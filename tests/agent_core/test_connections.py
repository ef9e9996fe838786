"""Transports over real sockets: which connections are opened and which are reused."""

import asyncio
import base64
import gc
import gzip
import logging
import ssl
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core import _http, compression, loop_pools
from agent_core.connection_metrics import pool_metrics
from agent_core.connections import FreshConnections
from agent_core.errors import ConfigError, ConnectionFailedError
from agent_core.pooled_connections import PooledConnections
from agent_core.ports import Connections, Request, Response
from agent_core.retries import BackOff, Clock
from tests.agent_core.h2_server import serving_h2
from tests.agent_core.raw_server import RawServer, ReceivedRequest, Step, answers, http, serving
from tests.agent_core.test_retries import Time

pytestmark = pytest.mark.anyio

Make = Callable[..., Any]
both_sides = pytest.mark.parametrize("make", [FreshConnections, PooledConnections])
QUICK: dict[str, float | None] = {"connect": 5.0, "read": 5.0, "write": 5.0}


def request(server: RawServer, key: str = "key-of-tenant-a", **changes: Any) -> Request:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    fields = {"provider": "openai", "url": f"{server.url}/chat", "headers": headers}
    return Request(**{**fields, "body": b'{"a": 1}', **changes})


async def ask(connections: Connections, server: RawServer, count: int = 1) -> list[Response]:
    return [await connections.post(request(server)) for _ in range(count)]


@pytest.fixture
def instant() -> Time:
    return Time(chance=0.5)


# ---------------------------------------------------------------------- both transports


@both_sides
async def test_request_and_response_are_complete(make: Make) -> None:
    async with serving(answers(http(b"[1]", 418, x_any="yes"))) as server:
        connections = make()
        response = await connections.post(request(server, url=f"{server.url}/chat?a=b"))
        await connections.close()
    assert (response.status, response.headers["x-any"], response.body) == (418, "yes", b"[1]")
    (asked,) = server.asked
    assert asked.line == "POST /v1/chat?a=b HTTP/1.1"
    assert asked.headers["host"] == f"localhost:{server.port}"
    assert asked.headers["authorization"] == "Bearer key-of-tenant-a"
    assert asked.body == b'{"a": 1}'


async def test_only_pooled_connections_are_kept_alive() -> None:
    for make, opened in ((FreshConnections, 5), (PooledConnections, 1)):
        async with serving(answers(http())) as server:
            connections = make()
            await ask(connections, server, 5)
            stats = connections.stats()
            await connections.close()
        assert server.connections == stats["connections_opened"] == opened
        assert stats["total_requests"] == 5
        assert stats["connection_reuse_count"] == 5 - opened
        assert stats["tls_handshakes"] == stats["retries"] == 0


async def test_hundred_concurrent_sessions() -> None:
    async def session(server: RawServer) -> None:
        connections = PooledConnections()
        for response in await ask(connections, server, 4):
            assert response.status == 200
        await connections.close()

    script = answers(Step(http(), after=0.005))
    async with serving(script) as server, PooledConnections():
        await asyncio.gather(*(session(server) for _ in range(100)))
    assert len(server.asked) == 400
    assert server.max_concurrent > 50
    assert server.connections <= 100


async def test_consecutive_sessions_share_while_one_manager_is_open() -> None:
    async with serving(answers(http())) as server:
        async with PooledConnections():
            for _ in range(3):
                async with PooledConnections() as session:
                    await ask(session, server)
        assert server.connections == 1
        async with PooledConnections() as session:
            await ask(session, server)
    assert server.connections == 2


async def test_concurrent_requests_are_limited() -> None:
    async with (
        serving(answers(Step(http(), after=0.005))) as server,
        PooledConnections(max_connections=2) as session,
    ):
        await asyncio.gather(*(session.post(request(server)) for _ in range(8)))
    assert server.max_concurrent == 2
    assert server.connections == 2


async def test_idle_connections_are_limited() -> None:
    async with (
        serving(answers(Step(http(), after=0.005))) as server,
        PooledConnections(max_keepalive_connections=1) as session,
    ):
        for _ in range(2):
            await asyncio.gather(*(session.post(request(server)) for _ in range(3)))
    assert server.connections == 5


async def test_idle_connections_are_limited_over_all_keys() -> None:
    async with (
        serving(answers(http())) as server,
        PooledConnections(max_keepalive_connections=2) as session,
    ):
        for key in ("one", "two", "three", "two", "three"):
            await session.post(request(server, key))
        assert server.connections == 3
        await session.post(request(server, "one"))  # the third closed the longest idle one
        assert server.connections == 4
        (pools,) = loop_pools._LOOPS.values()
        assert len(pools._idle) == len(pools.pools) == 2, "no empty pool is kept"


async def test_any_request_closes_expired_connections() -> None:
    now = [0.0]
    async with (
        serving(answers(http())) as server,
        PooledConnections(clock=Clock(now=lambda: now[0])) as session,
    ):
        await session.post(request(server, "one"))
        now[0] = loop_pools.KEEPALIVE - 1
        await session.post(request(server, "two"))
        (pools,) = loop_pools._LOOPS.values()
        assert len(pools._idle) == 2
        now[0] += 1
        await session.post(request(server, "two"))
        assert len(pools._idle) == len(pools.pools) == 1


# ------------------------------------------------------------------------------- tenants


async def test_connection_never_carries_two_keys() -> None:
    async with serving(answers(http())) as server:
        async with PooledConnections() as a, PooledConnections() as b:
            for _ in range(3):
                await a.post(request(server, "key-of-tenant-a"))
                await b.post(request(server, "key-of-tenant-b"))
                await a.post(request(server, "key-of-tenant-b"))
        keys = {
            (received.connection, received.headers["authorization"]) for received in server.asked
        }
    assert len(keys) == server.connections == 2


@pytest.mark.parametrize("header", ["x-api-key", "x-goog-api-key", "api-key", "X-Api-Key"])
async def test_every_key_header_separates_tenants(header: str) -> None:
    async with serving(answers(http())) as server, PooledConnections() as session:
        for key in ("one", "two", "one"):
            await session.post(request(server, headers={header: key}))
    assert server.connections == 2


async def test_providers_do_not_share_connections() -> None:
    async with serving(answers(http())) as server, PooledConnections() as session:
        for provider in ("openai", "anthropic", "openai"):
            await session.post(request(server, provider=provider))
    assert server.connections == 2


@both_sides
async def test_error_shows_no_key(make: Make) -> None:
    async with serving(answers(http())) as server:
        connections = make()
        with pytest.raises(ConnectionFailedError) as caught:
            await connections.post(request(server, "planted-key\r\nx: y"))
        await connections.close()
    error: BaseException | None = caught.value
    while error is not None:
        assert "planted-key" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# ------------------------------------------------------------------------------- faults


async def test_connection_closed_between_requests_is_replaced(instant: Time) -> None:
    async with serving(answers(http())) as server:
        session = PooledConnections(clock=instant.clock)
        await ask(session, server)
        await server.hang_up()
        # Detected before the connection is used, so nothing is sent twice.
        assert (await session.post(request(server, safe_to_repeat=False))).status == 200
        await session.close()
    assert server.connections == 2
    assert not instant.slept


def hang_up_on_the_second_request_of_a_connection(then: str) -> Callable[[ReceivedRequest], Step]:
    seen: set[int] = set()

    def script(asked: ReceivedRequest) -> Step:
        if asked.connection in seen:
            return Step(then=then)  # type: ignore[arg-type]
        seen.add(asked.connection)
        return Step(http())

    return script


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_connection_closed_during_a_request(instant: Time, then: str) -> None:
    """No byte of a response has arrived, so the request is sent again without waiting."""
    async with serving(hang_up_on_the_second_request_of_a_connection(then)) as server:
        session = PooledConnections(clock=instant.clock)
        responses = await ask(session, server, 3)
        await session.close()
    assert [response.status for response in responses] == [200] * 3
    assert server.connections == 3
    assert session.stats()["retries"] == 0
    assert not instant.slept


async def test_unsafe_request_is_not_repeated(instant: Time) -> None:
    async with serving(hang_up_on_the_second_request_of_a_connection("close")) as server:
        session = PooledConnections(clock=instant.clock)
        await ask(session, server)
        with pytest.raises(ConnectionFailedError):
            await session.post(request(server, safe_to_repeat=False))
        await session.close()
    assert len(server.asked) == 2


@both_sides
@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("sends", [b"", b"HTTP/1.1 200", http()[:-1]])
async def test_interrupted_replies(make: Make, instant: Time, sends: bytes, then: Any) -> None:
    script = answers(Step(sends, then), http(b"whole"))
    async with serving(script) as server:
        connections = make(clock=instant.clock)
        response = await connections.post(request(server))
        assert response.body == b"whole"
        assert connections.stats()["retries"] == 1
        await connections.close()
    async with serving(answers(Step(sends, then))) as server:
        connections = make(clock=instant.clock)
        with pytest.raises(ConnectionFailedError):
            await connections.post(request(server, safe_to_repeat=False))
        await connections.close()
        assert len(server.asked) == 1


@both_sides
async def test_transient_statuses(make: Make, instant: Time) -> None:
    script = answers(http(status=429, retry_after="3"), http(status=503), http(status=529), http())
    async with serving(script) as server:
        connections = make(clock=instant.clock)
        (response,) = await ask(connections, server)
        await connections.close()
    assert response.status == 200
    assert instant.slept == [3.25, 0.5, 1.0]
    assert server.connections == (4 if make is FreshConnections else 1)


@both_sides
async def test_retries_are_limited(make: Make, instant: Time) -> None:
    async with serving(answers(http(status=500))) as server:
        connections = make(max_retries=2, clock=instant.clock)
        (response,) = await ask(connections, server)
        await connections.close()
    assert response.status == 500
    assert len(server.asked) == 3


@both_sides
async def test_connection_refused(make: Make, instant: Time) -> None:
    async with serving(answers(http())) as server:
        pass
    connections = make(back_off=BackOff(retries=3), clock=instant.clock)
    reason = rf"localhost:{server.port}: Connection refused \(2 tries\); check base_url"
    with pytest.raises(ConnectionFailedError, match=reason):
        await connections.post(request(server, safe_to_repeat=False))
    await connections.close()
    assert len(instant.slept) == 1


@both_sides
async def test_server_that_stops_in_a_session_gets_all_retries(make: Make, instant: Time) -> None:
    async with serving(answers(http())) as server:
        connections = make(back_off=BackOff(retries=3), clock=instant.clock)
        await ask(connections, server)
    with pytest.raises(ConnectionFailedError, match=r"\(4 tries\)"):
        await ask(connections, server)
    await connections.close()


@both_sides
async def test_unknown_host(make: Make, instant: Time) -> None:
    connections = make(clock=instant.clock)
    wanted = Request("openai", "http://no-such-host.invalid/v1", {}, b"")
    with pytest.raises(ConnectionFailedError, match=r"no-such-host.invalid: .* \(2 tries\)"):
        await connections.post(wanted)
    await connections.close()
    assert len(instant.slept) == 1


@both_sides
async def test_server_that_never_answers(make: Make, instant: Time) -> None:
    async with serving(answers(Step(then="stall"), http())) as server:
        connections = make(timeouts={**QUICK, "read": 0.05}, clock=instant.clock)
        (response,) = await ask(connections, server)
        await connections.close()
    assert response.status == 200


async def test_cancelled_request_frees_its_connection_and_slot() -> None:
    async with serving(answers(Step(then="stall"), http())) as server:
        session = PooledConnections(max_connections=1)
        waiting = asyncio.create_task(session.post(request(server)))
        await server.first.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await ask(session, server)
        await session.close()
    assert server.connections == 2


# ------------------------------------------------------------------------------ streaming


@both_sides
async def test_stream(make: Make) -> None:
    async with serving(answers(http(b"abc" * 50_000))) as server:
        connections = make()
        async with connections.stream(request(server)) as (status, headers, chunks):
            assert (status, headers["content-length"]) == (200, "150000")
            assert b"".join([chunk async for chunk in chunks]) == b"abc" * 50_000
        await ask(connections, server)
        await connections.close()
    assert server.connections == (2 if make is FreshConnections else 1)


@both_sides
async def test_stream_is_retried_until_the_headers_arrive(make: Make, instant: Time) -> None:
    async with serving(answers(http(status=502), Step(then="reset"), http(b"x"))) as server:
        connections = make(clock=instant.clock)
        async with connections.stream(request(server)) as (status, _, chunks):
            assert status == 200
            assert [chunk async for chunk in chunks] == [b"x"]
        await connections.close()
    # A pooled connection is kept after the failure, so the reset is that of a stale connection.
    assert len(instant.slept) == (2 if make is FreshConnections else 1)


@both_sides
async def test_body_of_a_failure_decides_on_a_retry(make: Make, instant: Time) -> None:
    body = b'{"error": {"code": "insufficient_quota", "message": "no credit"}}'
    packed = http(gzip.compress(body), 429, content_encoding="gzip")
    for response in (http(body, 429), packed):
        async with serving(answers(response)) as server:
            connections = make(clock=instant.clock)
            assert (await connections.post(request(server))).body == body
            async with connections.stream(request(server)) as (status, _, chunks):
                assert (status, b"".join([chunk async for chunk in chunks])) == (429, body)
            await connections.close()
        assert len(server.asked) == 2
    assert not instant.slept


# -------------------------------------------------------------------------- compression

TEXT = b"text of a reply " * 1000
PACKED = {
    "gzip": gzip.compress(TEXT),
    "GZIP": gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:]),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "identity": TEXT,
}


@both_sides
@pytest.mark.parametrize("coding", PACKED)
async def test_compressed_reply_is_read(make: Make, coding: str) -> None:
    """Nobody asked for it, but some servers and proxies send it."""
    async with serving(answers(http(PACKED[coding], content_encoding=coding))) as server:
        connections = make()
        assert (await connections.post(request(server))).body == TEXT
        async with connections.stream(request(server)) as (_, _, chunks):
            assert b"".join([chunk async for chunk in chunks]) == TEXT
        await connections.close()


async def _read(make: Make, body: bytes, coding: str, *, stream: bool, time: Time) -> RawServer:
    """Reads `body` with 2 retries, which must fail."""
    async with serving(answers(http(body, content_encoding=coding))) as server:
        connections = make(clock=time.clock, max_retries=2)
        try:
            if not stream:
                await connections.post(request(server))
            async with connections.stream(request(server)) as (_, _, chunks):
                async for _ in chunks:
                    pass
        finally:
            await connections.close()
    return server


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "coding", "reason"),
    [
        (PACKED["gzip"][:-20], "gzip", "not complete"),
        (PACKED["gzip"][:30] + b"?" * 30, "gzip", "damaged"),
        (b"not compressed", "gzip", "damaged"),
        (b"anything", "br", "compressed with 'br', which was not asked for"),
    ],
    ids=["truncated", "damaged", "plain", "unknown"],
)
async def test_unusable_compression(
    stream: bool, body: bytes, coding: str, reason: str, instant: Time
) -> None:
    with pytest.raises(ConnectionFailedError, match=reason):
        await _read(PooledConnections, body, coding, stream=stream, time=instant)
    assert len(instant.slept) == (2 if coding == "gzip" and not stream else 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_compression_bomb(
    stream: bool, instant: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "MAX_BODY", 1 << 20)
    bomb = gzip.compress(bytes(2 << 20))
    with pytest.raises(ConnectionFailedError, match="longer than 1 MiB"):
        await _read(PooledConnections, bomb, "gzip", stream=stream, time=instant)
    assert not instant.slept


async def test_endless_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MAX_BODY", 1 << 20)
    async with serving(answers(http(bytes(2 << 20)))) as server, PooledConnections() as session:
        with pytest.raises(ConnectionFailedError, match="longer than 1 MiB"):
            await session.post(request(server))
        async with session.stream(request(server)) as (_, _, chunks):
            with pytest.raises(ConnectionFailedError, match="longer than 1 MiB"):
                async for _ in chunks:
                    pass


@both_sides
async def test_truncated_stream(make: Make) -> None:
    async with serving(answers(Step(http(b"0123456789")[:-5], "close"))) as server:
        connections = make()
        with pytest.raises(ConnectionFailedError, match="middle of a reply"):
            async with connections.stream(request(server)) as (_, _, chunks):
                async for chunk in chunks:
                    assert chunk == b"01234"
        await connections.close()
        assert len(server.asked) == 1


async def test_connection_of_an_abandoned_stream_is_not_reused() -> None:
    script = answers(Step(http(b"x" * 10)[:-1]), http())
    async with serving(script) as server, PooledConnections() as session:
        async with session.stream(request(server)) as (_, _, chunks):
            async for _ in chunks:
                break
        await ask(session, server)
    assert server.connections == 2


# -------------------------------------------------------------- event loops and proxies


def test_transport_works_on_several_loops() -> None:
    manager = PooledConnections()

    async def session() -> int:
        async with serving(answers(http())) as server:
            await ask(manager, server, 2)
            await manager.close()
            return server.connections

    assert [asyncio.run(session()) for _ in range(2)] == [1, 1]


def test_loops_may_be_added_while_closed_ones_are_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulates another thread that adds a loop during the iteration."""

    class Loop:
        def is_closed(self) -> bool:
            loops[Loop()] = loop_pools.LoopPools()
            return True

    loops: dict[Any, Any] = {Loop(): loop_pools.LoopPools()}
    monkeypatch.setattr(loop_pools, "_LOOPS", loops)
    loop_pools.forget_closed_loops()
    assert len(loops) == 1


def test_loop_that_ended_without_close_is_removed() -> None:
    async def session(manager: PooledConnections) -> int:
        async with serving(answers(http())) as server:
            await ask(manager, server, 2)
            return server.connections

    manager = PooledConnections()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the first loop's socket is not closed
        assert [asyncio.run(session(manager)) for _ in range(2)] == [1, 1]
        asyncio.run(manager.close())
        gc.collect()


async def test_proxy_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answers(http(b"by proxy"))) as proxy:
        monkeypatch.setenv("http_proxy", f"http://localhost:{proxy.port}")
        monkeypatch.setenv("no_proxy", "inside.example")
        connections = FreshConnections()
        target = request(proxy, url="http://outside.example/v1")
        assert (await connections.post(target)).body == b"by proxy"
    assert proxy.asked[0].line == "POST http://outside.example/v1 HTTP/1.1"


async def test_proxy_credentials_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answers(http())) as proxy:
        monkeypatch.setenv("http_proxy", f"http://us%40er:p%3Ass@localhost:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        await FreshConnections().post(request(proxy, url="http://outside.example/v1"))
    scheme, _, credentials = proxy.asked[0].headers["proxy-authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials)) == ("Basic", b"us@er:p:ss")


@both_sides
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxy_that_is_not_there_is_named(
    make: Make, scheme: str, instant: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answers(http())) as proxy:
        pass
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:planted@localhost:{proxy.port}")
    monkeypatch.setenv("no_proxy", "")
    reason = (
        rf"No connection to the proxy http://localhost:{proxy.port} on the way to"
        rf" {scheme}://outside.example: Connection refused \(2 tries\);"
        f" check {scheme.upper()}_PROXY"
    )
    with pytest.raises(ConnectionFailedError, match=reason):
        await make(clock=instant.clock).post(
            Request("openai", f"{scheme}://outside.example/v1", {}, b"")
        )


@both_sides
@pytest.mark.parametrize(("status", "retries"), [(407, 0), (403, 0), (502, 1)])
async def test_proxy_that_refuses_is_named(
    make: Make, status: int, retries: int, instant: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(answers(Step(http(status=status), "close"))) as proxy:
        monkeypatch.setenv("https_proxy", f"http://localhost:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        reason = (
            f"The proxy http://localhost:{proxy.port} gives no connection to"
            f" https://outside.example: {status} Any"
        )
        with pytest.raises(ConnectionFailedError, match=reason):
            await make(clock=instant.clock).post(
                Request("openai", "https://outside.example/v1", {}, b"")
            )
    assert len(instant.slept) == retries


@both_sides
@pytest.mark.parametrize(
    "address", ["ftp://u:planted@localhost:1", "http://u:planted@h:99999999", "http://", "h:port"]
)
async def test_unusable_proxy_is_reported(
    make: Make, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("no_proxy", "")
    wanted = Request("openai", "http://outside.example/v1", {}, b"")
    with pytest.raises(ConfigError, match="HTTP_PROXY is not a usable proxy address") as caught:
        await make().post(wanted)
    assert "planted" not in str(caught.value)


# -------------------------------------------------------------------------- TLS and HTTP/2


@both_sides
@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("shared", [True, False])
async def test_unreadable_certificates_are_reported(
    make: Make, content: str | None, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setattr(_http, "_CONTEXTS", {})
    connections = make(shared_tls=shared)
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE=.*ca.pem: cannot read certificates"):
        await connections.post(Request("openai", "https://localhost:9/v1", {}, b""))
    await connections.close()


async def test_http2_log_contains_no_key(
    tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hpack"), "level", logging.NOTSET)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    caplog.set_level(logging.DEBUG)
    async with serving_h2(tls) as server, PooledConnections() as session:
        headers = {"authorization": "Bearer sk-planted-key"}
        await session.post(Request("openai", f"{server.url}/chat", headers, b"body"))
    assert server.http2_connections == 1
    assert "httpcore.http2" in {record.name for record in caplog.records}
    assert "planted" not in caplog.text


async def test_plain_http_creates_no_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_CONTEXTS", {})
    async with serving(answers(http())) as server, PooledConnections() as session:
        await ask(session, server)
    assert not _http._CONTEXTS


async def test_tls(tls: ssl.SSLContext) -> None:
    async with serving(answers(http()), tls) as server:
        fresh = FreshConnections()
        await ask(fresh, server, 3)
        async with PooledConnections() as session:
            await ask(session, server, 3)
    assert fresh.stats()["tls_handshakes"] == 3
    assert session.stats()["tls_handshakes"] == 1
    assert set(_http._CONTEXTS) == {False, True}


async def test_untrusted_certificate_is_not_retried(
    tls: ssl.SSLContext, instant: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with serving(answers(http()), tls) as server:
        connections = PooledConnections(clock=instant.clock)
        with pytest.raises(ConnectionFailedError, match="certificate"):
            await ask(connections, server)
        await connections.close()
    assert not instant.slept


@pytest.mark.parametrize("shared", [True, False])
async def test_certificates_are_read_once_or_for_every_connection(
    tls: ssl.SSLContext, instant: Time, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    async with serving(answers(http()), tls) as server:
        fresh = FreshConnections(clock=instant.clock, shared_tls=shared)
        pooled = PooledConnections(clock=instant.clock, shared_tls=shared)
        for connections in (fresh, pooled):
            await ask(connections, server)
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.delenv("SSL_CERT_DIR", raising=False)
        await ask(pooled, server)  # on the open connection
        if shared:
            await ask(fresh, server)
        else:
            with pytest.raises(ConnectionFailedError, match="certificate"):
                await ask(fresh, server)
        await pooled.close()


async def test_many_requests_share_one_http2_connection(tls: ssl.SSLContext) -> None:
    async with serving_h2(tls) as server, PooledConnections(max_connections=50) as session:
        wanted = Request("openai", f"{server.url}/chat", {"authorization": "k"}, b"body")
        for _ in range(2):
            replies = await asyncio.gather(*(session.post(wanted) for _ in range(20)))
            assert {reply.body for reply in replies} == {b"echo: body"}
    assert server.connections == 1
    assert session.stats()["connections_opened"] == session.stats()["tls_handshakes"] == 1
    assert session.stats()["connection_reuse_count"] == 39


async def test_http2_connection_is_replaced_after_goaway(tls: ssl.SSLContext) -> None:
    async with serving_h2(tls) as server, PooledConnections() as session:
        wanted = Request("openai", f"{server.url}/chat", {}, b"body")
        await session.post(wanted)
        server.go_away()
        assert (await session.post(wanted)).body == b"echo: body"
    assert server.connections == 2


async def test_server_without_http2_gets_one_connection_per_request(tls: ssl.SSLContext) -> None:
    async with (
        serving(answers(Step(http(), after=0.01)), tls) as server,
        PooledConnections() as session,
    ):
        for _ in range(2):
            await asyncio.gather(*(session.post(request(server)) for _ in range(5)))
    assert server.connections == 5


async def test_http2_can_be_disabled(tls: ssl.SSLContext) -> None:
    async with serving_h2(tls) as server, PooledConnections(http2=False) as session:
        with pytest.raises(ConnectionFailedError):
            wanted = Request("openai", f"{server.url}/chat", {}, b"", safe_to_repeat=False)
            await session.post(wanted)
    assert server.http2_connections == 0


async def test_http1_is_used_without_h2(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fork's pool requested HTTP/2 without h2 and raised an error."""
    monkeypatch.setitem(sys.modules, "h2", None)
    _http.http2_possible.cache_clear()
    try:
        async with serving(answers(http()), tls) as server, PooledConnections() as session:
            await ask(session, server)
        async with serving_h2(tls) as server, PooledConnections(max_retries=0) as session:
            with pytest.raises(ConnectionFailedError):
                await session.post(Request("openai", f"{server.url}/chat", {}, b""))
        assert server.http2_connections == 0
    finally:
        _http.http2_possible.cache_clear()


# ------------------------------------------------------------------------------ metrics


async def test_guides_metrics() -> None:
    before = pool_metrics.get_stats()
    async with serving(answers(http())) as server, PooledConnections() as session:
        await ask(session, server, 4)
    after = pool_metrics.get_stats()
    assert after["total_requests"] - before["total_requests"] == 4
    assert after["connection_reuse_count"] - before["connection_reuse_count"] == 3
    assert {
        "total_requests",
        "connection_reuse_count",
        "connection_reuse_rate_percent",
        "average_request_time_ms",
        "total_request_time_seconds",
    } <= set(after)


async def test_request_time_runs_from_sending_to_the_last_byte() -> None:
    ticks = iter(range(100))
    clock = Clock(now=lambda: float(next(ticks)))
    async with serving(answers(http())) as server, PooledConnections(clock=clock) as session:
        await ask(session, server, 3)
    assert session.stats()["average_request_time_ms"] == 1000


def test_importing_loads_no_http_library() -> None:
    code = "import sys, agent_core.connection_pool; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"httpx", "httpcore", "h11", "h2", "anyio", "certifi"} & set(loaded)


@given(sizes=st.lists(st.integers(1, 400), max_size=40), parts=st.integers(1, 3))
def test_compressed_body_in_any_pieces(sizes: list[int], parts: int) -> None:
    step = len(TEXT) // parts + 1
    packed = b"".join(
        gzip.compress(TEXT[start : start + step]) for start in range(0, len(TEXT), step)
    )
    decompressor, plain = compression.Decompressor("gzip"), b""
    for size in [*sizes, len(packed)]:
        plain += decompressor.feed(packed[:size])
        packed = packed[size:]
    decompressor.end()
    assert plain == TEXT
