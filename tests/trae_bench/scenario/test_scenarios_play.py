"""bugfix and fan-out, played by a minimal agent with three tools and without `agent_core`.

This shows that other agents can play them. `test_catalog.py` runs all scenarios by the real
executor.
"""

import http.client
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from trae_bench.model.sample import SessionLog
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.scenario import Oracle, Scenario, find, load

Played = tuple[SessionLog, str]


def lay_out(scenario: Scenario, workspace: Path) -> None:
    for name, content in scenario.workspace.files.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def oracle_holds(oracle: Oracle, workspace: Path, final_text: str) -> bool:
    files = {name: workspace / name for name in oracle.files}
    run = subprocess.run(["sh", "-c", oracle.command], cwd=workspace, capture_output=True)
    return (
        run.returncode == 0
        and oracle.final_text in final_text
        and all(path.is_file() and path.read_text() == oracle.files[n] for n, path in files.items())
    )


def bash(arguments: dict[str, Any], workspace: Path) -> str:
    run = subprocess.run(
        ["bash", "-c", arguments["command"]], cwd=workspace, capture_output=True, text=True
    )
    return run.stdout + run.stderr


def edit(arguments: dict[str, Any], workspace: Path) -> str:
    path = Path(arguments["path"])
    assert path.is_relative_to(workspace)
    match arguments["command"]:
        case "view":
            lines = path.read_text().splitlines()
            first, last = arguments.get("view_range", (1, len(lines)))
            assert 1 <= first <= last <= len(lines), path.name
            return "\n".join(lines[first - 1 : last])
        case "create":
            assert not path.exists()
            path.write_text(arguments["file_text"])
        case "str_replace":
            text, old = path.read_text(), arguments["old_str"]
            assert text.count(old) == 1, f"{old!r} in {path.name}"
            path.write_text(text.replace(old, arguments["new_str"]))
        case "insert":
            lines = path.read_text().splitlines(keepends=True)
            lines.insert(arguments["insert_line"], arguments["new_str"])
            path.write_text("".join(lines))
    return "done"


def execute(call: dict[str, Any], workspace: Path) -> dict[str, Any]:
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    tools = {"bash": bash, "str_replace_based_edit_tool": edit}
    content = tools[name](arguments, workspace) if name in tools else str(arguments)
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def play(scenario: Scenario, workspace: Path, provider: Loopback) -> Played:
    """Play a session. Calls of one reply run in parallel if each names its own shell session."""
    base_url = urlsplit(provider.register(workspace.name, expand(scenario, workspace)))
    client = http.client.HTTPConnection(str(base_url.hostname), base_url.port, timeout=20)
    history: list[dict[str, Any]] = [{"role": "user", "content": scenario.task}]
    with ThreadPoolExecutor(8) as pool:
        while True:
            client.request("POST", f"{base_url.path}/chat/completions", json.dumps(history))
            response = client.getresponse()
            body = json.loads(response.read())
            assert response.status == 200, body
            message = body["choices"][0]["message"]
            calls = message.get("tool_calls", [])
            history.append(message)
            if any(call["function"]["name"] == "task_done" for call in calls):
                break
            run_all = pool.map if '\\"session\\"' in json.dumps(calls) else map
            history += run_all(execute, calls, [workspace] * len(calls))
    client.close()
    return provider.collect(workspace.name), str(message["content"])


class Twice(NamedTuple):
    """A scenario played in two workspaces."""

    scenario: Scenario
    workspaces: tuple[Path, Path]
    played: tuple[Played, Played]


@pytest.fixture(scope="module", params=["bugfix", "fan-out"])
def twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    scenario = load(find(request.param))
    workspaces = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"))
    for workspace in workspaces:
        lay_out(scenario, workspace)
        assert not oracle_holds(scenario.oracle, workspace, scenario.oracle.final_text)
    with Loopback() as provider:
        one, two = (play(scenario, workspace, provider) for workspace in workspaces)
    return Twice(scenario, workspaces, (one, two))


def test_the_oracle_holds_after_the_session_only(twice: Twice) -> None:
    for workspace, (log, final_text) in zip(twice.workspaces, twice.played, strict=True):
        assert oracle_holds(twice.scenario.oracle, workspace, final_text)
        assert not oracle_holds(twice.scenario.oracle, workspace, "something else")
        assert len(log.requests) == len(twice.scenario.turns)
        assert (log.unexpected, log.connections) == (0, 1)


def test_two_sessions_have_equal_transcripts(twice: Twice) -> None:
    """After normalisation, the transcripts must not vary between runs."""
    transcripts = set()
    for workspace, (log, _) in zip(twice.workspaces, twice.played, strict=True):
        text = log.last_body.decode().replace(str(workspace), "WORKSPACE")
        for rule in twice.scenario.normalise:
            text = re.sub(rule.pattern, rule.replace, text)
        transcripts.add(text)
    assert len(transcripts) == 1


@pytest.mark.parametrize("twice", ["bugfix"], indirect=True)
def test_bugfix_has_the_expected_test_results(twice: Twice) -> None:
    """Two failures, then only money passes, then the new test fails, then all pass."""
    log, _ = twice.played[0]
    results = [m["content"] for m in json.loads(log.last_body) if m["role"] == "tool"]
    runs = [text for text in results if re.search(r"Ran \d+ test", text)]
    assert [text.strip().splitlines()[-1] for text in runs] == [
        "FAILED (failures=2)",
        "OK",
        "FAILED (failures=1)",
        "OK",
    ]
    by_hand = next(text for text in results if "rent " in text)
    assert "travel        -12.50    0 %" in by_hand
