"""A conversation that becomes too long: what is dropped, and what stays."""

from hypothesis import given
from hypothesis import strategies as st

from agent_core.context import DROPPED, Context
from agent_core.messages import Message, ToolResult
from agent_core.models import codec_named
from agent_core.models.codec import Parameters
from agent_core.models.history import FullHistory, IncrementalHistory
from tests.agent_core.histories import HISTORIES


@given(history=HISTORIES, window=st.integers(1, 60))
def test_only_outputs_of_tools_are_shortened(history: list[Message], window: int) -> None:
    before = list(history)
    Context(window).fit(history)
    assert len(history) == len(before)
    for old, new in zip(before, history, strict=True):
        if new is not old:
            assert old.result is not None and new.result is not None
            assert (new.result.call_id, new.result.ok) == (old.result.call_id, old.result.ok)
            assert len(new.result.text.encode()) < len(old.result.text.encode())


@given(history=HISTORIES)
def test_refusals_come_to_an_end(history: list[Message]) -> None:
    context, count = Context(None), 0
    while context.refused(history):
        count += 1
    assert count <= 2 * len(history)


@given(history=HISTORIES, window=st.integers(1, 60))
def test_shortened_history_has_the_same_bytes_in_both_encoders(
    history: list[Message], window: int
) -> None:
    codec = codec_named("anthropic_messages", "anthropic", Parameters(model="m"))
    incremental, context = IncrementalHistory(codec), Context(window)
    for end in range(len(history)):
        part = history[: end + 1]
        incremental.body(part, ())
        context.fit(part)
        history[: end + 1] = part
        assert incremental.body(part, ()) == FullHistory(codec).body(part, ())


def test_conversation_within_the_window_is_left_alone() -> None:
    history = [Message("user", "x" * 299)]
    Context(100).fit(history)
    assert history == [Message("user", "x" * 299)]
    assert DROPPED not in str(history)


def test_long_error_is_clipped() -> None:
    result = ToolResult("a", "bash", False, "short", "e" * 16_000)
    history = [Message("user", "task"), Message("tool", result=result)]
    assert Context(None).refused(history)
    assert history[1].result is not None
    assert history[1].result.output == "short"
    assert len(history[1].result.error or "") < 3_000
