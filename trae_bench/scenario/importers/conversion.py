"""Convert a recorded session of any agent to a scenario that replays it.

A session contains the model's replies. Its files and its expected result come from a snapshot
of the workspace, or from the user.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from trae_bench._util.json_tree import map_strings
from trae_bench._util.toml_writer import toml_text
from trae_bench.errors import UsageError
from trae_bench.scenario import (
    FINISH_TOOL,
    Oracle,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    SubAgent,
    ToggleUse,
    Turn,
    WorkspaceFixture,
    parse,
)
from trae_bench.scenario.importers.session import RecordedCall, RecordedReply, RecordedSession
from trae_bench.scenario.importers.trae_trajectory import TRAE_AGENT
from trae_bench.scenario.loader import files_below
from trae_bench.scenario.model import Name

METRICS = ("cpu", "wall", "step_overhead")
METRICS_OF_OTHERS = (*METRICS, "time_to_first_request", "peak_rss", "request_bytes")
"""Metrics of another agent. They are measured from outside."""
NOT_VARIED = frozenset(
    {"native_client", "shared_tls", "optional_deps", "config_cache", "prompt_cache"}
)
"""Toggles that an imported scenario does not vary. They need a vendor's SDK, TLS or a second
start, which a recorded session does not have, or change no metric of it."""
_PLACEHOLDER = "{workspace}"
_PATH_NAMES = re.compile(r"path|file|dir|folder|cwd", re.IGNORECASE)
_MIN_FOLDER_PARTS = 3
"""Parts of an absolute path, with the root, that can be a working folder."""


class Recording(Struct, frozen=True):
    """A scenario made from a session, and notes for its user."""

    scenario: Scenario
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the TOML text of the scenario file."""
        return toml_text(_changed_fields(self.scenario))


class _Work(Struct, frozen=True):
    """What surrounds a session: the folder in which it worked, its files and their check."""

    root: str
    guessed: bool
    files: Mapping[str, str] | None
    oracle: Oracle | None


def recorded(
    session: RecordedSession,
    name: str,
    *,
    toggles: Sequence[str],
    tools: Collection[str] = (),
    workspace: str = "",
    files: Mapping[str, str] | None = None,
    oracle: Oracle | None = None,
) -> Recording:
    """Convert the session to a scenario named `name`.

    `tools` are those of agent_core. A session that uses others gets the name of its agent.
    `workspace` is the folder in which the session worked, if the session does not record it; its
    path becomes `{workspace}`. `files` are its initial files, text by relative path. `oracle` is
    used if the session succeeded. Raises `UsageError` if a script cannot replay the session.
    """
    if not session.replies:
        raise UsageError(f"{session.source} has no model reply, so there is nothing to replay")
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} cannot name a scenario; use lower-case letters and digits, words joined by "
            "single dashes"
        ) from error
    try:
        root, guessed = _root(session, workspace)
        agent = _agent(session, tools)
        work = _Work(root, guessed, files, oracle)
        return _build(session, name, agent, () if agent else toggles, work)
    except RecursionError as error:
        raise UsageError(
            "the arguments of a call are nested too deep for a scenario; remove the call from the "
            "session"
        ) from error


def text_files(folder: Path) -> dict[str, str]:
    """Return the files below a folder by relative path. Raises `UsageError` if one is not text."""
    try:
        return files_below(folder)
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder}: {error}") from error


def _root(session: RecordedSession, given: str) -> tuple[str, bool]:
    """Return the folder in which the session worked, and whether it is only inferred."""
    for folder in (given, session.workspace):
        if stripped := folder.rstrip("/"):
            return stripped, False
    inferred = _common_folder(session)
    return inferred, bool(inferred)


