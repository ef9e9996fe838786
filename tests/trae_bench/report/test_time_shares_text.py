"""How reports say where the time of a session goes."""

from typing import Any

from msgspec.structs import replace

from tests.trae_bench.report.test_explain import explanation_text
from tests.trae_bench.report.test_terminal import FORBIDDEN, NASTY
from tests.trae_bench.runs import gate, honest, plan
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.report.text.markdown import comment
from trae_bench.report.text.time_shares import MAX_LINES, lines


def timed(run: RunFile, scenario: str = "work", **times: float) -> RunFile:
    """Return the run with these times in the serial samples, of side B twice the tool time."""
    samples = [
        replace(one, metrics=one.metrics | times | {"tool_time": tools})
        for one in run.samples
        if one.mode == "serial"
        for tools in [times["tool_time"] * (1 + (one.arm in ("faster", "head")))]
    ]
    return replace(run, samples=tuple(samples))


TIMES = {"wall": 10.0, "model_time": 1.0, "tool_time": 3.0, "agent_time": 6.0}


def test_a_run_of_toggles_tells_the_time_of_its_baseline() -> None:
    assert lines(timed(honest(), **TIMES)) == [
        "Time in work: off 10 % model, 30 % tools, 60 % agent"
    ]


def test_a_run_of_revisions_tells_the_time_of_both() -> None:
    run = timed(gate(), **TIMES | {"agent_time": 3.0})
    (line,) = lines(run)
    assert line == (
        "Time in work: base 10 % model, 45 % tools, 45 % agent; "
        "head 10 % model, 60 % tools, 30 % agent"
    )
    assert "head 10 % model, 60 % tools, 30 % agent" in comment(run)


def test_runs_without_the_times_have_no_line() -> None:
    assert lines(honest()) == []
    assert "Time of the trials" not in explanation_text(honest(), "faster", "wall")


def test_an_explanation_tells_the_time_of_both_sides() -> None:
    run = timed(honest(), **TIMES | {"agent_time": 3.0})
    assert (
        "Time of the trials: off 10 % model, 45 % tools, 45 % agent; "
        "on 10 % model, 60 % tools, 30 % agent."
    ) in explanation_text(run, "faster", "wall")
    same = explanation_text(run, NOISE_FLOOR, "wall")
    assert "Time of the trials: off 10 % model, 45 % tools, 45 % agent." in same


def test_tools_that_are_not_told_are_with_the_agent() -> None:
    run = timed(honest(), **TIMES)
    without: list[Any] = [
        replace(one, metrics={n: v for n, v in one.metrics.items() if n != "agent_time"})
        for one in run.samples
    ]
    assert lines(replace(run, samples=tuple(without))) == [
        "Time in work: off 10 % model, 90 % tools and agent"
    ]


def test_the_lines_are_few() -> None:
    many = tuple(cell for n in range(9) for cell in plan(("faster",), f"work-{n}"))
    assert len(lines(timed(honest(cells=many), **TIMES))) == MAX_LINES


def test_names_of_a_file_are_escaped() -> None:
    run = timed(honest(cells=plan(("faster",), NASTY.replace("\ud800", ""))), **TIMES)
    (line,) = lines(run)
    assert not FORBIDDEN.search(line)
    assert "\n" not in line
