"""MCP servers over standard input and output and over HTTP, with the official package."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_core.build import open_agent, redactor_for, run_task
from agent_core.config import McpServer, ProviderSettings, Settings
from agent_core.errors import ConfigError, MissingDependencyError
from agent_core.messages import Outcome
from agent_core.toggles import Toggles
from tests.agent_core.fakes import ScriptedModel, call, reply
from tests.agent_core.test_cli import clean, finished

pytest.importorskip("mcp")
pytestmark = pytest.mark.anyio

TOKEN = "planted-token-0123456789"
SERVER = """
import os, sys
from mcp.server import MCPServer
from mcp.types import ImageContent

server = MCPServer("demo")

@server.tool()
def add(a: int, b: int = 1) -> str:
    "Adds two numbers."
    return f"{a + b} in {os.getcwd()}"

@server.tool(name="what/is this? " + "x" * 80)
def odd(value: list[int] | None = None) -> str:
    return f"odd {value}"

@server.tool()
def show(name: str) -> str:
    return os.environ.get(name, "unset")

@server.tool()
def fail() -> str:
    raise ValueError("it broke")

@server.tool()
def flood() -> str:
    return "y" * 100_000

@server.tool()
def picture(data: str) -> list[ImageContent]:
    return [ImageContent(type="image", data=data, mime_type="image/png")]

@server.tool()
def leave() -> str:
    os._exit(3)

print("starting", file=sys.stderr)
if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run("stdio")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def over_stdio(program: Path, **more: Any) -> McpServer:
    return McpServer(command=sys.executable, args=(str(program),), **more)


@asynccontextmanager
async def over_http(program: Path) -> AsyncIterator[McpServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), str(port), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield McpServer(
            http_url=f"http://127.0.0.1:{port}/mcp", headers={"Authorization": f"Bearer {TOKEN}"}
        )
    finally:
        process.kill()
        await process.wait()


async def played(
    server: McpServer, workspace: Path, *calls: Any, toggles: Toggles | None = None
) -> tuple[Outcome, list[dict[str, Any]], ScriptedModel]:
    """The outcome, the results of one reply with `calls`, and the model."""
    model = ScriptedModel(reply("", *calls), reply("done", call("task_done")))
    record = workspace.parent / "t.json"
    outcome = await run_task(
        "work",
        settings=Settings(
            model_providers={"openai": ProviderSettings(model="m", api_key="k")},
            mcp_servers={"demo": server},
        ),
        workspace=workspace,
        trajectory=record,
        scripted_model=model,
        toggles=toggles,
    )
    return outcome, json.loads(record.read_text())["agent_steps"][0]["tool_results"], model


@pytest.mark.parametrize("toggles", [Toggles(), Toggles.none().with_(native_client=True)])
async def test_tools_of_a_server_over_stdio(
    program: Path, workspace: Path, toggles: Toggles
) -> None:
    odd = "mcp__demo__what_is_this__" + "x" * 39
    outcome, results, _ = await played(
        over_stdio(program, env={"SOME_TOKEN": TOKEN}),
        workspace,
        call("mcp__demo__add", a=1),
        call("mcp__demo__add", a="one"),
        call(odd, value=[1]),
        call("mcp__demo__fail"),
        call("mcp__demo__show", name="SOME_TOKEN"),
        call("mcp__demo__flood"),
        call("bash", command="echo $((1 + 1))"),
        toggles=toggles,
    )
    assert outcome.success
    add, wrong, odd_result, fail, show, flood, bash = results
    assert add["result"] == f"2 in {workspace}"
    assert wrong["success"] is False
    assert "'a' must be an integer" in wrong["error"]
    assert odd_result["result"] == "odd [1]"
    assert fail["success"] is False
    assert "fail" in fail["error"]
    assert show["result"] == "[REDACTED]", "the server has its variable, the trajectory has not"
    assert "70000 more characters are not shown" in flood["result"]
    assert bash["result"] == "2"


async def test_tools_of_a_server_over_http(program: Path, workspace: Path) -> None:
    async with over_http(program) as server:
        outcome, results, _ = await played(server, workspace, call("mcp__demo__add", a=40, b=2))
    assert outcome.success
    assert results[0]["result"].startswith("42 in ")


