"""Hypothesis strategies for histories, replies and tools."""

from typing import Any

from hypothesis import strategies as st

from agent_core.messages import Message, Reply, ToolCall, ToolResult, ToolSpec, Usage

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", '"', "\\", "data: x\n\n", "\r\n", "\u2028", "[DONE]", "é漢😀", "sk-planted-key-1"]
)
NAMES = st.sampled_from(["bash", "json_edit_tool", "task_done"])
IDS = st.text("abc123", min_size=1, max_size=4)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(TEXTS, VALUES, max_size=3)
CALLS = st.builds(ToolCall, IDS, NAMES, ARGUMENTS) | st.builds(
    ToolCall, IDS, NAMES, st.just({}), st.sampled_from(["{", "[1]", '"text"', '{"a": 1,}'])
)
RESULTS = st.builds(ToolResult, IDS, NAMES, st.booleans(), TEXTS, st.none() | TEXTS)


def messages() -> st.SearchStrategy[Message]:
    """A message of any role. Any order is valid, because an encoder does not check roles."""
    return st.one_of(
        st.builds(Message, st.sampled_from(["system", "user"]), TEXTS),
        st.builds(Message, st.just("assistant"), TEXTS, st.lists(CALLS, max_size=3).map(tuple)),
        RESULTS.map(lambda result: Message("tool", result=result)),
    )


HISTORIES = st.lists(messages(), max_size=8)
TOKENS = st.integers(0, 10**6)
REPLIES = st.builds(
    Reply,
    st.builds(Message, st.just("assistant"), TEXTS, st.lists(CALLS, max_size=3).map(tuple)),
    st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS),
    st.sampled_from(["stop", "tool_calls", ""]),
    st.just("some-model"),
)
TOOLS = (
    ToolSpec("bash", "Runs a command", {"type": "object", "properties": {}}),
    ToolSpec("task_done", 'Ends the "task"', {"type": "object", "properties": {}}),
)
