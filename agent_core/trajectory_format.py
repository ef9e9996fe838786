"""Trae Agent's trajectory format: its records and the layout of the file."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from agent_core.encoding import encode_json
from agent_core.errors import RecordingError
from agent_core.messages import Message, Reply, ToolCall, ToolResult


def call_record(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments if call.malformed is None else call.malformed
    return {"call_id": call.id, "name": call.name, "arguments": arguments, "id": None}


def result_record(result: ToolResult) -> dict[str, Any]:
    return {
        "call_id": result.call_id,
        "success": result.ok,
        "result": result.output,
        "error": result.error,
        "id": None,
    }


def message_records(message: Message) -> list[dict[str, Any]]:
    """The records of one message.

    Trae Agent allows one call or one result per message. A result has the role "user".
    """
    if message.result is not None:
        return [{"role": "user", "content": None, "tool_result": result_record(message.result)}]
    record = {"role": message.role, "content": message.text}
    calls = [{**record, "tool_call": call_record(call)} for call in message.calls]
    # Only the first call carries the text, so that it is not repeated.
    return [calls[0], *({**call, "content": None} for call in calls[1:])] if calls else [record]


def all_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [record for message in messages for record in message_records(message)]


def calls_or_none(calls: Iterable[ToolCall]) -> list[dict[str, Any]] | None:
    return [call_record(call) for call in calls] or None


def interaction_record(
    messages: Iterable[Message], reply: Reply, provider: str, model: str, tools: Sequence[str]
) -> dict[str, Any]:
    return {
        "timestamp": timestamp(),
        "provider": provider,
        "model": model,
        "input_messages": all_messages(messages),
        "response": {**reply_record(reply), "usage": msgspec.structs.asdict(reply.usage)},
        "tools_available": list(tools) or None,
    }


def step_record(
    number: int,
    state: str,
    messages: Iterable[Message],
    reply: Reply | None,
    calls: Iterable[ToolCall],
    results: Iterable[ToolResult],
    reflection: str | None,
    error: str | None,
) -> dict[str, Any]:
    return {
        "step_number": number,
        "timestamp": timestamp(),
        "state": state,
        "llm_messages": all_messages(messages) or None,
        "llm_response": reply_record(reply) if reply is not None else None,
        "tool_calls": calls_or_none(calls),
        "tool_results": [result_record(result) for result in results] or None,
        "reflection": reflection,
        "error": error,
    }


def reply_record(reply: Reply) -> dict[str, Any]:
    return {
        "content": reply.message.text,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "usage": {
            "input_tokens": reply.usage.input_tokens,
            "output_tokens": reply.usage.output_tokens,
        },
        "tool_calls": calls_or_none(reply.message.calls),
    }


def empty_trajectory(started: datetime | None = None) -> dict[str, Any]:
    """An empty trajectory, with its fields in the order of the file."""
    return {
        "task": "",
        "start_time": started.isoformat() if started else "",
        "end_time": "",
        "provider": "",
        "model": "",
        "max_steps": 0,
        "llm_interactions": [],
        "agent_steps": [],
        "success": False,
        "final_result": None,
        "execution_time": 0.0,
    }


def default_path() -> Path:
    """A new trajectory file. The microseconds distinguish sessions of the same second.

    It is in the user's folder for program state, so that a search in the workspace does not
    find it. Raises `RecordingError` for a user without a home.
    """
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:
        raise RecordingError(
            "There is no home folder for the trajectory; name a file, or set XDG_STATE_HOME."
        ) from None
    name = f"trajectory_{datetime.now():%Y%m%d_%H%M%S_%f}.json"
    return state / "agent-core" / "trajectories" / name


def timestamp() -> str:
    return datetime.now().isoformat()


def write_trajectory(
    out: BinaryIO, fields: dict[str, Any], interactions: Iterable[bytes], steps: Iterable[bytes]
) -> None:
    """Writes the trajectory like `json.dump(..., indent=2)`, one record at a time."""
    lists = {"llm_interactions": interactions, "agent_steps": steps}
    before = b"{\n  "
    for name in empty_trajectory():
        out.write(before + encode_json(name) + b": ")
        if name in lists:
            _write_list(out, lists[name])
        else:
            out.write(encode_json(fields[name]))
        before = b",\n  "
    out.write(b"\n}")


def _write_list(out: BinaryIO, records: Iterable[bytes]) -> None:
    before, after = b"[", b"[]"
    for record in records:
        # Line breaks in strings are escaped, so these are all layout.
        indented = msgspec.json.format(record, indent=2).replace(b"\n", b"\n    ")
        out.write(before + b"\n    " + indented)
        before, after = b",", b"\n  ]"
    out.write(after)


def make_folder(path: Path) -> None:
    """Makes the folder of `path`. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def open_private(path: Path) -> BinaryIO:
    """Opens `path` to write it anew, readable by its owner only. Raises `OSError`."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # not a device
        os.fchmod(file.fileno(), 0o600)
    return file


def replace_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replaces `path` atomically: a reader sees the old file or the new one.

    The new file is readable by its owner only.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open_private(temporary) as file:
            write(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_error(path: Path, error: OSError, *, lost: int = 0) -> RecordingError:
    """The error for `path`. With `lost` records, `path` is a journal that has the others."""
    reason = error.strerror or type(error).__name__
    loss = f" {lost} records are lost; `agent-core recover {path}` saves the others."
    return RecordingError(
        f"The trajectory {path} cannot be written: {reason}.{loss if lost else ''}"
    )
