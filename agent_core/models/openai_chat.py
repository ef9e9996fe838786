"""OpenAI's Chat Completions, also used by Azure, OpenRouter, Doubao and many local servers."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

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
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)


class _Function(Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(Struct):
    id: str | None = None
    index: int | None = None
    function: _Function | None = None


class _Part(Struct):
    text: str | None = None


class _Message(Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


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


class OpenAIChat(Codec):
    """Chat Completions.

    `limit_field` is the field that limits the reply's length. Newer models of OpenAI and Azure
    require `max_completion_tokens`; other servers know only `max_tokens`.
    """

    protocol = "openai_chat"
    list_field = "messages"

    def __init__(self, parameters: Parameters, *, limit_field: str = "max_tokens") -> None:
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
        return Entry(message.role, [_encoded(message)])

    def decode(self, body: bytes) -> Reply:
        reply = _checked(decoded(body, _BODY))
        if not reply.choices or reply.choices[0].message is None:
            raise MalformedReplyError("The reply has no message in choices[0].")
        choice, message = reply.choices[0], reply.choices[0].message
        calls = tuple(_complete(call) for call in message.tool_calls or ())
        return Reply(
            Message("assistant", _text(message), calls),
            _usage(reply.usage),
            choice.finish_reason or "",
            reply.model or "",
        )

    def reply_builder(self) -> "ChatReplyBuilder":
        return ChatReplyBuilder()


class ChatReplyBuilder:
    """Builds a reply from deltas."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: list[_PartialCall] = []
        self._usage: _Usage | None = None
        self._model = ""
        self._finish = ""
        self._done = False

    def add(self, event: bytes) -> None:
        if event == b"[DONE]":
            self._done = True
            return
        chunk = _checked(decoded(event, _BODY))
        self._usage = chunk.usage or self._usage
        self._model = chunk.model or self._model
        if chunk.choices:
            choice = chunk.choices[0]
            self._finish = choice.finish_reason or self._finish
            if choice.delta is not None:
                self._text.append(_text(choice.delta))
                for call in choice.delta.tool_calls or ():
                    self._partial(call).add(call)

    def reply(self) -> Reply:
        if not (self._done or self._finish):
            raise truncated_stream()
        calls = tuple(call.complete() for call in self._calls)
        message = Message("assistant", "".join(self._text), calls)
        return Reply(message, _usage(self._usage), self._finish, self._model)

    def _partial(self, delta: _Call) -> "_PartialCall":
        """The call that `delta` continues, or a new one.

        An id starts a call and its index continues it. Some servers send no index, and some send
        index 0 for every call.
        """
        same = [call for call in self._calls if call.index == delta.index]
        if same and (not delta.id or same[-1].id in ("", delta.id)):
            return same[-1]
        if delta.index is None and not delta.id and self._calls:
            return self._calls[-1]
        self._calls.append(_PartialCall(delta.index))
        return self._calls[-1]


class _PartialCall:
    """A call whose arguments are still arriving."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, delta: _Call) -> None:
        self.id = delta.id or self.id
        function = delta.function or _Function()
        self._name = function.name or self._name
        self._arguments.append(_arguments(function))

    def complete(self) -> ToolCall:
        return tool_call(self.id, self._name, "".join(self._arguments))


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
    if isinstance(body.error, str):
        raise Refused(body.error)
    code = body.error.get("code")
    raise Refused(
        str(body.error.get("message", "")),
        kind=str(body.error.get("type") or code or ""),
        status=code if isinstance(code, int) else None,
    )


def _text(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text or "" for part in message.content)
    return message.content or message.refusal or ""


def _arguments(function: _Function) -> str:
    if isinstance(function.arguments, dict):
        return encode_json(function.arguments).decode()
    return function.arguments or ""


def _complete(call: _Call) -> ToolCall:
    function = call.function or _Function()
    return tool_call(call.id or "", function.name or "", _arguments(function))


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
