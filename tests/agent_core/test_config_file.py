"""Config files of both formats and both shapes, and their errors."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.config import PerformanceSettings, ProviderSettings, Settings
from agent_core.config_file import (
    find_config_file,
    parse_file,
    parse_settings,
    read_config_file,
)
from agent_core.errors import ConfigError, MissingDependencyError

GUIDE = """\
// In trae_config.json
{
  "default_provider": "anthropic",
  "max_steps": 20,
  "enable_lakeview": true,
  "model_providers": {
    "anthropic": {
      "api_key": "your_key",
      "model": "claude-sonnet-4-20250514",
      "max_tokens": 4096,
      "temperature": 0.5,
      "top_p": 1,
      "top_k": 0,
      "parallel_tool_calls": false,  // Disable parallel execution
      "max_retries": 10
    },
    "openai": {
      "api_key": "your//key",
      "model": "gpt-4o" /* two
      lines */
    }
  },
  "performance_settings": {
    "trajectory_batch_size": 7,
    "trajectory_background_io": false,
    "max_trajectory_interactions": 1000,
    "connection_pool_size": 11,
    "lazy_tool_loading": false,
    "config_cache_ttl": 60
  }
}
"""

TRAE = """\
agents:
  trae_agent:
    enable_lakeview: true
    model: strong
    max_steps: 200
    tools: [bash, task_done]
model_providers:
  anthropic:
    api_key: your_key
    provider: anthropic
  gateway:
    api_key: other_key
    provider: openai
    base_url: https://gateway.example/v1
models:
  strong:
    model_provider: anthropic
    model: claude-sonnet-4-20250514
    max_tokens: 8192
    temperature: 0.5
    top_p: 1
    top_k: 0
    max_retries: 3
    parallel_tool_calls: false
  quick:
    model_provider: gateway
    model: gpt-4o-mini
lakeview:
  model: strong
mcp_servers:
  playwright: {command: npx}
allow_mcp_servers: []
"""


def json_settings(text: str) -> Settings:
    return parse_settings(text.encode(), Path("trae_config.json"))


def yaml_settings(text: str) -> Settings:
    return parse_settings(text.encode(), Path("trae_config.yaml"))


def complaint(text: str, name: str = "trae_config.json") -> str:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text.encode(), Path(name))
    return str(caught.value)


# --------------------------------------------------------------------------------- shapes


def test_guides_example_loads_with_comments_and_all_keys() -> None:
    settings = json_settings(GUIDE)

    assert settings.default_provider == "anthropic"
    assert settings.max_steps == 20
    assert settings.model_providers["openai"].api_key == "your//key"
    assert settings.model_parameters == ProviderSettings(
        api_key="your_key",
        model="claude-sonnet-4-20250514",
        max_tokens=4096,
        temperature=0.5,
        top_p=1,
        top_k=0,
        parallel_tool_calls=False,
        max_retries=10,
    )
    assert settings.performance_settings == PerformanceSettings(
        trajectory_batch_size=7,
        trajectory_background_io=False,
        max_trajectory_interactions=1000,
        connection_pool_size=11,
        lazy_tool_loading=False,
        config_cache_ttl=60,
    )


def test_trae_agent_yaml_gives_the_same_records() -> None:
    settings = yaml_settings(TRAE)

    assert settings.default_provider == "anthropic"
    assert settings.max_steps == 200
    assert settings.tools == ("bash", "task_done")
    assert settings.provider_kind == "anthropic"
    assert settings.model_parameters.max_tokens == 8192
    assert settings.model_parameters.parallel_tool_calls is False
    gateway = settings.model_providers["gateway"]
    assert (gateway.provider, gateway.model) == ("openai", "gpt-4o-mini")
    assert gateway.base_url == "https://gateway.example/v1"


def test_both_formats_support_both_shapes() -> None:
    yaml = pytest.importorskip("yaml")
    assert json_settings(json.dumps(yaml.safe_load(TRAE))) == yaml_settings(TRAE)
    plain = "default_provider: ollama\nmodel_providers:\n  ollama: {model: llama}\n"
    assert yaml_settings(plain).model_parameters.model == "llama"


EXAMPLE = """\
agents:
    trae_agent:
        enable_lakeview: true
        model: trae_agent_model
        max_steps: 200
        tools:
            - bash
            - task_done
