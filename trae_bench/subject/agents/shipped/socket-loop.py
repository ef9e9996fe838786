# mypy: ignore-errors
import json
import socket
import subprocess
import sys

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOL = {"name": "bash", "description": "Run a shell command.", "parameters": SCHEMA}
host, _, path = sys.argv[1].removeprefix("http://").partition("/")
head = f"POST /{path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: "
messages = [{"role": "user", "content": sys.argv[2]}]
body = {"model": "any", "messages": messages, "tools": [{"type": "function", "function": TOOL}]}
with socket.create_connection(host.split(":")) as connection, connection.makefile("rb") as replies:
    while messages[-1]["role"] != "assistant":
        data = json.dumps(body).encode()
        connection.sendall(f"{head}{len(data)}\r\n\r\n".encode() + data)
        status, *fields = iter(replies.readline, b"\r\n")
        (size,) = (int(field[15:]) for field in fields if field.startswith(b"content-length:"))
        messages.append(json.loads(replies.read(size))["choices"][0]["message"])
        for call in messages[-1].get("tool_calls") or ():
            command = ["bash", "-c", json.loads(call["function"]["arguments"])["command"]]
            done = subprocess.run(command, capture_output=True, text=True)
            output = done.stdout + done.stderr
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
print(messages[-1]["content"])  # noqa: T201
