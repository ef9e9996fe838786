"""The names in a scenario that only other rooms know, and what it cannot measure."""

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from trae_bench._util.toml_positions import TomlPath
from trae_bench.scenario.diagnostics import Diagnostic, raise_for, suggestion
from trae_bench.scenario.measurable import unmeasurable
from trae_bench.scenario.model import FINISH, Extras, Scenario
from trae_bench.scenario.variants import at_home, split

Named = Iterator[Diagnostic]
"""Where a name stands, and the name."""

Tools = Mapping[str, Collection[str]]
"""The names of each tool's arguments."""


def check(
    scenario: Scenario,
    *,
    tools: Tools | None = None,
    toggles: Collection[str] | None = None,
    metrics: Collection[str] | None = None,
    extras: Collection[str] | None = None,
    source: Path | None = None,
) -> None:
    """Hold a scenario's names to the known ones; None leaves a kind unchecked. Metrics and
    toggles that mean nothing in it are refused in any case.

    `source` is the file it came from, for the line numbers. Raises `ScenarioError` that
    lists every such name.
    """
    found = [
        *(_unknown("tool", _tools(scenario), tools) if tools is not None else ()),
        *(_unknown_arguments(scenario, tools) if tools is not None else ()),
        *(_unknown("toggle", _toggles(scenario), toggles) if toggles is not None else ()),
        *(_unknown("metric", _metrics(scenario), metrics) if metrics is not None else ()),
        *(_unknown("extra", _extras(scenario), extras) if extras is not None else ()),
        *unmeasurable(scenario),
    ]
    if not found:
        return
    text = source.read_text(encoding="utf-8-sig") if source else ""
    raise_for(_in_file(found, scenario, text), str(source or scenario.name), text)


def _in_file(found: Sequence[Diagnostic], scenario: Scenario, text: str) -> Sequence[Diagnostic]:
    """What is wrong with a variant may stand in a table of its own."""
    _, name = split(scenario.name)
    variants = tomllib.loads(text).get("variants", ()) if name else ()
    for index, variant in enumerate(variants):
        if variant["name"] == name:
            return [(at_home(path, variant, index), problem) for path, problem in found]
    return found


def _tools(scenario: Scenario) -> Named:
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            yield ("turns", index, "calls", number, "tool"), call.tool


def _unknown_arguments(scenario: Scenario, tools: Tools) -> Iterator[Diagnostic]:
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            # A session ends at the name of the tool; what it is told is not looked at.
            if call.tool == FINISH or call.tool not in tools:
                continue
            place: TomlPath = ("turns", index, "calls", number)
            if call.arguments_json:
                given = json.loads(call.arguments_json)
                named = [((*place, "arguments_json"), name) for name in given]
            else:
                named = [((*place, "arguments", name), name) for name in call.arguments]
            yield from _unknown(f"argument of {call.tool}", iter(named), tools[call.tool])


def _toggles(scenario: Scenario) -> Named:
    for index, name in enumerate(scenario.toggles.vary):
        yield ("toggles", "vary", index), name
    for name in scenario.toggles.hold:
        yield ("toggles", "hold", name), name


def _metrics(scenario: Scenario) -> Named:
    for index, name in enumerate(scenario.metrics):
        yield ("metrics", index), name


def _extras(scenario: Scenario) -> Named:
    install = scenario.subject.install or Extras()
    for side, names in (("off", install.off), ("on", install.on)):
        for index, name in enumerate(names):
            yield ("subject", "install", side, index), name


def _unknown(kind: str, named: Named, known: Collection[str]) -> Iterator[Diagnostic]:
    for path, name in named:
        if name not in known:
            yield path, f"no {kind} {name!r}{suggestion(name, known)}"
