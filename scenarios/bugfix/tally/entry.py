"""One line of a ledger."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    day: str
    category: str
    cents: int
