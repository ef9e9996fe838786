"""The entry of an agent: how to build, start and judge it.

An entry is a table `[tool.trae-bench.agents.NAME]` of a pyproject.toml, a file NAME.toml with
the same keys, a file that ships in `shipped/`, or a command line.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from trae_bench._util.toml_positions import TomlPath
from trae_bench.errors import UsageError
from trae_bench.scenario import Protocol
from trae_bench.scenario.actions import Action, ToolMapping
from trae_bench.scenario.diagnostics import Diagnostic, error_at, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.toml_errors import explain, read_toml

PLACEHOLDERS = (
    "api_key",
    "base_url",
    "env",
    "folder",
    "home",
    "model",
    "python",
    "report_fd",
    "server_url",
    "sessions_file",
    "task",
    "task_file",
    "workspace",
)
"""Placeholders of commands, environment values, files and standard input, in braces:

    api_key     a key, which the scripted provider does not check
    base_url    URL of the provider's API, with `/v1` where the protocol's clients expect it
    env         folder of the environment that `requirements`, `npm` and `setup` build
    folder      folder of the agent's code: that of its entry, or the checkout of a revision
    home        home folder of the trial
    model       name of the model
    python      interpreter of the environment; without one, the one that is found on the PATH
    report_fd   file descriptor to which the agent may write a `ChildReport` in JSON
    server_url  URL of the provider without `/v1`
    sessions_file
                a JSON object with `concurrency`, and a list `sessions` of objects with `base_url`,
                `server_url`, `task` and `workspace`; only with the field `sessions`
    task        the task of the scenario
    task_file   a file in the home folder that contains the task
    workspace   working folder
