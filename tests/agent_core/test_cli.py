"""The command line in real processes: output, signals, exit codes."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from agent_core.cli import main
from agent_core.toggles import Toggles
from tests.agent_core.scripted_server import Answer, scripted_server
from tests.signals import needs

pytestmark = pytest.mark.anyio

STEPS = [
    {"name": "bash", "arguments": '{"command": "echo hello | tee made.txt"}'},
    {"name": "task_done", "arguments": "{}"},
]


def answer(function: dict[str, str], text: str = "", cached: int = 0) -> Answer:
    calls = [{"id": "c", "type": "function", "function": function}]
    message = {"role": "assistant", "content": text, "tool_calls": calls}
    details = {"cached_tokens": cached, "cache_write_tokens": 1}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": details}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage}
    return Answer(json.dumps(body).encode())


SESSION = [answer(STEPS[0]), answer(STEPS[1], "It is done.", cached=5)]


def clean(home: Path, **extra: str) -> dict[str, str]:
    """An environment without settings of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    root = str(Path(__file__).parents[2])
    return {**kept, "HOME": str(home), "PYTHONPATH": root, "OPENAI_API_KEY": "sk-planted", **extra}


@asynccontextmanager
async def started(
    home: Path, *arguments: str, **extra: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent_core", *arguments),
        cwd=home,
        env=clean(home, **extra),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def finished(home: Path, *arguments: str, **extra: str) -> tuple[int | None, str, str]:
    async with started(home, *arguments, **extra) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


def invoke(*arguments: str, **environ: str) -> Result:
    """Runs a command in this process."""
    names = [name for name in os.environ if name.startswith("TRAE_") or name.endswith("_API_KEY")]
    return CliRunner().invoke(main, arguments, env={**dict.fromkeys(names), **environ})


# -------------------------------------------------------------------------------- import


async def test_help_imports_no_slow_module(home: Path) -> None:
    program = (
        "import sys; from click.testing import CliRunner; before = set(sys.modules);"
        "from agent_core.cli import main; out = CliRunner().invoke(main, ['--help']).output;"
        "heavy = {'httpx', 'httpcore', 'msgspec', 'psutil', 'asyncio', 'ssl', 'yaml', 'rich',"
        " 'mcp', 'dotenv'};"
        "print('Examples:' in out, (set(sys.modules) - before) & heavy)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=clean(home), stdout=PIPE
    )
    out, _ = await process.communicate()
    assert out == b"True set()\n"


@pytest.mark.parametrize(
    "command", ["run", "interactive", "show-config", "tools", "doctor", "recover"]
)
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert command in result.output
    assert invoke(command, "-h").output == result.output


# ----------------------------------------------------------------------------------- run


async def test_session_from_the_command_line(home: Path) -> None:
    async with scripted_server(*SESSION) as server:
        code, out, err = await finished(
            home, "run", "greet", "--model", "m", "--base-url", f"{server.url}/v1"
        )
    assert (code, out) == (0, "It is done.\n")
    assert (home / "made.txt").read_text() == "hello\n"
    first, call, totals, *_ = err.splitlines()
    assert first == "openai m, at most 20 steps"
    assert re.fullmatch(r"\$ echo hello \| tee made\.txt  ok \d+\.\d s", call)
    assert re.fullmatch(r"2 steps, 14 tokens in \(5 cached\), 6 out, \d+\.\d s", totals)
    assert "\x1b" not in err, "no colour without a terminal"
    (trajectory,) = (home / ".local/state/agent-core/trajectories").iterdir()
    assert f"Trajectory: {trajectory}\n" in err
    assert json.loads(trajectory.read_text())["task"] == "greet"
    assert server.seen[0].headers["authorization"] == "Bearer sk-planted"


async def test_session_without_standard_error(home: Path) -> None:
    async with scripted_server(*SESSION) as server:
        command = f"exec {sys.executable} -m agent_core run x -m m --base-url {server.url}/v1 2>&-"
        process = await asyncio.create_subprocess_shell(
            command, cwd=home, env=clean(home), stdin=asyncio.subprocess.DEVNULL, stdout=PIPE
        )
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"It is done.\n")


