"""A script as the server has to know it: all replies and faults, as bytes and times."""

from typing import Any

from trae_bench.provider.protocol_streams import MEDIA_TYPES, stream_turns
from trae_bench.provider.protocols import ENDPOINTS, encode_error, encode_turns
from trae_bench.provider.script import Script
from trae_bench.scenario import USUAL_STATUS


def path_of(session: str, script: Script) -> str:
    """Below the server's address: where the session's base URL leads."""
    return f"/s/{session}{ENDPOINTS[script.protocol].base}"


def for_the_server(session: str, script: Script) -> tuple[dict[str, Any], list[bytes]]:
    """The wish that registers a session, and the bytes that travel with it: the pieces of each
    reply's body, then the bodies of error replies."""
    conditions = script.conditions
    if conditions.stream:
        bodies = stream_turns(script)
    else:
        bodies = [[body] for body in encode_turns(script)]
    blobs = [piece for body in bodies for piece in body]
    faults = []
    for fault in conditions.faults:
        status = fault.status or USUAL_STATUS
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
    wish = {
        "op": "register",
        "session": session,
        "tail": ENDPOINTS[script.protocol].tail_for(stream=conditions.stream),
        "media_type": MEDIA_TYPES[script.protocol] if conditions.stream else None,
        "replies": [
            {"pieces": len(body), "delay": delay, "gap": conditions.chunk_seconds}
            for body, delay in zip(bodies, script.think_times(), strict=True)
        ],
        "faults": faults,
    }
    return wish, blobs
