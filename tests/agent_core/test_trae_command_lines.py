"""The command lines of Trae Agent's README, with the name of our program."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent_core.scripted_server import scripted_server
from tests.agent_core.test_cli import SESSION, clean, finished

pytestmark = pytest.mark.anyio

README = """\
trae-cli run "Create a hello world Python script"
trae-cli run "Fix the bug in main.py" --provider openai --model gpt-4o
trae-cli run "Add unit tests" --provider anthropic --model claude-sonnet-4-20250514
trae-cli run "Optimize this algorithm" --provider google --model gemini-2.5-flash
trae-cli run "Review this code" --provider openrouter --model "anthropic/claude-3-5-sonnet"
trae-cli run "Generate documentation" --provider openrouter --model "openai/gpt-4o"
trae-cli run "Refactor the database module" --provider doubao --model doubao-seed-1.6
trae-cli run "Comment this code" --provider ollama --model qwen3
trae-cli run "Add tests for utils module" --working-dir path/to/project
trae-cli run "Debug authentication" --trajectory-file debug_session.json
trae-cli run "Update API endpoints" --must-patch
trae-cli run "Debug the authentication module"
trae-cli run "Optimize database queries" --trajectory-file optimization_debug.json
trae-cli run "x" --model-base-url URL --config-file trae_config.yaml -w . -pp out.patch -mp
trae-cli run -f task.md -ct simple -at trae_agent -t t.json -p openai -m gpt-4o
"""
"""Those with `run` and without Docker, and the short names of the other options."""

CONFIG = """\
agents: {{trae_agent: {{model: main, max_steps: 3}}}}
model_providers:
  openai: {{provider: openai, api_key: k, base_url: "{url}"}}
{others}
models: {{main: {{model_provider: openai, model: gpt-4o}}}}
"""
OTHERS = ("anthropic", "google", "openrouter", "doubao", "ollama")


@pytest.fixture
def repository(home: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(home)], check=True)
    return home


@pytest.mark.parametrize("line", README.splitlines())
async def test_command_line_runs_a_session(line: str, repository: Path) -> None:
    home = repository
    (home / "task.md").write_text("Do it.")
    async with scripted_server(*SESSION) as server:
        url = f"{server.url}/v1"
        # Every provider is at one server, which speaks one protocol.
        entry = "api_key: k, base_url: '{}', provider: openai"
        others = "\n".join(f"  {name}: {{{entry.format(url)}}}" for name in OTHERS)
        (home / "trae_config.yaml").write_text(CONFIG.format(url=url, others=others))
        arguments = shlex.split(line.replace("URL", url))[1:]
        code, out, err = await finished(home, *arguments)
    assert (code, out) == (0, "It is done.\n"), err
    made = home / "path/to/project/made.txt" if "--working-dir" in line else home / "made.txt"
    assert made.read_text() == "hello\n"
    if "--trajectory-file" in line:
        assert json.loads((home / arguments[-1]).read_text())["success"] is True
    if "-pp" in line:
        assert "+hello" in (home / "out.patch").read_text()


async def test_other_commands_of_the_readme(home: Path) -> None:
    (home / "my_config.json").write_text('{"default_provider": "ollama"}')
    code, out, _ = await finished(home, "show-config", "--config-file", "my_config.json")
    assert code == 0
    assert json.loads(out)["settings"]["default_provider"] == "ollama"


async def test_key_of_an_env_file_is_used_and_redacted(home: Path) -> None:
    (home / ".env").write_text("MINE_API_KEY=sk-planted-in-env-file\n")
    async with scripted_server(*SESSION) as server:
        entry = {"provider": "openai", "model": "m", "base_url": f"{server.url}/v1"}
        config = {"default_provider": "mine", "model_providers": {"mine": entry}}
        (home / "trae_config.json").write_text(json.dumps(config))
        code, out, err = await finished(
            home, "run", "say sk-planted-in-env-file", "-t", "t.json", "--json"
        )
    assert code == 0, err
    assert server.seen[0].headers["authorization"] == "Bearer sk-planted-in-env-file"
    assert "sk-planted" not in out + err + (home / "t.json").read_text()


def interactive(home: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_core", "interactive", *arguments],
        input=text,
        cwd=home,
        env=clean(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_interactive_session(home: Path) -> None:
    async with scripted_server(*SESSION, *SESSION) as server:
        arguments = ["--provider", "openai", "--model", "gpt-4o", "--max-steps", "30"]
        arguments += ["--model-base-url", f"{server.url}/v1", "-t", "t.json"]
        text = "help\nstatus\n\nfirst task\nsecond task\nexit\nnot reached\n"
        done = await asyncio.to_thread(interactive, home, text, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("It is done.\n") == 2
    assert "Model: gpt-4o\n" in done.stderr
    assert f"Folder: {home}\n" in done.stderr
    assert "exit, quit" in done.stderr
    tasks = [json.loads((home / name).read_text())["task"] for name in ("t.json", "t-2.json")]
    assert tasks == ["first task", "second task"]


def test_interactive_session_survives_an_error_and_ends_with_its_input(home: Path) -> None:
    done = interactive(home, "a task\nstatus")
    assert done.returncode == 0
    assert "Error: No model is set for openai" in done.stderr
    assert "Config file: none" in done.stderr


def test_working_dir_that_cannot_be_made_is_reported(home: Path) -> None:
    (home / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "agent_core", "run", "x", "-m", "m", "--working-dir", "file/x"],
        cwd=home,
        env={**os.environ, **clean(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "file/x cannot be made: Not a directory." in done.stderr
