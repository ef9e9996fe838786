"""The recording proxy passes everything on, byte for byte, and records model requests only."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench.provider.recording_proxy import RecordingProxy
from trae_bench.scenario.importers.session import RecordedReply

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
REPLY = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}).encode()


class Provider:
    """Answers each connection's requests with given bytes, and keeps what it received."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.received: list[bytes] = []
        self.next_part = threading.Event()
        self.next_part.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += client.recv(65536)
        self.received.append(head + b"\r\n\r\n" + body)
        client.sendall(self.parts[0])
        for part in self.parts[1:]:
            self.next_part.wait(10)
            client.sendall(part)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@contextmanager
def provider(*parts: bytes) -> Iterator[Provider]:
    one = Provider(*parts)
    try:
        yield one
    finally:
        one.next_part.set()
        one.close()


def whole(body: bytes, more: str = "", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    return head.encode() + body


def raw(proxy: RecordingProxy, request: bytes) -> bytes:
    port = int(proxy.base_url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_paths_queries_and_headers_pass() -> None:
    with provider(whole(b"[]", "X-Request-Id: 7\r\n")) as real, RecordingProxy(real.url) as proxy:
        reply = httpx.get(
            proxy.base_url + "/models?limit=2&key=secret-key-1",
            headers={
                "Authorization": "Bearer secret-key-2",
                "Helicone-Auth": "Bearer secret-key-3",
                "User-Agent": "agent/1",
            },
        )
    assert reply.content == b"[]"
    assert reply.headers["x-request-id"] == "7"
    received = real.received[0].lower()
    assert received.startswith(b"get /v1/models?limit=2&key=secret-key-1 http/1.1\r\n")
    assert b"authorization: bearer secret-key-2" in received
    assert b"user-agent: agent/1" in received
    assert f"host: {real.url.split('/')[2]}".encode() in received
    assert proxy.exchanges == ()
    assert proxy.requests == 0
    assert {"secret-key-1", "secret-key-2", "secret-key-3"} <= proxy.secrets
    assert "agent/1" not in proxy.secrets


def test_a_model_request_is_recorded() -> None:
    with provider(whole(REPLY)) as real, RecordingProxy(real.url) as proxy:
        assert httpx.post(proxy.base_url + "/chat/completions", content=CHAT).content == REPLY
    assert real.received[0].endswith(CHAT)
    (exchange,) = proxy.exchanges
    assert (exchange.status, exchange.reply, exchange.prompt) == (200, RecordedReply("Hello"), "Hi")


def test_a_stream_is_passed_on_as_it_arrives() -> None:
    def event(**delta: str) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        text = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        return b"%x\r\n%b\r\n" % (len(text), text)

    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        provider(head + event(content="He"), event(content="llo") + event() + b"0\r\n\r\n") as real,
        RecordingProxy(real.url) as proxy,
        httpx.Client() as client,
    ):
        real.next_part.clear()
        with client.stream("POST", proxy.base_url + "/chat/completions", content=CHAT) as reply:
            pieces = reply.iter_raw()
            first = next(pieces)
            assert b'"He"' in first
            real.next_part.set()
            rest = b"".join(pieces)
    assert (first + rest).count(b"data: ") == 3
    assert proxy.exchanges[0].reply == RecordedReply("Hello")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n"
        b"Expect: 100-continue\r\n\r\n%b" % (len(CHAT), CHAT),
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(CHAT), CHAT),
        b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(CHAT), CHAT),
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n"
        b"\r\n%b" % (len(gzip.compress(CHAT, mtime=0)), gzip.compress(CHAT, mtime=0)),
    ],
    ids=["expect", "chunked", "http/1.0", "gzip"],
)
def test_all_forms_of_a_request(request_: bytes) -> None:
    packed = gzip.compress(REPLY)
    answer = whole(packed, "Content-Encoding: gzip\r\n")
    with provider(answer) as real, RecordingProxy(real.url) as proxy:
        answered = raw(proxy, request_)
    assert answered.endswith(packed)
    assert (b"100 Continue" in answered) == (b"100-continue" in request_)
    assert proxy.exchanges[0].reply == RecordedReply("Hello")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad line\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: br\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 426),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_bad_requests_are_answered_and_not_passed_on(request_: bytes, status: int) -> None:
    with provider(whole(b"")) as real, RecordingProxy(real.url) as proxy:
        assert raw(proxy, request_).startswith(b"HTTP/1.1 %d " % status)
        assert real.received == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            whole(b'{"error": {"message": "slow down"}}', status="429 Too Many Requests"),
            "status 429",
        ),
        (whole(b'{"error": {"message": "no quota"}}'), "no quota"),
        (whole(b"<html>"), "ends early"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "not JSON"),
    ],
)
def test_failed_replies_pass_and_are_noted(answer: bytes, problem: str) -> None:
    with provider(answer) as real, RecordingProxy(real.url) as proxy:
        request = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b"
        passed = raw(proxy, request % (len(CHAT), CHAT))
    assert passed.endswith(answer.partition(b"\r\n\r\n")[2])
    assert proxy.exchanges[0].reply is None
    assert problem in proxy.exchanges[0].problem


def test_a_provider_that_cannot_be_reached() -> None:
    with RecordingProxy("http://127.0.0.1:9/v1") as proxy:
        reply = httpx.post(proxy.base_url + "/chat/completions", content=CHAT)
    assert reply.status_code == 502
    assert "cannot be reached" in reply.json()["error"]["message"]
    assert "ConnectError" in proxy.errors[0]
    assert proxy.exchanges[0].status == 0


def test_head_has_no_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    with provider(answer) as real, RecordingProxy(real.url) as proxy:
        assert httpx.head(proxy.base_url).headers["content-length"] == "5"


@examples(30, one_fixture=True)
@given(data=st.binary(max_size=200) | st.text("GET /:\r\n HTP1.5chunked0", max_size=99))
def test_any_bytes_leave_the_proxy_running(data: bytes | str) -> None:
    with provider(whole(b"[]")) as real, RecordingProxy(real.url) as proxy:
        raw(proxy, data.encode() if isinstance(data, str) else data)
        assert httpx.get(proxy.base_url + "/models").content == b"[]"
