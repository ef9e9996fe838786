"""Check a scenario's names of tools, toggles, metrics and extras against the known ones."""

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from trae_bench._util.toml_positions import TomlPath
from trae_bench.scenario.diagnostics import Diagnostic, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.measurable import unmeasurable
from trae_bench.scenario.model import FINISH_TOOL, Extras, Scenario
from trae_bench.scenario.variants import source_path, split

NamePaths = Iterator[Diagnostic]
"""The path of a name in the file, and the name."""

Tools = Mapping[str, Collection[str]]
"""Argument names by tool name."""


def check(
    scenario: Scenario,
    *,
    tools: Tools | None = None,
    toggles: Collection[str] | None = None,
    metrics: Collection[str] | None = None,
    extras: Collection[str] | None = None,
    source: Path | None = None,
) -> None:
    """Check a scenario's names against the known ones; None leaves a kind unchecked.

    `tools` are those of the agent that plays the scenario, which has to end the session by
    `FINISH_TOOL`; tools of another agent that the scenario names are not checked. Metrics and
    toggles that the scenario cannot measure are always rejected. `source` is the scenario file,
    for line numbers. Raises `ScenarioError` that lists every wrong name.
    """
    if scenario.agent:
        tools = None
    diagnostics = [
        *(_unknown("tool", _tools(scenario), tools) if tools is not None else ()),
        *(_unknown_arguments(scenario, tools) if tools is not None else ()),
        *(_without_end(scenario) if tools is not None else ()),
        *(_unknown("toggle", _toggles(scenario), toggles) if toggles is not None else ()),
        *(_unknown("metric", _metrics(scenario), metrics) if metrics is not None else ()),
        *(_unknown("extra", _extras(scenario), extras) if extras is not None else ()),
        *unmeasurable(scenario),
    ]
    if not diagnostics:
        return
    text = text_of(source) if source else ""
    raise_for(_at_source(diagnostics, scenario, text), str(source or scenario.name), text)


def _at_source(
    diagnostics: Sequence[Diagnostic], scenario: Scenario, text: str
) -> Sequence[Diagnostic]:
    """Map the paths of a variant to the tables of the file that contain the values."""
    _, name = split(scenario.name)
    variants = tomllib.loads(text).get("variants", ()) if name else ()
    for index, variant in enumerate(variants):
        if variant["name"] == name:
            return [(source_path(path, variant, index), problem) for path, problem in diagnostics]
    return diagnostics


def _tools(scenario: Scenario) -> NamePaths:
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            yield ("turns", index, "calls", number, "tool"), call.tool


def _unknown_arguments(scenario: Scenario, tools: Tools) -> Iterator[Diagnostic]:
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            # The agent ignores the arguments of the tool that ends the session.
            if call.tool == FINISH_TOOL or call.tool not in tools:
                continue
            path: TomlPath = ("turns", index, "calls", number)
            if call.arguments_json:
                given = json.loads(call.arguments_json)
                named = [((*path, "arguments_json"), name) for name in given]
            else:
                named = [((*path, "arguments", name), name) for name in call.arguments]
            yield from _unknown(f"argument of {call.tool}", iter(named), tools[call.tool])


def _without_end(scenario: Scenario) -> Iterator[Diagnostic]:
    """Yield a diagnostic if the last turn does not call the tool that ends the session."""
    last = len(scenario.turns) - 1
    calls = scenario.turns[-1].calls if scenario.turns else ()
    if not scenario.subject.has_session or any(call.tool == FINISH_TOOL for call in calls):
        return
    for number, call in enumerate(calls):
        if get_close_matches(call.tool, [FINISH_TOOL], cutoff=0.6):
            problem = f"{call.tool!r} does not end the session; did you mean {FINISH_TOOL}?"
            yield ("turns", last, "calls", number, "tool"), problem
            return
    remedy = f"add a last turn that calls {FINISH_TOOL}, or name the agent of its tools in `agent`"
    yield ("turns", last), f"the session does not end; {remedy}"


def _toggles(scenario: Scenario) -> NamePaths:
    for index, name in enumerate(scenario.toggles.vary):
        yield ("toggles", "vary", index), name
    for name in scenario.toggles.hold:
        yield ("toggles", "hold", name), name


def _metrics(scenario: Scenario) -> NamePaths:
    for index, name in enumerate(scenario.metrics):
        yield ("metrics", index), name


def _extras(scenario: Scenario) -> NamePaths:
    install = scenario.subject.install or Extras()
    for side, names in (("off", install.off), ("on", install.on)):
        for index, name in enumerate(names):
            yield ("subject", "install", side, index), name


def _unknown(kind: str, named: NamePaths, known: Collection[str]) -> Iterator[Diagnostic]:
    for path, name in named:
        if name not in known:
            yield path, f"no {kind} {name!r}{suggestion(name, known)}"
