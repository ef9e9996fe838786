"""Agents that start by the command lines of their entries, with the real loopback provider."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.trae_bench.subject.test_agent_core_subject import FROM_OUTSIDE, SMALL, provider, run
from trae_bench.design.plan import agent_arm
from trae_bench.errors import CannotMeasure
from trae_bench.model.experiment import Arm, Mode, SessionEndpoint, Side, Trial
from trae_bench.provider.loopback import Loopback
from trae_bench.scenario import Load, Oracle, find, load
from trae_bench.scenario.actions import AgentInterface, ToolMapping
from trae_bench.subject.agents.entry import AgentEntry
from trae_bench.subject.command import AgentKey, CommandSubject, PreparedAgent, scenario_for

__all__ = ["provider"]

OTHER_AGENT = '''
"""An agent that does not use agent_core."""

import http.client, json, subprocess, sys
from urllib.parse import urlsplit

base_url, task = sys.argv[1:3]
where = urlsplit(base_url)
connection = http.client.HTTPConnection(where.netloc)
messages = [{"role": "user", "content": task}]
steps, finished = 0, False
while not finished:
    body = json.dumps({"model": "any", "messages": messages})
    connection.request("POST", where.path + "/chat/completions", body)
    reply = connection.getresponse()
    if reply.status != 200:
        sys.exit(f"the provider said {reply.status}")
    message = json.load(reply)["choices"][0]["message"]
    messages.append(message)
    steps += 1
    for call in message.get("tool_calls") or ():
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "task_done":
            finished = True
            continue
        done = subprocess.run(arguments["command"], shell=True, capture_output=True, text=True)
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": done.stdout})
if len(sys.argv) > 3:
    report = {"success": True, "final_text": message["content"] or "", "steps": steps}
    open(int(sys.argv[3]), "w").write(json.dumps(report))
'''


INTERFACE = AgentInterface(
    tools={
        "run": ToolMapping("bash", {"command": "{command}"}),
        "finish": ToolMapping("task_done"),
    }
)


def prepared(folder: Path, *argv: str, **fields: object) -> CommandSubject:
    """Return a subject of one agent, named `other`."""
    entry = AgentEntry(command=argv, **fields)  # type: ignore[arg-type]
    agent = PreparedAgent("other", entry, folder, interface=INTERFACE)
    return CommandSubject({AgentKey("other"): agent})


def other_agent(tmp_path: Path, *more: str, **fields: object) -> CommandSubject:
    (tmp_path / "other_agent.py").write_text(OTHER_AGENT)
    script = "{folder}/other_agent.py"
    return prepared(tmp_path, sys.executable, script, "{base_url}", "{task}", *more, **fields)


def trial(side: Side = "A", mode: Mode = "serial") -> Trial:
    return Trial("small", "a/b", mode, 1, side, "AB".index(side), agent_arm("other"), 0)


def test_an_agent_is_measured_from_outside(provider: Loopback, tmp_path: Path) -> None:
    duet = (trial("A", "duet"), trial("B", "duet"))
    one, other = run(provider, tmp_path, other_agent(tmp_path), *duet)
    for sample in (one, other):
        assert (sample.status, sample.correct) == ("ok", True), sample.problem
        assert sample.metrics.keys() >= FROM_OUTSIDE
        assert (sample.metrics["requests"], sample.metrics["connections"]) == (3, 1)
    assert (one.transcript, one.workspace) == (other.transcript, other.workspace)


def test_an_agent_can_write_a_report(provider: Loopback, tmp_path: Path) -> None:
    small = replace(SMALL, oracle=Oracle(final_text="all done"))
    (sample,) = run(provider, tmp_path, other_agent(tmp_path, "{report_fd}"), trial(), small=small)
    assert sample.correct, sample.problem


@pytest.mark.parametrize("printed", ["all done", "nothing"])
def test_the_answer_can_be_printed(provider: Loopback, tmp_path: Path, printed: str) -> None:
    small = replace(SMALL, oracle=Oracle(final_text="all done"))
    (tmp_path / "other_agent.py").write_text(f"{OTHER_AGENT}\nprint({printed!r})")
    subject = prepared(
        tmp_path,
        *(sys.executable, "{folder}/other_agent.py", "{base_url}", "{task}"),
        final_text="stdout",
    )
    (sample,) = run(provider, tmp_path, subject, trial(), small=small)
    assert sample.correct is (printed == "all done"), sample.problem


def test_an_answer_after_a_long_output_is_found(provider: Loopback, tmp_path: Path) -> None:
    small = replace(SMALL, oracle=Oracle(final_text="all done"))
    long = "print('step ' * 400_000)\nprint('all done')"
    (tmp_path / "other_agent.py").write_text(f"{OTHER_AGENT}\n{long}")
    argv = (sys.executable, "{folder}/other_agent.py", "{base_url}", "{task}")
    subject = prepared(tmp_path, *argv, final_text="stdout")
    (sample,) = run(provider, tmp_path, subject, trial(), small=small)
    assert sample.correct, sample.problem


def test_an_agent_that_fails_has_failed(provider: Loopback, tmp_path: Path) -> None:
    (tmp_path / "other_agent.py").write_text("raise SystemExit('no model')")
    argv = (sys.executable, "{folder}/other_agent.py", "{base_url}", "{task}")
    (sample,) = run(provider, tmp_path, prepared(tmp_path, *argv), trial())
    assert sample.status == "failed"
    assert "no model" in str(sample.problem)
    assert "the agent sent no request" in str(sample.problem)


def start(
    tmp_path: Path, *argv: str, **fields: object
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the arguments and the environment of one start, with files below `tmp_path`."""
    endpoint = SessionEndpoint("http://127.0.0.1:1/s/0001/v1", "/w")
    small = replace(SMALL, task="say {home}")
    subject = prepared(Path("/code"), *argv, **fields)
    command = subject.command(trial(), small, [endpoint], tmp_path, 3)
    assert command.cwd == "/w"
    return command.argv, command.env


