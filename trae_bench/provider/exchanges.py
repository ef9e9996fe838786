"""Requests to a real provider with their replies, and the session that they form."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench.provider.protocols.replies import ReplyError, decode_reply
from trae_bench.provider.protocols.requests import RequestFacts, read_request
from trae_bench.scenario import Protocol
from trae_bench.scenario.importers.session import RecordedCall, RecordedReply, RecordedSession

_OK = range(200, 300)


class Exchange(Struct, frozen=True):
    """One model request and its reply, without their bytes."""

    facts: RequestFacts
    digest: bytes
    """Digest of the request's body."""
    prompt: str
    """First message of the user."""
    status: int
    """Status of the reply; 0 if there was none."""
    reply: RecordedReply | None = None
    problem: str = ""
    """Why there is no reply."""
    body: bytes = b""
    """The request's body; empty if a later request contains it."""


def exchange_of(path: str, body: bytes, status: int, reply: bytes) -> Exchange | None:
    """Return the exchange of a request. None if it is no model request.

    Neither body is compressed.
    """
    facts = read_request(path, body)
    if facts is None:
        return None
    digest, prompt = hashlib.sha256(body).digest(), first_prompt(facts.protocol, body)
    if status not in _OK:
        return Exchange(facts, digest, prompt, status, problem=f"status {status}")
    try:
        decoded = decode_reply(facts.protocol, reply)
    except ReplyError as error:
        return Exchange(facts, digest, prompt, status, problem=str(error))
    return Exchange(facts, digest, prompt, status, decoded, body=body)


def session_of(
    exchanges: Iterable[Exchange], source: str, *, agent: str = "", task: str = ""
) -> RecordedSession:
    """Return the session of these exchanges, which are in the order of the requests.

    Requests of another protocol, requests without tools in a session with tools, failed requests
    and repeated ones take no turn.
    """
    exchanges = tuple(exchanges)
    main = next((one for one in exchanges if one.facts.tools), None) or next(iter(exchanges), None)
    if main is None:
        return RecordedSession(source, ())
    turns, notes = _turns(exchanges, main)
    replies, more = _playable([one.reply for one in turns if one.reply is not None])
    return RecordedSession(
        source=source,
        replies=replies,
        task=task or main.prompt,
        agent=agent,
        protocol=main.facts.protocol,
        stream=main.facts.stream,
        model=main.facts.model,
        tools=main.facts.tools,
        final_text=replies[-1].text if replies else "",
        last_request=turns[-1].body.decode(errors="replace") if turns else "",
        notes=(*notes, *more),
    )


def _playable(
    replies: Sequence[RecordedReply],
) -> tuple[tuple[RecordedReply, ...], list[str]]:
    """Replace arguments that are not a JSON object, which a script cannot send."""
    playable, notes = [], []
    for number, reply in enumerate(replies, 1):
        calls = []
        for call in reply.calls:
            if isinstance(call.arguments, str):
                notes.append(
                    f"reply {number}: the arguments of {call.name} are not a JSON object; the "
                    "script sends an empty one"
                )
                call = RecordedCall(call.name)
            calls.append(call)
        playable.append(RecordedReply(reply.text, tuple(calls)))
    return tuple(playable), notes


def _turns(exchanges: Sequence[Exchange], main: Exchange) -> tuple[list[Exchange], list[str]]:
    turns: list[Exchange] = []
    left_out: Counter[str] = Counter()
    for one in exchanges:
        if one.facts.protocol != main.facts.protocol:
            left_out[f"used {one.facts.protocol}"] += 1
        elif main.facts.tools and not one.facts.tools:
            left_out["offered no tools, as requests for a title do"] += 1
        elif one.reply is None:
            left_out[f"got no reply ({one.problem})"] += 1
        elif turns and turns[-1].digest == one.digest:
            # The client asked again; it used the later reply.
            left_out["repeated the request before it"] += 1
            turns[-1] = one
        else:
            turns.append(one)
    notes = [
        f"{count} request{'s' * (count > 1)} {why}: no turn" for why, count in left_out.items()
    ]
    return turns, notes


_HISTORY: dict[Protocol, str] = {"openai_responses": "input", "gemini": "contents"}


def first_prompt(protocol: Protocol, body: bytes) -> str:
    """Return the text of the user's first message. Empty if there is none."""
    request = msgspec.json.decode(body)
    history = request.get(_HISTORY.get(protocol, "messages"), ())
    if isinstance(history, str):
        return history
    for message in history:
        if isinstance(message, dict) and message.get("role", "user") == "user":
            content = message.get("content", message.get("parts"))
            return "\n".join(_texts(content))
    return ""


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text
