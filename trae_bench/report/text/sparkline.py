"""A row of figures as a row of signs. Pure."""

from collections.abc import Sequence
from statistics import fmean

BLOCKS = "▁▂▃▄▅▆▇█"
"""Eighths of a line's height; the fourth is half of it."""
ASCII = "_.-'^"


def sparkline(values: Sequence[float], *, reach: float, most: int, signs: str = BLOCKS) -> str:
    """One sign a value: 0 in the middle, `reach` and all beyond it at the ends.

    Of more than `most` values each sign is the mean of as many in turn as it takes.
    """
    each = -(-len(values) // most)
    means = [fmean(values[start : start + each]) for start in range(0, len(values), each or 1)]
    return "".join(_sign(mean / reach if reach else 0.0, signs) for mean in means)


def _sign(share: float, signs: str) -> str:
    middle = (len(signs) - 1) // 2
    above = len(signs) - 1 - middle
    return signs[max(0, middle + round(max(-1.0, min(1.0, share)) * above))]
