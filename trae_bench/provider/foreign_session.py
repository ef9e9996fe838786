"""A session for an agent that is not made for the scripted provider.

Its client may use any spelling of the base URL, ask for streamed or complete replies, list
models, count tokens, ask for titles, compress its requests and repeat them. Standard library
only, because the server imports it.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from trae_bench.provider.conversations import History, continued, history_of, joined
from trae_bench.provider.http1_parser import BadRequest, Request
from trae_bench.provider.responses import Response, rejection
from trae_bench.provider.routes import Route, clean_path, find_route, relative_path, wants_stream
from trae_bench.provider.sessions import (
    SCRIPT_ENDED,
    WRONG_METHOD,
    Fault,
    NotedRequest,
    Session,
    wrong_path,
)
from trae_bench.provider.side_calls import side_answer
from trae_bench.provider.usage import filled, tokens_of

MAX_DECODED = 64 * 1024 * 1024
"""Maximum bytes of a decompressed body."""
MAX_FIRST_BODY = 4 * 1024 * 1024
"""Bytes of the first request's body that are kept."""
MAX_AGAIN = 5
"""Times that the last turn is played again where it answers every request."""
_MAX_USER_AGENT = 200
_MAX_PATH = 2_000
_ZLIB = 15
_GZIP = 31
_RAW_DEFLATE = -15


@dataclass(slots=True)
class _Conversation:
    """The state of one conversation."""

    prompt: str
    next: int
    """Index of the next turn."""
    end: int
    turn_body: bytes | None = None
    """Body of the last request that got a turn."""
    last_body: bytes = b""
    digests: bytes = b""
    """History of the last request that got a turn."""

    @property
    def has_begun(self) -> bool:
        return self.turn_body is not None


def _conversations(parts: Sequence[tuple[str, int]]) -> list[_Conversation]:
    ends = tuple(accumulate(turns for _, turns in parts))
    return [
        _Conversation(prompt, end - turns, end)
        for (prompt, turns), end in zip(parts, ends, strict=True)
    ]


@dataclass(slots=True)
class Encoding:
    """The replies of a script in one protocol. Index 0: complete, 1: streamed."""

    replies: tuple[list[Response], list[Response]]
    side: tuple[Response, Response]
    """The reply to a request beside the conversation, for example for a title."""


