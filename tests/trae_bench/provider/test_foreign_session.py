"""What clients that are not made for the scripted provider ask, over real sockets."""

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from h2.connection import H2Connection
from h2.events import InformationalResponseReceived

from tests.trae_bench.provider.test_protocols import PARSERS
from trae_bench.model.sample import SessionLog
from trae_bench.provider import foreign_session
from trae_bench.provider.foreign_session import MAX_AGAIN, decoded
from trae_bench.provider.http1_parser import BadRequest
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.scenario import Fault, Protocol, ProviderConditions

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
TURNS = tuple(PlayedTurn(f"turn {number}") for number in range(1, 4))
PATHS: dict[Protocol, tuple[str, str]] = {
    "openai_chat": ("/chat/completions", "/chat/completions"),
    "openai_responses": ("/responses", "/responses"),
    "anthropic_messages": ("/messages", "/messages"),
    "gemini": ("/models/m:generateContent", "/models/m:streamGenerateContent?alt=sse"),
    "ollama_chat": ("/api/chat", "/api/chat"),
}
"""Paths of complete and of streamed requests."""
TOOLS = [{"type": "function", "function": {"name": "bash"}}]


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


class Foreign:
    """A session, and a client that speaks to it as a foreign agent does."""

    def __init__(self, provider: Loopback, name: str, script: Script) -> None:
        self._provider = provider
        self._name = name
        self.base = provider.register(name, script).removesuffix("/v1")
        http2 = script.conditions.http == "2"
        self.client = httpx.Client(http2=http2, http1=not http2, trust_env=False, timeout=20)
        self._asked = 0

    def post(self, path: str, body: dict[str, Any] | bytes, **options: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(self.base + path, content=content, **options)

    def chat(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        """Ask with a body that differs from the previous ones."""
        self._asked += 1
        return self.post(path, {"messages": [{"content": self._asked}], **fields})

    def text(self, **fields: Any) -> str:
        reply = self.chat(**fields).raise_for_status().json()
        return str(reply["choices"][0]["message"]["content"])

    def log(self) -> SessionLog:
        return self._provider.collect(self._name)


@pytest.fixture
def open_session(provider: Loopback, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened: list[Foreign] = []

    def make(
        turns: tuple[PlayedTurn, ...] = TURNS,
        *,
        any_protocol: bool = False,
        has_tools: bool = False,
        **conditions: Any,
    ) -> Foreign:
        name = f"{abs(hash(request.node.name))}-{len(opened)}"
        script = Script(turns, ProviderConditions(**conditions), "foreign", any_protocol, has_tools)
        opened.append(Foreign(provider, name, script))
        return opened[-1]

    yield make
    for session in opened:
        session.client.close()


@pytest.fixture
def session(open_session: Any) -> Foreign:
    made: Foreign = open_session()
    return made


# -- paths, protocols and streams -------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/v1", "/v1/v1", "/v1/", "/openai/v1"])
@pytest.mark.parametrize("end", ["", "/", "?api-version=1", "/?a=b"])
def test_every_spelling_of_the_path_is_answered(session: Foreign, prefix: str, end: str) -> None:
    reply = session.chat(f"{prefix}/chat/completions{end}")
    assert reply.json()["choices"][0]["message"]["content"] == "turn 1"
    log = session.log()
    assert (log.played, log.unplayed, log.unexpected, len(log.requests)) == (1, 2, 0, 1)


def complete_body(protocol: Protocol) -> dict[str, Any]:
    return {"stream": False} if protocol == "ollama_chat" else {}


def streamed_text(protocol: Protocol, content: str) -> str:
    """Return all text of a stream, wherever the protocol has it."""
    lines = [line.removeprefix("data: ") for line in content.splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    found: dict[Protocol, list[str | None]] = {
        "openai_chat": [c["delta"].get("content") for e in events for c in e.get("choices", [])],
        "openai_responses": [
            e["delta"] for e in events if e.get("type") == "response.output_text.delta"
        ],
        "anthropic_messages": [
            e["delta"].get("text") for e in events if e.get("type") == "content_block_delta"
        ],
        "gemini": [
            part["text"]
            for e in events
            for c in e.get("candidates", [])
            for part in c["content"]["parts"]
        ],
        "ollama_chat": [e["message"]["content"] for e in events if "message" in e],
    }
    return "".join(text or "" for text in found[protocol])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("encoded_stream", [False, True])
def test_the_request_chooses_between_stream_and_document(
    open_session: Any, protocol: Protocol, encoded_stream: bool
) -> None:
    session = open_session(protocol=protocol, stream=encoded_stream)
    complete, streamed = PATHS[protocol]
    first = session.post(complete, {**complete_body(protocol), "n": 1})
    assert PARSERS[protocol](first.json())[0] == "turn 1"
    second = session.post(streamed, {"stream": True, "n": 2, "stream_options": {}})
    assert "json" not in second.headers["content-type"].replace("x-ndjson", "")
    assert streamed_text(protocol, second.text) == "turn 2"
    assert session.log().unexpected == 0


def test_ollama_streams_by_default(open_session: Any) -> None:
    session = open_session(protocol="ollama_chat")
    reply = session.post("/api/chat", {"messages": []})
    assert streamed_text("ollama_chat", reply.text) == "turn 1"


def test_first_contact_is_answered_in_every_protocol_again_and_again(open_session: Any) -> None:
    for protocol in PROTOCOLS:
        session = open_session(TURNS[:1], any_protocol=True)
        complete, streamed = PATHS[protocol]
        for number in range(MAX_AGAIN):
            reply = session.post(f"/v1{complete}", {**complete_body(protocol), "n": number})
            assert PARSERS[protocol](reply.json())[0] == "turn 1"
        stream = session.post(f"/v1{streamed}", {"stream": True, "tools": TOOLS})
        assert streamed_text(protocol, stream.text) == "turn 1"
        ended = session.post(f"/v1{complete}", complete_body(protocol))
        assert ended.status_code == 400
        log = session.log()
        assert (log.played, log.unplayed, log.unexpected, log.side_calls) == (1, 0, 1, 0)


def test_another_protocol_is_named(session: Foreign) -> None:
    replies = [session.chat("/v1/responses", input="hi") for _ in range(4)]
    assert {reply.status_code for reply in replies} == {404}
    assert replies[0].json()["error"]["message"] == (
        "scripted provider: this session speaks openai_chat; the request is openai_responses"
    )
    log = session.log()
    assert log.unexpected == 4
    assert log.rejected == ("POST /v1/responses: 404",) * 3
    assert (log.played, log.unplayed, log.first_request) == (0, 3, None)


def test_a_session_of_agent_core_names_it_too(provider: Loopback) -> None:
    base = provider.register("own-mismatch", Script(TURNS))
    reply = httpx.post(f"{base}/messages", content=b"{}", trust_env=False)
    assert "speaks openai_chat; the request is anthropic_messages" in reply.text
    httpx.post(f"{base}/chat/completions", content=b"no JSON", trust_env=False)
    log = provider.collect("own-mismatch")
    assert log.rejected == ("POST /v1/messages: 404",)
    assert (log.played, log.unplayed, log.first_request) == (1, 2, None)


def test_the_end_of_the_script_is_rejected(open_session: Any) -> None:
    session = open_session(TURNS[:1])
    assert session.text() == "turn 1"
    assert session.chat().status_code == 400
    log = session.log()
    assert (log.unexpected, log.rejected) == (1, ("POST /v1/chat/completions: 400",))


# -- side calls -------------------------------------------------------------------------------

SIDE_CALLS = [
    ("GET", "/models"),
    ("GET", "/v1/models?limit=1000"),
    ("HEAD", "/v1/models"),
    ("GET", "/v1/models/org/name"),
    ("GET", "/v1beta/models"),
    ("GET", "/v1beta/models/m"),
    ("GET", "/api/tags"),
    ("GET", "/api/version"),
    ("POST", "/api/show"),
    ("GET", "/"),
    ("GET", "/v1/"),
    ("HEAD", "/"),
    ("HEAD", "/v1/chat/completions"),
    ("HEAD", "/anything"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/v1/responses/input_tokens"),
    ("POST", "/v1/messages/count_tokens?beta=true"),
    ("POST", "/v1beta/models/m:countTokens"),
]


@pytest.mark.parametrize("http", ["1.1", "2"])
@pytest.mark.parametrize(("method", "path"), SIDE_CALLS)
def test_side_calls_take_no_turn(open_session: Any, http: str, method: str, path: str) -> None:
    session = open_session(http=http)
    reply = session.client.request(method, session.base + path, content=b"{}")
    assert reply.status_code == 200
    assert bool(reply.content) == (method != "HEAD")
    if reply.content:
        assert isinstance(reply.json(), dict)
    assert session.text() == "turn 1"
    log = session.log()
    assert (log.side_calls, log.unexpected, len(log.requests), log.connections) == (1, 0, 1, 1)
    assert log.first_request is not None
    assert log.first_request.method == "POST"


def test_lists_of_models(session: Foreign) -> None:
    def get(path: str, **headers: str) -> Any:
        return session.client.get(session.base + path, headers=headers).json()

    assert get("/v1/models")["data"][0]["id"] == "scripted-model"
    assert get("/v1/models/my-model")["id"] == "my-model"
    assert get("/v1beta/models")["models"][0]["name"] == "models/scripted-model"
    assert get("/v1beta/models/my-model")["name"] == "models/my-model"
    google = {"x-goog-api-key": "none"}
    assert get("/v1/models", **google)["models"][0]["name"] == "models/scripted-model"
    assert get("/api/tags")["models"][0]["name"] == "scripted-model"


def test_a_websocket_is_refused_and_takes_no_turn(session: Foreign) -> None:
    headers = {"connection": "upgrade", "upgrade": "websocket"}
    assert session.client.get(session.base + "/v1/responses", headers=headers).status_code == 426
    assert (log := session.log()).side_calls == 1
    assert log.unexpected == 0


def test_an_unknown_path_is_unexpected(session: Foreign) -> None:
    assert session.client.get(session.base + "/v1/files").status_code == 405
    assert session.post("/v1/embeddings", {}).status_code == 404
    log = session.log()
    assert log.rejected == ("GET /v1/files: 405", "POST /v1/embeddings: 404")
    assert (log.unexpected, log.side_calls) == (2, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_title_takes_no_turn(open_session: Any, protocol: Protocol, stream: bool) -> None:
    session = open_session(protocol=protocol, has_tools=True)
    path = PATHS[protocol][stream]
    title = session.post(path, {"n": 1, "stream": stream})
    if stream:
        assert streamed_text(protocol, title.text) == "Scripted session"
    else:
        assert PARSERS[protocol](title.json())[0] == "Scripted session"
    reply = session.post(PATHS[protocol][0], {"tools": TOOLS, "stream": False})
    assert PARSERS[protocol](reply.json())[0] == "turn 1"
    log = session.log()
    assert (log.side_calls, log.played, len(log.requests)) == (1, 1, 1)


def test_tools_of_an_earlier_request_tell_titles_apart(session: Foreign) -> None:
    assert session.text() == "turn 1", "no request had tools yet"
    assert session.text(tools=TOOLS) == "turn 2"
    assert session.text(tools=[]) == "Scripted session"
    assert session.text(tools=TOOLS) == "turn 3"
    assert session.log().side_calls == 1


# -- repeats and faults -----------------------------------------------------------------------


def test_a_repeated_request_gets_the_same_answer(session: Foreign) -> None:
    def ask(number: int) -> Any:
        reply = session.post("/chat/completions", {"n": number}).json()
        return reply["choices"][0]["message"]["content"]

    asked = [ask(number) for number in (1, 1, 1, 2, 3, 3)]
    assert asked == ["turn 1"] * 3 + ["turn 2", "turn 3", "turn 3"]
    log = session.log()
    assert (log.repeats, log.played, log.unplayed, log.unexpected) == (3, 3, 0, 0)
    assert len(log.requests) == 6, "a repeated request costs the agent as much as another one"


def test_a_retry_after_a_fault_takes_the_turn(open_session: Any) -> None:
    session = open_session(faults=(Fault(1, "status", 503), Fault(3, "cut")))
    body = {"n": 1}
    assert session.post("/chat/completions", body).status_code == 503
    assert session.post("/chat/completions", body).status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        session.post("/chat/completions", {"n": 2})
    reply = session.post("/chat/completions", {"n": 2})
    assert reply.json()["choices"][0]["message"]["content"] == "turn 2"
    log = session.log()
    assert (log.repeats, log.played, log.unexpected) == (0, 2, 0)


# -- bodies and headers -----------------------------------------------------------------------

BODY = json.dumps({"messages": ["x" * 5_000], "unknown": {"deep": [None]}}).encode()


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize("http", ["1.1", "2"])
@pytest.mark.parametrize(
    ("coding", "sent"),
    [
        ("gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("Deflate", raw_deflate(BODY)),
        ("identity", BODY),
    ],
    # A gzip header has the time, and ids must be the same in every process.
    ids=["gzip", "deflate", "raw deflate", "identity"],
)
def test_compressed_bodies_are_read(open_session: Any, http: str, coding: str, sent: bytes) -> None:
    session = open_session(http=http)
    reply = session.post("/v1/chat/completions", sent, headers={"content-encoding": coding})
    assert reply.status_code == 200
    log = session.log()
    assert log.last_body == BODY
    assert log.requests[0].received == len(sent), "bytes on the wire"


@pytest.mark.parametrize(
    ("coding", "sent", "status"),
    [
        ("zstd", b"\x28\xb5\x2f\xfd", 415),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(BODY)[:-9], 400),
        ("gzip", gzip.compress(BODY) + b"more", 400),
        ("", b"no JSON", 400),
        ("", b"[1]", 400),
        ("", b"[" * 100_000, 400),
        ("", b"\xff", 400),
    ],
    ids=["zstd", "no gzip", "cut", "more", "no JSON", "array", "deep", "no text"],
)
def test_unreadable_bodies_are_rejected(
    session: Foreign, coding: str, sent: bytes, status: int
) -> None:
    headers = {"content-encoding": coding} if coding else {}
    assert session.post("/v1/chat/completions", sent, headers=headers).status_code == status
    assert session.text() == "turn 1", "the session goes on"
    log = session.log()
    assert log.rejected == (f"POST /v1/chat/completions: {status}",)


def test_decompression_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_session, "MAX_DECODED", 1_000)
    assert decoded(gzip.compress(b"x" * 1_000), b"gzip") == b"x" * 1_000
    with pytest.raises(BadRequest) as caught:
        decoded(gzip.compress(b"x" * 1_001), b"gzip")
    assert caught.value.status == 413


def test_chunked_bodies_are_read(session: Foreign) -> None:
    parts = iter([b'{"messages"', b": []}"])
    reply = session.client.post(session.base + "/chat/completions", content=parts)
    assert reply.status_code == 200
    assert session.log().last_body == b'{"messages": []}'


def test_expect_is_answered_in_http1(provider: Loopback, session: Foreign) -> None:
    path = httpx.URL(session.base).path
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nHost: x\r\nX-Unknown: 1\r\n"
        "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    with socket.create_connection(provider.address, 20) as client:
        client.sendall(head.encode())
        assert client.recv(1_000).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"{}")
        assert client.recv(1_000).startswith(b"HTTP/1.1 200 OK")


def test_expect_is_answered_in_http2(open_session: Any) -> None:
    session = open_session(http="2")
    url = httpx.URL(session.base)
    h2 = H2Connection()
    h2.initiate_connection()
    headers = [
        (":method", "POST"),
        (":path", f"{url.path}/chat/completions"),
        (":scheme", "http"),
        (":authority", "x"),
        ("expect", "100-continue"),
    ]
    h2.send_headers(1, headers)
    with socket.create_connection((url.host, url.port), 20) as client:
        client.sendall(h2.data_to_send())
        events: list[Any] = []
        while not any(isinstance(event, InformationalResponseReceived) for event in events):
            data = client.recv(10_000)
            assert data, "the server closed the connection"
            events += h2.receive_data(data)
    assert session.log().unexpected == 0


# -- the first request ------------------------------------------------------------------------


def test_the_first_request_is_kept_without_its_headers(session: Foreign) -> None:
    headers = {"user-agent": "my-agent/1", "authorization": "Bearer secret"}
    session.post("/v1/chat/completions/?key=secret", {"model": "m"}, headers=headers)
    session.chat()
    first = session.log().first_request
    assert first is not None
    assert (first.method, first.path) == ("POST", "/v1/chat/completions")
    assert first.body == b'{"model": "m"}'
    assert first.user_agent == "my-agent/1"


def test_a_request_with_tools_is_preferred(open_session: Any) -> None:
    session = open_session(TURNS[:1], any_protocol=True)
    session.post("/chat/completions", {"n": "title"})
    session.post("/chat/completions", {"n": "task", "tools": TOOLS})
    session.post("/chat/completions", {"n": "next", "tools": TOOLS})
    first = session.log().first_request
    assert first is not None
    assert json.loads(first.body)["n"] == "task"


def test_the_first_body_is_bounded(session: Foreign) -> None:
    body = json.dumps({"text": "x" * foreign_session.MAX_FIRST_BODY}).encode()
    session.post("/chat/completions", body)
    log = session.log()
    assert log.last_body == body
    assert log.first_request is not None
    assert len(log.first_request.body) == foreign_session.MAX_FIRST_BODY
