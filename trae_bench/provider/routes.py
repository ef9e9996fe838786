"""What the path of a request says: its protocol, and whether the reply is streamed.

Standard library only, because the server imports it. Paths are compared by their end, so a base
URL with `/v1`, without it or with two of them leads to the same route.
"""

from typing import NamedTuple

MODEL = "scripted-model"
"""Name of the only model."""
CREATED = 1_735_689_600
"""Unix time of 2025-01-01T00:00:00Z."""
MAX_SHOWN_PATH = 200
"""Characters of a path in a message."""


class Route(NamedTuple):
    """A protocol, and how its requests ask for a stream."""

    protocol: str
    """A `scenario.Protocol`."""
    stream: bool | None = None
    """Whether the reply is streamed; None if the body says so."""
    stream_default: bool = False
    """Whether it is streamed if the body says nothing."""


_ROUTES = (
    ("/chat/completions", Route("openai_chat")),
    ("/responses", Route("openai_responses")),
    ("/messages", Route("anthropic_messages")),
    (":generateContent", Route("gemini", stream=False)),
    (":streamGenerateContent", Route("gemini", stream=True)),
    ("/api/chat", Route("ollama_chat", stream_default=True)),
)


def find_route(path: str) -> Route | None:
    """Return the route of a model request. None if no protocol has this path."""
    path = clean_path(path)
    return next((route for end, route in _ROUTES if path.endswith(end)), None)


def clean_path(path: str) -> str:
    """Return a path without its query, without slashes at its end, with `:` unescaped."""
    path = path.partition("?")[0].rstrip("/")
    return path.replace("%3A", ":").replace("%3a", ":")


def relative_path(path: bytes) -> str:
    """Return the part of a path below the session's `/s/NAME`, as printable text."""
    below = path.split(b"/", 3)[3:]
    text = "/" + (below[0] if below else b"").decode("ascii", "backslashreplace")
    return "".join(one if one.isprintable() else "?" for one in text)


def wants_stream(route: Route, body: dict[str, object]) -> bool:
    """Return whether a request with this body asks for a streamed reply."""
    if route.stream is not None:
        return route.stream
    asked = body.get("stream")
    return asked if isinstance(asked, bool) else route.stream_default
