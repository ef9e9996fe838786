"""Records a session in Trae Agent's trajectory format.

`TrajectoryRecorder` works like Trae Agent: it keeps everything in memory and rewrites the
whole file with every record. `OptimizedTrajectoryRecorder` appends each record as a line of
JSON to a journal next to the file, and builds the same file from it at the end. The files
are equal as data; `json` spells some floats differently (`1e+22`). `recover` makes a
trajectory from the journal of a killed process.

Both redact known secrets. With `max_interactions`, the final file has only the newest
interactions and the newest steps, that many of each.
"""

import asyncio
import io
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
    default_path,
    empty_trajectory,
    interaction_record,
    make_folder,
    open_private,
    replace_file,
    step_record,
    write_error,
    write_trajectory,
)
from agent_core.trajectory_journal import Journal, recover

__all__ = ["OptimizedTrajectoryRecorder", "TrajectoryRecorder", "recover"]

# ----------------------------------------------------------------------------- common part


class RecorderBase(ABC):
    """Implements the port and Trae Agent's method names on top of five abstract methods.

    Raises `RecordingError` before `start`, and if a file cannot be written.
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
        self.record_llm_interaction(new_messages, reply, self._provider, self._model, tools)

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
        """Begins a new trajectory. Its file exists when this returns."""
        self._started = datetime.now()
        self._provider = provider
        self._model = model
        header = empty_trajectory(self._started)
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
        """Adds a summary to the first step with this number."""
        self._require_started()
        self._add_summary(step_number, self._redactor.text(lakeview_summary))

    def finalize_recording(self, success: bool, final_result: str | None = None) -> None:
        """Completes the file. Does nothing if no recording is active."""
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
            raise RecordingError("No recording is active; call start_recording first.")


# ------------------------------------------------------------------------------- baseline


class TrajectoryRecorder(RecorderBase):
    """Rewrites the whole file in place at the start, twice per step and at the end.

    This is Trae Agent's way. A reader may see a partial file, and a full disk destroys the
    previous contents. Trae Agent prints a warning if it cannot write; this class raises
    `RecordingError`.
    """

    def __init__(
        self,
        trajectory_path: str | Path | None = None,
        *,
        max_interactions: int | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        super().__init__(trajectory_path, max_interactions, redactor)
        self._data = empty_trajectory()
        self._saves = 0
        self._bytes_written = 0

    def save_trajectory(self) -> None:
        try:
            make_folder(self.trajectory_path)
            with io.TextIOWrapper(
                open_private(self.trajectory_path), encoding="utf-8", errors="replace"
            ) as file:
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
    """Encodes each record once and appends it, `batch_size` records per write.

    During the session, `trajectory_path` is a valid trajectory without records, and the
    journal (`journal_path`) has the records, one per line. A reader always sees whole lines. The
    data survives the process, not a power failure. At the end the file is replaced atomically
    and the journal removed.

    A batch is written when it is full, and at the latest one second after its first record.
    A killed session therefore loses at most `batch_size - 1` records, all of the last second.
    Without a thread and without a running event loop their age has no limit.

    With `background_io`, a thread writes the batches, so a slow disk does not block the event
    loop. This costs some CPU time and gains nothing on a fast disk; on a running event loop, the
    thread therefore starts after the first 64 KiB. If the disk is slower than the session, a
    killed session also loses what the thread has not written: at most 1 MiB and one batch,
    because recording waits from there on.

    Works with and without an event loop. If it is dropped or still open at exit, it writes
    its remaining records, stops its thread and leaves the journal.
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
        """The journal. Before the start, its preferred name."""
        if self._journal is not None:
            return self._journal.path
        path = self.trajectory_path
        return path.with_suffix(".jsonl") if path.suffix == ".json" else Path(f"{path}.jsonl")

    def flush(self) -> None:
        """Waits until every record is in the journal. Safe in a signal handler."""
        if self._journal is not None:
            self._journal.flush()

    async def save_trajectory_async(self) -> None:
        """Updates the trajectory file while the recording continues."""
        if self._journal is not None:
            self.flush()
            await _run_off_loop(self._convert, self._journal.accepted)

    async def finish(self, success: bool, final_result: str | None) -> None:
        if self._started is not None:
            size = self._journal.accepted if self._journal is not None else 0
            ending = self._ending(success, final_result)
            await _run_off_loop(lambda: self._end(ending), size)

    def cleanup(self) -> None:
        """Writes the remaining records and stops the thread.

        Without a previous `finalize_recording`, the journal stays for `recover`.
        """
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
            make_folder(self.trajectory_path)
            replace_file(self.trajectory_path, lambda out: write_trajectory(out, header, (), ()))
            self._journal = Journal(
                self.journal_path, batch_size=self.batch_size, background=self.background_io
            )
        except OSError as error:
            raise write_error(self.trajectory_path, error) from error
        # References the journal, not the recorder, so that the recorder can be collected.
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


_MIN_THREAD_SIZE = 256 * 1024
"""Bytes. Converting less takes about a millisecond, less than a thread is worth."""


async def _run_off_loop(work: Callable[[], None], size: int) -> None:
    """Runs `work`, in a temporary thread if `size` is large."""
    if size < _MIN_THREAD_SIZE:
        work()
        return
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:  # raised again by the awaiting task
            failure = error
        loop.call_soon_threadsafe(done.set_result, failure)

    thread = threading.Thread(target=run, name="trajectory-finish")
    thread.start()
    try:
        failure = await asyncio.shield(done)
    finally:
        # Also when cancelled: let the conversion complete.
        thread.join()
    if failure is not None:
        raise failure
