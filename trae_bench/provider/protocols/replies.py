"""Decodes a real provider's reply, complete or streamed, in each of the five protocols.

A stream is server-sent events or lines of JSON; which one is seen from its content. Reasoning
and the provider's own tools are ignored.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from trae_bench.scenario import Protocol
from trae_bench.scenario.importers.session import (
    AnthropicBlock,
    ChatCall,
    ChatMessage,
    RecordedCall,
    RecordedReply,
    ResponsesItem,
    anthropic_reply,
    arguments_of,
    chat_reply,
    responses_reply,
    text_of,
)

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""Maximum size of a reply's body, decompressed."""
MAX_CALLS = 10_000
"""Maximum tool calls in a reply."""

_Event = TypeVar("_Event", bound=Struct)
_END_OF_STREAM = b"[DONE]"


class ReplyError(ValueError):
    """The body is not a whole reply of the protocol. The message says what is wrong."""


def decode_reply(protocol: Protocol, body: bytes) -> RecordedReply:
    """Decode the body of a successful reply. Raises `ReplyError`.

    A stream that ends early is an error, because the agent may not have used it.
    """
    if len(body) > MAX_REPLY_BYTES:
        raise ReplyError(f"larger than {MAX_REPLY_BYTES >> 20} MB")
    try:
        reply = _DECODERS[protocol](body)
    except msgspec.ValidationError as error:
        raise ReplyError(f"not a reply of {protocol}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplyError(f"not JSON: {error}") from error
    if len(reply.calls) > MAX_CALLS:
        raise ReplyError(f"more than {MAX_CALLS} tool calls")
    return reply


def is_stream(body: bytes) -> bool:
    """Return True if the body is a stream of events or lines, not one JSON value."""
    start = body[:64].lstrip()
    if not start.startswith((b"{", b"[")):
        return True
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        return True
    return False


def _events(body: bytes, kind: type[_Event]) -> Iterator[_Event]:
    """Yield the objects of a complete reply, of a JSON array, or of a stream."""
    decoder = msgspec.json.Decoder(kind)
    if not is_stream(body):
        if body.lstrip().startswith(b"["):
            # Gemini streams an array to clients that do not ask for events.
            yield from msgspec.json.decode(body, type=list[kind])  # type: ignore[valid-type]
        else:
            yield decoder.decode(body)
        return
    yield from map(decoder.decode, _payloads(body))


def _payloads(body: bytes) -> Iterator[bytes]:
    """Yield the JSON text of each event or line."""
    data: list[bytes] = []
    # `splitlines` of bytes splits at CR and LF only, as both formats do.
    for line in [*body.splitlines(), b""]:
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif line.lstrip().startswith(b"{"):
            yield line
        elif not line and data:
            payload = b"\n".join(data)
            data = []
            if payload.strip() not in (b"", _END_OF_STREAM):
                yield payload


class _Error(Struct, frozen=True):
    message: str = ""


def _check_error(error: _Error | str | None) -> None:
    if error is not None:
        text = error if isinstance(error, str) else error.message
        raise ReplyError(f"the provider reports an error: {text[:200]}")


def _check_ended(ended: bool) -> None:
    if not ended:
        raise ReplyError("the reply ends early")


class _ChatChoice(Struct, frozen=True):
    index: int = 0
    message: ChatMessage | None = None
    delta: ChatMessage | None = None
    finish_reason: str | None = None


class _ChatEvent(Struct, frozen=True):
    choices: tuple[_ChatChoice, ...] | None = None
    error: _Error | str | None = None


def _openai_chat(body: bytes) -> RecordedReply:
    text, calls, ended = "", _Calls(), False
    for event in _events(body, _ChatEvent):
        _check_error(event.error)
        for choice in event.choices or ():
            if choice.index != 0:
                continue
            if choice.message is not None:
                return chat_reply(choice.message)
            ended |= choice.finish_reason is not None
            if choice.delta is not None:
                text += text_of(choice.delta.content)
                calls.add(choice.delta.tool_calls or ())
    _check_ended(ended)
    return RecordedReply(text, calls.recorded())


class _Calls:
    """Joins the parts of streamed calls."""

    def __init__(self) -> None:
        self._calls: list[tuple[ChatCall, list[str]]] = []
        self._latest: dict[int | None, tuple[ChatCall, list[str]]] = {}

    def add(self, parts: Iterable[ChatCall]) -> None:
        for part in parts:
            latest = self._latest.get(part.index)
            # Some servers give every call index 0, or none; a new id then starts a call.
            if latest is None or (part.id and part.id != latest[0].id):
                latest = self._latest[part.index] = (part, [])
                self._calls.append(latest)
            called = part.called
            arguments = called.arguments if called.input is None else called.input
            # Some servers send the whole object at once.
            whole = isinstance(arguments, dict)
            latest[1].append(json.dumps(arguments) if whole else str(arguments or ""))

    def recorded(self) -> tuple[RecordedCall, ...]:
        return tuple(
            RecordedCall(
                call.called.name or "",
                {"input": "".join(texts)} if call.custom else arguments_of("".join(texts)),
            )
            for call, texts in self._calls
        )


class _Response(Struct, frozen=True):
    status: str | None = None
    output: tuple[ResponsesItem, ...] = ()
    error: _Error | str | None = None


class _ResponsesEvent(Struct, frozen=True):
    """An event, or a complete response, which has the fields of `_Response`."""

    type: str = ""
    object: str = ""
    response: _Response | None = None
    output_index: int = 0
    item: ResponsesItem | None = None
    status: str | None = None
    output: tuple[ResponsesItem, ...] = ()
    error: _Error | str | None = None
    message: str = ""


_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.done"})


def _openai_responses(body: bytes) -> RecordedReply:
    items: dict[int, ResponsesItem] = {}
    output: tuple[ResponsesItem, ...] = ()
    ended = False
    for event in _events(body, _ResponsesEvent):
        _check_error(event.error)
        if event.type == "error":
            _check_error(event.message)
        if event.response is not None:
            _check_error(event.response.error)
        if event.type == "response.output_item.done" and event.item is not None:
            items[event.output_index] = event.item
        elif event.type in _RESPONSE_ENDS and event.response is not None:
            output, ended = event.response.output, True
        elif event.object == "response" and not event.type:
            output, ended = event.output, True
    _check_ended(ended)
    # Some servers leave the output of the last event empty.
    return responses_reply(output or (items[index] for index in sorted(items)))


class _AnthropicDelta(Struct, frozen=True):
    text: str = ""
    partial_json: str = ""


class _AnthropicEvent(Struct, frozen=True):
    """An event, or a complete message, which has `content`."""

    type: str = ""
    index: int = 0
    content: tuple[AnthropicBlock, ...] = ()
    content_block: AnthropicBlock | None = None
    delta: _AnthropicDelta | None = None
    error: _Error | str | None = None


def _anthropic_messages(body: bytes) -> RecordedReply:
    blocks: dict[int, AnthropicBlock] = {}
    parts: dict[int, list[str]] = {}
    ended = False
    for event in _events(body, _AnthropicEvent):
        _check_error(event.error)
        if event.type == "message":
            return anthropic_reply(event.content)
        if event.type == "content_block_start" and event.content_block is not None:
            blocks[event.index] = event.content_block
            parts[event.index] = []
        elif event.type == "content_block_delta" and event.delta is not None:
            parts.get(event.index, []).append(event.delta.text or event.delta.partial_json)
        ended |= event.type == "message_stop"
    _check_ended(ended)
    whole = [_joined(block, "".join(parts[index])) for index, block in sorted(blocks.items())]
    reply = anthropic_reply(block for block, _ in whole)
    texts = iter(text for block, text in whole if block.type == "tool_use")
    calls = tuple(
        RecordedCall(call.name, arguments_of(text) if text else call.arguments)
        for call, text in zip(reply.calls, texts, strict=True)
    )
    return RecordedReply(reply.text, calls)


def _joined(block: AnthropicBlock, text: str) -> tuple[AnthropicBlock, str]:
    if block.type == "text":
        return msgspec.structs.replace(block, text=block.text + text), ""
    return block, text


class _GeminiPart(Struct, frozen=True, rename={"function_call": "functionCall"}):
    text: str = ""
    thought: bool = False
    function_call: "_GeminiCall | None" = None


class _GeminiCall(Struct, frozen=True):
    name: str
    args: dict[str, Any] | None = None


class _GeminiContent(Struct, frozen=True):
    parts: tuple[_GeminiPart, ...] | None = None


class _GeminiCandidate(Struct, frozen=True, rename="camel"):
    index: int = 0
    content: _GeminiContent | None = None
    finish_reason: str | None = None


class _GeminiEvent(Struct, frozen=True):
    candidates: tuple[_GeminiCandidate, ...] = ()
    error: _Error | str | None = None


def _gemini(body: bytes) -> RecordedReply:
    text, calls, ended = "", [], False
    for event in _events(body, _GeminiEvent):
        _check_error(event.error)
        for candidate in event.candidates:
            if candidate.index != 0:
                continue
            ended |= candidate.finish_reason is not None
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.function_call is not None:
                    call = part.function_call
                    calls.append(RecordedCall(call.name, call.args or {}))
                elif not part.thought:
                    text += part.text
    _check_ended(ended)
    return RecordedReply(text, tuple(calls))


class _OllamaEvent(Struct, frozen=True):
    message: ChatMessage | None = None
    done: bool = False
    error: _Error | str | None = None


def _ollama_chat(body: bytes) -> RecordedReply:
    text, ended = "", False
    calls: list[RecordedCall] = []
    for event in _events(body, _OllamaEvent):
        _check_error(event.error)
        if event.message is not None:
            reply = chat_reply(event.message)
            text += reply.text
            calls += reply.calls
        ended |= event.done
    _check_ended(ended)
    return RecordedReply(text, tuple(calls))


_DECODERS: dict[Protocol, Callable[[bytes], RecordedReply]] = {
    "openai_chat": _openai_chat,
    "openai_responses": _openai_responses,
    "anthropic_messages": _anthropic_messages,
    "gemini": _gemini,
    "ollama_chat": _ollama_chat,
}
