"""Proposes entries of `[[normalise]]` for what differs between two plays of one session."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from trae_bench._util.json_tree import map_strings
from trae_bench.scenario.model import Normalise

_DAYS, _MONTHS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun", "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK = r"\d\d?:\d\d:\d\d(?:[.,]\d+)?"
KINDS = tuple(
    Normalise(pattern, replace)
    for pattern, replace in (
        (rf"\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (rf"\b(?:{_DAYS})\w*,? (?:{_MONTHS})\w* +\d\d?", "DATE"),
        (rf"\b{_CLOCK}", "TIME"),
        (r"\b[0-9.]+ ?(?:s|ms|us|µs|ns|sec|seconds|min|minutes)\b", "DURATION"),
        (r"\b1[5-9]\d{8}(?:\.\d+)?\b", "TIME"),
        (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "ID"),
        (r"/(?:private/)?(?:tmp|var/tmp|var/folders)/[\w./+-]+", "/tmp/PATH"),
        (r"\btmp[a-z0-9_]{8}\b", "tmpNAME"),
        (r"(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):\d+", r"\1:PORT"),
        (r"\b0x[0-9a-f]+\b", "ADDRESS"),
        (r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,64}\b", "ID"),
        (r"\b(pid|port|process)\b( ?[=:]? ?)\d+", r"\1\2NUMBER"),
    )
)
"""What usually varies from run to run, the more specific before the more general."""


def proposed(before: Any, after: Any) -> tuple[Normalise, ...]:
    """Return the fewest `KINDS` after which two JSON values are equal.

    Empty if they are equal already, or if they also differ in something else.
    """
    chosen = list(_differing(before, after))
    if not _equal(before, after, chosen):
        return ()
    for kind in tuple(chosen):
        fewer = [one for one in chosen if one is not kind]
        if _equal(before, after, fewer):
            chosen = fewer
    return tuple(chosen)


def _differing(before: Any, after: Any) -> Iterator[Normalise]:
    """The kinds of which the values have different texts, each after the kinds before it."""
    for kind in KINDS:
        if _texts(before, kind) != _texts(after, kind):
            yield kind
            before, after = (_replaced(value, [kind]) for value in (before, after))


def _texts(value: Any, kind: Normalise) -> list[str]:
    found: list[str] = []
    pattern = re.compile(kind.pattern)

    def collect(text: str) -> str:
        found.extend(match[0] for match in pattern.finditer(text))
        return text

    map_strings(value, collect)
    return found


def _equal(before: Any, after: Any, kinds: Sequence[Normalise]) -> bool:
    # In JSON, 1 and true differ; in Python they are equal.
    texts = (json.dumps(_replaced(value, kinds), sort_keys=True) for value in (before, after))
    return next(texts) == next(texts)


def _replaced(value: Any, kinds: Sequence[Normalise]) -> Any:
    def replace(text: str) -> str:
        for kind in kinds:
            text = re.sub(kind.pattern, kind.replace, text)
        return text

    return map_strings(value, replace)
