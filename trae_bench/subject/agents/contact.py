"""First contact: starts an agent once to learn how it speaks.

The agent plays a session that answers every protocol with a short text. Its first request tells
the protocol, streaming and the tools. Measured trials then need no detection.
"""

import os
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words
from trae_bench._util.keys import without_keys
from trae_bench.design.plan import agent_arm
from trae_bench.errors import CannotMeasure
from trae_bench.execution.launcher_client import REPORT_FD, Job, LauncherClient
from trae_bench.execution.workspace import create_home, remove
from trae_bench.model.experiment import SessionEndpoint, Trial
from trae_bench.model.sample import ProcessResult, SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.protocols.requests import RequestFacts, read_request
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.scenario import Scenario, ToggleUse, Turn
from trae_bench.scenario.actions import AgentInterface
from trae_bench.scenario.tool_mapping import tools_from
from trae_bench.subject.agents.refusing_proxy import refusing_proxy
from trae_bench.subject.command import AgentKey, CommandSubject, PreparedAgent

GREETING = "Hello. There is nothing to do, so this session ends here."
CONTACT_SECONDS = 60.0
_SCENARIO = Scenario(
    name="first-contact",
    about="The first request of an agent.",
    task="Say hello. Do not use a tool.",
    turns=(Turn(text=GREETING),),
    toggles=ToggleUse(()),
    metrics=("cpu",),
)


class Contact(Struct, frozen=True):
    """What an agent did in its first session."""

    process: ProcessResult
    log: SessionLog
    facts: RequestFacts | None
    """Its first request; None if it sent no model request."""
    output: str
    """The last lines of its output, as the end of a sentence; empty if it printed nothing."""
    hint: str = ""
    """What may be wrong with its command, as the end of a sentence."""

    def problem(self, hosts: Collection[str]) -> str:
        """Why the agent cannot be measured, as a sentence; empty if it can.

        `hosts` are the other hosts that it asked for.
        """
        if self.facts is not None:
            return ""
        if hosts:
            return f"it asks {', '.join(hosts)} instead of the provider; see {{base_url}}"
        if self.log.rejected:
            return f"it sent no model request; its first request: {self.log.rejected[0]}"
        if self.process.timed_out:
            waits = "perhaps it waits for a terminal or for another host"
            return f"it sent no request before its timeout; {waits}"
        if self.process.failure is not None:
            return f"it sent no request: {self.process.failure}{self.hint}"
        return "it ended with exit status 0 and sent no request"


def seconds_of(agent: PreparedAgent) -> float:
    """Seconds that the agent gets for the first contact."""
    return agent.entry.timeout_seconds or CONTACT_SECONDS


def meet(agent: PreparedAgent, scratch: Path, provider: Loopback, proxy: str) -> Contact:
    """Start the agent once and return what it did. `proxy` is the URL of a proxy that refuses."""
    folder = scratch / "contact"
    remove(folder)
    home, workspace = create_home(folder), folder / "workspace"
    workspace.mkdir()
    session, trial = f"contact-{agent.name}", _trial(agent)
    script = Script((PlayedTurn(GREETING),), any_protocol=True, client="foreign")
    endpoint = SessionEndpoint(provider.register(session, script), str(workspace))
    subject = CommandSubject({AgentKey(agent.name): agent}, proxy=proxy)
    command = subject.command(trial, _SCENARIO, (endpoint,), home, REPORT_FD)
    job = Job(
        argv=command.argv,
        env=environment(home) | provider.environ(session) | command.env,
        cwd=command.cwd,
        log=str(folder / "log"),
        stdin=command.stdin,
    )
    with closing(LauncherClient()) as launcher:
        (process,) = launcher.run([job], seconds_of(agent))
    log = provider.collect(session)
    first = log.first_request
    facts = None if first is None else read_request(first.path, first.body)
    output = without_keys(last_words(folder / "log"))
    return Contact(process, log, facts, output, _relative_file(agent))


def _relative_file(agent: PreparedAgent) -> str:
    """A hint if a word of the command is a file in the folder of the agent, where it does not run.

    The program itself is looked for in that folder.
    """
    for word in agent.entry.argv[1:]:
        relative = "{" not in word and not word.startswith(("-", "/"))
        # `Path.is_file` raises an error for a text that is too long for a path.
        if relative and os.path.isfile(agent.folder / word):  # noqa: PTH113
            return f" (it runs in the workspace of the trial: write {{folder}}/{word})"
    return ""


def introduced(
    agent: PreparedAgent, scratch: Path, provider: Loopback, say: Callable[[str], None]
) -> PreparedAgent:
    """Return the agent with its interface. Raises `CannotMeasure` if it sends no request."""
    with refusing_proxy() as proxy:
        contact = meet(agent, scratch, provider, proxy.url)
    if contact.facts is None:
        problem = f"{contact.problem(proxy.hosts)}{contact.output}"
        raise CannotMeasure(f"agent {agent.label}: {problem}\n`trae-bench agents check` tells more")
    interface = interface_of(agent, contact.facts)
    speaks = "streamed" if interface.stream else "not streamed"
    say(f"agent {agent.label}: speaks {interface.protocol}, {speaks}")
    return replace(agent, interface=interface)


def interface_of(agent: PreparedAgent, facts: RequestFacts) -> AgentInterface:
    """How an agent speaks: what its entry says, and for the rest its first request."""
    entry = agent.entry
    return AgentInterface(
        protocol=entry.protocol or facts.protocol,
        stream=facts.stream if entry.stream is None else entry.stream,
        tools=tools_from(facts.tools) | entry.tools,
        parallel_calls=entry.parallel_calls,
        offered=tuple(tool.name for tool in facts.tools),
    )


def _trial(agent: PreparedAgent) -> Trial:
    arm = agent_arm(agent.name)
    return Trial(_SCENARIO.name, "contact", "serial", 0, "A", 0, arm, 0)
