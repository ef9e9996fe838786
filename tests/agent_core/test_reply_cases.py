"""Unusual replies, all protocols, whole and streamed, and the right outcome of each.

They are modelled on public reports about agents and on the vendors' documents. `held` marks what
was right before this table was written; every other case failed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.encoding import encode_json
from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Outcome, Reply, ToolCall, ToolSpec
from agent_core.models import PROTOCOLS, codec_named
from agent_core.models.codec import CallIds, Codec, Parameters, Refused, StreamDecoder
from tests.agent_core.histories import VALUES
from tests.agent_core.raw_server import Script, answers, http, serving
from tests.agent_core.reply_encoders import ENCODERS, Said, SaidCall, lines, sse

ALL = tuple(sorted(PROTOCOLS))
CHAT, RESPONSES, ANTHROPIC = "openai_chat", "openai_responses", "anthropic_messages"
GEMINI, OLLAMA = "gemini", "ollama_chat"
LS = ToolCall("c1", "bash", {"command": "ls"})
LIMIT = {
    CHAT: "length",
    RESPONSES: "max_output_tokens",
    ANTHROPIC: "max_tokens",
    GEMINI: "MAX_TOKENS",
    OLLAMA: "length",
}
FILTER = {CHAT: "content_filter", RESPONSES: "content_filter", GEMINI: "SAFETY"}


def codec(protocol: str, *, stream: bool = False) -> Codec:
    return codec_named(protocol, "some", Parameters(model="m", stream=stream))


def read(protocol: str, body: bytes, *, stream: bool) -> Reply:
    """The reply in `body`, with unique ids of calls."""
    reader = codec(protocol, stream=stream)
    if not stream:
        return CallIds().assign(reader.decode(body), reader)
    decoder = StreamDecoder(reader)
    decoder.feed(body)
    return CallIds().assign(decoder.finish(), reader)


class Means(Struct, frozen=True, kw_only=True):
    """The right outcome."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    ending: str = "complete"
    explanation: str = ""
    sent_back: list[Any] | None = None
    """The items of the message in the next request. None is not checked."""


class Case(Struct, frozen=True, kw_only=True):
    name: str
    protocols: tuple[str, ...] = ALL
    said: Said
    means: Means
    reason: dict[str, str] | None = None
    """The finish reason by protocol, if it differs."""
    held: tuple[str, ...] = ()
    """Protocols with which it was right before, or `PROTOCOL-streamed`."""


