"""docs/agent-core.md is complete, and its examples work."""

import re
from pathlib import Path

import click
import pytest

from agent_core import config, config_cache, connection_pool, dynamic_imports, lazy_tools
from agent_core import trajectory_recorder as recorder
from agent_core.cli import main
from agent_core.config import McpServer, PerformanceSettings, Prices, ProviderSettings, Settings
from agent_core.config_file import parse_settings
from agent_core.models import PROTOCOLS
from agent_core.providers import PROVIDERS
from agent_core.toggles import Toggles

TEXT = Path(__file__).parents[2].joinpath("docs", "agent-core.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"`([^`\n]+)`", TEXT))
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def options() -> set[str]:
    context = click.Context(main)
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    return {
        name
        for command in commands
        if command is not None
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


@pytest.mark.parametrize(
    "known",
    [
        Toggles.names(),
        Settings.__struct_fields__,
        ProviderSettings.__struct_fields__,
        Prices.__struct_fields__,
        set(McpServer.__struct_fields__) - {"type"},
        PerformanceSettings.__struct_fields__,
        config._PERFORMANCE_VARIABLES,
        PROVIDERS,
        PROTOCOLS,
        {name for provider in PROVIDERS.values() for name in provider.key_env},
        options() - {"--toggle", "--help"},
    ],
)
def test_every_option_and_name_is_documented(known: set[str]) -> None:
    assert set(known) <= NAMES


def test_documented_names_exist() -> None:
    rows = re.findall(r"^\| `agent_core\.(\w+)`(?:, `[\w.]+`)? \| (.*?) \|", TEXT, re.MULTILINE)
    modules = (config_cache, connection_pool, dynamic_imports, lazy_tools, recorder)
    homes = {module.__name__.rpartition(".")[2]: module for module in modules}
    assert {name for name, _ in rows} == set(homes)
    for name, listed in rows:
        for part in re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", listed)):
            assert hasattr(homes[name], part), f"{name}.{part}"


@pytest.mark.parametrize("language", ["json", "yaml"])
def test_documented_configurations_load(language: str) -> None:
    texts = [text for kind, text in BLOCKS if kind == language]
    loaded = [parse_settings(text.encode(), Path(f"c.{language}")) for text in texts]
    assert any(settings.model_parameters.model for settings in loaded)


def test_documented_program_compiles() -> None:
    (program,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(program, "agent-core.md", "exec"), {"__name__": "example"})
