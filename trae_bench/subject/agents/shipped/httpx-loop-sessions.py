import fileinput
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx


def session(one):  # type: ignore[no-untyped-def]
    messages = [{"role": "user", "content": one["task"]}]
    tools = [{"type": "function", "function": {"name": "bash"}}]
    while messages[-1]["role"] != "assistant":
        body = {"model": "any", "messages": messages, "tools": tools}
        reply = client.post(f"{one['base_url']}/chat/completions", json=body).raise_for_status()
        messages.append(reply.json()["choices"][0]["message"])
        for call in messages[-1].get("tool_calls") or ():
            argv = ["bash", "-c", json.loads(call["function"]["arguments"])["command"]]
            done = subprocess.run(argv, cwd=one["workspace"], capture_output=True, text=True)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": done.stdout})
    print(messages[-1]["content"])  # noqa: T201


with fileinput.input() as lines, httpx.Client(timeout=600) as client:
    work = json.loads("".join(lines))
    list(ThreadPoolExecutor(work["concurrency"]).map(session, work["sessions"]))