CASES = (
    # ----------------------------------------------------------------- how a reply ended
    Case(
        name="complete",
        said=Said(text="Done."),
        means=Means(text="Done."),
        held=ALL,
    ),
    Case(
        name="text cut at the limit",
        said=Said(text="I will"),
        reason=LIMIT,
        means=Means(text="I will", ending="limit"),
    ),
    Case(
        name="limit used up by thoughts",
        said=Said(thoughts="Hm."),
        reason=LIMIT,
        means=Means(ending="limit"),
    ),
    Case(
        name="call cut at the limit",
        protocols=(CHAT, RESPONSES),
        said=Said(calls=(SaidCall(arguments='{"comm'),)),
        reason=LIMIT,
        means=Means(calls=(ToolCall("c1", "bash", {}, malformed='{"comm'),), ending="limit"),
    ),
    Case(
        name="call cut before its arguments",
        said=Said(calls=(SaidCall(arguments=None),)),
        reason=LIMIT,
        means=Means(calls=(ToolCall("c1", "bash", {}),), ending="limit"),
    ),
    Case(
        name="window full",
        protocols=(ANTHROPIC,),
        said=Said(text="I", reason="model_context_window_exceeded"),
        means=Means(text="I", ending="window"),
    ),
    Case(
        name="content filter",
        protocols=tuple(FILTER),
        said=Said(),
        reason=FILTER,
        means=Means(ending="refused"),
    ),
    Case(
        name="other filters",
        protocols=(GEMINI,),
        said=Said(reason="PROHIBITED_CONTENT", explanation="not that"),
        means=Means(ending="refused", explanation="not that"),
    ),
    Case(
        name="refusal in words",
        protocols=(CHAT, RESPONSES),
        said=Said(refusal="I cannot help."),
        reason={CHAT: "stop", RESPONSES: "completed"},
        means=Means(text="I cannot help.", ending="refused", explanation="I cannot help."),
    ),
    Case(
        name="refusal with its explanation",
        protocols=(ANTHROPIC,),
        said=Said(text="I", reason="refusal", explanation="a policy"),
        means=Means(text="I", ending="refused", explanation="a policy"),
    ),
    Case(
        name="call that the provider could not read",
        protocols=(GEMINI,),
        said=Said(reason="MALFORMED_FUNCTION_CALL", explanation="Malformed: print(bash"),
        means=Means(ending="unreadable", explanation="Malformed: print(bash"),
    ),
    # ------------------------------------------------------------------- empty replies
    Case(
        name="empty",
        said=Said(),
        means=Means(sent_back=[]),
        held=(ANTHROPIC, GEMINI),
    ),
    Case(
        name="white space",
        said=Said(text=" \n"),
        means=Means(text=" \n", sent_back=[]),
        held=(ANTHROPIC,),
    ),
    Case(
        name="thoughts only",
        protocols=(CHAT, RESPONSES, ANTHROPIC, GEMINI),
        said=Said(thoughts="Hm.", signature="sig"),
        means=Means(sent_back=[]),
        held=(GEMINI,),
    ),
    # ------------------------------------------------------------------------- thoughts
    Case(
        name="thoughts beside a call",
        protocols=(CHAT,),
        said=Said(thoughts="Hm.", calls=(SaidCall(arguments='{"command":"ls"}'),)),
        reason={CHAT: "tool_calls"},
        means=Means(
            calls=(LS,),
            sent_back=[
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "bash", "arguments": '{"command":"ls"}'},
                        }
                    ],
                    "reasoning_content": "Hm.",
                }
            ],
        ),
    ),
    Case(
        name="thoughts without a call stay out",
        protocols=(CHAT,),
        said=Said(thoughts="Hm.", text="Yes."),
        means=Means(text="Yes.", sent_back=[{"role": "assistant", "content": "Yes."}]),
        held=(CHAT,),
    ),
    Case(
        name="blank thoughts",
        protocols=(ANTHROPIC,),
        said=Said(thoughts=" ", text="Yes."),
        means=Means(text="Yes.", sent_back=[{"type": "text", "text": "Yes."}]),
    ),
    Case(
        name="hidden thoughts with a signature",
        protocols=(ANTHROPIC,),
        said=Said(thoughts="", signature="sig", text="Yes."),
        means=Means(
            text="Yes.",
            sent_back=[
                {"type": "thinking", "thinking": "", "signature": "sig"},
                {"type": "text", "text": "Yes."},
            ],
        ),
        held=(ANTHROPIC,),
    ),
    # ---------------------------------------------------------------------------- calls
    Case(
        name="arguments null",
        protocols=(CHAT, RESPONSES),
        said=Said(calls=(SaidCall(arguments="null"),)),
        means=Means(calls=(ToolCall("c1", "bash", {}),)),
    ),
    Case(
        name="no arguments",
        said=Said(calls=(SaidCall(arguments=None),)),
        means=Means(calls=(ToolCall("c1", "bash", {}),)),
        held=(CHAT, RESPONSES, GEMINI, OLLAMA, f"{ANTHROPIC}-streamed"),
    ),
    Case(
        name="one id twice",
        said=Said(calls=(SaidCall(), SaidCall())),
        means=Means(calls=(LS, ToolCall("c1-2", "bash", {"command": "ls"}))),
    ),
)


def parameters() -> Iterator[Any]:
    for case in CASES:
        for protocol in case.protocols:
            for stream in (False, True):
                kind = "streamed" if stream else "whole"
                held = "-held" if {protocol, f"{protocol}-{kind}"} & {*case.held} else ""
                yield pytest.param(
                    case, protocol, stream, id=f"{case.name}-{protocol}-{kind}{held}"
                )


