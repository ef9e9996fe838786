"""Trajectories of mini-swe-agent (`.traj.json`, written for versions 1.13 to 2.4).

Version 1 and the text-based models of version 2 read a ```bash block from the reply's text.
Other models of version 2 call the tool `bash`, by Chat Completions or by Responses.
"""

from msgspec import Struct

from trae_bench.scenario.importers.session import (
    ChatMessage,
    Document,
    RecordedReply,
    RecordedSession,
    ResponsesItem,
    chat_reply,
    responses_reply,
    text_of,
)

_AGENT = "mini-swe-agent"
_TASK = "{{task}}"
_SUBMITTED = "Submitted"


class _Message(ChatMessage, frozen=True):
    """A message, or a whole response of OpenAI Responses, which has `output`."""

    object: str = ""
    output: tuple[ResponsesItem, ...] | str | None = None
    """Items of a response, or the text of a tool's result."""

    @property
    def is_response(self) -> bool:
        return self.object == "response"

    @property
    def is_reply(self) -> bool:
        return self.role == "assistant" or self.is_response

    def reply(self) -> RecordedReply:
        if self.is_response and not isinstance(self.output, str):
            return responses_reply(self.output or ())
        return chat_reply(self)


class _AgentConfig(Struct, frozen=True):
    instance_template: str = ""


class _EnvironmentConfig(Struct, frozen=True):
    cwd: str | None = None


class _ModelConfig(Struct, frozen=True):
    model_name: str | None = None


class _Config(Struct, frozen=True):
    agent: _AgentConfig = _AgentConfig()
    environment: _EnvironmentConfig = _EnvironmentConfig()
    model: _ModelConfig = _ModelConfig()


class _Info(Struct, frozen=True):
    exit_status: str | None = None
    config: _Config = _Config()


class _Trajectory(Struct, frozen=True):
    messages: tuple[_Message, ...]
    info: _Info = _Info()


def matches(document: Document) -> bool:
    return document.shape == "object" and (
        document.has("messages", "info") or document.has("messages", "trajectory_format")
    )


def read(document: Document) -> RecordedSession:
    """Convert a trajectory. Raises `NotThisFormat`."""
    trajectory: _Trajectory = document.decode(_Trajectory)
    info = trajectory.info
    messages = [message for message in trajectory.messages if message.is_reply]
    users = [text_of(m.content) for m in trajectory.messages if m.role == "user"]
    responses = any(message.is_response for message in messages)
    return RecordedSession(
        source="the trajectory of mini-swe-agent",
        replies=tuple(message.reply() for message in messages),
        task=_task(users[0], info.config.agent.instance_template) if users else "",
        agent=_AGENT,
        protocol="openai_responses" if responses else "openai_chat",
        model=info.config.model.model_name or "",
        success=info.exit_status == _SUBMITTED if info.exit_status else None,
        workspace=_absolute(info.config.environment.cwd or ""),
    )


def _task(prompt: str, template: str) -> str:
    """Return the task in a prompt that was rendered from a template, else the whole prompt."""
    before, found, after = template.partition(_TASK)
    if not found:
        return prompt
    start = prompt.find(before.strip()[-40:].strip())
    start = start + len(before.strip()[-40:].strip()) if start >= 0 else 0
    # The rest of the template has more placeholders; its first line has none.
    ending = next((line for line in after.splitlines() if line.strip()), "").strip()
    end = prompt.find(ending, start) if ending else -1
    return prompt[start : end if end >= 0 else len(prompt)].strip()


def _absolute(folder: str) -> str:
    return folder if folder.startswith("/") else ""
