"""Names of an earlier release, accepted for one more release."""

from collections.abc import Mapping

OLD_METRIC_NAMES: Mapping[str, str] = {
    "bytes_sent": "request_bytes",
    "loop_stall": "event_loop_lag_max",
    "loop_stall_p99": "event_loop_lag_p99",
    "self_time": "session_overhead",
    "self_time_growth": "step_overhead_growth",
    "self_time_p95": "step_overhead_p95",
    "self_time_per_step": "step_overhead",
    "start_to_first_answer": "time_to_first_answer",
    "start_to_first_request": "time_to_first_request",
    "write_calls": "write_syscalls",
}
"""Old name to current name, of metrics."""


def current_metric(name: str) -> str:
    """The current name of a metric; a name that is not an old one is returned as it is."""
    return OLD_METRIC_NAMES.get(name, name)
