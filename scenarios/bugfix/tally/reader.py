"""Lines to entries."""

from collections.abc import Iterable, Iterator

from tally.entry import Entry
from tally.money import parse_amount


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Skips empty lines and those that begin with `#`."""
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        day, category, amount = line.split(";")
        yield Entry(day.strip(), category.strip().lower(), parse_amount(amount))
