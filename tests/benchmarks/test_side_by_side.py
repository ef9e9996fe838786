"""The table of ratios."""

from tests.benchmarks.side_by_side import EMPTY, Measured, ratio_table


def _measured(group: str, side: str, median: float, *, times: int = 1) -> Measured:
    return Measured(group, side, median, median / 2, times, coroutine=times > 1 or group == EMPTY)


def test_ratios_refer_to_the_first_side_without_the_runner() -> None:
    lines = list(
        ratio_table(
            [
                _measured("g", "slow", 210e-6, times=10),
                _measured(EMPTY, "Runner.run", 10e-6),
                _measured("g", "quick", 110e-6, times=10),
            ]
        )
    )
    assert lines[1].split() == ["g", "slow", "20.0", "us", "1", "1"]
    assert lines[2].split() == ["g", "quick", "10.0", "us", "0.50", "0.50"]
    assert "10.0 us" in lines[3]


def test_a_missing_empty_coroutine_is_reported() -> None:
    lines = list(ratio_table([_measured("g", "one", 1e-6)]))
    assert "not measured" in lines[-1]
