"""Convert a recorded session to a scenario that replays it.

A trajectory of agent_core or Trae Agent contains the model's replies, not the workspace. The
user adds the workspace files and the oracle.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench._util.bounded_io import whole
from trae_bench._util.json_tree import map_strings
from trae_bench._util.toml_writer import toml_text
from trae_bench.errors import UsageError
from trae_bench.scenario import (
    FINISH_TOOL,
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

MAX_TRAJECTORY_BYTES = 256 * 1024 * 1024
"""Maximum size of a trajectory file."""
METRICS = ("cpu", "wall", "step_overhead")
NOT_VARIED = frozenset({"native_client", "shared_tls", "optional_deps", "config_cache"})
"""Toggles that an imported scenario does not vary. They need a vendor's SDK, TLS or a second
start, which a recorded session does not have."""
_PLACEHOLDER = "{workspace}"
_PROTOCOLS: Mapping[str, Protocol] = {
    "anthropic": "anthropic_messages",
    "google": "gemini",
    "ollama": "ollama_chat",
}
"""Protocols by provider name. Any other provider uses OpenAI Chat Completions."""


class _Call(Struct, frozen=True):
    name: str
    arguments: dict[str, Any] | str | None = None


class _Response(Struct, frozen=True):
    content: str | None = None
    tool_calls: tuple[_Call, ...] | None = None


class _Interaction(Struct, frozen=True):
    response: _Response


class Trajectory(Struct, frozen=True):
    """The fields of a trajectory file that the import uses; other fields are ignored."""

    task: str
    llm_interactions: tuple[_Interaction, ...]
    provider: str = ""
    success: bool = False
    final_result: str | None = None


class Recording(Struct, frozen=True):
    """An imported scenario, and notes for its user."""

    scenario: Scenario
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the TOML text of the scenario file."""
        return toml_text(_changed_fields(self.scenario))


def read_trajectory(path: Path) -> Trajectory:
    """Read a trajectory file. Raises `UsageError` if it is unreadable or not a trajectory."""
    try:
        return msgspec.json.decode(whole(path, MAX_TRAJECTORY_BYTES), type=Trajectory)
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
    """Convert the session to a scenario named `name`.

    `workspace` is the folder in which the session worked; its path becomes `{workspace}`.
    `files` are its initial files, text by relative path. Raises `UsageError` if a script cannot
    replay the session.
    """
    if not trajectory.llm_interactions:
        raise UsageError("the trajectory has no model reply, so there is nothing to replay")
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name!r} cannot name a scenario; use lower-case letters and digits, words joined by "
            "single dashes"
        ) from error
    try:
        return _build(trajectory, name, toggles, workspace.rstrip("/"), files)
    except RecursionError as error:
        raise UsageError(
            "the arguments of a call are nested too deep for a scenario; remove the call from the "
            "trajectory"
        ) from error


def _build(
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
        oracle=Oracle(
            final_text=_final_text_in(_portable(_final_text(trajectory), root), turns[-1].text)
        ),
    )
    recording = Recording(scenario, tuple(_notes(trajectory, root, files, scenario.oracle)))
    # A recording can exceed the limits of a scenario; fail here, not at the first load.
    parse(recording.text, "the scenario of this session")
    return recording


def text_files(folder: Path) -> dict[str, str]:
    """Return the files below a folder by relative path. Raises `UsageError` if one is not text."""
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
        # A script cannot have an empty turn; a blank is the closest.
        yield Turn(text=text if text or calls else " ", calls=calls)
        finishes = any(call.tool == FINISH_TOOL for call in calls)
        if finishes and number < last:
            raise UsageError(
                f"the session continues after {FINISH_TOOL} in reply {number + 1}; end the file "
                "there"
            )
        if number == last and not finishes:
            yield Turn(text="The recording ends here.", calls=(ScriptedCall(FINISH_TOOL),))


def _call(call: _Call, root: str, number: int) -> ScriptedCall:
    if isinstance(call.arguments, str):
        raise UsageError(
            f"reply {number + 1}: the arguments of {call.name} are not a JSON object, which a "
            "script needs; remove the call from the trajectory"
        )
    arguments = _portable(call.arguments or {}, root)
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


def _final_text(trajectory: Trajectory) -> str:
    return (trajectory.final_result or "").strip() if trajectory.success else ""


def _final_text_in(final: str, last: str) -> str:
    """Return the part of the final text that the replay repeats, without the folder's path."""
    return max(final.split(_PLACEHOLDER), key=len).strip() if final in last else ""


def _about(trajectory: Trajectory) -> str:
    count = len(trajectory.llm_interactions)
    return (
        f"A recorded session of {count} replies. It measures the work of the agent and its tools. "
        "It cannot show how long the model thought: the scripted model replies at once."
    )


def _notes(
    trajectory: Trajectory, root: str, files: Mapping[str, str] | None, oracle: Oracle
) -> Iterator[str]:
    responses = [interaction.response for interaction in trajectory.llm_interactions]
    if not any(call.name == FINISH_TOOL for call in responses[-1].tool_calls or ()):
        yield f"the session did not end with {FINISH_TOOL}; a last turn with it was added"
    if any(not response.content and not response.tool_calls for response in responses):
        yield "an empty reply was recorded; the script sends a blank instead"
    if not root:
        yield "no --workspace was given: paths stay as recorded on that machine"
    if not files:
        yield "no --files were given: the session starts in an empty folder"
    if not _final_text(trajectory):
        yield "the session did not succeed: add an [oracle] with the expected result"
    elif not oracle.final_text:
        yield "the last reply differs from the final result: add an [oracle]"
    if _PLACEHOLDER in json.dumps([msgspec.to_builtins(response) for response in responses]):
        yield f"a model reply contains {_PLACEHOLDER}; the replay expands it to the workspace"


def _changed_fields(record: Struct) -> dict[str, Any]:
    """Return a record's required fields and the fields that differ from their defaults."""
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        if field.required or value != field.default:
            fields[field.name] = _to_builtins(value)
    return fields


def _to_builtins(value: Any) -> Any:
    if isinstance(value, Struct):
        return _changed_fields(value)
    if isinstance(value, tuple):
        return [_to_builtins(item) for item in value]
    return value
