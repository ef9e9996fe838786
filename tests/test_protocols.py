"""One script gives one transcript for every protocol and transport, streamed or not.

agent_core runs random scripts against the loopback server and, in process, against respx. The
recorded trajectories must all be equal. The requests must be equal for each protocol.
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
PROTOCOL_KEYS = {"provider", "finish_reason", "usage"}
STREAM_KEYS = {"stream", "stream_options"}


class Setup(NamedTuple):
    """Protocol and transport of one session."""

    protocol: Protocol
    transport: str
    stream: bool
    chunk_characters: int = 5


class Played(NamedTuple):
    """Comparable results of one session."""

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


def play(loopback: Loopback, turns: list[Turn], setup: Setup) -> Played:
    if setup.transport == "loopback":
        return play_at(loopback, turns, setup)
    with RespxProvider() as provider:
        return play_at(provider, turns, setup)


def play_at(provider: Loopback | RespxProvider, turns: list[Turn], setup: Setup) -> Played:
    name = f"s-{next(counter)}"
    conditions = ProviderConditions(
        protocol=setup.protocol, stream=setup.stream, chunk_characters=setup.chunk_characters
    )
    with tempfile.TemporaryDirectory() as home:
        workspace = Path(home) / "workspace"
        (workspace / "sub").mkdir(parents=True)
        (workspace / "a.txt").write_text("alpha\nbeta\n")
        script = Script(expand(scenario(turns), workspace).turns, conditions)
        base_url = provider.register(name, script)
        kind = PROVIDERS[setup.protocol]
        entry = ProviderSettings(
            api_key="sk-not-a-key",
            model="scripted",
            base_url=base_url,
            protocol=setup.protocol,
            stream=setup.stream,
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
            without(PROTOCOL_KEYS, without_times(json.loads(recorded.replace(home, "HOME")))),
            len(log.requests),
            last_request(log, home),
            {
                str(path.relative_to(workspace)): path.read_bytes()
                for path in sorted(workspace.rglob("*"))
                if path.is_file()
            },
        )


def last_request(log: SessionLog, home: str) -> Any:
    assert log.unexpected == 0
    assert {entry.status for entry in log.requests} == {200}
    text = re.sub(r"s/s-\d+/", "s/SESSION/", log.last_body.decode().replace(home, "HOME"))
    return without(STREAM_KEYS, json.loads(text))


def without(keys: set[str], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without(keys, item) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(keys, item) for item in value]
    return value


def assert_one_transcript(played: dict[Setup, Played]) -> None:
    (first, expected), *others = played.items()
    for setup, actual in others:
        assert actual.outcome == expected.outcome, (first, setup)
        assert actual.trajectory == expected.trajectory, (first, setup)
        assert actual.requests == expected.requests, (first, setup)
        assert actual.files == expected.files, (first, setup)
    for protocol in PROTOCOLS:
        bodies = [
            result.last_body for setup, result in played.items() if setup.protocol == protocol
        ]
        assert all(body == bodies[0] for body in bodies), protocol


ALL_SETUPS = [
    Setup(protocol, transport, stream)
    for protocol in PROTOCOLS
    for transport in ("loopback", "respx")
    for stream in (False, True)
]
ONE_PER_PROTOCOL = st.tuples(
    *(st.sampled_from(ALL_SETUPS[n : n + 4]) for n in range(0, len(ALL_SETUPS), 4))
)


@examples(30, one_fixture=True)
@given(turns=TURNS, setups=ONE_PER_PROTOCOL, chunk=st.integers(1, 60))
def test_random_scripts_give_one_transcript(
    loopback: Loopback, turns: list[Turn], setups: tuple[Setup, ...], chunk: int
) -> None:
    """Runs each protocol with a random setup, and the first one also with the other stream mode."""
    first = setups[0]
    other = first._replace(stream=not first.stream)
    chosen = [setup._replace(chunk_characters=chunk) for setup in (*setups, other)]
    assert_one_transcript({setup: play(loopback, turns, setup) for setup in chosen})


def test_one_script_with_all_setups(loopback: Loopback) -> None:
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
    played = {setup: play(loopback, turns, setup) for setup in ALL_SETUPS}
    assert len(played) == 20
    assert_one_transcript(played)
    (first, *_) = played.values()
    assert first.outcome == (True, "done", 4)
    assert first.files["new.txt"] == "é😀\n".encode()


def call(tool: str, **arguments: Any) -> ScriptedCall:
    return ScriptedCall(tool, arguments)


def test_respx_opens_no_socket(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was connected")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    setups = [setup for setup in ALL_SETUPS if setup.transport == "respx"]
    assert {play(loopback, [], setup).outcome for setup in setups} == {(True, "done", 1)}


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
def test_a_streamed_reply_equals_the_whole_one(
    protocol: Protocol, turn: PlayedTurn, size: int, cut: int
) -> None:
    """agent_core's codecs decode the stream in chunks of any size."""
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
