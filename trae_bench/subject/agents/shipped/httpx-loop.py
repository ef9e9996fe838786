# mypy: ignore-errors
import json
import os
import subprocess
import sys

import httpx

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
BASH = {"name": "bash", "description": "Run a shell command.", "parameters": SCHEMA}
messages = [{"role": "user", "content": sys.argv[1]}]
body = {"model": os.environ["MODEL"], "messages": messages}
body["tools"] = [{"type": "function", "function": BASH}]
key = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
with httpx.Client(base_url=os.environ["OPENAI_BASE_URL"], headers=key, timeout=600) as client:
    while messages[-1]["role"] != "assistant":
        reply = client.post("/chat/completions", json=body).raise_for_status().json()
        messages.append(reply["choices"][0]["message"])
        for call in messages[-1].get("tool_calls") or ():
            command = ["bash", "-c", json.loads(call["function"]["arguments"])["command"]]
            done = subprocess.run(command, capture_output=True, text=True)
            output = done.stdout + done.stderr
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
print(messages[-1]["content"])  # noqa: T201
