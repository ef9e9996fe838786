"""The length of what two byte strings begin with in common."""

_CHUNK = 65_536
"""Bytes that are compared at once: large enough that the loop is short for a megabyte."""


def common_prefix(a: bytes, b: bytes) -> int:
    """Return the number of bytes at the beginning of `a` and `b` that are equal."""
    size = min(len(a), len(b))
    start = 0
    while start < size and a[start : start + _CHUNK] == b[start : start + _CHUNK]:
        start += _CHUNK
    low, high = min(start, size), min(start + _CHUNK, size)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
