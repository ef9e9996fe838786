"""The provider's conditions on the wire: latency, TLS, HTTP/2, streams and faults.

Tests check lower bounds of times only; upper bounds depend on the machine.
"""

import builtins
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from trae_bench.errors import UsageError
from trae_bench.model.sample import SessionLog
from trae_bench.provider.channel import ProtocolHandler
from trae_bench.provider.http2_handler import Http2Handler
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.registration import registration
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.provider.session_setup import session_from
from trae_bench.provider.sessions import Provider
from trae_bench.scenario import Fault, ProviderConditions

TURNS = tuple(PlayedTurn(f"turn {number}") for number in range(1, 6))
CONDITIONS = [
    pytest.param({}, id="http"),
    pytest.param({"http": "2"}, id="h2c"),
    pytest.param({"tls": True}, id="tls"),
    pytest.param({"tls": True, "http": "2"}, id="h2"),
    pytest.param({"rtt_seconds": 0.004}, id="far"),
    pytest.param({"tls": True, "http": "2", "rtt_seconds": 0.004}, id="h2-far"),
    pytest.param({"bandwidth_bytes_per_second": 10_000_000}, id="narrow"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@cache
def trusting(bundle: str, http: str) -> ssl.SSLContext:
    """Return a context for each HTTP version, because httpcore sets ALPN protocols on it."""
    return ssl.create_default_context(cafile=bundle)


def client(environ: dict[str, str], tls: bool, http: str) -> httpx.Client:
    return httpx.Client(
        verify=trusting(environ["SSL_CERT_FILE"], http) if tls else False,
        http2=http == "2",
        http1=tls or http == "1.1",
        trust_env=False,
        timeout=20,
    )


class Session:
    """A registered script and a client for it."""

    def __init__(self, provider: Loopback, name: str, script: Script) -> None:
        self._provider = provider
        self._name = name
        self.url = provider.register(name, script) + "/chat/completions"
        self.environ = provider.environ(name)
        conditions = script.conditions
        self.client = client(self.environ, conditions.tls, conditions.http)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def ask(self, body: bytes = b"{}") -> httpx.Response:
        return self.client.post(self.url, content=body)

    def ask_text(self) -> str:
        return str(self.ask().raise_for_status().json()["choices"][0]["message"]["content"])

    def log(self) -> SessionLog:
        return self._provider.collect(self._name)


Open = Callable[..., Session]


@pytest.fixture
def session(provider: Loopback, request: pytest.FixtureRequest) -> Iterator[Open]:
    opened: list[Session] = []

    def make(turns: tuple[PlayedTurn, ...] = TURNS, **conditions: Any) -> Session:
        name = f"{abs(hash(request.node.name))}-{len(opened)}"
        opened.append(Session(provider, name, Script(turns, ProviderConditions(**conditions))))
        return opened[-1]

    yield make
    for session in opened:
        session.client.close()


# -- all conditions ----------------------------------------------------------------------------


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_a_script_is_played_under_all_conditions(session: Open, conditions: dict[str, Any]) -> None:
    asked = session(**conditions)
    assert [asked.ask_text() for _ in TURNS] == [turn.text for turn in TURNS]
    log = asked.log()
    assert log.connections == 1
    assert log.handshakes == (1 if conditions.get("tls") else 0)
    assert [entry.status for entry in log.requests] == [200] * 5
    streams = [entry.stream for entry in log.requests]
    assert streams == ([1, 3, 5, 7, 9] if conditions.get("http") == "2" else [0] * 5)
    assert all(entry.sent > 400 for entry in log.requests)
    assert all(entry.arrived <= entry.replied for entry in log.requests)


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_bodies_of_megabytes_in_both_directions(session: Open, conditions: dict[str, Any]) -> None:
    text = "long " * 200_000
    asked = session((PlayedTurn(text),), **conditions)
    body = bytes(range(256)) * 4_000
    assert asked.ask(body).json()["choices"][0]["message"]["content"] == text
    log = asked.log()
    assert log.last_body == body
    assert log.requests[0].received == len(body)
    assert log.requests[0].sent > len(text)


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_new_connections_are_counted(session: Open, conditions: dict[str, Any]) -> None:
    first = session(**conditions)
    first.ask_text()
    # The same session from a new client, which shares no connection.
    first.client.close()
    with client(
        first.environ, conditions.get("tls", False), conditions.get("http", "1.1")
    ) as again:
        assert again.post(first.url, content=b"{}").status_code == 200
    log = first.log()
    assert (log.connections, log.handshakes) == (2, 2 if conditions.get("tls") else 0)


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_a_client_that_disconnects_before_its_reply(
    session: Open, conditions: dict[str, Any]
) -> None:
    asked = session(**conditions, think_seconds=5.0)
    with pytest.raises(httpx.ReadTimeout):
        asked.client.post(asked.url, content=b"{}", timeout=httpx.Timeout(5, read=0.1))
    asked.client.close()
    time.sleep(0.05)
    assert [(entry.status, entry.sent) for entry in asked.log().requests] == [(0, 0)]


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_invalid_input_is_rejected(
    provider: Loopback, session: Open, conditions: dict[str, Any]
) -> None:
    asked = session(**conditions)
    port = httpx.URL(asked.url).port
    for data in (b"\x16\x03\x01 hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            try:
                while client.recv(65536):
                    pass
            except OSError:
                pass  # The server closed while data was pending.
    assert asked.ask_text() == "turn 1"


def test_sessions_share_a_listener_only_under_equal_conditions(session: Open) -> None:
    conditions: list[dict[str, Any]] = [{}, {"tls": True}, {"tls": True, "rtt_seconds": 0.01}]
    ports = [httpx.URL(session(**each).url).port for each in conditions * 2]
    assert ports[:3] == ports[3:]
    assert len(set(ports)) == 3


# -- TLS ----------------------------------------------------------------------------------


def test_only_a_tls_client_gets_a_ca_bundle(session: Open, provider: Loopback) -> None:
    assert session().environ == {}
    asked = session(tls=True)
    assert set(asked.environ) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    bundle = Path(asked.environ["SSL_CERT_FILE"]).read_text(encoding="utf-8")
    assert bundle.count("BEGIN CERTIFICATE") > 50, "as large as a default bundle"
    asked.log()
    assert provider.environ(asked.url) == {}


def test_a_client_without_the_ca_fails(session: Open) -> None:
    asked = session(tls=True)
    with (
        httpx.Client(trust_env=False, verify=ssl.create_default_context()) as untrusting,
        pytest.raises(httpx.ConnectError, match="certificate verify failed"),
    ):
        untrusting.post(asked.url, content=b"{}")
    assert asked.ask_text() == "turn 1"


def test_an_http1_client_can_use_an_http2_listener(session: Open) -> None:
    asked = session(tls=True, http="2")
    with client(asked.environ, True, "1.1") as older:
        assert older.post(asked.url, content=b"{}").http_version == "HTTP/1.1"
    assert asked.ask().http_version == "HTTP/2"
    assert [entry.stream for entry in asked.log().requests] == [0, 1]


def test_without_trustme_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "trustme":
            raise ImportError(name)
        return real(name, *rest)

    with Loopback() as provider:
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(UsageError, match=r"trustme; pip install 'trae-bench\[tls\]'"):
            provider.register("a", Script(TURNS, ProviderConditions(tls=True)))
        monkeypatch.undo()
        assert provider.register("a", Script(TURNS)).startswith("http://")


# -- HTTP/2 -------------------------------------------------------------------------------


def test_concurrent_requests_share_a_connection(session: Open) -> None:
    asked = session(tls=True, http="2", think_seconds=0.05)
    with ThreadPoolExecutor(5) as pool:
        asked.ask_text()
        texts = sorted(pool.map(lambda _: asked.ask_text(), range(4)))
    assert texts == [turn.text for turn in TURNS[1:]]
    log = asked.log()
    assert log.connections == 1
    assert sorted(entry.stream for entry in log.requests) == [1, 3, 5, 7, 9]
    burst = log.requests[1:]
    assert max(entry.arrived for entry in burst) < min(entry.replied for entry in burst)


def send_request(connection: H2Connection, url: httpx.URL, stream: int) -> None:
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", url.path)]
    connection.send_headers(stream, head, end_stream=True)


def read_body(connection: H2Connection, client: socket.socket, stream: int) -> bytes:
    """Return the body of the reply on a stream; ignore all other events."""
    body = b""
    while data := client.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, DataReceived) and event.stream_id == stream:
                body += event.data
            elif isinstance(event, StreamEnded) and event.stream_id == stream:
                return body
    raise AssertionError("the connection ended before the reply")


def test_a_request_that_is_reset_at_once_does_not_affect_others(session: Open) -> None:
    asked = session(http="2")
    url, connection = httpx.URL(asked.url), H2Connection()
    connection.initiate_connection()
    send_request(connection, url, 1)
    connection.reset_stream(1)
    send_request(connection, url, 3)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        client.sendall(connection.data_to_send())
        assert b"turn 2" in read_body(connection, client, 3)
    assert asked.ask_text() == "turn 3"
    assert [entry.status for entry in asked.log().requests] == [0, 200, 200]


@pytest.mark.parametrize("waits", [True, False])
def test_goaway_before_the_reply_closes_the_connection(session: Open, waits: bool) -> None:
    """GOAWAY arrives with the request, or during the think time."""
    asked = session(http="2", think_seconds=0.1)
    url, connection = httpx.URL(asked.url), H2Connection()
    connection.initiate_connection()
    send_request(connection, url, 1)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        if waits:
            client.sendall(connection.data_to_send())
            assert client.recv(65536), "its settings, so it has read the request"
        connection.close_connection()
        client.sendall(connection.data_to_send())
        while client.recv(65536):
            pass
    assert asked.ask_text() == "turn 2"
    assert [entry.status for entry in asked.log().requests] == [0, 200]


class DisconnectingChannel:
    """A channel whose client disconnects at the second `send`."""

    handshakes = 0
    handler: ProtocolHandler

    def __init__(self) -> None:
        self._sends = 0

    def open(self) -> None:
        raise AssertionError

    def send(self, data: bytes) -> float | None:
        self._sends += 1
        if self._sends == 2:
            self.handler.connection_lost()
        return None

    def close(self, mode: int) -> None:
        raise AssertionError


def test_a_disconnect_during_a_reset_is_logged_once() -> None:
    script = Script(TURNS, ProviderConditions(http="2", faults=(Fault(1, "reset"),)))
    provider, channel, client = Provider(), DisconnectingChannel(), H2Connection()
    playing = provider.sessions[b"a"] = session_from(*registration("a", script))
    handler = channel.handler = Http2Handler(provider, Reactor(), channel)
    client.initiate_connection()
    send_request(client, httpx.URL("http://x/s/a/v1/chat/completions"), 1)
    handler.begin()
    handler.data_received(client.data_to_send())
    assert len(playing.log) == 1
    assert provider.open_connections == 0


# -- latency ------------------------------------------------------------------------------


def elapsed(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def test_a_connection_costs_a_round_trip_and_each_request_one(session: Open) -> None:
    asked = session(rtt_seconds=0.06)
    first, second = elapsed(asked.ask_text), elapsed(asked.ask_text)
    # The server's own time excludes the round trip.
    thought = [entry.replied - entry.arrived for entry in asked.log().requests]
    assert first - thought[0] >= 0.12
    assert second - thought[1] >= 0.06


def test_a_handshake_costs_another_round_trip(session: Open) -> None:
    asked = session(tls=True, rtt_seconds=0.06)
    assert elapsed(asked.ask_text) >= 0.18


def test_bandwidth_limits_both_directions(session: Open) -> None:
    asked = session((PlayedTurn("x" * 20_000),), bandwidth_bytes_per_second=200_000)
    assert elapsed(lambda: asked.ask(b"y" * 20_000)) >= 0.2
    (entry,) = asked.log().requests
    assert entry.replied - entry.arrived >= 0.1, "includes the time until the last byte has left"


# -- think times --------------------------------------------------------------------------


def test_think_times_are_those_of_the_script(session: Open) -> None:
    conditions = {"think_seconds": 0.02, "think_distribution": "uniform", "think_spread": 1.0}
    expected = Script(TURNS, ProviderConditions(**conditions)).think_times()  # type: ignore[arg-type]
    asked = session(**conditions)
    for _ in TURNS:
        asked.ask_text()
    entries = asked.log().requests
    assert len(set(expected)) == 5
    for entry, seconds in zip(entries, expected, strict=True):
        assert entry.replied - entry.arrived >= seconds


# -- streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_events_arrive_in_order(session: Open, conditions: dict[str, Any], gap: float) -> None:
    asked = session(**conditions, stream=True, chunk_characters=2, chunk_seconds=gap)
    with asked.client.stream("POST", asked.url, content=b"{}") as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"] for event in events[:-2]]
    assert "".join(choice[0]["delta"].get("content") or "" for choice in deltas) == "turn 1"
    assert asked.ask().status_code == 200, "the connection stays open"
    entries = asked.log().requests
    assert entries[0].replied - entries[0].arrived >= gap * (len(events) - 1)
    assert len({entry.connection for entry in entries}) == 1


# -- faults -------------------------------------------------------------------------------

HTTP2 = {"http": "2"}
FAULT_CONDITIONS = [{}, {"tls": True}, {"tls": True, **HTTP2}, HTTP2, {"rtt_seconds": 0.004}]


def try_again(session: Session, texts: list[str]) -> list[str]:
    """Send requests until each text has arrived; return the statuses and errors."""
    happened = []
    while texts:
        try:
            response = session.ask()
        except httpx.TransportError as error:
            happened.append(type(error).__name__)
            continue
        happened.append(str(response.status_code))
        if response.status_code == 200:
            assert response.json()["choices"][0]["message"]["content"] == texts.pop(0)
    return happened


@pytest.mark.parametrize("conditions", FAULT_CONDITIONS, ids=str)
def test_error_replies_and_retry_after(session: Open, conditions: dict[str, Any]) -> None:
    faults = (Fault(2, "status", 529, 1.5), Fault(3, "status"), Fault(4, "status", 429, 2.0))
    asked = session(TURNS[:2], **conditions, faults=faults)
    assert asked.ask_text() == "turn 1"
    replies = [asked.ask() for _ in range(3)]
    assert [reply.status_code for reply in replies] == [529, 503, 429]
    assert [reply.headers.get("retry-after") for reply in replies] == ["1.5", None, "2"]
    assert "scripted fault" in replies[0].json()["error"]["message"]
    assert asked.ask_text() == "turn 2"
    log = asked.log()
    assert [entry.status for entry in log.requests] == [200, 529, 503, 429, 200]
    assert (log.connections, log.unexpected) == (1, 0)


@pytest.mark.parametrize("conditions", FAULT_CONDITIONS, ids=str)
@pytest.mark.parametrize(
    ("kind", "errors", "status"),
    [
        ("reset", {"ReadError", "RemoteProtocolError"}, 0),
        ("cut", {"ReadError", "RemoteProtocolError"}, 200),
        ("garbage", {"ReadError", "RemoteProtocolError", "LocalProtocolError"}, 0),
    ],
)
def test_a_turn_is_repeated_after_a_fault(
    session: Open, conditions: dict[str, Any], kind: Any, errors: set[str], status: int
) -> None:
    asked = session(TURNS[:3], **conditions, faults=(Fault(2, kind),))
    happened = try_again(asked, [turn.text for turn in TURNS[:3]])
    assert [happened[0], *happened[2:]] == ["200", "200", "200"]
    assert happened[1] in errors
    log = asked.log()
    assert [entry.status for entry in log.requests] == [200, status, 200, 200]
    assert log.connections == 2
    assert log.unexpected == 0
    whole, broken = log.requests[0].sent, log.requests[1].sent
    assert broken < whole
    assert (broken > 0) == (kind != "reset")


def test_a_reset_is_a_tcp_reset(provider: Loopback, session: Open) -> None:
    url = httpx.URL(session(faults=(Fault(1, "reset"),)).url)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        client.sendall(f"POST {url.path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("conditions", FAULT_CONDITIONS, ids=str)
def test_a_closed_connection_does_not_skip_a_turn(
    session: Open, conditions: dict[str, Any]
) -> None:
    asked = session(TURNS[:3], **conditions, faults=(Fault(2, "close"),))
    assert asked.ask_text() == "turn 1"
    second = asked.ask()
    assert second.json()["choices"][0]["message"]["content"] == "turn 2"
    assert second.headers.get("connection") is None
    # A client can notice only when it writes; the server never receives that request.
    assert try_again(asked, ["turn 3"])[-1] == "200"
    log = asked.log()
    assert [entry.status for entry in log.requests] == [200] * 3
    assert log.connections == 2


@pytest.mark.parametrize("conditions", FAULT_CONDITIONS, ids=str)
def test_a_stream_is_truncated(session: Open, conditions: dict[str, Any]) -> None:
    asked = session(
        **conditions,
        stream=True,
        chunk_characters=1,
        chunk_seconds=0.002,
        faults=(Fault(1, "cut"),),
    )
    received = b""
    with (
        pytest.raises(httpx.TransportError),
        asked.client.stream("POST", asked.url, content=b"{}") as response,
    ):
        for chunk in response.iter_bytes():
            received += chunk
    assert b"data: " in received
    assert b"[DONE]" not in received
    assert b"[DONE]" in asked.ask().content


def test_consecutive_faults(session: Open) -> None:
    faults = (Fault(1, "reset"), Fault(2, "cut"), Fault(3, "status", 500), Fault(4, "garbage"))
    asked = session(TURNS[:1], faults=faults)
    happened = try_again(asked, ["turn 1"])
    assert len(happened) == 5
    assert [happened[2], happened[4]] == ["500", "200"]
