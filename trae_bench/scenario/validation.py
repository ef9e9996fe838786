"""What contradicts itself in a scenario that is whole by type."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import PurePosixPath

from trae_bench._util.toml_positions import TomlPath
from trae_bench.scenario.diagnostics import Diagnostic
from trae_bench.scenario.measurable import impossible
from trae_bench.scenario.model import (
    FINISH,
    MAX_TURNS,
    Fault,
    Load,
    Normalise,
    Oracle,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    SubjectSetup,
    Turn,
    WorkspaceFixture,
)

MAX_GENERATED = 1 << 30
"""Bytes."""
DEEPEST = 100
"""Tables and arrays within each other; a writer of JSON has an end, too."""


def contradictions(scenario: Scenario) -> Iterator[Diagnostic]:
    yield from _of_no_session(scenario)
    yield from _of_install(scenario)
    yield from _of_turns(scenario)
    yield from _of_final_text(scenario)
    yield from _of_arguments(scenario)
    yield from _of_lists(scenario)
    yield from _of_paths(scenario)
    yield from _of_generated(scenario)
    yield from _of_provider(scenario)
    yield from _of_faults(scenario)
    yield from _of_load(scenario)
    yield from _of_variants(scenario)
    yield from impossible(scenario)
    for index, rule in enumerate(scenario.normalise):
        yield from _of_pattern(("normalise", index), rule)


def _of_no_session(scenario: Scenario) -> Iterator[Diagnostic]:
    """A run of the agent's own command line has no session, and what is weighed runs nothing."""
    subject = scenario.subject
    if subject.has_session:
        return
    others = {
        "turns": bool(scenario.turns),
        "provider": scenario.provider != ProviderConditions(),
        "load": scenario.load != Load(),
    }
    key, what = "command", "a command runs without a session"
    if subject.install is not None:
        key, what = "install", "an install is weighed and nothing is run"
        others |= {
            "workspace": scenario.workspace != WorkspaceFixture(),
            "oracle": scenario.oracle != Oracle(),
            "normalise": bool(scenario.normalise),
        }
    for name, there in others.items():
        if there:
            yield (name,), f"{what}, so without {name}; drop it, or subject.{key}"


def _of_install(scenario: Scenario) -> Iterator[Diagnostic]:
    install = scenario.subject.install
    if install is None:
        return
    if scenario.subject != SubjectSetup(install=install):
        yield ("subject",), "an install is weighed and nothing is run; drop all keys but install"
    if install.off == install.on:
        yield ("subject", "install"), "both sides have the same extras; give one of them others"
    if len(scenario.toggles.vary) != 1:
        yield ("toggles", "vary"), "extras are given for the sides of one toggle; name one"
    if scenario.toggles.hold:
        yield ("toggles", "hold"), "an install is weighed and nothing is run; drop it"


def _of_turns(scenario: Scenario) -> Iterator[Diagnostic]:
    if not scenario.subject.has_session:
        return
    if not scenario.turns:
        yield ("turns",), f"no turns; add [[turns]], the last with a call of {FINISH}"
        return
    last = len(scenario.turns) - 1
    for index, turn in enumerate(scenario.turns):
        path = ("turns", index)
        finishes = any(call.tool == FINISH for call in turn.calls)
        if not turn.text and not turn.calls:
            yield path, "an empty turn; give it `text` or `calls`"
        if finishes and index < last:
            yield path, f"{FINISH} ends the session here; drop the turns after it or this call"
        if finishes and turn.repeat > 1:
            yield path, f"a turn that calls {FINISH} is played once; drop `repeat`"
        if index == last and not finishes:
            yield from _of_end(path, turn)
    total = sum(turn.repeat for turn in scenario.turns)
    if total > MAX_TURNS:
        yield ("turns",), f"{total} turns, repeats counted; at most {MAX_TURNS} are allowed"


