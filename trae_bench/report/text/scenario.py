"""A scenario for a reader: its conditions, its session and its oracle."""

import json
import textwrap
from collections.abc import Iterable, Iterator

from trae_bench.report.escape import for_terminal
from trae_bench.scenario import (
    DEFAULT_FAULT_STATUS,
    Fault,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    Turn,
)

_MAX_TEXT = 2_000
"""Maximum characters of one text; the rest is cut."""
_MAX_LINES = 8
"""Maximum lines of one argument."""


def session_text(scenario: Scenario, width: int = 80) -> str:
    """The whole session, wrapped to `width` columns."""
    lines = [scenario.name, *_wrapped(scenario.about, width, "  "), ""]
    lines += _facts(scenario, width)
    if scenario.task:
        lines += ["", "Task", *_wrapped(scenario.task, width, "  ")]
    if scenario.turns:
        lines += ["", "Session", *_turns(scenario.turns, width)]
    for sub_agent in scenario.sub_agents or ():
        prompt = _wrapped(sub_agent.prompt, width, "  asked: ", " " * 9)
        lines += ["", "Sub-agent", *prompt, *_turns(sub_agent.turns, width)]
    expected = list(_expected(scenario, width))
    if expected:
        lines += ["", "Expected", *expected]
    return "\n".join(lines)


# -- conditions -------------------------------------------------------------------------


def _facts(scenario: Scenario, width: int) -> Iterator[str]:
    facts = {
        "Metrics": ", ".join(scenario.metrics),
        "Toggles": _toggles(scenario),
        "Provider": _provider(scenario.provider) if scenario.subject.has_session else "",
        "Faults": "; ".join(map(_fault, scenario.provider.faults)),
        "Workspace": _workspace(scenario),
        "Load": _load(scenario),
        "Subject": _subject(scenario),
        "Variants": ", ".join(variant.name for variant in scenario.variants),
    }
    for name, fact in facts.items():
        if fact:
            yield from _wrapped(fact, width, f"{name:<11}", " " * 11)


def _toggles(scenario: Scenario) -> str:
    held = [f"{name} always {'on' if on else 'off'}" for name, on in scenario.toggles.hold.items()]
    return ", ".join([*scenario.toggles.vary, *held])


def _provider(provider: ProviderConditions) -> str:
    facts = [provider.protocol, f"over {provider.transport}"]
    if provider.transport == "loopback":
        facts.append(f"HTTP/{provider.http}{' with TLS' if provider.tls else ''}")
    if provider.think_seconds:
        facts.append(f"thinks {_seconds(provider.think_seconds)}")
        if provider.think_distribution != "fixed":
            facts[-1] += f" ({provider.think_distribution}, spread {provider.think_spread:g})"
    if provider.rtt_seconds:
        facts.append(f"round trip {_seconds(provider.rtt_seconds)}")
    if provider.bandwidth_bytes_per_second is not None:
        facts.append(f"{provider.bandwidth_bytes_per_second:,} bytes/s")
    if provider.stream:
        facts.append(f"streamed, {provider.chunk_characters} characters per event")
        if provider.chunk_seconds:
            facts[-1] += f", one every {_seconds(provider.chunk_seconds)}"
    return ", ".join(facts)


def _fault(fault: Fault) -> str:
    what = {
        "status": f"status {fault.status or DEFAULT_FAULT_STATUS}",
        "reset": "connection reset",
        "cut": "reply cut off halfway",
        "garbage": "bytes that are not HTTP",
        "close": "connection closed after the reply",
    }[fault.kind]
    wait = f", retry after {_seconds(fault.retry_after)}" if fault.retry_after else ""
    return f"request {fault.request}: {what}{wait}"


def _workspace(scenario: Scenario) -> str:
    fixture = scenario.workspace
    facts = []
    if fixture.generate is not None:
        made = fixture.generate
        facts.append(
            f"{made.files} generated files of {made.bytes_low:,} to {made.bytes_high:,} bytes "
            f"({made.pattern})"
        )
    if fixture.files:
        facts.append(", ".join(fixture.files))
    return "; ".join(facts)


