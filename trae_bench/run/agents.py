"""Prepares the agents of a run: their entries, their environments, and how they speak."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.keys import without_keys
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Equal
from trae_bench.model.run import AgentAtHead, AgentUsed, Header
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import Script, expand
from trae_bench.run.scratch import scratch_folder
from trae_bench.run.settings import load
from trae_bench.scenario import Scenario
from trae_bench.subject.agents.catalog import FoundAgent, needs_checkout
from trae_bench.subject.agents.contact import introduced
from trae_bench.subject.agents.entry import JUDGED, AgentEntry, read_entry
from trae_bench.subject.agents.environment import build
from trae_bench.subject.command import AgentKey, PreparedAgent, Side, answer_place
from trae_bench.subject.revisions import Revision

Say = Callable[[str], None]
MAX_NAME = 100
"""Characters of an agent's name. Names of arms and contrasts contain it."""
StoredName = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class AgentRevisions(Struct, frozen=True):
    """Two revisions of the repository at `top`, whose agent is compared."""

    top: Path
    base: Revision
    head: Revision


class PreparedAgents(Struct, frozen=True):
    """The agents of a run, ready to start."""

    by_key: dict[AgentKey, PreparedAgent]
    used: dict[str, AgentUsed]
    """What the header stores of them."""

    @property
    def equal(self) -> Equal:
        """What both sides of every pair must have equal."""
        return next(iter(self.used.values())).equal

    @property
    def have_own_environments(self) -> bool:
        """Whether the agents run in different environments."""
        return len({agent.env for agent in self.by_key.values()}) > 1


def prepare(
    agents: Mapping[str, FoundAgent],
    revisions: AgentRevisions | None,
    equal: Equal | None,
    say: Say,
) -> PreparedAgents:
    """Build the environments of the agents and start each once.

    With `revisions`, the only agent is prepared at both. `equal` overrides the entries. Raises
    `UsageError` for a wrong entry, `CannotMeasure` for an agent that cannot be built or started.
    """
    wanted = {AgentKey(name): found for name, found in agents.items()}
    if revisions is not None:
        ((name, found),) = agents.items()
        wanted = _at_both(name, found, revisions)
    prepared: dict[AgentKey, PreparedAgent] = {}
    with contact_place() as (scratch, provider):
        for key, found in wanted.items():
            side = _side(key, revisions)
            agent = built(found, key.agent, say, side=side)
            prepared[key] = introduced(agent, scratch, provider, say)
    used: dict[str, AgentUsed] = {}
    for key, agent in prepared.items():
        requested = agents[key.agent].requested
        own = equal or ("work" if len(agents) > 1 else agent.entry.equal)
        if agent.side == "head":
            used[key.agent] = replace(used[key.agent], head=AgentAtHead(**_facts(agent)))
        else:
            used[key.agent] = AgentUsed(requested=requested, equal=own, **_facts(agent))
    _require_storable(used)
    return PreparedAgents(prepared, used)


def _side(key: AgentKey, revisions: AgentRevisions | None) -> Side:
    if revisions is None:
        return ""
    return "base" if key.revision == revisions.base.name else "head"


def _at_both(name: str, found: FoundAgent, revisions: AgentRevisions) -> dict[AgentKey, FoundAgent]:
    """The agent at base and head. Raises `UsageError` if they cannot be compared."""
    base = at_revision(found, revisions.base, revisions.top)
    head = at_revision(found, revisions.head, revisions.top)
    # A change must not decide how it is judged.
    judged = {field: getattr(base.entry, field) for field in JUDGED}
    head = replace(head, entry=replace(head.entry, **judged))
    _require_own_code(name, base.entry, head.entry)
    if answer_place(base.entry) != answer_place(head.entry):
        raise UsageError(
            f"agent {name}: only one revision uses {{report_fd}}, so their answers cannot be "
            "judged alike; make both use it, with --agent 'COMMAND'"
        )
    return {
        AgentKey(name, revisions.base.name): base,
        AgentKey(name, revisions.head.name): head,
    }


def script_for(agents: Iterable[PreparedAgent]) -> Callable[[Scenario, Path], Script]:
    """How the provider's script follows from a scenario that one of these agents plays."""
    with_tools = {agent.name for agent in agents if agent.interface.offered}

    def script(scenario: Scenario, workspace: Path) -> Script:
        return replace(expand(scenario, workspace), has_tools=scenario.agent in with_tools)

    return script


