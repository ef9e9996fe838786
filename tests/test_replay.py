"""A trajectory that is converted to a scenario and replayed gives the same trajectory."""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.toggles import Toggles
from tests.properties import examples
from tests.test_equal_answers import TURNS, scenario, without_times
from trae_bench.execution.workspace import lay_out
from trae_bench.provider.respx_mock import RespxProvider
from trae_bench.provider.script import expand
from trae_bench.scenario import Scenario, Turn, WorkspaceFixture, find, load, parse
from trae_bench.scenario.importers.conversion import recorded, text_files
from trae_bench.scenario.importers.reading import read_session


def play(scenario: Scenario, folder: Path) -> Path:
    """Run the scenario in `folder` and return the path of its trajectory."""
    workspace, trajectory = folder / "workspace", folder / "trajectory.json"
    workspace.mkdir(parents=True)
    lay_out(scenario.workspace, workspace)
    with RespxProvider() as provider:
        base_url = provider.register("s", expand(scenario, workspace))
        entry = ProviderSettings(api_key="sk-not-a-key", model="scripted", base_url=base_url)
        outcome = asyncio.run(
            run_task(
                scenario.task.replace("{workspace}", str(workspace)),
                settings=Settings(max_steps=50, model_providers={"openai": entry}),
                workspace=workspace,
                trajectory=trajectory,
                toggles=Toggles(),
            )
        )
    assert outcome.success
    return trajectory


def content(trajectory: Path, clean: Callable[[str], str] = str) -> Any:
    """Return the trajectory without timestamps and paths."""
    text = trajectory.read_text(encoding="utf-8").replace(str(trajectory.parent), "HOME")
    return without_times(json.loads(clean(text)))


def scenario_from(first: Path, name: str) -> Scenario:
    """Convert a trajectory to a scenario."""
    workspace = first.parent / "workspace"
    files = text_files(first.parent / "start")
    converted = recorded(
        read_session(first), name, toggles=(), workspace=str(workspace), files=files
    )
    assert all("checks the final text only" in note for note in converted.notes)
    return parse(converted.text)


def save_workspace(scenario: Scenario, folder: Path) -> None:
    """Write the initial workspace to `folder/start`."""
    (folder / "start").mkdir(parents=True)
    lay_out(scenario.workspace, folder / "start")


@pytest.mark.parametrize("name", ["bugfix", "fan-out"])
def test_replay_of_a_shipped_scenario(tmp_path: Path, name: str) -> None:
    original = load(find(name))
    save_workspace(original, tmp_path / "one")
    first = play(original, tmp_path / "one")
    second = play(scenario_from(first, name), tmp_path / "two")

    def without_clocks(text: str) -> str:
        for rule in original.normalise:
            text = re.sub(rule.pattern, rule.replace, text)
        return text

    assert content(second, without_clocks) == content(first, without_clocks)


@examples(15, one_fixture=True)
@given(turns=TURNS)
def test_random_sessions(turns: list[Turn]) -> None:
    not_empty = [turn for turn in turns if turn.text or turn.calls]
    with tempfile.TemporaryDirectory() as home:
        one, two = Path(home, "one"), Path(home, "two")
        original = scenario(not_empty)
        (one / "start").mkdir(parents=True)
        (one / "start" / "a.txt").write_text("alpha\n")
        first = play(with_file(original), one)
        second = play(scenario_from(first, "random"), two)
        assert content(second) == content(first)


def with_file(scenario: Scenario) -> Scenario:
    fixture = WorkspaceFixture(files={"a.txt": "alpha\n"})
    return msgspec.structs.replace(scenario, workspace=fixture)
