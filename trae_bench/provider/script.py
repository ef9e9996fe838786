"""From a scenario to the flat list of turns that the scripted model plays.

The same scenario and workspace always give the same script, call ids included.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from trae_bench.scenario import Protocol, Scenario, Turn


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
    """All replies of one session, in order."""

    turns: tuple[PlayedTurn, ...]
    protocol: Protocol = "openai_chat"
    think_seconds: float = 0.0
    """Waited before each reply."""


def expand(scenario: Scenario, workspace: Path) -> Script:
    """Play out the repeats and fill in the templates."""
    turns = tuple(
        _played(turn, number, names)
        for number, (turn, names) in enumerate(_repeated(scenario, workspace), 1)
    )
    return Script(turns, scenario.provider.protocol, scenario.provider.think_seconds)


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
        PlayedCall(f"call_{number:05}_{place}", call.tool, _filled(call.arguments, names))
        for place, call in enumerate(turn.calls, 1)
    )
    return PlayedTurn(fill(turn.text, names), calls)


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, names)
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    return value
