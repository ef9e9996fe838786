"""Ratio ranges that a claim may state, such as `60-80 % less`. Pure."""

import math
import re
from typing import NamedTuple

from trae_bench.model.experiment import Better


class LogRange(NamedTuple):
    """Log ratios for which a claim holds; an end may be infinite."""

    low: float
    high: float


_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,3})?"
_RANGE = re.compile(
    rf"(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?(?P<form> % less| % more|x faster)"
    rf"|within (?P<margin>{_NUMBER}) %"
)
_FORMS = "`64 % less`, `60-80 % less`, `10 % more`, `3-5x faster` or `within 1 %`"


def parse_range(claimed: str, better: Better = "lower") -> LogRange:
    """The log ratios for which a claim holds.

    `less` has no lower bound and `more` no upper bound. `3x faster` is a third of the time, or
    three times the rate if higher values are better. Raises `ValueError`, which names the valid
    forms, if `claimed` is not a range.
    """
    match = _RANGE.fullmatch(claimed)
    if match is None:
        raise ValueError(f"{claimed!r} is not a range; write it as {_FORMS}")
    if match["margin"]:
        margin = math.log1p(float(match["margin"]) / 100)
        return LogRange(-margin, margin)
    low, high, form = float(match["low"]), float(match["high"] or match["low"]), match["form"]
    if form == "x faster" and 1 < low <= high:
        factor = math.log(low)
        return LogRange(-math.inf, -factor) if better == "lower" else LogRange(factor, math.inf)
    if form == " % less" and 0 < low <= high <= 100 and low < 100:
        return LogRange(-math.inf, math.log1p(-low / 100))
    if form == " % more" and 0 < low <= high:
        return LogRange(math.log1p(low / 100), math.inf)
    raise ValueError(
        f"{claimed!r} is not a range; write two rising numbers, the first above no change "
        "(0 %, or 1x)"
    )
