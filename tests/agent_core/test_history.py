"""Full and incremental histories give the same request bytes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.messages import Message, ToolCall, ToolResult, ToolSpec
from agent_core.models import PROTOCOLS, codec_named
from agent_core.models.codec import Codec, Entry, Parameters
from agent_core.models.history import FullHistory, IncrementalHistory
from tests.agent_core.histories import HISTORIES, TOOLS, messages

CODECS = {
    protocol: codec_named(protocol, "some", Parameters(model="m", temperature=0.5))
    for protocol in PROTOCOLS
}
each_protocol = pytest.mark.parametrize("protocol", sorted(PROTOCOLS))


def counting(protocol: str) -> tuple[Codec, Counter[str]]:
    """A codec and its numbers of calls to `entry` and `envelope`."""
    counts: Counter[str] = Counter()
    usual: type[Any] = type(CODECS[protocol])

    class Counting(usual):  # type: ignore[misc]
        def entry(self, message: Message) -> Entry:
            counts["entry"] += 1
            return super().entry(message)  # type: ignore[no-any-return]

        def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
            counts["envelope"] += 1
            return super().envelope(system, tools)  # type: ignore[no-any-return]

    codec: Codec = Counting(Parameters(model="m"))
    return codec, counts


@each_protocol
@given(history=HISTORIES, cuts=st.lists(st.integers(0, 8), max_size=4), data=st.data())
def test_both_histories_give_the_same_bytes(
    protocol: str, history: list[Message], cuts: list[int], data: st.DataObject
) -> None:
    """At each length, in any order of lengths, and after any message was replaced."""
    incremental = IncrementalHistory(CODECS[protocol])
    full = FullHistory(CODECS[protocol])
    for cut_short in [*sorted(cuts), *reversed(cuts), len(history)]:
        tools = TOOLS[: cut_short % 3]
        body = incremental.body(history[:cut_short], tools)
        assert body == full.body(history[:cut_short], tools)
        assert list(msgspec.json.decode(body))[-1] == CODECS[protocol].list_field
    if history:
        place = data.draw(st.integers(0, len(history) - 1))
        history[place] = data.draw(messages())
        assert incremental.body(history, TOOLS) == full.body(history, TOOLS)


@each_protocol
def test_step_encodes_only_new_messages(protocol: str) -> None:
    codec, counts = counting(protocol)
    incremental = IncrementalHistory(codec)
    history = [Message("system", "s"), Message("user", "u")]
    for step in range(20):
        incremental.body(history, TOOLS)
        call = ToolCall(f"c{step}", "bash", {"command": "ls"})
        history.append(Message("assistant", "", (call,)))
        history.append(Message("tool", result=ToolResult(call.id, "bash", True, "out")))
    assert counts == {"entry": len(history) - 2, "envelope": 1}


def test_equal_but_different_message_is_encoded_again() -> None:
    """`True == 1` in Python but not in JSON, so equality is not sufficient."""
    codec = CODECS["openai_chat"]
    one = Message("assistant", "", (ToolCall("c", "bash", {"x": 1}),))
    true = Message("assistant", "", (ToolCall("c", "bash", {"x": True}),))
    assert one == true
    incremental = IncrementalHistory(codec)
    incremental.body([one], ())
    assert incremental.body([true], ()) == FullHistory(codec).body([true], ())


def test_changed_tools_are_encoded_again() -> None:
    incremental = IncrementalHistory(CODECS["openai_chat"])
    history = [Message("user", "u")]
    assert b'"tools"' not in incremental.body(history, ())
    assert b'"task_done"' in incremental.body(history, TOOLS)
    assert b'"task_done"' not in incremental.body(history, TOOLS[:1])


def test_lone_surrogate_does_not_end_the_session() -> None:
    history = [Message("tool", result=ToolResult("c", "bash", True, "name \udcff end"))]
    for body in (
        IncrementalHistory(CODECS["openai_chat"]).body(history, ()),
        FullHistory(CODECS["openai_chat"]).body(history, ()),
    ):
        assert b"name ? end" in body
