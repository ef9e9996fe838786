"""The messages of a session: a script registers it, an account of its requests ends it."""

from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, get_args

from trae_bench.model.sample import FirstRequest, PromptLog, RequestLog, SessionLog, TokenUse
from trae_bench.prompt import Accounting, PrefixTracker, PromptReader, SessionMeter
from trae_bench.provider.protocols import CODECS, encode_error, encode_turns, stream_turns
from trae_bench.provider.protocols.requests import model_in_path
from trae_bench.provider.routes import find_route
from trae_bench.provider.script import PlayedTurn, Script, spoken
from trae_bench.provider.sent_bodies import restored
from trae_bench.scenario import DEFAULT_FAULT_STATUS, Protocol

DEFAULT_ACCOUNTING = Accounting()
"""Counts tokens by the estimate, without prices."""
_SIDE_TURN = PlayedTurn("Scripted session")
"""The reply to a foreign request beside the conversation, often for a title."""

_Message = tuple[dict[str, Any], list[bytes]]


def session_path(session: str, script: Script) -> str:
    """Return the path of the session's base URL on the server."""
    return f"/s/{session}{CODECS[script.protocol].endpoint.base}"


def registration(
    session: str,
    script: Script,
    pressure: Sequence[str] = (),
    accounting: Accounting = DEFAULT_ACCOUNTING,
) -> _Message:
    """Return the message and its blobs: chunks of reply bodies, then bodies of error replies.

    `pressure` lists the files that the server reads in turn, one per request.
    """
    count = accounting.counter(script.protocol).of_text
    replies, blobs = (_foreign_replies if script.is_foreign else _own_replies)(script)
    faults, errors = _faults(script)
    message = {
        "op": "register",
        "session": session,
        "protocol": script.protocol,
        **replies,
        "faults": faults,
        "pressure": list(pressure),
        "output_tokens": [sum(map(count, spoken(turn))) for turn in script.turns],
    }
    return message, blobs + errors


def session_log(
    account: dict[str, Any],
    bodies: Sequence[bytes],
    accounting: Accounting = DEFAULT_ACCOUNTING,
) -> SessionLog:
    """Return the log of a session from the server's account of it."""
    requests = tuple(RequestLog(*entry) for entry in account["log"])
    prompts, tokens = _prompts(account, bodies[2:], accounting)
    first = None
    if account["first"] is not None:
        method, path, user_agent = account["first"]
        first = FirstRequest(method, path, bodies[1], user_agent)
    return SessionLog(
        requests=requests,
        connections=len({request.connection for request in requests}),
        last_body=bodies[0],
        unexpected=account["unexpected"],
        cpu_seconds=account.get("cpu_seconds", 0.0),
        handshakes=account["handshakes"],
        played=account["played"],
        unplayed=account["unplayed"],
        rejected=tuple(account["rejected"]),
        side_calls=account["side_calls"],
        repeats=account["repeats"],
        first_request=first,
        prompts=prompts,
        tokens=tokens,
    )


def _prompts(
    account: dict[str, Any], rest: Sequence[bytes], accounting: Accounting
) -> tuple[tuple[PromptLog, ...], tuple[TokenUse, ...]]:
    """Return nothing if a prompt cannot be read."""
    try:
        return _read_prompts(account, rest, accounting)
    except RecursionError:
        # A prompt can be nested as deep as it can be read, but too deep to be compared.
        return (), ()


def _read_prompts(
    account: dict[str, Any], rest: Sequence[bytes], accounting: Accounting
) -> tuple[tuple[PromptLog, ...], tuple[TokenUse, ...]]:
    reader, tracker, meter = PromptReader(), PrefixTracker(), SessionMeter(accounting)
    outputs = [0, *account["output_tokens"]]
    logs, tokens = [], []
    for arrived, path, turn, body in restored(account["bodies"], rest):
        route = find_route(path)
        prompt = route and reader.read(route.protocol, body, model_in_path(path))
        if not prompt:
            return (), ()
        logs.append(tracker.add(arrived, prompt))
        tokens.append(meter.add(arrived, prompt, outputs[turn]))
    return tuple(logs), tuple(tokens)


def _own_replies(script: Script) -> _Message:
    """Return the replies in the one form that agent_core asks for."""
    codec, stream = CODECS[script.protocol], script.conditions.stream
    bodies = stream_turns(script) if stream else [[body] for body in encode_turns(script)]
    message = {
        "path_suffix": codec.endpoint.suffix_for(stream=stream),
        "media_type": codec.media_type if stream else None,
        "replies": _entries(script, bodies, script.conditions.chunk_seconds),
    }
    return message, _flat(bodies)


def _foreign_replies(script: Script) -> _Message:
    """Return the replies complete and streamed, in one protocol or in all."""
    protocols = get_args(Protocol) if script.any_protocol else (script.protocol,)
    encodings, blobs = [], []
    for protocol in protocols:
        entry, bodies = _encoding(script, protocol)
        encodings.append(entry)
        blobs += bodies
    message = {
        "encodings": encodings,
        "again": script.any_protocol,
        "has_tools": script.has_tools,
        "conversations": [[one.prompt, one.turns] for one in script.conversations],
    }
    return message, blobs


def _encoding(script: Script, protocol: Protocol) -> _Message:
    side = Script((_SIDE_TURN,), script.conditions)
    complete = [[body] for one in (script, side) for body in encode_turns(one, protocol)]
    streamed = stream_turns(script, protocol) + stream_turns(side, protocol)
    entry = {
        "protocol": protocol,
        "media_type": CODECS[protocol].media_type,
        "complete": _entries(script, complete, 0.0),
        "streamed": _entries(script, streamed, script.conditions.chunk_seconds),
    }
    return entry, _flat(complete) + _flat(streamed)


def _entries(script: Script, bodies: Sequence[Sequence[bytes]], gap: float) -> list[dict[str, Any]]:
    """Return an entry for each body: those of the script's turns, then the side reply if any."""
    turns = zip(script.think_times(), script.turns, strict=True)
    properties = chain(((delay, len(turn.calls)) for delay, turn in turns), repeat((0.0, 0)))
    return [
        {"chunks": len(body), "delay": delay, "gap": gap, "calls": calls}
        for body, (delay, calls) in zip(bodies, properties, strict=False)
    ]


def _flat(bodies: Sequence[Sequence[bytes]]) -> list[bytes]:
    return [chunk for body in bodies for chunk in body]


def _faults(script: Script) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the faults, and the bodies of those that have one."""
    faults, bodies = [], []
    for fault in script.conditions.faults:
        status = fault.status or DEFAULT_FAULT_STATUS
        if fault.kind == "status":
            bodies.append(encode_error(script.protocol, status))
        faults.append(
            {
                "request": fault.request,
                "kind": fault.kind,
                "status": status,
                "retry_after": fault.retry_after,
            }
        )
    return faults, bodies
