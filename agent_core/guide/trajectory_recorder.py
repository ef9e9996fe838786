"""Trajectory recording under the guide's names."""

from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder, TrajectoryRecorder, recover

__all__ = ["OptimizedTrajectoryRecorder", "TrajectoryRecorder", "recover"]
