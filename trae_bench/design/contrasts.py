"""Which arms are compared: from a scenario's toggles to contrasts. Pure.

    A/A         none against none: the noise floor, first in every design
    add-one     none against one toggle on
    remove-one  all but one against all on (`name@last`: what it adds to the rest)
    both        add-one, remove-one, and `all`: none against all on
    fraction    none against the runs of a two-level fraction of resolution IV: main effects
                are not confused with pairs
    factorial   none against the runs of the full factorial; from five toggles on of the half
                fraction, where pairs are still not confused with each other; and all on, where
                the half does not have it, to hold against what the half foretells
    full        none against every other combination

The fractions are Box and Hunter's two-level designs (The 2^(k-p) fractional factorial designs,
Technometrics 3, 1961).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product

from trae_bench.errors import UsageError
from trae_bench.model.experiment import Arm, Contrast

NOISE_FLOOR = "A/A"
"""Name of the contrast of the baseline with itself."""

Vector = tuple[bool, ...]
"""One run of a design: which of the factors are on."""


def contrasts(
    varied: Sequence[str], baseline: Mapping[str, bool], design: str = "add-one"
) -> list[Contrast]:
    """Contrasts of one scenario, the noise floor first; none if no toggle is varied.

    `varied` are the toggles that the design turns on, and `baseline` is the toggle vector with
    all of them off. Raises `UsageError` if the design is unknown.
    """
    if design not in _DESIGNS:
        raise UsageError(f"No design {design!r}. Known: {', '.join(_DESIGNS)}.")
    if not varied:
        return []

    def arm(names: Iterable[str]) -> Arm:
        return Arm("+".join(names) or "none", {**baseline, **dict.fromkeys(names, True)})

    none = arm(())
    found = [Contrast(NOISE_FLOOR, none, none)]
    for name, a, b in _DESIGNS[design](tuple(varied)):
        found.append(Contrast(name, arm(a), arm(b)))
    return found


def design_names() -> tuple[str, ...]:
    return tuple(_DESIGNS)


def is_fixed(design: str) -> bool:
    """Whether every contrast takes the same number of pairs, set beforehand.

    The runs of a two-level design answer together: no single one is worth a verdict, and one
    that stopped at a number of pairs that suited it would lean on the effects made from all.
    """
    return design in _FIXED


# Each design: factors -> (name of the contrast, toggles on in A, toggles on in B)

_Question = tuple[str, tuple[str, ...], tuple[str, ...]]


def _add_one(factors: tuple[str, ...]) -> list[_Question]:
    return [(name, (), (name,)) for name in factors]


def _remove_one(factors: tuple[str, ...]) -> list[_Question]:
    return [
        (f"{name}@last", tuple(other for other in factors if other != name), factors)
        for name in factors
    ]


def _both(factors: tuple[str, ...]) -> list[_Question]:
    if len(factors) == 1:
        # Alone and last are the same question.
        return _add_one(factors)
    return [*_add_one(factors), *_remove_one(factors), ("all", (), factors)]


def _runs(vectors: Callable[[int], list[Vector]]) -> Callable[[tuple[str, ...]], list[_Question]]:
    def questions(factors: tuple[str, ...]) -> list[_Question]:
        runs = dict.fromkeys(enabled(vector, factors) for vector in vectors(len(factors)))
        runs.setdefault(factors)
        return [("+".join(on), (), on) for on in runs if on]

    return questions


# Two-level designs


def full(k: int) -> list[Vector]:
    """Every combination of k factors, 2^k runs; the first factor changes fastest."""
    return [vector[::-1] for vector in product((False, True), repeat=k)]


def fraction(k: int) -> list[Vector]:
    """Runs of the smallest regular fraction of k factors with resolution IV.

    16 runs for five to eight factors, 32 for up to sixteen. Up to three factors nothing can
    be left out.
    """
    return runs(k, generators(k))


def factorial(k: int) -> list[Vector]:
    """Full factorial up to four factors, else the half with resolution k (five or more)."""
    return full(k) if k < 5 else half(k)


def half(k: int) -> list[Vector]:
    """Half of the factorial: the last factor is the product of all others; resolution k."""
    return runs(k, (tuple(range(k - 1)),))


def generators(k: int) -> tuple[tuple[int, ...], ...]:
    """How `fraction` sets the factors beyond the basic ones: each a product of basic factors.

    Every product is of an odd number of basic factors. So each defining word, generators
    multiplied with their factors, is of even length, and none is of two: resolution IV. With
    p basic factors there are 2^(p-1) odd products, the basic factors themselves among them.
    For seven factors of four: E=ABC, F=ABD, G=ACD.
    """
    basic = k
    while basic > 1 and 2 ** (basic - 2) >= k:
        basic -= 1
    odd = (c for size in range(3, basic + 1, 2) for c in combinations(range(basic), size))
    return tuple(word for word, _ in zip(odd, range(k - basic), strict=False))


def runs(k: int, generated: Sequence[tuple[int, ...]]) -> list[Vector]:
    """All combinations of the basic factors, each with the generated ones appended.

    The signs are chosen so that the run with every factor off belongs to the design: an odd
    product of offs is off, an even one is turned round.
    """
    found = []
    for vector in full(k - len(generated)):
        # As -1/+1, an odd product is on when an odd number of its factors are on.
        extra = (sum(vector[i] for i in word) % 2 == 1 for word in generated)
        found.append((*vector, *extra))
    return found


def enabled(vector: Vector, factors: Sequence[str]) -> tuple[str, ...]:
    """Names of the factors that are on."""
    return tuple(name for on, name in zip(vector, factors, strict=True) if on)


_DESIGNS: dict[str, Callable[[tuple[str, ...]], list[_Question]]] = {
    "add-one": _add_one,
    "remove-one": _remove_one,
    "both": _both,
    "fraction": _runs(fraction),
    "factorial": _runs(factorial),
    "full": _runs(full),
}
_FIXED = frozenset({"fraction", "factorial", "full"})