@pytest.mark.parametrize(("case", "protocol", "stream"), list(parameters()))
def test_reply(case: Case, protocol: str, stream: bool) -> None:
    said = case.said
    if case.reason is not None:
        said = Said(**{**_fields(said), "reason": case.reason[protocol]})
    reply = read(protocol, ENCODERS[protocol](said, stream=stream), stream=stream)
    assert_means(reply, case.means, protocol)


def _fields(said: Said) -> dict[str, Any]:
    return {name: getattr(said, name) for name in Said.__struct_fields__}


def assert_means(reply: Reply, means: Means, protocol: str) -> None:
    message = reply.message
    assert (message.text, message.calls) == (means.text, means.calls)
    assert (reply.ending, reply.explanation) == (means.ending, means.explanation)
    if means.sent_back is not None:
        assert codec(protocol).entry(message).items == means.sent_back


# ------------------------------------------------- streams of servers that are almost compatible


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def call(arguments: str | None = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    return delta(tool_calls=[{**fields, "function": {"name": name, "arguments": arguments}}])


END = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
LA = ToolCall("c2", "bash", {"command": "la"})
THINKING = {"type": "reasoning.text", "index": 0}


class Stream(Struct, frozen=True, kw_only=True):
    name: str
    protocol: str = CHAT
    body: bytes
    means: Means
    held: bool = False


STREAMS = (
    Stream(
        name="a nameless delta with a new id continues the call",
        body=sse(
            call('{"command":', "bash", index=0, id="c1"),
            call('"ls"}', index=0, id="other"),
            END,
        ),
        means=Means(calls=(LS,)),
    ),
    Stream(
        name="a nameless delta with a new id and no index",
        body=sse(call('{"command":', "bash", index=0, id="c1"), call('"ls"}', id="other"), END),
        means=Means(calls=(LS,)),
    ),
    Stream(
        name="two whole calls under one index",
        body=sse(
            call('{"command":"ls"}', "bash", index=0, id="c1"),
            call('{"command":"la"}', "bash", index=0, id="c2"),
            END,
        ),
        means=Means(calls=(LS, LA)),
        held=True,
    ),
    Stream(
        name="two whole calls under one index without ids",
        body=sse(
            call('{"command":"ls"}', "bash", index=0),
            call('{"command":"la"}', "bash", index=0),
            END,
        ),
        means=Means(
            calls=(
                ToolCall("local-1", "bash", {"command": "ls"}),
                ToolCall("local-2", "bash", {"command": "la"}),
            )
        ),
    ),
    Stream(
        name="two whole calls under one index and one id",
        body=sse(
            call('{"command":"ls"}', "bash", index=0, id="c1"),
            call('{"command":"la"}', "bash", index=0, id="c1"),
            END,
        ),
        means=Means(calls=(LS, ToolCall("c1-2", "bash", {"command": "la"}))),
    ),
    Stream(
        name="the name in every delta",
        body=sse(
            call('{"command":{"a":1}', "bash", index=0, id="c1"),
            call(',"b":2}', "bash", index=0, id="c1"),
            call("", "bash", index=0, id="c1"),
            END,
        ),
        means=Means(calls=(ToolCall("c1", "bash", {"command": {"a": 1}, "b": 2}),)),
        held=True,
    ),
    Stream(
        name="the name after the id",
        body=sse(
            call(index=0, id="c1"),
            call("", "bash", index=0),
            call('{"command":"ls"}', index=0),
            END,
        ),
        means=Means(calls=(LS,)),
        held=True,
    ),
    Stream(
        name="calls whose deltas alternate",
        body=sse(
            call('{"command":', "bash", index=0, id="c1"),
            call('{"command":', "bash", index=1, id="c2"),
            call('"ls"}', index=0),
            call('"la"}', index=1),
            END,
        ),
        means=Means(calls=(LS, LA)),
        held=True,
    ),
    Stream(
        name="a signature of Google's thoughts",
        body=sse(
            call(
                '{"command":"ls"}',
                "bash",
                index=0,
                id="c1",
                extra_content={"google": {"thought_signature": "sig"}},
            ),
            END,
        ),
        means=Means(
            calls=(LS,),
            sent_back=[
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "bash", "arguments": '{"command":"ls"}'},
                            "extra_content": {"google": {"thought_signature": "sig"}},
                        }
                    ],
                }
            ],
        ),
    ),
    Stream(
        name="thoughts in pieces",
        body=sse(
            delta(reasoning="Let ", reasoning_details=[{**THINKING, "text": "Let "}]),
            delta(reasoning="me.", reasoning_details=[{**THINKING, "text": "me."}]),
            delta(reasoning_details=[{**THINKING, "signature": "sig"}]),
            delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
            call('{"command":"ls"}', "bash", index=0, id="c1"),
            END,
        ),
        means=Means(
            calls=(LS,),
            sent_back=[
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "bash", "arguments": '{"command":"ls"}'},
                        }
                    ],
                    "reasoning": "Let me.",
                    "reasoning_details": [
                        {**THINKING, "text": "Let me.", "signature": "sig"},
                        {"type": "reasoning.encrypted", "data": "x"},
                    ],
                }
            ],
        ),
    ),
    Stream(
        name="keep-alive comments",
        body=sse(b": OPENROUTER PROCESSING\n\n", delta(content="Hi"), b": again\n\n", END),
        means=Means(text="Hi"),
        held=True,
    ),
    Stream(
        name="two ends",
        body=sse(delta(content="Hi"), END, END, b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
        means=Means(text="Hi"),
        held=True,
    ),
    Stream(
        name="two ends",
        protocol=OLLAMA,
        body=lines(
            {"message": {"content": "Hi"}, "done": True, "done_reason": "length"},
            {"message": {"content": ""}, "done": True},
        ),
        means=Means(text="Hi", ending="limit"),
    ),
    Stream(
        name="two ends and pings",
        protocol=ANTHROPIC,
        body=sse(
            {"type": "message_start", "message": {"content": []}},
            {"type": "ping"},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Hi"},
            },
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
            {"type": "message_delta", "delta": {"stop_reason": None}},
            {"type": "message_stop"},
            {"type": "message_stop"},
        ),
        means=Means(text="Hi", ending="limit"),
    ),
    Stream(
        name="every block under the index 0",
        protocol=ANTHROPIC,
        body=sse(
            {
                "type": "content_block_start",
                "content_block": {"type": "tool_use", "id": "c1", "name": "bash", "input": {}},
            },
            {
                "type": "content_block_delta",
                "delta": {"type": "input_json_delta", "partial_json": '{"command":"ls"}'},
            },
            {"type": "content_block_stop"},
            {
                "type": "content_block_start",
                "content_block": {"type": "tool_use", "id": "c2", "name": "bash", "input": {}},
            },
            {
                "type": "content_block_delta",
                "delta": {"type": "input_json_delta", "partial_json": '{"command":"la"}'},
            },
            {"type": "message_stop"},
        ),
        means=Means(calls=(LS, LA)),
    ),
    Stream(
        name="every item under the index 0",
        protocol=RESPONSES,
        body=sse(
            *(
                {
                    "type": "response.output_item.done",
                    "item": {
                        "type": "function_call",
                        "call_id": call_id,
                        "name": "bash",
                        "arguments": f'{{"command":"{command}"}}',
                    },
                }
                for call_id, command in (("c1", "ls"), ("c2", "la"), ("c1", "ls"))
            ),
            {"type": "response.completed", "response": {"status": "completed", "output": []}},
        ),
        means=Means(calls=(LS, LA)),
    ),
    Stream(
        name="events without a type",
        protocol=ANTHROPIC,
        body=sse({}, {"type": "message_stop"}),
        means=Means(),
    ),
    Stream(
        name="events without a type",
        protocol=RESPONSES,
        body=sse(
            {},
            {"type": "response.completed", "response": {"status": "completed", "output": []}},
            {"type": "response.completed", "response": {"status": "completed", "output": []}},
        ),
        means=Means(),
    ),
    Stream(
        name="a text block that begins with null",
        protocol=ANTHROPIC,
        body=sse(
            {"type": "content_block_start", "content_block": {"type": "text", "text": None}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "message_stop"},
        ),
        means=Means(text="Hi"),
    ),
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=f"{c.name}-{c.protocol}{'-held' if c.held else ''}") for c in STREAMS],
)
def test_stream(case: Stream) -> None:
    assert_means(read(case.protocol, case.body, stream=True), case.means, case.protocol)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("escape", "text"),
    [
        (rb"\ud83d", "\N{REPLACEMENT CHARACTER}"),
        (rb"\ude00", "\N{REPLACEMENT CHARACTER}"),
        (rb"\ud83d\ud83d\ude00", "\N{REPLACEMENT CHARACTER}😀"),
        (rb"\\\\\ud83d\\", "\\\\\N{REPLACEMENT CHARACTER}\\"),
        (rb"\\ud83d \ud83d", "\\ud83d \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_half_a_character_does_not_discard_the_reply(
    protocol: str, stream: bool, escape: bytes, text: str
) -> None:
    said = Said(text="a PLACE z")
    body = ENCODERS[protocol](said, stream=stream).replace(b"PLACE", escape)
    assert read(protocol, body, stream=stream).message.text == f"a {text} z"


def test_half_a_character_in_arguments() -> None:
    said = Said(calls=(SaidCall(arguments=r'{"command": "echo \ud83d"}'),))
    (found,) = read(CHAT, ENCODERS[CHAT](said, stream=False), stream=False).message.calls
    assert found.arguments == {"command": "echo \N{REPLACEMENT CHARACTER}"}


def test_half_a_character_does_not_complete_half_a_reply() -> None:  # held
    with pytest.raises(MalformedReplyError):
        read(CHAT, rb'{"choices": [{"message": {"content": "a \ud83d', stream=False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "status"),
    [
        ({"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}, 502),
        ({"finish_reason": "insufficient_system_resource"}, None),
    ],
)
def test_choice_that_failed_is_a_refusal(
    choice: dict[str, Any], status: int | None, stream: bool
) -> None:
    said = {"choices": [{**choice, "delta" if stream else "message": {"content": "half"}}]}
    body = sse(said) if stream else lines(said)
    with pytest.raises(Refused) as caught:
        read(CHAT, body, stream=stream)
    assert (caught.value.status, caught.value.kind) == (status, "502" if status else "server_error")


@pytest.mark.parametrize("protocol", [ANTHROPIC, RESPONSES])
def test_error_of_a_proxy_inside_a_stream(protocol: str) -> None:
    with pytest.raises(Refused, match="no money"):
        read(protocol, sse({"error": {"message": "no money", "code": "x"}}), stream=True)


@pytest.mark.parametrize("protocol", ALL)
def test_ids_stay_unique_in_a_session(protocol: str) -> None:
    """Some servers count from 0 in every reply."""
    said = Said(calls=(SaidCall(id="c0"),), thoughts="Hm.", signature="sig")
    reader, ids, seen = codec(protocol), CallIds(), []
    for _ in range(3):
        body = ENCODERS[protocol](said, stream=False)
        message = ids.assign(reader.decode(body), reader).message
        seen.append(message.calls[0].id)
        assert (seen[-1] in str(reader.entry(message).items)) is (protocol != OLLAMA)
    assert seen == ["c0", "c0-2", "c0-3"]


@pytest.mark.parametrize("thoughts", ["", "Hm."])
@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("functions.bash", "bash"),
        ("functions.Task_Done:0", "task_done"),
        ("bash", "bash"),
        ("Bash", "Bash"),
        ("some.thing else", "some_thing_else"),
        ("x." * 50, ("x_" * 50)[:64]),
    ],
)
def test_history_has_only_names_that_providers_accept(
    protocol: str, thoughts: str, given: str, sent: str
) -> None:
    """OpenAI refuses a history with a dot in the name of a tool."""
    said = Said(calls=(SaidCall(id="c0", name=given),), thoughts=thoughts, signature="sig")
    reader = codec(protocol)
    tools = [ToolSpec(name, "", {}) for name in ("bash", "task_done")]
    body = ENCODERS[protocol](said, stream=False)
    message = CallIds().assign(reader.decode(body), reader, tools).message
    assert message.calls[0].name == sent
    items = str(reader.entry(message).items)
    assert f"'{sent}'" in items
    assert given == sent or f"'{given}'" not in items