def _common_folder(session: RecordedSession) -> str:
    """Return the deepest folder of all absolute paths that calls name. Empty if too near the root.

    Without it a replay edits the files of the recorded session, not those of its own workspace.
    """
    paths = [
        os.path.normpath(value)
        for reply in session.replies
        for call in reply.calls
        if isinstance(call.arguments, dict)
        for key, value in call.arguments.items()
        if isinstance(value, str) and value.startswith("/") and _PATH_NAMES.search(key)
    ]
    if not paths:
        return ""
    common = Path(os.path.commonpath(map(os.path.dirname, paths)))
    return str(common) if len(common.parts) >= _MIN_FOLDER_PARTS else ""


def _agent(session: RecordedSession, tools: Collection[str]) -> str:
    """Return the name of the session's agent. Empty if agent_core can replay the session.

    Trae Agent has the tools of agent_core; an unknown name in its sessions is the model's error.
    """
    own = all(call.name in tools for reply in session.replies for call in reply.calls)
    ends = _finishes(session.replies[-1])
    replays = (ends or own) if session.agent == TRAE_AGENT else (ends and own)
    words = re.findall(r"[a-z0-9]+", session.agent.lower())
    # agent_core has no sub-agents.
    return "" if replays and not session.sub_agents else "-".join(words) or "recorded"


def _build(
    session: RecordedSession, name: str, agent: str, toggles: Sequence[str], work: _Work
) -> Recording:
    turns = tuple(_turns(session.replies, work.root, agent))
    sub_agents = tuple(
        SubAgent(_portable(one.prompt, work.root), tuple(_turns(one.replies, work.root, agent)))
        for one in session.sub_agents
    )
    scenario = Scenario(
        name=name,
        about=_about(session),
        task=_portable(session.task, work.root) or "(no task was recorded)",
        turns=turns,
        toggles=ToggleUse(tuple(name for name in toggles if name not in NOT_VARIED)),
        metrics=METRICS_OF_OTHERS if agent else METRICS,
        provider=ProviderConditions(protocol=session.protocol, stream=session.stream),
        workspace=WorkspaceFixture(files=dict(work.files or {})),
        oracle=_oracle(session, turns[-1].text, work),
        sub_agents=sub_agents or UNSET,
        agent=agent or UNSET,
    )
    recording = Recording(scenario, (*session.notes, *_notes(session, work, scenario)))
    # A recording can exceed the limits of a scenario; fail here, not at the first load.
    parse(recording.text, "the scenario of this session")
    return recording


def _turns(replies: Sequence[RecordedReply], root: str, agent: str) -> Iterator[Turn]:
    last = len(replies) - 1
    for number, reply in enumerate(replies):
        calls = tuple(_call(call, root, number) for call in reply.calls)
        text = _portable(reply.text, root)
        # A script cannot have an empty turn; a blank is the closest.
        yield Turn(text=text if text or calls else " ", calls=calls)
        if agent:
            continue
        finishes = _finishes(reply)
        if finishes and number < last:
            raise UsageError(
                f"the session continues after {FINISH_TOOL} in reply {number + 1}; end the file "
                "there"
            )
        if number == last and not finishes:
            yield Turn(text="The recording ends here.", calls=(ScriptedCall(FINISH_TOOL),))


def _finishes(reply: RecordedReply) -> bool:
    return any(call.name == FINISH_TOOL for call in reply.calls)


def _call(call: RecordedCall, root: str, number: int) -> ScriptedCall:
    if isinstance(call.arguments, str):
        raise UsageError(
            f"reply {number + 1}: the arguments of {call.name} are not a JSON object, which a "
            "script needs; remove the call from the session"
        )
    arguments = _portable(call.arguments, root)
    if _fits_toml(arguments):
        return ScriptedCall(call.name, arguments)
    return ScriptedCall(call.name, arguments_json=json.dumps(arguments, ensure_ascii=False))


def _portable(value: Any, root: str) -> Any:
    """Replace the path of the session's folder by `{workspace}`."""
    if not root:
        return value
    # `/work` must not match in `/workshop` or `/work.old`.
    path = re.compile(rf"{re.escape(root)}(?![\w-]|\.\w)")
    return map_strings(value, lambda text: path.sub(_PLACEHOLDER, text))


