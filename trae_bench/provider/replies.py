"""A script as the server has to know it: all replies and faults, as bytes and times."""

from typing import Any

from msgspec import Struct

from trae_bench.provider.script import Script
from trae_bench.provider.streams import MEDIA_TYPES, stream_turns
from trae_bench.provider.wire import ENDPOINTS, encode_error, encode_turns
from trae_bench.scenario import USUAL_STATUS, Fault


class Reply(Struct, frozen=True):
    """One turn, ready to be sent."""

    pieces: tuple[bytes, ...]
    """The body; several pieces where it is streamed."""
    delay: float
    """Seconds before the first."""
    gap: float
    """Seconds between two."""


class Replies(Struct, frozen=True):
    """One session, ready to be played."""

    tail: str
    """How the path of every request for a reply ends."""
    media_type: str | None
    """Of a streamed body; None for one whole JSON document."""
    turns: tuple[Reply, ...]
    faults: tuple[Fault, ...]
    errors: dict[int, bytes]
    """The bodies of error replies, by the request that gets them."""


def replies_of(script: Script) -> Replies:
    conditions = script.conditions
    if conditions.stream:
        bodies = [tuple(events) for events in stream_turns(script)]
    else:
        bodies = [(body,) for body in encode_turns(script)]
    return Replies(
        tail=ENDPOINTS[script.protocol].tail_for(stream=conditions.stream),
        media_type=MEDIA_TYPES[script.protocol] if conditions.stream else None,
        turns=tuple(
            Reply(pieces, delay, conditions.chunk_seconds)
            for pieces, delay in zip(bodies, script.think_times(), strict=True)
        ),
        faults=conditions.faults,
        errors={
            fault.request: encode_error(script.protocol, fault.status or USUAL_STATUS)
            for fault in conditions.faults
            if fault.kind == "status"
        },
    )


def for_the_server(session: str, replies: Replies) -> tuple[dict[str, Any], list[bytes]]:
    """The wish that registers a session, and the bytes that travel with it."""
    blobs = [piece for reply in replies.turns for piece in reply.pieces]
    faults = []
    for fault in replies.faults:
        if fault.kind == "status":
            blobs.append(replies.errors[fault.request])
        faults.append(
            {
                "request": fault.request,
                "kind": fault.kind,
                "status": fault.status or USUAL_STATUS,
                "retry_after": fault.retry_after,
            }
        )
    wish = {
        "op": "register",
        "session": session,
        "tail": replies.tail,
        "media_type": replies.media_type,
        "replies": [
            {"pieces": len(reply.pieces), "delay": reply.delay, "gap": reply.gap}
            for reply in replies.turns
        ],
        "faults": faults,
    }
    return wish, blobs