async def test_session_continues_after_standard_error_is_closed(home: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    async with scripted_server(*SESSION) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "-t", "t.json"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent_core", *arguments),
            cwd=home,
            env=clean(home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=write,
        )
        os.close(write)
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"It is done.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", ["--help", "tools", "show-config"])
async def test_full_disk_behind_standard_output_prints_one_sentence(
    home: Path, arguments: str
) -> None:
    process = await asyncio.create_subprocess_shell(
        f"exec {sys.executable} -m agent_core {arguments} >/dev/full",
        cwd=home,
        env=clean(home),
        stderr=PIPE,
    )
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"Error: the output: No space left on device\n")


async def test_command_line_overrides_the_environment(home: Path) -> None:
    async with scripted_server(*SESSION) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1"]
        code, _, err = await finished(home, *arguments, OPENAI_BASE_URL="http://127.0.0.1:9")
    assert code == 0, err


async def test_json_is_an_event_per_line_and_the_only_output(home: Path) -> None:
    (home / "task.md").write_text("from a file")
    async with scripted_server(*SESSION) as server:
        url = f"{server.url}/v1"
        arguments = ["-f", "task.md", "-m", "m", "--base-url", url, "--json"]
        code, out, err = await finished(home, "run", *arguments, "--no-trajectory")
    events = [json.loads(line) for line in out.splitlines()]
    names = [event["event"] for event in events]
    step = ["reply", "call", "result", "step"]
    assert names == ["start", *step, "reply", "call", "step", "outcome"]
    assert events[2]["arguments"] == {"command": "echo hello | tee made.txt"}
    assert (events[3]["ok"], events[3]["output"]) == (True, "hello")
    outcome = events[-1]
    assert code == 0
    assert (outcome["success"], outcome["stop"], outcome["steps"]) == (True, "task_done", 2)
    assert outcome["usage"]["input_tokens"] == 14
    assert outcome["usage"]["cache_read_input_tokens"] == 5
    assert outcome["usage"]["cache_creation_input_tokens"] == 2
    assert err == ""
    assert not (home / ".local/state").exists()
    assert server.seen[0].json["messages"][1]["content"].endswith("\n\nfrom a file")


async def test_failed_session_has_exit_code_1(home: Path) -> None:
    async with scripted_server(
        Answer(b'{"error": {"message": "no such key sk-planted"}}', 401)
    ) as server:
        code, out, err = await finished(
            home, "run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "-t", "t.json"
        )
    assert (code, out) == (1, "")
    assert "Failed: openai answered 401" in err
    assert "sk-planted" not in err + (home / "t.json").read_text()


async def test_max_steps_failure_is_reported(home: Path) -> None:
    async with scripted_server(SESSION[0]) as server:
        url = f"{server.url}/v1"
        arguments = ["run", "x", "-m", "m", "--base-url", url, "--max-steps", "1"]
        code, _, err = await finished(home, *arguments)
    assert code == 1
    assert err.startswith("openai m, at most 1 step\n")
    assert "stopped by max_steps after 1 step\n" in err


async def test_config_file_in_the_current_folder_is_used(home: Path) -> None:
    async with scripted_server(*SESSION) as server:
        entry = {"model": "from-file", "base_url": f"{server.url}/v1"}
        config = {"model_providers": {"openai": entry}, "max_steps": 2}
        (home / "trae_config.json").write_text(json.dumps(config))
        code, _, err = await finished(home, "run", "x")
    assert code == 0, err
    assert server.seen[0].json["model"] == "from-file"
    assert "at most 2 steps" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Give either a TASK or --file."),
        (["run", "x"], "No model is set for openai"),
        (["run", "x", "-m", "m", "-p", "opnai"], "Did you mean 'openai'?"),
        (["run", "x", "-m", "m", "-p", "anthropic"], "ANTHROPIC_API_KEY"),
        (["run", "x", "--toggle", "lazy_tool=off"], "Did you mean 'lazy_tools'?"),
        (["run", "x", "--toggle", "lazy_tools=maybe"], "NAME=on or NAME=off"),
        (["run", ""], "The task is empty. Describe it in TASK"),
        (["run", " \n", "-m", "m"], "The task is empty."),
        (["run", "x", "--config", "none.json"], "none.json: cannot be read"),
        (["run", "x", "--workspace", "/nowhere"], "/nowhere"),
        (["run", "x", "--max-steps", "0"], "max-steps"),
        (["run", "x", "--api-key", "sk-x"], "Other users can read command lines."),
        (["run", "x", "-k", "sk-x"], "Set a variable such as OPENAI_API_KEY"),
        (["run", "x", "--docker-image", "python:3.11"], "inside the container"),
        (["run", "x", "-w", ".", "--working-dir", "."], "Give either --workspace or"),
        (["interactive", "-t", "t", "--no-trajectory"], "Give either"),
        (["run", "x", "--trajectory", "t", "--no-trajectory"], "Give either"),
        (["show-config", "--config", "none.json"], "none.json"),
        (["recover", "none.jsonl"], "none.jsonl"),
        (["rnu"], "No such command"),
    ],
)
def test_wrong_usage_has_exit_code_2_and_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_unreadable_config_file_from_the_environment_is_reported() -> None:
    result = invoke("show-config", TRAE_CONFIG_FILE="zz.json")
    assert result.exit_code == 2
    assert "check --config or TRAE_CONFIG_FILE." in result.output


