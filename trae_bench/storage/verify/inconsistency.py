"""What a check of a run file reports."""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

Severity = Literal["wrong", "odd"]


class Inconsistency(Struct, frozen=True):
    """Something in a run file that does not fit the rest."""

    severity: Severity
    """`wrong`: it contradicts the rest of the file. `odd`: a reader should know of it."""
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.place}: {self.problem}"


Inconsistencies = Iterator[Inconsistency]


def wrong(place: str, problem: str) -> Inconsistency:
    """Return a contradiction with the rest of the file."""
    return Inconsistency("wrong", place, problem)


def odd(place: str, problem: str) -> Inconsistency:
    """Return what a reader should know of."""
    return Inconsistency("odd", place, problem)