def _of_end(path: TomlPath, turn: Turn) -> Iterator[Diagnostic]:
    for number, call in enumerate(turn.calls):
        if get_close_matches(call.tool, [FINISH], cutoff=0.6):
            what = f"{call.tool!r} does not end the session; did you mean {FINISH}?"
            yield (*path, "calls", number, "tool"), what
            return
    yield path, f"the session does not end; add a last turn that calls {FINISH}"


def _of_final_text(scenario: Scenario) -> Iterator[Diagnostic]:
    """What the agent says in the end is the last turn's text, with its folder's path in it."""
    wanted = scenario.oracle.final_text
    if not scenario.subject.has_session or not scenario.turns or not wanted:
        return
    said = scenario.turns[-1].text
    if not any(wanted in part for part in said.split("{workspace}")):
        remedy = "say it there, or let final_text be a part of what it says"
        yield ("oracle", "final_text"), f"the last turn does not say {wanted!r}; {remedy}"


def _of_arguments(scenario: Scenario) -> Iterator[Diagnostic]:
    """Arguments travel as JSON, which knows no dates, no NaN and no endless integers."""
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            root: TomlPath = ("turns", index, "calls", number, "arguments")
            if call.arguments_json:
                yield from _of_json((*root[:-1], "arguments_json"), call)
            for path, value in _leaves(root, call.arguments):
                if len(path) - len(root) > DEEPEST:
                    yield path, f"nested more than {DEEPEST} deep; take some of it away"
                elif not _has_json_form(value):
                    yield path, f"{value} has no JSON form; write a string, number, true or false"


def _of_json(path: TomlPath, call: ScriptedCall) -> Iterator[Diagnostic]:
    if call.arguments:
        yield path, "there are `arguments`, too; drop one"
    try:
        arguments = json.loads(call.arguments_json)
    except (ValueError, RecursionError) as error:
        yield path, f"not JSON: {error}"
        return
    if not isinstance(arguments, dict):
        yield path, "arguments are a JSON object; write {...}"


