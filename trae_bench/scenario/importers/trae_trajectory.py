"""From a recorded session to a scenario that plays it again.

A trajectory, of agent_core or of Trae Agent, holds what the model said, not what it found:
the workspace and what must be true at the end are for the one who records to add.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench._util.bounded_io import whole
from trae_bench._util.toml_writer import toml_text
from trae_bench.errors import UsageError
from trae_bench.scenario import (
    FINISH,
    Oracle,
    Protocol,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    ToggleUse,
    Turn,
    WorkspaceFixture,
    parse,
)
from trae_bench.scenario.loader import files_below
from trae_bench.scenario.model import Name

MAX_TRAJECTORY = 256 * 1024 * 1024
"""Bytes."""
METRICS = ("cpu", "wall", "step_overhead")
NOT_VARIED = frozenset({"native_client", "shared_tls", "optional_deps", "config_cache"})
"""Toggles that a recorded session is not asked about: they need a vendor's SDK to tell anything,
TLS, or a second start, none of which it has."""
_MARK = "{workspace}"
_PROTOCOLS: Mapping[str, Protocol] = {
    "anthropic": "anthropic_messages",
    "google": "gemini",
    "ollama": "ollama_chat",
}
"""What else a provider is called speaks OpenAI's Chat Completions."""


class _Call(Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | str | None = None


class _Response(Struct, frozen=True):
    content: str | None = None
    tool_calls: tuple[_Call, ...] | None = None


class _Interaction(Struct, frozen=True):
    response: _Response


class Trajectory(Struct, frozen=True):
    """What is needed of a trajectory file; what else is in it is not looked at."""

    task: str
    llm_interactions: tuple[_Interaction, ...]
    provider: str = ""
    success: bool = False
    final_result: str | None = None


class Recording(Struct, frozen=True):
    """A scenario, and what its reader should know of it."""

    scenario: Scenario
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The scenario file."""
        return toml_text(_said(self.scenario))


def read_trajectory(path: Path) -> Trajectory:
    """Raises `UsageError` for a file that is none."""
    try:
        return msgspec.json.decode(whole(path, MAX_TRAJECTORY), type=Trajectory)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: not a trajectory of agent-core or Trae Agent: {error}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}") from error


def recorded(
    trajectory: Trajectory,
    name: str,
    *,
    toggles: Sequence[str],
    workspace: str = "",
    files: Mapping[str, str] | None = None,
) -> Recording:
    """The session as a scenario called `name`.

    `workspace` is the folder that the session worked in, whose path becomes `{workspace}`;
    `files` are what lay there at the start, text by relative path. Raises `UsageError`
    where the session cannot be played by a script.
    """
    if not trajectory.llm_interactions:
        raise UsageError("the trajectory has no reply of a model; there is nothing to play")
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} cannot name a scenario; take lower-case letters and digits, words joined by "
            "single dashes"
        ) from error
    try:
        return _recorded(trajectory, name, toggles, workspace.rstrip("/"), files)
    except RecursionError as error:
        raise UsageError(
            "the arguments of a call are nested too deep for a scenario; take the call out of the "
            "trajectory"
        ) from error


def _recorded(
    trajectory: Trajectory,
    name: str,
    toggles: Sequence[str],
    root: str,
    files: Mapping[str, str] | None,
) -> Recording:
    turns = tuple(_turns(trajectory, root))
    scenario = Scenario(
        name=name,
        about=_about(trajectory),
        task=_portable(trajectory.task, root) or "(no task was recorded)",
        turns=turns,
        toggles=ToggleUse(tuple(name for name in toggles if name not in NOT_VARIED)),
        metrics=METRICS,
        provider=ProviderConditions(protocol=_PROTOCOLS.get(trajectory.provider, "openai_chat")),
        workspace=WorkspaceFixture(files=dict(files or {})),
        oracle=Oracle(final_text=_heard(_portable(_final_text(trajectory), root), turns[-1].text)),
    )
    recording = Recording(scenario, tuple(_notes(trajectory, root, files, scenario.oracle)))
    # What was recorded may be more than a scenario may say; whoever loads it finds out too late.
    parse(recording.text, "the scenario of this session")
    return recording


def text_files(folder: Path) -> dict[str, str]:
    """The files below a folder by their relative path. Raises `UsageError` for any but text."""
    try:
        return files_below(folder)
    except (ValueError, OSError) as error:
        raise UsageError(f"{folder}: {error}") from error


def _turns(trajectory: Trajectory, root: str) -> Iterator[Turn]:
    last = len(trajectory.llm_interactions) - 1
    for number, interaction in enumerate(trajectory.llm_interactions):
        response = interaction.response
        calls = tuple(_call(call, root, number) for call in response.tool_calls or ())
        text = _portable(response.content or "", root)
        # A script cannot say nothing at all; a blank is as near as it gets.
        yield Turn(text=text if text or calls else " ", calls=calls)
        finishes = any(call.tool == FINISH for call in calls)
        if finishes and number < last:
            raise UsageError(
                f"the session goes on after its {FINISH} in reply {number + 1}; cut the file there"
            )
        if number == last and not finishes:
            yield Turn(text="The recording ends here.", calls=(ScriptedCall(FINISH),))


def _call(call: _Call, root: str, number: int) -> ScriptedCall:
    if isinstance(call.arguments, str):
        raise UsageError(
            f"reply {number + 1}: the arguments of {call.name} are no JSON object; a script "
            "cannot say that: take the call out of the trajectory"
        )
    arguments = _portable(call.arguments or {}, root)
    if _fits_toml(arguments):
        return ScriptedCall(call.name, arguments)
    return ScriptedCall(call.name, arguments_json=json.dumps(arguments, ensure_ascii=False))


def _portable(value: Any, root: str) -> Any:
    """With `{workspace}` wherever the session's folder is named."""
    if not root:
        return value
    if isinstance(value, str):
        # `/work` is no part of `/workshop` nor of `/work.old`.
        return re.sub(rf"{re.escape(root)}(?![\w-]|\.\w)", _MARK, value)
    if isinstance(value, list):
        return [_portable(item, root) for item in value]
    if isinstance(value, dict):
        return {key: _portable(item, root) for key, item in value.items()}
    return value


def _fits_toml(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_fits_toml, value.values()))
    if isinstance(value, list):
        return all(map(_fits_toml, value))
    return value is not None


