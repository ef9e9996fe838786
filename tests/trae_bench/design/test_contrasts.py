"""Tests of contrasts and of the two-level designs."""

from itertools import combinations

import pytest

from trae_bench.design.contrasts import (
    DESIGNS,
    NOISE_FLOOR,
    Vector,
    contrasts,
    enabled,
    factorial,
    fraction,
    full,
    generators,
    half,
)
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Contrast

SEVEN = ("a", "b", "c", "d", "e", "f", "g")


def make_contrasts(*varied: str, design: str = "add-one", **held: bool) -> list[Contrast]:
    return contrasts(varied, {**dict.fromkeys(varied, False), **held}, design)


def on_sides(design: str, *varied: str) -> dict[str, tuple[set[str], set[str]]]:
    """Return the toggles that are on in A and in B, by contrast."""
    return {
        contrast.name: (
            {name for name, on in contrast.a.toggles.items() if on},
            {name for name, on in contrast.b.toggles.items() if on},
        )
        for contrast in make_contrasts(*varied, design=design)
    }


def test_add_one() -> None:
    assert on_sides("add-one", "x", "y") == {
        NOISE_FLOOR: (set(), set()),
        "x": (set(), {"x"}),
        "y": (set(), {"y"}),
    }


def test_remove_one() -> None:
    assert on_sides("remove-one", "x", "y", "z") == {
        NOISE_FLOOR: (set(), set()),
        "x@last": ({"y", "z"}, {"x", "y", "z"}),
        "y@last": ({"x", "z"}, {"x", "y", "z"}),
        "z@last": ({"x", "y"}, {"x", "y", "z"}),
    }


def test_both_includes_all_toggles() -> None:
    found = on_sides("both", "x", "y")
    assert list(found) == [NOISE_FLOOR, "x", "y", "x@last", "y@last", "all"]
    assert found["all"] == (set(), {"x", "y"})
    assert list(on_sides("both", "x")) == [NOISE_FLOOR, "x"]


@pytest.mark.parametrize("design", DESIGNS)
def test_arms_set_every_toggle(design: str) -> None:
    found = make_contrasts("x", "y", design=design, z=False, u=True, v=False)
    assert found[0].name == NOISE_FLOOR
    assert found[0].a == found[0].b
    for contrast in found:
        for arm in (contrast.a, contrast.b):
            assert set(arm.toggles) == {"x", "y", "z", "u", "v"}
            assert (arm.toggles["u"], arm.toggles["v"], arm.toggles["z"]) == (True, False, False)
    assert len({contrast.name for contrast in found}) == len(found)


def test_no_varied_toggle_gives_no_contrast() -> None:
    assert on_sides("add-one") == {}


def test_unknown_design_lists_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'twice'.*add-one.*factorial"):
        make_contrasts("x", design="twice")


def test_fraction_of_seven_has_sixteen_runs() -> None:
    found = on_sides("fraction", *SEVEN)
    assert len(found) == 16
    assert found["a+e+f+g"] == (set(), {"a", "e", "f", "g"})


# Two-level designs: columns of +1 and -1


def column(vectors: list[Vector], factors: tuple[int, ...]) -> list[int]:
    signs = [[1 if on else -1 for on in vector] for vector in vectors]
    products = []
    for row in signs:
        product = 1
        for factor in factors:
            product *= row[factor]
        products.append(product)
    return products


def orthogonal(vectors: list[Vector], first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Return whether the columns of the two effects are orthogonal."""
    products = zip(column(vectors, first), column(vectors, second), strict=True)
    return sum(x * y for x, y in products) == 0


def effects(k: int, order: int) -> list[tuple[int, ...]]:
    return list(combinations(range(k), order))


@pytest.mark.parametrize("k", range(1, 13))
def test_fraction_has_resolution_iv(k: int) -> None:
    vectors = fraction(k)
    for main in effects(k, 1):
        assert sum(column(vectors, main)) == 0
        assert all(orthogonal(vectors, main, other) for other in effects(k, 1) if other != main)
        assert all(orthogonal(vectors, main, pair) for pair in effects(k, 2))


def test_fraction_of_seven_confounds_pairs() -> None:
    # Resolution IV, not V.
    pairs = effects(7, 2)
    assert not all(orthogonal(fraction(7), x, y) for x, y in combinations(pairs, 2))


@pytest.mark.parametrize(
    ("k", "arms"), [(1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (7, 16), (8, 16), (9, 32), (16, 32)]
)
def test_size_of_fractions(k: int, arms: int) -> None:
    assert len(fraction(k)) == len(set(fraction(k))) == arms


def test_generators_of_seven() -> None:
    assert generators(7) == ((0, 1, 2), (0, 1, 3), (0, 2, 3))


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_factorial_does_not_confound_pairs(k: int) -> None:
    vectors = factorial(k)
    all_effects = [*effects(k, 1), *effects(k, 2)]
    assert all(orthogonal(vectors, x, y) for x, y in combinations(all_effects, 2))


def test_half_of_seven_has_resolution_seven() -> None:
    vectors = half(7)
    assert len(vectors) == len(set(vectors)) == 64
    for order_x, order_y in [(2, 3), (1, 5), (3, 3)]:
        for x in effects(7, order_x):
            assert all(orthogonal(vectors, x, y) for y in effects(7, order_y) if x != y)
    assert not orthogonal(vectors, (0, 1, 2), (3, 4, 5, 6))


@pytest.mark.parametrize("k", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("make", [full, fraction, factorial])
def test_every_design_contains_the_baseline(make: object, k: int) -> None:
    assert callable(make)
    assert (False,) * k in make(k)


def test_full_design() -> None:
    assert full(2) == [(False, False), (True, False), (False, True), (True, True)]
    assert [enabled(vector, ("x", "y")) for vector in full(2)] == [(), ("x",), ("y",), ("x", "y")]
