"""The interface of a wire protocol: functions between our records and a provider's JSON.

A codec does no I/O and has no mutable state. It encodes to plain data (`envelope`, `entry`);
`history.py` alone turns that into bytes and decides which bytes to keep.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from agent_core.config import ProviderSettings
from agent_core.encoding import encode_json
from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec
from agent_core.providers import PROVIDERS, LimitField, takes_cache_key
from agent_core.tool_names import accepted_name, is_accepted

LOCAL_ID = "local-"
"""Prefix of a call id that this agent assigned, because the provider sent none."""


class Parameters(Struct, frozen=True, kw_only=True):
    """The settings of every request in a session."""

    model: str
    max_tokens: int = 4096
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    parallel_tool_calls: bool = True
    stream: bool = False
    cache_marks: bool = True
    """Mark the ends of cached prompts, in protocols that have such marks."""
    cache_key: str = ""
    """OpenAI's `prompt_cache_key`: requests with one key go to one cache. Empty: not sent."""
    limit_field: LimitField | None = None
    context_window: int | None = None

    @classmethod
    def of(
        cls, settings: ProviderSettings, provider: str, *, prompt_cache: bool = True
    ) -> "Parameters":
        """The parameters of a new session. `provider` is a name in `PROVIDERS`."""
        names = set(cls.__struct_fields__) - {"cache_marks", "cache_key"}
        address = settings.base_url or PROVIDERS[provider].base_url or ""
        keyed = prompt_cache and takes_cache_key(address)
        return cls(
            **{name: getattr(settings, name) for name in names},
            cache_marks=prompt_cache,
            # Random, because a key must tell nothing about the task or the user.
            cache_key=f"agent-core-{os.urandom(8).hex()}" if keyed else "",
        )


class Entry(NamedTuple):
    """One message's items in the history list. There may be none."""

    role: str
    items: list[Any]


class Splitter(Protocol):
    """Splits a byte stream into events, independent of chunk boundaries."""

    def feed(self, chunk: bytes) -> list[bytes]: ...

    def end(self) -> list[bytes]:
        """The incomplete event left at the end of the stream, if any."""
        ...


class ReplyBuilder(Protocol):
    """Builds a reply from streamed events."""

    def add(self, event: bytes) -> None:
        """Raises `MalformedReplyError` and `Refused`."""
        ...

    def reply(self) -> Reply:
        """Raises `MalformedReplyError` if the stream ended too early."""
        ...


class Codec(Protocol):
    """One protocol, configured for one session."""

    protocol: ClassVar[str]
    list_field: ClassVar[str]
    """The request field with the history. It is written last."""
    grouped: ClassVar[str | None] = None
    """The field for the parts of a message, if consecutive entries of one role share a message."""
    lifts_system: ClassVar[bool] = False
    """True if system texts are in the envelope and not in the history list."""
    cache_mark: dict[str, Any] | None = None
    """The fields that mark a part as the end of a cached prompt. None: nothing is marked."""

    parameters: Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def url(self, base_url: str) -> str: ...

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]: ...

    def entry(self, message: Message) -> Entry: ...

    def takes_mark(self, part: dict[str, Any]) -> bool:
        """Whether a part of a user's message can have the `cache_mark`."""
        return True

    def decode(self, body: bytes) -> Reply:
        """Raises `MalformedReplyError` and `Refused`."""
        ...

    def splitter(self) -> Splitter:
        return ServerSentEvents()

    def reply_builder(self) -> ReplyBuilder: ...

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        """Writes the ids and names of a reply's calls into its opaque items, as far as it has."""

    def corrected(self, complaint: str) -> "Codec | None":
        """A codec without the request field that the provider's `complaint` does not know."""
        return None


class Refused(Exception):
    """The provider reports an error in a response of status 200.

    `kind` is the provider's error type and `status` its error number, if present. `WireModel`
    converts it to a `ProviderError`.
    """

    def __init__(self, detail: str, *, kind: str = "", status: int | None = None) -> None:
        self.kind = kind
        self.status = status
        super().__init__(detail)


class UnexpectedShape(MalformedReplyError):
    """A complete JSON document that is not a reply. A retry would give the same."""


class StreamDecoder:
    """Decodes a streamed body, chunk by chunk, to a reply.

    `on_event` sees each event after it was accepted.
    """

    def __init__(self, codec: Codec, on_event: Callable[[bytes], None] | None = None) -> None:
        self._splitter = codec.splitter()
        self._builder = codec.reply_builder()
        self._on_event = on_event

    def feed(self, chunk: bytes) -> None:
        """Raises `MalformedReplyError` and `Refused`."""
        for event in self._splitter.feed(chunk):
            self._builder.add(event)
            if self._on_event is not None:
                self._on_event(event)

    def finish(self) -> Reply:
        """Raises `MalformedReplyError` for a truncated body, and `Refused`."""
        for event in self._splitter.end():
            self._builder.add(event)
        return self._builder.reply()


