"""Runs a real agent against a real provider and records the session."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench._util.keys import PLACEHOLDER, keys_of
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.execution.fingerprint import cleaner
from trae_bench.provider.exchanges import session_of
from trae_bench.provider.recording_proxy import RecordingProxy
from trae_bench.scenario.importers.session import RecordedSession
from trae_bench.scenario.importers.snapshot import (
    Proposal,
    Snapshot,
    oracle_from,
    take_snapshot,
    workspace_notes,
)
from trae_bench.scenario.model import Oracle
from trae_bench.subject.agents.entry import AgentEntry, filled
from trae_bench.subject.command import TASK_FILE, PreparedAgent, write_files

MAX_WORKSPACE_BYTES = 4 << 30
"""Maximum size of a folder that is copied for a session."""
_KEYS_OF_VENDORS = {
    "anthropic.com": ("ANTHROPIC_API_KEY",),
    "googleapis.com": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "openrouter.ai": ("OPENROUTER_API_KEY",),
}
"""Variables of keys by host. Other providers are compatible with OpenAI."""
_INTERPRETER = re.compile(r"env|python[\d.]*|node|npx|uv|uvx|run|bash|sh|bun|deno")
_REMOVED = "[key]"
_STOP_SECONDS = 5.0


class RecordedCommand(Struct, frozen=True):
    """The session of a command, with the files before and after it."""

    session: RecordedSession
    before: Snapshot
    proposal: Proposal
    """The oracle that follows from the files after the session."""
    exit_code: int
    requests: int
    """Model requests, with those that took no turn."""
    argv: tuple[str, ...] = ()
    """The command line as given, with `{api_key}` for keys."""


def record_command(
    argv: Sequence[str],
    *,
    upstream: str,
    task: str,
    workspace: Path | None = None,
    env: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
    check: str = "",
    agent: str = "",
    stdin: str | None = None,
) -> RecordedCommand:
    """Run an agent in a copy of `workspace` and record what its model replies.

    `argv` and the values of `env` may contain the placeholders `{base_url}`, `{server_url}`,
    `{task}`, `{task_file}`, `{workspace}`, `{home}` and those of `values`. `env` is its whole
    environment, with the user's key; default: this process's. The base URLs of the vendors'
    clients are added unless `env` has them as placeholders. `files` are written below `{home}`
    first, with their placeholders replaced; set HOME to `{home}` if the agent reads them there.
    `check` is a shell command that must exit with 0 in the workspace afterwards. The terminal
    stays attached unless `stdin` is given. Raises `UsageError` or `CannotMeasure` if nothing runs.
    """
    with tempfile.TemporaryDirectory(prefix="trae-bench-record-") as made:
        home, folder = Path(made).resolve() / "home", Path(made).resolve() / "workspace"
        home.mkdir()
        _copy(workspace, folder)
        before = take_snapshot(folder)
        with RecordingProxy(upstream) as proxy:
            known = {**_places(proxy, home, folder, task), **(values or {})}
            write_files(home, files or {}, known)
            command = [filled(word, known) for word in argv]
            variables = _environment(env, proxy, known)
            given = None if stdin is None else filled(stdin, known)
            exit_code = _run(command, variables, folder, given)
        checked = exit_code == 0 and _passes(check, variables, folder)
        # A model can print them in a reply.
        found = {*proxy.secrets, *keys_of({**variables, "API_KEY": known.get("api_key", "")})}
        secrets = sorted(found, key=len, reverse=True)
        before = before.without(secrets)
        session = session_of(
            proxy.exchanges, "the recording", agent=agent or _name(command), task=task
        )
        session = msgspec.structs.replace(
            session,
            success=checked,
            workspace=str(folder),
            last_request=_places_named(session.last_request, proxy, home, folder),
            notes=(*session.notes, *_problems(proxy, exit_code, check, checked)),
        )
        proposal = _proposal(before, secrets, folder, check)
        session = _scrubbed(session, secrets)
        given_argv = tuple(_replaced(word, secrets, PLACEHOLDER) for word in argv)
        return RecordedCommand(session, before, proposal, exit_code, proxy.requests, given_argv)


def _places_named(text: str, proxy: RecordingProxy, home: Path, folder: Path) -> str:
    """Replace folders and URLs by their names, as the transcripts of trials do."""
    places = {"workspace": str(folder), "home": str(home), "provider": proxy.base_url}
    return cleaner(places, ())(text)


def _places(proxy: RecordingProxy, home: Path, folder: Path, task: str) -> dict[str, str]:
    """Return the values of the placeholders."""
    return {
        "base_url": proxy.base_url,
        "server_url": proxy.server_url,
        "task": task.replace("{workspace}", str(folder)),
        "task_file": str(home / TASK_FILE),
        "workspace": str(folder),
        "home": str(home),
    }


def record_agent(
    agent: PreparedAgent,
    *,
    upstream: str,
    task: str,
    workspace: Path | None = None,
    check: str = "",
    model: str = "",
    key_variable: str = "",
) -> RecordedCommand:
    """Run an agent by its entry and record the session.

    The user's whole environment passes, then the entry's. The key is in `key_variable`; default:
    the variable in which the entry passes it, or that of the upstream's vendor. Raises
    `UsageError` if the key or the model is missing, and as `record_command` does.
    """
    entry = agent.entry
    texts = (*entry.argv, *entry.env.values(), *entry.files.values())
    if not model and any("{model}" in text for text in texts):
        raise UsageError(f"the agent {agent.name} needs the name of a model; give --model")
    variables = _key_variables(entry, upstream, key_variable)
    key = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    if not key and any("{api_key}" in text for text in texts):
        raise UsageError(
            f"the agent {agent.name} needs a key; set {variables[0]}, or name the variable that "
            "holds it with --key-env"
        )
    home = {"HOME": "{home}"} if entry.files else {}
    values = {
        "api_key": key,
        "env": str(agent.env or ""),
        "folder": str(agent.folder),
        "model": model,
        "python": agent.python,
    }
    program, *arguments = entry.argv
    program = filled(program, values)
    return record_command(
        # What is still in braces is a folder of the recording.
        (program if "{" in program else agent.program(program), *arguments),
        upstream=upstream,
        task=task,
        workspace=workspace,
        env={**os.environ, **home, "PATH": agent.path, **entry.env},
        values=values,
        files=entry.files,
        check=check,
        agent=agent.name,
        stdin=entry.stdin or None,
    )


def _key_variables(entry: AgentEntry, upstream: str, variable: str) -> list[str]:
    """The variables that may hold the key, the likeliest first."""
    own = [name for name, text in entry.env.items() if text == "{api_key}"]
    vendor = [names for host, names in _KEYS_OF_VENDORS.items() if host in upstream]
    return [variable] if variable else [*own, *(vendor[0] if vendor else ("OPENAI_API_KEY",))]


def _proposal(before: Snapshot, secrets: Sequence[str], folder: Path, check: str) -> Proposal:
    try:
        proposal = oracle_from(before, take_snapshot(folder).without(secrets), str(folder))
    except UsageError as error:
        # Such as a build that leaves too many files. The session is not lost for that.
        proposal = Proposal(Oracle(), 0, (f"no [oracle] is proposed: {error}",))
    notes = (*proposal.notes, *workspace_notes(before))
    # A command decides what is right; exact files would refuse other correct answers.
    oracle = Oracle(command=check) if check else proposal.oracle
    return Proposal(oracle, proposal.changed, notes)


def _copy(source: Path | None, folder: Path) -> None:
    """Copy the workspace, so that the session does not change the user's files."""
    if source is None:
        folder.mkdir()
        return
    size = 0
    try:
        for root, _, names in os.walk(source):
            size += sum(Path(root, name).lstat().st_size for name in names)
            if size > MAX_WORKSPACE_BYTES:
                limit = f"{MAX_WORKSPACE_BYTES >> 30} GB"
                raise UsageError(f"{source}: more than {limit}; name a smaller folder")
        shutil.copytree(source, folder, symlinks=True)
    except (OSError, shutil.Error) as error:
        raise UsageError(f"{source}: cannot be copied: {error}") from error


