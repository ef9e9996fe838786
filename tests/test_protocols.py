"""One script, one transcript: whatever the protocol, the transport, and streamed or not.

The real agent plays random scripts against the real loopback server and in process against
respx. What it recorded must be the same everywhere; what it sent must be the same wherever
the protocol is.
"""

import asyncio
import json
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.models import codec_named
from agent_core.models.codec import Parameters, StreamDecoder
from agent_core.toggles import Toggles
from tests.properties import examples
from tests.test_equal_answers import TURNS, scenario, without_times
from trae_bench.model.sample import SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.protocols import encode_turns, stream_turns
from trae_bench.provider.respx_mock import RespxProvider
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script, expand
from trae_bench.scenario import Protocol, ProviderConditions, ScriptedCall, Turn

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
PROVIDERS: dict[Protocol, str] = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "google",
    "ollama_chat": "ollama",
}
OF_THE_PROTOCOL = {"provider", "finish_reason", "usage"}
OF_THE_STREAM = {"stream", "stream_options"}


class Way(NamedTuple):
    """How one script is played."""

    protocol: Protocol
    transport: str
    stream: bool
    chunk_characters: int = 5


class Played(NamedTuple):
    """What it came to."""

    outcome: tuple[bool, str, int]
    trajectory: Any
    requests: int
    last_body: Any
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


counter = iter(range(10**9))


def play(loopback: Loopback, turns: list[Turn], way: Way) -> Played:
    if way.transport == "loopback":
        return played_at(loopback, turns, way)
    with RespxProvider() as provider:
        return played_at(provider, turns, way)


def played_at(provider: Loopback | RespxProvider, turns: list[Turn], way: Way) -> Played:
    name = f"s-{next(counter)}"
    conditions = ProviderConditions(
        protocol=way.protocol, stream=way.stream, chunk_characters=way.chunk_characters
    )
    with tempfile.TemporaryDirectory() as home:
        workspace = Path(home) / "workspace"
        (workspace / "sub").mkdir(parents=True)
        (workspace / "a.txt").write_text("alpha\nbeta\n")
        script = Script(expand(scenario(turns), workspace).turns, conditions)
        base_url = provider.register(name, script)
        kind = PROVIDERS[way.protocol]
        entry = ProviderSettings(
            api_key="sk-not-a-key",
            model="scripted",
            base_url=base_url,
            protocol=way.protocol,
            stream=way.stream,
        )
        outcome = asyncio.run(
            run_task(
                "play",
                settings=Settings(default_provider=kind, model_providers={kind: entry}),
                workspace=workspace,
                trajectory=Path(home) / "trajectory.json",
                toggles=Toggles(),
            )
        )
        log = provider.collect(name)
        recorded = (Path(home) / "trajectory.json").read_text(encoding="utf-8")
        return Played(
            (outcome.success, outcome.final_text, outcome.steps),
            without(OF_THE_PROTOCOL, without_times(json.loads(recorded.replace(home, "HOME")))),
            len(log.requests),
            sent(log, home),
            {
                str(path.relative_to(workspace)): path.read_bytes()
                for path in sorted(workspace.rglob("*"))
                if path.is_file()
            },
        )


def sent(log: SessionLog, home: str) -> Any:
    assert log.unexpected == 0
    assert {entry.status for entry in log.requests} == {200}
    text = re.sub(r"s/s-\d+/", "s/SESSION/", log.last_body.decode().replace(home, "HOME"))
    return without(OF_THE_STREAM, json.loads(text))


def without(keys: set[str], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without(keys, item) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(keys, item) for item in value]
    return value


def assert_one_transcript(played: dict[Way, Played]) -> None:
    (first, one), *others = played.items()
    for way, other in others:
        assert other.outcome == one.outcome, (first, way)
        assert other.trajectory == one.trajectory, (first, way)
        assert other.requests == one.requests, (first, way)
        assert other.files == one.files, (first, way)
    for protocol in PROTOCOLS:
        bodies = [each.last_body for way, each in played.items() if way.protocol == protocol]
        assert all(body == bodies[0] for body in bodies), protocol


ALL_WAYS = [
    Way(protocol, transport, stream)
    for protocol in PROTOCOLS
    for transport in ("loopback", "respx")
    for stream in (False, True)
]
SOME = st.tuples(*(st.sampled_from(ALL_WAYS[n : n + 4]) for n in range(0, len(ALL_WAYS), 4)))


@examples(30, one_fixture=True)
@given(turns=TURNS, ways=SOME, chunk=st.integers(1, 60))
def test_random_scripts_give_one_transcript(
    loopback: Loopback, turns: list[Turn], ways: tuple[Way, ...], chunk: int
) -> None:
    """Each protocol once, by a way of its own, and the first one by another way too."""
    first = ways[0]
    other = first._replace(stream=not first.stream)
    chosen = [way._replace(chunk_characters=chunk) for way in (*ways, other)]
    assert_one_transcript({way: play(loopback, turns, way) for way in chosen})


def test_one_script_by_all_ways(loopback: Loopback) -> None:
    edit = {"command": "create", "path": "{workspace}/new.txt", "file_text": "é😀\n"}
    turns = [
        Turn(
            text="I write é😀.",
            calls=(
                call("str_replace_based_edit_tool", **edit),
                call("bash", command="cat new.txt; exit 3"),
            ),
        ),
        Turn(text="I only talk."),
        Turn(calls=(call("bash", command="cat new.txt"), call("no_such_tool", x=[{"y": None}]))),
    ]
    played = {way: play(loopback, turns, way) for way in ALL_WAYS}
    assert len(played) == 20
    assert_one_transcript(played)
    (one, *_) = played.values()
    assert one.outcome == (True, "done", 4)
    assert one.files["new.txt"] == "é😀\n".encode()


def call(tool: str, **arguments: Any) -> ScriptedCall:
    return ScriptedCall(tool, arguments)


def test_respx_opens_no_socket(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was connected")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    ways = [way for way in ALL_WAYS if way.transport == "respx"]
    assert {play(loopback, [], way).outcome for way in ways} == {(True, "done", 1)}


# -- the codecs ---------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLAYED = st.builds(
    PlayedTurn,
    st.text(),
    st.lists(
        st.builds(
            PlayedCall,
            st.uuids().map(str),
            st.sampled_from(["bash", "task_done"]),
            st.dictionaries(st.text(), VALUES, max_size=3),
        ),
        max_size=3,
        unique_by=lambda played: played.id,
    ).map(tuple),
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@examples(60)
@given(turn=PLAYED, size=st.integers(1, 40), cut=st.integers(1, 50))
def test_a_streamed_reply_is_the_whole_one(
    protocol: Protocol, turn: PlayedTurn, size: int, cut: int
) -> None:
    """Read by agent_core's codecs, however the bytes arrive."""
    script = Script((turn,), ProviderConditions(protocol=protocol, chunk_characters=size))
    whole = codec_named(protocol, PROVIDERS[protocol], Parameters(model="m"))
    reply = whole.decode(encode_turns(script)[0])
    assert reply.message.text == turn.text
    assert [(c.id, c.name, c.arguments) for c in reply.message.calls] == [
        (c.id, c.name, c.arguments) for c in turn.calls
    ]
    codec = codec_named(protocol, PROVIDERS[protocol], Parameters(model="m", stream=True))
    decoder = StreamDecoder(codec)
    stream = b"".join(stream_turns(script)[0])
    for start in range(0, len(stream), cut):
        decoder.feed(stream[start : start + cut])
    assert decoder.finish() == reply
