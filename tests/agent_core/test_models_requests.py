"""From a session to the request that a provider expects."""

import json
from typing import Any

import msgspec
import pytest

from agent_core.config import ProviderSettings
from agent_core.errors import ConfigError
from agent_core.messages import Message, ToolCall, ToolResult, ToolSpec
from agent_core.models import PROTOCOLS, PROVIDERS, codec_named
from agent_core.models.codec import LOCAL_ID, Parameters
from agent_core.models.history import FullHistory
from tests.agent_core.wire_fixtures import WIRES

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}
TOOL = ToolSpec("bash", "Runs a command.", SCHEMA)
HISTORY = [
    Message("system", "Be brief."),
    Message("user", "List the files."),
    Message(
        "assistant",
        "Two ways.",
        (ToolCall("c1", "bash", {"command": "ls"}), ToolCall("c2", "bash", {}, malformed="{oops")),
    ),
    Message("tool", result=ToolResult("c1", "bash", True, "a.txt")),
    Message("tool", result=ToolResult("c2", "bash", False, "", "The arguments are no object.")),
    Message("user", "Go on."),
]
MARK = {"cache_control": {"type": "ephemeral"}}
INVALID = '{"INVALID_JSON":"{oops"}'
"""What is sent back in place of arguments that are not JSON. Some servers parse them again."""
PARAMETERS = Parameters(model="m-1", max_tokens=99, temperature=0.5, top_p=0.9, top_k=3)


def document(protocol: str, parameters: Parameters = PARAMETERS) -> dict[str, Any]:
    codec = codec_named(protocol, "some", parameters)
    body: dict[str, Any] = json.loads(FullHistory(codec).body(HISTORY, [TOOL]))
    return body


def call(call_id: str, arguments: str) -> dict[str, Any]:
    function = {"name": "bash", "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


FUNCTION = {"name": "bash", "description": "Runs a command.", "parameters": SCHEMA}


def test_openai_chat() -> None:
    assert document("openai_chat") == {
        "model": "m-1",
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [{"type": "function", "function": FUNCTION}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "List the files."},
            {
                "role": "assistant",
                "content": "Two ways.",
                "tool_calls": [call("c1", '{"command":"ls"}'), call("c2", INVALID)],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a.txt"},
            {"role": "tool", "tool_call_id": "c2", "content": "The arguments are no object."},
            {"role": "user", "content": "Go on."},
        ],
    }


def test_openai_responses() -> None:
    assert document("openai_responses") == {
        "model": "m-1",
        "max_output_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [{"type": "function", **FUNCTION, "strict": False}],
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "List the files."},
            {"role": "assistant", "content": "Two ways."},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "bash",
                "arguments": '{"command":"ls"}',
            },
            {"type": "function_call", "call_id": "c2", "name": "bash", "arguments": INVALID},
            {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": "The arguments are no object.",
            },
            {"role": "user", "content": "Go on."},
        ],
    }


def test_anthropic_messages() -> None:
    assert document("anthropic_messages") == {
        "model": "m-1",
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "system": [{"type": "text", "text": "Be brief.", **MARK}],
        "tools": [{"name": "bash", "description": "Runs a command.", "input_schema": SCHEMA}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "List the files.", **MARK}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Two ways."},
                    {"type": "tool_use", "id": "c1", "name": "bash", "input": {"command": "ls"}},
                    {
                        "type": "tool_use",
                        "id": "c2",
                        "name": "bash",
                        "input": {"INVALID_JSON": "{oops"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "a.txt"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "c2",
                        "content": "The arguments are no object.",
                        "is_error": True,
                    },
                    {"type": "text", "text": "Go on.", **MARK},
                ],
            },
        ],
    }


def test_gemini() -> None:
    called = {"id": "c2", "name": "bash", "args": {"INVALID_JSON": "{oops"}}
    failed = {
        "id": "c2",
        "name": "bash",
        "response": {"error": "The arguments are no object."},
    }
    declaration = {
        "name": "bash",
        "description": "Runs a command.",
        "parametersJsonSchema": SCHEMA,
    }
    assert document("gemini") == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [declaration]}],
        "generationConfig": {"maxOutputTokens": 99, "temperature": 0.5, "topP": 0.9, "topK": 3},
        "contents": [
            {"role": "user", "parts": [{"text": "List the files."}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Two ways."},
                    {"functionCall": {"id": "c1", "name": "bash", "args": {"command": "ls"}}},
                    {"functionCall": called},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "id": "c1",
                            "name": "bash",
                            "response": {"output": "a.txt"},
                        }
                    },
                    {"functionResponse": failed},
                    {"text": "Go on."},
                ],
            },
        ],
    }


def test_ollama_chat() -> None:
    assert document("ollama_chat") == {
        "model": "m-1",
        "stream": False,
        "options": {"num_predict": 99, "temperature": 0.5, "top_p": 0.9, "top_k": 3},
        "tools": [{"type": "function", "function": FUNCTION}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "List the files."},
            {
                "role": "assistant",
                "content": "Two ways.",
                "tool_calls": [
                    {"function": {"name": "bash", "arguments": {"command": "ls"}}},
                    {"function": {"name": "bash", "arguments": {"INVALID_JSON": "{oops"}}},
                ],
            },
            {"role": "tool", "tool_name": "bash", "content": "a.txt"},
            {"role": "tool", "tool_name": "bash", "content": "The arguments are no object."},
            {"role": "user", "content": "Go on."},
        ],
    }


