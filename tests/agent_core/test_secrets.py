"""Plants keys and searches for them in everything that a session writes."""

import asyncio
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_core.build import run_task
from agent_core.cli import main
from agent_core.config import effective_settings
from agent_core.config_cache import ConfigurationCache
from agent_core.config_sources import PlainConfig
from agent_core.dynamic_imports import check_provider_availability
from agent_core.errors import ConfigError
from agent_core.toggles import Toggles
from tests.agent_core.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.anyio

IN_FILE = "sk-planted-in-the-file-0123456789"
IN_ENVIRONMENT = "sk-planted-in-the-environment-0123456789"
IN_URL = "planted-password-0123456789"
PLANTED = (IN_FILE, IN_ENVIRONMENT, IN_URL)

SIDES = [Toggles(), Toggles.none().with_(native_client=True)]
if check_provider_availability("openai"):
    SIDES.append(Toggles.none())


def turn(text: str, *functions: tuple[str, str]) -> Answer:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(functions)
    ]
    message = {"role": "assistant", "content": text, "tool_calls": calls}
    return Answer(json.dumps({"choices": [{"message": message, "finish_reason": "x"}]}).encode())


def script() -> list[Answer]:
    """A model that repeats the keys in tool calls, errors and its text."""
    show = json.dumps(
        {"command": "echo $OTHER_API_KEY; cat config.json; echo $OTHER_API_KEY >&2; false"}
    )
    view = json.dumps({"command": "view", "path": "config.json"})
    broken = '{"command": "' + IN_FILE
    return [
        turn(
            f"I will use {IN_FILE}.",
            ("bash", show),
            ("str_replace_based_edit_tool", view),
            ("bash", broken),
            (f"tool_{IN_FILE}", "{}"),
            ("bash", json.dumps({"comand": IN_ENVIRONMENT})),
            ("json_edit_tool", json.dumps({"operation": "view", "file_path": f"/{IN_FILE}"})),
        ),
        Answer(json.dumps({"error": {"message": f"incorrect key: {IN_FILE}"}}).encode(), 401),
    ]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that may contain the keys: the tools find them in its config file."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.setenv("OTHER_API_KEY", IN_ENVIRONMENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def write_config(workspace: Path, url: str) -> Path:
    path = workspace / "config.json"
    address = url.replace("http://", f"http://user:{IN_URL}@")
    entry = {"api_key": IN_FILE, "model": "m", "base_url": url, "max_retries": 0}
    unused = {"api_key": IN_ENVIRONMENT, "base_url": address}
    providers = {"openai": entry, "anthropic": unused}
    path.write_text(json.dumps({"model_providers": providers}))
    return path


def leaks(folder: Path, workspace: Path) -> list[str]:
    """The files under `folder`, except the workspace, that contain a planted secret."""
    return [
        f"{path}: {secret}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_relative_to(workspace)
        for secret in PLANTED
        if secret.encode() in path.read_bytes()
    ]


def written(folder: Path, pattern: str) -> list[Path]:
    return list(folder.rglob(pattern))


