"""Contrasts of a scenario's toggles, by experimental design. Pure.

    A/A         none against none: measures the noise; first in every design
    add-one     none against one toggle on
    remove-one  all but one against all on (`name@last`: the effect of the toggle added last)
    both        add-one, remove-one, and `all`: none against all on
    fraction    none against the runs of a two-level fraction of resolution IV: main effects are
                not confounded with two-toggle interactions
    factorial   none against the runs of the full factorial; with five or more toggles, of the
                half fraction, which does not confound two-toggle interactions with each other.
                If the half fraction lacks the run with all toggles on, that run is added to
                check the fit.
    full        none against every other combination

Box and Hunter, The 2^(k-p) fractional factorial designs, Technometrics 3 (1961).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

from trae_bench.errors import UsageError
from trae_bench.model.experiment import Arm, Contrast

NOISE_FLOOR = "A/A"
"""Name of the contrast of the baseline with itself."""

Vector = tuple[bool, ...]
"""One run of a design: which of the factors are on."""


def contrasts(
    varied: Sequence[str], baseline: Mapping[str, bool], design: str = "add-one"
) -> list[Contrast]:
    """Contrasts of one scenario, A/A first; none if no toggle is varied.

    `varied` are the factors of the design, and `baseline` is the toggle vector with all of them
    off. Raises `UsageError` for an unknown design.
    """
    contrasts_of = _known(design).contrasts
    if not varied:
        return []

    def arm(names: Iterable[str]) -> Arm:
        return Arm("+".join(names) or "none", {**baseline, **dict.fromkeys(names, True)})

    none = arm(())
    found = [Contrast(NOISE_FLOOR, none, none)]
    for name, a, b in contrasts_of(tuple(varied)):
        found.append(Contrast(name, arm(a), arm(b)))
    return found


def count_contrasts(varied: int, design: str) -> int:
    """Upper bound of the contrasts of this many toggles, without generating them.

    Raises `UsageError` for an unknown design.
    """
    return 1 + _known(design).size(varied)


def is_fixed(design: str) -> bool:
    """Whether all contrasts of a design take the same, predetermined number of pairs.

    The effects of a two-level design combine all its runs. A single run has no verdict, and a run
    with optional stopping would bias the effects.
    """
    return design in DESIGNS and DESIGNS[design].fixed


def _known(design: str) -> "_Design":
    if design not in DESIGNS:
        raise UsageError(f"no design {design!r}. Known: {', '.join(DESIGNS)}.")
    return DESIGNS[design]


_ContrastSpec = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Name of a contrast, toggles on in A, toggles on in B."""
_Contrasts = Callable[[tuple[str, ...]], list[_ContrastSpec]]
"""Maps the factors to the contrasts."""


def _add_one(factors: tuple[str, ...]) -> list[_ContrastSpec]:
    return [(name, (), (name,)) for name in factors]


def _remove_one(factors: tuple[str, ...]) -> list[_ContrastSpec]:
    return [
        (f"{name}@last", tuple(other for other in factors if other != name), factors)
        for name in factors
    ]


def _both(factors: tuple[str, ...]) -> list[_ContrastSpec]:
    if len(factors) == 1:
        # With one toggle, add-one and remove-one are the same contrast.
        return _add_one(factors)
    return [*_add_one(factors), *_remove_one(factors), ("all", (), factors)]


def _runs(vectors: Callable[[int], list[Vector]]) -> _Contrasts:
    def design(factors: tuple[str, ...]) -> list[_ContrastSpec]:
        runs = dict.fromkeys(enabled(vector, factors) for vector in vectors(len(factors)))
        runs.setdefault(factors)
        return [("+".join(on), (), on) for on in runs if on]

    return design


# Two-level designs


def full(k: int) -> list[Vector]:
    """All 2^k combinations of k factors; the first factor changes fastest."""
    return [vector[::-1] for vector in product((False, True), repeat=k)]


def fraction(k: int) -> list[Vector]:
    """Runs of the smallest regular fraction of k factors with resolution IV.

    16 runs for five to eight factors, 32 for nine to sixteen. Up to three factors, the full
    factorial is needed.
    """
    return runs(k, generators(k))


def factorial(k: int) -> list[Vector]:
    """Full factorial up to four factors, else the half fraction, of resolution k."""
    return full(k) if k < 5 else half(k)


def half(k: int) -> list[Vector]:
    """Half fraction: the last factor is the product of all others; resolution k."""
    return runs(k, (tuple(range(k - 1)),))


def generators(k: int) -> tuple[tuple[int, ...], ...]:
    """Generators of `fraction`: each further factor is a product of these basic factors.

    Every product has an odd number of basic factors. So each defining word has an even length,
    and none has length two: resolution IV. With p basic factors there are 2^(p-1) odd products,
    including the basic factors themselves. With seven factors, four of them basic: E=ABC,
    F=ABD, G=ACD.
    """
    basic = k
    while basic > 1 and 2 ** (basic - 2) >= k:
        basic -= 1
    odd = (c for size in range(3, basic + 1, 2) for c in combinations(range(basic), size))
    return tuple(word for word, _ in zip(odd, range(k - basic), strict=False))


def runs(k: int, generated: Sequence[tuple[int, ...]]) -> list[Vector]:
    """All combinations of the basic factors, each with the generated factors appended.

    The signs are chosen so that the design contains the run with all factors off: an odd product
    of factors that are off is off, and an even product is negated.
    """
    vectors = []
    for vector in full(k - len(generated)):
        # With levels -1 and +1, an odd product is on if an odd number of its factors are on.
        extra = (sum(vector[i] for i in word) % 2 == 1 for word in generated)
        vectors.append((*vector, *extra))
    return vectors


def enabled(vector: Vector, factors: Sequence[str]) -> tuple[str, ...]:
    """Names of the factors that are on."""
    return tuple(name for on, name in zip(vector, factors, strict=True) if on)


class _Design(NamedTuple):
    contrasts: _Contrasts
    size: Callable[[int], int]
    """Upper bound of the contrasts of k factors, without A/A."""
    fixed: bool = False
    """See `is_fixed`."""


DESIGNS: dict[str, _Design] = {
    "add-one": _Design(_add_one, lambda k: k),
    "remove-one": _Design(_remove_one, lambda k: k),
    "both": _Design(_both, lambda k: 2 * k + 1),
    "fraction": _Design(_runs(fraction), lambda k: 2 ** (k - len(generators(k))), fixed=True),
    "factorial": _Design(_runs(factorial), lambda k: 2 ** (k if k < 5 else k - 1), fixed=True),
    "full": _Design(_runs(full), lambda k: 2**k, fixed=True),
}
