"""What it costs to make a request's body where the last two messages are new."""

from collections.abc import Callable

import pytest

from agent_core.models.codec import Codec, Parameters
from agent_core.models.history import FullHistory, History, IncrementalHistory
from agent_core.models.openai_chat import OpenAIChat
from agent_core.tools import TOOLS
from tests.benchmarks.sessions import history
from tests.benchmarks.side_by_side import Meter

SPECS = [entry.spec for entry in TOOLS.values()]


@pytest.mark.parametrize("length", [10, 50, 200])
@pytest.mark.parametrize(
    ("side", "kind"), [("full", FullHistory), ("incremental", IncrementalHistory)]
)
def test_body(meter: Meter, length: int, side: str, kind: Callable[[Codec], History]) -> None:
    messages = history(length)
    codec = OpenAIChat(Parameters(model="some-model"))

    def one_step_before() -> History:
        known = kind(codec)
        known.body(messages[:-2], SPECS)
        return known

    assert one_step_before().body(messages, SPECS) == FullHistory(codec).body(messages, SPECS)
    meter.prepared(
        f"encode {length} messages, 2 new",
        side,
        one_step_before,
        lambda known: known.body(messages, SPECS),
    )
