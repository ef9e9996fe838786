"""The command `record`: a session of any agent becomes a scenario."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trae_bench._util.keys import without_keys
from trae_bench.cli.common import FILE, NEW_FILE, check_writable, file_name, print_error, write
from trae_bench.cli.completion import complete_agent
from trae_bench.errors import CannotMeasure, ScenarioError, UsageError

if TYPE_CHECKING:
    from trae_bench.scenario import Oracle, Protocol
    from trae_bench.scenario.importers.session import RecordedSession
    from trae_bench.subject.recording import RecordedCommand

_SHOWN_TOOLS = 8
_OPENAI = ("OPENAI_BASE_URL={base_url}", "OPENAI_API_KEY={api_key}")
_ADDRESSES: "Mapping[Protocol, Sequence[str]]" = {
    "openai_chat": _OPENAI,
    "openai_responses": _OPENAI,
    "anthropic_messages": ("ANTHROPIC_BASE_URL={server_url}", "ANTHROPIC_API_KEY={api_key}"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL={server_url}", "GEMINI_API_KEY={api_key}"),
    "ollama_chat": ("OLLAMA_HOST={server_url}",),
}
"""Variables by which a vendor's client learns its provider."""


@click.command()
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SESSION | -- COMMAND...]")
@click.option("--from", "source", type=FILE, metavar="FILE", help="The same as SESSION.")
@click.option(
    "-o",
    "--out",
    type=NEW_FILE,
    required=True,
    help="Scenario file to write. Its name without .toml becomes the name of the scenario.",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="Base URL of the model provider. COMMAND runs against it through a recording proxy.",
)
@click.option(
    "--agent",
    metavar="AGENT",
    shell_complete=complete_agent,
    help="Agent to run instead of COMMAND, as in `trae-bench run --agent`.",
)
@click.option("--model", default="", metavar="NAME", help="Model of --agent: replaces {model}.")
@click.option(
    "--key-env",
    default="",
    metavar="NAME",
    help="Variable that holds the key of --agent. Default: the usual one of the provider.",
)
@click.option("--task", default="", metavar="TEXT", help="Task of COMMAND: replaces {task}.")
@click.option(
    "--workspace",
    default="",
    metavar="FOLDER",
    help="Folder to copy for COMMAND; of SESSION, the folder in which it worked.",
)
@click.option(
    "--check",
    default="",
    metavar="COMMAND",
    help="Shell command that succeeds in the workspace if the work of COMMAND is right.",
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Copy the text files in this folder into the scenario, as the initial workspace.",
)
@click.option("--force", is_flag=True, help="Overwrite the scenario file.")
def record(
    words: tuple[str, ...],
    source: Path | None,
    out: Path,
    upstream: str | None,
    agent: str | None,
    model: str,
    key_env: str,
    task: str,
    workspace: str,
    check: str,
    files: Path | None,
    force: bool,
) -> None:
    """Record a session of an agent as a scenario, or import one.

    With --upstream, COMMAND or --agent runs once with a real model, in a copy of
    --workspace. COMMAND finds the recording proxy in OPENAI_BASE_URL,
    ANTHROPIC_BASE_URL and the like, or by the placeholders {base_url} (with /v1) and
    {server_url}. Other placeholders are {task}, {task_file} and {workspace}. Keys are
    not stored.

    SESSION is a file that an agent wrote: a trajectory of agent-core, Trae Agent,
    mini-swe-agent or Harbor (ATIF), a session of Claude Code (.jsonl), a rollout of
    Codex (.jsonl), a list of OpenAI messages, or an HTTP archive (.har).

    \b
    Examples:
      trae-bench record --upstream https://api.openai.com/v1 --task 'Fix the bug.' \\
        --workspace project/ --out my-session.toml -- my-agent --prompt {task}
      trae-bench record --upstream https://api.anthropic.com --agent claude-code \\
        --model claude-sonnet-4-5 --task 'Fix the bug.' --out my-session.toml
      trae-bench record trajectory.json --files start/ --out my-session.toml
    """
    _check_out(out, force)
    folder = Path(workspace) if workspace else None
    given = {"--agent": agent, "--model": model, "--key-env": key_env}
    if upstream is None:
        _refuse({**given, "--task": task, "--check": check}, "needs --upstream")
        _import(_only_file(words, source), out, workspace, files)
        return
    if source is not None or files is not None:
        raise UsageError("--upstream records COMMAND; remove --from and --files")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--workspace {folder}: no such folder")
    if bool(words) == bool(agent):
        raise UsageError("--upstream needs either the command of an agent after --, or --agent")
    check_writable(out)
    if agent:
        _record_agent(agent, out, upstream, task, folder, check, model, key_env)
        return
    _refuse({"--model": model, "--key-env": key_env}, "needs --agent")
    _record_command(words, out, upstream, task, folder, check)


def _refuse(options: Mapping[str, str | None], why: str) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"{name} {why}")


def _check_out(out: Path, force: bool) -> None:
    if out.suffix != ".toml":
        raise UsageError(f"{out}: the name of a scenario file is NAME.toml")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; name another file with --out, or give --force")


def _only_file(words: Sequence[str], source: Path | None) -> Path:
    paths = [*map(Path, words), *([source] if source else [])]
    if len(paths) != 1:
        remedy = "or give --upstream and the command of an agent"
        raise UsageError(f"name one file with a recorded session, {remedy}")
    if not paths[0].exists():
        raise UsageError(f"{paths[0]}: no such file")
    return paths[0]


