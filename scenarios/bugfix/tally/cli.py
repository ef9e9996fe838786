"""`python3 -m tally.cli LEDGER`."""

import sys
from pathlib import Path

from tally.reader import read_entries
from tally.report import shares, totals


def main(ledger: str) -> None:
    entries = list(read_entries(Path(ledger).read_text().splitlines()))
    percent = shares(entries)
    for name, cents in totals(entries).items():
        print(f"{name:<10}{cents / 100:>10.2f}{percent.get(name, 0):>5} %")


if __name__ == "__main__":
    main(sys.argv[1])