def _environment(
    env: Mapping[str, str] | None, proxy: RecordingProxy, values: Mapping[str, str]
) -> dict[str, str]:
    given = dict(os.environ if env is None else env)
    named = {name: filled(text, values) for name, text in given.items()}
    urls = base_urls(proxy.base_url, proxy.server_url)
    # A value with a placeholder leads to the proxy already.
    chosen = {name for name in urls if name in given and named[name] != given[name]}
    # A proxy of the user's network cannot reach this machine's loopback.
    direct = ",".join(filter(None, (given.get("NO_PROXY") or given.get("no_proxy"), "127.0.0.1")))
    return (
        named
        | {name: url for name, url in urls.items() if name not in chosen}
        | {"NO_PROXY": direct, "no_proxy": direct}
    )


def base_urls(base_url: str, server_url: str) -> dict[str, str]:
    """Return the variables by which the vendors' clients learn the address of a provider."""
    openai = base_url if base_url != server_url or base_url.count("/") > 2 else f"{base_url}/v1"
    return {
        "ANTHROPIC_BASE_URL": server_url,
        "GOOGLE_GEMINI_BASE_URL": server_url,
        "OLLAMA_HOST": server_url,
        "OPENAI_API_BASE": openai,
        "OPENAI_BASE_URL": openai,
    }


