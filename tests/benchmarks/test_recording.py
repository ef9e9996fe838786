"""What it costs to record one step of a session that has fifty behind it."""

from itertools import count
from pathlib import Path

import pytest

from agent_core.messages import ToolResult
from agent_core.redaction import Redactor
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder, TrajectoryRecorder
from tests.benchmarks.sessions import answered, reply
from tests.benchmarks.side_by_side import Meter

BEHIND = 50
NAMES = ["bash", "str_replace_based_edit_tool", "task_done"]


@pytest.mark.parametrize(
    ("side", "kind", "rounds"),
    [
        ("rewritten", TrajectoryRecorder, 20),
        ("appended", OptimizedTrajectoryRecorder, 500),
    ],
)
def test_one_step(
    meter: Meter,
    tmp_path: Path,
    side: str,
    kind: type[TrajectoryRecorder | OptimizedTrajectoryRecorder],
    rounds: int,
) -> None:
    # Bounded, so that the session does not grow while it is measured.
    path = tmp_path / "trajectory.json"
    recorder = kind(path, max_interactions=BEHIND, redactor=Redactor())
    recorder.start_recording("task", "openai", "some-model", 100)
    numbers = count()

    def step() -> None:
        number = next(numbers)
        said, result = reply(number), answered(number)
        assert isinstance(result.result, ToolResult)
        recorder.interaction([result], said, NAMES)
        recorder.step(number, "completed", [result], said, [result.result])

    for _ in range(BEHIND):
        step()
    meter.rounds(f"record a step after {BEHIND}", side, rounds, step)
    recorder.finalize_recording(True, "done")
    assert recorder.get_statistics()["steps"] >= BEHIND