allow_mcp_servers:
    - playwright
mcp_servers:
    playwright:
        command: npx
        args:
            - "@playwright/mcp@0.0.27"
lakeview:
    model: lakeview_model

model_providers:
    anthropic:
        api_key: your_anthropic_api_key
        provider: anthropic

models:
    trae_agent_model:
        model_provider: anthropic
        model: claude-4-sonnet
        max_tokens: 4096
        temperature: 0.5
    lakeview_model:
        model_provider: anthropic
        model: claude-3.5-sonnet
"""
"""The keys of Trae Agent's `trae_config.yaml.example`."""


def test_trae_agents_example_loads_and_notes_what_has_no_effect() -> None:
    file = parse_file(EXAMPLE.encode(), Path("trae_config.yaml.example"))
    assert file.settings.model_parameters.model == "claude-4-sonnet"
    assert file.settings.mcp_servers["playwright"].args == ("@playwright/mcp@0.0.27",)
    assert file.notes == (
        "trae_config.yaml.example, line 16, lakeview: no effect; there is no Lakeview here.",
        "trae_config.yaml.example, line 3, agents.trae_agent.enable_lakeview: no effect; there is"
        " no Lakeview here.",
    )


def test_every_key_without_effect_is_noted_with_its_line() -> None:
    extra = "    supports_tool_calling: false\n    candidate_count: 2\n    stop_sequences: [x]\n"
    text = TRAE.replace("    max_tokens: 8192\n", f"    max_tokens: 8192\n{extra}")
    text = text.replace("model_providers:", "  other: {model: quick}\nmodel_providers:", 1)
    file = parse_file(text.encode(), Path("c.yaml"))
    assert file.settings == yaml_settings(TRAE)
    assert [note.partition(": ")[0] for note in file.notes] == [
        "c.yaml, line 32, lakeview",
        "c.yaml, line 3, agents.trae_agent.enable_lakeview",
        "c.yaml, line 7, agents.other",
        "c.yaml, line 21, models.strong.supports_tool_calling",
        "c.yaml, line 22, models.strong.candidate_count",
        "c.yaml, line 23, models.strong.stop_sequences",
        "c.yaml, line 35, mcp_servers.playwright",
    ]
    harmless = "    supports_tool_calling: true\n    candidate_count: 1\n    stop_sequences: []\n"
    file = parse_file(text.replace(extra, harmless).encode(), Path("c.yaml"))
    assert not [note for note in file.notes if "models" in note]


def test_trae_agents_json_has_the_same_keys() -> None:
    text = """{
      "default_provider": "openai", "mcp_servers": {"p": {"command": "npx", "env": {"T": "t"}}},
      "model_providers": {"openai": {"model": "gpt-5", "max_tokens": 7,
        "max_completion_tokens": 9, "candidate_count": 2, "stop_sequences": ["x"]}},
      "lakeview_config": {"model_provider": null, "model_name": null}
    }"""
    file = parse_file(text.encode(), Path("trae_config.json.example"))
    assert file.settings.model_parameters.max_tokens == 9
    assert not file.settings.mcp_servers, "it is not allowed, and its token is not kept"
    assert [note.split(", ")[1] for note in file.notes] == ["line 4", "line 4", "line 2"]


def test_max_completion_tokens_replaces_max_tokens() -> None:
    text = TRAE.replace("max_tokens: 8192", "max_completion_tokens: 77\n    max_tokens: 8192")
    assert yaml_settings(text).model_parameters.max_tokens == 77


def test_parameters_outside_an_entry_are_the_defaults_of_all_entries() -> None:
    text = """{"max_retries": 3, "temperature": 0.1, "default_provider": "openai",
      "model_providers": {"a": {"provider": "openai", "temperature": 0.9}, "b": {}}}"""
    providers = json_settings(text).model_providers
    assert {name: (p.max_retries, p.temperature) for name, p in providers.items()} == {
        "a": (3, 0.9),
        "b": (3, 0.1),
        "openai": (3, 0.1),
    }
    assert "line 1, max_retries" in complaint('{"max_retries": -1}')


