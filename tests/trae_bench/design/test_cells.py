"""Tests of cells and trials."""

import pytest

from trae_bench.design.cells import cells, trials
from trae_bench.design.contrasts import contrasts
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Cell, Metric, Mode
from trae_bench.scenario import Scenario, ToggleUse

MODES: dict[str, Mode] = {"cpu": "duet", "wall": "serial", "requests": "exact"}
METRICS = {name: Metric(name, "", "lower", mode, "") for name, mode in MODES.items()}


def scenario(*metrics: str) -> Scenario:
    return Scenario("bugfix", "", "", turns=(), toggles=ToggleUse(("x",)), metrics=metrics)


def make_cells(*metrics: str) -> list[Cell]:
    found = scenario(*metrics)
    return cells(found.name, found.metrics, contrasts(["x"], {"x": False}), METRICS)


CELL = make_cells("cpu")[1]


def order(cell: Cell, seed: int, pairs: range = range(1, 13)) -> str:
    """Return the side that starts first in each pair."""
    return "".join(trials(cell, pair, seed)[0].side for pair in pairs)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (("cpu",), [("duet", ("cpu",))]),
        (("requests",), [("duet", ("requests",))]),
        (("wall",), [("serial", ("wall",))]),
        (("wall", "requests", "cpu"), [("duet", ("requests", "cpu")), ("serial", ("wall",))]),
        ((), []),
    ],
)
def test_metrics_of_one_mode_share_a_cell(
    metrics: tuple[str, ...], expected: list[tuple[Mode, tuple[str, ...]]]
) -> None:
    found = make_cells(*metrics)
    assert [(cell.mode, cell.metrics) for cell in found] == expected * 2
    assert [cell.contrast.name for cell in found] == [
        name for name in ("A/A", "x") for _ in expected
    ]


def test_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"bugfix: no metric 'request'. Known: requests\."):
        make_cells("request")


def test_trials_of_a_pair_share_a_seed() -> None:
    first, second = trials(CELL, 3, seed=1)
    assert {first.side, second.side} == {"A", "B"}
    assert (first.slot, second.slot) == (0, 1)
    assert first.seed == second.seed
    assert 0 <= first.seed < 2**32
    for trial in (first, second):
        assert (trial.scenario, trial.contrast) == ("bugfix", "x")
        assert (trial.mode, trial.pair) == ("duet", 3)
        assert trial.arm == (CELL.contrast.a if trial.side == "A" else CELL.contrast.b)


def test_blocks_of_two_pairs_are_balanced() -> None:
    for seed in range(20):
        sides = order(CELL, seed, range(1, 61))
        assert {sides[i : i + 2] for i in range(0, 60, 2)} == {"AB", "BA"}


def test_trials_are_reproducible() -> None:
    assert order(CELL, seed=7) == "ABBABAABBAAB"
    assert [trials(CELL, pair, 7)[0].seed for pair in (0, 1)] == [1137186516, 368784098]


def test_order_and_seeds_vary() -> None:
    serial = make_cells("wall")[1]
    assert len({order(CELL, seed) for seed in range(20)}) > 10
    assert order(CELL, 1) != order(serial, 1) or order(CELL, 2) != order(serial, 2)
    assert len({trials(CELL, pair, 1)[0].seed for pair in range(60)}) == 60
