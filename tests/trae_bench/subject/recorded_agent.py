"""A small agent of another house: it asks until a reply has no calls, and writes a file."""

import json
import os
import sys
from pathlib import Path

import httpx

protocol, url, stream, requests = sys.argv[1], sys.argv[2], sys.argv[3] == "stream", sys.argv[4]
key = os.environ["AGENT_API_KEY"]
task = Path(os.environ["TASK_FILE"]).read_text() if "TASK_FILE" in os.environ else "Do it."
tool = {"name": "shell", "description": "Run.", "parameters": {"type": "object"}}
history: list[object] = [{"role": "user", "content": task}]


def request() -> tuple[str, dict[str, object]]:
    body: dict[str, object] = {"model": "m", "stream": stream}
    if protocol == "openai_chat":
        tools = [{"type": "function", "function": tool}]
        return "/chat/completions", {**body, "messages": history, "tools": tools}
    if protocol == "openai_responses":
        return "/responses", {**body, "input": history, "tools": [{"type": "function", **tool}]}
    if protocol == "anthropic_messages":
        return "/v1/messages", {**body, "max_tokens": 9, "messages": history, "tools": [tool]}
    if protocol == "gemini":
        declared = [{"functionDeclarations": [tool]}]
        contents = [{"role": "user", "parts": [{"text": json.dumps(one)}]} for one in history]
        method = "streamGenerateContent?alt=sse&" if stream else "generateContent?"
        path = f"/v1beta/models/m:{method}key={key}"
        return path, {"contents": contents, "tools": declared}
    tools = [{"type": "function", "function": tool}]
    return "/api/chat", {**body, "messages": history, "tools": tools}


headers = {"authorization": f"Bearer {key}", "x-api-key": key, "x-goog-api-key": key}
with httpx.Client(headers=headers, timeout=60) as client:
    client.get(url + "/models")
    for _ in range(int(requests)):
        path, body = request()
        reply = client.post(url + path, json=body)
        reply.raise_for_status()
        history.append({"role": "user", "content": f"reply {len(history)}: {len(reply.content)}"})
    side = {**request()[1], "note": "a title"}
    del side["tools"]
    client.post(url + request()[0], json=side)
Path("done.txt").write_text("done\n")
Path("log.txt").write_text(f"key {key}\n")
