"""Requests to a real provider with their replies, and the session that they form."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from trae_bench.provider.conversations import History, continued, history_of, joined
from trae_bench.provider.protocols.replies import ReplyError, decode_reply
from trae_bench.provider.protocols.requests import RequestFacts, read_request
from trae_bench.scenario.importers.session import (
    RecordedCall,
    RecordedReply,
    RecordedSession,
    RecordedSubAgent,
)

_OK = range(200, 300)


class Exchange(Struct, frozen=True):
    """One model request and its reply, without their bytes."""

    facts: RequestFacts
    digest: bytes
    """Digest of the request's body."""
    history: History
    status: int
    """Status of the reply; 0 if there was none."""
    reply: RecordedReply | None = None
    problem: str = ""
    """Why there is no reply."""
    body: bytes = b""
    """The request's body; empty if a later request contains it."""

    @property
    def prompt(self) -> str:
        """First message of the user."""
        return self.history.prompt


def exchange_of(path: str, body: bytes, status: int, reply: bytes) -> Exchange | None:
    """Return the exchange of a request. None if it is no model request.

    Neither body is compressed.
    """
    facts = read_request(path, body)
    if facts is None:
        return None
    digest = hashlib.sha256(body).digest()
    history = history_of(facts.protocol, msgspec.json.decode(body))
    if status not in _OK:
        return Exchange(facts, digest, history, status, problem=f"status {status}")
    try:
        decoded = decode_reply(facts.protocol, reply)
    except ReplyError as error:
        return Exchange(facts, digest, history, status, problem=str(error))
    return Exchange(facts, digest, history, status, decoded, body=body)


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
    conversations = _conversations(turns)
    replies, *others = (_replies(one, notes) for one in conversations or [[]])
    sub_agents = (
        RecordedSubAgent(one[0].prompt, found)
        for one, found in zip(conversations[1:], others, strict=True)
    )
    return RecordedSession(
        source=source,
        replies=replies,
        sub_agents=tuple(sub_agents),
        task=task or main.prompt,
        agent=agent,
        protocol=main.facts.protocol,
        stream=main.facts.stream,
        model=main.facts.model,
        tools=main.facts.tools,
        final_text=replies[-1].text if replies else "",
        last_request=joined([one[-1].body for one in conversations]).decode(errors="replace"),
        notes=tuple(notes),
    )


def _conversations(turns: Sequence[Exchange]) -> list[list[Exchange]]:
    """Return the turns of each conversation, in the order of their starts.

    A conversation that begins while no other one continues later takes the place of the one
    before: an agent may shorten its history, or put it into a single message.
    """
    numbers: list[int] = []
    latest: list[bytes] = []
    for one in turns:
        if one.history.begins or not latest:
            latest.append(b"")
            numbers.append(len(latest) - 1)
        else:
            numbers.append(continued(one.history, latest))
        latest[numbers[-1]] = one.history.digests
    found: dict[int, list[Exchange]] = {}
    places: dict[int, int] = {}
    for at, (number, one) in enumerate(zip(numbers, turns, strict=True)):
        if number not in places:
            alone = at and all(later >= number for later in numbers[at:])
            places[number] = places[numbers[at - 1]] if alone else number
        found.setdefault(places[number], []).append(one)
    return list(found.values())


def _replies(turns: Sequence[Exchange], notes: list[str]) -> tuple[RecordedReply, ...]:
    """Replace arguments that are not a JSON object, which a script cannot send."""
    playable = []
    replies = (one.reply for one in turns if one.reply is not None)
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
    return tuple(playable)


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