def test_ollama_gets_the_context_window() -> None:
    options = document("ollama_chat", Parameters(model="m", context_window=32_000))["options"]
    assert options == {"num_predict": 4096, "num_ctx": 32_000}


@pytest.mark.parametrize(
    ("protocol", "field", "value"),
    [
        ("openai_chat", "parallel_tool_calls", False),
        ("openai_responses", "parallel_tool_calls", False),
        ("anthropic_messages", "tool_choice", {"type": "auto", "disable_parallel_tool_use": True}),
    ],
)
def test_parallel_calls_are_disabled_if_the_provider_supports_it(
    protocol: str, field: str, value: Any
) -> None:
    assert field not in document(protocol)
    assert document(protocol, Parameters(model="m", parallel_tool_calls=False))[field] == value


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_opaque_items_are_sent_back(protocol: str) -> None:
    """Reasoning and signatures are sent back unchanged and in order."""
    codec = codec_named(protocol, "some", PARAMETERS)
    message = codec.decode(WIRES[protocol].whole).message
    if message.opaque is None:
        assert protocol == "openai_chat"
        return
    assert codec.entry(message).items == message.opaque[protocol]
    other = "gemini" if protocol != "gemini" else "ollama_chat"
    foreign = codec_named(other, "some", PARAMETERS).entry(message).items
    assert (
        foreign
        == codec_named(other, "some", PARAMETERS)
        .entry(msgspec.structs.replace(message, opaque=None))
        .items
    )


def test_local_ids_are_not_sent() -> None:
    named = Message("assistant", "", (ToolCall(f"{LOCAL_ID}1", "bash", {}),))
    (part,) = codec_named("gemini", "google", PARAMETERS).entry(named).items
    assert part == {"functionCall": {"name": "bash", "args": {}}}


def test_anthropic_receives_no_empty_text() -> None:
    codec = codec_named("anthropic_messages", "anthropic", PARAMETERS)
    assert codec.entry(Message("user", " \n")).items == []
    assert codec.entry(Message("assistant", "", (ToolCall("c", "bash", {}),))).items == [
        {"type": "tool_use", "id": "c", "name": "bash", "input": {}}
    ]


@pytest.mark.parametrize(
    ("provider", "base_url", "stream", "url"),
    [
        ("openai", None, False, "https://api.openai.com/v1/chat/completions"),
        ("anthropic", None, False, "https://api.anthropic.com/v1/messages"),
        ("anthropic", "http://h", False, "http://h/v1/messages"),
        ("anthropic", "http://h/v1/", False, "http://h/v1/messages"),
        (
            "google",
            None,
            False,
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        ("google", "http://h", True, "http://h/v1beta/models/m:streamGenerateContent?alt=sse"),
        ("google", "http://h/v1", False, "http://h/v1/models/m:generateContent"),
        ("openrouter", None, False, "https://openrouter.ai/api/v1/chat/completions"),
        ("doubao", None, False, "https://ark.cn-beijing.volces.com/api/v3/chat/completions"),
        ("ollama", None, False, "http://localhost:11434/api/chat"),
        ("ollama", "http://h:1/v1", False, "http://h:1/api/chat"),
        (
            "azure",
            "https://me.openai.azure.com",
            False,
            "https://me.openai.azure.com/openai/deployments/m/chat/completions"
            "?api-version=2024-10-21",
        ),
        (
            "azure",
            "https://me.openai.azure.com/openai/deployments/other",
            False,
            "https://me.openai.azure.com/openai/deployments/other/chat/completions"
            "?api-version=2024-10-21",
        ),
    ],
)
def test_request_urls(provider: str, base_url: str | None, stream: bool, url: str) -> None:
    known = PROVIDERS[provider]
    codec = codec_named(known.protocol, provider, Parameters(model="m", stream=stream))
    root = known.rooted(base_url or known.base_url or "", "m")
    assert known.versioned(codec.url(root), None) == url


def test_api_key_headers() -> None:
    headers = {name: PROVIDERS[name].headers("the-key") for name in PROVIDERS}
    assert headers["openai"] == {"authorization": "Bearer the-key"}
    assert headers["azure"] == {"api-key": "the-key"}
    assert headers["google"] == {"x-goog-api-key": "the-key"}
    assert headers["anthropic"] == {"x-api-key": "the-key", "anthropic-version": "2023-06-01"}
    assert PROVIDERS["openai"].headers("") == {}


def test_max_tokens_field_per_provider() -> None:
    for provider, field in (("openai", "max_completion_tokens"), ("openrouter", "max_tokens")):
        codec = codec_named("openai_chat", provider, PARAMETERS)
        assert codec.envelope([], [])[field] == 99


def test_unknown_protocol_error_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="openai_responses"):
        codec_named("smoke signals", "openai", PARAMETERS)


@pytest.mark.parametrize(
    ("provider", "settings", "message"),
    [
        ("azure", ProviderSettings(), "base_url"),
        ("nobody", ProviderSettings(), "Known: openai"),
        ("openai", ProviderSettings(base_url="ftp://h"), "http://"),
        ("openai", ProviderSettings(protocol="x"), "Unknown protocol"),
    ],
)
def test_invalid_addresses_are_rejected(
    provider: str, settings: ProviderSettings, message: str
) -> None:
    from agent_core.connections import FreshConnections
    from agent_core.models.wire import open_model

    with pytest.raises(ConfigError, match=message):
        open_model(provider, settings, FreshConnections())
