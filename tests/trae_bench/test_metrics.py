"""Metrics of constructed observations, checked by hand or by a property."""

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from trae_bench.metrics import METRICS, NET_METRICS, OPT_IN_METRICS, compute_metrics
from trae_bench.model.sample import (
    ChildReport,
    Lifetime,
    ProcessResult,
    PromptLog,
    RequestLog,
    SessionLog,
    TokenUse,
    WrittenFiles,
)


def usage(**changes: Any) -> ProcessResult:
    given: dict[str, Any] = {
        "started": 100.0,
        "ended": 110.0,
        "user": 2.0,
        "system": 1.0,
        "max_rss": 5000,
        "minor_faults": 7,
        "major_faults": 0,
        "voluntary_switches": 11,
        "involuntary_switches": 13,
        "run_delay": 0.5,
        "written_bytes": 17,
        "write_syscalls": 3,
    }
    return ProcessResult(**given | changes)


def session(*times: tuple[float, float]) -> SessionLog:
    """Return a log of 10-byte requests with these arrival and reply times."""
    asked = tuple(RequestLog(arrived, replied, 1, 10, 99, 200) for arrived, replied in times)
    return SessionLog(asked, 2, b"", handshakes=4)


def steps(*gaps: float, think: float = 1.0) -> SessionLog:
    """Return a session whose requests arrive these seconds after the previous reply."""
    times, now = [], 101.0
    for gap in (0.0, *gaps):
        now += gap
        times.append((now, now + think))
        now += think
    return session(*times)


NOTHING = SessionLog((), 0, b"")


def test_metrics_from_the_kernel() -> None:
    found = compute_metrics(usage(), [NOTHING], None)
    assert found["cpu"] == 3.0
    assert (found["cpu_user"], found["cpu_system"]) == (2.0, 1.0)
    assert found["wall"] == 10.0
    assert found["blocked"] == 10.0 - 3.0 - 0.5
    assert found["peak_rss"] == 5000
    assert found["context_switches"] == 11
    assert (found["minor_faults"], found["major_faults"]) == (7, 0)
    assert (found["bytes_written"], found["write_syscalls"]) == (17, 3)


def test_metrics_from_the_provider() -> None:
    found = compute_metrics(
        usage(), [session((101.0, 103.0), (103.5, 104.0), (104.25, 109.0))], None
    )
    assert found["time_to_first_request"] == 1.0
    # The think time is 2 of the 3.5 seconds until the second request.
    assert found["time_to_first_answer"] == 1.5
    assert found["session_overhead"] == 0.75
    assert found["step_overhead"] == 0.375
    assert (found["requests"], found["connections"], found["handshakes"]) == (3, 2, 4)
    assert found["request_bytes"] == 30
    assert found["steps_per_second"] == 0.3


def test_metrics_from_the_prompts() -> None:
    logs = [
        replace(
            session((101.0, 103.0), (103.5, 104.0), (104.5, 105.0)),
            prompts=(
                PromptLog(101.0, 100, 0, True),
                PromptLog(103.5, 150, 100, False),
                PromptLog(104.5, 200, 40, False, "messages[0]"),
            ),
        )
    ]
    found = compute_metrics(usage(), logs, None)
    assert (found["prompt_bytes"], found["new_prompt_bytes"]) == (450, 310)
    assert found["prefix_reuse"] == 140 / 450
    assert found["prefix_breaks"] == 1
    assert found["first_request_bytes"] == 100
    assert found["bytes_per_step"] == (50 + 160) / 2


def test_tokens_and_cost_are_sums() -> None:
    one = TokenUse(1000, 600, 100, 0, 700, output=20, cost=0.25)
    log = replace(
        session((101.0, 103.0), (103.5, 104.0)),
        prompts=(PromptLog(101.0, 100, 0, True), PromptLog(103.5, 150, 100, False)),
        tokens=(one, one),
    )
    found = compute_metrics(usage(), [log], None)
    names = ("input_tokens", "cached_tokens", "cacheable_tokens", "output_tokens", "cost")
    assert [found[name] for name in names] == [2000, 1200, 1400, 40, 0.5]
    free = replace(log, tokens=(one, replace(one, cost=None)))
    found = compute_metrics(usage(), [free], None)
    assert found["input_tokens"] == 2000
    assert "cost" not in found


def test_unknown_prompts_of_one_session_leave_all_out() -> None:
    known = replace(session((101.0, 103.0)), prompts=(PromptLog(101.0, 100, 0, True),))
    assert "prompt_bytes" not in compute_metrics(usage(), [known, session((101.0, 102.0))], None)
    assert compute_metrics(usage(), [known, NOTHING], None)["prompt_bytes"] == 100


