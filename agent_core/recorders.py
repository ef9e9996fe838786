"""Combines several recorders, so that a session can be watched while it is recorded."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent_core.errors import RecordingError
from agent_core.messages import Message, Reply, ToolResult
from agent_core.ports import Recorder

_LOG = logging.getLogger(__name__)


class ToleratedRecorder:
    """Forwards to a recorder. After its start, a failure is a warning and not an error.

    A full disk must not end a session whose work is worth more than its record. Warns of the
    first failure and of one at the end, which knows how much is lost.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._warned = False

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        """Raises `RecordingError`."""
        self._warned = False
        self._recorder.start(task, provider, model, max_steps)

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        with self._tolerated():
            self._recorder.interaction(new_messages, reply, tools)

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        with self._tolerated():
            self._recorder.step(number, state, messages, reply, results, error)

    async def finish(self, success: bool, final_result: str | None) -> None:
        try:
            await self._recorder.finish(success, final_result)
        except RecordingError as error:
            _LOG.warning("%s", error)

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        try:
            yield
        except RecordingError as error:
            if not self._warned:
                self._warned = True
                _LOG.warning("%s The task goes on.", error)


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
