"""The agent loop: ask the model, run its tool calls, return the results, repeat.

It depends on the protocols in `ports.py` only.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from agent_core.context import Context
from agent_core.errors import (
    AgentError,
    ContextLimitError,
    NoProgressError,
    RecordingError,
    ToolError,
)
from agent_core.messages import (
    Message,
    Outcome,
    Reply,
    Stop,
    ToolCall,
    ToolResult,
    ToolSpec,
    Usage,
)
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
_CUT = (
    "Your reply was cut, because it reached the limit of tokens (max_tokens). Go on in smaller"
    " parts: for instance, write a long file in several calls."
)
_CUT_CALL = (
    "Your reply was cut inside this call, because it reached the limit of tokens (max_tokens)."
    " Nothing was run. Send the call again in smaller parts: for instance, write a long file in"
    " several calls."
)
_UNREADABLE = "The provider could not read your call{}. Send it again as one valid call."

MAX_FRUITLESS = 3
"""Replies in a row without a whole call that are cut, unreadable or empty."""


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
        context_window: int | None = None,
        system_prompt: str = SYSTEM_PROMPT,
        objection: Objection = no_objection,
        on_result: OnResult = ignore_result,
        workspace: Path | None = None,
    ) -> None:
        """`context_window` is in tokens, without those of a reply; None if it is not known."""
        self._model = model
        self._catalog = catalog
        self._dispatch = dispatch
        self._recorder = recorder
        self._provider = provider
        self._model_name = model_name
        self._max_steps = max_steps
        self._context_window = context_window
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
        specs, context, fruitless = self._catalog.specs(), Context(self._context_window), 0
        results: Sequence[ToolResult]
        while session.steps < self._max_steps:
            session.begin_step()
            reply = await self._reply(session.history, specs, context)
            session.take(reply)
            self._check_not_refused(reply)
            if any(self._is_done(call) for call in reply.message.calls):
                # Like Trae Agent: the calls beside task_done are not run.
                if (objection := await self._objection()) is None:
                    session.end_step([])
                    return session.outcome("task_done", reply.message.text)
                results = session.refuse(reply.message.calls, objection)
            else:
                results = await self._results(reply, session)
            fruitless = fruitless + 1 if _is_fruitless(reply) else 0
            if fruitless == MAX_FRUITLESS:
                raise self._no_progress(reply)
            session.end_step(results)
            if results:
                session.history += [Message("tool", result=result) for result in results]
            else:
                session.history.append(Message("user", _answer_to(reply)))
            if reply.ending == "window":
                context.refused(session.history)
        return session.outcome("max_steps")

    async def _reply(
        self, history: list[Message], specs: Sequence[ToolSpec], context: Context
    ) -> Reply:
        """The model's reply. Shortens `history` if it is too long for the model."""
        context.fit(history)
        while True:
            try:
                return await self._model.reply(history, specs)
            except ContextLimitError:
                if not context.refused(history):
                    raise

    async def _results(self, reply: Reply, session: "_Session") -> list[ToolResult]:
        """The results of the calls. Of a reply that was cut, the last call is not run."""
        calls = reply.message.calls
        whole = calls[:-1] if _is_cut(reply) else calls
        results: list[ToolResult] = []
        if whole:
            results += await self._dispatch.run(whole, self._catalog, session.add_result)
        if len(whole) < len(calls):
            results += session.refuse(calls[-1:], _CUT_CALL)
        return results

    def _check_not_refused(self, reply: Reply) -> None:
        """Raises `NoProgressError` if the model or a filter refuses."""
        if reply.ending == "refused":
            reason = reply.finish_reason or "refusal"
            said = f": {reply.explanation:.500}" if reply.explanation else ""
            raise NoProgressError(f"{self._provider} refused to answer ({reason}){said}")

    def _no_progress(self, reply: Reply) -> NoProgressError:
        problem = f"{MAX_FRUITLESS} replies in a row were"
        if _is_cut(reply):
            return NoProgressError(
                f"{problem} cut at the limit of tokens ({reply.finish_reason}); raise max_tokens"
                f" of {self._provider}"
            )
        if reply.ending == "unreadable":
            said = f": {reply.explanation:.500}" if reply.explanation else ""
            return NoProgressError(f"{problem} calls that {self._provider} could not read{said}")
        reason = f" ({reply.finish_reason})" if reply.finish_reason else ""
        return NoProgressError(f"{problem} empty{reason}; try another model of {self._provider}")

    def _is_done(self, call: ToolCall) -> bool:
        try:
            return self._catalog.get(call.name).spec.name == "task_done"
        except ToolError:  # an unknown tool, which the dispatcher reports
            return False


def _is_cut(reply: Reply) -> bool:
    return reply.ending in ("limit", "window")


def _is_fruitless(reply: Reply) -> bool:
    """Whether the reply brings the task no further: the same three times ends the session."""
    if _is_cut(reply):
        return len(reply.message.calls) < 2
    if reply.message.calls:
        return False
    return reply.ending == "unreadable" or not reply.message.text.strip()


def _answer_to(reply: Reply) -> str:
    """What the model is told after a reply without calls."""
    if _is_cut(reply):
        return _CUT
    if reply.ending == "unreadable":
        return _UNREADABLE.format(f": {reply.explanation:.1000}" if reply.explanation else "")
    return _CONTINUE


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
        results = [ToolResult(call.id, call.name, False, error=reason) for call in calls]
        for result in results:
            self.add_result(result, 0.0)
        return results

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
