"""Running one reply's calls: `SequentialDispatch` | `ParallelDispatch`.

Both give the same results, in call order: a call starts at the same time as others only
where the tools say that it is independent of every earlier call that has not ended.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from agent_core.arguments import schema_violations, without_null_options
from agent_core.errors import ToolError
from agent_core.messages import ToolCall, ToolResult
from agent_core.ports import Access, Catalog, OnResult, Tool


class SequentialDispatch:
    """One call after another."""

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, ended: OnResult = lambda result: None
    ) -> Sequence[ToolResult]:
        return [await _execute(_prepare(call, catalog), ended) for call in calls]


class ParallelDispatch:
    """Independent calls side by side, at most `limit` at a time.

    When it is cancelled, it cancels the calls under way and ends after them.
    """

    def __init__(self, limit: int = 8) -> None:
        if limit < 1:
            raise ValueError(f"limit has to be at least 1, not {limit}")
        self._limit = limit

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, ended: OnResult = lambda result: None
    ) -> Sequence[ToolResult]:
        if len(calls) == 1:  # the usual case, which needs no task
            return [await _execute(_prepare(calls[0], catalog), ended)]
        waiting = dict(enumerate(_prepare(call, catalog) for call in calls))
        results: dict[int, ToolResult] = {}
        running: dict[asyncio.Task[ToolResult], tuple[int, Access | None]] = {}
        async with asyncio.TaskGroup() as group:
            while waiting or running:
                room = self._limit - len(running)
                for index, access in _ready(waiting, list(running.values()))[:room]:
                    task = group.create_task(_execute(waiting.pop(index), ended))
                    running[task] = (index, access)
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    results[running.pop(task)[0]] = task.result()
        return [results[index] for index in range(len(calls))]


class _PreparedCall(Struct, frozen=True):
    """A call with its tool and its arguments; or, with `refusal`, why it cannot be run."""

    call: ToolCall
    tool: Tool | None = None
    arguments: Mapping[str, Any] = {}
    refusal: str = ""


def _prepare(call: ToolCall, catalog: Catalog) -> _PreparedCall:
    try:
        tool = catalog.get(call.name)
    except ToolError as error:
        return _PreparedCall(call, refusal=str(error))
    if call.malformed is not None:
        return _PreparedCall(
            call,
            refusal=f"The arguments of {call.name} are not a JSON object: {call.malformed!r:.500}."
            " Nothing was run. Send the call again with one JSON object.",
        )
    arguments = without_null_options(call.arguments, tool.spec.parameters)
    wrong = schema_violations(arguments, tool.spec.parameters)
    if wrong:
        return _PreparedCall(
            call,
            refusal=f"The arguments of {call.name} do not fit: {'; '.join(wrong)}."
            " Nothing was run. Correct them and send the call again.",
        )
    return _PreparedCall(call, tool, arguments)


async def _execute(job: _PreparedCall, ended: OnResult) -> ToolResult:
    result = await _result(job)
    ended(result)
    return result


async def _result(job: _PreparedCall) -> ToolResult:
    """The call's result; whatever goes wrong inside the tool becomes a failed one."""
    call = job.call
    if job.tool is None:
        return ToolResult(call.id, call.name, False, error=job.refusal)
    try:
        said = await job.tool.execute(job.arguments)
    except ToolError as error:
        return ToolResult(call.id, call.name, False, error=str(error))
    except Exception as error:  # a tool's defect must not end the session; the model is told
        return ToolResult(call.id, call.name, False, error=f"{type(error).__name__}: {error}")
    return ToolResult(call.id, call.name, said.ok, said.output, said.error)


def _ready(
    waiting: Mapping[int, _PreparedCall], running: Sequence[tuple[int, Access | None]]
) -> list[tuple[int, Access | None]]:
    """The waiting calls that conflict with no earlier call, running or waiting.

    What a call touches is asked anew each time, because an earlier shell command may have
    turned a path into a link to another.
    """
    before = dict(running)
    chosen = []
    for index, job in waiting.items():
        access = _access(job)
        if not any(conflict(access, other) for i, other in before.items() if i < index):
            chosen.append((index, access))
        before[index] = access
    return chosen


def _access(job: _PreparedCall) -> Access | None:
    """What the call touches; None, which conflicts with all, where the tool cannot tell."""
    if job.tool is None:
        return Access("none")
    try:
        return job.tool.access(job.arguments)
    except Exception:  # the same will go wrong in `execute`, where it becomes the result
        return None


def conflict(one: Access | None, other: Access | None) -> bool:
    """Whether two calls have to keep their order. None stands for a call that may touch all."""
    if one is None or other is None:
        return True
    if one.domain != other.domain:
        return "none" not in (one.domain, other.domain)
    return any(
        _overlap(written, touched)
        for writer, toucher in ((one, other), (other, one))
        for written in writer.writes
        for touched in _touched(toucher)
    )


def _touched(access: Access) -> Iterator[str]:
    yield from access.reads
    yield from access.writes


def _overlap(one: str, other: str) -> bool:
    """Whether two names are the same, or one covers the other."""
    return (
        one == other
        or one.startswith(f"{other.rstrip('/')}/")
        or other.startswith(f"{one.rstrip('/')}/")
    )
