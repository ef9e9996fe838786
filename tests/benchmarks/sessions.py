"""Material for the micro-costs: what a session of ordinary length is made of."""

from agent_core.messages import Message, Reply, ToolCall, ToolResult, Usage

LINES = "".join(f"{n:02} {'x' * 60}\n" for n in range(32))
"""What a tool shows: 2048 bytes."""


def call(number: int) -> ToolCall:
    arguments = {"command": "view", "path": "/workspace/file.txt"}
    return ToolCall(f"call_{number}", "str_replace_based_edit_tool", arguments)


def asked(number: int) -> Message:
    return Message("assistant", calls=(call(number),))


def answered(number: int) -> Message:
    found = ToolResult(f"call_{number}", "str_replace_based_edit_tool", True, LINES)
    return Message("tool", result=found)


def history(length: int) -> list[Message]:
    """A session's first `length` messages; an even number ends with a tool's result."""
    opening = [Message("system", "Work." * 100), Message("user", "Look at the file.")]
    pairs = ((asked(n), answered(n)) for n in range(length // 2))
    return [*opening, *(message for pair in pairs for message in pair)][:length]


def reply(number: int) -> Reply:
    return Reply(asked(number), Usage(1200, 30), "tool_calls", "some-model")
