"""Each request of a session extends the prompt before it, so that a prompt cache can work.

agent_core runs random scripts with random toggles in every protocol.
"""

import asyncio
import importlib.util
import json
import re
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.toggles import Toggles
from agent_core.tools import TOOLS
from tests.agent_core.scripted_server import Answer, scripted_server
from tests.properties import examples
from tests.test_equal_answers import TURNS, VECTORS, scenario
from tests.test_protocols import PROTOCOLS, PROVIDERS
from trae_bench.execution.fingerprint import cleaner, transcript_of
from trae_bench.model.sample import PromptLog, RequestLog, SessionLog
from trae_bench.prompt import PrefixTracker, PromptReader
from trae_bench.provider.protocols import encode_turns
from trae_bench.provider.script import expand
from trae_bench.scenario import Normalise, Protocol, ScriptedCall, Turn

pytestmark = pytest.mark.slow

MANY = [Turn(calls=(ScriptedCall("bash", {"command": "echo out"}),) * 25), Turn(), Turn()]
"""More blocks in a step than a mark of Anthropic looks at, then replies without anything."""


def requests_of(protocol: Protocol, turns: list[Turn], toggles: Toggles) -> list[Any]:
    """The requests of one session."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        (workspace / "sub").mkdir()
        script = expand(scenario(turns), workspace)
        answers = [Answer(body) for body in encode_turns(script, protocol)]

        async def run() -> list[Any]:
            async with scripted_server(*answers) as server:
                entry = ProviderSettings(
                    api_key="sk-not-a-key", model="m", base_url=server.url, protocol=protocol
                )
                kind = PROVIDERS[protocol]
                settings = Settings(default_provider=kind, model_providers={kind: entry})
                outcome = await run_task(
                    "play", settings=settings, workspace=workspace, toggles=toggles
                )
                # Three empty replies in a row end a session.
                assert outcome.success or "in a row were empty" in (outcome.error or "")
                return [received.json for received in server.seen]

        return asyncio.run(run())


def transcript(request: Any) -> str:
    """The digest by which the two sides of a pair are compared."""
    log = SessionLog((RequestLog(0.0, 0.5, 1, 2, 3, 200),), 1, json.dumps(request).encode(), 0)
    # The two sessions had different folders.
    clean = cleaner({}, (Normalise(re.escape(tempfile.gettempdir()) + r"/\w+", "{workspace}"),))
    return transcript_of(log, None, clean).digest


def prompts_of(protocol: Protocol, requests: list[Any]) -> list[PromptLog]:
    """How each prompt continues the ones before."""
    reader, tracker = PromptReader(), PrefixTracker()
    prompts = [reader.read(protocol, json.dumps(request).encode(), "m") for request in requests]
    assert None not in prompts
    return [tracker.add(0.0, prompt) for prompt in prompts if prompt is not None]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@examples(20)
@example(turns=MANY, vector=Toggles().as_dict())
@example(turns=MANY, vector=Toggles.none().with_(native_client=True).as_dict())
@given(turns=TURNS, vector=VECTORS)
def test_each_request_extends_the_one_before(
    protocol: Protocol, turns: list[Turn], vector: dict[str, bool]
) -> None:
    sdk = {"gemini": "google.genai"}.get(protocol, PROVIDERS[protocol])
    if not installed(sdk):
        vector = {**vector, "native_client": True}
    requests = requests_of(protocol, turns, Toggles(**vector))
    assert len(requests) == len(turns) + 1
    prompts = prompts_of(protocol, requests)
    assert [prompt.broken for prompt in prompts] == [None] * len(prompts)
    for before, after in pairwise(prompts):
        assert after.reused == before.size < after.size
    for request in requests:
        assert tool_names(request) == [name for name in TOOLS if name != "ckg"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@examples(10)
@example(turns=MANY)
@given(turns=TURNS)
def test_both_sides_of_prompt_cache_have_one_transcript(
    protocol: Protocol, turns: list[Turn]
) -> None:
    on, off = (
        requests_of(protocol, turns, Toggles().with_(prompt_cache=value)) for value in (True, False)
    )
    assert ("cache_control" in json.dumps(on)) == (protocol == "anthropic_messages")
    assert "cache_control" not in json.dumps(off)
    assert list(map(transcript, on)) == list(map(transcript, off))


def tool_names(request: Any) -> list[str]:
    tools = request["tools"]
    if "functionDeclarations" in tools[0]:
        tools = tools[0]["functionDeclarations"]
    return [tool.get("function", tool)["name"] for tool in tools]


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
