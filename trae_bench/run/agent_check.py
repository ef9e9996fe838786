"""Checks whether an agent can be measured: first contact, then a short session."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.design.plan import agent_arm
from trae_bench.errors import CannotMeasure
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.experiment import Trial
from trae_bench.model.sample import Sample
from trae_bench.provider.loopback import Loopback
from trae_bench.run.agents import built, contact_place, script_for
from trae_bench.scenario import Oracle, Scenario, ScriptedCall, ToggleUse, Turn
from trae_bench.scenario.actions import Action, AgentInterface
from trae_bench.scenario.tool_mapping import missing_actions
from trae_bench.subject.agents.catalog import FoundAgent
from trae_bench.subject.agents.contact import Contact, interface_of, meet
from trae_bench.subject.agents.refusing_proxy import refusing_proxy
from trae_bench.subject.command import AgentKey, CommandSubject, PreparedAgent, scenario_for

FILE, CONTENT, FINAL = "check.txt", "hello\n", "All done."
SCENARIO = Scenario(
    name="agent-check",
    about="A file is written and read, then the session ends.",
    task=f"Write hello into {FILE}, read the file, and say that all is done.",
    turns=(
        Turn(text="I write.", calls=(ScriptedCall("bash", {"command": f"echo hello > {FILE}"}),)),
        Turn(text="I read.", calls=(ScriptedCall("bash", {"command": f"cat {FILE}"}),)),
        Turn(text=FINAL, calls=(ScriptedCall("task_done"),)),
    ),
    toggles=ToggleUse(()),
    metrics=("cpu",),
    oracle=Oracle(files={FILE: CONTENT}, final_text=FINAL),
)


class CheckedAgent(Struct, frozen=True):
    """What an agent did against the scripted provider."""

    name: str
    requested: str
    """What the user wrote."""
    command: tuple[str, ...]
    interface: AgentInterface | None
    """How it speaks; None if it sent no model request."""
    offered: tuple[str, ...]
    """The tools in its first request."""
    by_shell: dict[Action, str]
    """For each action that no tool of its own does: what does it instead."""
    first_request_bytes: int
    side_calls: int
    """Requests that are no step of the session, such as the list of models."""
    hosts: tuple[str, ...]
    """Other hosts that it asked for, and that were refused."""
    metrics: dict[str, float]
    """Of the session of three replies; empty if it failed."""
    problem: str
    """Why it cannot be measured, with the last lines of its output; empty if it can."""


def check_agent(found: FoundAgent, say: Callable[[str], None]) -> CheckedAgent:
    """Build and start an agent. Raises `CannotMeasure` if it cannot be built."""
    agent = built(found, found.name, say)
    with contact_place() as (scratch, provider), refusing_proxy() as proxy:
        contact = meet(agent, scratch, provider, proxy.url)
        if contact.facts is None:
            problem = f"{contact.problem(proxy.hosts)}{contact.output}"
            return _checked(found, agent, contact, None, tuple(proxy.hosts), problem)
        agent = replace(agent, interface=interface_of(agent, contact.facts))
        try:
            sample = _play(agent, scratch, provider, proxy.url)
        except CannotMeasure as error:
            return _checked(found, agent, contact, None, tuple(proxy.hosts), str(error))
        problem = "" if sample.correct else sample.problem or sample.status
        return _checked(found, agent, contact, sample, tuple(proxy.hosts), problem)


def _play(agent: PreparedAgent, scratch: Path, provider: Loopback, proxy: str) -> Sample:
    # Raises here, with the reason, if the agent lacks a tool.
    scenario_for(SCENARIO, agent)
    arm = agent_arm(agent.name)
    trial = Trial(SCENARIO.name, "check", "serial", 0, "A", 0, arm, 0)
    with SubprocessExecutor(
        CommandSubject({AgentKey(agent.name): agent}, proxy=proxy),
        provider,
        {SCENARIO.name: SCENARIO},
        script=script_for([agent]),
        scratch=scratch,
    ) as executor:
        (sample,) = executor.run([trial])
    return sample


def _checked(
    found: FoundAgent,
    agent: PreparedAgent,
    contact: Contact,
    sample: Sample | None,
    hosts: tuple[str, ...],
    problem: str,
) -> CheckedAgent:
    facts, first = contact.facts, contact.log.first_request
    return CheckedAgent(
        name=agent.name,
        requested=found.requested,
        command=agent.entry.argv,
        interface=None if facts is None else agent.interface,
        offered=() if facts is None else tuple(tool.name for tool in facts.tools),
        by_shell={} if facts is None else missing_actions(agent.interface.tools),
        first_request_bytes=0 if first is None else len(first.body),
        side_calls=contact.log.side_calls,
        hosts=hosts,
        metrics={} if sample is None else sample.metrics,
        problem=problem,
    )