async def test_server_inherits_no_key(
    program: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", TOKEN)
    server = over_stdio(program)
    _, results, _ = await played(server, workspace, call("mcp__demo__show", name="OPENAI_API_KEY"))
    assert results[0]["result"] == "unset"


@pytest.mark.parametrize("data", ["QUJDREVG", "a", "é"])
async def test_pictures_are_not_decoded(data: str, program: Path, workspace: Path) -> None:
    server = over_stdio(program, timeout=20)
    _, (result,), _ = await played(server, workspace, call("mcp__demo__picture", data=data))
    size = len(data) * 3 // 4
    assert result["result"] == f"[image image/png, about {size} bytes, not shown]"


@pytest.fixture
def with_long_schema(program: Path) -> Path:
    more = "from typing import Literal\nNAMES = tuple(str(n) for n in range(20_000))\n"
    text = program.read_text().replace("add(a: int", "add(a: Literal[NAMES]")
    program.write_text(more + text)
    return program


async def test_tool_with_a_long_schema_is_left_out(
    with_long_schema: Path, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, model = await played(over_stdio(with_long_schema, timeout=20), workspace)
    names = [spec.name for spec in model.tools[0]]
    assert "mcp__demo__show" in names
    assert "mcp__demo__add" not in names
    assert "The tool 'add' of the MCP server demo is left out" in caplog.text


async def test_server_that_ends_is_a_failed_result(program: Path, workspace: Path) -> None:
    outcome, results, _ = await played(
        over_stdio(program, timeout=20),
        workspace,
        call("mcp__demo__leave"),
        call("mcp__demo__add", a=1),
    )
    assert outcome.success
    assert [result["success"] for result in results] == [False, False]
    assert "mcp__demo__leave: " in results[0]["error"]


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (McpServer(command="/nowhere/program"), "No such file"),
        (McpServer(command=sys.executable, args=("-c", "import sys; sys.exit('no licence')")), ""),
        (McpServer(command=sys.executable, args=("-c", "import time; time.sleep(99)"), timeout=1),
         "no answer in time"),
        (McpServer(http_url="http://127.0.0.1:9/mcp", timeout=5), ""),
    ],
)  # fmt: skip
async def test_server_that_cannot_be_started_is_an_error(
    server: McpServer, message: str, workspace: Path
) -> None:
    with pytest.raises(ConfigError, match=r"The MCP server demo cannot be started: ") as caught:
        await played(server, workspace)
    assert message in str(caught.value)
    assert "Correct mcp_servers.demo, or remove it from allow_mcp_servers." in str(caught.value)
    if "licence" in "".join(server.args):
        assert "It wrote: no licence." in str(caught.value)


async def test_server_is_stopped_with_the_session(program: Path, workspace: Path) -> None:
    settings = Settings(mcp_servers={"demo": over_stdio(program)})

    def servers() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if str(program) in child.cmdline()]

    async with open_agent(settings, workspace=workspace, scripted_model=ScriptedModel()):
        assert len(servers()) == 1
    assert not servers()


async def test_missing_package_is_reported(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "agent_core.mcp_servers", raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        await played(McpServer(command="x"), workspace)
    assert caught.value.install_command == "pip install 'trae-bench[mcp]'"


def test_tokens_of_servers_are_secrets() -> None:
    server = McpServer(
        http_url="http://h",
        headers={"Authorization": f"Bearer {TOKEN}"},
        env={"X_TOKEN": "another-token-1", "MODE": "production"},
    )
    settings = Settings(mcp_servers={"s": server})
    text = redactor_for(settings, {}).text(f"{TOKEN} another-token-1 production")
    assert text == "[REDACTED] [REDACTED] production"
    assert TOKEN not in repr(settings)


# ------------------------------------------------------------------------- command line


async def test_servers_start_only_from_a_named_file(program: Path, home: Path) -> None:
    """A file in the current folder may come with the project, and could start any program."""
    marker = home / "started"
    code = f"open({str(marker)!r}, 'w'); import time; time.sleep(99)"
    server = {"command": sys.executable, "args": ["-c", code], "timeout": 0.5}
    server["env"] = {"SECRET_TOKEN": TOKEN}
    config = {
        "model_providers": {"openai": {"model": "m", "base_url": "http://127.0.0.1:9"}},
        "allow_mcp_servers": ["s"],
        "mcp_servers": {"s": server},
    }
    (home / "trae_config.json").write_text(json.dumps(config))
    status, _, err = await finished(home, "run", "x", "--max-steps", "1", OPENAI_BASE_URL="x")
    assert status == 2
    assert "its MCP servers are not started" in err
    assert "--config" in err
    assert not marker.exists()
    status, out, err = await finished(home, "show-config", "--config", "trae_config.json")
    assert status == 0
    assert json.loads(out)["settings"]["mcp_servers"]["s"]["env"] == {"SECRET_TOKEN": "****"}
    assert TOKEN not in out + err
    assert not marker.exists()
    status, _, err = await finished(home, "run", "x", "--config", "trae_config.json")
    assert (status, marker.exists()) == (2, True)
    assert "The MCP server s cannot be started: no answer in time." in err


def test_package_is_imported_only_if_a_server_is_used() -> None:
    program = "import sys, agent_core.build; print({'mcp', 'rich', 'dotenv'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=clean(Path("/")),
    )
    assert done.stdout == "set()\n"
