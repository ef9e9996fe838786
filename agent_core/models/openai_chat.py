"""OpenAI's Chat Completions, also used by Azure, OpenRouter, Doubao and many local servers."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent_core.encoding import encode_json
from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec, Usage
from agent_core.models.codec import (
    Codec,
    Entry,
    Parameters,
    Refused,
    TokenCount,
    arguments_text,
    decoded,
    function_tool,
    is_empty,
    opaque_items,
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)
from agent_core.models.endings import ended, refused
from agent_core.providers import LIMIT_FIELDS, LimitField


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(Struct):
    id: str | None = None
    index: int | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None
    """Google's thought signature. It must be sent back in the same call."""


class _Part(Struct):
    text: str | None = None


class _Message(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    # The thoughts, by server: DeepSeek and Moonshot, vLLM and Groq, OpenRouter.
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: list[dict[str, Any]] | None = None


class _Choice(Struct):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | str | None = None


class _PromptDetails(Struct):
    cached_tokens: TokenCount = None
    cache_write_tokens: TokenCount = None


class _CompletionDetails(Struct):
    reasoning_tokens: TokenCount = None


class _Usage(Struct):
    prompt_tokens: TokenCount = None
    completion_tokens: TokenCount = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Body(Struct):
    """A whole reply, or one chunk of a streamed one."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: dict[str, Any] | str | None = None


_BODY = msgspec.json.Decoder(_Body)
_BROKEN = ("insufficient_system_resource", "network_error")
"""Finish reasons of DeepSeek and Zhipu for a failure of the server."""
_UNKNOWN_FIELD = "unsupported|not supported|unrecognized|unknown|unexpected|not permitted|extra"


class OpenAIChat(Codec):
    """Chat Completions.

    `limit_field` is the field that limits the reply's length. Newer models of OpenAI and Azure
    require `max_completion_tokens`; other servers know only `max_tokens`.
    """

    protocol = "openai_chat"
    list_field = "messages"

    def __init__(self, parameters: Parameters, *, limit_field: LimitField = "max_tokens") -> None:
        super().__init__(parameters)
        self._limit_field = limit_field

    def url(self, base_url: str) -> str:
        return f"{base_url}/chat/completions"

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        p = self.parameters
        fields = {"model": p.model, self._limit_field: p.max_tokens}
        fields |= without_none(temperature=p.temperature, top_p=p.top_p)
        fields |= without_none(prompt_cache_key=p.cache_key or None)
        if p.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        if tools:
            fields["tools"] = [function_tool(spec) for spec in tools]
            # True is the default everywhere, and some servers do not know the field.
            if not p.parallel_tool_calls:
                fields["parallel_tool_calls"] = False
        return fields

    def entry(self, message: Message) -> Entry:
        if items := opaque_items(message, self.protocol):
            return Entry(message.role, items)
        return Entry(message.role, [] if is_empty(message) else [_encoded(message)])

    def decode(self, body: bytes) -> Reply:
        reply = _checked(decoded(body, _BODY))
        if not reply.choices or reply.choices[0].message is None:
            raise MalformedReplyError("The reply has no message in choices[0].")
        builder = ChatReplyBuilder()
        builder.take(reply)
        builder.take_whole(reply.choices[0].message)
        return builder.current()

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        for item, call in zip(items[0]["tool_calls"], calls, strict=True):
            item["id"] = call.id
            item["function"]["name"] = call.name

    def corrected(self, complaint: str) -> "OpenAIChat | None":
        unknown = re.search(_UNKNOWN_FIELD, complaint, re.IGNORECASE)
        if unknown is None or self._limit_field not in complaint:
            return None
        (other,) = (name for name in LIMIT_FIELDS if name != self._limit_field)
        return OpenAIChat(self.parameters, limit_field=other)

    def reply_builder(self) -> "ChatReplyBuilder":
        return ChatReplyBuilder()


class ChatReplyBuilder:
    """Builds a reply from deltas, or from one whole message."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: list[_PartialCall] = []
        self._thoughts: dict[str, Any] = {}
        self._usage: _Usage | None = None
        self._model = ""
        self._finish = ""
        self._done = False

    def add(self, event: bytes) -> None:
        if event == b"[DONE]":
            self._done = True
            return
        chunk = _checked(decoded(event, _BODY))
        self.take(chunk)
        if chunk.choices and (delta := chunk.choices[0].delta) is not None:
            self._take_contents(delta)
            for call in delta.tool_calls or ():
                self._partial(call).add(call)

    def reply(self) -> Reply:
        if not (self._done or self._finish):
            raise truncated_stream()
        return self.current()

    def take(self, body: _Body) -> None:
        """Takes all of `body` except the contents. Raises `Refused`."""
        self._usage = body.usage or self._usage
        self._model = body.model or self._model
        if body.choices:
            choice = body.choices[0]
            if choice.error is not None:
                raise _refusal(choice.error)
            self._finish = choice.finish_reason or self._finish
            if self._finish in _BROKEN:
                raise Refused(f"finish_reason {self._finish}", kind="server_error")

    def take_whole(self, message: _Message) -> None:
        self._take_contents(message)
        for call in message.tool_calls or ():
            self._calls.append(_PartialCall(None))
            self._calls[-1].add(call)

    def current(self) -> Reply:
        """The reply from the parts so far."""
        calls = tuple(call.complete() for call in self._calls)
        refusal = "".join(self._refusal)
        message = Message("assistant", "".join(self._text) or refusal, calls)
        signed = {i: call.extra for i, call in enumerate(self._calls) if call.extra}
        if calls and (signed or self._thoughts):
            # Servers that think between calls refuse the history without these fields.
            item = _encoded(message) | self._thoughts
            for index, extra in signed.items():
                item["tool_calls"][index]["extra_content"] = extra
            message = replace(message, opaque={OpenAIChat.protocol: [item]})
        reply = ended(message, _usage(self._usage), self._finish, self._model)
        return refused(reply, refusal)

    def _take_contents(self, message: _Message) -> None:
        self._text.append(_text(message))
        if message.refusal:
            self._refusal.append(message.refusal)
        for field in ("reasoning_content", "reasoning"):
            if isinstance(added := getattr(message, field), str):
                self._thoughts[field] = self._thoughts.get(field, "") + added
        if message.reasoning_details:
            _extend(self._thoughts.setdefault("reasoning_details", []), message.reasoning_details)

    def _partial(self, delta: _Call) -> "_PartialCall":
        """The call that `delta` continues, or a new one.

        A name with another id starts a call. Some servers send no index or no id, some send the
        index 0 for every call, and some send a new id with every delta.
        """
        named = delta.function is not None and bool(delta.function.name)
        same = [call for call in self._calls if call.index == delta.index]
        if not same and delta.index is None and not (named and delta.id):
            same = self._calls
        if same and not (named and same[-1].is_finished_before(delta)):
            return same[-1]
        self._calls.append(_PartialCall(delta.index))
        return self._calls[-1]


class _PartialCall:
    """A call whose arguments are still arriving."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.extra: dict[str, Any] = {}
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, delta: _Call) -> None:
        self._id = self._id or delta.id or ""
        self.extra |= delta.extra_content or {}
        function = delta.function or _Function()
        self._name = function.name or self._name
        self._arguments.append(_arguments(function))

    def is_finished_before(self, named: _Call) -> bool:
        """Whether `named`, a delta with a name, starts another call."""
        if not self._name:
            return False
        if named.id and self._id and named.id != self._id:
            return True
        # Some servers repeat the name in every delta.
        before, after = "".join(self._arguments), _arguments(named.function or _Function())
        whole = before.rstrip().endswith("}") and self.complete().malformed is None
        return whole and after != ""

    def complete(self) -> ToolCall:
        return tool_call(self._id, self._name, "".join(self._arguments))


def _encoded(message: Message) -> dict[str, Any]:
    if message.result is not None:
        result = message.result
        return {"role": "tool", "tool_call_id": result.call_id, "content": result.text}
    if not message.calls:
        return {"role": message.role, "content": message.text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for call in message.calls
    ]
    return {"role": message.role, "content": message.text or None, "tool_calls": calls}


def _checked(body: _Body) -> _Body:
    if body.error is None:
        return body
    raise _refusal(body.error)


def _refusal(error: dict[str, Any] | str) -> Refused:
    if isinstance(error, str):
        return Refused(error)
    code = error.get("code")
    return Refused(
        str(error.get("message", "")),
        kind=str(error.get("type") or code or ""),
        status=code if isinstance(code, int) else None,
    )


def _extend(details: list[dict[str, Any]], added: list[dict[str, Any]]) -> None:
    """Appends streamed pieces of thoughts. Pieces of one thought have the same type and index."""
    for piece in added:
        last = details[-1] if details else {}
        index = piece.get("index")
        if index is None or (last.get("index"), last.get("type")) != (index, piece.get("type")):
            details.append(dict(piece))
            continue
        for field, value in piece.items():
            if field in ("text", "summary", "data") and isinstance(value, str):
                last[field] = str(last.get(field) or "") + value
            elif value is not None:
                last[field] = value


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text or "" for part in message.content)
    return message.content or ""


def _arguments(function: _Function) -> str:
    if isinstance(function.arguments, dict):
        return encode_json(function.arguments).decode()
    return function.arguments or ""


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    return Usage(
        input_tokens=token_count(usage.prompt_tokens),
        output_tokens=token_count(usage.completion_tokens),
        cache_creation_input_tokens=token_count(prompt.cache_write_tokens),
        cache_read_input_tokens=token_count(prompt.cached_tokens),
        reasoning_tokens=token_count(completion.reasoning_tokens),
    )
