"""Change points against the definition of E-divisive, and on a series from the literature."""

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench.stats import change_points as module
from trae_bench.stats.change_points import (
    FEWEST,
    LEVEL,
    MIN_POINTS,
    Change,
    Segment,
    change_points,
    scatter,
)

# Annual flow of the Nile at Aswan, 1871 to 1970 (10^8 m^3): Cobb, Biometrika 65 (1978). Its level
# falls in 1899.
NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824
702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822 1010
771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020 906
901 1170 912 746 919 718 714 740
"""


@pytest.mark.parametrize("number", range(2, FEWEST + 2))
def test_a_short_series_shows_no_change(number: int) -> None:
    values = [0.0] * (number // 2) + [1.0] * (number - number // 2)
    assert len(change_points(values, [0.01] * number)) == (number >= FEWEST)


SIGMAS = st.floats(0.1, 10)
POINTS = st.lists(st.tuples(st.integers(-50, 50), SIGMAS), min_size=4, max_size=12)


def energy(values: Sequence[float], sigmas: Sequence[float], place: int, end: int) -> float:
    """The statistic of a split as the paper defines it, with weights. O(n^2), for each split."""
    least = min(sigmas)
    weights = [(least / sigma) ** 2 for sigma in sigmas]

    def mean_distance(left: Sequence[int], right: Sequence[int]) -> float:
        pairs = [(i, k) for i in left for k in right if i != k]
        mass = math.fsum(weights[i] * weights[k] for i, k in pairs)
        return math.fsum(weights[i] * weights[k] * abs(values[i] - values[k]) for i, k in pairs) / (
            mass
        )

    x, y = range(place), range(place, end)
    distance = 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
    mass_x, mass_y = (math.fsum(weights[i] for i in side) for side in (x, y))
    return mass_x * mass_y / (mass_x + mass_y) * distance


def by_definition(values: Sequence[float], sigmas: Sequence[float]) -> float:
    places = range(MIN_POINTS, len(values) - MIN_POINTS + 1)
    return max(
        energy(values, sigmas, place, end)
        for place in places
        for end in range(place + MIN_POINTS, len(values) + 1)
    )


@examples(200)
@given(POINTS)
def test_the_statistic_is_the_one_of_the_definition(points: list[tuple[int, float]]) -> None:
    values, sigmas = [float(value) for value, _ in points], [sigma for _, sigma in points]
    expected = max(0.0, by_definition(values, sigmas))
    split = Segment(sigmas).best_split(values)
    assert split.statistic == pytest.approx(expected, abs=1e-9)
    if split.place:
        ends = range(split.place + MIN_POINTS, len(values) + 1)
        best = max(energy(values, sigmas, split.place, end) for end in ends)
        assert best == pytest.approx(expected, abs=1e-9)


def test_the_level_of_the_nile_falls_in_1899() -> None:
    values = [float(one) for one in NILE.split()]
    (found,) = change_points(values, [0.0] * len(values))
    assert 1871 + found.place == 1899
    assert 1897 <= 1871 + found.first <= 1871 + found.last <= 1900
    assert found.before.mean == pytest.approx(1097.75)
    assert found.after.mean == pytest.approx(849.97, abs=0.01)


def noise(count: int, seed: int, sd: float = 0.005) -> list[float]:
    random = Random(seed)
    return [random.gauss(0, sd) for _ in range(count)]


def with_steps(values: Sequence[float], *steps: tuple[int, float]) -> list[float]:
    return [
        value + sum(size for place, size in steps if number >= place)
        for number, value in enumerate(values)
    ]


def near(found: Sequence[Change], *places: int) -> bool:
    return len(found) == len(places) and all(
        abs(change.place - place) <= 2 for change, place in zip(found, places, strict=True)
    )


def test_a_change_that_is_undone_is_two_changes() -> None:
    values = with_steps(noise(60, 1), (30, 0.03), (36, -0.03))
    found = change_points(values, [0.005] * 60)
    assert near(found, 30, 36)
    assert found[0].size == pytest.approx(0.03, abs=0.006)
    assert found[1].size == pytest.approx(-0.03, abs=0.006)


@pytest.mark.slow
def test_most_changes_are_among_their_places() -> None:
    """The places hold the change in about 95 % of the series, also where it is hard to place."""
    found = [
        (change_points(with_steps(noise(30, seed), (15, 0.012)), [0.005] * 30), seed)
        for seed in range(60)
    ]
    single = [changes[0] for changes, _ in found if len(changes) == 1]
    assert len(single) >= 45
    held = sum(one.first <= 15 <= one.last for one in single)
    assert held >= 0.85 * len(single)
    assert sum(one.last - one.first for one in single) / len(single) < 6


def test_noise_has_few_changes() -> None:
    wrong = sum(bool(change_points(noise(30, seed), [0.005] * 30)) for seed in range(300))
    # 3 are expected at a level of 1 %; more than 9 have a probability below 0.1 %.
    assert wrong <= 9


def test_another_amount_of_noise_is_no_change() -> None:
    """The first half comes from a machine with ten times the noise, and its errors say so."""
    errors = [0.05] * 20 + [0.005] * 20
    wrong = 0
    for seed in range(200):
        random = Random(seed)
        wrong += bool(change_points([random.gauss(0, error) for error in errors], errors))
    assert wrong <= 7


def test_a_precise_point_counts_more() -> None:
    """Five points far off with a large error do not hide a change of the precise ones."""
    values = with_steps(noise(40, 3), (20, 0.02))
    errors = [0.005] * 40
    random = Random(4)
    for place in (3, 9, 16, 27, 35):
        values[place], errors[place] = random.gauss(0, 0.2), 0.2
    assert near(change_points(values, errors), 20)


def test_scatter_beyond_the_errors_is_estimated() -> None:
    """The errors are far too small, as if each build had a layout of its own."""
    values = with_steps(noise(80, 5, 0.01), (40, 0.1))
    assert scatter(values, [0.001] * 80)[0] == pytest.approx(0.01, rel=0.4)
    assert near(change_points(values, [0.001] * 80), 40)
    assert scatter(noise(80, 6, 0.01), [0.01] * 80)[0] < 0.013


def test_counts_without_noise_change_exactly() -> None:
    (found,) = change_points([0.0] * 12 + [0.1] * 6, [0.0] * 18)
    assert (found.place, found.first, found.last) == (12, 12, 12)
    assert not change_points([0.25] * 30, [0.0] * 30)


@pytest.mark.parametrize(
    ("before", "after", "found"), [(20, 3, 1), (5, 5, 1), (20, 2, 0), (5, 4, 0)]
)
def test_so_many_points_show_a_change(before: int, after: int, found: int) -> None:
    values = with_steps(noise(before + after, 2), (before, 0.05))
    assert near(change_points(values, [0.005] * len(values)), *[before] * found)


@pytest.mark.parametrize("count", range(2 * MIN_POINTS))
def test_a_short_series_has_no_changes(count: int) -> None:
    assert change_points([float(10 * number) for number in range(count)], [0.01] * count) == []


def test_as_many_errors_as_values_are_needed() -> None:
    with pytest.raises(ValueError, match="3 values but 2 errors"):
        change_points([1.0, 2.0, 3.0], [0.1, 0.1])


@examples(15)
@given(st.integers(0, 1000), st.integers(8, 24), st.integers(-3, 3), st.sampled_from([0.25, 4.0]))
def test_unit_and_origin_do_not_matter(seed: int, n: int, shift: int, scale: float) -> None:
    values, errors = with_steps(noise(n, seed), (n // 2, 0.02)), [0.005] * n
    moved = change_points([shift + scale * value for value in values], [scale * e for e in errors])
    found = change_points(values, errors)
    assume(all(change.p < LEVEL for change in found))
    assert [(one.place, one.first, one.last) for one in moved] == [
        (one.place, one.first, one.last) for one in found
    ]


def test_the_same_series_gives_the_same_changes() -> None:
    values = with_steps(noise(40, 9), (11, 0.008))
    assert change_points(values, [0.005] * 40) == change_points(values, [0.005] * 40)


def test_a_permutation_of_equal_errors_is_one_of_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With equal errors the test is the one of the paper: it exchanges the values themselves."""
    seen: list[list[float]] = []
    plain = Segment.best_split

    def spy(self: Segment, values: Sequence[float]) -> object:
        seen.append(sorted(values))
        return plain(self, values)

    monkeypatch.setattr(module.Segment, "best_split", spy)
    change_points(noise(12, 2), [0.005] * 12)
    assert len(seen) > 1
    assert all(one == pytest.approx(seen[0]) for one in seen[1:])