def test_a_single_request_is_answered_at_the_exit() -> None:
    found = compute_metrics(usage(), [session((101.0, 103.0))], None)
    assert found["time_to_first_answer"] == 8.0
    assert "session_overhead" not in found
    assert "step_overhead" not in found


def test_metrics_without_data_are_left_out() -> None:
    poor = usage(max_rss=None, run_delay=None, written_bytes=None, write_syscalls=None)
    found = compute_metrics(poor, [NOTHING], None)
    absent = {"peak_rss", "blocked", "bytes_written", "write_syscalls", "time_to_first_request"}
    assert absent.isdisjoint(found)
    assert "step_overhead_p95" not in compute_metrics(usage(), [steps(*[0.1] * 19)], None)
    assert "step_overhead_growth" not in compute_metrics(usage(), [steps(*[0.1] * 19)], None)


def with_delays(
    log: SessionLog, *delays: float, late: float = 0.0, waited: float = 0.0
) -> SessionLog:
    """Add delays; `waited` is how long the agent waited for its core before each reply."""
    pairs = zip(log.requests, delays, strict=True)
    return replace(
        log,
        requests=tuple(
            replace(request, delay=delay, reply_delay=delay + waited, read_late=late)
            for request, delay in pairs
        ),
    )


def test_time_that_others_took_is_subtracted() -> None:
    kept = usage(pressure_start=(500, 0), pressure_end=(2_000_500, 2_000_000))
    log = session((101.0, 103.0), (104.0, 104.5), (105.5, 109.0))
    found = compute_metrics(kept, [with_delays(log, 0.25, 0.75, 1.5, late=0.125)], None)
    assert found["wall_net"] == 10.0 - 2.0 - 3 * 0.125
    assert found["time_to_first_request_net"] == 1.0 - 0.25 - 0.125
    assert found["time_to_first_answer_net"] == 4.0 - 2.0 - 0.75 - 2 * 0.125
    # 1.0 - 0.5 and 1.0 - 0.75, less what the provider was late.
    assert found["step_overhead_net"] == 0.375 - 0.125
    assert found["session_overhead_net"] == 0.5 + 0.25 - 2 * 0.125


def test_time_that_others_took_before_the_reply_is_not_of_the_step() -> None:
    kept = usage(pressure_start=(0,), pressure_end=(2_000_000,))
    log = session((101.0, 103.0), (104.0, 104.5), (105.5, 109.0))
    found = compute_metrics(kept, [with_delays(log, 0.25, 0.75, 1.5, waited=0.25)], None)
    assert found["session_overhead_net"] == 0.75 + 0.5


def test_errors_of_a_delay_cancel_in_the_sum() -> None:
    """A reading of 0.75 s too much makes one step negative and the next too long."""
    kept = usage(pressure_start=(0,), pressure_end=(2_000_000,))
    log = session((101.0, 103.0), (103.5, 104.5), (105.5, 109.0))
    found = compute_metrics(kept, [with_delays(log, 0.0, 0.75, 0.0)], None)
    assert found["session_overhead_net"] == 0.5 + 1.0


def test_a_first_answer_without_a_second_request_ends_with_the_process() -> None:
    kept = usage(pressure_start=(0,), pressure_end=(3_000_000,))
    found = compute_metrics(kept, [with_delays(session((101.0, 103.0)), 0.5)], None)
    assert found["time_to_first_answer_net"] == 8.0 - 3.0


def test_without_a_cgroup_no_net_times() -> None:
    assert NET_METRICS.isdisjoint(compute_metrics(usage(), [steps(0.5, 0.5)], None))


def test_net_step_overhead_is_not_negative() -> None:
    kept = usage(pressure_start=(0,), pressure_end=(3_000_000,))
    found = compute_metrics(kept, [with_delays(steps(0.5, 0.5), 0.0, 1.0, 3.0)], None)
    assert found["step_overhead_net"] == 0.0


def test_blocked_is_not_negative() -> None:
    assert compute_metrics(usage(user=30.0), [NOTHING], None)["blocked"] == 0.0


def test_tail_and_growth_of_a_long_session() -> None:
    found = compute_metrics(usage(), [steps(*[0.1] * 10, *[0.2] * 9, 0.9)], None)
    assert found["step_overhead_p95"] == pytest.approx(0.2)
    assert found["step_overhead_growth"] == pytest.approx(2.0)
    # A first half without overhead has no ratio.
    assert "step_overhead_growth" not in compute_metrics(
        usage(), [steps(*[0.0] * 20, think=0.0)], None
    )


