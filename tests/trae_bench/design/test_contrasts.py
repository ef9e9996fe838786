from itertools import combinations

import pytest

from trae_bench.design.contrasts import (
    NOISE_FLOOR,
    Vector,
    contrasts,
    design_names,
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


def made(*varied: str, design: str = "add-one", **held: bool) -> list[Contrast]:
    return contrasts(varied, {**dict.fromkeys(varied, False), **held}, design)


def on_sides(design: str, *varied: str) -> dict[str, tuple[set[str], set[str]]]:
    """Toggles that are on in A and in B, by contrast."""
    return {
        one.name: (
            {name for name, on in one.a.toggles.items() if on},
            {name for name, on in one.b.toggles.items() if on},
        )
        for one in made(*varied, design=design)
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


def test_both_asks_also_for_the_whole() -> None:
    found = on_sides("both", "x", "y")
    assert list(found) == [NOISE_FLOOR, "x", "y", "x@last", "y@last", "all"]
    assert found["all"] == (set(), {"x", "y"})
    assert list(on_sides("both", "x")) == [NOISE_FLOOR, "x"]


@pytest.mark.parametrize("design", design_names())
def test_every_arm_is_a_full_vector_with_what_is_held(design: str) -> None:
    found = made("x", "y", design=design, z=False, u=True, v=False)
    assert found[0].name == NOISE_FLOOR
    assert found[0].a == found[0].b
    for one in found:
        for arm in (one.a, one.b):
            assert set(arm.toggles) == {"x", "y", "z", "u", "v"}
            assert (arm.toggles["u"], arm.toggles["v"], arm.toggles["z"]) == (True, False, False)
    assert len({one.name for one in found}) == len(found)


def test_nothing_varied_gives_no_contrast() -> None:
    assert on_sides("add-one") == {}


def test_unknown_design_names_the_known() -> None:
    with pytest.raises(UsageError, match=r"'twice'.*add-one.*factorial"):
        made("x", design="twice")


def test_fraction_of_seven_takes_sixteen_arms() -> None:
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


def clear(vectors: list[Vector], one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the two effects are estimated independently of each other."""
    products = zip(column(vectors, one), column(vectors, other), strict=True)
    return sum(x * y for x, y in products) == 0


def effects(k: int, order: int) -> list[tuple[int, ...]]:
    return list(combinations(range(k), order))


@pytest.mark.parametrize("k", range(1, 13))
def test_fraction_keeps_main_effects_clear_of_pairs(k: int) -> None:
    vectors = fraction(k)
    for main in effects(k, 1):
        assert sum(column(vectors, main)) == 0
        assert all(clear(vectors, main, other) for other in effects(k, 1) if other != main)
        assert all(clear(vectors, main, pair) for pair in effects(k, 2))


def test_fraction_of_seven_confuses_pairs_with_pairs() -> None:
    # The price of sixteen runs, and what resolution IV means: it is IV and not V.
    pairs = effects(7, 2)
    assert not all(clear(fraction(7), x, y) for x, y in combinations(pairs, 2))


@pytest.mark.parametrize(
    ("k", "arms"), [(1, 2), (2, 4), (3, 8), (4, 8), (5, 16), (7, 16), (8, 16), (9, 32), (16, 32)]
)
def test_size_of_fractions(k: int, arms: int) -> None:
    assert len(fraction(k)) == len(set(fraction(k))) == arms


def test_generators_of_seven() -> None:
    assert generators(7) == ((0, 1, 2), (0, 1, 3), (0, 2, 3))


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7])
def test_factorial_keeps_pairs_clear_of_pairs(k: int) -> None:
    vectors = factorial(k)
    wanted = [*effects(k, 1), *effects(k, 2)]
    assert all(clear(vectors, x, y) for x, y in combinations(wanted, 2))


def test_half_of_seven_has_resolution_seven() -> None:
    vectors = half(7)
    assert len(vectors) == len(set(vectors)) == 64
    for one, other in [(2, 3), (1, 5), (3, 3)]:
        for x in effects(7, one):
            assert all(clear(vectors, x, y) for y in effects(7, other) if x != y)
    assert not clear(vectors, (0, 1, 2), (3, 4, 5, 6))


@pytest.mark.parametrize("k", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("make", [full, fraction, factorial])
def test_every_design_has_the_baseline(make: object, k: int) -> None:
    assert callable(make)
    assert (False,) * k in make(k)


def test_full() -> None:
    assert full(2) == [(False, False), (True, False), (False, True), (True, True)]
    assert [enabled(vector, ("x", "y")) for vector in full(2)] == [(), ("x",), ("y",), ("x", "y")]
