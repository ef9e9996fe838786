"""The median's interval against its definition, and which trials count."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.stats.figures import CONFIDENCE, MIN_VALUES, median_interval


def coverage(count: int, first: int) -> float:
    """The chance that the median lies within the order statistics `first` and its mirror."""
    return 1 - 2 * sum(comb(count, k) for k in range(first + 1)) / 2**count


@given(st.integers(min_value=MIN_VALUES, max_value=200))
def test_the_interval_is_the_narrowest_with_the_confidence(count: int) -> None:
    low, high = median_interval(list(range(count)))
    assert high == count - 1 - low
    assert coverage(count, int(low)) >= CONFIDENCE
    assert coverage(count, int(low) + 1) < CONFIDENCE


@pytest.mark.parametrize("count", range(1, MIN_VALUES))
def test_few_values_give_their_range(count: int) -> None:
    assert median_interval(list(range(count))) == (0, count - 1)
    assert coverage(count, 0) < CONFIDENCE