class ServerSentEvents:
    """Joins `data:` lines up to a blank line. Ignores event names, which repeat the data."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for line in lines if (event := self._line(line.removesuffix(b"\r")))]

    def end(self) -> list[bytes]:
        # Some servers omit the last blank line. A body truncated inside its last event
        # leaves invalid JSON here, which the decoder rejects.
        return [event for event in (*self.feed(b"\n"), self._line(b"")) if event]

    def _line(self, line: bytes) -> bytes | None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            return None
        if line or not self._data:
            return None
        event = b"\n".join(self._data)
        self._data.clear()
        return event


class JsonLines:
    """One JSON document per line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        return self.feed(b"\n")


ShapeT = TypeVar("ShapeT")
_ARGUMENTS = msgspec.json.Decoder(dict[str, Any])


def decoded(body: bytes, decoder: "msgspec.json.Decoder[ShapeT]") -> ShapeT:
    """Decodes `body`. Raises `MalformedReplyError`, which quotes no content."""
    try:
        return _mended(body, decoder)
    except msgspec.ValidationError as error:
        raise UnexpectedShape(f"The reply has an unexpected shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedReplyError(
            f"The reply is not a complete JSON document ({len(body)} bytes)."
        ) from None


_SURROGATE = (
    rb"(?<!\\)(?P<before>(?:\\\\)*)"
    rb"(?:(?P<pair>\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w)|\\u[dD][89a-fA-F]\w\w)"
)


def _mended(text: bytes, decoder: "msgspec.json.Decoder[ShapeT]") -> ShapeT:
    """Decodes `text`. An escape for half a character becomes U+FFFD.

    Some servers cut a reply between the two halves of a character.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = re.sub(
            _SURROGATE,
            lambda found: found[0] if found["pair"] else found["before"] + b"\\ufffd",
            text,
        )
        if mended == text:
            raise
        return decoder.decode(mended)


TokenCount = int | float | None
"""Some providers send 12.0."""


def token_count(tokens: TokenCount) -> int:
    """0 if the provider sent no count."""
    return int(tokens or 0)


def truncated_stream() -> MalformedReplyError:
    """The error for a stream that ended before the protocol's end marker."""
    return MalformedReplyError("The stream ended before the reply was complete.")


class CallIds:
    """Gives a session's calls ids and names that a provider accepts in a history.

    It refuses an id that occurs twice, and a name such as `functions.bash`.
    """

    def __init__(self) -> None:
        self._assigned = 0
        self._seen: dict[str, int] = {}
        """The number of calls that came with each id."""

    def assign(self, reply: Reply, codec: Codec, tools: Sequence[ToolSpec] = ()) -> Reply:
        """`reply` with an id of its own for each call, and a name, of `tools` if it means one."""
        message, given = reply.message, [call.id for call in reply.message.calls]
        ids = self._unique(given)
        if ids is given and all(is_accepted(call.name) for call in message.calls):
            return reply
        known = [tool.name for tool in tools]
        calls = tuple(
            replace(call, id=call_id, name=accepted_name(call.name, known))
            for call, call_id in zip(message.calls, ids, strict=True)
        )
        if items := opaque_items(message, codec.protocol):
            codec.identify_calls(items, calls)
        return replace(reply, message=replace(message, calls=calls))

    def _unique(self, given: list[str]) -> list[str]:
        if all(given) and len(set(given)) == len(given) and self._seen.keys().isdisjoint(given):
            self._seen.update(dict.fromkeys(given, 1))
            return given
        return [self._new(call_id) for call_id in given]

    def _new(self, given: str) -> str:
        """`given`, or another id if it is empty or taken."""
        self._assigned += not given
        base = call_id = given or f"{LOCAL_ID}{self._assigned}"
        while call_id in self._seen:
            self._seen[base] += 1
            call_id = f"{base}-{self._seen[base]}"
        self._seen[call_id] = 1
        return call_id


def function_tool(spec: ToolSpec) -> dict[str, Any]:
    """A tool in the format of Chat Completions and Ollama."""
    return {"type": "function", "function": asdict(spec)}


def tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """A call whose arguments arrived as text. An empty text and null are an empty object."""
    if arguments.strip() in ("", "null"):
        return ToolCall(call_id, name, {})
    try:
        return ToolCall(call_id, name, _mended(arguments.encode(), _ARGUMENTS))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ToolCall(call_id, name, {}, malformed=arguments)


def arguments_text(call: ToolCall) -> str:
    """The arguments as JSON text. Some servers parse it, so it is valid in any case."""
    return encode_json(arguments_object(call)).decode()


def arguments_object(call: ToolCall) -> dict[str, Any]:
    """The arguments as an object, which shows the model what it wrote if that was none."""
    return call.arguments if call.malformed is None else {"INVALID_JSON": call.malformed}


def is_empty(message: Message) -> bool:
    """Whether this is an answer of the model without anything. Providers refuse it in a history."""
    return message.role == "assistant" and not message.calls and not message.text.strip()


def opaque_items(message: Message, protocol: str) -> list[Any] | None:
    """The items to send back to `protocol` unchanged. They replace the whole message.

    A copy of a message with other contents must not copy `opaque`.
    """
    return message.opaque.get(protocol) if message.opaque else None


def without_none(**fields: Any) -> dict[str, Any]:
    """`fields` without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}