class ForeignSession(Session):
    """The state of one script that a foreign agent plays."""

    def __init__(
        self,
        protocol: str,
        encodings: Mapping[str, Encoding],
        faults: Mapping[int, Fault] | None = None,
        pressure: Sequence[str] = (),
        *,
        again: bool = False,
        has_tools: bool = False,
        conversations: Sequence[tuple[str, int]] = (),
    ) -> None:
        """`conversations` has the first prompt and the number of turns of each, if several."""
        super().__init__(protocol, b"", encodings[protocol].replies[0], faults, pressure)
        self._encodings = encodings
        self._again = again
        """The last turn is played up to `MAX_AGAIN` times again, and no request is beside the
        conversation."""
        self._has_tools = has_tools
        """Requests of the conversation offer tools."""
        self._first_has_tools = False
        total = len(encodings[protocol].replies[0])
        self._conversations = _conversations(conversations or [("", total)])

    def respond(self, request: Request) -> Response:
        """Return the response to a request, and advance the script if it takes a turn."""
        path = relative_path(request.path)
        side = side_answer(request.method, path, request.headers)
        if side is not None:
            self.side_calls += 1
            return side
        if request.method != b"POST":
            return self.reject(request, WRONG_METHOD)
        route = find_route(path)
        if route is None or route.protocol not in self._encodings:
            return self.reject(request, wrong_path(self.protocol, path))
        try:
            body = decoded(request.body, request.headers.get(b"content-encoding", b""))
            asked = _json_object(body)
        except BadRequest as error:
            return self.reject(request, rejection(error.status, error.reason))
        return self._answer(request, route, body, asked)

    @property
    def turn(self) -> int:
        """Number of the turn that the last request got, from 1."""
        return self._conversations[self.conversation].next

    def account(self) -> tuple[dict[str, Any], list[bytes]]:
        """With several conversations, the last body is an array of the last one of each."""
        data, (last, *others) = super().account()
        if len(self._conversations) > 1:
            last = joined([one.last_body for one in self._conversations])
        return data, [last, *others]

    def _answer(
        self, request: Request, route: Route, body: bytes, asked: dict[str, Any]
    ) -> Response:
        encoding, streamed = self._encodings[route.protocol], wants_stream(route, asked)
        has_tools = bool(asked.get("tools") or asked.get("functions"))
        if self._has_tools and not has_tools and not self._again:
            self.side_calls += 1
            return filled(encoding.side[streamed], tokens_of(body), 0)
        self._has_tools = self._has_tools or has_tools
        self._note_first(request, body, has_tools)
        history = None
        if len(self._conversations) > 1:
            history = history_of(route.protocol, asked)
        self.conversation = self._number(history, body)
        chosen = self._conversations[self.conversation]
        chosen.last_body = body
        self.last_body = body
        return self._turn(request, encoding.replies[streamed], chosen, history)

    def _turn(
        self,
        request: Request,
        replies: Sequence[Response],
        chosen: _Conversation,
        history: History | None,
    ) -> Response:
        """Return the next reply of a conversation."""
        if self._again and self.played == len(replies):
            # An agent that ends only by a tool would ask for ever.
            self.repeats += 1
            ended = self.repeats > MAX_AGAIN
            if ended:
                return self.reject(request, SCRIPT_ENDED)
            return self.counted(replies[-1], chosen.last_body)
        if chosen.last_body == chosen.turn_body:
            self.repeats += 1
            return self.counted(replies[chosen.next - 1], chosen.last_body)
        if chosen.next == chosen.end:
            return self.reject(request, SCRIPT_ENDED)
        before = self.played
        response = self.play(replies[chosen.next], chosen.last_body)
        if self.played > before:
            chosen.next += 1
            chosen.turn_body = chosen.last_body
            chosen.digests = b"" if history is None else history.digests
        return response

    def _number(self, history: History | None, body: bytes) -> int:
        """Return the number of the conversation that a request belongs to; 0 is the main one."""
        if history is None:
            return 0
        known = list(enumerate(self._conversations))
        begun = [number for number, one in known if one.has_begun]
        if history.begins or not begun:
            # The main conversation has no prompt and is the first that waits.
            waiting = [number for number, one in known if not one.has_begun]
            asked = [number for number in waiting if known[number][1].prompt == history.prompt]
            repeated = [number for number, one in known if one.turn_body == body]
            return next(chain(asked, repeated, waiting), 0)
        # Conversations with one prompt part with the ids of the calls in their first reply.
        named = [number for number in begun if b'"call_%05d_' % known[number][1].next in body]
        begun = named or begun
        return begun[continued(history, [known[number][1].digests for number in begun])]

    def _note_first(self, request: Request, body: bytes, has_tools: bool) -> None:
        """Keep the first request. One with tools replaces one without, such as for a title."""
        if self.first_request is not None and (self._first_has_tools or not has_tools):
            return
        self._first_has_tools = has_tools
        agent = request.headers.get(b"user-agent", b"").decode("ascii", "backslashreplace")
        self.first_request = NotedRequest(
            request.method.decode(),
            clean_path(relative_path(request.path))[:_MAX_PATH],
            body[:MAX_FIRST_BODY],
            agent[:_MAX_USER_AGENT],
        )


def decoded(body: bytes, coding: bytes) -> bytes:
    """Return a body without its Content-Encoding.

    Raises `BadRequest` if the encoding is not gzip or deflate, and if the data is damaged or
    larger than `MAX_DECODED`.
    """
    coding = coding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding in (b"gzip", b"x-gzip"):
        return _inflated(body, _GZIP)
    if coding != b"deflate":
        name = coding[:40].decode("ascii", "backslashreplace")
        raise BadRequest(415, f"Content-Encoding {name} is not supported; use gzip or none")
    # Some clients send deflate data without the zlib header. The header's check bits tell.
    zlib_header = len(body) > 1 and body[0] & 15 == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return _inflated(body, _ZLIB if zlib_header else _RAW_DEFLATE)


def _inflated(body: bytes, window: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        data = inflater.decompress(body, MAX_DECODED)
    except zlib.error as error:
        raise BadRequest(400, f"the compressed body is damaged: {error}") from error
    if inflater.unconsumed_tail:
        raise BadRequest(413, "the decompressed body is too long")
    if not inflater.eof or inflater.unused_data:
        raise BadRequest(400, "the compressed body is incomplete, or more data follows it")
    return data


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(400, "the body is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest(400, "the body is not a JSON object")
    return value
