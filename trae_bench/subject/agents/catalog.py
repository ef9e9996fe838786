"""Finds the agent that a user names: in the project's settings, as a file, or shipped.

`NAME=FOLDER` is the agent NAME with its code in FOLDER.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from trae_bench._util.json_tree import is_utf8
from trae_bench.errors import UsageError
from trae_bench.scenario.diagnostics import suggestion
from trae_bench.subject.agents.entry import NAME, SHIPPED, AgentEntry, from_command_line, read_entry

ENDING = ".toml"


class FoundAgent(Struct, frozen=True):
    """An agent that a user named."""

    name: str
    entry: AgentEntry
    folder: Path
    """Folder of its code."""
    requested: str
    """What the user wrote."""
    source: Literal["project", "file", "shipped", "checkout", "command line"]
    """`checkout`: an entry that ships, with a folder that the user names."""


def shipped() -> dict[str, Path]:
    """The files of the entries that ship, by the names of their agents."""
    return {path.stem: path for path in sorted(SHIPPED.glob(f"*{ENDING}"))}


def find_agent(requested: str, configured: Mapping[str, AgentEntry], project: Path) -> FoundAgent:
    """The agent that a name, `NAME=FOLDER`, a file or a command line stands for.

    `configured` are the entries of the project in the folder `project`; they come before those
    that ship. Raises `UsageError`.
    """
    if not is_utf8(requested):
        raise UsageError(f"--agent {requested!r} is not UTF-8, which a run file needs")
    # `Path.is_file` raises an error for a text that is too long for a path.
    exists = os.path.isfile(requested)  # noqa: PTH113
    if requested.endswith(ENDING) and (exists or " " not in requested):
        path = Path(requested)
        if not NAME.fullmatch(path.stem):
            raise UsageError(
                f"--agent {requested}: the file name is the agent's name; use lower-case letters "
                "and digits, words joined by single dashes"
            )
        return FoundAgent(path.stem, read_entry(path), path.absolute().parent, requested, "file")
    files = shipped()
    name, _, folder = requested.partition("=")
    if folder and (name in configured or name in files):
        return _in_folder(find_agent(name, configured, project), requested, Path(folder))
    if "{" in requested or " " in requested:
        name, entry = from_command_line(requested)
        return FoundAgent(name, entry, Path.cwd(), requested, "command line")
    if requested in configured:
        return FoundAgent(requested, configured[requested], project, requested, "project")
    if requested in files:
        return FoundAgent(requested, read_entry(files[requested]), SHIPPED, requested, "shipped")
    raise UsageError(
        f"no agent {requested!r}{suggestion(requested, {**configured, **files})}. A path that ends "
        "in .toml names a file; a command line contains {base_url} and {task}"
    )


def _in_folder(found: FoundAgent, requested: str, folder: Path) -> FoundAgent:
    """The agent with the code in `folder`. Raises `UsageError` if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"--agent {requested}: no folder {folder}; name a checkout of the agent")
    source = "checkout" if found.source == "shipped" else found.source
    return replace(found, folder=folder.absolute(), requested=requested, source=source)


def is_name(requested: str) -> bool:
    """Whether a request only names an agent of the project or one that ships.

    Any other request, a command line or a file, chooses what runs.
    """
    return NAME.fullmatch(requested) is not None


def needs_checkout(found: FoundAgent) -> bool:
    """Whether an entry that ships needs the folder of a checkout, and has none."""
    # The lock files of an entry lie in the folder of its code, which may ship too.
    missing = (name for name in found.entry.lock_files if not (found.folder / name).exists())
    return found.source == "shipped" and any(missing)


def find_agents(
    requested: Sequence[str], configured: Mapping[str, AgentEntry], project: Path
) -> dict[str, FoundAgent]:
    """The agents by name, the baseline first. Equal names get a number. Raises `UsageError`."""
    found: dict[str, FoundAgent] = {}
    for text in requested:
        agent = find_agent(text, configured, project)
        name, number = agent.name, 2
        while name in found:
            name, number = f"{agent.name}-{number}", number + 1
        found[name] = replace(agent, name=name)
    return found
