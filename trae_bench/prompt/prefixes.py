"""How much of each prompt an earlier request of the session began with.

A provider finds the beginning of a prompt in its cache if an earlier request began in the same
way. `PrefixTracker` compares prompts part by part, and the first parts that differ byte by byte.
"""

from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from trae_bench._util.common_prefix import common_prefix
from trae_bench._util.json_difference import MISSING, difference_text, first_difference
from trae_bench.model.sample import PromptLog
from trae_bench.prompt.parts import Part, Prompt
from trae_bench.prompt.prefix_tree import PrefixTree

MAX_BREAK = 500
"""Characters of the description of a break."""


class PrefixTracker:
    """Compares each prompt of a session with all earlier ones."""

    def __init__(self) -> None:
        self._trees: dict[tuple[str, str], PrefixTree] = {}
        """The prompts for each model."""
        self._latest: list[tuple[int, Prompt]] = []
        """The latest request of each conversation, with its number."""
        self._count = 0

    def add(self, arrived: float, prompt: Prompt) -> PromptLog:
        """Return how the prompt continues what was sent before."""
        self._count += 1
        reused = self._insert(prompt)
        broken = self._continue(prompt)
        return PromptLog(arrived, prompt.size, reused, prompt.is_first, broken)

    def _insert(self, prompt: Prompt) -> int:
        """Add a prompt to the tree, and return the bytes that were there before."""
        tree = self._trees.setdefault((prompt.protocol, prompt.model), PrefixTree())
        path = tree.add(prompt.parts)
        return sum(len(part.text) for part in prompt.parts[: path.known]) + path.common

    def _continue(self, prompt: Prompt) -> str | None:
        """Assign a prompt to its conversation. Return how it breaks with the one before."""
        if prompt.is_first or not self._latest:
            self._latest.append((self._count, prompt))
            return None
        shared = [_shared_bytes(one.parts, prompt.parts) for _, one in self._latest]
        # Of two conversations that begin alike, one may share a part of the next message by chance.
        whole = [size == one.size for size, (_, one) in zip(shared, self._latest, strict=True)]
        # A later conversation wins if several share as much.
        place = max(range(len(shared)), key=lambda index: (whole[index], shared[index], index))
        number, before = self._latest[place]
        self._latest[place] = self._count, prompt
        return _break(before, prompt, (f"request {number}", f"request {self._count}"))


def _shared_bytes(a: Sequence[Part], b: Sequence[Part]) -> int:
    shared = 0
    for left, right in zip(a, b, strict=False):
        if left.text != right.text:
            return shared + common_prefix(left.text, right.text)
        shared += len(left.text)
    return shared


def _break(before: Prompt, prompt: Prompt, names: tuple[str, str]) -> str | None:
    """Return where a prompt does not extend the one before; None if it does."""
    if before.model != prompt.model:
        return f"model: {names[0]} asks {before.model!r}, {names[1]} {prompt.model!r}"[:MAX_BREAK]
    for left, right in zip_longest(before.parts, prompt.parts):
        if left is None:
            return None
        if right is None or left.text != right.text:
            return _difference(left, right, names)[:MAX_BREAK]
    return None


def _difference(left: Part, right: Part | None, names: tuple[str, str]) -> str:
    a = msgspec.json.decode(left.text)
    b = MISSING
    if right is not None and right.place == left.place:
        b = msgspec.json.decode(right.text)
    place, in_a, in_b = first_difference(a, b, left.place) or (left.place, a, b)
    return difference_text(place, in_a, in_b, names).removeprefix(", ")
