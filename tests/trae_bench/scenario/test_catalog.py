"""The shipped scenarios: what each must have, and each played once by the real worker."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.experiment import Arm, Side, Trial
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.run.planner import check_names
from trae_bench.scenario import Scenario, catalogue, every_scenario, find, load, split
from trae_bench.subject.agent_core import AgentCoreSubject, toggles

pytestmark = pytest.mark.slow
A_SCREEN = 75
"""Lines."""
A_STORY = {"bugfix"}
"""Longer than a screen, because the session is the point."""
NOT_HERE = {
    "throughput@500": "half a minute",
    "trajectory-long@1000": "minutes",
    "trajectory-long@memory": "the same session as trajectory-long",
    "trajectory-long@history-1000": "ten seconds",
    "trajectory-long@sdk": "ten seconds",
}
"""Scenarios that take too long for a test; `trae-bench run` plays them."""


def all_names() -> list[str]:
    """Every scenario, and every variant of one."""
    return [scenario.name for scenario in every_scenario()]


def scenario_of(name: str) -> Scenario:
    return load(find(name), split(name)[1])


# -- what each must have


@pytest.mark.parametrize("name", all_names())
def test_a_scenario_names_what_there_is(name: str) -> None:
    scenario = scenario_of(name)
    assert scenario.name == name
    check_names(scenario, find(name))
    assert scenario.toggles.vary


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_file_says_what_it_can_show_and_fits_a_screen(name: str) -> None:
    text = find(name).read_text()
    assert text.startswith("#:schema ../docs/schemas/scenario.schema.json\n")
    assert len(text.splitlines()) <= A_SCREEN or name in A_STORY
    scenario = scenario_of(name)
    assert 150 < len(scenario.about) < 700
    assert all(variant.about for variant in scenario.variants)


def test_every_toggle_has_a_scenario_that_can_feel_it() -> None:
    felt = {toggle for name in all_names() for toggle in scenario_of(name).toggles.vary}
    assert felt == set(toggles())


def test_what_is_left_out_here_is_there() -> None:
    assert NOT_HERE.keys() < set(all_names())


# -- each played once


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


def arm(scenario: Scenario, on: bool) -> Arm:
    """All toggles on, or all off; but the vendors' SDKs are extras, which need not be there."""
    switches = dict.fromkeys(toggles(), on) | {"native_client": True}
    if "native_client" in scenario.toggles.vary:
        switches["native_client"] = on
    return Arm("on" if on else "off", switches | scenario.toggles.hold)


def both_arms(scenario: Scenario, provider: Loopback, scratch: Path) -> list[Sample]:
    """Started together, which is quick; nobody looks at the times."""
    sides: tuple[Side, Side] = ("A", "B")
    trials = [
        Trial(scenario.name, "off/on", "serial", 1, side, slot, arm(scenario, side == "B"), 0)
        for slot, side in enumerate(sides)
    ]
    executor: SubprocessExecutor[Script] = SubprocessExecutor(
        AgentCoreSubject(), provider, {scenario.name: scenario}, script=expand, scratch=scratch
    )
    with executor:
        return list(executor.run(trials))


PLAYED = [
    name
    for name in all_names()
    if name not in NOT_HERE and scenario_of(name).subject.install is None
]
"""What is only weighed is in `test_installs.py`."""


@pytest.mark.parametrize("name", PLAYED)
def test_all_on_and_all_off_give_the_same_right_answer(
    name: str, provider: Loopback, tmp_path: Path
) -> None:
    scenario = scenario_of(name)
    if "native_client" in scenario.toggles.vary and find_spec("openai") is None:
        pytest.skip("the SDK is not installed")
    off, on = both_arms(scenario, provider, tmp_path)
    for sample in (off, on):
        assert (sample.status, sample.correct) == ("ok", True), sample.problem
        assert sample.metrics["correct_results"] == 1.0
        missing = set(scenario.metrics) - sample.metrics.keys()
        assert not missing, "a metric that the scenario names could not be worked out"
    assert (off.transcript, off.workspace) == (on.transcript, on.workspace)
    turns = sum(turn.repeat for turn in scenario.turns) * scenario.load.sessions
    faults = sum(fault.kind != "close" for fault in scenario.provider.faults)
    assert off.metrics["requests"] == turns + faults
