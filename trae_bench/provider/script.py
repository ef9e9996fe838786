"""From a scenario to the flat list of turns that the scripted model plays.

The same scenario and workspace always give the same script: call ids and think times included.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from trae_bench.scenario import (
    MAX_THINK_SECONDS,
    Protocol,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    Turn,
)


class PlayedCall(Struct, frozen=True):
    """One tool call as it goes out."""

    id: str
    name: str
    arguments: dict[str, Any]


class PlayedTurn(Struct, frozen=True):
    """One reply as it goes out."""

    text: str
    calls: tuple[PlayedCall, ...] = ()


class Script(Struct, frozen=True):
    """All replies of one session, in order, and how they are said."""

    turns: tuple[PlayedTurn, ...]
    conditions: ProviderConditions = ProviderConditions()

    @property
    def protocol(self) -> Protocol:
        return self.conditions.protocol

    def think_times(self) -> list[float]:
        """Seconds before each turn, drawn by the seed: every call gives the same."""
        conditions = self.conditions
        mean, spread = conditions.think_seconds, conditions.think_spread
        random = Random(conditions.seed)
        drawn: Iterator[float]
        if conditions.think_distribution == "uniform":
            drawn = (random.uniform(1 - spread, 1 + spread) for _ in self.turns)
        elif conditions.think_distribution == "lognormal":
            # So that the mean, and not the median, is what the scenario says.
            middle = -(spread**2) / 2
            drawn = (math.exp(random.gauss(middle, spread)) for _ in self.turns)
        else:
            drawn = (1.0 for _ in self.turns)
        return [min(MAX_THINK_SECONDS, mean * share) for share in drawn]


def expand(scenario: Scenario, workspace: Path) -> Script:
    """Play out the repeats and fill in the templates."""
    turns = tuple(
        _played(turn, number, names)
        for number, (turn, names) in enumerate(_repeated(scenario, workspace), 1)
    )
    return Script(turns, scenario.provider)


def fill(text: str, names: dict[str, str]) -> str:
    """Put each name's value where `{name}` stands. Other braces are left alone.

    Scripts are full of program text, where braces mean something else; `str.format` would
    trip over them.
    """
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def _repeated(scenario: Scenario, workspace: Path) -> Iterator[tuple[Turn, dict[str, str]]]:
    for turn in scenario.turns:
        for count in range(1, turn.repeat + 1):
            names = {"workspace": str(workspace)}
            yield turn, names | {"n": str(count)} if turn.repeat > 1 else names


def _played(turn: Turn, number: int, names: dict[str, str]) -> PlayedTurn:
    calls = tuple(
        PlayedCall(f"call_{number:05}_{place}", call.tool, _filled(_arguments(call), names))
        for place, call in enumerate(turn.calls, 1)
    )
    return PlayedTurn(fill(turn.text, names), calls)


def _arguments(call: ScriptedCall) -> Any:
    return json.loads(call.arguments_json) if call.arguments_json else call.arguments


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, names)
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    return value
