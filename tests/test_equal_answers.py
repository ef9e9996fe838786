"""Every combination of toggles gives the same answer in the same session.

agent_core runs random scripts against the loopback provider, once with every toggle off and once
with random toggles. The transcript at the provider, the files in the workspace and the recorded
trajectory must be equal.
"""

import asyncio
import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.toggles import Toggles
from tests.properties import examples
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.scenario import Scenario, ScriptedCall, ToggleUse, Turn

TIME_KEYS = {"timestamp", "start_time", "end_time", "execution_time"}
FILES = ("a.txt", "b.txt", "sub/c.txt")
WORDS = st.sampled_from(["alpha", "beta", "gamma\n", "é", "", "x\ny\n"])
EDIT = "str_replace_based_edit_tool"


def edit(command: str, name: str, **arguments: object) -> ScriptedCall:
    path = f"{{workspace}}/{name}"
    return ScriptedCall(tool=EDIT, arguments={"command": command, "path": path, **arguments})


@st.composite
def calls(draw: st.DrawFn) -> ScriptedCall:
    name = draw(st.sampled_from(FILES))
    kind = draw(st.sampled_from(["create", "view", "replace", "insert", "bash", "think", "odd"]))
    if kind == "create":
        return edit("create", name, file_text=draw(WORDS) + draw(WORDS))
    if kind == "view":
        return edit("view", name)
    if kind == "replace":
        return edit("str_replace", name, old_str=draw(WORDS), new_str=draw(WORDS))
    if kind == "insert":
        return edit("insert", name, insert_line=draw(st.integers(-1, 3)), new_str=draw(WORDS))
    if kind == "bash":
        command = draw(st.sampled_from([f"cat {name}", f"echo hi >> {name}", "cd sub", "false"]))
        arguments = {"command": command} | draw(st.sampled_from([{}, {"session": "two"}]))
        if "session" in arguments:  # named sessions must be independent
            arguments["command"] = "echo aside; exit 3"
        return ScriptedCall(tool="bash", arguments=arguments)
    if kind == "think":
        thought = {"thought": draw(WORDS), "next_thought_needed": True}
        return ScriptedCall(
            tool="sequentialthinking",
            arguments={**thought, "thought_number": draw(st.integers(0, 3)), "total_thoughts": 3},
        )
    return ScriptedCall(tool=draw(st.sampled_from(["no_such_tool", "bash"])), arguments={"x": 1})


TURNS = st.lists(
    st.builds(Turn, text=WORDS, calls=st.lists(calls(), max_size=4).map(tuple)), max_size=4
)
VECTORS = st.fixed_dictionaries({name: st.booleans() for name in Toggles.names()})


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


class Played:
    """Comparable results of one session."""

    def __init__(self, provider: Loopback, name: str, turns: list[Turn], toggles: Toggles) -> None:
        with tempfile.TemporaryDirectory() as home:
            workspace = Path(home) / "workspace"
            (workspace / "sub").mkdir(parents=True)
            (workspace / "a.txt").write_text("alpha\nbeta\n")
            base_url = provider.register(name, expand(scenario(turns), workspace))
            outcome = asyncio.run(
                run_task(
                    "play",
                    settings=Settings(model_providers={"openai": model_settings(base_url)}),
                    workspace=workspace,
                    trajectory=Path(home) / "trajectory.json",
                    toggles=toggles,
                )
            )
            log = provider.collect(name)
            self.outcome = outcome
            self.requests = len(log.requests)
            self.transcript = json.loads(normalize(log.last_body.decode(), home))
            self.files = {
                str(path.relative_to(workspace)): path.read_bytes()
                for path in sorted(workspace.rglob("*"))
                if path.is_file()
            }
            recorded = (Path(home) / "trajectory.json").read_text(encoding="utf-8")
            self.trajectory = without_times(json.loads(normalize(recorded, home)))


def normalize(text: str, home: str) -> str:
    """Replace the home folder and the session name."""
    return re.sub(r"s/(base|other)-\d+/", "s/SESSION/", text.replace(home, "HOME"))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIME_KEYS}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def scenario(turns: list[Turn]) -> Scenario:
    done = Turn(text="done", calls=(ScriptedCall(tool="task_done"),))
    return Scenario(
        name="random",
        about="",
        task="play",
        turns=(*turns, done),
        toggles=ToggleUse(vary=()),
        metrics=(),
    )


def model_settings(base_url: str) -> ProviderSettings:
    return ProviderSettings(api_key="sk-not-a-key", model="scripted", base_url=base_url)


counter = iter(range(10**9))


@examples(25, one_fixture=True)
@given(turns=TURNS, vector=VECTORS)
def test_every_toggle_vector_gives_the_same_answer(
    provider: Loopback, turns: list[Turn], vector: dict[str, bool]
) -> None:
    if importlib.util.find_spec("openai") is None:
        vector["native_client"] = True
    base = Toggles.none().with_(native_client=vector["native_client"], event_shell=True)
    number = next(counter)
    off = Played(provider, f"base-{number}", turns, base)
    other = Played(provider, f"other-{number}", turns, Toggles(**vector))
    assert off.outcome == other.outcome
    assert off.outcome.success
    assert off.requests == other.requests == len(turns) + 1
    assert off.transcript == other.transcript
    assert off.files == other.files
    assert off.trajectory == other.trajectory
