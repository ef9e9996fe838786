"""Google's generateContent protocol."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec, Usage
from agent_core.models.codec import (
    LOCAL_ID,
    Codec,
    Entry,
    Refused,
    TokenCount,
    arguments_object,
    decoded,
    opaque_items,
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)
from agent_core.models.endings import ended

_VERSION = re.compile(r"/v\d\w*$")


class _Content(Struct, rename="camel"):
    parts: list[dict[str, Any]] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _Usage(Struct, rename="camel"):
    prompt_token_count: TokenCount = None
    candidates_token_count: TokenCount = None
    cached_content_token_count: TokenCount = None
    thoughts_token_count: TokenCount = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Error(Struct, rename="camel"):
    code: int | None = None
    message: str = ""
    status: str = ""


class _Body(Struct, rename="camel"):
    """A whole reply, or one chunk of a streamed one: both have the same shape."""

    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    prompt_feedback: _Feedback | None = None
    error: _Error | None = None


_BODY = msgspec.json.Decoder(_Body)


class Gemini(Codec):
    """generateContent: parts under a role. A result refers to its call by name, and by id if the
    provider sent one.
    """

    protocol = "gemini"
    list_field = "contents"
    grouped = "parts"
    lifts_system = True

    def url(self, base_url: str) -> str:
        root = base_url if _VERSION.search(base_url) else f"{base_url}/v1beta"
        method = "streamGenerateContent?alt=sse" if self.parameters.stream else "generateContent"
        return f"{root}/models/{self.parameters.model}:{method}"

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        p = self.parameters
        fields: dict[str, Any] = {}
        if system:
            fields["systemInstruction"] = {"parts": [{"text": text} for text in system]}
        if tools:
            declarations = [
                {
                    "name": spec.name,
                    "description": spec.description,
                    "parametersJsonSchema": spec.parameters,
                }
                for spec in tools
            ]
            fields["tools"] = [{"functionDeclarations": declarations}]
        fields["generationConfig"] = without_none(
            maxOutputTokens=p.max_tokens,
            temperature=p.temperature,
            topP=p.top_p,
            topK=p.top_k or None,
        )
        return fields

    def entry(self, message: Message) -> Entry:
        if message.role == "system":
            return Entry("", [])
        if message.role == "assistant":
            return Entry("model", opaque_items(message, self.protocol) or _parts(message))
        return Entry("user", _parts(message))

    def decode(self, body: bytes) -> Reply:
        builder = GeminiReplyBuilder()
        builder.add(body)
        if builder.empty:
            raise MalformedReplyError("The reply has no candidates.")
        return builder.current()

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        parts = (part["functionCall"] for part in items if "functionCall" in part)
        for part, call in zip(parts, calls, strict=True):
            part.update(_id_field(call.id), name=call.name)

    def reply_builder(self) -> "GeminiReplyBuilder":
        return GeminiReplyBuilder()


class GeminiReplyBuilder:
    """Builds a reply from chunks: parts are appended, counts are totals."""

    def __init__(self) -> None:
        self.empty = True
        self._parts: list[dict[str, Any]] = []
        self._usage = _Usage()
        self._model = ""
        self._finish = ""
        self._explanation = ""

    def add(self, event: bytes) -> None:
        chunk = decoded(event, _BODY)
        if chunk.error is not None:
            raise Refused(chunk.error.message, kind=chunk.error.status, status=chunk.error.code)
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason:
            reason = ": ".join(
                text for text in (feedback.block_reason, feedback.block_reason_message) if text
            )
            raise Refused(f"the prompt was blocked: {reason}", status=400)
        self._usage = chunk.usage_metadata or self._usage
        self._model = chunk.model_version or self._model
        if chunk.candidates:
            self.empty = False
            candidate = chunk.candidates[0]
            self._finish = candidate.finish_reason or self._finish
            self._explanation = candidate.finish_message or self._explanation
            self._parts += (candidate.content or _Content()).parts or []

    def reply(self) -> Reply:
        if not self._finish:
            raise truncated_stream()
        return self.current()

    def current(self) -> Reply:
        """The reply from the chunks so far."""
        texts = [
            str(part.get("text") or "")
            for part in self._parts
            if "functionCall" not in part and not part.get("thought")
        ]
        calls = tuple(_call(part["functionCall"]) for part in self._parts if "functionCall" in part)
        # A signature must be sent back in the same part. A part without anything is refused.
        kept = [part for part in self._parts if part.get("text") != "" or len(part) > 1]
        signed = any("thoughtSignature" in part for part in kept)
        opaque = {Gemini.protocol: kept} if signed else None
        message = Message("assistant", "".join(texts), calls, opaque=opaque)
        return ended(message, _usage(self._usage), self._finish, self._model, self._explanation)


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.result is not None:
        result = message.result
        field = "output" if result.ok else "error"
        response = {"name": result.name, "response": {field: result.text}}
        return [{"functionResponse": _id_field(result.call_id) | response}]
    parts: list[dict[str, Any]] = [{"text": message.text}] if message.text.strip() else []
    for call in message.calls:
        function = {"name": call.name, "args": arguments_object(call)}
        parts.append({"functionCall": _id_field(call.id) | function})
    return parts


def _id_field(call_id: str) -> dict[str, Any]:
    return {} if call_id.startswith(LOCAL_ID) or not call_id else {"id": call_id}


def _call(call: Any) -> ToolCall:
    if not isinstance(call, dict):
        raise MalformedReplyError("A functionCall is not an object.")
    call_id, name = str(call.get("id") or ""), str(call.get("name") or "")
    arguments = call.get("args")
    if arguments is None or isinstance(arguments, dict):
        return ToolCall(call_id, name, arguments or {})
    return tool_call(call_id, name, msgspec.json.encode(arguments).decode())


def _usage(usage: _Usage) -> Usage:
    return Usage(
        input_tokens=token_count(usage.prompt_token_count),
        # Thoughts are billed as output, but the candidates' count excludes them.
        output_tokens=token_count(usage.candidates_token_count)
        + token_count(usage.thoughts_token_count),
        cache_read_input_tokens=token_count(usage.cached_content_token_count),
        reasoning_tokens=token_count(usage.thoughts_token_count),
    )
