"""Scenario files: TOML in, a checked `Scenario` out. Data only; nothing in one is executed
by reading it."""

from typing import Any, Literal

from msgspec import Struct

Protocol = Literal[
    "openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama_chat"
]


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call of a scripted turn. `{workspace}` in a string stands for the session's folder."""

    tool: str
    arguments: dict[str, Any] = {}


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the scripted model."""

    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    repeat: int = 1
    """This turn is played so many times; `{n}` in a string is the count, from 1."""


class ProviderConditions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the scripted provider behaves."""

    protocol: Protocol = "openai_chat"
    think_seconds: float = 0.0
    """Waited before each reply."""


class ToggleUse(Struct, frozen=True, forbid_unknown_fields=True):
    """Which optimisations this scenario can feel, and which are held on or off in every arm."""

    vary: tuple[str, ...]
    hold: dict[str, bool] = {}


class WorkspaceFixture(Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in the session's folder at the start."""

    files: dict[str, str] = {}
    ignore: tuple[str, ...] = ("__pycache__", "*.pyc")
    """Names that do not count in the digest of what the session left."""


class Oracle(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be true after the session, whatever was switched on."""

    command: str = ""
    """Run by `sh -c` in the workspace after the session; must exit 0."""
    files: dict[str, str] = {}
    """Exact content by relative path."""
    final_text: str = ""
    """Must occur in the agent's final text."""


class Normalise(Struct, frozen=True, forbid_unknown_fields=True):
    """A pattern in tool output that legitimately varies (a test runner's clock, say)."""

    pattern: str
    replace: str


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One scripted session and how it is to be measured."""

    name: str
    about: str
    """What it can show and what it cannot."""
    task: str
    turns: tuple[Turn, ...]
    toggles: ToggleUse
    metrics: tuple[str, ...]
    provider: ProviderConditions = ProviderConditions()
    workspace: WorkspaceFixture = WorkspaceFixture()
    oracle: Oracle = Oracle()
    normalise: tuple[Normalise, ...] = ()
    timeout_seconds: float = 60.0