def test_empty_answer_is_left_out_but_not_an_empty_user_text() -> None:
    for protocol in (CHAT, OLLAMA, RESPONSES):
        assert codec(protocol).entry(Message("assistant", "")).items == []
        assert codec(protocol).entry(Message("user", "")).items != []


@pytest.mark.parametrize(
    ("complaint", "corrected"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'", True),
        ("Unrecognized request argument supplied: max_tokens", True),
        ('[{"type":"extra_forbidden","loc":["body","max_tokens"]}]', True),
        ("max_tokens is too large: 999999. At most 16384 are allowed.", False),
        ("Unknown model 'm'", False),
    ],
)
def test_other_name_of_the_limit_is_tried(complaint: str, corrected: bool) -> None:
    other = codec(CHAT).corrected(complaint)
    assert (other is not None) is corrected
    if other is not None:
        assert other.envelope([], []) == {"model": "m", "max_completion_tokens": 4096}
        assert other.corrected("Unknown field max_completion_tokens") is not None


# --------------------------------------------------------------------------- whole sessions

REFUSALS = {**FILTER, ANTHROPIC: "refusal"}


async def session(protocol: str, script: Script, *, stream: bool, path: Path) -> Outcome:
    """A session of the whole agent against `script`."""
    kind = {ANTHROPIC: "anthropic", GEMINI: "google", OLLAMA: "ollama"}.get(protocol, "openai")
    async with serving(script) as server:
        entry = ProviderSettings(
            model="m", base_url=server.url, protocol=protocol, stream=stream, max_retries=0
        )
        settings = Settings(default_provider=kind, model_providers={kind: entry})
        outcome = await run_task("work", settings=settings, workspace=path)
        assert len(server.asked) == outcome.steps
    return outcome


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", sorted(REFUSALS))
async def test_refusal_costs_one_request(protocol: str, stream: bool, tmp_path: Path) -> None:
    said = Said(reason=REFUSALS[protocol])
    script = answers(http(ENCODERS[protocol](said, stream=stream)))
    outcome = await session(protocol, script, stream=stream, path=tmp_path)
    assert (outcome.stop, outcome.steps) == ("error", 1)
    assert f"refused to answer ({REFUSALS[protocol]})" in str(outcome.error)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", ALL)