def _load(scenario: Scenario) -> str:
    load = scenario.load
    if load.sessions == 1:
        return ""
    rate = f", {load.sessions_per_second:g} per second" if load.sessions_per_second else ""
    return f"{load.sessions} sessions, {load.concurrency} at a time{rate}"


def _subject(scenario: Scenario) -> str:
    subject = scenario.subject
    facts = []
    if subject.command:
        facts.append(f"command line: {' '.join(subject.command)}")
    if install := subject.install:
        sides = (
            f"{name}: {', '.join(extras) or 'no extras'}"
            for name, extras in (("off", install.off), ("on", install.on))
        )
        facts.append(f"installed, not run ({'; '.join(sides)})")
    if subject.models > 1:
        facts.append(f"{subject.models} models in a {subject.format} config file")
    if subject.runs > 1:
        facts.append(f"run {subject.runs} times in one home directory, the last run is measured")
    return "; ".join(facts)


def _seconds(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


# -- the session ------------------------------------------------------------------------


def _turns(turns: Iterable[Turn], width: int) -> Iterator[str]:
    number = 1
    for turn in turns:
        yield from _turn(turn, number, width)
        number += turn.repeat


def _turn(turn: Turn, number: int, width: int) -> Iterator[str]:
    last = number + turn.repeat - 1
    place = f"{number}" if turn.repeat == 1 else f"{number}-{last}"
    head = f"  {place:>4}  "
    if turn.text:
        yield from _wrapped(turn.text, width, head, " " * len(head))
        head = " " * len(head)
    for call in turn.calls:
        yield from _call(call, width, head)
        head = " " * len(head)


def _call(call: ScriptedCall, width: int, head: str) -> Iterator[str]:
    margin = " " * (len(head) + 2)
    given = json.loads(call.arguments_json) if call.arguments_json else call.arguments
    short = ", ".join(f"{name}={_shown(value)}" for name, value in given.items())
    line = for_terminal(f"> {call.tool} {short}".rstrip(), _MAX_TEXT)
    if len(head) + len(line) <= width and "\n" not in short:
        yield head + line
        return
    yield head + for_terminal(f"> {call.tool}")
    for name, value in given.items():
        yield from _argument(name, value, width, margin)


def _argument(name: str, value: object, width: int, margin: str) -> Iterator[str]:
    lines = value.splitlines() if isinstance(value, str) else [json.dumps(value)]
    if len(lines) <= 1:
        text = f"{name}: {lines[0] if lines else ''}"
        yield from _wrapped(text, width, margin, margin + "  ")
        return
    yield margin + for_terminal(f"{name}:")
    room = width - len(margin) - 2
    for line in lines[:_MAX_LINES]:
        yield f"{margin}  {for_terminal(line, room)}".rstrip()
    if len(lines) > _MAX_LINES:
        yield f"{margin}  … {len(lines) - _MAX_LINES} more lines"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- the oracle ---------------------------------------------------------------------------


def _expected(scenario: Scenario, width: int) -> Iterator[str]:
    oracle = scenario.oracle
    if oracle.command:
        command = " ".join(oracle.command.replace("\\\n", " ").split())
        yield from _wrapped(f"exits 0: {command}", width, "  ", "    ")
    for name, text in oracle.files.items():
        yield from _wrapped(f"{name} is {json.dumps(text)}", width, "  ", "    ")
    if oracle.final_text:
        yield from _wrapped(f"final answer: {oracle.final_text}", width, "  ", "    ")


def _wrapped(text: str, width: int, first: str, later: str | None = None) -> list[str]:
    plain = for_terminal(" ".join(text.split()), _MAX_TEXT)
    return textwrap.wrap(
        plain, width, initial_indent=first, subsequent_indent=first if later is None else later
    )
