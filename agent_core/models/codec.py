"""What a wire protocol is: pure functions between our records and a provider's JSON.

A codec does no I/O and keeps no state. Encoding goes through plain data (`envelope`,
`entry`), so that `history.py` alone decides when bytes are made and which are kept.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from agent_core.config import ProviderSettings
from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec

LOCAL_ID = "local-"
"""How the id of a call begins that the provider did not name itself."""


class Parameters(Struct, frozen=True, kw_only=True):
    """What every request of a session says besides its history."""

    model: str
    max_tokens: int = 4096
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    parallel_tool_calls: bool = True
    stream: bool = False

    @classmethod
    def of(cls, settings: ProviderSettings) -> "Parameters":
        """What the settings say of it."""
        return cls(**{name: getattr(settings, name) for name in cls.__struct_fields__})


class Entry(NamedTuple):
    """One message's share of the history list; no items where it has none."""

    role: str
    items: list[Any]


class Splitter(Protocol):
    """Cuts a byte stream into events, wherever the chunks end."""

    def feed(self, chunk: bytes) -> list[bytes]: ...

    def end(self) -> list[bytes]:
        """What was still waiting for its end when the stream closed."""
        ...


class Fold(Protocol):
    """Puts a streamed reply together."""

    def add(self, event: bytes) -> None:
        """Raises `MalformedReplyError` and `Refused`."""
        ...

    def reply(self) -> Reply:
        """Raises `MalformedReplyError` where the stream stopped before its end."""
        ...


class Codec(Protocol):
    """One protocol, set up for one session."""

    protocol: ClassVar[str]
    list_field: ClassVar[str]
    """The request's field that holds the history; it is written last."""
    grouped: ClassVar[str | None]
    """Where neighbours of one role share a message: the field that holds its parts."""
    lifts_system: ClassVar[bool]
    """True where system texts stand in the envelope and not in the history list."""

    @property
    def parameters(self) -> Parameters: ...

    def url(self, base_url: str) -> str: ...

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]: ...

    def entry(self, message: Message) -> Entry: ...

    def decode(self, body: bytes) -> Reply:
        """Raises `MalformedReplyError` and `Refused`."""
        ...

    def splitter(self) -> Splitter: ...

    def fold(self) -> Fold: ...


class Refused(Exception):
    """The provider says no inside an answer of status 200; `WireModel` turns it into an error.

    `kind` is the provider's own word for what is wrong, `status` its number, where given.
    """

    def __init__(self, detail: str, *, kind: str = "", status: int | None = None) -> None:
        self.kind = kind
        self.status = status
        super().__init__(detail)


class UnexpectedShape(MalformedReplyError):
    """A whole JSON document that is no reply; asked again, the provider would say it again."""


class StreamDecoder:
    """A streamed body, chunk by chunk, to a reply."""

    def __init__(self, codec: Codec) -> None:
        self._splitter = codec.splitter()
        self._fold = codec.fold()

    def feed(self, chunk: bytes) -> None:
        """Raises `MalformedReplyError` and `Refused`."""
        for event in self._splitter.feed(chunk):
            self._fold.add(event)

    def finish(self) -> Reply:
        """Raises `MalformedReplyError` where the body was cut, and `Refused`."""
        for event in self._splitter.end():
            self._fold.add(event)
        return self._fold.reply()


class ServerSentEvents:
    """`data:` lines, joined up to a blank line. Event names repeat what the data says."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for line in lines if (event := self._line(line.removesuffix(b"\r")))]

    def end(self) -> list[bytes]:
        # Some servers leave out the last blank line; a body cut inside its last event
        # leaves no valid JSON there and is found out by its reader.
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
    """One JSON document a line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [line for line in lines if line.strip()]

    def end(self) -> list[bytes]:
        return self.feed(b"\n")


ShapeT = TypeVar("ShapeT")


def decoded(body: bytes, decoder: "msgspec.json.Decoder[ShapeT]") -> ShapeT:
    """`body` as the decoder's type. Raises `MalformedReplyError`, which quotes no content."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise UnexpectedShape(f"The reply has an unexpected shape: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedReplyError(
            f"The reply is no complete JSON document ({len(body)} bytes)."
        ) from None


TokenCount = int | float | None
"""As providers write it; some write 12.0."""


def token_count(tokens: TokenCount) -> int:
    """Zero where the provider said nothing."""
    return int(tokens or 0)


def truncated_stream() -> MalformedReplyError:
    """The error for a stream that stopped before the protocol's own end."""
    return MalformedReplyError("The stream was cut before the reply was complete.")


class CallIds:
    """Names the calls that a provider left nameless: unique in one session."""

    def __init__(self) -> None:
        self._given = 0

    def given(self, reply: Reply) -> Reply:
        """`reply`, each call of it with an id."""
        if all(call.id for call in reply.message.calls):
            return reply
        calls = []
        for call in reply.message.calls:
            self._given += not call.id
            calls.append(replace(call, id=call.id or f"{LOCAL_ID}{self._given}"))
        return replace(reply, message=replace(reply.message, calls=tuple(calls)))


def function_tool(spec: ToolSpec) -> dict[str, Any]:
    """A tool as Chat Completions names it, and Ollama after it."""
    function = {
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters,
    }
    return {"type": "function", "function": function}


def tool_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """A call from arguments that came as text; none at all stand for an empty object."""
    if not arguments.strip():
        return ToolCall(call_id, name, {})
    try:
        return ToolCall(call_id, name, msgspec.json.decode(arguments, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ToolCall(call_id, name, {}, malformed=arguments)


def arguments_object(call: ToolCall) -> dict[str, Any]:
    """The arguments as an object, for protocols that take nothing else."""
    return call.arguments if call.malformed is None else {"INVALID_JSON": call.malformed}


def opaque_items(message: Message, protocol: str) -> list[Any] | None:
    """The items that `protocol` wants back as it sent them.

    They stand for the whole message; who edits a message leaves its `opaque` behind.
    """
    return message.opaque.get(protocol) if message.opaque else None


def without_none(**fields: Any) -> dict[str, Any]:
    """`fields` that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