@pytest.mark.parametrize("toggles", SIDES, ids=lambda toggles: f"{len(toggles.enabled())} on")
async def test_no_key_in_trajectory_cache_log_error_or_outcome(
    toggles: Toggles, workspace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted_server(*script()) as server:
        outcome = await run_task(
            "show the keys",
            config=write_config(workspace, f"{server.url}/v1"),
            environ={"TRAE_CACHE_DIR": str(tmp_path / "cache")},
            workspace=workspace,
            trajectory=tmp_path / "session.json",
            toggles=toggles,
        )
    assert outcome.stop == "error"
    assert len(server.seen) == 2
    assert IN_FILE in server.seen[0].headers["authorization"], "only the provider receives the key"

    recorded = (tmp_path / "session.json").read_text()
    assert recorded.count("[REDACTED]") >= 6
    assert "incorrect key: [REDACTED]" in recorded
    assert bool(written(tmp_path, "cache/agent-core/config/*.json")) is toggles.config_cache
    assert not leaks(tmp_path, workspace)
    for text in (repr(outcome), caplog.text, *(str(record.args) for record in caplog.records)):
        assert not [secret for secret in PLANTED if secret in text]


@pytest.mark.parametrize("toggles", SIDES, ids=lambda toggles: f"{len(toggles.enabled())} on")
async def test_key_of_the_file_stays_a_secret_if_another_one_is_used(
    toggles: Toggles, workspace: Path, tmp_path: Path
) -> None:
    """The key, and the password in an address that the command line replaces."""
    config = workspace / "config.json"
    address = f"http://user:{IN_URL}@127.0.0.1:9/v1"
    entry = {"api_key": IN_FILE, "model": "m", "base_url": address, "max_retries": 0}
    config.write_text(json.dumps({"model_providers": {"openai": entry}}))
    environ = {"TRAE_CACHE_DIR": str(tmp_path / "cache"), "OPENAI_API_KEY": IN_ENVIRONMENT}
    async with scripted_server(*script()) as server:
        await run_task(
            "show the keys",
            settings=effective_settings(PlainConfig().load(config), environ),
            workspace=workspace,
            base_url=f"{server.url}/v1",
            trajectory=tmp_path / "session.json",
            toggles=toggles,
        )
    assert IN_ENVIRONMENT in server.seen[0].headers["authorization"]
    assert "[REDACTED]" in (tmp_path / "session.json").read_text()
    assert not leaks(tmp_path, workspace)


def test_overridden_secrets_are_not_shown(workspace: Path, monkeypatch: Any) -> None:
    config = write_config(workspace, "http://h")
    monkeypatch.setenv("OPENAI_API_KEY", IN_ENVIRONMENT)
    settings = effective_settings(PlainConfig().load(config), os.environ)
    assert IN_FILE in settings.model_providers["openai"].secrets
    shown = CliRunner().invoke(main, ["show-config", "--config", str(config)]).output
    for text in (repr(settings), shown):
        assert not [secret for secret in PLANTED if secret in text]
        assert "replaced" not in text


async def test_journal_of_a_running_session_has_no_key(workspace: Path, tmp_path: Path) -> None:
    leaked: list[str] = []
    journals: list[Path] = []

    class Looking:
        """A listener that searches after each step, while the journal is there."""

        def start(self, *arguments: Any) -> None: ...

        def interaction(self, *arguments: Any) -> None: ...

        def step(self, *arguments: Any) -> None:
            leaked.extend(leaks(tmp_path, workspace))
            journals.extend(written(tmp_path, "*.jsonl"))

        async def finish(self, *arguments: Any) -> None: ...

    async with scripted_server(*script()) as server:
        await run_task(
            "show the keys",
            config=write_config(workspace, f"{server.url}/v1"),
            environ={"TRAE_TRAJECTORY_BATCH_SIZE": "1", "TRAE_BACKGROUND_IO": "false"},
            workspace=workspace,
            trajectory=tmp_path / "session.json",
            listener=Looking(),
        )
    assert journals
    assert not leaked


async def test_no_key_on_the_console(workspace: Path, tmp_path: Path) -> None:
    final = turn(f"The keys are {IN_FILE} and {IN_ENVIRONMENT}.", ("task_done", "{}"))
    async with scripted_server(script()[0], final, *script()) as server:
        config = write_config(workspace, f"{server.url}/v1")
        outputs = []
        for arguments in (
            ["run", "x", "--config", str(config), "-w", str(workspace)],
            ["run", "x", "--config", str(config), "-w", str(workspace), "--json"],
            ["show-config", "--config", str(config)],
            ["doctor", "--config", str(config)],
            ["doctor", "--config", str(config), "--json"],
            [
                "show-config",
                "--config",
                str(config),
                "--base-url",
                f"http://u:{IN_URL}@h/{IN_URL}?",
            ],
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-X", "dev", "-m", "agent_core", *arguments[:2], *arguments[2:]),
                cwd=tmp_path,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "TRAE_CACHE_DIR": str(tmp_path / "cache"),
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await process.communicate()
            outputs.append(out.decode())
    assert "The keys are [REDACTED] and [REDACTED]." in outputs[0]
    assert '"stop":"error"' in outputs[1]
    assert '"api_key": "****"' in outputs[2]
    for text in outputs[:-1]:
        assert not [secret for secret in PLANTED if secret in text]
    assert f"u:{IN_URL}@" not in outputs[-1]
    assert not leaks(tmp_path, workspace)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"model_providers": {"openai": {"api_key": "%s", "max_tokens": "%s"}}}'),
        ("a.json", '{"model_providers": {"openai": "%s", "%s"'),
        ("a.json", '{"model_providers": ["%s", "%s"]}'),
        ("a.yaml", "model_providers: {openai: {api_key: %s, model: [%s}}"),
        ("a.yaml", "model_providers: {openai: {api_key: %s, stream: %s}}"),
        ("a.yaml", "model_providers:\n  openai:\n   api_key: '%s'\n  - %s"),
    ],
)
def test_no_key_in_a_configuration_error(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text % (IN_FILE, IN_FILE))
    with pytest.raises(ConfigError) as caught:
        ConfigurationCache(directory=tmp_path / "cache").load(path)
    shown = "".join(traceback.format_exception(caught.value, chain=True))
    assert IN_FILE not in shown
    assert not leaks(tmp_path, path)
