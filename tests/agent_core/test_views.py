"""What a user sees of a session: lines, a terminal, events as JSON."""

import asyncio
import io
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.cli.views import (
    HeldBack,
    JsonView,
    LineView,
    Totals,
    count,
    duration,
    harmless,
    title_of,
)
from agent_core.config import Prices
from agent_core.messages import Message, Outcome, Reply, ToolCall, ToolResult, Usage
from agent_core.models import PROTOCOLS
from agent_core.models.streamed_text import StreamedText, text_in
from agent_core.redaction import Redactor
from tests.agent_core.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.anyio

KEY = "sk-planted-0123456789"


def lines_view(**options: Any) -> tuple[LineView, list[str]]:
    lines: list[str] = []
    totals = options.pop("totals", None) or Totals(None, cache_is_extra=False)
    return LineView(lines.append, Redactor([KEY]), totals, colours=False), lines


def replied(*calls: ToolCall, text: str = "") -> Reply:
    return Reply(Message("assistant", text, calls), Usage(1000, 20, 0, 400))


# ------------------------------------------------------------------------------- titles


@pytest.mark.parametrize(
    ("name", "arguments", "title"),
    [
        ("bash", {"command": "pytest -q"}, "$ pytest -q"),
        ("bash", {"command": "cat <<E\n1\n2\nE"}, "$ cat <<E 1 2 E"),
        ("bash", {"restart": True}, 'bash {"restart":true}'),
        (
            "str_replace_based_edit_tool",
            {"command": "view", "path": "/w/a.py", "view_range": [1, 9]},
            "view /w/a.py [1, 9]",
        ),
        (
            "json_edit_tool",
            {"operation": "set", "file_path": "/w/a.json", "json_path": "$.x"},
            "set /w/a.json $.x",
        ),
        ("sequentialthinking", {"thought": "hm"}, "think: hm"),
        ("other", {}, "other"),
        ("other", {"a": 1}, 'other {"a":1}'),
        ("bash", {"command": "x" * 300}, f"$ {'x' * 97}…"),
    ],
)
def test_title_of_a_call(name: str, arguments: dict[str, Any], title: str) -> None:
    assert title_of(ToolCall("c", name, arguments), Redactor()) == title


def test_malformed_call_has_a_title() -> None:
    assert title_of(ToolCall("c", "bash", {}, malformed='{"comm'), Redactor()) == 'bash {"comm'


@pytest.mark.parametrize("at", range(60, 101))
def test_no_key_is_cut_before_it_is_redacted(at: int) -> None:
    view, lines = lines_view()
    text = f"{'x ' * (at // 2)}{KEY} more"
    view.interaction([], replied(ToolCall("a", "bash", {"command": text})), [])
    view.result(ToolResult("a", "bash", False, "", text), 1.0)
    assert KEY[:4] not in lines[0]


def test_durations_and_counts() -> None:
    assert [duration(s) for s in (0.04, 59.9, 125)] == ["0.0 s", "59.9 s", "2 min 05 s"]
    assert [count(n) for n in (870, 12_345, 1_200_000)] == ["870", "12.3k", "1.2M"]


# ------------------------------------------------------------------------------ content


async def test_a_line_per_call_and_the_totals() -> None:
    totals = Totals(Prices(input=3, output=15, cache_read=0.3), cache_is_extra=False)
    view, lines = lines_view(totals=totals)
    view.start("t", "openai", "m", 5)
    view.interaction(
        [], replied(ToolCall("a", "bash", {"command": f"echo {KEY}"}), text="I look."), []
    )
    view.result(ToolResult("a", "bash", True, "x"), 1.24)
    view.result(ToolResult("b", "bash", False, "", f"exit status 1\n{KEY}"), 0.1)
    view.step(1, "completed", [], None, [])
    view.interaction([], replied(ToolCall("d", "task_done", {}), text="The result."), [])
    view.step(2, "completed", [], None, [])
    await view.finish(True, "The result.")
    assert lines[:4] == [
        "openai m, at most 5 steps",
        "I look.",
        "$ echo [REDACTED]  ok 1.2 s",
        "bash  failed 0.1 s: exit status 1 [REDACTED]",
    ]
    # 1200 tokens at 3, 800 at 0.3 and 40 at 15 dollars per million.
    pattern = r"2 steps, 2\.0k tokens in \(800 cached\), 40 out, \d+\.\d s, \$0\.0044"
    assert re.fullmatch(pattern, lines[4])
    assert lines[5:] == ["done"]


