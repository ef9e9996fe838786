"""Where the sides of a comparison break the prefixes of their prompts. Pure."""

from collections.abc import Iterator

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.stats.pairs import group_samples

PREFIX_METRICS = frozenset(
    {"new_prompt_bytes", "prefix_reuse", "prefix_breaks", "bytes_per_step"}
    | {"cached_tokens", "cacheable_tokens", "cost"}
)
"""Metrics that a broken prefix changes."""


class PromptBreaks(Struct, frozen=True):
    """The broken prefixes of the first pair of a comparison in which side B has one."""

    scenario: str
    contrast: str
    counts: tuple[int, int]
    """Requests of each side that break the prefix."""
    place: str
    """The first difference within side B's session."""


def prompt_breaks(run: RunFile) -> Iterator[PromptBreaks]:
    """Yield a record for each comparison whose side B breaks a prefix."""
    seen = set()
    for key, pairs in group_samples(run.samples).items():
        place = key.scenario, key.contrast
        for a, b in pairs.values():
            broken = b is not None and b.prompt_break
            if b is not None and broken and key.contrast != NOISE_FLOOR and place not in seen:
                seen.add(place)
                counts = _count(a) if a is not None else 0, _count(b)
                yield PromptBreaks(*place, counts, broken)


def _count(sample: Sample) -> int:
    return int(sample.metrics.get("prefix_breaks", 0))