def _final_text(trajectory: Trajectory) -> str:
    return (trajectory.final_result or "").strip() if trajectory.success else ""


def _heard(final: str, last: str) -> str:
    """What of the final text the last turn will say again; the folder's path will be another."""
    return max(final.split(_MARK), key=len).strip() if final in last else ""


def _about(trajectory: Trajectory) -> str:
    count = len(trajectory.llm_interactions)
    return (
        f"A recorded session of {count} replies. It shows what the agent and its tools make of "
        "them; it cannot show how long the model thought, for it answers at once here."
    )


def _notes(
    trajectory: Trajectory, root: str, files: Mapping[str, str] | None, oracle: Oracle
) -> Iterator[str]:
    responses = [interaction.response for interaction in trajectory.llm_interactions]
    if not any(call.name == FINISH for call in responses[-1].tool_calls or ()):
        yield f"the session did not end with {FINISH}; a last turn that does was added"
    if any(not response.content and not response.tool_calls for response in responses):
        yield "an empty reply was recorded; the script says a blank in its place"
    if not root:
        yield "no --workspace was given: paths in it stay as they were on that machine"
    if not files:
        yield "no --files were given: the session starts in an empty folder"
    if not _final_text(trajectory):
        yield "the session was no success: write an [oracle] that says what shall be true"
    elif not oracle.final_text:
        yield "its last reply is not what it ended in: write an [oracle] of what shall be true"
    if _MARK in json.dumps([msgspec.to_builtins(response) for response in responses]):
        yield f"the model itself said {_MARK}; played again, that is the session's folder"


def _said(record: Struct) -> dict[str, Any]:
    """A record's fields but for those that are as they would be anyway."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        if field.required or value != field.default:
            found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return _said(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
