"""Lists for a terminal: names, plans, findings of `doctor`. Imports little, so `list` is fast."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from trae_bench.report.escape import for_terminal

MAX_TEXT = 2000
"""Maximum characters of one text; the rest is cut."""
TABLE = 80
"""Width from which a table of figures has all its usual columns."""


def count(number: int, noun: str, plural: str = "s") -> str:
    """`1 pair`, `2 pairs`."""
    return f"{number} {noun}{'' if number == 1 else plural}"


def fill(line: str, width: int, first: str = " ", later: str = "   ") -> str:
    """Wraps a line, but never between a number and its percent sign."""
    kept = line.replace(" %", "\xa0%")
    filled = textwrap.fill(kept, width, initial_indent=first, subsequent_indent=later)
    return filled.replace("\xa0", " ")


def columns(heading: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80) -> str:
    """Rows under their headings. No text is cut.

    A column is as wide as its widest text; the last column is wrapped. If there is no room for
    that, the longest texts of the widest column get a separate line above the rest of their row.
    """
    lines = [tuple(heading), *(tuple(for_terminal(text, MAX_TEXT) for text in row) for row in rows)]
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    wide = sizes.index(max(sizes)) if sizes else 0
    word = max((len(word) for line in lines for word in line[-1].split()), default=0)
    room = width - word - sum(size + 2 for size in sizes)
    if sizes and room < 0:
        short = (len(line[wide]) for line in lines if len(line[wide]) <= sizes[wide] + room)
        sizes[wide] = max(short, default=len(heading[wide]))
    return "\n".join(text for line in lines for text in _in_columns(line, sizes, wide, width))


def _in_columns(line: Sequence[str], sizes: Sequence[int], wide: int, width: int) -> Iterator[str]:
    *front, last = line
    if front and len(front[wide]) > sizes[wide]:
        before = _padded(front[:wide], sizes)
        yield from _wrapped(front[wide], width, before)
        front[: wide + 1] = [""] * (wide + 1)
    yield from _wrapped(last, width, _padded(front, sizes), whole_words=True)


def _padded(texts: Sequence[str], sizes: Sequence[int]) -> str:
    return "".join(f"{text.ljust(size)}  " for text, size in zip(texts, sizes, strict=False))


def _wrapped(text: str, width: int, before: str, *, whole_words: bool = False) -> list[str]:
    """Wraps a text to the right of `before`."""
    wrapped = textwrap.wrap(
        text,
        width,
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_long_words=not whole_words,
        break_on_hyphens=False,
    )
    return wrapped or [before.rstrip()]


def names(described: Mapping[str, str], width: int = 80) -> str:
    """Names with their descriptions wrapped to the right of them."""
    margin = min(2 + max(map(len, described), default=0) + 2, width // 2)
    return "\n".join(_beside(name, about, margin, width) for name, about in described.items())


def _beside(name: str, about: str, margin: int, width: int) -> str:
    first = f"  {for_terminal(name)}".ljust(margin - 1) + " "
    text = for_terminal(" ".join(about.split()), MAX_TEXT)
    wrapped = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * margin)
    return "\n".join(wrapped) or first.rstrip()


def bullets(texts: Sequence[str], width: int = 80) -> str:
    """Sentences as a list with dashes."""
    return "\n".join(
        textwrap.fill(
            for_terminal(text, MAX_TEXT), width, initial_indent="  - ", subsequent_indent="    "
        )
        for text in texts
    )
