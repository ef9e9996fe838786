"""One reply as each provider sends it, whole and streamed.

It has the text "Let me look.", a call of `bash`, and a call of `task_done` without arguments.
"""

import json
from typing import Any

from msgspec import Struct

from agent_core.messages import Message, Reply, ToolCall, Usage

TEXT = "Let me look. é😀"
ARGUMENTS = {"command": "ls -l\n"}
CALLS = (ToolCall("call_1", "bash", ARGUMENTS), ToolCall("call_2", "task_done", {}))


class Wire(Struct, frozen=True):
    """A reply in one protocol, and its meaning."""

    whole: bytes
    streamed: bytes
    means: Reply
    usage_comes_last: bool = False
    """True if a stream is complete before its last event, which has the usage."""


def _sse(*events: Any, names: bool = False, done: bool = False) -> bytes:
    lines = [
        (f"event: {event['type']}\n" if names else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def _chat() -> Wire:
    def call(index: int, **fields: Any) -> dict[str, Any]:
        return {"index": index, **fields}

    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    functions = [
        {"name": "bash", "arguments": json.dumps(ARGUMENTS)},
        {"name": "task_done", "arguments": ""},
    ]
    message = {
        "role": "assistant",
        "content": TEXT,
        "tool_calls": [
            {"id": f"call_{n}", "type": "function", "function": function}
            for n, function in enumerate(functions, 1)
        ],
    }
    whole = {
        "id": "x",
        "model": "m-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": usage,
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "x", "model": "m-1", "choices": [choice], "usage": None}

    text = functions[0]["arguments"]
    streamed = _sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": TEXT[:7]}),
        chunk({"content": TEXT[7:]}),
        chunk({"tool_calls": [call(0, id="call_1", function={"name": "bash", "arguments": ""})]}),
        chunk({"tool_calls": [call(0, function={"arguments": text[:6]})]}),
        chunk({"tool_calls": [call(0, function={"arguments": text[6:]})]}),
        chunk({"tool_calls": [call(1, id="call_2", function={"name": "task_done"})]}),
        chunk({}, "tool_calls"),
        {"id": "x", "model": "m-1", "choices": [], "usage": usage},
        done=True,
    )
    means = Reply(Message("assistant", TEXT, CALLS), Usage(10, 5, 3, 4, 2), "tool_calls", "m-1")
    return Wire(json.dumps(whole).encode(), streamed, means, usage_comes_last=True)


def _responses() -> Wire:
    output: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gibberish"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": TEXT}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "bash",
            "arguments": json.dumps(ARGUMENTS),
        },
        {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "task_done"},
    ]
    whole = {
        "id": "x",
        "model": "m-1",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": output,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
    }
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    streamed = _sse(
        {"type": "response.created", "response": begun},
        *(
            {"type": "response.output_item.done", "output_index": n, "item": item}
            for n, item in enumerate(output)
        ),
        {"type": "response.output_text.delta", "output_index": 1, "delta": TEXT},
        {"type": "response.completed", "response": whole},
        names=True,
    )
    opaque = {"openai_responses": output}
    message = Message("assistant", TEXT, CALLS, opaque=opaque)
    means = Reply(message, Usage(10, 5, 3, 4, 2), "completed", "m-1")
    return Wire(json.dumps(whole).encode(), streamed, means)


def _anthropic() -> Wire:
    thinking = {"type": "thinking", "thinking": "Hm, hm.", "signature": "signed"}
    blocks: list[dict[str, Any]] = [
        thinking,
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "id": "call_1", "name": "bash", "input": ARGUMENTS},
        {"type": "tool_use", "id": "call_2", "name": "task_done", "input": {}},
    ]
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 4,
    }
    whole: dict[str, Any] = {
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": blocks,
        "stop_reason": "tool_use",
        "usage": usage,
    }
    text = json.dumps(ARGUMENTS)

    def start(index: int, **block: Any) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    def delta(index: int, **fields: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": fields}

    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    streamed = _sse(
        {"type": "message_start", "message": begun},
        start(0, type="thinking", thinking="", signature=""),
        {"type": "ping"},
        delta(0, type="thinking_delta", thinking="Hm, "),
        delta(0, type="thinking_delta", thinking="hm."),
        delta(0, type="signature_delta", signature="signed"),
        {"type": "content_block_stop", "index": 0},
        start(1, type="text", text=""),
        delta(1, type="text_delta", text=TEXT[:5]),
        delta(1, type="text_delta", text=TEXT[5:]),
        start(2, type="tool_use", id="call_1", name="bash", input={}),
        delta(2, type="input_json_delta", partial_json=""),
        delta(2, type="input_json_delta", partial_json=text[:9]),
        delta(2, type="input_json_delta", partial_json=text[9:]),
        start(3, type="tool_use", id="call_2", name="task_done", input={}),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
        names=True,
    )
    opaque = {"anthropic_messages": blocks}
    message = Message("assistant", TEXT, CALLS, opaque=opaque)
    means = Reply(message, Usage(10, 5, 3, 4), "tool_use", "m-1")
    return Wire(json.dumps(whole).encode(), streamed, means)


def _gemini() -> Wire:
    parts: list[dict[str, Any]] = [
        {"text": "a thought", "thought": True},
        {"text": TEXT},
        {
            "functionCall": {"id": "call_1", "name": "bash", "args": ARGUMENTS},
            "thoughtSignature": "signed",
        },
        {"functionCall": {"id": "call_2", "name": "task_done"}},
    ]
    usage = {
        "promptTokenCount": 10,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "cachedContentTokenCount": 4,
    }

    def body(some: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": some}}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m-1"}

    streamed = _sse(body(parts[:1], None), body(parts[1:2], None), body(parts[2:], "STOP"))
    message = Message("assistant", TEXT, CALLS, opaque={"gemini": parts})
    means = Reply(message, Usage(10, 5, 0, 4, 2), "STOP", "m-1")
    return Wire(json.dumps(body(parts, "STOP")).encode(), streamed, means)


def _ollama() -> Wire:
    calls = [
        {"id": "call_1", "function": {"name": "bash", "arguments": ARGUMENTS}},
        {"id": "call_2", "function": {"name": "task_done", "arguments": {}}},
    ]
    counts = {"done": True, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 5}

    def line(message: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"model": "m-1", "message": {"role": "assistant", **message}, "done": False, **more}

    lines = [
        line({"content": "", "thinking": "Hm."}),
        line({"content": TEXT[:3]}),
        line({"content": TEXT[3:]}),
        line({"content": "", "tool_calls": calls[:1]}),
        line({"content": "", "tool_calls": calls[1:]}),
        line({"content": ""}, **counts),
    ]
    whole = line({"content": TEXT, "thinking": "Hm.", "tool_calls": calls}, **counts)
    sent_back = {
        "role": "assistant",
        "content": TEXT,
        "tool_calls": [{"function": call["function"]} for call in calls],
        "thinking": "Hm.",
    }
    message = Message("assistant", TEXT, CALLS, opaque={"ollama_chat": [sent_back]})
    means = Reply(message, Usage(10, 5), "stop", "m-1")
    streamed = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return Wire(json.dumps(whole).encode(), streamed, means)


WIRES: dict[str, Wire] = {
    "openai_chat": _chat(),
    "openai_responses": _responses(),
    "anthropic_messages": _anthropic(),
    "gemini": _gemini(),
    "ollama_chat": _ollama(),
}
