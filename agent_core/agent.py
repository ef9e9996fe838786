"""The loop: ask the model, run what it calls, tell it the results, until it is done.

It knows the ports and nothing behind them.
"""

import contextlib
from collections.abc import Sequence

from agent_core.errors import AgentError, RecordingError, ToolError
from agent_core.messages import Message, Outcome, Reply, Stop, ToolCall, ToolResult, Usage
from agent_core.ports import Catalog, Dispatch, Model, Recorder

SYSTEM_PROMPT = """\
You are a software engineer at work in a folder of files. You act by calling tools.

1. Understand first: look at the files that matter, and reproduce the problem where there is one.
2. Change as little as solves the task, in the style of what is there.
3. Check the result: run the tests or the program, and look at what failed.
4. Call `task_done` when the task is complete and checked, with a short summary as your text.

Calls that do not depend on each other belong into one reply.
"""

_GO_ON = "No tool was called. Go on with the task, or call task_done if it is complete."


class Agent:
    """One model, its tools and its diary; `run` is one session."""

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
    ) -> None:
        self._model = model
        self._catalog = catalog
        self._dispatch = dispatch
        self._recorder = recorder
        self._provider = provider
        self._model_name = model_name
        self._max_steps = max_steps
        self._system_prompt = system_prompt

    async def run(self, task: str) -> Outcome:
        """Works on `task` until the model is done, the steps are spent, or something fails.

        A failure that the error tree knows becomes the outcome. A cancellation, or a
        defect, is raised again after the diary is finished. The tools are closed always;
        the model belongs to the caller.
        """
        session = _Session(
            [Message("system", self._system_prompt), Message("user", task)],
            self._recorder,
            [spec.name for spec in self._catalog.specs()],
        )
        try:
            outcome = await self._recorded(task, session)
        except BaseException as error:
            stopped = not isinstance(error, Exception)  # from outside: a signal, a cancellation
            reason = "interrupted" if stopped else str(error) or type(error).__name__
            with contextlib.suppress(RecordingError):  # the first failure is the one to report
                session.record_failure(reason)
            with contextlib.suppress(RecordingError):
                await self._recorder.finish(False, None)
            raise
        finally:
            await self._catalog.close()
        return outcome

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
            # The first failure is the one to report; without one, this is it.
            return session.outcome("error", outcome.final_text, outcome.error or str(error))
        return outcome

    async def _steps(self, session: "_Session") -> Outcome:
        specs = self._catalog.specs()
        while session.steps < self._max_steps:
            session.begin_step()
            reply = await self._model.reply(session.history, specs)
            session.take(reply)
            calls = reply.message.calls
            if any(self._is_done(call) for call in calls):
                # Like Trae Agent: the calls beside task_done are not run.
                session.end_step([])
                return session.outcome("task_done", reply.message.text)
            results = await self._dispatch.run(calls, self._catalog, session.ended) if calls else []
            session.end_step(results)
            if results:
                session.history += [Message("tool", result=result) for result in results]
            else:
                session.history.append(Message("user", _GO_ON))
        return session.outcome("max_steps")

    def _is_done(self, call: ToolCall) -> bool:
        try:
            return self._catalog.get(call.name).spec.name == "task_done"
        except ToolError:  # an unknown name, which the dispatch will say
            return False


class _Session:
    """What grows during a run: the history, the step under way, the tokens."""

    def __init__(
        self, history: list[Message], recorder: Recorder, tool_names: Sequence[str]
    ) -> None:
        self.history = history
        self.steps = 0
        self._recorder = recorder
        self._tool_names = tool_names
        self._usage = Usage()
        self._said = 0  # how many messages the model has been sent, or has sent
        self._new: list[Message] = []
        self._reply: Reply | None = None
        self._results: list[ToolResult] = []  # of the step under way, as they come
        self._open = False

    def begin_step(self) -> None:
        self.steps += 1
        self._new = self.history[self._said :]
        self._reply = None
        self._results = []
        self._open = True

    def take(self, reply: Reply) -> None:
        """The model's answer: into the history and the diary."""
        self._reply = reply
        self._usage += reply.usage
        self.history.append(reply.message)
        self._said = len(self.history)
        self._recorder.interaction(self._new, reply, self._tool_names)

    def ended(self, result: ToolResult) -> None:
        """One call's result, while others may still run."""
        self._results.append(result)

    def end_step(self, results: Sequence[ToolResult]) -> None:
        self._open = False
        self._recorder.step(self.steps, "completed", self._new, self._reply, results)

    def record_failure(self, reason: str) -> None:
        """Notes the step under way, where there is one, as failed, with what was done in it."""
        if self._open:
            self._open = False
            calls = self._reply.message.calls if self._reply else ()
            order = [call.id for call in calls]
            results = sorted(self._results, key=lambda result: order.index(result.call_id))
            self._recorder.step(self.steps, "error", self._new, self._reply, results, reason)

    def outcome(self, stop: Stop, final_text: str = "", error: str | None = None) -> Outcome:
        return Outcome(stop == "task_done", stop, final_text, self.steps, self._usage, error)