"""
JUDGED = ("equal", "final_text", "ignore", "timeout_seconds")
"""Fields that decide how a session is judged. A change must not set them for its own gate."""
_BUILD_PLACEHOLDERS = frozenset({"env", "folder", "python"})
SHIPPED = Path(__file__).parent / "shipped"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class AgentEntry(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """How to build, start and judge an agent. Strings may contain `PLACEHOLDERS`."""

    command: str | tuple[str, ...]
    """Command line: a string, split as a shell does, or a list. No shell runs it."""
    about: str = ""
    """What the agent is, with a URL."""
    sessions: str | tuple[str, ...] = ()
    """Command line that runs the sessions in `{sessions_file}`, `concurrency` of them at a time,
    in one process. Default: it plays only scenarios with one session."""
    env: dict[str, str] = {}
    """Variables of its environment. Of the user's environment, only `pass-env` passes."""
    pass_env: tuple[str, ...] = ()
    """Names of the variables that pass from the user's environment. Do not list keys."""
    files: dict[str, str] = {}
    """Files to write below the home folder before each start, text by relative path."""
    stdin: str = ""
    """Text on its standard input. Default: none."""
    requirements: tuple[str, ...] = ()
    """Python requirements, installed into a virtual environment at `{env}`."""
    npm: tuple[str, ...] = ()
    """npm packages, installed below `{env}`; their commands are on the PATH."""
    setup: tuple[str, ...] = ()
    """Shell commands that build the rest, run in `{folder}` after the installs."""
    lock_files: tuple[str, ...] = ()
    """Files below `{folder}` whose content decides whether the environment is built again."""
    protocol: Protocol | None = None
    """Protocol that it speaks. Default: detected from its first request."""
    stream: bool | None = None
    """Whether it asks for streamed replies. Default: detected."""
    tools: dict[Action, ToolMapping] = {}
    """Its tool for each action. Default: derived from the tools in its first request."""
    parallel_calls: bool = True
    """False if a reply must not have more than one tool call."""
    final_text: Literal["none", "stdout"] = "none"
    """Where it writes its final answer. With `none`, the oracle does not check the answer."""
    equal: Literal["conversation", "work"] = "conversation"
    """What both sides of a pair must have equal: requests and files, or files only."""
    ignore: tuple[str, ...] = ()
    """Shell patterns of files that it leaves in the workspace and that do not count."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    """Seconds for one session. Default: the scenario's."""

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line as a list."""
        return _split(self.command)

    @property
    def sessions_argv(self) -> tuple[str, ...]:
        """The command line for several sessions as a list; empty without one."""
        return _split(self.sessions)

    @property
    def builds(self) -> bool:
        """Whether it has an environment of its own."""
        return bool(self.requirements or self.npm or self.setup)

    @property
    def builds_from_folder(self) -> bool:
        """Whether its environment depends on the files in `{folder}`, where the builds run."""
        return bool(self.setup) or any(map(_is_local, (*self.requirements, *self.npm)))

    @property
    def uses_folder(self) -> bool:
        """Whether it runs code in `{folder}`, and not only what is installed elsewhere."""
        texts = (text for _, text in _texts(self, self.argv))
        program = self.argv[0]
        relative = "/" in program and not program.startswith(("/", "{"))
        return self.builds_from_folder or relative or any("{folder}" in text for text in texts)


def _split(command: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(shlex.split(command)) if isinstance(command, str) else command


def read_entry(path: Path) -> AgentEntry:
    """Read the entry in a file. Raises `ScenarioError`: `file:line: path: problem; remedy`."""
    text = text_of(path)
    document = read_toml(text, str(path))
    try:
        entry = msgspec.convert(document, AgentEntry)
    except msgspec.ValidationError as error:
        place, problem = explain(str(error), AgentEntry)
        raise error_at(str(path), text, place, problem) from error
    raise_for(list(entry_problems(entry)), str(path), text)
    return entry


def from_command_line(line: str) -> tuple[str, AgentEntry]:
    """The name and the entry of an agent that is given as a command line. Raises `UsageError`."""
    try:
        argv = tuple(shlex.split(line))
    except ValueError as error:
        raise UsageError(f"--agent {line!r}: {error}; quote it as in a shell") from error
    entry = AgentEntry(command=argv)
    for _, problem in entry_problems(entry):
        raise UsageError(f"--agent {line!r}: {problem}")
    words = re.findall(r"[a-z0-9]+", Path(argv[0]).stem.lower())
    return "-".join(words) or "agent", entry


def entry_problems(entry: AgentEntry, path: TomlPath = ()) -> Iterator[Diagnostic]:
    """Yield what is wrong in an entry whose fields have the right types.

    `path` is the place of the entry in its file.
    """
    for field in ("command", "sessions"):
        try:
            _split(getattr(entry, field))
        except ValueError as error:
            yield (*path, field), f"{error}; quote it as in a shell, or write a list"
            return
    argv = entry.argv
    if not argv or not argv[0]:
        yield (*path, "command"), "the command is empty; write the command line of the agent"
    for place, text in _texts(entry, argv):
        yield from _unknown_placeholders((*path, *place), text, PLACEHOLDERS)
    if entry.sessions and not any("{sessions_file}" in text for text in entry.sessions_argv):
        yield (*path, "sessions"), "no {sessions_file}; say where the agent gets its sessions"
    for index, text in enumerate(entry.setup):
        yield from _unknown_placeholders((*path, "setup", index), text, _BUILD_PLACEHOLDERS)
    for name in entry.files:
        clean = PurePosixPath(name)
        if clean.is_absolute() or ".." in clean.parts or str(clean) != name or name == ".":
            yield (*path, "files", name), f"{name!r} is not a path below the home folder"
    for place, text in (*_texts(entry, argv), *((("files", name), name) for name in entry.files)):
        if "\0" in text:
            yield (*path, *place), "a NUL character cannot be passed to a process; remove it"
    for name in entry.env:
        if not name or "=" in name or "\0" in name:
            yield (*path, "env", name), f"{name!r} cannot name an environment variable"
    if not any(name in text for _, text in _texts(entry, argv) for name in _TASK):
        yield (*path, "command"), "no {task} anywhere; say where the agent gets its task"
    if not any(name in text for _, text in _texts(entry, argv) for name in _URL):
        yield (*path, "command"), "no {base_url} anywhere; say where the agent gets its provider"
    for action, mapping in entry.tools.items():
        if bool(mapping.tool) == bool(mapping.text):
            yield (*path, "tools", action), "set either `tool` or `text`"


_ARCHIVES = (".whl", ".zip", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def _is_local(requirement: str) -> bool:
    """Whether a requirement of pip or npm names a file or folder. If in doubt, it does."""
    text = requirement.strip()
    if "{folder}" in text or "file:" in text:
        return True
    if "://" in text:
        return False
    if text.startswith("-"):
        # `--pre` is a switch; `-e .`, `-e.` and `--editable=.` name a folder.
        return not re.fullmatch(r"--[a-z-]+|-[A-Z]", text)
    scoped = re.fullmatch(r"@[^/]+/[^/]+", text)
    return text.startswith((".", "~")) or text.endswith(_ARCHIVES) or ("/" in text and not scoped)


_TASK = ("{task}", "{task_file}")
_URL = ("{base_url}", "{server_url}")


def _texts(entry: AgentEntry, argv: tuple[str, ...]) -> Iterator[tuple[TomlPath, str]]:
    for text in argv:
        yield ("command",), text
    for text in entry.sessions_argv:
        yield ("sessions",), text
    for table, texts in (("env", entry.env), ("files", entry.files)):
        for name, text in texts.items():
            yield (table, name), text
    yield ("stdin",), entry.stdin


def _unknown_placeholders(
    path: TomlPath, text: str, known: "frozenset[str] | tuple[str, ...]"
) -> Iterator[Diagnostic]:
    # Files may contain other braces, such as JSON; only words alone in braces are placeholders.
    for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
        if name not in known and path[-2:-1] != ("files",):
            yield path, f"no placeholder {{{name}}}{suggestion(name, known)}"


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders that have a value. Other braces stay.

    One pass, so that placeholders inside a value are not replaced.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