def require_same(journal_file: Path, header: Header, found: PreparedAgents) -> None:
    """Raises `UsageError` if an agent differs from that of the run that is resumed."""
    for name, before in (header.agents or {}).items():
        if found.used.get(name) != before:
            raise UsageError(
                f"{journal_file}: the agent {name} has changed since this run started; restore "
                "its entry, or start a new run"
            )


def at_revision(found: FoundAgent, revision: Revision, top: Path) -> FoundAgent:
    """The agent as a revision has it. Raises `UsageError` if the revision does not have it.

    An entry in a file outside the repository is the same for every revision. `{folder}` is then
    the checkout.
    """
    if found.source == "shipped":
        raise UsageError(
            f"agent {found.name} ships with trae-bench and has no revisions here; name an agent "
            "of this repository"
        )
    # Links are followed, as git follows them to the root of the repository.
    place = found.folder.resolve()
    if found.source == "file" and not place.is_relative_to(top):
        return replace(found, folder=revision.folder)
    if not place.is_relative_to(top):
        raise UsageError(f"agent {found.name}: {found.folder} is outside the repository {top}")
    folder = revision.folder / place.relative_to(top)
    return replace(found, entry=_entry_at(found, folder, revision.name), folder=folder)


def _entry_at(found: FoundAgent, folder: Path, revision: str) -> AgentEntry:
    if found.source == "file":
        path = folder / Path(found.requested).name
        if path.is_file():
            return read_entry(path)
    elif found.source == "project":
        configured = load(folder).agents
        if found.name in configured:
            return configured[found.name]
    else:
        return found.entry
    raise UsageError(
        f"revision {revision} has no agent {found.name}; give its command line with --agent "
        "'COMMAND', or copy its entry to a file outside the repository and give --agent FILE.toml, "
        "so that both revisions use it"
    )


def _require_own_code(name: str, base: AgentEntry, head: AgentEntry) -> None:
    """Raises `UsageError` if a revision would run an installed program instead of its code."""
    how = ("argv", "sessions_argv", "env", "files", "stdin", "requirements", "npm")
    same = all(getattr(base, field) == getattr(head, field) for field in how)
    if (same and not head.uses_folder) or base.uses_folder != head.uses_folder:
        which = "its entry" if base.uses_folder == head.uses_folder else "the entry of one revision"
        raise UsageError(
            f"agent {name}: nothing in {which} names {{folder}}, so an installed program would run "
            "instead of the code of the revision; write {folder} where its code is, such as "
            "`{python} {folder}/agent.py`, or install it with requirements = ['{folder}']"
        )


def _require_storable(used: Mapping[str, AgentUsed]) -> None:
    """Raises `UsageError` if a run file cannot hold an agent: it would be unreadable."""
    for name, agent in used.items():
        try:
            msgspec.convert({name: msgspec.to_builtins(agent)}, dict[StoredName, AgentUsed])
        except msgspec.ValidationError as error:
            raise UsageError(
                f"agent {name[:MAX_NAME]}: too long for a run file: {error}; move long texts to "
                "[files] or to a script"
            ) from error


def built(found: FoundAgent, name: str, say: Say, *, side: Side = "") -> PreparedAgent:
    """The agent with its environment. With a `side`, what builds from its folder gets a copy.

    Raises `UsageError` if it needs a checkout, `CannotMeasure` if it cannot be built.
    """
    if needs_checkout(found):
        raise UsageError(
            f"the agent {found.name} runs from a checkout of its repository; name its folder: "
            f"--agent {found.name}=FOLDER"
        )
    agent = PreparedAgent(name, found.entry, found.folder, side=side)
    made = build(agent.label, found.entry, found.folder, say, copy=bool(side))
    return replace(agent, folder=made.folder, env=made.env)


def _facts(agent: PreparedAgent) -> dict[str, Any]:
    """What the header stores of an agent, or of its head."""
    return {
        "command": tuple(map(without_keys, agent.entry.argv)),
        "digest": agent.digest,
        "interface": msgspec.json.encode(agent.interface).decode(),
        "requirements": tuple(map(without_keys, (*agent.entry.requirements, *agent.entry.npm))),
        "installed": 0 if agent.env is None else _size(agent.env),
    }


def _size(folder: Path) -> int:
    """Bytes of the files below a folder, without byte-code. Links are not followed."""
    total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            with suppress(FileNotFoundError):  # A cache that another run cleans.
                total += Path(root, name).lstat().st_size
    return total


@contextmanager
def contact_place() -> Iterator[tuple[Path, Loopback]]:
    """A folder for temporary files, and a scripted provider."""
    with scratch_folder() as scratch, Loopback() as provider:
        yield scratch, provider