def test_placeholders_are_replaced_once(tmp_path: Path) -> None:
    argv, env = start(
        tmp_path,
        *("agent", "--at={base_url}", '{"json": {}}', "{task}", "{workspace}{home}", "{nothing"),
        env={"URL": "{server_url}", "CODE": "{folder}"},
    )
    assert argv == (
        "agent",
        "--at=http://127.0.0.1:1/s/0001/v1",
        '{"json": {}}',
        "say {home}",
        f"/w{tmp_path}",
        "{nothing",
    )
    assert (env["URL"], env["CODE"]) == ("http://127.0.0.1:1/s/0001", "/code")


def test_programs_are_found_as_the_agent_finds_them(tmp_path: Path) -> None:
    """The PATH of trae-bench does not count, but an agent may be installed beside it."""
    own = tmp_path / "env" / "bin"
    own.mkdir(parents=True)
    (own / "tool").write_text("#!/bin/sh\n")
    (own / "tool").chmod(0o755)
    agent = PreparedAgent("other", AgentEntry(command="tool"), Path("/code"), tmp_path / "env")
    assert agent.program("tool") == str(own / "tool")
    assert agent.program("bin/tool") == "/code/bin/tool"
    assert agent.program("no-such-tool") == "no-such-tool"
    beside = Path(sys.executable).with_name("trae-bench")
    assert agent.program("trae-bench") == str(beside) or not beside.exists()


def test_files_and_stdin_are_written(tmp_path: Path) -> None:
    files = {".agent/config.json": '{"url": "{base_url}"}'}
    start(tmp_path, "agent", "{task_file}", files=files, stdin="do: {task}")
    assert (tmp_path / "task.txt").read_text() == "say {home}"
    assert (tmp_path / "stdin.txt").read_text() == "do: say {home}"
    config = (tmp_path / ".agent" / "config.json").read_text()
    assert config == '{"url": "http://127.0.0.1:1/s/0001/v1"}'


def test_only_named_variables_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setenv("MY_LANGUAGE", "fr")
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([own, "/usr/bin"]))
    _, env = start(tmp_path, "agent", pass_env=("MY_LANGUAGE", "ABSENT"))
    assert "secret" not in env.values()
    assert env["MY_LANGUAGE"] == "fr"
    assert "ABSENT" not in env
    # The agent finds its own interpreter, not that of trae-bench.
    assert env["PATH"] == "/usr/bin"
    assert env["HTTPS_PROXY"] == "http://127.0.0.1:9"


def test_without_a_virtual_environment_the_path_is_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder of trae-bench may then be /usr/bin."""
    own = str(Path(sys.executable).parent)
    monkeypatch.setattr(sys, "prefix", "/env")
    monkeypatch.setenv("PATH", os.pathsep.join([f"{own}/", "/somewhere"]))
    agent = PreparedAgent("other", AgentEntry(command="tool"), Path("/code"))
    assert agent.path == "/somewhere"
    monkeypatch.setattr(sys, "base_prefix", "/env")
    assert agent.path == os.pathsep.join([f"{own}/", "/somewhere"])


def test_a_recorded_session_needs_its_tools(tmp_path: Path) -> None:
    recorded = replace(SMALL, agent="first", turns=SMALL.turns[:1])
    agent = PreparedAgent("other", AgentEntry(command="x"), tmp_path, interface=INTERFACE)
    assert scenario_for(recorded, agent).turns == recorded.turns
    without = replace(agent, interface=replace(INTERFACE, offered=("shell",)))
    with pytest.raises(CannotMeasure, match="calls bash, which the agent other does not offer"):
        scenario_for(recorded, without)
    own = replace(agent, interface=replace(INTERFACE, offered=("bash",)))
    assert scenario_for(recorded, own).agent == "other"


def test_unplayable_scenarios_and_unknown_agents_are_errors(tmp_path: Path) -> None:
    subject = prepared(tmp_path, "agent")
    crowd = replace(SMALL, load=Load(sessions=5, concurrency=3))
    for unplayable in (crowd, load(find("install-size")), load(find("cli-help"))):
        with pytest.raises(CannotMeasure, match=f"{unplayable.name} cannot run with the agent"):
            subject.adapted(trial(), unplayable)
    subject = prepared(tmp_path, "agent", sessions=("agent", "{sessions_file}"))
    assert subject.adapted(trial(), crowd).load == crowd.load
    steady = replace(crowd, name="steady", load=Load(5, 3, "steady", 2.0))
    with pytest.raises(CannotMeasure, match="starts its sessions at a fixed rate"):
        subject.adapted(trial(), steady)
    with pytest.raises(CannotMeasure, match="'nobody' is not prepared"):
        subject.adapted(replace(trial(), arm=agent_arm("nobody")), SMALL)
    with pytest.raises(CannotMeasure, match="names no agent"):
        subject.adapted(replace(trial(), arm=Arm("none", {})), SMALL)
