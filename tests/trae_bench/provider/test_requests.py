"""Facts of model requests in every protocol."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.protocols.requests import MAX_TOOLS, RequestFacts, read_request
from trae_bench.provider.routes import find_route
from trae_bench.scenario import Protocol
from trae_bench.scenario.actions import ToolSchema

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}
BASH = ToolSchema("bash", SCHEMA)
ASKED: list[tuple[Protocol, str, dict[str, Any]]] = [
    (
        "openai_chat",
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}],
        },
    ),
    (
        "openai_responses",
        "/responses",
        {
            "model": "m",
            "input": [{"role": "user", "content": "hi"}],
            "tools": [
                {"type": "web_search"},
                {"type": "function", "name": "bash", "parameters": SCHEMA},
            ],
        },
    ),
    (
        "anthropic_messages",
        "/v1/v1/messages?beta=true",
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"name": "bash", "input_schema": SCHEMA}],
        },
    ),
    (
        "gemini",
        "/v1beta/models/m:generateContent?key=none",
        {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "tools": [
                {"googleSearch": {}},
                {"functionDeclarations": [{"name": "bash", "parametersJsonSchema": SCHEMA}]},
            ],
        },
    ),
    (
        "ollama_chat",
        "/api/chat/",
        {
            "model": "m",
            "stream": False,
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}],
        },
    ),
]


@pytest.mark.parametrize(("protocol", "path", "asked"), ASKED)
def test_each_protocol_is_read(protocol: Protocol, path: str, asked: dict[str, Any]) -> None:
    body = json.dumps({**asked, "unknown": [1, {}]}).encode()
    assert read_request(path, body) == RequestFacts(protocol, False, (BASH,), "m", 1)


@pytest.mark.parametrize(
    ("path", "stream", "expected"),
    [
        ("/v1/chat/completions", None, False),
        ("/v1/chat/completions", True, True),
        ("/api/chat", None, True),
        ("/api/chat", False, False),
        ("/api/chat", "no", True),
    ],
)
def test_streaming_is_asked_for_in_the_body(path: str, stream: object, expected: bool) -> None:
    body = {"messages": []} if stream is None else {"messages": [], "stream": stream}
    facts = read_request(path, json.dumps(body).encode())
    assert facts is not None
    assert facts.stream is expected


def test_streaming_is_asked_for_in_the_path_of_gemini() -> None:
    facts = read_request("/models/x%3AstreamGenerateContent?alt=sse", b'{"contents": []}')
    assert facts == RequestFacts("gemini", True, (), "x", 0)


def test_a_text_is_one_message_of_responses() -> None:
    facts = read_request("/v1/responses", b'{"input": "hi"}')
    assert facts == RequestFacts("openai_responses", False, (), "", 1)


def test_functions_are_the_older_form_of_tools() -> None:
    body = json.dumps({"messages": [], "functions": [{"name": "bash", "parameters": SCHEMA}]})
    facts = read_request("/chat/completions", body.encode())
    assert facts is not None
    assert facts.tools == (BASH,)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models", b'{"messages": []}'),
        ("/v1/messages/count_tokens", b'{"messages": []}'),
        ("/v1/messages", b'{"input": []}'),
        ("/v1/messages", b'{"messages": [1]}'),
        ("/v1/messages", b'{"messages": {}}'),
        ("/v1/messages", b"[]"),
        ("/v1/messages", b'{"messages": [}'),
        ("/v1/messages", b"\xff\xfe"),
        ("/v1/messages", b""),
        ("/v1/messages", b'{"messages": ' + b"[" * 100_000),
    ],
)
def test_other_requests_are_none(path: str, body: bytes) -> None:
    assert read_request(path, body) is None


@pytest.mark.parametrize(
    "tool",
    [
        None,
        1,
        "bash",
        {},
        {"function": None},
        {"function": {"name": 1}},
        {"function": {"name": ""}},
        {"function": {"name": "x" * 201}},
    ],
)
def test_a_tool_of_another_form_is_left_out(tool: object) -> None:
    body = json.dumps({"messages": [], "tools": [tool]}).encode()
    facts = read_request("/v1/chat/completions", body)
    assert facts is not None
    assert facts.tools == ()


def test_the_number_of_tools_is_limited() -> None:
    tools = [{"function": {"name": f"t{number}"}} for number in range(MAX_TOOLS + 1)]
    facts = read_request("/chat/completions", json.dumps({"messages": [], "tools": tools}).encode())
    assert facts is not None
    assert len(facts.tools) == MAX_TOOLS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.sampled_from([path for _, path, _ in ASKED]),
    st.dictionaries(
        st.sampled_from(["model", "messages", "input", "contents", "tools", "functions", "stream"]),
        JSON,
    ),
)
def test_any_json_is_read_or_refused(path: str, asked: dict[str, Any]) -> None:
    facts = read_request(path, json.dumps(asked).encode())
    route = find_route(path)
    assert route is not None
    if facts is not None:
        assert facts.protocol == route.protocol
        assert all(tool.name for tool in facts.tools)
