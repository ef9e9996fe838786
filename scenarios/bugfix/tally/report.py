"""Entries to figures."""

from collections.abc import Iterable

from tally.entry import Entry


def totals(entries: Iterable[Entry]) -> dict[str, int]:
    """Cents by category, by name."""
    sums: dict[str, int] = {}
    for entry in entries:
        sums[entry.category] = sums.get(entry.category, 0) + entry.cents
    return dict(sorted(sums.items()))


def shares(entries: Iterable[Entry]) -> dict[str, int]:
    """Percent of the spending by category; refunded categories have none. Adds up to 100."""
    sums = {name: cents for name, cents in totals(entries).items() if cents > 0}
    whole = sum(sums.values())
    if whole == 0:
        return {}
    return {name: round(100 * cents / whole) for name, cents in sums.items()}
