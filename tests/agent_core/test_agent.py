"""The agent loop: requests, tool calls, recording, and how a session ends."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_core.agent import Agent
from agent_core.build import open_agent
from agent_core.config import ProviderSettings, Settings
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.errors import ConnectionFailedError, RecordingError
from agent_core.messages import Message, Outcome, Reply, ToolOutput, Usage
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
