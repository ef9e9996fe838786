"""OpenAI Responses."""

from collections.abc import Iterator

from trae_bench.provider.protocols.codec import (
    Codec,
    Endpoint,
    JsonObject,
    NumberedTurn,
    Split,
    arguments_json,
    named_sse,
)
from trae_bench.provider.protocols.openai_chat import openai_error
from trae_bench.provider.routes import CREATED, MODEL


def _complete(numbered: NumberedTurn) -> JsonObject:
    return {
        "id": f"resp_{numbered.number:05}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": _output(numbered),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": numbered.input_tokens,
            "input_tokens_details": {"cached_tokens": numbered.cached_tokens},
            "output_tokens": numbered.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": numbered.input_tokens + numbered.output_tokens,
        },
    }


def _output(numbered: NumberedTurn) -> list[JsonObject]:
    items: list[JsonObject] = []
    if numbered.turn.text:
        content = {"type": "output_text", "text": numbered.turn.text, "annotations": []}
        items.append(
            {
                "id": f"msg_{numbered.number:05}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [content],
            }
        )
    items += [
        {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_json(call),
        }
        for call in numbered.turn.calls
    ]
    return items


def _stream(numbered: NumberedTurn, split: Split) -> Iterator[bytes]:
    for number, event in enumerate(_events(numbered, split)):
        yield named_sse({**event, "sequence_number": number})


def _events(numbered: NumberedTurn, split: Split) -> Iterator[JsonObject]:
    reply = _complete(numbered)
    started = {**reply, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(reply["output"]):
        position = {"output_index": index, "item_id": item["id"]}
        is_message = item["type"] == "message"
        empty: JsonObject = {"content": []} if is_message else {"arguments": ""}
        started = {**item, "status": "in_progress", **empty}
        yield {"type": "response.output_item.added", "output_index": index, "item": started}
        yield from (_message_events if is_message else _call_events)(item, position, split)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": reply}


def _message_events(item: JsonObject, position: JsonObject, split: Split) -> Iterator[JsonObject]:
    part = item["content"][0]
    position = {**position, "content_index": 0}
    yield {"type": "response.content_part.added", **position, "part": {**part, "text": ""}}
    for text in split(part["text"]):
        yield {"type": "response.output_text.delta", **position, "delta": text, "logprobs": []}
    yield {"type": "response.output_text.done", **position, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **position, "part": part}


def _call_events(item: JsonObject, position: JsonObject, split: Split) -> Iterator[JsonObject]:
    kind = "response.function_call_arguments"
    for text in split(item["arguments"]):
        yield {"type": f"{kind}.delta", **position, "delta": text}
    done = {"name": item["name"], "arguments": item["arguments"]}
    yield {"type": f"{kind}.done", **position, **done}


OPENAI_RESPONSES = Codec(Endpoint("/v1", "/responses"), _complete, _stream, openai_error)