def test_yaml_date_is_text() -> None:
    text = "model_providers:\n  azure: {api_version: 2024-10-21, model: 2024-13-45}\n"
    entry = yaml_settings(text).model_providers["azure"]
    assert (entry.api_version, entry.model) == ("2024-10-21", "2024-13-45")


def test_agent_uses_the_model_it_names() -> None:
    text = TRAE.replace("model_provider: gateway", "model_provider: anthropic")
    assert yaml_settings(text).model_parameters.model == "claude-sonnet-4-20250514"


def test_empty_object_gives_the_defaults() -> None:
    assert json_settings("{}") == Settings()
    assert json_settings("\ufeff{}") == Settings(), "a byte order mark is skipped"


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('"max_tokens"', '"max_token"', ["line 10", "anthropic.max_token:", "'max_tokens'"]),
        ('"max_tokens": 4096', '"max_tokens": "k"', ["line 10", "anthropic.max_tokens", "`int`"]),
        ('"max_steps": 20', '"max_steps": 0', ["line 4", "max_steps", ">= 1"]),
        ('"max_steps"', '"maxsteps"', ["line 4", "maxsteps", "'max_steps'"]),
        ('"lazy_tool_loading"', '"lazy_tools"', ["performance_settings.lazy_tools", "line 28"]),
        ('"gpt-4o"', "4", ["line 19", "model_providers.openai.model"]),
        ('"max_steps": 20,', '"max_steps": 20', ["line 5", "column 3", "not valid JSON"]),
        ("60\n", "60,\n", ["not valid JSON"]),  # the line depends on Python's version
    ],
)
def test_json_error_has_file_line_and_field(old: str, new: str, parts: list[str]) -> None:
    text = complaint(GUIDE.replace(old, new, 1))
    assert all(part in text for part in ["trae_config.json", *parts]), text


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("max_steps:", "max_step:", ["line 5", "agents.trae_agent.max_step", "'max_steps'"]),
        ("max_tokens: 8192", "max_tokens: k", ["line 19", "models.strong.max_tokens", "`int`"]),
        ("model: strong\n    max", "model: strog\n    max", ["line 4", "Did you mean 'strong'?"]),
        ("model_provider: gateway", "model_provider: gatway", ["line 26", "'gateway'"]),
        ("servers: []", "servers: [x]", ["line 32", "No MCP server 'x'."]),
        (
            "{command: npx}\nallow_mcp_servers: []",
            "{args: []}\nallow_mcp_servers: [playwright]",
            [
                "line 31",
                "mcp_servers.playwright",
                "give a command or an http_url",
            ],
        ),
        (
            "{command: npx}\nallow_mcp_servers: []",
            "{comand: x}\nallow_mcp_servers: [playwright]",
            [
                "line 31",
                "mcp_servers.playwright.comand",
                "'command'",
            ],
        ),
        ("tools: [bash", "tools: {bash", ["line 6", "not valid YAML"]),
        ("tools: [bash", "tools: [3", ["line 6", "agents.trae_agent.tools[0]", "`str`"]),
        ("  quick:", "  4:", ["models:", "a key in it is not a string; put it in quotes"]),
        ("    max_tokens", "    4: 5\n    max_tokens", ["models.strong:", "not a string"]),
        ("trae_agent:", "trae_agen:", ["line 1", "No agent 'trae_agent'", "trae_agen"]),
    ],
)
def test_yaml_error_has_file_line_and_field(old: str, new: str, parts: list[str]) -> None:
    text = complaint(TRAE.replace(old, new, 1), "trae_config.yaml")
    assert all(part in text for part in ["trae_config.yaml", *parts]), text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tools": [],\n "max_steps": NaN}', ", line 2: not valid JSON: invalid character."),
        ('{"max_steps": 1e400}', ": not valid JSON: Number out of range."),
        ("[" * 100_000, ": nested too deeply."),
    ],
)
def test_json_that_only_one_parser_accepts_is_an_error(text: str, message: str) -> None:
    assert complaint(text) == f"trae_config.json{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: !!int many", ": not valid YAML: a tag does not fit its value."),
        ("tools: !!timestamp now", ": not valid YAML: a tag does not fit its value."),
        (f"a: {'[' * 3_000}{']' * 3_000}", ", line 1, a: unknown key."),
    ],
)
def test_yaml_that_pyyaml_fails_on_is_an_error(text: str, message: str) -> None:
    assert complaint(text, "a.yaml").startswith(f"a.yaml{message}")