def _has_json_form(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _leaves(path: TomlPath, value: object, depth: int = 0) -> Iterator[tuple[TomlPath, object]]:
    """What is no table and no array; nested too deep, whatever it is."""
    if depth > DEEPEST or not isinstance(value, dict | list):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves((*path, key), item, depth + 1)


def _of_lists(scenario: Scenario) -> Iterator[Diagnostic]:
    if not scenario.metrics:
        yield ("metrics",), 'nothing to measure; name at least one, as in `metrics = ["cpu"]`'
    named = ((("metrics",), scenario.metrics), (("toggles", "vary"), scenario.toggles.vary))
    for path, names in named:
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield path, f"{name!r} stands here twice; drop one"
    for name in scenario.toggles.vary:
        if name in scenario.toggles.hold:
            yield ("toggles", "hold", name), f"{name!r} is both varied and held; drop one"


def _of_paths(scenario: Scenario) -> Iterator[Diagnostic]:
    for table, files in (
        ("workspace", scenario.workspace.files),
        ("oracle", scenario.oracle.files),
    ):
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
        for name in files:
            path = (table, "files", name)
            if problem := _wrong_path(name):
                yield path, problem
            elif name in folders:
                yield path, f"{name!r} is a file here and a folder elsewhere; rename one"
    folder = scenario.workspace.folder
    if folder and (problem := _wrong_path(folder, of="the scenario's folder")):
        yield ("workspace", "folder"), problem


def _wrong_path(name: str, of: str = "the workspace") -> str | None:
    clean = PurePosixPath(name)
    if not clean.name.strip() or clean.is_absolute() or ".." in clean.parts or "\0" in name:
        return f"{name!r} is not a path inside {of}; write it relative to it"
    if str(clean) != name:
        return f"{name!r} is not the plain form of its path; write {str(clean)!r}"
    return None


def _of_generated(scenario: Scenario) -> Iterator[Diagnostic]:
    made = scenario.workspace.generate
    if made is None:
        return
    path: TomlPath = ("workspace", "generate")
    if made.bytes_low > made.bytes_high:
        said = f"bytes_low is {made.bytes_low} and bytes_high {made.bytes_high}"
        yield (*path, "bytes_low"), f"{said}; swap them"
    if made.files * made.bytes_high > MAX_GENERATED:
        said = f"{made.files} files of up to {made.bytes_high} bytes are too much"
        yield path, f"{said}; at most {MAX_GENERATED >> 20} MB are made"
    if made.files > 1 and "{n}" not in made.pattern:
        yield (*path, "pattern"), "all files would have one name; put {n} into it"
    if problem := _wrong_path(made.pattern):
        yield (*path, "pattern"), problem


def _of_provider(scenario: Scenario) -> Iterator[Diagnostic]:
    provider = scenario.provider
    fixed = provider.think_distribution == "fixed"
    if provider.think_spread and fixed:
        remedy = "name a think_distribution, or drop it"
        yield ("provider", "think_spread"), f"fixed think times do not spread; {remedy}"
    if not fixed and not (provider.think_spread and provider.think_seconds):
        remedy = "give think_seconds and think_spread, or drop it"
        yield ("provider", "think_distribution"), f"there is nothing to spread; {remedy}"
    if provider.think_distribution == "uniform" and provider.think_spread > 1:
        yield ("provider", "think_spread"), "think times would be negative; at most 1 for uniform"
    if provider.chunk_seconds and not provider.stream:
        remedy = "say `stream = true`, or drop it"
        yield (
            ("provider", "chunk_seconds"),
            f"replies that are not streamed have no chunks; {remedy}",
        )


def _of_faults(scenario: Scenario) -> Iterator[Diagnostic]:
    faults = scenario.provider.faults
    seen: set[int] = set()
    # Each fault but "close" takes one more request to get through the script.
    expected = sum(turn.repeat for turn in scenario.turns)
    expected += sum(fault.kind != "close" for fault in faults)
    for index, fault in enumerate(faults):
        path: TomlPath = ("provider", "faults", index)
        if fault.request in seen:
            yield (*path, "request"), f"request {fault.request} has a fault already; drop one"
        elif fault.request > expected:
            said = f"the session has {expected} requests, tries after faults counted"
            yield (*path, "request"), f"{said}; name one of them"
        seen.add(fault.request)
        yield from _of_status(path, fault)


def _of_status(path: TomlPath, fault: Fault) -> Iterator[Diagnostic]:
    if fault.kind == "status":
        return
    for name, value in (("status", fault.status), ("retry_after", fault.retry_after)):
        if value is not None:
            yield (*path, name), f'only kind = "status" has a {name}; drop it'


def _of_variants(scenario: Scenario) -> Iterator[Diagnostic]:
    names = [variant.name for variant in scenario.variants]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("variants", index, "name"), f"there is a variant {name!r} already; rename one"


def _of_load(scenario: Scenario) -> Iterator[Diagnostic]:
    load = scenario.load
    if load.concurrency > load.sessions:
        said = f"{load.concurrency} sessions at a time of {load.sessions} in all"
        yield ("load", "concurrency"), f"{said}; give more `sessions`"
    steady = load.arrival == "steady"
    if steady and load.sessions_per_second is None:
        yield ("load", "arrival"), "how often does one begin? give `sessions_per_second`"
    if not steady and load.sessions_per_second is not None:
        remedy = 'say `arrival = "steady"`, or drop it'
        yield ("load", "sessions_per_second"), f"closed arrival has no rate; {remedy}"


def _of_pattern(path: TomlPath, rule: Normalise) -> Iterator[Diagnostic]:
    try:
        with warnings.catch_warnings():
            # `[[` and the like: a pattern that will mean something else in a later Python.
            warnings.simplefilter("error")
            pattern = re.compile(rule.pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        yield (*path, "pattern"), f"not a regular expression: {error}; escape special characters"
        return
    try:
        pattern.sub(rule.replace, "")
    except (re.error, IndexError) as error:
        remedy = r"use \1 ... for groups of the pattern, \\ for a backslash"
        yield (*path, "replace"), f"not a replacement for that pattern: {error}; {remedy}"
