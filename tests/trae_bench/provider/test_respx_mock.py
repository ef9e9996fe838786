"""The provider in process: the same rules as the loopback server, without sockets."""

import asyncio
import builtins
import importlib
import socket
import sys
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from trae_bench.errors import UsageError
from trae_bench.provider import respx_mock
from trae_bench.provider.respx_mock import RespxProvider
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.scenario import Fault, ProviderConditions

TURNS = (PlayedTurn("one"), PlayedTurn("two"))


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[RespxProvider]:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with RespxProvider() as running:
        yield running


def ask(base_url: str, body: bytes = b"{}", **options: Any) -> httpx.Response:
    return httpx.post(f"{base_url}/chat/completions", content=body, **options)


def text_of(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def test_a_session_from_register_to_collect(provider: RespxProvider) -> None:
    base_url = provider.register("a", Script(TURNS))
    before = time.monotonic()
    texts = [text_of(ask(base_url, body)) for body in (b"first", b"second one")]
    after = time.monotonic()
    assert texts == ["one", "two"]
    log = provider.collect("a")
    first, second = log.requests
    assert before <= first.arrived <= first.replied <= second.arrived <= second.replied <= after
    assert [entry.received for entry in log.requests] == [5, 10]
    assert [entry.status for entry in log.requests] == [200, 200]
    assert (log.connections, log.handshakes, log.unexpected) == (0, 0, 0)
    assert log.last_body == b"second one"
    with pytest.raises(KeyError):
        provider.collect("a")


def test_sync_and_async_clients_get_the_same_replies(provider: RespxProvider) -> None:
    base_url = provider.register("a", Script(TURNS))

    async def ask_too() -> str:
        async with httpx.AsyncClient() as client:
            return text_of(await client.post(f"{base_url}/chat/completions", content=b"{}"))

    assert text_of(ask(base_url)) == "one"
    assert asyncio.run(ask_too()) == "two"


def test_unexpected_requests(provider: RespxProvider) -> None:
    base_url = provider.register("a", Script(TURNS[:1]))
    with pytest.raises(ValueError, match="already registered"):
        provider.register("a", Script(TURNS))
    assert httpx.post(f"{base_url}/embeddings").status_code == 404
    assert httpx.get(f"{base_url}/chat/completions").status_code == 405
    assert [ask(base_url).status_code for _ in range(2)] == [200, 400]
    assert ask(base_url.replace("/a/", "/b/")).status_code == 404
    assert provider.collect("a").unexpected == 3


def test_requests_to_other_hosts_are_rejected(provider: RespxProvider) -> None:
    with pytest.raises(AssertionError, match="not mocked"):
        httpx.post("http://127.0.0.1:9/v1")


def test_with_block_ends_the_provider() -> None:
    with RespxProvider() as provider:
        base_url = provider.register("a", Script(TURNS))
    with pytest.raises(httpx.ConnectError):
        ask(base_url)


def test_think_times_and_gaps_are_applied(provider: RespxProvider) -> None:
    conditions = ProviderConditions(
        think_seconds=0.05, stream=True, chunk_characters=1, chunk_seconds=0.01
    )
    base_url = provider.register("a", Script(TURNS, conditions))
    with httpx.stream("POST", f"{base_url}/chat/completions", content=b"{}") as response:
        events = list(response.iter_raw())
    assert len(events) == 7
    (entry,) = provider.collect("a").requests
    assert entry.replied - entry.arrived >= 0.11


def test_faults_raise_the_librarys_errors(provider: RespxProvider) -> None:
    kinds: tuple[Any, ...] = ("reset", "cut", "garbage")
    faults = tuple(Fault(number, kind) for number, kind in enumerate(kinds, 1))
    faults += (Fault(4, "status", 529, 0.5),)
    base_url = provider.register("a", Script(TURNS, ProviderConditions(faults=faults)))
    for error in (httpx.ReadError, httpx.RemoteProtocolError, httpx.RemoteProtocolError):
        with pytest.raises(error):
            ask(base_url)
    reply = ask(base_url)
    assert (reply.status_code, reply.headers["retry-after"]) == (529, "0.5")
    assert text_of(ask(base_url)) == "one"
    log = provider.collect("a")
    assert [entry.status for entry in log.requests] == [0, 200, 0, 529, 200]
    assert 0 < log.requests[1].sent < log.requests[4].sent


def test_a_client_that_closes_a_stream_early(provider: RespxProvider) -> None:
    conditions = ProviderConditions(stream=True, chunk_characters=1, chunk_seconds=0.001)
    base_url = provider.register("a", Script(TURNS, conditions))
    with httpx.stream("POST", f"{base_url}/chat/completions", content=b"{}") as response:
        next(response.iter_raw())
    (entry,) = provider.collect("a").requests
    assert 0 < entry.sent < 500


def test_no_request_is_kept(provider: RespxProvider) -> None:
    """respx keeps requests and replies by default, which would add to a measured session."""
    base_url = provider.register("a", Script(TURNS[:1] * 60))
    body = b"x" * 100_000
    with httpx.Client() as client:
        for _ in range(10):
            client.post(f"{base_url}/chat/completions", content=body)
        tracemalloc.start()
        for _ in range(50):
            client.post(f"{base_url}/chat/completions", content=body)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert grown < 1_000_000


def test_httpx2_clients_are_intercepted(provider: RespxProvider) -> None:
    httpx2 = pytest.importorskip("httpx2")
    faults = (Fault(1, "reset"), Fault(2, "cut"))
    base_url = provider.register("a", Script(TURNS, ProviderConditions(faults=faults)))
    with httpx2.Client() as client:
        for error in (httpx2.ReadError, httpx2.RemoteProtocolError):
            with pytest.raises(error):
                client.post(f"{base_url}/chat/completions", content=b"{}")
        reply = client.post(f"{base_url}/chat/completions", content=b"{}")
        assert reply.json()["choices"][0]["message"]["content"] == "one"


def test_without_respx_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "respx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, respx_mock.__name__)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"respx; pip install 'trae-bench\[mock\]'"):
        importlib.import_module(respx_mock.__name__)