def test_cached_tokens_are_counted_once() -> None:
    """OpenAI includes them in the input tokens, Anthropic does not."""
    for extra, usage in ((False, Usage(1000, 0, 100, 300)), (True, Usage(600, 0, 100, 300))):
        totals = Totals(
            Prices(input=10, output=0, cache_read=1, cache_write=20), cache_is_extra=extra
        )
        totals.usage = usage
        assert totals.read == 1000
        assert totals.cost == pytest.approx((600 * 10 + 300 * 1 + 100 * 20) / 1e6)


def test_events_are_redacted() -> None:
    written: list[str] = []
    view = JsonView(written.append, Redactor([KEY]))
    view.interaction([], replied(ToolCall("a", "bash", {}, malformed=f"{{{KEY}"), text=KEY), [])
    view.result(ToolResult("a", "bash", False, KEY, KEY), 0.5)
    assert KEY not in "".join(written)
    assert [json.loads(line)["event"] for line in written] == ["reply", "call", "result"]


def test_last_event_says_how_the_session_ended() -> None:
    written: list[str] = []
    view = JsonView(written.append, Redactor([KEY]))
    view.outcome(Outcome(False, "error", KEY, 1))
    view.outcome(None)
    assert json.loads(written[0])["final_text"] == "[REDACTED]"
    assert json.loads(written[1]) == {"event": "interrupted"}


@given(st.text())
def test_no_text_controls_the_terminal(text: str) -> None:
    shown = harmless(f"\x1b]0;title\x07\x1b[2J{text}\x9b1m\u202e\r")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", shown)
    shown.encode()


@given(st.lists(st.sampled_from(["sk-", "aaaa", "bbbb", "sk-aaaabbbb", " ", "x"])), st.data())
def test_streamed_text_shows_no_secret_and_loses_nothing(parts: list[str], data: Any) -> None:
    """However the text is cut, also with a secret that begins with another one."""
    redactor = Redactor(["sk-aaaabbbb", "sk-aaaabbbbaaaa", "bbbb aaaa"])
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    held, shown = HeldBack(redactor), ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += held.add(text[start:end])
    assert shown + held.end() == redactor.text(text)


def test_streamed_text_without_secrets_is_shown_at_once() -> None:
    assert HeldBack(Redactor()).add("now") == "now"


