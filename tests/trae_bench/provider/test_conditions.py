"""The provider's conditions on the wire: distance, TLS, HTTP/2, streams and faults.

Times are only ever held to be long enough: how much longer is the machine's affair.
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
from trae_bench.provider.encoded_script import for_the_server
from trae_bench.provider.http2_handler import Http2Handler
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.provider.sessions import Provider, session_of
from trae_bench.scenario import Fault, ProviderConditions

TURNS = tuple(PlayedTurn(f"turn {number}") for number in range(1, 6))
WAYS = [
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
    """One for each kind of client: httpcore writes the protocols it wants into it."""
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

    def said(self) -> str:
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
    for each in opened:
        each.client.close()


# -- every way ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_script_is_played_whatever_the_way(session: Open, way: dict[str, Any]) -> None:
    asked = session(**way)
    assert [asked.said() for _ in TURNS] == [turn.text for turn in TURNS]
    log = asked.log()
    assert log.connections == 1
    assert log.handshakes == (1 if way.get("tls") else 0)
    assert [entry.status for entry in log.requests] == [200] * 5
    streams = [entry.stream for entry in log.requests]
    assert streams == ([1, 3, 5, 7, 9] if way.get("http") == "2" else [0] * 5)
    assert all(entry.sent > 400 for entry in log.requests)
    assert all(entry.arrived <= entry.replied for entry in log.requests)


@pytest.mark.parametrize("way", WAYS)
def test_bodies_of_megabytes_pass_both_ways(session: Open, way: dict[str, Any]) -> None:
    text = "long " * 200_000
    asked = session((PlayedTurn(text),), **way)
    body = bytes(range(256)) * 4_000
    assert asked.ask(body).json()["choices"][0]["message"]["content"] == text
    log = asked.log()
    assert log.last_body == body
    assert log.requests[0].received == len(body)
    assert log.requests[0].sent > len(text)


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_for_each_request_is_seen(session: Open, way: dict[str, Any]) -> None:
    first = session(**way)
    first.said()
    # The same session from a client of its own: nothing is shared but the name.
    first.client.close()
    with client(first.environ, way.get("tls", False), way.get("http", "1.1")) as again:
        assert again.post(first.url, content=b"{}").status_code == 200
    log = first.log()
    assert (log.connections, log.handshakes) == (2, 2 if way.get("tls") else 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_leaves_before_its_reply(session: Open, way: dict[str, Any]) -> None:
    asked = session(**way, think_seconds=5.0)
    with pytest.raises(httpx.ReadTimeout):
        asked.client.post(asked.url, content=b"{}", timeout=httpx.Timeout(5, read=0.1))
    asked.client.close()
    time.sleep(0.05)
    assert [(entry.status, entry.sent) for entry in asked.log().requests] == [(0, 0)]


@pytest.mark.parametrize("way", WAYS)
def test_what_no_client_should_send(provider: Loopback, session: Open, way: dict[str, Any]) -> None:
    asked = session(**way)
    port = httpx.URL(asked.url).port
    for data in (b"\x16\x03\x01 hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            try:
                while client.recv(65536):
                    pass
            except OSError:
                pass  # The door was shut while there was more to say.
    assert asked.said() == "turn 1"


def test_sessions_of_one_way_share_a_door_and_others_have_their_own(session: Open) -> None:
    ways: list[dict[str, Any]] = [{}, {"tls": True}, {"tls": True, "rtt_seconds": 0.01}]
    ports = [httpx.URL(session(**way).url).port for way in ways * 2]
    assert ports[:3] == ports[3:]
    assert len(set(ports)) == 3


# -- TLS ----------------------------------------------------------------------------------


def test_only_a_client_of_tls_is_told_whom_to_trust(session: Open, provider: Loopback) -> None:
    assert session().environ == {}
    asked = session(tls=True)
    assert set(asked.environ) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    bundle = Path(asked.environ["SSL_CERT_FILE"]).read_text(encoding="utf-8")
    assert bundle.count("BEGIN CERTIFICATE") > 50, "as large as a real one"
    asked.log()
    assert provider.environ(asked.url) == {}


def test_a_client_that_does_not_trust_it_is_refused(session: Open) -> None:
    asked = session(tls=True)
    with (
        httpx.Client(trust_env=False, verify=ssl.create_default_context()) as stranger,
        pytest.raises(httpx.ConnectError, match="certificate verify failed"),
    ):
        stranger.post(asked.url, content=b"{}")
    assert asked.said() == "turn 1"


def test_a_client_of_http_1_may_knock_at_a_door_of_http_2(session: Open) -> None:
    asked = session(tls=True, http="2")
    with client(asked.environ, True, "1.1") as older:
        assert older.post(asked.url, content=b"{}").http_version == "HTTP/1.1"
    assert asked.ask().http_version == "HTTP/2"
    assert [entry.stream for entry in asked.log().requests] == [0, 1]


def test_without_its_extra_tls_says_what_to_install(
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


def test_requests_at_the_same_time_share_a_connection(session: Open) -> None:
    asked = session(tls=True, http="2", think_seconds=0.05)
    with ThreadPoolExecutor(5) as pool:
        asked.said()
        texts = sorted(pool.map(lambda _: asked.said(), range(4)))
    assert texts == [turn.text for turn in TURNS[1:]]
    log = asked.log()
    assert log.connections == 1
    assert sorted(entry.stream for entry in log.requests) == [1, 3, 5, 7, 9]
    burst = log.requests[1:]
    assert max(entry.arrived for entry in burst) < min(entry.replied for entry in burst)


def ask_over(talk: H2Connection, url: httpx.URL, stream: int) -> None:
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", url.path)]
    talk.send_headers(stream, head, end_stream=True)


def heard(talk: H2Connection, client: socket.socket, stream: int) -> bytes:
    """The body of the reply on that stream; whatever else comes is dropped."""
    body = b""
    while data := client.recv(65536):
        for event in talk.receive_data(data):
            if isinstance(event, DataReceived) and event.stream_id == stream:
                body += event.data
            elif isinstance(event, StreamEnded) and event.stream_id == stream:
                return body
    raise AssertionError("the connection ended before the reply")


def test_a_request_taken_back_in_the_same_breath_costs_no_other(session: Open) -> None:
    asked = session(http="2")
    url, talk = httpx.URL(asked.url), H2Connection()
    talk.initiate_connection()
    ask_over(talk, url, 1)
    talk.reset_stream(1)
    ask_over(talk, url, 3)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        client.sendall(talk.data_to_send())
        assert b"turn 2" in heard(talk, client, 3)
    assert asked.said() == "turn 3"
    assert [entry.status for entry in asked.log().requests] == [0, 200, 200]


@pytest.mark.parametrize("waits", [True, False])
def test_a_farewell_before_the_reply_is_the_end(session: Open, waits: bool) -> None:
    """With the request, or while the model thinks."""
    asked = session(http="2", think_seconds=0.1)
    url, talk = httpx.URL(asked.url), H2Connection()
    talk.initiate_connection()
    ask_over(talk, url, 1)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        if waits:
            client.sendall(talk.data_to_send())
            assert client.recv(65536), "its settings: it has read the request"
        talk.close_connection()
        client.sendall(talk.data_to_send())
        while client.recv(65536):
            pass
    assert asked.said() == "turn 2"
    assert [entry.status for entry in asked.log().requests] == [0, 200]


class Leaving:
    """A channel whose client is gone at the second thing that is said to it."""

    handshakes = 0
    talk: ProtocolHandler

    def __init__(self) -> None:
        self._said = 0

    def open(self) -> None:
        raise AssertionError

    def send(self, data: bytes) -> float | None:
        self._said += 1
        if self._said == 2:
            self.talk.gone()
        return None

    def end(self, how: int) -> None:
        raise AssertionError


def test_who_leaves_while_the_connection_is_torn_down_is_logged_once() -> None:
    script = Script(TURNS, ProviderConditions(http="2", faults=(Fault(1, "reset"),)))
    provider, channel, client = Provider(), Leaving(), H2Connection()
    playing = provider.sessions[b"a"] = session_of(*for_the_server("a", script))
    talk = channel.talk = Http2Handler(provider, Reactor(), channel)
    client.initiate_connection()
    ask_over(client, httpx.URL("http://x/s/a/v1/chat/completions"), 1)
    talk.begin()
    talk.received(client.data_to_send())
    assert len(playing.log) == 1
    assert provider.open_connections == 0


# -- distance -----------------------------------------------------------------------------


def elapsed(act: Callable[[], object]) -> float:
    start = time.monotonic()
    act()
    return time.monotonic() - start


def test_a_connection_costs_a_round_trip_and_each_request_one(session: Open) -> None:
    asked = session(rtt_seconds=0.06)
    first, second = elapsed(asked.said), elapsed(asked.said)
    # The way is none of the server's own time.
    thought = [entry.replied - entry.arrived for entry in asked.log().requests]
    assert first - thought[0] >= 0.12
    assert second - thought[1] >= 0.06


def test_a_handshake_costs_one_more(session: Open) -> None:
    asked = session(tls=True, rtt_seconds=0.06)
    assert elapsed(asked.said) >= 0.18


def test_a_narrow_line_takes_its_time_each_way(session: Open) -> None:
    asked = session((PlayedTurn("x" * 20_000),), bandwidth_bytes_per_second=200_000)
    assert elapsed(lambda: asked.ask(b"y" * 20_000)) >= 0.2
    (entry,) = asked.log().requests
    assert entry.replied - entry.arrived >= 0.1, "until the reply's last byte has left"


# -- think times --------------------------------------------------------------------------


def test_think_times_are_those_of_the_script(session: Open) -> None:
    conditions = {"think_seconds": 0.02, "think_distribution": "uniform", "think_spread": 1.0}
    expected = Script(TURNS, ProviderConditions(**conditions)).think_times()  # type: ignore[arg-type]
    asked = session(**conditions)
    for _ in TURNS:
        asked.said()
    entries = asked.log().requests
    assert len(set(expected)) == 5
    for entry, seconds in zip(entries, expected, strict=True):
        assert entry.replied - entry.arrived >= seconds


# -- streams ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gap", [0.0, 0.01])
def test_events_come_one_after_the_other(session: Open, way: dict[str, Any], gap: float) -> None:
    asked = session(**way, stream=True, chunk_characters=2, chunk_seconds=gap)
    with asked.client.stream("POST", asked.url, content=b"{}") as response:
        assert response.headers["content-type"] == "text/event-stream"
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"] for event in events[:-2]]
    assert "".join(choice[0]["delta"].get("content") or "" for choice in deltas) == "turn 1"
    assert asked.ask().status_code == 200, "the connection goes on"
    entries = asked.log().requests
    assert entries[0].replied - entries[0].arrived >= gap * (len(events) - 1)
    assert len({entry.connection for entry in entries}) == 1


# -- faults -------------------------------------------------------------------------------

HTTP2 = {"http": "2"}
FAULTY_WAYS = [{}, {"tls": True}, {"tls": True, **HTTP2}, HTTP2, {"rtt_seconds": 0.004}]


def try_again(session: Session, texts: list[str]) -> list[str]:
    """Ask until each text has come; what happened on the way."""
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


@pytest.mark.parametrize("way", FAULTY_WAYS, ids=str)
def test_an_error_reply_and_how_long_to_wait(session: Open, way: dict[str, Any]) -> None:
    faults = (Fault(2, "status", 529, 1.5), Fault(3, "status"), Fault(4, "status", 429, 2.0))
    asked = session(TURNS[:2], **way, faults=faults)
    assert asked.said() == "turn 1"
    replies = [asked.ask() for _ in range(3)]
    assert [reply.status_code for reply in replies] == [529, 503, 429]
    assert [reply.headers.get("retry-after") for reply in replies] == ["1.5", None, "2"]
    assert "scripted fault" in replies[0].json()["error"]["message"]
    assert asked.said() == "turn 2"
    log = asked.log()
    assert [entry.status for entry in log.requests] == [200, 529, 503, 429, 200]
    assert (log.connections, log.unexpected) == (1, 0)


@pytest.mark.parametrize("way", FAULTY_WAYS, ids=str)
@pytest.mark.parametrize(
    ("kind", "errors", "status"),
    [
        ("reset", {"ReadError", "RemoteProtocolError"}, 0),
        ("cut", {"ReadError", "RemoteProtocolError"}, 200),
        ("garbage", {"ReadError", "RemoteProtocolError", "LocalProtocolError"}, 0),
    ],
)
def test_a_broken_reply_is_played_again(
    session: Open, way: dict[str, Any], kind: Any, errors: set[str], status: int
) -> None:
    asked = session(TURNS[:3], **way, faults=(Fault(2, kind),))
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


def test_a_reset_is_one_for_the_kernel_too(provider: Loopback, session: Open) -> None:
    url = httpx.URL(session(faults=(Fault(1, "reset"),)).url)
    with socket.create_connection(("127.0.0.1", url.port), 10) as client:
        client.sendall(f"POST {url.path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        with pytest.raises(ConnectionResetError):
            client.recv(1)


@pytest.mark.parametrize("way", FAULTY_WAYS, ids=str)
def test_a_connection_closed_between_requests_costs_no_turn(
    session: Open, way: dict[str, Any]
) -> None:
    asked = session(TURNS[:3], **way, faults=(Fault(2, "close"),))
    assert asked.said() == "turn 1"
    second = asked.ask()
    assert second.json()["choices"][0]["message"]["content"] == "turn 2"
    assert second.headers.get("connection") is None
    # A client may find out only when it writes; what it wrote was never a request.
    assert try_again(asked, ["turn 3"])[-1] == "200"
    log = asked.log()
    assert [entry.status for entry in log.requests] == [200] * 3
    assert log.connections == 2


@pytest.mark.parametrize("way", FAULTY_WAYS, ids=str)
def test_a_stream_is_cut_in_its_middle(session: Open, way: dict[str, Any]) -> None:
    asked = session(
        **way, stream=True, chunk_characters=1, chunk_seconds=0.002, faults=(Fault(1, "cut"),)
    )
    heard = b""
    with (
        pytest.raises(httpx.TransportError),
        asked.client.stream("POST", asked.url, content=b"{}") as response,
    ):
        for chunk in response.iter_bytes():
            heard += chunk
    assert b"data: " in heard
    assert b"[DONE]" not in heard
    assert b"[DONE]" in asked.ask().content


def test_faults_after_faults(session: Open) -> None:
    faults = (Fault(1, "reset"), Fault(2, "cut"), Fault(3, "status", 500), Fault(4, "garbage"))
    asked = session(TURNS[:1], faults=faults)
    happened = try_again(asked, ["turn 1"])
    assert len(happened) == 5
    assert [happened[2], happened[4]] == ["500", "200"]
