"""Combines several recorders, so that a session can be watched while it is recorded."""

from collections.abc import Sequence

from agent_core.messages import Message, Reply, ToolResult
from agent_core.ports import Recorder


class Recorders:
    """Forwards every event to each recorder, in order. Satisfies `ports.Recorder`.

    `finish` calls every recorder and then raises the first error.
    """

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        for recorder in self._recorders:
            recorder.start(task, provider, model, max_steps)

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        for recorder in self._recorders:
            recorder.interaction(new_messages, reply, tools)

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        for recorder in self._recorders:
            recorder.step(number, state, messages, reply, results, error)

    async def finish(self, success: bool, final_result: str | None) -> None:
        first: Exception | None = None
        for recorder in self._recorders:
            try:
                await recorder.finish(success, final_result)
            except Exception as error:  # raised after the others have finished
                first = first or error
        if first is not None:
            raise first
