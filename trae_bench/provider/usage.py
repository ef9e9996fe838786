"""Token counts in scripted replies: an estimate from the requests' bytes. Standard library only.

Replies are encoded before the session starts. They have placeholders of ten digits, which are
replaced by numbers of the same width, so that no length in a reply changes. The estimate takes a
few microseconds, because it does not parse a request. `prompt.cache_rules` counts exactly, after
the session.
"""

import re
from dataclasses import replace

from trae_bench._util.common_prefix import common_prefix
from trae_bench.provider.responses import Response

INPUT, CACHED = 7_700_000_000, 5_500_000_000
"""Placeholders in encoded replies: of input tokens, to which a reply may add its output tokens, and
of cached tokens. Their difference stands for input that is not cached."""
_FIELDS = (
    b"prompt_tokens|total_tokens|cached_tokens|input_tokens|cache_read_input_tokens"
    b"|promptTokenCount|cachedContentTokenCount|totalTokenCount|prompt_eval_count"
)
_PLACEHOLDER = re.compile(
    # The quotes are escaped in arguments that are text. So a number of a script stays.
    rb'(?<=[{,])("(?:%s)":)(77\d{8}|%d|%d)(?=[,}])' % (_FIELDS, CACHED, INPUT - CACHED)
)
_BYTES_PER_TOKEN = 4
"""As `prompt.tokens.BYTES_PER_TOKEN`; the server does not import that module."""
_MAX_TAIL = 8_192
"""Bytes at the end of two bodies that are compared if a history does not just grow."""
_MARK = b'"cache_control"'
_MARKED_REQUESTS = 3
"""First requests of a session in which marks are searched. The search takes 1 ms for a megabyte."""
_MINIMUM = {"gemini": 4096, "ollama_chat": 1}
_OTHER_MINIMUM = 1024
_STEP = {"openai_chat": 128, "openai_responses": 128}


class UsageEstimate:
    """Estimates the tokens of one session's requests, and how many a cache would give."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._last = b""
        self._tail = 0
        """Bytes after what the last two bodies begin with in common."""
        self._is_marked = protocol != "anthropic_messages"
        """A request has asked for a cache entry, or need not ask."""
        self._requests = 0

    def add(self, body: bytes) -> tuple[int, int]:
        """Return the tokens of a request, and those of them that come from the cache."""
        common = self._common(body)
        rest, tail = body[common:], self._last[common:]
        self._requests += 1
        if not self._is_marked and self._requests <= _MARKED_REQUESTS:
            self._is_marked = _MARK in rest
        cached = (common + _same_end(tail, rest)) // _BYTES_PER_TOKEN
        self._last, self._tail = body, len(tail)
        step = _STEP.get(self._protocol, 1)
        cached = cached // step * step
        enough = cached >= _MINIMUM.get(self._protocol, _OTHER_MINIMUM)
        return tokens_of(body), cached if enough and self._is_marked else 0

    def _common(self, body: bytes) -> int:
        """Return the bytes with which this body and the last one begin."""
        # A history that grows has a tail of the same length each time. One comparison confirms it.
        last, known = self._last, max(0, len(self._last) - self._tail)
        if not body.startswith(memoryview(last)[:known]):
            return common_prefix(last, body)
        if last[known : known + 1] != body[known : known + 1]:
            return known
        return known + common_prefix(last[known:], body[known:])


def _same_end(one: bytes, other: bytes) -> int:
    """Return the bytes with which both end."""
    if other.endswith(one):
        return len(one)
    return common_prefix(one[-_MAX_TAIL:][::-1], other[-_MAX_TAIL:][::-1])


def tokens_of(body: bytes) -> int:
    """Return the estimated tokens of a request."""
    return -(-len(body) // _BYTES_PER_TOKEN)


class UsageSlots:
    """The placeholders of a reply."""

    __slots__ = ("_body", "_chunks")

    def __init__(self, response: Response) -> None:
        self._chunks = _split(response.chunks)
        self._body = _split(response.body)

    def filled(self, response: Response, tokens: int, cached: int) -> Response:
        """Return the response with these counts in its placeholders."""
        # `dataclasses.replace` takes three times as long, and the reply waits for it.
        return Response(
            response.status,
            _fill(response.chunks, self._chunks, tokens, cached),
            headers=response.headers,
            body=_fill(response.body, self._body, tokens, cached),
            delay=response.delay,
            gap=response.gap,
            ending=response.ending,
            calls=response.calls,
            side=response.side,
        )


def with_slots(response: Response) -> Response:
    """Return a reply that knows its placeholders."""
    return replace(response, usage=UsageSlots(response))


def filled(response: Response, tokens: int, cached: int) -> Response:
    """Return a response with these counts, if it has placeholders for them."""
    return response if response.usage is None else response.usage.filled(response, tokens, cached)


_Pieces = tuple[bytes, tuple[int, ...]]
"""A chunk with `%10d` in place of each placeholder, and the placeholders."""


def _split(chunks: tuple[bytes, ...]) -> dict[int, _Pieces]:
    """Return the pieces of each chunk that has placeholders."""
    found = {}
    for number, chunk in enumerate(chunks):
        values = tuple(int(value) for _, value in _PLACEHOLDER.findall(chunk))
        if values:
            found[number] = _PLACEHOLDER.sub(rb"\1%10d", chunk.replace(b"%", b"%%")), values
    return found


def _fill(
    chunks: tuple[bytes, ...], found: dict[int, _Pieces], tokens: int, cached: int
) -> tuple[bytes, ...]:
    made = list(chunks)
    for number, (template, values) in found.items():
        made[number] = template % tuple(_count(value, tokens, cached) for value in values)
    return tuple(made)


def _count(placeholder: int, tokens: int, cached: int) -> int:
    if placeholder == CACHED:
        return cached
    if placeholder == INPUT - CACHED:
        return tokens - cached
    return tokens + placeholder - INPUT