def _import(path: Path, out: Path, workspace: str, files: Path | None) -> None:
    from trae_bench.provider.har import ALL_READERS
    from trae_bench.scenario.importers.conversion import text_files
    from trae_bench.scenario.importers.reading import read_session

    session = read_session(path, ALL_READERS)
    turns = write_recording(
        session, out, workspace=workspace, files=text_files(files) if files else None
    )
    click.echo(f"{file_name(out)}: {turns} turns")


def _record_command(
    argv: Sequence[str], out: Path, upstream: str, task: str, workspace: Path | None, check: str
) -> None:
    from trae_bench.subject.recording import record_command

    if not task and any("{task}" in word or "{task_file}" in word for word in argv):
        raise UsageError("the command needs a task; give --task")
    made = record_command(argv, upstream=upstream, task=task, workspace=workspace, check=check)
    write_command(made, out)
    _print_next(out, _line(made.argv, task, made.session.protocol))


def _record_agent(
    requested: str,
    out: Path,
    upstream: str,
    task: str,
    workspace: Path | None,
    check: str,
    model: str,
    key_variable: str,
) -> None:
    from trae_bench.run.agents import built
    from trae_bench.run.settings import find_agents_here
    from trae_bench.subject.recording import record_agent

    if not task:
        raise UsageError("the agent needs a task; give --task")
    (found,) = find_agents_here([requested]).values()
    made = record_agent(
        built(found, found.name, print_error),
        upstream=upstream,
        task=task,
        workspace=workspace,
        check=check,
        model=model,
        key_variable=key_variable,
    )
    write_command(made, out)
    _print_next(out, requested)


def _print_next(out: Path, agent: str) -> None:
    agent = without_keys(agent)
    scenario, agent = shlex.quote(str(out)), shlex.quote(agent)
    click.echo(f"Next: trae-bench run {scenario} --agent {agent}")
    click.echo(
        "If its requests vary from run to run, this proposes [[normalise]] entries:\n"
        f"      trae-bench agents check {agent} --scenario {scenario}"
    )


def _line(argv: Sequence[str], task: str, protocol: "Protocol") -> str:
    """The command line of an agent, with placeholders for what differs in a replay."""
    words = ["{task}" if task and word == task else word for word in argv]
    if not any("{base_url}" in word or "{server_url}" in word for word in words):
        words = ["env", *_ADDRESSES[protocol], *words]
    return " ".join(word if "{" in word else shlex.quote(word) for word in words)


def write_command(made: "RecordedCommand", out: Path) -> None:
    """Write the scenario of a recorded command and print what was recorded.

    Raises `CannotMeasure` if the command did not ask the provider.
    """
    session = made.session
    if not session.replies:
        for note in session.notes:
            print_error(f"Note: {note}")
        if made.requests:
            raise CannotMeasure("no model request got a reply; see the notes")
        remedy = "give it the address of the proxy, with {base_url} or in its settings"
        raise CannotMeasure(f"the agent sent no model request through the proxy; {remedy}")
    turns = write_recording(
        session,
        out,
        files=made.before.files,
        oracle=made.proposal.oracle,
        notes=made.proposal.notes,
    )
    if session.last_request:
        write(request_file(out), [session.last_request])
        print_error(
            f"Note: {file_name(request_file(out))} has the whole conversation, with all that tools "
            "printed; read it before you share it"
        )
    tools = [tool.name for tool in session.tools]
    more = f" and {len(tools) - _SHOWN_TOOLS} more" if len(tools) > _SHOWN_TOOLS else ""
    changed = made.proposal.changed
    click.echo(
        f"{file_name(out)}: {turns} turns of {made.requests} requests, {session.protocol}"
        f"{', streamed' if session.stream else ''}; {changed} file{'s' * (changed != 1)} changed"
    )
    click.echo(f"Tools: {', '.join(tools[:_SHOWN_TOOLS]) or 'none'}{more}")


def request_file(scenario: Path) -> Path:
    """The file of the last recorded request, with which `agents check` compares a replay."""
    return scenario.with_suffix(".request.json")


def write_recording(
    session: "RecordedSession",
    out: Path,
    *,
    workspace: str = "",
    files: Mapping[str, str] | None = None,
    oracle: "Oracle | None" = None,
    notes: Sequence[str] = (),
) -> int:
    """Write the scenario of a session, print notes on it, and return the number of its turns.

    Raises `UsageError` if a script cannot replay the session.
    """
    from trae_bench.run.planner import check_names
    from trae_bench.scenario.importers.conversion import recorded
    from trae_bench.subject.agent_core import toggles, tools

    recording = recorded(
        session,
        out.stem,
        toggles=tuple(toggles()),
        tools=tools(),
        workspace=workspace,
        files=files,
        oracle=oracle,
    )
    write(out, [recording.text])
    for note in (*recording.notes, *notes):
        print_error(f"Note: {note}")
    try:
        check_names(recording.scenario, out)
    except ScenarioError as error:
        # The recorded agent may have had other tools, or its model made a mistake.
        print_error(f"Note: correct these errors before you run the scenario:\n{error}")
    beside = (one.turns for one in recording.scenario.sub_agents or ())
    return sum(map(len, (recording.scenario.turns, *beside)))
