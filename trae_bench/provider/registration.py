"""Encode a script as the message that registers a session with the server."""

from collections.abc import Sequence
from typing import Any

from trae_bench.provider.protocols import CODECS, encode_error, encode_turns, stream_turns
from trae_bench.provider.script import Script
from trae_bench.scenario import DEFAULT_FAULT_STATUS


def session_path(session: str, script: Script) -> str:
    """Return the path of the session's base URL on the server."""
    return f"/s/{session}{CODECS[script.protocol].endpoint.base}"


def registration(
    session: str, script: Script, pressure: Sequence[str] = ()
) -> tuple[dict[str, Any], list[bytes]]:
    """Return the message and its blobs: chunks of reply bodies, then bodies of error replies.

    `pressure` lists the files that the server reads in turn, one per request.
    """
    conditions = script.conditions
    codec = CODECS[script.protocol]
    if conditions.stream:
        bodies = stream_turns(script)
    else:
        bodies = [[body] for body in encode_turns(script)]
    blobs = [chunk for body in bodies for chunk in body]
    faults = []
    for fault in conditions.faults:
        status = fault.status or DEFAULT_FAULT_STATUS
        if fault.kind == "status":
            blobs.append(encode_error(script.protocol, status))
        faults.append(
            {
                "request": fault.request,
                "kind": fault.kind,
                "status": status,
                "retry_after": fault.retry_after,
            }
        )
    message = {
        "op": "register",
        "session": session,
        "path_suffix": codec.endpoint.suffix_for(stream=conditions.stream),
        "media_type": codec.media_type if conditions.stream else None,
        "replies": [
            {"chunks": len(body), "delay": delay, "gap": conditions.chunk_seconds}
            for body, delay in zip(bodies, script.think_times(), strict=True)
        ],
        "faults": faults,
        "pressure": list(pressure),
    }
    return message, blobs
