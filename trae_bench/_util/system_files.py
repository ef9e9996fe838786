"""Reads single values from /proc and /sys. A missing or unreadable file is no error."""

from collections.abc import Iterator
from pathlib import Path


def read_text(path: Path) -> str:
    """Return the stripped text of a file, or an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """Return the number in a file, or None if there is none."""
    text = read_text(path)
    return int(text) if text.isdigit() else None


def read_flag(path: Path) -> bool | None:
    """Return True if the number in a file is not 0, or None if there is none."""
    number = read_number(path)
    return None if number is None else bool(number)


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the stripped parts of each `name: value` line."""
    for line in read_text(path).splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()
