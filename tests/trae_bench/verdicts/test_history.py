"""Series of points along a branch, their changes, and what confirms one."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from tests.trae_bench.points import ANCHOR, commit_hash, point, stepped
from tests.trae_bench.runs import gate
from trae_bench.model.run import RunFile
from trae_bench.verdicts.history import (
    MAX_COMMITS,
    Series,
    SeriesKey,
    Shift,
    checked,
    combined,
    levels,
    series_of,
    shifts,
    since,
)

LINE = [commit_hash(number) for number in range(30)]
KEY = SeriesKey("two-files", "cpu", "tiny", ANCHOR)


def series(place: int = 18, size: float = 0.05, **changes: Any) -> Series:
    (found,) = series_of(stepped(LINE, place, size, **changes), LINE)
    return found


def test_the_order_is_that_of_the_branch() -> None:
    points = [point(commit, 0.01 * number) for number, commit in enumerate(LINE)]
    (found,) = series_of([*points[::-1], point(commit_hash(99))], LINE)
    assert [one.commit for one in found.commits] == LINE
    assert found.elsewhere == 1
    assert found.key == KEY


@pytest.mark.parametrize(
    "changes",
    [{"scenario": "x"}, {"metric": "wall"}, {"agent": "x"}, {"anchor": "b" * 40}],
)
def test_only_points_of_the_same_kind_are_compared(changes: dict[str, str]) -> None:
    assert len(series_of([point(LINE[0]), point(LINE[1], **changes)], LINE)) == 2


def test_points_of_one_commit_count_by_their_precision() -> None:
    found = combined(
        [
            point(LINE[0], 0.00, error=0.01, created="2026-01-01"),
            point(LINE[0], 0.03, error=0.02, created="2026-01-02", head=0.7, machine="other"),
        ]
    )
    assert found.log_ratio == pytest.approx((0.00 * 4 + 0.03) / 5)
    # They differ by 1.34 standard errors, so the error grows by that.
    birge = 0.03 / math.hypot(0.01, 0.02)
    assert found.error == pytest.approx(birge / math.sqrt(1e4 + 2500))
    assert (found.pairs, found.points, found.head) == (16, 2, 0.7)
    assert len(found.machines) == 2


def test_points_that_agree_lower_the_error() -> None:
    found = combined([point(LINE[0], 0.01, error=0.01), point(LINE[0], 0.011, error=0.01)])
    assert found.error == pytest.approx(0.01 / math.sqrt(2))
    assert combined([point(LINE[0], error=0.0)]).error == 0.0


def test_a_slower_commit_is_a_regression() -> None:
    (found,) = shifts(series())
    assert found.kind == "regression"
    assert (found.base, found.likely, found.head) == (LINE[17], LINE[18], LINE[18])
    assert found.size == pytest.approx(0.05, abs=0.005)
    assert 0 < found.error < 0.005


@pytest.mark.parametrize(
    ("size", "changes", "kind"),
    [
        (-0.05, {}, "improvement"),
        (0.05, {"metric": "steps_per_second", "better": "higher"}, "improvement"),
        (0.05, {"metric": "unheard_of", "better": "higher"}, "improvement"),
        (0.015, {}, "small"),
    ],
)
def test_direction_and_size_decide(size: float, changes: dict[str, str], kind: str) -> None:
    (found,) = shifts(series(size=size, **changes))
    assert found.kind == kind


def test_a_project_can_ask_for_larger_changes() -> None:
    assert shifts(series(), 0.06)[0].kind == "small"


def test_only_the_newest_commits_are_searched() -> None:
    line = [commit_hash(number) for number in range(MAX_COMMITS + 20)]
    points = stepped(line, 10, 0.5)
    (found,) = series_of(points, line)
    assert len(found.commits) == MAX_COMMITS + 20
    assert shifts(found) == []


def test_levels_cover_the_searched_commits() -> None:
    of = series()
    found = shifts(of)
    (first, second) = levels(of, found)
    assert (first[0], first[1], second[0], second[1]) == (0, 18, 18, 30)
    assert second[2].mean - first[2].mean == pytest.approx(found[0].size)
    assert levels(of, []) == []


def test_since_keeps_what_is_later() -> None:
    found = shifts(series())
    assert since(found, LINE, LINE[17]) == found
    assert since(found, LINE, LINE[18]) == []


# -- confirmation


def shift_of(size: float) -> Shift:
    (found,) = shifts(series(size=0.05))
    return replace(found, size=size, key=KEY._replace(scenario="work"))


@pytest.mark.parametrize(
    ("factor", "size", "status"),
    [
        (1.1, 0.1, "confirmed"),
        (1.03, 0.02, "confirmed"),
        (0.9, -0.1, "confirmed"),
        (1.1, -0.1, "not confirmed"),
        (1.0, 0.05, "not confirmed"),
        (1.004, 0.02, "not confirmed"),
    ],
)
def test_the_same_effect_must_show_again(factor: float, size: float, status: str) -> None:
    found = checked(shift_of(size), gate(factor), "check.json")
    assert found.status == status
    assert found.row is not None
    assert found.run_file == "check.json"


def test_fresh_pairs_that_disagree_confirm_nothing() -> None:
    run = gate(1.1)
    rows = tuple(
        replace(row, confirmation=replace(row.confirmation, stands=False))
        if row.confirmation
        else row
        for row in run.comparisons
    )
    assert any(row.confirmation for row in rows)
    assert checked(shift_of(0.1), replace(run, comparisons=rows)).status == "not confirmed"


def without_pairs(run: RunFile) -> RunFile:
    rows = (
        replace(row, estimate=None, pairs=replace(row.pairs, reasons=("exit status 1",)))
        for row in run.comparisons
    )
    return replace(run, comparisons=tuple(rows))


def test_a_pair_that_cannot_be_measured_says_why() -> None:
    found = checked(shift_of(0.1), without_pairs(gate(1.1)))
    assert (found.status, found.problem) == ("not measured", "exit status 1")
    other = replace(shift_of(0.1), key=KEY)
    assert checked(other, gate(1.1)).problem == "no pair was measured"
