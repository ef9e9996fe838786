"""Cost of encoding a request body when the last two messages are new."""

from collections.abc import Callable

import pytest

from agent_core.models.codec import Codec, Parameters
from agent_core.models.history import FullHistory, History, IncrementalHistory
from agent_core.models.openai_chat import OpenAIChat
from agent_core.tools import TOOLS
from tests.benchmarks.sessions import history
from tests.benchmarks.side_by_side import Comparison

SPECS = [entry.spec for entry in TOOLS.values()]


@pytest.mark.parametrize("length", [10, 50, 200])
@pytest.mark.parametrize(
    ("side", "kind"), [("full", FullHistory), ("incremental", IncrementalHistory)]
)
def test_body(
    comparison: Comparison, length: int, side: str, kind: Callable[[Codec], History]
) -> None:
    messages = history(length)
    codec = OpenAIChat(Parameters(model="some-model"))

    def previous_step() -> History:
        history = kind(codec)
        history.body(messages[:-2], SPECS)
        return history

    assert previous_step().body(messages, SPECS) == FullHistory(codec).body(messages, SPECS)
    comparison.measure_with_setup(
        f"encode {length} messages, 2 new",
        side,
        previous_step,
        lambda history: history.body(messages, SPECS),
    )
