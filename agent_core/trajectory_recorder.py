"""The session's diary, in Trae Agent's trajectory format.

`TrajectoryRecorder` does what Trae Agent does: it keeps everything in memory and writes
the whole file anew, in place, with every record. `OptimizedTrajectoryRecorder` appends
each record once, as a line of JSON, to a journal beside the file and makes the same file
from it at the end: the same as data, for `json` spells some floats otherwise (`1e+22`).
A journal that a killed process left becomes a trajectory through `recover`.

Both keep known secrets out of every file, and with `max_interactions` both keep the
newest that many interactions and the newest that many steps in the final file.
"""

import asyncio
import json
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from agent_core.encoding import encode_json
from agent_core.errors import RecordingError
from agent_core.messages import Message, Reply, ToolCall, ToolResult, ToolSpec
from agent_core.redaction import Redactor
from agent_core.trajectory_format import (
    blank,
    default_path,
    interaction_record,
    replace_file,
    step_record,
    write_error,
    write_trajectory,
)
from agent_core.trajectory_journal import Journal, recover

__all__ = ["OptimizedTrajectoryRecorder", "TrajectoryRecorder", "recover"]

# ----------------------------------------------------------------- what both recorders do


class RecorderBase(ABC):
    """Both sets of names, the port's and Trae Agent's, onto five things that may happen.

    Raises `RecordingError` where nothing was started, and where a file cannot be written.
    """

    def __init__(
        self,
        trajectory_path: str | Path | None,
        max_interactions: int | None,
        redactor: Redactor | None,
    ) -> None:
        self.trajectory_path = Path(trajectory_path or default_path())
        self.max_interactions = max_interactions
        self._redactor = Redactor.of_environment(os.environ) if redactor is None else redactor
        self._started: datetime | None = None
        self._provider = ""
        self._model = ""

    @abstractmethod
    def _begin(self, header: dict[str, Any]) -> None: ...

    @abstractmethod
    def _add_interaction(self, record: dict[str, Any]) -> None: ...

    @abstractmethod
    def _add_step(self, record: dict[str, Any]) -> None: ...

    @abstractmethod
    def _add_summary(self, step_number: int, summary: str) -> None: ...

    @abstractmethod
    def _end(self, ending: dict[str, Any]) -> None: ...

    @abstractmethod
    def get_statistics(self) -> dict[str, float]: ...

    # ------------------------------------------------------------------------- the port

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        self.start_recording(task, provider, model, max_steps)

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        self._require_started()
        self._add_interaction(
            interaction_record(new_messages, reply, self._provider, self._model, tools)
        )

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        calls = reply.message.calls if reply is not None else ()
        self.record_agent_step(number, state, messages, reply, calls, results, None, error)

    async def finish(self, success: bool, final_result: str | None) -> None:
        self.finalize_recording(success, final_result)

    # ----------------------------------------------------------------- Trae Agent's names

    def start_recording(self, task: str, provider: str, model: str, max_steps: int) -> None:
        """Begins a new trajectory; its file is there when this returns."""
        self._started = datetime.now()
        self._provider = provider
        self._model = model
        header = blank(self._started)
        header |= {"task": task, "provider": provider, "model": model, "max_steps": max_steps}
        try:
            self._begin(self._redactor.tree(header))
        except RecordingError:
            self._started = None
            raise

    def record_llm_interaction(
        self,
        messages: Sequence[Message],
        response: Reply,
        provider: str,
        model: str,
        tools: Sequence[ToolSpec | str] | None = None,
    ) -> None:
        self._require_started()
        names = [tool if isinstance(tool, str) else tool.name for tool in tools or ()]
        self._add_interaction(interaction_record(messages, response, provider, model, names))

    def record_agent_step(
        self,
        step_number: int,
        state: str,
        llm_messages: Sequence[Message] | None = None,
        llm_response: Reply | None = None,
        tool_calls: Sequence[ToolCall] | None = None,
        tool_results: Sequence[ToolResult] | None = None,
        reflection: str | None = None,
        error: str | None = None,
    ) -> None:
        self._require_started()
        self._add_step(
            step_record(
                step_number,
                state,
                llm_messages or (),
                llm_response,
                tool_calls or (),
                tool_results or (),
                reflection,
                error,
            )
        )

    def update_lakeview(self, step_number: int, lakeview_summary: str) -> None:
        """Adds a summary to the first step of this number."""
        self._require_started()
        self._add_summary(step_number, self._redactor.text(lakeview_summary))

    def finalize_recording(self, success: bool, final_result: str | None = None) -> None:
        """Completes the file. A second call, or one without a start, does nothing."""
        if self._started is not None:
            self._end(self._ending(success, final_result))

    def get_trajectory_path(self) -> str:
        return str(self.trajectory_path)

    def _ending(self, success: bool, final_result: str | None) -> dict[str, Any]:
        assert self._started is not None
        now, started = datetime.now(), self._started
        self._started = None
        ending = {
            "end_time": now.isoformat(),
            "success": success,
            "final_result": final_result,
            "execution_time": (now - started).total_seconds(),
        }
        redacted: dict[str, Any] = self._redactor.tree(ending)
        return redacted

    def _require_started(self) -> None:
        if self._started is None:
            raise RecordingError("Nothing is being recorded; call start_recording first.")


