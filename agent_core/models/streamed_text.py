"""The answer's text in one event of a stream, for a view. The reply itself needs none of this."""

from collections.abc import Callable
from typing import Any

import msgspec

_Reader = Callable[[dict[str, Any]], Any]


def text_in(protocol: str, event: bytes) -> str:
    """The text that `event` adds to the answer, or an empty string."""
    try:
        text = _READERS[protocol](msgspec.json.decode(event))
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return ""  # an event without text
    return text if isinstance(text, str) else ""


class StreamedText:
    """Passes the text of an answer to `show`.

    An interrupted stream is requested again. What the new stream repeats is not shown again;
    another answer begins on a new line.
    """

    def __init__(self, protocol: str, show: Callable[[str], None]) -> None:
        self._protocol = protocol
        self._show = show
        self._shown: list[str] = []
        self._repeated: str | None = None
        """What a new stream has repeated so far; None once it says more or something else."""

    def begin_reply(self) -> None:
        self._shown, self._repeated = [], None

    def begin_stream(self) -> None:
        if self._shown:
            self._repeated = ""

    def take(self, event: bytes) -> None:
        if not (text := text_in(self._protocol, event)):
            return
        if self._repeated is None:
            self._pass_on(text)
            return
        repeated, shown = self._repeated + text, "".join(self._shown)
        if shown.startswith(repeated):
            self._repeated = repeated
        elif repeated.startswith(shown):
            self._repeated = None
            self._pass_on(repeated[len(shown) :])
        else:
            self._pass_on_another(repeated)

    def end_stream(self) -> None:
        """At the end of a whole answer."""
        if self._repeated is not None and self._repeated != "".join(self._shown):
            self._pass_on_another(self._repeated)

    def _pass_on_another(self, text: str) -> None:
        self._show("\n")
        self._shown, self._repeated = [], None
        self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        self._shown.append(text)
        self._show(text)


def _anthropic(event: dict[str, Any]) -> Any:
    return event["delta"]["text"]


def _responses(event: dict[str, Any]) -> Any:
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


def _gemini(event: dict[str, Any]) -> Any:
    parts = event["candidates"][0]["content"]["parts"]
    return "".join(part.get("text") or "" for part in parts if not part.get("thought"))


_READERS: dict[str, _Reader] = {
    "openai_chat": lambda event: event["choices"][0]["delta"]["content"],
    "openai_responses": _responses,
    "anthropic_messages": _anthropic,
    "gemini": _gemini,
    "ollama_chat": lambda event: event["message"]["content"],
}
