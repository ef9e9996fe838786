"""Checks whether an agent can be measured: first contact, then a short session."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.json_difference import difference_text, first_difference
from trae_bench._util.keys import without_keys
from trae_bench.design.plan import agent_arm
from trae_bench.errors import CannotMeasure
from trae_bench.execution.fingerprint import cleaner
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.experiment import Trial
from trae_bench.model.sample import Sample, SessionLog
from trae_bench.provider.conversations import requests_in
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.protocols.authored import Authored, authored
from trae_bench.provider.script import Script
from trae_bench.run.agents import built, contact_place, script_for
from trae_bench.scenario import Normalise, Oracle, Protocol, Scenario, ScriptedCall, ToggleUse, Turn
from trae_bench.scenario.actions import Action, AgentInterface
from trae_bench.scenario.tool_mapping import missing_actions
from trae_bench.scenario.variation import proposed
from trae_bench.subject.agents.catalog import FoundAgent
from trae_bench.subject.agents.contact import Contact, interface_of, meet, seconds_of
from trae_bench.subject.agents.refusing_proxy import refusing_proxy
from trae_bench.subject.command import AgentKey, CommandSubject, PreparedAgent

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
    drift: str = ""
    """How its requests differ from the recorded ones; empty if they do not, or none are given."""
    varying: tuple[Normalise, ...] = ()
    """Entries of `[[normalise]]` with which the requests are those of the recording."""
    scenario: str = ""
    """The scenario that the user named; empty for the session of three replies."""
    compared: bool = False
    """Whether there was a recorded request to compare with."""
    prompt_break: str = ""
    """Where a prompt does not begin with the one before; empty if each does."""
    problem: str = ""
    """Why it cannot be measured, with the last lines of its output; empty if it can."""


class Replay(Struct, frozen=True):
    """The scenario that a check plays."""

    scenario: Scenario = SCENARIO
    recorded: str = ""
    """Last request of the recorded session; empty if there is none."""
    name: str = ""
    """What the user wrote; empty for the session of three replies."""


class Listener:
    """The provider, which keeps the last log."""

    def __init__(self, provider: Loopback) -> None:
        self._provider = provider
        self.base_url = ""
        self.log = SessionLog((), 0, b"")

    def register(self, session: str, script: Script, pressure: Sequence[str] = ()) -> str:
        self.base_url = self._provider.register(session, script, pressure)
        return self.base_url

    def environ(self, session: str) -> dict[str, str]:
        return self._provider.environ(session)

    def collect(self, session: str) -> SessionLog:
        self.log = self._provider.collect(session)
        return self.log


def check_agent(
    found: FoundAgent, say: Callable[[str], None], replay: Replay | None = None
) -> CheckedAgent:
    """Build and start an agent. Raises `CannotMeasure` if it cannot be built."""
    agent, replay = built(found, found.name, say), replay or Replay()
    with contact_place() as (scratch, provider), refusing_proxy() as proxy:
        say(f"agent {agent.name}: starts, and has {seconds_of(agent):g} s for its first request")
        contact = meet(agent, scratch, provider, proxy.url)
        if contact.facts is None:
            problem = f"{contact.problem(proxy.hosts)}{contact.output}"
            return _checked(found, agent, contact, hosts=proxy.hosts, problem=problem)
        agent = replace(agent, interface=interface_of(agent, contact.facts))
        listener = Listener(provider)
        try:
            sample = play(agent, scratch, listener, proxy.url, replay.scenario)
        except CannotMeasure as error:
            return _checked(found, agent, contact, hosts=proxy.hosts, problem=str(error))
    problem = "" if sample.correct else sample.problem or sample.status
    made = replace(
        _checked(found, agent, contact, sample, proxy.hosts, problem), scenario=replay.name
    )
    if not replay.recorded:
        return made
    # The executor's folders of the first side.
    place = scratch.resolve() / "0"
    places = {"workspace": f"{place}/workspace", "home": f"{place}/home"}
    clean = cleaner({**places, "provider": listener.base_url}, replay.scenario.normalise)
    now = clean(listener.log.last_body.decode(errors="replace"))
    drift, varying = drift_from(agent.interface.protocol, clean(replay.recorded), now)
    return replace(made, drift=drift, varying=varying, compared=True)


def drift_from(protocol: Protocol, recorded: str, now: str) -> tuple[str, tuple[Normalise, ...]]:
    """How the agent's part of the last request differs from the recorded one, as a sentence.

    If only times, ids and the like differ, also the entries of `[[normalise]]` for them.
    """
    try:
        before, after = (
            [authored(protocol, one) for one in requests_in(text)] for text in (recorded, now)
        )
        if len(before) != len(after) or None in (*before, *after):
            return _drift(None, None), ()
        values = ([[one.prompt, one.results] for one in side if one] for side in (before, after))
        found = filter(None, map(_drift, before, after))
        return next(found, ""), proposed(*values)
    except RecursionError:
        return _drift(None, None), ()


def _drift(before: Authored | None, after: Authored | None) -> str:
    if before is None or after is None:
        return "the last request cannot be compared with the recorded one"
    names = ("the recording", "the replay")
    if (found := first_difference(before.prompt, after.prompt)) is not None:
        return f"the prompt has changed since the recording{difference_text(*found, names)}"
    if (found := first_difference(before.results, after.results)) is not None:
        return f"the session takes another path: its results{difference_text(*found, names)}"
    return ""


def play(
    agent: PreparedAgent, scratch: Path, provider: Listener, proxy: str, scenario: Scenario
) -> Sample:
    """Let an agent play a scenario once. Raises `CannotMeasure`."""
    trial = Trial(scenario.name, "check", "serial", 0, "A", 0, agent_arm(agent.name), 0)
    with SubprocessExecutor(
        CommandSubject({AgentKey(agent.name): agent}, proxy=proxy),
        provider,
        {scenario.name: scenario},
        script=script_for([agent]),
        scratch=scratch,
    ) as executor:
        (sample,) = executor.run([trial])
    return sample


def _checked(
    found: FoundAgent,
    agent: PreparedAgent,
    contact: Contact,
    sample: Sample | None = None,
    hosts: Iterable[str] = (),
    problem: str = "",
) -> CheckedAgent:
    facts, first = contact.facts, contact.log.first_request
    return CheckedAgent(
        name=agent.name,
        requested=found.requested,
        command=tuple(map(without_keys, agent.entry.argv)),
        interface=None if facts is None else agent.interface,
        offered=() if facts is None else tuple(tool.name for tool in facts.tools),
        by_shell={} if facts is None else missing_actions(agent.interface.tools),
        first_request_bytes=0 if first is None else len(first.body),
        side_calls=contact.log.side_calls,
        hosts=tuple(hosts),
        metrics={} if sample is None else sample.metrics,
        prompt_break=(sample.prompt_break or "") if sample is not None else "",
        problem=problem,
    )