# ------------------------------------------------------------------------------- baseline


class TrajectoryRecorder(RecorderBase):
    """Trae Agent's way: the whole file rewritten in place at the start, twice a step and at
    the end. A reader may find half a file, and a full disk costs what was there before.

    Where Trae Agent prints a warning when it cannot write, this raises `RecordingError`.
    """

    def __init__(
        self,
        trajectory_path: str | Path | None = None,
        *,
        max_interactions: int | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        super().__init__(trajectory_path, max_interactions, redactor)
        self._data = blank()
        self._saves = 0
        self._bytes_written = 0

    def save_trajectory(self) -> None:
        try:
            self.trajectory_path.parent.mkdir(parents=True, exist_ok=True)
            with self.trajectory_path.open("w", encoding="utf-8", errors="replace") as file:
                json.dump(self._data, file, indent=2, ensure_ascii=False)
                self._bytes_written += file.tell()
        except OSError as error:
            raise write_error(self.trajectory_path, error) from error
        self._saves += 1

    def get_statistics(self) -> dict[str, float]:
        return {
            "interactions": len(self._data["llm_interactions"]),
            "steps": len(self._data["agent_steps"]),
            "saves": self._saves,
            "bytes_written": self._bytes_written,
        }

    def _begin(self, header: dict[str, Any]) -> None:
        self._data = header
        self.save_trajectory()

    def _add_interaction(self, record: dict[str, Any]) -> None:
        self._add("llm_interactions", record)

    def _add_step(self, record: dict[str, Any]) -> None:
        self._add("agent_steps", record)

    def _add_summary(self, step_number: int, summary: str) -> None:
        for step in self._data["agent_steps"]:
            if step["step_number"] == step_number:
                step["lakeview_summary"] = summary
                self.save_trajectory()
                return

    def _end(self, ending: dict[str, Any]) -> None:
        self._data |= ending
        self.save_trajectory()

    def _add(self, field: str, record: dict[str, Any]) -> None:
        records: list[Any] = self._data[field]
        records.append(self._redactor.tree(record))
        if self.max_interactions is not None:
            del records[: max(0, len(records) - self.max_interactions)]
        self.save_trajectory()


# ------------------------------------------------------------------------------ optimised


class OptimizedTrajectoryRecorder(RecorderBase):
    """Each record encoded once and appended, `batch_size` of them in one write.

    While the session runs, `trajectory_path` holds a valid trajectory without records,
    and the journal beside it (`journal_path`) the records, a line each. A reader finds
    whole lines at any moment; killed, the session loses the batch not yet written and
    no more (the file survives the process, not a power cut). At the end the file is
    replaced in one piece and the journal is removed.

    `background_io` has a thread write the batches, so that a slow disk does not hold up
    the event loop. It costs a little CPU; on a fast disk nothing is won by it. The queue
    between is bounded: who records faster than the disk takes it waits.

    Works with and without an event loop. Dropped or left open at exit, it still writes
    what it has and stops its thread; the journal then stays.
    """

    def __init__(
        self,
        trajectory_path: str | Path | None = None,
        batch_size: int = 5,
        max_interactions: int | None = None,
        background_io: bool = True,
        *,
        redactor: Redactor | None = None,
    ) -> None:
        super().__init__(trajectory_path, max_interactions, redactor)
        self.batch_size = batch_size
        self.background_io = background_io
        self._journal: Journal | None = None
        self._counts = {"interaction": 0, "step": 0}
        self._redactions = 0

    @property
    def journal_path(self) -> Path:
        """The journal's file; before the start, the one that is taken where it is free."""
        if self._journal is not None:
            return self._journal.path
        path = self.trajectory_path
        return path.with_suffix(".jsonl") if path.suffix == ".json" else Path(f"{path}.jsonl")

    def flush(self) -> None:
        """Returns when everything recorded so far is in the journal. Safe in a signal handler."""
        if self._journal is not None:
            self._journal.flush()

    async def save_trajectory_async(self) -> None:
        """Brings the file up to now, while the recording goes on."""
        if self._journal is not None:
            self.flush()
            await _off_the_loop(self._convert, self._journal.accepted)

    async def finish(self, success: bool, final_result: str | None) -> None:
        if self._started is not None:
            size = self._journal.accepted if self._journal is not None else 0
            ending = self._ending(success, final_result)
            await _off_the_loop(lambda: self._end(ending), size)

    def cleanup(self) -> None:
        """Writes what is there and stops the thread. Without `finalize_recording` before,
        the journal stays, for `recover`."""
        if self._journal is not None:
            self._journal.close()

    def get_statistics(self) -> dict[str, float]:
        journal = self._journal
        return {
            "interactions": self._counts["interaction"],
            "steps": self._counts["step"],
            "redacted_records": self._redactions,
            "records": journal.records if journal else 0,
            "pending_records": journal.waiting if journal else 0,
            "lost_records": journal.lost if journal else 0,
            "batches": journal.writes if journal else 0,
            "bytes_written": journal.size if journal else 0,
            "queue_high_water": journal.high_water if journal else 0,
        }

    def _begin(self, header: dict[str, Any]) -> None:
        self.cleanup()
        self._journal = None
        self._counts = {"interaction": 0, "step": 0}
        try:
            self.trajectory_path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.trajectory_path, lambda out: write_trajectory(out, header, (), ()))
            self._journal = Journal(
                self.journal_path, batch_size=self.batch_size, background=self.background_io
            )
        except OSError as error:
            raise write_error(self.trajectory_path, error) from error
        # Holds the journal and not the recorder, or the recorder could never be dropped.
        weakref.finalize(self, self._journal.close)
        try:
            self._add("start", {**header, "file": self.trajectory_path.name})
            self._journal.flush()
        except RecordingError:
            self._journal.close()
            self._journal.path.unlink(missing_ok=True)
            raise

    def _add_interaction(self, record: dict[str, Any]) -> None:
        self._counts["interaction"] += 1
        self._add("interaction", record)

    def _add_step(self, record: dict[str, Any]) -> None:
        self._counts["step"] += 1
        self._add("step", record)

    def _add_summary(self, step_number: int, summary: str) -> None:
        self._add("summary", {"step_number": step_number, "lakeview_summary": summary})

    def _end(self, ending: dict[str, Any]) -> None:
        assert self._journal is not None
        try:
            self._add("end", ending)
        finally:
            self._journal.close()
        self._journal.check()
        self._convert()
        self.journal_path.unlink(missing_ok=True)

    def _add(self, kind: str, record: dict[str, Any]) -> None:
        assert self._journal is not None
        data = encode_json(record)
        if self._redactor.touches(data):
            self._redactions += 1
            data = encode_json(self._redactor.tree(record))
        self._journal.append(b'{"kind":"%s","data":%s}\n' % (kind.encode(), data))

    def _convert(self) -> None:
        recover(self.journal_path, self.trajectory_path, max_interactions=self.max_interactions)


_LARGE = 256 * 1024
"""Bytes. Converting less takes about a millisecond, and a thread is not worth its start."""


async def _off_the_loop(work: Callable[[], None], size: int) -> None:
    """Runs `work`, where it is large in a thread of its own that is gone afterwards."""
    if size < _LARGE:
        work()
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:  # raised again where it is awaited
            failure = error
        loop.call_soon_threadsafe(done.set_result, failure)

    thread = threading.Thread(target=run, name="trajectory-finish")
    thread.start()
    try:
        failure = await asyncio.shield(done)
    finally:
        # Also when cancelled: a diary that is being completed is completed.
        thread.join()
    if failure is not None:
        raise failure
