"""The toggle `prompt_cache`: what a request says to the provider's cache."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from agent_core.config import ProviderSettings
from agent_core.messages import Message, ToolCall, ToolResult
from agent_core.models import PROTOCOLS, codec_named
from agent_core.models.codec import Parameters
from agent_core.models.history import FullHistory, IncrementalHistory
from agent_core.models.wire import open_model
from agent_core.ports import Request, Response
from tests.agent_core.histories import TOOLS

MAX_MARKS = 4
LOOKBACK = 20
"""Anthropic's limits: marks of a request; places that a mark looks at, its own included."""
MARK = {"type": "ephemeral"}
KEY = "sk-planted-key"


def body_of(history: Sequence[Message], *, on: bool, protocol: str = "anthropic_messages") -> Any:
    codec = codec_named(protocol, "some", Parameters(model="m", cache_marks=on))
    return json.loads(FullHistory(codec).body(history, TOOLS))


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_marks(v) for k, v in value.items() if (k, v) != ("cache_control", MARK)}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


# -- Anthropic's marks


class Prompt(Struct, frozen=True):
    """The blocks of a request in the provider's order, and the places of its marks."""

    blocks: tuple[str, ...]
    marks: tuple[int, ...]

    @classmethod
    def of(cls, body: bytes) -> "Prompt":
        request = json.loads(body)
        found = [*request.get("tools", ()), *request.get("system", ())]
        found += [
            {"role": message["role"], **block}
            for message in request["messages"]
            for block in message["content"]
        ]
        marks = tuple(place for place, block in enumerate(found) if "cache_control" in block)
        return cls(tuple(json.dumps(without_marks(block)) for block in found), marks)


class Cache:
    """Anthropic's cache without a minimum length and without an end of life."""

    def __init__(self) -> None:
        self._ends: set[tuple[str, ...]] = set()

    def send(self, prompt: Prompt) -> int:
        """The number of blocks that are read. Each mark writes."""
        known = (
            place + 1
            for mark in prompt.marks
            for place in range(max(0, mark - LOOKBACK + 1), mark + 1)
            if prompt.blocks[: place + 1] in self._ends
        )
        read = max(known, default=0)
        self._ends |= {prompt.blocks[: mark + 1] for mark in prompt.marks}
        return read


OUTPUTS = st.sampled_from(["out", "out", "out", "", " \n"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["", "I look."]), st.lists(OUTPUTS, max_size=50)), max_size=6
)
"""Steps of a session: the text of the reply, and the output of each of its calls."""


def growing(system: str, steps: list[tuple[str, list[str]]]) -> Iterator[list[Message]]:
    """The history of each request, as the loop in `agent.py` extends it."""
    history = [Message("system", system), Message("user", "Fix it.")]
    yield history
    for number, (text, outputs) in enumerate(steps):
        calls = tuple(ToolCall(f"{number}-{n}", "bash", {}) for n in range(len(outputs)))
        results = [
            ToolResult(call.id, "bash", True, output)
            for call, output in zip(calls, outputs, strict=True)
        ]
        history.append(Message("assistant", text, calls))
        history += [Message("tool", result=result) for result in results]
        if not results:
            history.append(Message("user", "Go on."))
        yield history


@given(system=st.sampled_from(["Be brief.", ""]), steps=STEPS)
def test_each_request_finds_the_end_of_the_one_before(
    system: str, steps: list[tuple[str, list[str]]]
) -> None:
    codec = codec_named("anthropic_messages", "some", Parameters(model="m"))
    bodies = IncrementalHistory(codec)
    cache, written = Cache(), 0
    for history in growing(system, steps):
        prompt = Prompt.of(bodies.body(history, TOOLS))
        assert len(prompt.marks) <= MAX_MARKS
        assert cache.send(prompt) == written
        written = prompt.marks[-1] + 1
        # Only results without a text, and the reply to them, follow the last mark.
        assert not any('"content": "out"' in block for block in prompt.blocks[written:])


def test_one_mark_at_the_end_would_miss_a_long_step() -> None:
    """Shows that the simulated cache has the lookback that the second mark is for."""
    cache = Cache()
    short = tuple(map(str, range(5)))
    cache.send(Prompt(short, (4,)))
    for added, read in ((LOOKBACK - 1, 5), (LOOKBACK, 0)):
        longer = (*short, *(f"{added} {n}" for n in range(added)))
        assert cache.send(Prompt(longer, (len(longer) - 1,))) == read