async def test_replies_that_are_always_cut_cost_three_requests(
    protocol: str, stream: bool, tmp_path: Path
) -> None:
    arguments = '{"command": "touch made' if protocol in (CHAT, RESPONSES) else None
    said = Said(reason=LIMIT[protocol], calls=(SaidCall(arguments=arguments),))
    script = answers(http(ENCODERS[protocol](said, stream=stream)))
    outcome = await session(protocol, script, stream=stream, path=tmp_path)
    assert (outcome.stop, outcome.steps) == ("error", 3)
    assert "raise max_tokens" in str(outcome.error)
    assert not (tmp_path / "made").exists()


# ------------------------------------------------------------------------ damaged replies


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document except the document itself."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _places(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _places(child, (*path, index))


def _events(body: bytes) -> list[Any]:
    """The documents of a stream, or the one of a whole reply."""
    texts = [line.removeprefix(b"data: ") for line in body.splitlines()]
    return [json.loads(text) for text in texts if text not in (b"", b"[DONE]")]


FULL = Said(
    text="Hi",
    thoughts="Hm.",
    signature="sig",
    refusal="No.",
    explanation="why",
    reason="stop",
    calls=(SaidCall(), SaidCall(id="c2")),
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", ALL)
@given(data=st.data())
def test_any_value_anywhere_gives_a_reply_or_a_known_error(
    protocol: str, stream: bool, data: st.DataObject
) -> None:
    events = _events(ENCODERS[protocol](FULL, stream=stream))
    *path, last = data.draw(st.sampled_from(list(_places(events))))
    parent: Any = events
    for key in path:
        parent = parent[key]
    parent[last] = data.draw(VALUES)
    sent = sse(*events) if stream and protocol != OLLAMA else lines(*events)
    try:
        reply = read(protocol, sent, stream=stream)
    except (MalformedReplyError, Refused):
        return
    for reader in map(codec, ALL):
        encode_json(reader.entry(reply.message).items)
