"""Builds a session from the message that registers it. Standard library only."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from trae_bench.provider import responses
from trae_bench.provider.foreign_session import Encoding, ForeignSession
from trae_bench.provider.responses import Response, json_response
from trae_bench.provider.sessions import Fault, Session
from trae_bench.provider.usage import with_slots


def session_from(message: dict[str, Any], blobs: Sequence[bytes]) -> Session:
    """Return the session that a message of `registration.registration` describes."""
    kind = _foreign_session if "encodings" in message else _own_session
    session = kind(message, deque(blobs))
    session.output_tokens = message["output_tokens"]
    return session


def _own_session(message: dict[str, Any], blobs: deque[bytes]) -> Session:
    replies = [_reply(message["media_type"], entry, blobs) for entry in message["replies"]]
    faults = {entry["request"]: _fault(entry, blobs) for entry in message["faults"]}
    suffix = message["path_suffix"].encode()
    return Session(message["protocol"], suffix, replies, faults, message["pressure"])


def _foreign_session(message: dict[str, Any], blobs: deque[bytes]) -> ForeignSession:
    encodings = {entry["protocol"]: _encoding(entry, blobs) for entry in message["encodings"]}
    faults = {entry["request"]: _fault(entry, blobs) for entry in message["faults"]}
    return ForeignSession(
        message["protocol"],
        encodings,
        faults,
        message["pressure"],
        again=message["again"],
        has_tools=message["has_tools"],
        conversations=message["conversations"],
    )


def _encoding(entry: dict[str, Any], blobs: deque[bytes]) -> Encoding:
    """Read the replies and the side reply: first all complete ones, then all streamed ones."""
    forms = []
    for media_type, kind in ((None, "complete"), (entry["media_type"], "streamed")):
        *replies, side = [_reply(media_type, one, blobs) for one in entry[kind]]
        forms.append((replies, replace(side, side=True)))
    (complete, complete_side), (streamed, streamed_side) = forms
    return Encoding((complete, streamed), (complete_side, streamed_side))


def _reply(media_type: str | None, entry: dict[str, Any], blobs: deque[bytes]) -> Response:
    """`media_type` is that of a streamed reply; None means a complete JSON document."""
    chunks = [blobs.popleft() for _ in range(entry["chunks"])]
    delay, calls = entry["delay"], entry["calls"]
    if media_type is None:
        return with_slots(replace(json_response(200, chunks[0], delay=delay), calls=calls))
    reply = responses.streamed_response(media_type, chunks, delay=delay, gap=entry["gap"])
    return with_slots(replace(reply, calls=calls))


def _fault(entry: dict[str, Any], blobs: deque[bytes]) -> Fault:
    kind = entry["kind"]
    if kind == "cut":
        return lambda reply: (responses.truncated(reply), False)
    if kind == "close":
        return lambda reply: (responses.then_closed(reply), True)
    if kind == "status":
        fault = responses.error_response(entry["status"], blobs.popleft(), entry["retry_after"])
    else:
        fault = responses.reset() if kind == "reset" else responses.garbage()
    return lambda reply: (fault, False)
