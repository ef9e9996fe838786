"""Expands a scenario to the list of turns that the scripted model plays.

Equal scenarios and workspaces give equal scripts, including call ids and think times.
"""

import json
import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trae_bench._util.json_tree import map_strings
from trae_bench.scenario import (
    MAX_THINK_SECONDS,
    Protocol,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    Turn,
)


class PlayedCall(Struct, frozen=True):
    """One tool call with its id and expanded arguments."""

    id: str
    name: str
    arguments: dict[str, Any]


class PlayedTurn(Struct, frozen=True):
    """One reply with expanded templates."""

    text: str
    calls: tuple[PlayedCall, ...] = ()


def spoken(turn: PlayedTurn) -> Iterator[str]:
    """Yield what the model writes in a reply: its text, and the name and arguments of each call."""
    yield turn.text
    for call in turn.calls:
        yield call.name
        yield msgspec.json.encode(call.arguments).decode()


class Conversation(Struct, frozen=True):
    """The turns of one of several conversations."""

    prompt: str
    """First message of the user; empty for the main conversation."""
    turns: int


class Script(Struct, frozen=True):
    """All replies of one session, in order, and the provider's conditions."""

    turns: tuple[PlayedTurn, ...]
    conditions: ProviderConditions = ProviderConditions()
    client: Literal["own", "foreign"] = "own"
    """`foreign`: a client that is not made for this provider; see `foreign_session`."""
    any_protocol: bool = False
    """For the first contact with a foreign agent: replies in every protocol, the last one again
    and again. Implies `foreign`."""
    has_tools: bool = False
    """The agent's requests offer tools. A foreign request without them takes no turn."""
    conversations: tuple[Conversation, ...] = ()
    """How `turns` are divided, the main conversation first. Empty if there is no other one."""

    @property
    def is_foreign(self) -> bool:
        return self.client == "foreign" or self.any_protocol

    @property
    def protocol(self) -> Protocol:
        return self.conditions.protocol

    def think_times(self) -> list[float]:
        """Return the think time before each turn, in seconds. Every call returns the same."""
        conditions = self.conditions
        mean, spread = conditions.think_seconds, conditions.think_spread
        random = Random(conditions.seed)
        factors: Iterator[float]
        if conditions.think_distribution == "uniform":
            factors = (random.uniform(1 - spread, 1 + spread) for _ in self.turns)
        elif conditions.think_distribution == "lognormal":
            # exp(N(-sigma^2 / 2, sigma)) has mean 1, so `think_seconds` is the mean.
            mu = -(spread**2) / 2
            factors = (math.exp(random.gauss(mu, spread)) for _ in self.turns)
        else:
            factors = (1.0 for _ in self.turns)
        return [min(MAX_THINK_SECONDS, mean * factor) for factor in factors]


def expand(scenario: Scenario, workspace: Path) -> Script:
    """Expand the repeats and the templates of a scenario."""
    names = {"workspace": str(workspace)}
    parts = [("", scenario.turns)]
    parts += [(expand_template(one.prompt, names), one.turns) for one in scenario.sub_agents or ()]
    repeated = [list(_expand_repeats(turns, names)) for _, turns in parts]
    turns = tuple(
        _expand_turn(turn, number, of_turn)
        for number, (turn, of_turn) in enumerate(chain.from_iterable(repeated), 1)
    )
    conversations = tuple(
        Conversation(prompt, len(played))
        for (prompt, _), played in zip(parts, repeated, strict=True)
    )
    return Script(
        turns,
        scenario.provider,
        client="foreign" if scenario.agent else "own",
        conversations=conversations if scenario.sub_agents else (),
    )


def expand_template(text: str, names: dict[str, str]) -> str:
    """Replace each `{name}` by its value, and leave other braces unchanged.

    `str.format` cannot do this: scripts contain program text with braces.
    """
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def _expand_repeats(
    turns: Iterable[Turn], names: dict[str, str]
) -> Iterator[tuple[Turn, dict[str, str]]]:
    for turn in turns:
        for count in range(1, turn.repeat + 1):
            yield turn, names | {"n": str(count)} if turn.repeat > 1 else names


def _expand_turn(turn: Turn, number: int, names: dict[str, str]) -> PlayedTurn:
    expand = partial(expand_template, names=names)
    calls = tuple(
        PlayedCall(f"call_{number:05}_{place}", call.tool, map_strings(_arguments(call), expand))
        for place, call in enumerate(turn.calls, 1)
    )
    return PlayedTurn(expand(turn.text), calls)


def _arguments(call: ScriptedCall) -> Any:
    return json.loads(call.arguments_json) if call.arguments_json else call.arguments
