"""Draws numbers as a row of block characters."""

from collections.abc import Sequence
from statistics import fmean

BLOCKS = "▁▂▃▄▅▆▇█"
"""Blocks of one to eight eighths of a line's height."""
ASCII = "_.-'^"


def sparkline(values: Sequence[float], *, reach: float, max_signs: int, signs: str = BLOCKS) -> str:
    """One sign for each value: 0 is the middle sign, `reach` and more the first or last one.

    If there are more than `max_signs` values, a sign is the mean of consecutive values.
    """
    size = -(-len(values) // max_signs)
    means = [fmean(values[start : start + size]) for start in range(0, len(values), size or 1)]
    return "".join(_sign(mean / reach if reach else 0.0, signs) for mean in means)


def _sign(share: float, signs: str) -> str:
    middle = (len(signs) - 1) // 2
    above = len(signs) - 1 - middle
    return signs[max(0, middle + round(max(-1.0, min(1.0, share)) * above))]
