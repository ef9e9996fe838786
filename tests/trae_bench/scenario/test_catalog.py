"""The shipped scenarios: required properties, and one run of each by the real executor."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from trae_bench.execution.in_process import InProcessExecutor
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.metrics import plain_metric
from trae_bench.model.experiment import Arm, Side, Trial
from trae_bench.model.sample import Sample
from trae_bench.prompt.bill import Accounting
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.respx_mock import RespxProvider
from trae_bench.provider.script import Script, expand
from trae_bench.run import price_file
from trae_bench.run.planner import check_names
from trae_bench.scenario import Scenario, catalogue, every_scenario, find, load, split
from trae_bench.scenario.measurable import IN_PROCESS_METRICS
from trae_bench.subject.agent_core import AgentCoreSubject, toggles

pytestmark = pytest.mark.slow
MAX_LINES = 75
"""Maximum lines of a scenario file: one screen."""
LONG_FILES = {"bugfix"}
"""Exempt from `MAX_LINES`, because the session itself is long."""
NOT_RUN = {
    "throughput@500": "half a minute",
    "trajectory-long@1000": "minutes",
    "trajectory-long@memory": "the same session as trajectory-long",
    "trajectory-long@history-1000": "ten seconds",
    "trajectory-long@sdk": "ten seconds",
}
"""Scenarios that take too long for a test; `trae-bench run` runs them."""


def all_names() -> list[str]:
    """Return the names of all scenarios and variants."""
    return [scenario.name for scenario in every_scenario()]


def scenario_of(name: str) -> Scenario:
    return load(find(name), split(name)[1])


# -- required properties


@pytest.mark.parametrize("name", all_names())
def test_a_scenario_uses_known_names(name: str) -> None:
    scenario = scenario_of(name)
    assert scenario.name == name
    check_names(scenario, find(name))
    # agent-steps compares agents, not toggles.
    assert scenario.toggles.vary or name.partition("@")[0] == "agent-steps"


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_file_describes_its_limits_and_fits_a_screen(name: str) -> None:
    text = find(name).read_text()
    assert text.startswith("#:schema ../docs/schemas/scenario.schema.json\n")
    assert len(text.splitlines()) <= MAX_LINES or name in LONG_FILES
    scenario = scenario_of(name)
    assert 150 < len(scenario.about) < 700
    assert all(variant.about for variant in scenario.variants)


def test_every_toggle_is_varied_by_a_scenario() -> None:
    varied = {toggle for name in all_names() for toggle in scenario_of(name).toggles.vary}
    assert varied == set(toggles())


def test_in_process_variants_are_shipped() -> None:
    mocked = {name for name in all_names() if scenario_of(name).provider.transport == "respx"}
    assert mocked == {"bugfix@respx", "trajectory-long@respx"}
    assert all(set(scenario_of(name).metrics) <= IN_PROCESS_METRICS for name in mocked)
    assert all("`mock`" in scenario_of(name).about for name in mocked), "names the extra"


def test_the_excluded_scenarios_exist() -> None:
    assert NOT_RUN.keys() < set(all_names())


# -- one run of each


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback(accounting=Accounting(price_file.load().table)) as loopback:
        yield loopback


def arm(scenario: Scenario, on: bool) -> Arm:
    """All toggles on or off, except the vendors' SDKs, which are optional extras."""
    switches = dict.fromkeys(toggles(), on) | {"native_client": True}
    if "native_client" in scenario.toggles.vary:
        switches["native_client"] = on
    return Arm("on" if on else "off", switches | scenario.toggles.hold)


def both_arms(scenario: Scenario, provider: Loopback, scratch: Path) -> list[Sample]:
    """Run both arms at once, which is fast; times do not matter here."""
    sides: tuple[Side, Side] = ("A", "B")
    trials = [
        Trial(scenario.name, "off/on", "serial", 1, side, slot, arm(scenario, side == "B"), 0)
        for slot, side in enumerate(sides)
    ]
    scenarios, subject = {scenario.name: scenario}, AgentCoreSubject()
    if scenario.provider.transport == "respx":
        with RespxProvider() as mock:
            in_process: InProcessExecutor[Script] = InProcessExecutor(
                subject, mock, scenarios, script=expand, scratch=scratch
            )
            return list(in_process.run(trials))
    executor: SubprocessExecutor[Script] = SubprocessExecutor(
        subject, provider, scenarios, script=expand, scratch=scratch
    )
    with executor:
        return list(executor.run(trials))


RUN = [
    name
    for name in all_names()
    if name not in NOT_RUN and scenario_of(name).subject.install is None
]
"""`test_installs.py` covers the scenarios that measure an installation."""


@pytest.mark.parametrize("name", RUN)
def test_all_on_and_all_off_give_the_same_correct_answer(
    name: str, provider: Loopback, tmp_path: Path
) -> None:
    scenario = scenario_of(name)
    if "native_client" in scenario.toggles.vary and find_spec("openai") is None:
        pytest.skip("the SDK is not installed")
    off, on = both_arms(scenario, provider, tmp_path)
    for sample in (off, on):
        assert (sample.status, sample.correct) == ("ok", True), sample.problem
        assert sample.metrics.get("correct_results", 1.0) == 1.0
        # Net times exist only for the pinned trials of a duet.
        missing = set(map(plain_metric, scenario.metrics)) - sample.metrics.keys()
        assert not missing, "the sample lacks a metric of the scenario"
    assert (off.transcript, off.workspace) == (on.transcript, on.workspace)
    turns = sum(turn.repeat for turn in scenario.turns) * scenario.load.sessions
    faults = sum(fault.kind != "close" for fault in scenario.provider.faults)
    assert off.metrics["requests"] == turns + faults
