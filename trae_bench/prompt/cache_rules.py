"""What a provider reads from its prompt cache, and writes to it, by its documented rules.

All rules compare prompts from their beginning: tools, system prompt, messages. An entry belongs
to one model. A session is taken to use one cache alone, that no other traffic evicts. Read on
2026-11-29; the models that a rule does not name get the rule of the newest ones:

Anthropic (platform.claude.com/docs/en/build-with-claude/prompt-caching)
    `cache_control` marks up to four breakpoints. An entry is written at each one. A request reads
    the longest entry that ends at a breakpoint or at one of the 19 blocks before it. The lifetime
    is 5 minutes, or 1 hour if the mark says so, since the request that last used the entry. A
    shorter prefix than the model's minimum is not cached.
OpenAI, GPT-5.6 and later (developers.openai.com/api/docs/guides/prompt-caching)
    An entry is written at the end of the latest user message or group of tool results. A request
    reads the longest entry that ends there or at one of 20 such places before it. Minimum 1,024
    tokens, lifetime 30 minutes since the last use. Explicit breakpoints are not read.
OpenAI, earlier models (same page)
    A request reads the longest common beginning with an earlier one, from 1,024 tokens in steps
    of 128, for GPT-5.5 of 2,048. Writing is free. Lifetime: 5 minutes without use, the shorter
    one that the page states ("5 to 10 minutes of inactivity").
Gemini (ai.google.dev/gemini-api/docs/caching, "Implicit caching")
    A request reads the longest common beginning, from the model's minimum on. Google states no
    step and no lifetime, and promises no hit: 5 minutes are assumed, and figures are upper bounds.
Ollama (docs.ollama.com/faq, `keep_alive`)
    The runner continues the longest common beginning. It forgets after 5 minutes. Nothing costs.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Protocol

from msgspec import Struct

from trae_bench.model.sample import CacheUse
from trae_bench.prompt.parts import Part
from trae_bench.prompt.prefix_tree import PrefixTree
from trae_bench.prompt.tokens import TokenCounter

MINUTES_5, MINUTES_30, HOUR = 300.0, 1800.0, 3600.0
MAX_BREAKPOINTS = 4
"""Marks of a request that count. Anthropic refuses a request with more; here the last count."""
LOOKBACK = 20
"""Places that are searched for an entry: blocks for Anthropic, ends of messages for OpenAI."""
_LIFETIMES = {"5m": MINUTES_5, "1h": HOUR}


class _Sent(Struct, frozen=True):
    """A prompt with its place in the tree of all prompts."""

    arrived: float
    parts: Sequence[Part]
    nodes: Sequence[int]
    """Names the prefix that ends with each part."""
    ends: Sequence[int]
    """Tokens up to the end of each part."""
    shared: int
    """Tokens at its beginning that an earlier prompt within the lifetime began with."""


class _Rules(Protocol):
    """How a provider caches the prompts of one model."""

    minimum: int
    """Tokens of the shortest prefix that is cached."""
    lifetime: float
    """Seconds for which an entry can be found at most."""

    def use(self, sent: _Sent) -> CacheUse:
        """Return what a prompt reads and writes. Prompts come in order of arrival."""


class PromptCache:
    """The cache of one model, as the prompts of one session fill it."""

    def __init__(self, protocol: str, model: str, counter: TokenCounter) -> None:
        self._rules = _rules_for(protocol, model)
        self._counter = counter
        self._counts: dict[tuple[str, bytes], int] = {}
        self._tree = PrefixTree()

    def add(self, arrived: float, parts: Sequence[Part]) -> CacheUse:
        """Return what a prompt reads from the cache and writes to it.

        `arrived` are monotonic seconds. Prompts come in order of arrival.
        """
        counts = [self._count(part) for part in parts]
        path = self._tree.add(parts, arrived, self._rules.lifetime)
        shared = sum(counts[: path.known])
        if path.common:
            shared += counts[path.known] * path.common // len(parts[path.known].text)
        return self._rules.use(_Sent(arrived, parts, path.nodes, list(accumulate(counts)), shared))

    def _count(self, part: Part) -> int:
        # The parts of a history come again in every prompt.
        key = part.role, part.text
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = self._counter.of_part(part)
        return found


class _Entries:
    """Entries of a cache, each by the node of its prefix."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[float, float]] = {}
        """When each was last used, and the seconds that it then lives."""

    def is_alive(self, node: int, now: float) -> bool:
        if node not in self._entries:
            return False
        used, lifetime = self._entries[node]
        return now - used <= lifetime

    def write(self, node: int, now: float, lifetime: float) -> None:
        self._entries[node] = now, lifetime

    def refresh(self, nodes: Sequence[int], now: float) -> None:
        """Start the lifetime of the living entries at these nodes anew."""
        for node in nodes:
            if self.is_alive(node, now):
                self._entries[node] = now, self._entries[node][1]