EVENTS = {
    "openai_chat": {"choices": [{"delta": {"content": "hi"}}]},
    "openai_responses": {"type": "response.output_text.delta", "delta": "hi"},
    "anthropic_messages": {
        "type": "content_block_delta",
        "delta": {"type": "text_delta", "text": "hi"},
    },
    "gemini": {
        "candidates": [{"content": {"parts": [{"text": "no", "thought": True}, {"text": "hi"}]}}]
    },
    "ollama_chat": {"message": {"content": "hi"}},
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_text_of_an_event(protocol: str) -> None:
    assert text_in(protocol, json.dumps(EVENTS[protocol]).encode()) == "hi"
    for event in (b"[DONE]", b"{}", b'{"choices": []}', b"[]", b'{"type": "x", "delta": {}}'):
        assert text_in(protocol, event) == ""


@pytest.mark.parametrize(
    ("cut", "again", "shown"),
    [
        ("", "Hello.", "Hello."),
        ("Hel", "Hello.", "Hello."),
        ("Hello.", "Hello.", "Hello."),
        ("Hel", "Help!", "Help!"),
        ("Hello", "Hey.", "Hello\nHey."),
        ("Hello", "Hel", "Hello\nHel"),
        ("Hello", "", "Hello\n"),
    ],
)
@given(data=st.data())
def test_repeated_stream_is_shown_once(cut: str, again: str, shown: str, data: Any) -> None:
    """An interrupted stream is requested again, and often begins with the same words."""
    parts: list[str] = []
    view = StreamedText("openai_chat", parts.append)
    for _ in range(2):  # two replies, of which the second knows nothing of the first
        view.begin_reply()
        for text in (cut, again):
            view.begin_stream()
            while text:
                size = data.draw(st.integers(1, len(text)))
                event, text = {"choices": [{"delta": {"content": text[:size]}}]}, text[size:]
                view.take(json.dumps(event).encode())
        view.end_stream()
    assert "".join(parts) == shown * 2


# ----------------------------------------------------------------------------- terminal


def streamed(text: str, *functions: dict[str, str]) -> Answer:
    """A reply as server-sent events, its text in parts of three characters."""
    parts = [text[i : i + 3] for i in range(0, len(text), 3)]
    deltas: list[dict[str, Any]] = [{"content": part} for part in parts]
    deltas += [
        {"tool_calls": [{"index": i, "id": f"c{i}", "type": "function", "function": function}]}
        for i, function in enumerate(functions)
    ]
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return Answer(body.encode(), kind="text/event-stream")


@asynccontextmanager
async def on_a_terminal(home: Path, *arguments: str) -> AsyncIterator[tuple[Any, int]]:
    """The command on a pseudo-terminal of 24 lines and 80 columns."""
    import fcntl
    import pty
    import struct
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm-256color"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent_core", *arguments),
        cwd=home,
        env={**environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OPENAI_API_KEY": KEY},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        yield process, controller
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(controller)


def read_all(controller: int) -> str:
    """What the terminal received until the program ended."""
    received = b""
    while True:
        try:
            data = os.read(controller, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            return received.decode()
        if not data:
            return received.decode()
        received += data


@pytest.mark.parametrize("console", ["rich", "simple"])
async def test_session_on_a_terminal(console: str, tmp_path: Path) -> None:
    if console == "rich":
        pytest.importorskip("rich")
    done = {"name": "task_done", "arguments": "{}"}
    look = {"name": "bash", "arguments": json.dumps({"command": f"echo {KEY}; false"})}
    first = streamed(f"I look at {KEY} \x1b[31mfirst.\nThen I edit.", look)
    async with scripted_server(first, streamed("All is \x1b[41mdone.", done)) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "--stream"]
        async with on_a_terminal(tmp_path, *arguments, "-ct", console) as (process, controller):
            seen = await asyncio.to_thread(read_all, controller)
            await process.wait()
    assert process.returncode == 0, seen
    assert server.seen[0].json["stream"] is True
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert KEY not in seen
    assert "\x1b[31mfirst" not in seen, "the model does not control the terminal"
    assert "I look at [REDACTED] ?[31mfirst." in plain
    assert "Then I edit." in plain
    assert re.search(r"\$ echo \[REDACTED\]; false  failed \d", plain)
    assert re.search(r"2 steps, 0 tokens in \(0 cached\), 0 out, \d+\.\d s", plain)
    assert plain.count("All is ?[41mdone.\r\n") == 1, "the result is not shown twice"
    assert ("waiting for the model" in plain) is (console == "rich")
    assert "\x1b[" in seen, "colours"


async def test_footer_moves_without_a_thread() -> None:
    """A thread wrote between the parts of a line, which left pieces of the footer behind."""
    pytest.importorskip("rich")
    from rich.console import Console

    from agent_core.cli.rich_view import RichView

    out, threads = io.StringIO(), threading.active_count()
    console = Console(file=out, force_terminal=True, width=80)
    view = RichView(console, Redactor(), Totals(None, cache_is_extra=False))
    view.start("t", "openai", "m", 20)
    assert threading.active_count() == threads
    seen = out.getvalue().count("waiting for the model")
    async with asyncio.timeout(20):
        while out.getvalue().count("waiting for the model") < seen + 2:  # noqa: ASYNC110 - a timer
            await asyncio.sleep(0.01)
    await view.finish(True, None)
    end = out.getvalue()
    await asyncio.sleep(0.3)
    assert out.getvalue() == end