def _run(argv: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str | None) -> int:
    """Run the agent and return its exit code. Raises `CannotMeasure` if it cannot start."""
    pipe = None if stdin is None else subprocess.PIPE
    try:
        child = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=pipe, text=True, errors="surrogateescape"
        )
    except (OSError, ValueError) as error:
        raise CannotMeasure(f"cannot start {argv[0]!r}: {error}") from error
    with _interrupts_for_the_child():
        try:
            child.communicate(stdin)
        except BaseException:
            _end(child)
            raise
    return child.returncode


@contextmanager
def _interrupts_for_the_child() -> Iterator[None]:
    """Ignore Ctrl-C, which the agent gets from the terminal and may use in its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(child: "subprocess.Popen[str]") -> None:
    child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _passes(check: str, env: Mapping[str, str], cwd: Path) -> bool:
    if not check:
        return True
    done = subprocess.run(["sh", "-c", check], env=env, cwd=cwd, stdin=subprocess.DEVNULL)
    return done.returncode == 0


def _problems(proxy: RecordingProxy, exit_code: int, check: str, checked: bool) -> Iterator[str]:
    yield from proxy.errors
    if exit_code:
        yield f"the agent exited with {exit_code}, so the session counts as failed"
    elif check and not checked:
        yield "the check failed, so the session counts as failed"


def _name(argv: Sequence[str]) -> str:
    """Return the name of the program, not that of the interpreter that starts it."""
    stems = [Path(word).stem.lower() for word in argv if word[:1] != "-" and "=" not in word]
    named = (stem for stem in stems if not _INTERPRETER.fullmatch(stem))
    return "-".join(re.findall(r"[a-z0-9]+", next(named, ""))) or "agent"


def _scrubbed(session: RecordedSession, secrets: Collection[str]) -> RecordedSession:
    def clean(text: str) -> str:
        return _replaced(text, secrets, _REMOVED)

    request = _mapped_json(session.last_request, clean)
    scrubbed = msgspec.convert(_mapped(msgspec.to_builtins(session), clean), RecordedSession)
    return msgspec.structs.replace(scrubbed, last_request=request)


def _mapped_json(body: str, clean: Callable[[str], str]) -> str:
    """Apply `clean` to every string of a JSON text, where clients may escape any character."""
    try:
        return json.dumps(_mapped(json.loads(body), clean))
    except (ValueError, RecursionError):
        return ""


def _replaced(text: str, secrets: Collection[str], by: str) -> str:
    for secret in secrets:
        text = text.replace(secret, by)
    return text


def _mapped(value: Any, clean: Callable[[str], str]) -> Any:
    """Apply `clean` to every string, also to keys."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return [_mapped(item, clean) for item in value]
    if isinstance(value, dict):
        return {clean(key): _mapped(item, clean) for key, item in value.items()}
    return value
