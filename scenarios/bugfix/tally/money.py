"""Amounts are whole cents, so that sums are exact."""


def parse_amount(text: str) -> int:
    """`12.5` is 1250; a refund has a minus sign."""
    units, _, cents = text.strip().partition(".")
    return int(units) * 100 + int(cents.ljust(2, "0"))


def format_amount(cents: int) -> str:
    """1250 is `12.50`."""
    return f"{cents // 100}.{cents % 100:02}"
