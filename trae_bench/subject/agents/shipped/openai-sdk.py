# mypy: ignore-errors
import json
import os
import subprocess
import sys

from openai import OpenAI

SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
BASH = {"name": "bash", "description": "Run a shell command.", "parameters": SCHEMA}
messages = [{"role": "user", "content": sys.argv[1]}]
ask = OpenAI(max_retries=0).chat.completions.create
calls = True
while calls:
    reply = ask(
        model=os.environ["MODEL"], messages=messages, tools=[{"type": "function", "function": BASH}]
    )
    calls = reply.choices[0].message.tool_calls
    messages.append(reply.choices[0].message.model_dump(exclude_none=True))
    for call in calls or ():
        command = ["bash", "-c", json.loads(call.function.arguments)["command"]]
        done = subprocess.run(command, capture_output=True, text=True)
        result = {"role": "tool", "tool_call_id": call.id, "content": done.stdout + done.stderr}
        messages.append(result)
print(reply.choices[0].message.content)  # noqa: T201