def _fits_toml(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_fits_toml, value.values()))
    if isinstance(value, list):
        return all(map(_fits_toml, value))
    return value is not None


def _oracle(session: RecordedSession, last: str, work: _Work) -> Oracle:
    """Return the check of the result. A session that failed, or may have failed, has none."""
    if not session.success:
        return Oracle()
    final = _final_text_in(_portable(session.final_text.strip(), work.root), last)
    return msgspec.structs.replace(work.oracle or Oracle(), final_text=final)


def _final_text_in(final: str, last: str) -> str:
    """Return the part of the final text that the replay repeats, without the folder's path."""
    return max(final.split(_PLACEHOLDER), key=len).strip() if final in last else ""


def _about(session: RecordedSession) -> str:
    return (
        f"A recorded session of {len(session.replies)} replies. It measures the work of the agent "
        "and its tools. It cannot show how long the model thought: the scripted model replies at "
        "once."
    )


def _notes(session: RecordedSession, work: _Work, scenario: Scenario) -> Iterator[str]:
    if scenario.agent:
        yield (
            f"only {scenario.agent} can replay this session, because the calls are those of its "
            "tools; run the scenario with --agent"
        )
        if session.replies[-1].calls and not session.success:
            yield (
                "the last reply has tool calls; if they do not end the session, add a last turn "
                "with a text"
            )
    elif not _finishes(session.replies[-1]):
        yield f"the session did not end with {FINISH_TOOL}; a last turn with it was added"
    if session.sub_agents:
        yield (
            f"the session has {len(session.sub_agents)} more conversations, such as those of "
            "sub-agents; a request belongs to the one whose messages it repeats"
        )
    if any(not reply.text and not reply.calls for reply in session.replies):
        yield "an empty reply was recorded; the script sends a blank instead"
    yield from _folder_notes(work)
    yield from _oracle_notes(session, scenario.oracle)
    if _PLACEHOLDER in json.dumps(msgspec.to_builtins(session.replies)):
        yield f"a model reply contains {_PLACEHOLDER}; the replay expands it to the workspace"


def _folder_notes(work: _Work) -> Iterator[str]:
    if not work.root:
        yield "no --workspace was given: paths stay as recorded on that machine"
    elif work.guessed:
        yield (
            f"the working folder is taken to be {work.root}, which holds all paths of the calls; "
            "give --workspace if it is another one"
        )
    if not work.files:
        yield "no --files were given: the session starts in an empty folder"


def _oracle_notes(session: RecordedSession, oracle: Oracle) -> Iterator[str]:
    if session.success is None:
        yield (
            "the source does not say whether the session succeeded: add an [oracle] with the "
            "expected result"
        )
    elif not session.success:
        yield (
            "the session did not succeed, so no [oracle] is proposed: any result counts as "
            "correct until you add one"
        )
    elif oracle.command:
        return
    elif oracle.files:
        yield "the [oracle] holds the files as the session left them; check that they are right"
    elif oracle.final_text:
        yield (
            "the [oracle] checks the final text only, not the work: add the expected files or a "
            "command"
        )
    elif session.final_text:
        yield "the last reply differs from the final result: add an [oracle]"
    else:
        yield "no changed files and no final text are known: add an [oracle]"


def _changed_fields(record: Struct) -> dict[str, Any]:
    """Return a record's required fields and the fields that differ from their defaults."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(record)):
        value, factory = getattr(record, field.name), field.default_factory
        default = field.default if factory is msgspec.NODEFAULT else factory()
        if field.required or value != default:
            fields[field.name] = _to_builtins(value)
    return fields


def _to_builtins(value: Any) -> Any:
    if isinstance(value, Struct):
        return _changed_fields(value)
    if isinstance(value, tuple):
        return [_to_builtins(item) for item in value]
    return value
