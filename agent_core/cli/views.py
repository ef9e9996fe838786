"""Views of a session: a line per call, or events as JSON. `rich_view` is the one on a terminal.

Text of the model and of tools is untrusted: secrets are redacted, and control characters, with
which it could rewrite the terminal, are shown as `?`.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec

from agent_core.config import Prices
from agent_core.encoding import encode_json
from agent_core.messages import Message, Outcome, Reply, ToolCall, ToolResult, Usage
from agent_core.redaction import Redactor

Write = Callable[[str], None]
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WIDTH = 100
"""Characters of a call's title, and of an error."""


def harmless(text: str) -> str:
    """`text` without characters that control a terminal."""
    return _CONTROLS.sub("?", text.replace("\r\n", "\n").expandtabs(4))


def title_of(call: ToolCall, redactor: Redactor) -> str:
    """A call in one short line, such as `$ pytest -q`."""
    # First, because a key of which the end is cut off is not recognised.
    return _one_line(redactor.text(_title(call)))


def _title(call: ToolCall) -> str:
    arguments = call.arguments
    if call.malformed is not None:
        return f"{call.name} {call.malformed}"
    if call.name == "bash" and arguments.get("command"):
        return f"$ {arguments['command']}"
    path = arguments.get("path") or arguments.get("file_path")
    if path:
        verb = arguments.get("command") or arguments.get("operation") or call.name
        detail = arguments.get("view_range") or arguments.get("json_path") or ""
        return f"{verb} {path} {detail}"
    if call.name == "sequentialthinking":
        return f"think: {arguments.get('thought', '')}"
    shown = msgspec.json.encode(arguments).decode() if arguments else ""
    return f"{call.name} {shown}"


def _one_line(text: str) -> str:
    text = " ".join(harmless(text).split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def steps(number: int) -> str:
    """`1 step`, `3 steps`."""
    return f"{number} step{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`0.3 s`, `2 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def count(number: int) -> str:
    """`870`, `12.3k`, `1.2M`."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    return str(number)


class Totals:
    """What the session has used so far."""

    def __init__(self, prices: Prices | None, *, cache_is_extra: bool) -> None:
        self.steps = 0
        self.usage = Usage()
        self._prices = prices
        self._cache_is_extra = cache_is_extra
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def cached(self) -> int:
        return self.usage.cache_read_input_tokens

    @property
    def read(self) -> int:
        """Input tokens, cached ones included. Anthropic counts them separately."""
        extra = self.cached + self.usage.cache_creation_input_tokens if self._cache_is_extra else 0
        return self.usage.input_tokens + extra

    @property
    def cost(self) -> float | None:
        """In the unit of the prices. None without prices."""
        prices, written = self._prices, self.usage.cache_creation_input_tokens
        if prices is None:
            return None
        plain = self.read - self.cached - written
        read_price = prices.input if prices.cache_read is None else prices.cache_read
        write_price = prices.input if prices.cache_write is None else prices.cache_write
        return (
            plain * prices.input
            + self.cached * read_price
            + written * write_price
            + self.usage.output_tokens * prices.output
        ) / 1_000_000

    def __str__(self) -> str:
        parts = [
            steps(self.steps),
            f"{count(self.read)} tokens in ({count(self.cached)} cached)",
            f"{count(self.usage.output_tokens)} out",
            duration(self.seconds),
        ]
        if self.cost is not None:
            parts.append(f"${self.cost:.4f}")
        return ", ".join(parts)


class LineView:
    """A line per call, the model's text, and the totals at the end. Satisfies `ports.View`."""

    shows_result = False
    """Whether the text beside `task_done` has been shown. It is the result."""

    def __init__(self, write: Write, redactor: Redactor, totals: Totals, *, colours: bool) -> None:
        self._write = write
        self._redactor = redactor
        self._totals = totals
        self._colours = colours
        self._calls: dict[str, ToolCall] = {}

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        self._line(f"{provider} {model}, at most {steps(max_steps)}", dim=True)

    def text(self, part: str) -> None:
        """Shows nothing: `interaction` has the whole text."""

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        self._totals.usage += reply.usage
        self._calls = {call.id: call for call in reply.message.calls}
        # The text beside task_done is the result, which goes to standard output.
        if reply.message.text.strip() and "task_done" not in (c.name for c in reply.message.calls):
            self._line(reply.message.text.strip())

    def result(self, result: ToolResult, seconds: float) -> None:
        call = self._calls.get(result.call_id) or ToolCall(result.call_id, result.name, {})
        title, took = title_of(call, self._redactor), duration(seconds)
        if result.ok:
            self._line(f"{title}  ok {took}")
        else:
            reason = _one_line(self._redactor.text(result.error or result.output))
            self._line(f"{title}  failed {took}: {reason}", fg="yellow")

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        self._totals.steps = number  # an error is in the outcome, which is shown as well

    async def finish(self, success: bool, final_result: str | None) -> None:
        self._line(str(self._totals), dim=True)
        self._line("done" if success else "not done", fg="green" if success else "red")

    def _line(self, text: str, **style: Any) -> None:
        text = harmless(self._redactor.text(text))
        self._write(click.style(text, **style) if self._colours else text)


class JsonView:
    """Every event as a line of JSON. Satisfies `ports.View`."""

    def __init__(self, write: Write, redactor: Redactor) -> None:
        self._write = write
        self._redactor = redactor

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        self._event("start", task=task, provider=provider, model=model, max_steps=max_steps)

    def text(self, part: str) -> None:
        """Writes nothing: `interaction` has the whole text, in which no key is split."""

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        message = reply.message
        self._event("reply", text=message.text, usage=reply.usage, finish=reply.finish_reason)
        for call in message.calls:
            arguments = call.arguments if call.malformed is None else call.malformed
            self._event("call", id=call.id, name=call.name, arguments=arguments)

    def result(self, result: ToolResult, seconds: float) -> None:
        shown = {"ok": result.ok, "output": result.output, "error": result.error}
        self._event("result", id=result.call_id, name=result.name, seconds=seconds, **shown)

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        self._event("step", number=number, state=state, error=error)

    async def finish(self, success: bool, final_result: str | None) -> None:
        """Writes nothing: `outcome` is the last event."""

    def outcome(self, outcome: Outcome | None) -> None:
        """The last event. None is an interrupted session."""
        if outcome is None:
            self._event("interrupted")
        else:
            self._event("outcome", **msgspec.to_builtins(outcome))

    def _event(self, event: str, **fields: Any) -> None:
        shown = self._redactor.tree(msgspec.to_builtins({"event": event, **fields}))
        self._write(encode_json(shown).decode())


class HeldBack:
    """Redacts streamed text. Holds back what may be the first part of a secret."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._rest = ""

    def add(self, part: str) -> str:
        """The text that can be shown now."""
        self._rest += part
        cut = max(0, len(self._rest) - max(0, self._redactor.longest - 1))
        whole = self._redactor.text(self._rest)
        while (shown := self._redactor.text(self._rest[:cut])) + self._redactor.text(
            self._rest[cut:]
        ) != whole:
            cut -= 1  # until no secret is split
        self._rest = self._rest[cut:]
        return shown

    def end(self) -> str:
        """The rest, at the end of the text."""
        shown, self._rest = self._redactor.text(self._rest), ""
        return shown
