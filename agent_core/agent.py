"""The agent loop: ask the model, run its tool calls, return the results, repeat.

It depends on the protocols in `ports.py` only.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent_core.errors import AgentError, RecordingError, ToolError
from agent_core.messages import Message, Outcome, Reply, Stop, ToolCall, ToolResult, Usage
from agent_core.ports import Catalog, Dispatch, Model, OnResult, Recorder, ignore_result

SYSTEM_PROMPT = """\
You are a software engineer at work in a folder of files. You act by calling tools.

1. Understand first: look at the files that matter, and reproduce the problem where there is one.
2. Change as little as solves the task, in the style of what is there.
3. Check the result: run the tests or the program, and look at what failed.
4. Call `task_done` when the task is complete and checked, with a short summary as your text.

Calls that do not depend on each other belong into one reply.
"""

_CONTINUE = "No tool was called. Go on with the task, or call task_done if it is complete."


Objection = Callable[[], Awaitable[str | None]]
"""Called at `task_done`. A text says why the task is not complete."""


async def no_objection() -> str | None:
    """The default `Objection`."""
    return None


class Agent:
    """One model with its tools and recorder. `run` is one session.

    `objection` can refuse that the task is complete. `on_result` sees each result at once.
    The first message names `workspace`, because tools take absolute paths.
    """

    def __init__(
        self,
        model: Model,
        catalog: Catalog,
        dispatch: Dispatch,
        recorder: Recorder,
        *,
        provider: str,
        model_name: str,
        max_steps: int,
        system_prompt: str = SYSTEM_PROMPT,
        objection: Objection = no_objection,
        on_result: OnResult = ignore_result,
        workspace: Path | None = None,
    ) -> None:
        self._model = model
        self._catalog = catalog
        self._dispatch = dispatch
        self._recorder = recorder
        self._provider = provider
        self._model_name = model_name
        self._max_steps = max_steps
        self._system_prompt = system_prompt
        self._objection = objection
        self._on_result = on_result
        self._workspace = workspace

    async def run(self, task: str) -> Outcome:
        """Works on `task` until the model is done, the steps run out, or something fails.

        An `AgentError` becomes the outcome. Any other exception, and cancellation, is raised
        again after the recorder has finished. The tools are always closed; the caller closes
        the model.
        """
        session = _Session(
            [Message("system", self._system_prompt), Message("user", self._first_text(task))],
            self._recorder,
            [spec.name for spec in self._catalog.specs()],
            self._on_result,
        )
        try:
            outcome = await self._recorded(task, session)
        except BaseException as error:
            stopped = not isinstance(error, Exception)  # a signal or a cancellation
            reason = "interrupted" if stopped else str(error) or type(error).__name__
            with contextlib.suppress(RecordingError):  # the first failure is the one to report
                session.record_failure(reason)
            with contextlib.suppress(RecordingError):
                await self._recorder.finish(False, None)
            raise
        finally:
            await self._catalog.close()
        return outcome

    def _first_text(self, task: str) -> str:
        """The first user message: the folder in Trae Agent's form, then the task."""
        if self._workspace is None:
            return task
        return f"[Project root path]:\n{self._workspace}\n\n{task}"

    async def _recorded(self, task: str, session: "_Session") -> Outcome:
        try:
            self._recorder.start(task, self._provider, self._model_name, self._max_steps)
            outcome = await self._steps(session)
        except AgentError as error:
            with contextlib.suppress(RecordingError):
                session.record_failure(str(error))
            outcome = session.outcome("error", error=str(error))
        try:
            await self._recorder.finish(outcome.success, outcome.final_text or None)
        except RecordingError as error:
            # An earlier failure takes precedence over this one.
            return session.outcome("error", outcome.final_text, outcome.error or str(error))
        return outcome

    async def _steps(self, session: "_Session") -> Outcome:
        specs = self._catalog.specs()
        results: Sequence[ToolResult]
        while session.steps < self._max_steps:
            session.begin_step()
            reply = await self._model.reply(session.history, specs)
            session.take(reply)
            calls = reply.message.calls
            if any(self._is_done(call) for call in calls):
                # Like Trae Agent: the calls beside task_done are not run.
                if (objection := await self._objection()) is None:
                    session.end_step([])
                    return session.outcome("task_done", reply.message.text)
                results = session.refuse(calls, objection)
            elif calls:
                results = await self._dispatch.run(calls, self._catalog, session.add_result)
            else:
                results = []
            session.end_step(results)
            if results:
                session.history += [Message("tool", result=result) for result in results]
            else:
                session.history.append(Message("user", _CONTINUE))
        return session.outcome("max_steps")

    def _is_done(self, call: ToolCall) -> bool:
        try:
            return self._catalog.get(call.name).spec.name == "task_done"
        except ToolError:  # an unknown tool, which the dispatcher reports
            return False


class _Session:
    """The state of a run: the history, the current step, the tokens."""

    def __init__(
        self,
        history: list[Message],
        recorder: Recorder,
        tool_names: Sequence[str],
        on_result: OnResult = ignore_result,
    ) -> None:
        self.history = history
        self.steps = 0
        self._on_result = on_result
        self._recorder = recorder
        self._tool_names = tool_names
        self._usage = Usage()
        self._exchanged = 0  # messages that the model has received or sent
        self._new: list[Message] = []
        self._reply: Reply | None = None
        self._results: list[ToolResult] = []  # of the current step, in order of completion
        self._open = False

    def begin_step(self) -> None:
        self.steps += 1
        self._new = self.history[self._exchanged :]
        self._reply = None
        self._results = []
        self._open = True

    def take(self, reply: Reply) -> None:
        """Adds the model's answer to the history and records it."""
        self._reply = reply
        self._usage += reply.usage
        self.history.append(reply.message)
        self._exchanged = len(self.history)
        self._recorder.interaction(self._new, reply, self._tool_names)

    def add_result(self, result: ToolResult, seconds: float) -> None:
        """Called with each result as soon as it is available."""
        self._results.append(result)
        self._on_result(result, seconds)

    def refuse(self, calls: Sequence[ToolCall], reason: str) -> Sequence[ToolResult]:
        """Failed results for calls that are not run."""
        for call in calls:
            self.add_result(ToolResult(call.id, call.name, False, error=reason), 0.0)
        return self._results

    def end_step(self, results: Sequence[ToolResult]) -> None:
        self._open = False
        self._recorder.step(self.steps, "completed", self._new, self._reply, results)

    def record_failure(self, reason: str) -> None:
        """Records the current step, if any, as failed, with the results so far."""
        if self._open:
            self._open = False
            calls = self._reply.message.calls if self._reply else ()
            order = [call.id for call in calls]
            results = sorted(self._results, key=lambda result: order.index(result.call_id))
            self._recorder.step(self.steps, "error", self._new, self._reply, results, reason)

    def outcome(self, stop: Stop, final_text: str = "", error: str | None = None) -> Outcome:
        return Outcome(stop == "task_done", stop, final_text, self.steps, self._usage, error)
