"""Runs commands that change nothing at the same time, with the results of running them in order."""

import asyncio
from collections.abc import Awaitable, Mapping

from msgspec import Struct

from agent_core.errors import ToolError
from agent_core.ports import Shell, ShellResult
from agent_core.shell_state import StateReport
from agent_core.tools.read_only import Reading

PATIENCE = 0.03
"""Seconds that a command may take before the others start. Another shell takes 5 ms of CPU time."""


class Read(Struct, frozen=True, eq=False):
    """One command, and at most how many seconds it may run."""

    command: str
    timeout: float
    parts: Reading


Waiting = Mapping[Read, "asyncio.Future[ShellResult]"]


class SharedShell:
    """A shell and the lock of the command that runs in it."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.lock = asyncio.Lock()
        self._waiting: dict[Read, asyncio.Future[ShellResult]] = {}

    def has_waiting(self) -> bool:
        """Whether a command that only reads is about to start, so that others can join it."""
        return bool(self._waiting)

    async def read(self, read: Read) -> ShellResult:
        """The result of `read`. Raises `ToolError`."""
        future: asyncio.Future[ShellResult] = asyncio.get_running_loop().create_future()
        is_first = not self._waiting
        self._waiting[read] = future
        if is_first:  # this call runs the commands of all
            await self._run_waiting()
        return await future

    async def _run_waiting(self) -> None:
        waiting = self._waiting
        try:
            await asyncio.sleep(0)  # the other calls of the reply join
            self._waiting = {}
            async with self.lock:
                await self._run_all(waiting)
        except Exception as error:  # each call reports it, as it would alone
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)
        finally:
            if self._waiting is waiting:
                self._waiting = {}
            for future in waiting.values():
                future.cancel()  # no effect on one that has a result

    async def _run_all(self, waiting: Waiting) -> None:
        """Runs the commands in order. As soon as one is slow, the others run beside it."""
        report = _report_for(waiting)
        if report is None:
            await self._run_in_order(waiting)
            return
        running: list[asyncio.Task[ShellResult]] = []
        try:
            await self._run_beside(waiting, report, running)
        finally:
            report.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _run_in_order(self, waiting: Waiting) -> None:
        for read, future in waiting.items():
            await _settle(future, self.shell.run(read.command, read.timeout))

    async def _run_beside(
        self, waiting: Waiting, report: StateReport, running: "list[asyncio.Task[ShellResult]]"
    ) -> None:
        """Adds every task to `running`."""
        rest, beside = dict(waiting), {}
        for read, future in waiting.items():
            del rest[read]
            first = None if running else report
            task = asyncio.create_task(self.shell.run(read.command, read.timeout, first))
            running.append(task)
            if rest and not await _ends_soon(task):
                beside = self._start_beside(list(rest), report)
                running += beside.values()
            if not await _settle(future, task):
                beside = {}  # the timeout has ended the shell, so the rest begins anew
                break
            if beside:
                break
        for read, task in beside.items():
            del rest[read]
            if not await _settle(waiting[read], task):
                await self.shell.restart()  # as the timeout would have done
                break
        else:
            self.shell.skip([read.command for read in beside])
        await self._run_in_order(rest)

    def _start_beside(
        self, reads: list[Read], report: StateReport
    ) -> "dict[Read, asyncio.Task[ShellResult]]":
        commands = [read.command for read in reads]
        twins = [self.shell.twin(report, commands[:number]) for number in range(len(reads))]
        return {
            read: asyncio.create_task(_run_in(twin, read))
            for read, twin in zip(reads, twins, strict=True)
            if twin is not None
        }


def _report_for(waiting: Waiting) -> StateReport | None:
    """A report for these commands. None if it is no gain to run them beside each other."""
    if sum(read.parts.may_be_slow() for read in waiting) < 2:
        return None
    return StateReport(
        {name for read in waiting for name in read.parts.programs},
        {word for read in waiting for word in read.parts.words},
    )


async def _ends_soon(task: "asyncio.Task[ShellResult]") -> bool:
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    return bool(done)


async def _run_in(shell: Shell, read: Read) -> ShellResult:
    try:
        return await shell.run(read.command, read.timeout)
    finally:
        await shell.close()


async def _settle(future: "asyncio.Future[ShellResult]", running: Awaitable[ShellResult]) -> bool:
    """Passes the result or the `ToolError` on. False if the command ran out of time."""
    try:
        result = await running
    except ToolError as error:
        if not future.done():
            future.set_exception(error)
        return True
    if not future.done():  # its caller may have been cancelled
        future.set_result(result)
    return result.exit_status is not None
