"""Which requests of a session take a turn, and HTTP archives."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from trae_bench.errors import UsageError
from trae_bench.provider.exchanges import Exchange, exchange_of, session_of
from trae_bench.provider.har import ALL_READERS
from trae_bench.scenario.importers.reading import read_session
from trae_bench.scenario.importers.session import RecordedCall, RecordedReply

TOOL = {"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}


def asked(prompt: object = "Do it.", **more: Any) -> bytes:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": prompt}]
    return json.dumps({"model": "m", "messages": messages, "tools": [TOOL], **more}).encode()


def answered(text: str, *calls: dict[str, str]) -> bytes:
    message = {"content": text, "tool_calls": [{"id": "c", "function": call} for call in calls]}
    return json.dumps({"choices": [{"message": message}]}).encode()


def exchange(body: bytes, reply: bytes, status: int = 200, path: str = "/v1/x") -> Exchange:
    found = exchange_of(path.replace("x", "chat/completions"), body, status, reply)
    assert found is not None
    return found


def test_side_calls_failures_and_repeats_take_no_turn() -> None:
    session = session_of(
        [
            exchange(asked("title", tools=[]), answered("A title")),
            exchange(asked(n=1), b"", 429),
            exchange(asked(n=1), answered("one")),
            exchange(asked(n=2), answered("lost")),
            exchange(asked(n=2), answered("two")),
        ],
        "x",
    )
    assert [reply.text for reply in session.replies] == ["one", "two"]
    assert (session.task, session.model, session.final_text) == ("Do it.", "m", "two")
    assert [tool.name for tool in session.tools] == ["shell"]
    assert session.notes == (
        "1 request offered no tools, as requests for a title do: no turn",
        "1 request got no reply (status 429): no turn",
        "1 request repeated the request before it: no turn",
    )


def test_requests_without_tools_are_turns_if_no_request_has_tools() -> None:
    session = session_of([exchange(asked(tools=[], n=n), answered(str(n))) for n in (1, 2)], "x")
    assert [reply.text for reply in session.replies] == ["1", "2"]


def test_arguments_that_a_script_cannot_send() -> None:
    reply = answered("", {"name": "shell", "arguments": "{no"})
    session = session_of([exchange(asked(), reply)], "x")
    assert session.replies == (RecordedReply("", (RecordedCall("shell"),)),)
    assert "reply 1: the arguments of shell are not a JSON object" in session.notes[0]


@pytest.mark.parametrize(
    ("path", "body", "prompt"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "Hi"),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "Hi"),
        ("/v1/responses", {"input": "Hi"}, "Hi"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"text": "Hi"}]}]}, "Hi"),
        ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Hi"}]}]}, "Hi"),
        ("/api/chat", {"messages": [{"role": "system", "content": "x"}]}, ""),
    ],
)
def test_the_first_prompt(path: str, body: dict[str, Any], prompt: str) -> None:
    found = exchange_of(path, json.dumps(body).encode(), 200, b"{}")
    assert found is not None
    assert found.prompt == prompt


def test_what_is_no_model_request() -> None:
    assert exchange_of("/v1/models", b"{}", 200, b"{}") is None
    assert exchange_of("/v1/chat/completions", b"{", 200, b"{}") is None


def entry(url: str, body: bytes, reply: bytes, started: str, **content: str) -> dict[str, Any]:
    return {
        "startedDateTime": started,
        "time": 12.5,
        "request": {
            "method": "POST",
            "url": url,
            "headers": [{"name": "Authorization", "value": "Bearer sk-1"}],
            "postData": {"mimeType": "application/json", "text": body.decode()},
        },
        "response": {"status": 200, "content": {"text": reply.decode(), "size": 1, **content}},
    }


def test_an_http_archive(tmp_path: Path) -> None:
    url = "https://api.openai.com/v1/chat/completions?key=sk-1"
    packed = base64.b64encode(answered("one"))
    entries = [
        entry(url, asked(n=2), answered("two"), "2025-11-20T10:00:02Z"),
        entry(url, asked(n=1), packed, "2025-11-20T10:00:01Z", encoding="base64"),
        entry("https://x/v1/models", b"{}", b"{}", "2025-11-20T10:00:00Z"),
    ]
    path = tmp_path / "s.har"
    path.write_text(json.dumps({"log": {"version": "1.2", "entries": entries}}))
    session = read_session(path, ALL_READERS)
    assert [reply.text for reply in session.replies] == ["one", "two"]
    assert session.source == "the HTTP archive"
    assert "sk-1" not in repr(session)


@pytest.mark.parametrize(
    "changes",
    [
        {"request": {"method": "POST", "url": "http://[", "postData": {"text": ""}}},
        {"response": {"status": 200, "content": {"text": "é", "encoding": "base64"}}},
        {"response": {"status": "200"}},
    ],
)
def test_damaged_archives(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = entry("https://x/v1/chat/completions", asked(), answered("x"), "")
    path = tmp_path / "s.har"
    path.write_text(json.dumps({"log": {"entries": [whole | changes]}}))
    with pytest.raises(UsageError, match="not a valid HTTP archive"):
        read_session(path, ALL_READERS)