def test_metrics_from_the_child() -> None:
    counters = {"agent_rss": 9.0, "modules_imported": 120.0, "unheard_of": 1.0, "wall": 0.001}
    found = compute_metrics(
        usage(), [session((101.0, 103.0))], ChildReport(True, "", 50, None, counters)
    )
    assert found["agent_rss"] == 9.0
    assert found["modules_imported"] == 120
    assert found["steps_per_second"] == 5.0
    assert "unheard_of" not in found
    # A child cannot overwrite a metric that is measured from outside.
    assert found["wall"] == 10.0


def test_counters_that_are_not_finite_are_left_out() -> None:
    report = ChildReport(True, "", 1, None, {"agent_rss": math.inf, "modules_imported": math.nan})
    assert {"agent_rss", "modules_imported"}.isdisjoint(compute_metrics(usage(), [NOTHING], report))


gaps = st.lists(st.floats(0, 10), min_size=1, max_size=60)


@given(gaps, st.floats(0, 5))
def test_step_overhead_excludes_think_time(times: list[float], think: float) -> None:
    found = compute_metrics(usage(), [steps(*times, think=think)], None)
    assert found["session_overhead"] == pytest.approx(sum(times), abs=1e-9)
    assert found["step_overhead"] == pytest.approx(statistics.median(times), abs=1e-9)
    if len(times) >= 20:
        below = sum(time <= found["step_overhead_p95"] + 1e-9 for time in times)
        assert below >= 0.95 * len(times)


@given(gaps, st.randoms())
def test_the_order_of_logged_requests_does_not_matter(times: list[float], rng: Any) -> None:
    straight = steps(*times, think=0.5)
    mixed = list(straight.requests)
    rng.shuffle(mixed)
    shuffled = SessionLog(tuple(mixed), straight.connections, b"", handshakes=straight.handshakes)
    assert compute_metrics(usage(), [shuffled], None) == compute_metrics(usage(), [straight], None)


@given(st.builds(usage), gaps)
def test_every_value_is_finite_and_in_the_table(used: ProcessResult, times: list[float]) -> None:
    found = compute_metrics(used, [steps(*times)], None)
    assert found.keys() <= METRICS.keys()
    assert all(math.isfinite(value) for value in found.values())


def test_the_table_is_complete() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.about
        assert metric.disturbed_by or metric.mode == "exact"
        assert metric.unit in ("s", "B", "1/s", "USD", "")
    assert METRICS["steps_per_second"].better == "higher"
    assert METRICS.keys() >= OPT_IN_METRICS


# -- several sessions in one process


def asked(connection: int, *times: tuple[float, float]) -> tuple[RequestLog, ...]:
    return tuple(
        RequestLog(arrived, replied, connection, 10, 99, 200) for arrived, replied in times
    )


def test_steps_are_those_of_a_conversation() -> None:
    main, other = asked(1, (101.0, 102.0), (105.0, 106.0)), asked(2, (102.5, 103.0), (103.5, 104.0))
    beside = tuple(replace(one, conversation=1) for one in other)
    log = SessionLog((*main, *beside), 2, b"")
    # 3 s between the requests of the main conversation, 0.5 s between those of the other one.
    assert compute_metrics(usage(), [log], None)["session_overhead"] == pytest.approx(3.5)


def test_sessions_side_by_side() -> None:
    late = SessionLog(asked(1, (102.0, 102.5), (103.0, 105.0)), 1, b"", 0, 0.3, handshakes=1)
    early = SessionLog(asked(1, (101.0, 101.5)), 1, b"", 0, 0.2, handshakes=1)
    other = SessionLog(asked(2, (101.5, 102.0), (102.25, 103.0)), 1, b"", 0, 0.4, handshakes=1)
    found = compute_metrics(usage(), [late, early, other], None, correct=2 / 3)
    assert (found["requests"], found["request_bytes"]) == (5, 50)
    # Two sessions share a connection and its handshake.
    assert (found["connections"], found["handshakes"]) == (2, 2)
    assert found["time_to_first_request"] == 1.0
    # The first session made one request, so its first step ends at the exit.
    assert found["time_to_first_answer"] == 9.5
    # Between requests of one session, not across sessions.
    assert found["session_overhead"] == pytest.approx(0.5 + 0.25)
    assert found["sessions_per_second"] == pytest.approx(3 / 4)
    assert found["provider_cpu"] == 0.2
    assert found["correct_results"] == 2 / 3


