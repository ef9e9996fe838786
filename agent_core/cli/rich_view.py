"""The view on a terminal: lines that stay, streamed text, and a footer that moves.

Only `run` imports this module, and only on a terminal, because rich is slow to import.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from agent_core.cli.views import HeldBack, LineView, Totals, harmless, title_of
from agent_core.messages import Message, Reply, ToolResult
from agent_core.redaction import Redactor

_REFRESH = 1 / 8
"""Seconds between two states of the footer."""


class RichView(LineView):
    """A `LineView` with streamed text and a footer: the running calls, and the totals."""

    shows_result = True

    def __init__(self, console: Console, redactor: Redactor, totals: Totals) -> None:
        super().__init__(lambda text: None, redactor, totals, colours=False)
        self._console = console
        self._held = HeldBack(redactor)
        self._streamed = False
        self._partial = ""  # the last line of the streamed text
        self._running: dict[str, str] = {}
        self._spinner = Spinner("dots")
        # Without rich's own thread, because its output can come between the parts of a print.
        self._live = Live(
            get_renderable=self._footer, console=console, auto_refresh=False, transient=True
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        super().start(task, provider, model, max_steps)
        self._live.start()
        self._refresh()
        # Otherwise a killed process leaves the terminal without a cursor.
        self._console.show_cursor(True)

    def text(self, part: str) -> None:
        self._streamed = True
        self._show(self._held.add(part))

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        self._totals.usage += reply.usage
        self._calls = {call.id: call for call in reply.message.calls}
        self._running = {
            call.id: title_of(call, self._redactor)
            for call in reply.message.calls
            if call.name != "task_done"
        }
        if self._streamed:
            self._end_text()
        elif reply.message.text.strip():
            self._line(reply.message.text.strip())

    def result(self, result: ToolResult, seconds: float) -> None:
        self._running.pop(result.call_id, None)
        super().result(result, seconds)

    def step(self, number: int, *arguments: Any, **more: Any) -> None:
        self._end_text()  # of an answer that failed half-way
        self._running.clear()
        super().step(number, *arguments, **more)

    async def finish(self, success: bool, final_result: str | None) -> None:
        self._end_text()
        if self._timer is not None:
            self._timer.cancel()
        self._live.stop()
        await super().finish(success, final_result)

    def _refresh(self) -> None:
        self._live.refresh()
        self._timer = asyncio.get_running_loop().call_later(_REFRESH, self._refresh)

    def _show(self, text: str) -> None:
        """Prints the complete lines; the last one stays in the footer until it is complete."""
        *lines, self._partial = (self._partial + harmless(text)).split("\n")
        for line in lines:
            self._console.print(Text(line))

    def _end_text(self) -> None:
        if self._streamed:
            self._show(self._held.end())
            if self._partial.strip():
                self._console.print(Text(self._partial))
            self._partial, self._streamed = "", False

    def _line(self, text: str, **style: Any) -> None:
        colour = "dim" if style.get("dim") else style.get("fg") or ""
        self._console.print(Text(harmless(self._redactor.text(text)), style=colour))

    def _footer(self) -> RenderableType:
        running = list(self._running.values())
        model = "the model answers" if self._streamed else "waiting for the model"
        doing = running[0] if running else model
        more = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        self._spinner.update(text=Text(f"{doing}{more}", overflow="ellipsis", no_wrap=True))
        totals = Text(str(self._totals), style="dim", overflow="ellipsis", no_wrap=True)
        partial = [Text(self._partial)] if self._partial.strip() else []
        return Group(*partial, self._spinner, totals)
