"""The agent loop: requests, tool calls, recording, and how a session ends."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent_core.agent import Agent
from agent_core.build import open_agent
from agent_core.config import ProviderSettings, Settings
from agent_core.context import DROPPED
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.errors import ConnectionFailedError, ContextLimitError, RecordingError
from agent_core.messages import Ending, Message, Outcome, Reply, ToolCall, ToolOutput, Usage
from agent_core.ports import Dispatch
from agent_core.workspace import Workspace
from tests.agent_core.fakes import (
    DictCatalog,
    ListRecorder,
    ScriptedModel,
    ScriptedTool,
    call,
    reply,
)

pytestmark = pytest.mark.anyio


async def echo(arguments: Mapping[str, Any]) -> ToolOutput:
    return ToolOutput(True, f"echo {arguments['text']}")


async def forbidden(arguments: Mapping[str, Any]) -> ToolOutput:
    raise AssertionError("not to be run")


class Bench:
    """An agent with its fakes."""

    def __init__(
        self,
        *turns: Reply | BaseException,
        recorder: ListRecorder | None = None,
        dispatch: Dispatch | None = None,
        max_steps: int = 5,
        context_window: int | None = None,
    ) -> None:
        self.model = ScriptedModel(*turns)
        self.recorder = recorder or ListRecorder()
        tools = [ScriptedTool("echo", echo), ScriptedTool("task_done", forbidden)]
        self.tools = tools
        self.catalog = DictCatalog(tools)
        self.agent = Agent(
            self.model,
            self.catalog,
            dispatch or SequentialDispatch(),
            self.recorder,
            provider="openai",
            model_name="m",
            max_steps=max_steps,
            context_window=context_window,
            system_prompt="be good",
        )

    async def run(self) -> Outcome:
        return await self.agent.run("do it")


async def test_session_runs_until_task_done() -> None:
    bench = Bench(
        reply("", call("echo", id="a", text="1"), call("echo", id="b", text="2")),
        reply("finished", call("task_done")),
    )
    outcome = await bench.run()
    assert outcome == Outcome(True, "task_done", "finished", 2, Usage(20, 2))
    first, second = bench.model.asked
    assert first == [Message("system", "be good"), Message("user", "do it")]
    assert [message.role for message in second] == ["system", "user", "assistant", "tool", "tool"]
    texts = [message.result.text for message in second if message.result]
    assert texts == ["echo 1", "echo 2"]


async def test_first_message_names_the_workspace(tmp_path: Path) -> None:
    model, root = ScriptedModel(reply("", call("task_done"))), Workspace(tmp_path).root
    settings = Settings(model_providers={"openai": ProviderSettings(model="m")})
    async with open_agent(settings, workspace=tmp_path, scripted_model=model) as agent:
        await agent.run("do it")
    assert model.asked[0][1].text == f"[Project root path]:\n{root}\n\ndo it"


async def test_each_message_is_recorded_once() -> None:
    bench = Bench(
        reply("", call("echo", id="a", text="1")),
        reply("", call("echo", id="b", text="2")),
        reply("finished", call("task_done")),
    )
    await bench.run()
    assert bench.recorder.entries[0] == ("start", "do it", "openai", "m", 5)
    assert bench.recorder.kinds() == ["start", *["interaction", "step"] * 3, "finish"]
    sent = [new for new, _, _ in bench.recorder.of("interaction")]
    assert [[message.role for message in new] for new in sent] == [
        ["system", "user"],
        ["tool"],
        ["tool"],
    ]
    steps = bench.recorder.of("step")
    assert [(number, state) for number, state, *_ in steps] == [
        (1, "completed"),
        (2, "completed"),
        (3, "completed"),
    ]
    assert [[result.output for result in step[4]] for step in steps] == [["echo 1"], ["echo 2"], []]
    assert bench.recorder.of("interaction")[0][2] == ("echo", "task_done")
    assert bench.recorder.entries[-1] == ("finish", True, "finished")


@pytest.mark.parametrize("dispatch", [SequentialDispatch(), ParallelDispatch()])
async def test_calls_beside_task_done_are_not_run(dispatch: Dispatch) -> None:
    bench = Bench(
        reply("done", call("echo", id="a", text="1"), call("task_done", id="b")), dispatch=dispatch
    )
    outcome = await bench.run()
    assert outcome.success
    assert bench.recorder.of("step")[0][4] == ()


async def test_reply_without_calls_gets_a_reminder() -> None:
    bench = Bench(reply("I think I am done"), reply("yes", call("task_done")))
    assert (await bench.run()).steps == 2
    answer = bench.model.asked[1][-1]
    assert answer.role == "user" and "task_done" in answer.text


async def test_session_stops_after_max_steps() -> None:
    bench = Bench(*[reply("", call("echo", text="x"))] * 3, max_steps=3)
    outcome = await bench.run()
    assert (outcome.success, outcome.stop, outcome.steps) == (False, "max_steps", 3)
    assert bench.recorder.entries[-1] == ("finish", False, None)


async def test_provider_error_becomes_the_outcome_and_the_recording_is_finished() -> None:
    bench = Bench(reply("", call("echo", text="x")), ConnectionFailedError("line is dead"))
    outcome = await bench.run()
    assert outcome == Outcome(False, "error", "", 2, Usage(10, 1), "line is dead")
    assert bench.recorder.kinds()[-2:] == ["step", "finish"]
    assert bench.recorder.of("step")[-1][1] == "error"
    assert bench.recorder.of("step")[-1][-1] == "line is dead"
    assert all(tool.closed for tool in bench.tools)


@pytest.mark.parametrize("method", ["start", "interaction", "step", "finish"])
async def test_full_disk_ends_the_session_with_an_error(method: str) -> None:
    recorder = ListRecorder(**{method: RecordingError("disk full")})
    bench = Bench(reply("finished", call("task_done")), recorder=recorder)
    outcome = await bench.run()
    assert (outcome.success, outcome.stop, outcome.error) == (False, "error", "disk full")
    assert bench.catalog.closed == 1


async def test_session_error_takes_precedence_over_a_finish_error() -> None:
    recorder = ListRecorder(finish=RecordingError("disk full"))
    outcome = await Bench(ConnectionFailedError("line is dead"), recorder=recorder).run()
    assert outcome.error == "line is dead"


@pytest.mark.parametrize("dispatch", [SequentialDispatch(), ParallelDispatch()])
async def test_cancellation_finishes_the_recording_and_closes_the_tools(dispatch: Dispatch) -> None:
    started = asyncio.Event()

    async def hang(arguments: Mapping[str, Any]) -> ToolOutput:
        started.set()
        await asyncio.sleep(3600)
        return ToolOutput(True)

    calls = [call("echo", id=name, text=name) for name in "ab"]
    bench = Bench(reply("", *calls, call("hang", id="c")), dispatch=dispatch)
    bench.catalog.tools["hang"] = ScriptedTool("hang", hang)
    session = asyncio.create_task(bench.run())
    await started.wait()
    session.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session
    assert bench.recorder.of("step")[-1][:2] == (1, "error")
    assert bench.recorder.of("step")[-1][-1] == "interrupted"
    done = [result.output for result in bench.recorder.of("step")[-1][4]]
    assert done == ["echo a", "echo b"], "results from before the interruption are recorded"
    assert bench.recorder.entries[-1] == ("finish", False, None)
    assert bench.catalog.closed == 1


async def test_unexpected_exception_is_raised_after_the_recording_is_finished() -> None:
    bench = Bench(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        await bench.run()
    assert bench.recorder.of("step")[-1][-1] == "a bug"
    assert bench.recorder.entries[-1] == ("finish", False, None)


async def test_malformed_and_unknown_calls_do_not_end_the_session() -> None:
    bench = Bench(
        reply("", call("echo", id="a", malformed="{oops"), call("nope", id="b")),
        reply("", call("task_done")),
    )
    assert (await bench.run()).success
    results = [message.result for message in bench.model.asked[1] if message.result]
    assert [result.ok for result in results] == [False, False]
    assert "{oops" in results[0].text
    assert "Known tools: echo, task_done" in results[1].text


# ------------------------------------------------------------ cut, refused and empty replies


def ended(ending: Ending, *calls: ToolCall, text: str = "") -> Reply:
    return Reply(Message("assistant", text, calls), Usage(10, 1), "why", ending=ending)


def answers_to(bench: Bench, request: int) -> list[str]:
    """What request number `request` tells the model about the reply before it."""
    history = bench.model.asked[request]
    last = max(place for place, message in enumerate(history) if message.role == "assistant")
    return [m.result.text if m.result else m.text for m in history[last + 1 :]]


async def test_refusal_ends_the_session_with_its_reason() -> None:
    refusal = Reply(Message("assistant", "I"), finish_reason="SAFETY", ending="refused")
    outcome = await Bench(refusal).run()
    assert (outcome.stop, outcome.steps) == ("error", 1)
    assert outcome.error == "openai refused to answer (SAFETY)"
    said = Reply(Message("assistant", "No."), ending="refused", explanation="Not that.")
    bench = Bench(said)
    assert (await bench.run()).error == "openai refused to answer (refusal): Not that."
    assert bench.recorder.of("step")[-1][1] == "error"
    assert bench.recorder.of("interaction")[0][1] is said


@pytest.mark.parametrize("ending", ["limit", "window"])
async def test_text_that_was_cut_is_continued(ending: Ending) -> None:
    bench = Bench(ended(ending, text="I wi"), reply("", call("task_done")))
    assert (await bench.run()).success
    (told,) = answers_to(bench, 1)
    assert "max_tokens" in told


@pytest.mark.parametrize("cut", [call("echo", id="b"), call("echo", id="b", malformed='{"te')])
@pytest.mark.parametrize("dispatch", [SequentialDispatch(), ParallelDispatch()])
async def test_call_that_was_cut_is_not_run(cut: ToolCall, dispatch: Dispatch) -> None:
    bench = Bench(
        ended("limit", call("echo", id="a", text="1"), cut),
        reply("", call("task_done")),
        dispatch=dispatch,
    )
    assert (await bench.run()).success
    first, second = answers_to(bench, 1)
    assert first == "echo 1"
    assert "max_tokens" in second and "Nothing was run" in second
    assert len(bench.recorder.of("step")[0][4]) == 2


async def test_complete_task_done_counts_in_a_reply_that_was_cut() -> None:
    assert (await Bench(ended("limit", call("task_done"))).run()).success


async def test_model_reads_what_the_provider_could_not() -> None:
    broken = Reply(Message("assistant"), ending="unreadable", explanation="print(bash.run")
    bench = Bench(broken, ended("unreadable"), reply("", call("task_done")))
    assert (await bench.run()).success
    assert "print(bash.run" in answers_to(bench, 1)[0]
    assert "could not read your call. Send" in answers_to(bench, 2)[0]


@pytest.mark.parametrize(
    ("fruitless", "reason"),
    [
        (ended("limit", text="I wi"), "cut at the limit of tokens (why); raise max_tokens"),
        (ended("limit", call("echo")), "cut at the limit of tokens (why); raise max_tokens"),
        (ended("window"), "cut at the limit of tokens (why); raise max_tokens"),
        (ended("unreadable"), "calls that openai could not read"),
        (ended("complete"), "empty (why)"),
        (ended("complete", text=" \n"), "empty (why)"),
    ],
)
async def test_third_fruitless_reply_in_a_row_ends_the_session(
    fruitless: Reply, reason: str
) -> None:
    bench = Bench(*[fruitless] * 5, max_steps=5)
    outcome = await bench.run()
    assert (outcome.stop, outcome.steps) == ("error", 3)
    assert reason in str(outcome.error)
    work = reply("", call("echo", text="x"))
    bench = Bench(fruitless, fruitless, work, fruitless, fruitless, max_steps=5)
    assert (await bench.run()).stop == "max_steps"


# ------------------------------------------------------------------------- long sessions


def working(*texts: str) -> list[Reply]:
    return [reply("", call("echo", id=f"c{n}", text=text)) for n, text in enumerate(texts)]


def outputs(history: list[Message]) -> list[str]:
    return [message.result.output for message in history if message.result]


async def test_refused_length_is_a_chance_to_shorten() -> None:
    too_long = ContextLimitError("prompt is too long", status=400)
    long = "x" * 3000
    bench = Bench(*working(long, long, "new"), too_long, reply("", call("task_done")))
    outcome = await bench.run()
    assert (outcome.success, outcome.steps) == (True, 4)
    *_, refused, shortened = bench.model.asked
    assert shortened[:3] == refused[:3], "what stands before is unchanged"
    assert outputs(shortened) == [DROPPED, DROPPED, "echo new"]
    recorded = [result.output for step in bench.recorder.of("step") for result in step[4]]
    assert recorded == [f"echo {long}", f"echo {long}", "echo new"]


async def test_output_that_is_too_long_alone_is_clipped() -> None:
    too_long = ContextLimitError("prompt is too long", status=400)
    bench = Bench(*working("a" + "x" * 9000 + "z"), too_long, reply("", call("task_done")))
    assert (await bench.run()).success
    (clipped,) = outputs(bench.model.asked[-1])
    assert len(clipped) < 2200
    assert clipped.startswith("echo axxx") and clipped.endswith("xxxz") and "dropped" in clipped


async def test_length_that_nothing_mends_is_the_error() -> None:
    too_long = ContextLimitError("prompt is too long", status=400)
    bench = Bench(*working("short"), *[too_long] * 9)
    outcome = await bench.run()
    assert (outcome.stop, outcome.error) == ("error", "prompt is too long")
    assert len(bench.model.asked) == 2


async def test_known_window_is_not_exceeded() -> None:
    async def long(arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(True, "x" * 3000)

    turns = [reply("", call("long", id=f"c{n}")) for n in range(12)]
    bench = Bench(*turns, reply("", call("task_done")), max_steps=20, context_window=4000)
    bench.catalog.tools["long"] = ScriptedTool("long", long)
    assert (await bench.run()).success
    sizes = [sum(map(len, outputs(asked))) for asked in bench.model.asked]
    assert max(sizes) < 4000 * 3
    shortenings = [after for before, after in pairwise(sizes) if after < before]
    assert len(shortenings) == 3, "about half is dropped at once"


async def test_refused_length_is_remembered() -> None:
    too_long = ContextLimitError("prompt is too long", status=400)
    texts = ["x" * 3000] * 8
    turns: list[Reply | BaseException] = [
        *working(*texts[:4]),
        too_long,
        *working(*texts),
        reply("", call("task_done")),
    ]
    bench = Bench(*turns, max_steps=20)
    assert (await bench.run()).success
    sizes = [sum(map(len, outputs(asked))) for asked in bench.model.asked]
    assert max(sizes[5:]) < sizes[4]