def test_growth_needs_a_single_session() -> None:
    long = steps(*[0.1] * 10, *[0.2] * 10)
    assert "step_overhead_growth" in compute_metrics(usage(), [long], None)
    assert "step_overhead_growth" not in compute_metrics(usage(), [long, long], None)


def test_without_a_provider_its_metrics_are_left_out() -> None:
    assert {"provider_cpu", "sessions_per_second"}.isdisjoint(compute_metrics(usage(), [], None))


# -- what a session costs, seen from outside


def ran(*lifetimes: tuple[float, float]) -> tuple[Lifetime, ...]:
    return tuple(Lifetime(*one) for one in lifetimes)


def times_of(
    lifetimes: tuple[Lifetime, ...] | None, *logs: SessionLog
) -> tuple[float | None, float | None, float | None]:
    """Return model, tool and agent time of a trial from 100 to 110 s."""
    found = compute_metrics(usage(started_processes=lifetimes), logs, None)
    return found.get("model_time"), found.get("tool_time"), found.get("agent_time")


TWO_STEPS = session((101.0, 103.0), (105.0, 105.5), (106.0, 108.0))
"""Gaps from 103 to 105, from 105.5 to 106, and from 108 to the exit at 110."""


@pytest.mark.parametrize(
    ("lifetimes", "tools"),
    [
        ([], 0.0),
        ([(103.5, 104.5)], 1.0),
        ([(103.5, 104.5), (104.0, 104.75)], 1.25),
        # The last reply can have tool calls, too.
        ([(108.5, 109.0)], 0.5),
        # A server that keeps running counts in the gap in which it starts.
        ([(103.5, 110.0)], 1.5),
        ([(103.5, math.inf), (105.5, 105.75)], 1.75),
        # Helpers that start before the first reply, and during a wait, are no tools.
        ([(100.5, 110.0)], 0.0),
        ([(102.0, 104.0)], 0.0),
    ],
)
def test_tools_run_between_a_reply_and_the_next_request(
    lifetimes: list[tuple[float, float]], tools: float
) -> None:
    assert times_of(ran(*lifetimes), TWO_STEPS) == (4.5, tools, 10.0 - 4.5 - tools)


def test_requests_that_wait_together_count_once() -> None:
    together = session((101.0, 104.0), (102.0, 103.0), (103.5, 105.0), (107.0, 108.0))
    assert times_of(ran((105.5, 106.0), (103.2, 103.4)), together) == (5.0, 0.5, 4.5)


def test_tools_are_not_told_where_they_cannot_be() -> None:
    assert times_of(None, TWO_STEPS) == (4.5, None, None)
    assert times_of(ran((103.5, 104.0)), TWO_STEPS, session((101.0, 102.0))) == (4.5, None, None)
    assert times_of(ran((103.5, 104.0)), NOTHING) == (None, None, None)


moments = st.floats(100, 110, allow_nan=False)


@given(
    st.lists(moments, min_size=2, max_size=12, unique=True).filter(lambda all: not len(all) % 2),
    st.lists(st.tuples(moments, moments).map(sorted)),
)
def test_model_tools_and_agent_are_the_wall_time(
    edges: list[float], lifetimes: list[list[float]]
) -> None:
    ordered = sorted(edges)
    log = session(*zip(ordered[::2], ordered[1::2], strict=True))
    parts = times_of(ran(*((start, end) for start, end in lifetimes)), log)
    assert all(part is not None and part >= 0 for part in parts)
    assert sum(part or 0 for part in parts) == pytest.approx(10.0)


def test_the_overhead_is_shared_by_the_calls_of_the_reply() -> None:
    log = session((101.0, 102.0), (103.0, 104.0), (107.0, 108.0), (108.5, 109.0))
    calls = (2, 1, 0, 5)
    asked = tuple(replace(one, calls=count) for one, count in zip(log.requests, calls, strict=True))
    found = compute_metrics(usage(), [replace(log, requests=asked)], None)
    assert found["call_overhead"] == statistics.median([1.0 / 2, 3.0 / 1])
    assert "call_overhead" not in compute_metrics(usage(), [log], None)


def test_processes_and_files_are_counted() -> None:
    kept = usage(started_processes=ran((101.0, 102.0), (101.0, 103.0)), peak_tree=12345)
    found = compute_metrics(kept, [NOTHING], None, files=WrittenFiles(3, 1000))
    assert found["processes_started"] == 2
    assert found["peak_tree"] == 12345
    assert (found["files_written"], found["files_written_size"]) == (3, 1000)
    absent = {"processes_started", "peak_tree", "files_written", "files_written_size"}
    assert absent.isdisjoint(compute_metrics(usage(), [NOTHING], None))
