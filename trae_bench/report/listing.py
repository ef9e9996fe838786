"""Lists for a terminal: names, plans, and what `doctor` finds. Kept light, for `list` is quick."""

import textwrap
from collections.abc import Mapping, Sequence

from trae_bench.report.escape import cut, for_terminal


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = 80) -> str:
    """Rows under their heads, each column as wide as it must be; the last one is cut."""
    lines = [tuple(head), *(tuple(for_terminal(text) for text in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(cut(text, width) for text in padded)


def names(found: Mapping[str, str], width: int = 80) -> str:
    """Names with what they are about, wrapped beside them."""
    margin = min(2 + max(map(len, found), default=0) + 2, width // 2)
    return "\n".join(_beside(name, about, margin, width) for name, about in found.items())


def _beside(name: str, about: str, margin: int, width: int) -> str:
    first = f"  {for_terminal(name)}".ljust(margin - 1) + " "
    text = for_terminal(" ".join(about.split()), 2000)
    wrapped = textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * margin)
    return "\n".join(wrapped) or first.rstrip()


def bullets(texts: Sequence[str], width: int = 80) -> str:
    """Sentences, one a dash."""
    return "\n".join(
        textwrap.fill(
            for_terminal(text, 2000), width, initial_indent="  - ", subsequent_indent="    "
        )
        for text in texts
    )
