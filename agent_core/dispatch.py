"""Runs the calls of one reply: `SequentialDispatch` | `ParallelDispatch`.

Both return the same results in call order. `ParallelDispatch` starts a call early only if
it is independent of every earlier call that has not finished.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from agent_core.arguments import fitted, schema_violations, unknown_arguments, unwrapped
from agent_core.errors import ToolError
from agent_core.messages import ToolCall, ToolResult
from agent_core.ports import Access, Catalog, OnResult, Tool, ignore_result


class SequentialDispatch:
    """Runs one call after another."""

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, on_result: OnResult = ignore_result
    ) -> Sequence[ToolResult]:
        return [await _execute(_prepare(call, catalog), on_result) for call in calls]


class ParallelDispatch:
    """Runs independent calls concurrently, at most `limit` at a time.

    On cancellation it cancels the running calls and waits for them.
    """

    def __init__(self, limit: int = 8) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._limit = limit

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, on_result: OnResult = ignore_result
    ) -> Sequence[ToolResult]:
        if len(calls) == 1:  # the common case needs no task
            return [await _execute(_prepare(calls[0], catalog), on_result)]
        waiting = dict(enumerate(_prepare(call, catalog) for call in calls))
        results: dict[int, ToolResult] = {}
        running: dict[asyncio.Task[ToolResult], tuple[int, Access | None]] = {}
        async with asyncio.TaskGroup() as group:
            while waiting or running:
                free = self._limit - len(running)
                for index, access in _ready(waiting, list(running.values()))[:free]:
                    task = group.create_task(_execute(waiting.pop(index), on_result))
                    running[task] = (index, access)
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    results[running.pop(task)[0]] = task.result()
        return [results[index] for index in range(len(calls))]


class _PreparedCall(Struct, frozen=True):
    """A call with its tool and arguments, or with the reason why it cannot run (`refusal`).

    `note` is what the model should know about its arguments.
    """

    call: ToolCall
    tool: Tool | None = None
    arguments: Mapping[str, Any] = {}
    refusal: str = ""
    note: str = ""


def _prepare(call: ToolCall, catalog: Catalog) -> _PreparedCall:
    try:
        tool = catalog.get(call.name)
    except ToolError as error:
        return _PreparedCall(call, refusal=str(error))
    given = call.arguments if call.malformed is None else unwrapped(call.malformed)
    if given is None:
        return _PreparedCall(
            call,
            refusal=f"The arguments of {call.name} are not a JSON object: {call.malformed!r:.500}."
            " Nothing was run. Send the call again with one JSON object.",
        )
    schema = tool.spec.parameters
    try:
        arguments, unknown = fitted(given, schema)
        violations = schema_violations(arguments, schema)
    except Exception:  # a schema that is not ours and means more; its server checks the call
        arguments, unknown, violations = dict(given), [], []
    note = unknown_arguments(unknown, schema) if unknown else ""
    if violations:
        clauses = "; ".join([*violations, *([note] if note else [])])
        return _PreparedCall(
            call,
            refusal=f"The arguments of {call.name} do not match its schema: {clauses}."
            " Nothing was run. Correct them and send the call again.",
        )
    return _PreparedCall(call, tool, arguments, note=note and f"[Ignored: {note}.]")


async def _execute(job: _PreparedCall, on_result: OnResult) -> ToolResult:
    started = time.perf_counter()
    result = await _result(job)
    if job.note:
        result = _with_note(result, job.note)
    on_result(result, time.perf_counter() - started)
    return result


def _with_note(result: ToolResult, note: str) -> ToolResult:
    """`result` with `note` as the last line of its text."""
    if result.error is not None:
        return replace(result, error=f"{result.error}\n{note}")
    return replace(result, output=f"{result.output}\n{note}" if result.output else note)


async def _result(job: _PreparedCall) -> ToolResult:
    """The call's result. An exception inside the tool becomes a failed result."""
    call = job.call
    if job.tool is None:
        return ToolResult(call.id, call.name, False, error=job.refusal)
    try:
        output = await job.tool.execute(job.arguments)
    except ToolError as error:
        return ToolResult(call.id, call.name, False, error=str(error))
    except Exception as error:  # a bug in a tool must not end the session
        return ToolResult(call.id, call.name, False, error=f"{type(error).__name__}: {error}")
    return ToolResult(call.id, call.name, output.ok, output.output, output.error)


def _ready(
    waiting: Mapping[int, _PreparedCall], running: Sequence[tuple[int, Access | None]]
) -> list[tuple[int, Access | None]]:
    """The waiting calls that conflict with no earlier call, running or waiting.

    Each call's access is computed again every time, because an earlier shell command may
    have turned a path into a link.
    """
    before = dict(running)
    ready = []
    for index, job in waiting.items():
        access = _access(job)
        if not any(conflict(access, other) for i, other in before.items() if i < index):
            ready.append((index, access))
        before[index] = access
    return ready


def _access(job: _PreparedCall) -> Access | None:
    """The call's access. None, which conflicts with everything, if the tool cannot compute it."""
    if job.tool is None:
        return Access("none")
    try:
        return job.tool.access(job.arguments)
    except Exception:  # `execute` fails the same way and reports it
        return None


def conflict(a: Access | None, b: Access | None) -> bool:
    """Whether two calls must keep their order. None is a call that may use anything."""
    if a is None or b is None:
        return True
    if a.domain != b.domain:
        return "none" not in (a.domain, b.domain)
    return any(
        _overlap(written, touched)
        for writer, toucher in ((a, b), (b, a))
        for written in writer.writes
        for touched in _touched(toucher)
    )


def _touched(access: Access) -> Iterator[str]:
    yield from access.reads
    yield from access.writes


def _overlap(a: str, b: str) -> bool:
    """Whether the names are equal, or one contains the other."""
    return a == b or a.startswith(f"{b.rstrip('/')}/") or b.startswith(f"{a.rstrip('/')}/")
