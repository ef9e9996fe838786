"""Messages of a session of typical length, for the micro-benchmarks."""

from agent_core.messages import Message, Reply, ToolCall, ToolResult, Usage

LINES = "".join(f"{n:02} {'x' * 60}\n" for n in range(32))
"""Output of a tool: 2048 bytes."""


def call(number: int) -> ToolCall:
    arguments = {"command": "view", "path": "/workspace/file.txt"}
    return ToolCall(f"call_{number}", "str_replace_based_edit_tool", arguments)


def request(number: int) -> Message:
    return Message("assistant", calls=(call(number),))


def result(number: int) -> Message:
    content = ToolResult(f"call_{number}", "str_replace_based_edit_tool", True, LINES)
    return Message("tool", result=content)


def history(length: int) -> list[Message]:
    """Return the first `length` messages of a session. An even number ends with a tool result."""
    opening = [Message("system", "Work." * 100), Message("user", "Look at the file.")]
    pairs = ((request(n), result(n)) for n in range(length // 2))
    return [*opening, *(message for pair in pairs for message in pair)][:length]


def reply(number: int) -> Reply:
    return Reply(request(number), Usage(1200, 30), "tool_calls", "some-model")
