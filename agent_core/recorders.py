"""Several recorders as one, so that a session can be watched while it is recorded."""

from collections.abc import Sequence

from agent_core.messages import Message, Reply, ToolResult
from agent_core.ports import Recorder


class Recorders:
    """Tells each recorder everything, in order; without any, nothing is kept.

    Satisfies `ports.Recorder`. `finish` reaches every one of them, and then raises the
    first error that it met.
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
            except Exception as error:  # the others are finished too before it goes on
                first = first or error
        if first is not None:
            raise first