@pytest.mark.parametrize(
    ("system", "tools", "marked"),
    [("Be brief.", TOOLS, "system"), ("Be brief.", (), "system"), ("", TOOLS, "tools")],
)
def test_the_constant_part_is_marked_at_its_end(
    system: str, tools: Sequence[Any], marked: str
) -> None:
    codec = codec_named("anthropic_messages", "some", Parameters(model="m"))
    history = [Message("system", system), Message("user", "Fix it.")]
    request = json.loads(FullHistory(codec).body(history, tools))
    constant = [*request.get("tools", ()), *request.get("system", ())]
    assert [block.get("cache_control") for block in constant] == [None] * (len(constant) - 1) + [
        MARK
    ]
    assert constant[-1] == request[marked][-1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(steps=STEPS)
def test_the_marks_are_the_only_difference(
    protocol: str, steps: list[tuple[str, list[str]]]
) -> None:
    for history in growing("Be brief.", steps):
        on, off = (body_of(history, on=on, protocol=protocol) for on in (True, False))
        assert without_marks(on) == off
        assert (on != off) == (protocol == "anthropic_messages")


# -- OpenAI's key


class Sent:
    """Connections that keep the request and fail."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def post(self, request: Request) -> Response:
        self.bodies.append(request.body)
        return Response(400, {}, b"{}")

    def stream(
        self, request: Request
    ) -> AbstractAsyncContextManager[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        raise NotImplementedError

    def stats(self) -> dict[str, float]:
        return {}

    async def close(self) -> None: ...


async def cache_keys(provider: str, settings: ProviderSettings, *, on: bool = True) -> list[Any]:
    """The `prompt_cache_key` of two requests of one session."""
    sent = Sent()
    model = open_model(provider, settings, sent, prompt_cache=on)
    for _ in range(2):
        with pytest.raises(Exception, match="400"):
            await model.reply([Message("user", "Fix it.")], TOOLS)
    return [json.loads(body).get("prompt_cache_key") for body in sent.bodies]


def openai_at(base_url: str | None, protocol: str | None = None) -> ProviderSettings:
    return ProviderSettings(api_key=KEY, model="m", base_url=base_url, protocol=protocol)


@pytest.mark.anyio
@pytest.mark.parametrize("protocol", ["openai_chat", "openai_responses"])
@pytest.mark.parametrize("base_url", [None, "https://eu.api.openai.com/v1"])
async def test_a_session_with_openai_has_one_key(base_url: str | None, protocol: str) -> None:
    settings = openai_at(base_url, protocol)
    one, again = await cache_keys("openai", settings)
    assert one == again
    # OpenAI refuses more than 64 characters.
    assert 0 < len(one) <= 64
    assert KEY not in one
    assert one not in await cache_keys("openai", settings)
    assert await cache_keys("openai", settings, on=False) == [None, None]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("provider", "base_url"),
    [
        ("openai", "http://127.0.0.1:8000/v1"),
        ("openai", "https://api.openai.com.example.org/v1"),
        ("openai", "https://my-api.openai.com/v1"),
        ("azure", "https://x.openai.azure.com"),
        ("openrouter", None),
        ("doubao", None),
    ],
)
async def test_no_other_server_gets_a_key(provider: str, base_url: str | None) -> None:
    assert await cache_keys(provider, openai_at(base_url)) == [None, None]


# -- the same bytes in every process

_BODIES = """
import hashlib, sys
from pathlib import Path
from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.files import BlockingFiles
from agent_core.messages import Message
from agent_core.models import PROTOCOLS, codec_named
from agent_core.models.codec import Parameters
from agent_core.models.history import FullHistory
from agent_core.ports import ToolContext
from agent_core.shell import EventShell
from agent_core.workspace import Workspace

root = Path(sys.argv[1])
context = ToolContext(BlockingFiles(), lambda: EventShell(root), Workspace(root))
history = [Message("system", "s"), Message("user", "u")]
for catalog in (LazyCatalog(context), EagerCatalog(context)):
    for protocol in PROTOCOLS:
        codec = codec_named(protocol, "some", Parameters(model="m"))
        body = FullHistory(codec).body(history, catalog.specs())
        print(protocol, hashlib.sha256(body).hexdigest())
"""


def test_requests_do_not_depend_on_the_hash_seed(tmp_path: Any) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", _BODIES, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    (output,) = outputs
    lazy, eager = (output.splitlines()[start : start + 5] for start in (0, 5))
    assert lazy == eager
    assert len({line.split()[1] for line in lazy}) == len(PROTOCOLS)