def test_empty_task_file_is_rejected(home: Path) -> None:
    (home / "task.md").write_text("\n \n")
    result = invoke("run", "-f", str(home / "task.md"), "-m", "m")
    assert result.exit_code == 2
    assert "The task is empty." in result.output


def test_task_file_that_is_not_utf_8_is_rejected(home: Path) -> None:
    (home / "task.md").write_bytes(b"gr\xfc\xdfe")
    config = home / "c.json"
    config.write_text("{}")
    result = invoke("run", "-f", str(home / "task.md"), "-m", "m", "--config", str(config))
    assert result.exit_code == 2
    assert "task.md' is not UTF-8" in result.output


# ------------------------------------------------------------------------------- signals


def living(marker: str) -> list[psutil.Process]:
    """The processes whose command line contains `marker`."""
    matching = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if marker in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            matching.append(process)
    return matching


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process sends no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("toggles", [[], [f"{name}=off" for name in Toggles.names()]])
async def test_signal_during_a_step_leaves_a_complete_trajectory_and_no_process(
    number: signal.Signals, toggles: list[str], home: Path
) -> None:
    needs(number)
    toggles = [toggle for toggle in toggles if not toggle.startswith("native_client")]
    marker = f"61.{os.getpid()}{int(number)}{len(toggles)}"
    step = answer({"name": "bash", "arguments": json.dumps({"command": f"sleep {marker}"})})
    async with scripted_server(step) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "-t", "t.json"]
        switches = [word for toggle in toggles for word in ("--toggle", toggle)]
        async with started(home, *arguments, *switches) as process:
            await until(lambda: living(marker))
            process.send_signal(number)
            _, err = await process.communicate()
    assert process.returncode == 130, err
    assert b"Interrupted." in err
    assert b"Traceback" not in err
    assert not living(marker)
    recorded = json.loads((home / "t.json").read_text())
    assert recorded["end_time"]
    assert (recorded["success"], len(recorded["llm_interactions"])) == (False, 1)
    assert recorded["agent_steps"][-1]["state"] == "error"