def test_deep_nesting_without_libyaml_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("yaml.CSafeLoader", raising=False)
    assert complaint("[" * 3_000, "a.yaml") == "a.yaml: nested too deeply."


def test_missing_table_is_reported() -> None:
    text = complaint("models: {}", "trae_config.yaml")
    assert "the top level: Object missing required field `agents`; add it." in text


def test_line_is_not_that_of_a_field_with_the_same_name() -> None:
    text = '{"tools": ["model"],\n "model_providers": {\n"a": {"model": "m"},\n"b": {"model": 1}}}'
    assert "line 4, model_providers.b.model" in complaint(text)


def test_file_that_is_not_an_object_or_not_text_is_rejected() -> None:
    assert "expected an object" in complaint("[]")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        parse_settings(b'{\n"model": "\xff"}', Path("a.json"))
    with pytest.raises(ConfigError, match=r"name it \.json"):
        parse_settings(b"{}", Path("a.ini"))


def test_error_does_not_show_a_key_near_it() -> None:
    broken = 'model_providers:\n  openai: {api_key: "sk-planted", model: [}\n'
    assert "sk-planted" not in complaint(broken, "a.yaml")
    wrong_type = (
        '{"model_providers": {"openai": {"api_key": "sk-planted", "max_tokens": "sk-planted"}}}'
    )
    assert "sk-planted" not in complaint(wrong_type)
    assert "sk-planted" not in complaint('{"api_key": "sk-planted"}')
    assert "sk-planted" not in complaint('{"model_providers": {"openai": "sk-planted"')


def test_yaml_without_pyyaml_gives_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependencyError) as caught:
        yaml_settings(TRAE)
    assert caught.value.install_command == "pip install 'trae-bench[yaml]'"


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.json: cannot be read \(No such file"):
        read_config_file(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config_file(tmp_path)


@given(st.text())
def test_any_text_parses_or_raises_config_error(text: str) -> None:
    for name in ("a.json", "a.yaml"):
        try:
            parse_settings(text.encode("utf-8", "surrogatepass"), Path(name))
        except ConfigError as error:
            assert name in str(error)


def test_hash_begins_a_comment_only_at_the_start_of_a_line() -> None:
    text = '# one\n{\n  # two "\n"default_provider": "a # b"}'
    assert json_settings(text).default_provider == "a # b"
    assert "line 2, column 5" in complaint('\n{"a"# b\n: 1}')


@given(st.text(), st.text(alphabet='/* \n\\"a'))
def test_comments_become_spaces_and_strings_are_unchanged(value: str, comment: str) -> None:
    comment = comment.replace("\n", "").replace("*", "")
    text = json.dumps({"default_provider": value})
    for spelled in (f"//{comment}\n{text}", f"{text}/*{comment} */", f"{text[:-1]}//{comment}\n}}"):
        assert json_settings(spelled).default_provider == value


def test_config_file_is_the_named_one_or_the_first_default(tmp_path: Path) -> None:
    assert find_config_file({}, tmp_path) is None
    (tmp_path / "trae_config.json").write_text("{}")
    assert find_config_file({}, tmp_path) == tmp_path / "trae_config.json"
    (tmp_path / "trae_config.yaml").write_text("{}")
    assert find_config_file({}, tmp_path) == tmp_path / "trae_config.yaml"
    assert find_config_file({"TRAE_CONFIG_FILE": "x.json"}, tmp_path) == Path("x.json")