class _Breakpoints:
    """Anthropic: entries end at the marks of the request."""

    lifetime = HOUR

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum
        self._entries = _Entries()

    def use(self, sent: _Sent) -> CacheUse:
        marks = [place for place, part in enumerate(sent.parts) if part.cache_mark]
        usable = [p for p in marks[-MAX_BREAKPOINTS:] if sent.ends[p] >= self.minimum]
        hit = self._hit(sent, usable)
        self._entries.refresh(sent.nodes[: hit + 1], sent.arrived)
        new = [place for place in usable if place > hit]
        for place in new:
            lifetime = _LIFETIMES[sent.parts[place].cache_mark]
            self._entries.write(sent.nodes[place], sent.arrived, lifetime)
        cached = sent.ends[hit] if hit >= 0 else 0
        hours = [p for p in new if sent.parts[p].cache_mark == "1h"]
        # As Anthropic bills mixed lifetimes: for one hour up to the last such mark.
        hour_end = sent.ends[hours[-1]] if hours else cached
        return CacheUse(
            input=sent.ends[-1] if sent.ends else 0,
            cached=cached,
            written=sent.ends[new[-1]] - hour_end if new else 0,
            written_1h=hour_end - cached,
            cacheable=_from(self.minimum, sent.shared),
        )

    def _hit(self, sent: _Sent, marks: Sequence[int]) -> int:
        """The last part of the longest entry that is found; -1 without one."""
        for mark in reversed(marks):
            for place in range(mark, max(-1, mark - LOOKBACK), -1):
                if self._entries.is_alive(sent.nodes[place], sent.arrived):
                    return place
        return -1


class _MessageEnds:
    """OpenAI from GPT-5.6 on: an entry ends with the latest message that is no reply."""

    minimum = 1024
    lifetime = MINUTES_30

    def __init__(self) -> None:
        self._entries = _Entries()

    def use(self, sent: _Sent) -> CacheUse:
        places = _message_ends(sent.parts)
        searched = places[-1 - LOOKBACK :]
        alive = (p for p in searched if self._entries.is_alive(sent.nodes[p], sent.arrived))
        hit = max(alive, default=-1)
        self._entries.refresh(sent.nodes[: hit + 1], sent.arrived)
        cached = sent.ends[hit] if hit >= 0 else 0
        written = 0
        if places and places[-1] > hit and sent.ends[places[-1]] >= self.minimum:
            self._entries.write(sent.nodes[places[-1]], sent.arrived, self.lifetime)
            written = sent.ends[places[-1]] - cached
        total = sent.ends[-1] if sent.ends else 0
        return CacheUse(total, cached, written, 0, _from(self.minimum, sent.shared))


def _message_ends(parts: Sequence[Part]) -> list[int]:
    """Where an entry can end: user messages, groups of tool results, the first system messages."""
    places, first = [], True
    for place, part in enumerate(parts):
        following = parts[place + 1].role if place + 1 < len(parts) else ""
        is_group_end = part.role != following
        first = first and part.role in ("", "system")
        if part.role == "user" or (is_group_end and (part.role == "tool" or (first and part.role))):
            places.append(place)
    return places


class _CommonPrefix:
    """A request reads what it has in common with an earlier one. Writing is free."""

    def __init__(self, minimum: int, step: int = 1, lifetime: float = MINUTES_5) -> None:
        self.minimum = minimum
        self.lifetime = lifetime
        self._step = step

    def use(self, sent: _Sent) -> CacheUse:
        cached = sent.shared // self._step * self._step
        return CacheUse(
            input=sent.ends[-1] if sent.ends else 0,
            cached=_from(self.minimum, cached),
            cacheable=_from(self.minimum, sent.shared),
        )


def _from(minimum: int, tokens: int) -> int:
    return tokens if tokens >= minimum else 0


_CLAUDE_MINIMUM = (
    ("claude-*opus-4[-.][56]*", 4096),
    ("claude-*haiku-4[-.]5*", 4096),
    ("claude-*opus-4[-.]7*", 2048),
    ("claude-*mythos-preview*", 2048),
    ("claude-3*haiku*", 2048),
    ("claude-haiku-3*", 2048),
    ("claude-*opus-5*", 512),
    ("claude-*sonnet-5[-.]5*", 512),
    ("claude-*fable-5*", 512),
    ("claude-*mythos-5*", 512),
    ("*", 1024),
)
_GEMINI_MINIMUM = (("gemini-2.5-*", 2048), ("*", 4096))
_OPENAI_STEP = (
    ("gpt-5.5*", 2048),
    ("gpt-5.[0-4]*", 128),
    ("gpt-5", 128),
    ("gpt-5-*", 128),
    ("gpt-[34]*", 128),
    ("chatgpt-*", 128),
    ("o[0-9]*", 128),
    ("*", 0),
)
"""The step of models before GPT-5.6; 0 for later ones."""


def _rules_for(protocol: str, model: str) -> _Rules:
    model = model.lower().rpartition("/")[2]
    if protocol == "anthropic_messages":
        return _Breakpoints(_first_match(_CLAUDE_MINIMUM, model))
    if protocol == "gemini":
        return _CommonPrefix(_first_match(_GEMINI_MINIMUM, model))
    if protocol == "ollama_chat":
        return _CommonPrefix(1)
    step = _first_match(_OPENAI_STEP, model)
    return _CommonPrefix(1024, step) if step else _MessageEnds()


def _first_match(table: Sequence[tuple[str, int]], model: str) -> int:
    return next(value for pattern, value in table if fnmatchcase(model, pattern))
