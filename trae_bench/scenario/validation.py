"""Find contradictions in a scenario whose fields have the right types."""

import contextlib
import json
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from trae_bench._util.toml_positions import TomlPath
from trae_bench.scenario.diagnostics import Diagnostic
from trae_bench.scenario.measurable import unsupported_conditions
from trae_bench.scenario.model import (
    FINISH_TOOL,
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

MAX_GENERATED_BYTES = 1 << 30
"""Maximum total size of generated workspace files."""
MAX_DEPTH = 100
"""Maximum nesting of tables and arrays; JSON encoders limit it, too."""

_NOTHING_RUNS = "an installation is measured and nothing runs"


def contradictions(scenario: Scenario) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each contradiction."""
    yield from _check_unused_without_session(scenario)
    yield from _check_install(scenario)
    yield from _check_turns(scenario)
    yield from _check_final_text(scenario)
    yield from _check_arguments(scenario)
    yield from _check_lists(scenario)
    yield from _check_paths(scenario)
    yield from _check_generated(scenario)
    yield from _check_provider(scenario)
    yield from _check_faults(scenario)
    yield from _check_load(scenario)
    yield from _check_variants(scenario)
    yield from unsupported_conditions(scenario)
    for index, rule in enumerate(scenario.normalise):
        yield from _check_pattern(("normalise", index), rule)


def _check_unused_without_session(scenario: Scenario) -> Iterator[Diagnostic]:
    """A command of the agent has no session; measuring an installation runs nothing."""
    subject = scenario.subject
    if subject.has_session:
        return
    unused = {
        "turns": bool(scenario.turns),
        "provider": scenario.provider != ProviderConditions(),
        "load": scenario.load != Load(),
    }
    key, reason = "command", "a command runs without a session"
    if subject.install is not None:
        key, reason = "install", _NOTHING_RUNS
        unused |= {
            "workspace": scenario.workspace != WorkspaceFixture(),
            "oracle": scenario.oracle != Oracle(),
            "normalise": bool(scenario.normalise),
        }
    for name, is_set in unused.items():
        if is_set:
            yield (name,), f"{reason}, so without {name}; remove it, or subject.{key}"


def _check_install(scenario: Scenario) -> Iterator[Diagnostic]:
    install = scenario.subject.install
    if install is None:
        return
    if scenario.subject != SubjectSetup(install=install):
        yield ("subject",), f"{_NOTHING_RUNS}; remove all keys but install"
    if install.off == install.on:
        yield ("subject", "install"), "both sides have the same extras; change one of them"
    if len(scenario.toggles.vary) != 1:
        yield ("toggles", "vary"), "the extras belong to the sides of one toggle; name exactly one"
    if scenario.toggles.hold:
        yield ("toggles", "hold"), f"{_NOTHING_RUNS}; remove it"


def _check_turns(scenario: Scenario) -> Iterator[Diagnostic]:
    if not scenario.subject.has_session:
        return
    if not scenario.turns:
        yield ("turns",), "no turns; add [[turns]], one for each reply"
        return
    last = len(scenario.turns) - 1
    for index, turn in enumerate(scenario.turns):
        path = ("turns", index)
        # Another agent may have a tool of that name that does not always end its session.
        finishes = not scenario.agent and any(call.tool == FINISH_TOOL for call in turn.calls)
        if not turn.text and not turn.calls:
            yield path, "an empty turn; add `text` or `calls`"
        if finishes and index < last:
            yield path, f"{FINISH_TOOL} ends the session here; remove the later turns or this call"
        if finishes and turn.repeat > 1:
            yield path, f"a turn that calls {FINISH_TOOL} is played once; remove `repeat`"
    for number, sub_agent in enumerate(scenario.sub_agents or ()):
        if not scenario.agent:
            yield ("sub_agents", number), "only a recorded session has them; name its `agent`"
        if not sub_agent.turns:
            yield ("sub_agents", number, "turns"), "no turns; add one for each reply"
    beside = (one.turns for one in scenario.sub_agents or ())
    total = sum(turn.repeat for turns in (scenario.turns, *beside) for turn in turns)
    if total > MAX_TURNS:
        yield ("turns",), f"{total} turns including repeats; at most {MAX_TURNS} are allowed"


def _check_final_text(scenario: Scenario) -> Iterator[Diagnostic]:
    """The agent's final text is that of the last turn, with `{workspace}` expanded.

    Another agent's can also be an argument of its last call.
    """
    expected = scenario.oracle.final_text
    if not scenario.subject.has_session or not scenario.turns or not expected:
        return
    texts = [scenario.turns[-1].text, *(_strings(scenario.turns[-1]) if scenario.agent else ())]
    if not any(expected in part for text in texts for part in text.split("{workspace}")):
        remedy = "add it to that text, or change final_text to a part of the text"
        yield ("oracle", "final_text"), f"the last turn does not contain {expected!r}; {remedy}"


def _strings(turn: Turn) -> Iterator[str]:
    """The strings in the arguments of a turn's calls."""
    for call in turn.calls:
        arguments: object = call.arguments
        if call.arguments_json:
            # `_check_json` reports text that is not JSON.
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(call.arguments_json)
        yield from (value for _, value in _leaves((), arguments) if isinstance(value, str))


def _check_arguments(scenario: Scenario) -> Iterator[Diagnostic]:
    """Arguments are sent as JSON, which has no dates, no NaN and no unbounded integers."""
    for index, turn in enumerate(scenario.turns):
        for number, call in enumerate(turn.calls):
            root: TomlPath = ("turns", index, "calls", number, "arguments")
            if call.arguments_json:
                yield from _check_json((*root[:-1], "arguments_json"), call)
            for path, value in _leaves(root, call.arguments):
                if len(path) - len(root) > MAX_DEPTH:
                    yield path, f"nested more than {MAX_DEPTH} deep; reduce the nesting"
                elif not _has_json_form(value):
                    yield path, f"{value} has no JSON form; use a string, number, true or false"


def _check_json(path: TomlPath, call: ScriptedCall) -> Iterator[Diagnostic]:
    if call.arguments:
        yield path, "both `arguments` and `arguments_json` are set; remove one"
    try:
        arguments = json.loads(call.arguments_json)
    except (ValueError, RecursionError) as error:
        yield path, f"not JSON: {error}"
        return
    if not isinstance(arguments, dict):
        yield path, "arguments must be a JSON object; write {...}"


def _has_json_form(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _leaves(path: TomlPath, value: object, depth: int = 0) -> Iterator[tuple[TomlPath, object]]:
    """Yield values that are not tables or arrays, and any value nested too deep."""
    if depth > MAX_DEPTH or not isinstance(value, dict | list):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves((*path, key), item, depth + 1)


def _check_lists(scenario: Scenario) -> Iterator[Diagnostic]:
    if not scenario.metrics:
        remedy = 'name at least one metric, such as `metrics = ["cpu"]`'
        yield ("metrics",), f"nothing to measure; {remedy}"
    named = ((("metrics",), scenario.metrics), (("toggles", "vary"), scenario.toggles.vary))
    for path, names in named:
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield path, f"{name!r} is listed twice; remove one"
    for name in scenario.toggles.vary:
        if name in scenario.toggles.hold:
            yield ("toggles", "hold", name), f"{name!r} is both varied and held; remove one"


def _check_paths(scenario: Scenario) -> Iterator[Diagnostic]:
    for table, files in (
        ("workspace", scenario.workspace.files),
        ("oracle", scenario.oracle.files),
    ):
        folders = {str(parent) for name in files for parent in PurePosixPath(name).parents}
        for name in files:
            path = (table, "files", name)
            if problem := _path_problem(name):
                yield path, problem
            elif name in folders:
                yield path, f"{name!r} is a file here and a folder elsewhere; rename one"
    folder = scenario.workspace.folder
    if folder and (problem := _path_problem(folder, "the scenario's folder")):
        yield ("workspace", "folder"), problem


def _path_problem(name: str, root: str = "the workspace") -> str | None:
    clean = PurePosixPath(name)
    if not clean.name.strip() or clean.is_absolute() or ".." in clean.parts or "\0" in name:
        return f"{name!r} is not a path inside {root}; use a relative path"
    if str(clean) != name:
        return f"{name!r} is not a normalized path; write {str(clean)!r}"
    return None


def _check_generated(scenario: Scenario) -> Iterator[Diagnostic]:
    generated = scenario.workspace.generate
    if generated is None:
        return
    path: TomlPath = ("workspace", "generate")
    if generated.bytes_low > generated.bytes_high:
        problem = f"bytes_low {generated.bytes_low} is above bytes_high {generated.bytes_high}"
        yield (*path, "bytes_low"), f"{problem}; swap them"
    if generated.files * generated.bytes_high > MAX_GENERATED_BYTES:
        problem = f"{generated.files} files of up to {generated.bytes_high} bytes are too much"
        yield path, f"{problem}; at most {MAX_GENERATED_BYTES >> 20} MB are allowed"
    if generated.files > 1 and "{n}" not in generated.pattern:
        yield (*path, "pattern"), "all files would have the same name; add {n} to it"
    if pattern_problem := _path_problem(generated.pattern):
        yield (*path, "pattern"), pattern_problem


def _check_provider(scenario: Scenario) -> Iterator[Diagnostic]:
    provider = scenario.provider
    fixed = provider.think_distribution == "fixed"
    if provider.think_spread and fixed:
        remedy = "set think_distribution, or remove it"
        yield ("provider", "think_spread"), f"fixed think times do not spread; {remedy}"
    if not fixed and not (provider.think_spread and provider.think_seconds):
        remedy = "set think_seconds and think_spread, or remove it"
        yield ("provider", "think_distribution"), f"there is nothing to spread; {remedy}"
    if provider.think_distribution == "uniform" and provider.think_spread > 1:
        problem = "think times would be negative"
        yield ("provider", "think_spread"), f"{problem}; use at most 1 for uniform"
    if provider.chunk_seconds and not provider.stream:
        problem = "replies that are not streamed have no chunks"
        yield ("provider", "chunk_seconds"), f"{problem}; set `stream = true`, or remove it"


def _check_faults(scenario: Scenario) -> Iterator[Diagnostic]:
    faults = scenario.provider.faults
    seen: set[int] = set()
    # Each fault except "close" costs one retry.
    expected = sum(turn.repeat for turn in scenario.turns)
    expected += sum(fault.kind != "close" for fault in faults)
    for index, fault in enumerate(faults):
        path: TomlPath = ("provider", "faults", index)
        if fault.request in seen:
            yield (*path, "request"), f"request {fault.request} already has a fault; remove one"
        elif fault.request > expected:
            problem = f"the session has {expected} requests including retries"
            yield (*path, "request"), f"{problem}; use one of them"
        seen.add(fault.request)
        yield from _check_status_fields(path, fault)


def _check_status_fields(path: TomlPath, fault: Fault) -> Iterator[Diagnostic]:
    if fault.kind == "status":
        return
    for name, value in (("status", fault.status), ("retry_after", fault.retry_after)):
        if value is not None:
            yield (*path, name), f'only kind = "status" has a {name}; remove it'


def _check_variants(scenario: Scenario) -> Iterator[Diagnostic]:
    names = [variant.name for variant in scenario.variants]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("variants", index, "name"), f"variant {name!r} is defined twice; rename one"


def _check_load(scenario: Scenario) -> Iterator[Diagnostic]:
    load = scenario.load
    if load.concurrency > load.sessions:
        problem = f"{load.concurrency} concurrent sessions of {load.sessions} in total"
        yield ("load", "concurrency"), f"{problem}; increase `sessions`"
    steady = load.arrival == "steady"
    if steady and load.sessions_per_second is None:
        yield ("load", "arrival"), "steady arrival needs a rate; set `sessions_per_second`"
    if not steady and load.sessions_per_second is not None:
        remedy = 'set `arrival = "steady"`, or remove it'
        yield ("load", "sessions_per_second"), f"closed arrival has no rate; {remedy}"


def _check_pattern(path: TomlPath, rule: Normalise) -> Iterator[Diagnostic]:
    try:
        with warnings.catch_warnings():
            # For example `[[`, which changes its meaning in a later Python.
            warnings.simplefilter("error")
            pattern = re.compile(rule.pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        yield (*path, "pattern"), f"not a regular expression: {error}; escape special characters"
        return
    try:
        pattern.sub(rule.replace, "")
    except (re.error, IndexError) as error:
        remedy = r"use \1 for groups of the pattern and \\ for a backslash"
        yield (*path, "replace"), f"not a valid replacement for the pattern: {error}; {remedy}"