async def test_session_under_nohup_survives_sighup(home: Path) -> None:
    gate = f"gate.{os.getpid()}"
    os.mkfifo(home / gate)
    step = answer({"name": "bash", "arguments": json.dumps({"command": f"cat {gate}"})})
    async with scripted_server(step, SESSION[1]) as server:
        process = await asyncio.create_subprocess_exec(
            *("nohup", sys.executable, "-m", "agent_core", "run", "x", "-m", "m"),
            *("--base-url", f"{server.url}/v1", "-t", "t.json"),
            cwd=home,
            env=clean(home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        await until(lambda: living(gate))
        process.send_signal(signal.SIGHUP)
        (home / gate).write_text("go on")
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"It is done.\n"), err


async def test_interrupt_before_the_session_has_exit_code_130(home: Path) -> None:
    os.mkfifo(home / "task")  # a reader blocks until there is a writer

    def writer() -> int | None:
        try:
            return os.open(home / "task", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            return None

    writers: list[int] = []
    async with started(home, "run", "-f", "task", "-m", "m") as process:
        await until(lambda: writers.extend(filter(None, [writer()])) or writers)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    os.close(writers[0])
    assert (process.returncode, err) == (130, b"Interrupted.\n")


@pytest.mark.parametrize("background", ["true", "false"])
async def test_killed_session_is_recovered_from_its_journal(background: str, home: Path) -> None:
    """Every step that ended a second before the kill, although its batch is not full."""
    marker = f"62.{os.getpid()}{len(background)}"
    steps = [STEPS[0]] * 6 + [
        {"name": "bash", "arguments": json.dumps({"command": f"sleep {marker}"})}
    ]
    async with scripted_server(*map(answer, steps)) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "-t", "t.json"]
        async with started(home, *arguments, TRAE_BACKGROUND_IO=background) as process:
            await until(lambda: living(marker))
            await until(lambda: (home / "t.jsonl").read_bytes().count(b'"kind":"step"') == 6)
            process.kill()
            await process.wait()
    for orphan in living(marker):  # SIGKILL allows no cleanup
        orphan.kill()
    code, out, _ = await finished(home, "recover", "t.jsonl", "--output", "saved.json")
    assert (code, out) == (0, "saved.json\n")
    assert len(json.loads((home / "saved.json").read_text())["agent_steps"]) == 6


@pytest.mark.parametrize("batched", ["on", "off"])
async def test_full_disk_is_a_warning_and_the_session_goes_on(batched: str, home: Path) -> None:
    flood = answer({"name": "bash", "arguments": '{"command": "seq 2000"}'})
    async with scripted_server(*[flood] * 10, SESSION[1]) as server:
        arguments = ["run", "x", "-m", "m", "--base-url", f"{server.url}/v1", "-t", "t.json"]
        limited = 'ulimit -f 64; exec "$0" -m agent_core "$@"'  # 64 KiB a file
        process = await asyncio.create_subprocess_exec(
            *("/bin/bash", "-c", limited, sys.executable, *arguments),
            *("--toggle", f"batched_trajectory={batched}"),
            cwd=home,
            env=clean(home),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"It is done.\n"), err.decode()
    name = "t.jsonl" if batched == "on" else "t.json"
    warning = f"The trajectory {name} cannot be written: File too large."
    assert err.decode().count(warning) == 2, "the first failure, and the end"
    assert err.decode().count("The task goes on.") == 1
    if batched == "on":
        assert "agent-core recover t.jsonl" in err.decode()
        assert invoke("recover", str(home / "t.jsonl")).exit_code == 0
        saved = json.loads((home / "t.json").read_text())
        assert saved["agent_steps"]
        assert saved["end_time"] == ""


def test_trajectory_is_not_recovered_onto_itself(home: Path) -> None:
    (home / "t.json").write_text('{"task": "precious"}')
    result = invoke("recover", str(home / "t.json"))
    assert result.exit_code == 1
    assert (home / "t.json").read_text() == '{"task": "precious"}'


# ------------------------------------------------------------------------------ reports


def test_show_config_prints_json_without_keys(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    url = "https://user:sk-planted@host/v1?key=sk-planted"
    entry = {"api_key": "sk-planted", "model": "m", "base_url": url}
    config.write_text(json.dumps({"model_providers": {"openai": entry}}))
    result = invoke(
        *("show-config", "--config", str(config), "--toggle", "event_shell=off"),
        TRAE_CACHE_DIR=str(tmp_path / "cache"),
        TRAE_PARALLEL_TOOLS="false",
    )
    assert result.exit_code == 0
    assert "sk-planted" not in result.output
    shown = json.loads(result.output)
    assert shown["file"] == str(config)
    assert shown["settings"]["model_providers"]["openai"]["api_key"] == "****"
    assert shown["settings"]["model_providers"]["openai"]["base_url"] == "https://host/v1"
    off = [name for name, on in shown["toggles"].items() if not on]
    assert off == ["parallel_tools", "event_shell"]


@pytest.mark.parametrize("command", [["show-config"], ["run", "x", "--model", "m"]])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"tools": ["bash",\n"bsh"]}', ", line 2, tools: Unknown tool 'bsh'."),
        ('{\n"tools": ["bsh"]}', "Did you mean 'bash'?"),
        ('{\n"default_provider": "opnai"}', ", line 2, default_provider: Unknown provider 'opnai'"),
        (
            '{"model_providers": {"openai": {\n"provider": "antropic"}}}',
            ", line 2, model_providers.openai.provider: Unknown provider 'antropic'. Did you mean"
            " 'anthropic'?",
        ),
        (
            '{"agents": {"trae_agent": {"model": "m",\n"tools": ["bsh"]}}, "model_providers":'
            ' {"openai": {}}, "models": {"m": {"model_provider": "openai", "model": "x"}}}',
            ", line 2, agents.trae_agent.tools: Unknown tool 'bsh'.",
        ),
        (
            '{"agents": {"trae_agent": {"model": "m"}}, "model_providers": {\n"mine": {}},'
            ' "models": {"m": {"model_provider": "mine", "model": "x"}}}',
            ", line 2, model_providers.mine: Unknown provider 'mine'.",
        ),
    ],
)
def test_unknown_name_is_reported_with_its_location(
    command: list[str], text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "c.json"
    config.write_text(text)
    result = invoke(*command, "--config", str(config), OPENAI_API_KEY="k")
    assert result.exit_code == 2
    assert f"Error: {config}, line " in result.output
    assert message in result.output


def test_unknown_provider_from_the_command_line_has_no_file_location(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"default_provider": "mine", "model_providers": {"theirs": {}}}')
    result = invoke("show-config", "--config", str(config), "--provider", "opnai")
    assert result.output.startswith("Error: Unknown provider 'opnai'.")
    assert invoke("show-config", "--config", str(config), "-p", "openai").exit_code == 0


def test_entry_with_a_custom_name_uses_its_provider(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    entries = '{"mine": {"provider": "openai", "base_url": "http://h"}, "old": {"provider": "x"}}'
    config.write_text(
        f'{{"default_provider": "mine", "tools": ["edit_tool"], "model_providers": {entries}}}'
    )
    assert invoke("show-config", "--config", str(config)).exit_code == 0


def test_tools_lists_every_tool() -> None:
    lines = invoke("tools").output.splitlines()
    names = ["bash", "str_replace_based_edit_tool", "json_edit_tool", "sequentialthinking"]
    assert [line.split()[0] for line in lines] == [*names, "task_done", "ckg"]
    assert all(len(line.split()) > 3 for line in lines)


def test_doctor_has_the_contents_of_the_guides_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trae_config.json").write_text('{"default_provider": "ollama"}')
    cache = {"TRAE_CACHE_DIR": str(tmp_path / "cache")}
    first = invoke("doctor", "--toggle", "lazy_tools=off", **cache)
    assert first.exit_code == 0
    for part in ("Hit rate: 0.0%", "Connection reuse rate", "Provider: ollama", "Missing: "):
        assert part in first.output
    assert "lazy_tools           off" in first.output

    report = json.loads(invoke("doctor", "--json", GOOGLE_API_KEY="sk-planted", **cache).output)
    assert report["configuration_cache"]["hit_rate_percent"] == 100.0
    assert report["configuration_cache"]["disk_entries"] == 1
    assert report["keys"]["google"] is True
    assert report["keys"]["openai"] is False
    assert set(report["toggles"]) == set(Toggles.names())
    assert "sk-planted" not in json.dumps(report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"max_stepps": 3}', "Did you mean 'max_steps'"),
        ('{"tools": ["bash", "bsh"]}', "c.json, line 1, tools: Unknown tool 'bsh'"),
        ('{"model_providers": {"openai": {"protocol": "morse"}}}', "Unknown protocol 'morse'"),
        ('{"model_providers": {"openai": {"base_url": "ftp://h"}}}', "must begin with http://"),
        ('{"default_provider": "azure"}', "azure has no default address"),
        ('{"default_provider": "mine"}', "Unknown provider 'mine'"),
    ],
)
def test_doctor_reports_an_invalid_configuration(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text(text)
    result = invoke("doctor", "--config", str(config))
    assert result.exit_code == 2
    assert message in result.output
    assert "Connection pool" in result.output, "the rest of the report is printed"
