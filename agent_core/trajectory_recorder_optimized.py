"""The import path of the guide. The code is in `trajectory_recorder`."""

from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder

__all__ = ["OptimizedTrajectoryRecorder"]
