"""Cost of recording one step after fifty earlier steps."""

from itertools import count
from pathlib import Path

import pytest

from agent_core.messages import ToolResult
from agent_core.redaction import Redactor
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder, TrajectoryRecorder
from tests.benchmarks.sessions import reply, result
from tests.benchmarks.side_by_side import Comparison

EARLIER_STEPS = 50
NAMES = ["bash", "str_replace_based_edit_tool", "task_done"]


@pytest.mark.parametrize(
    ("side", "kind", "rounds"),
    [
        ("rewritten", TrajectoryRecorder, 20),
        ("appended", OptimizedTrajectoryRecorder, 500),
    ],
)
def test_one_step(
    comparison: Comparison,
    tmp_path: Path,
    side: str,
    kind: type[TrajectoryRecorder | OptimizedTrajectoryRecorder],
    rounds: int,
) -> None:
    # Limited, so the session does not grow during the measurement.
    path = tmp_path / "trajectory.json"
    recorder = kind(path, max_interactions=EARLIER_STEPS, redactor=Redactor())
    recorder.start_recording("task", "openai", "some-model", 100)
    numbers = count()

    def step() -> None:
        number = next(numbers)
        answer, message = reply(number), result(number)
        assert isinstance(message.result, ToolResult)
        recorder.interaction([message], answer, NAMES)
        recorder.step(number, "completed", [message], answer, [message.result])

    for _ in range(EARLIER_STEPS):
        step()
    comparison.measure_rounds(f"record a step after {EARLIER_STEPS}", side, rounds, step)
    recorder.finalize_recording(True, "done")
    assert recorder.get_statistics()["steps"] >= EARLIER_STEPS
