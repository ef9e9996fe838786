"""A git repository with an agent that knows nothing of trae-bench."""

from pathlib import Path

from tests.trae_bench.mutations import git

AGENT = '''
"""An agent of one tool, on the standard library."""
import json
import subprocess
import sys
import urllib.request

SYSTEM = "You are a small agent."
LOOPS = 0
TOOL = {
    "type": "function",
    "function": {
        "name": "execute",
        "description": "Run a shell command.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}


def ask(base_url, messages):
    body = json.dumps({"model": "any", "messages": messages, "tools": [TOOL]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer secret-key"}
    request = urllib.request.Request(base_url + "/chat/completions", body, headers)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)["choices"][0]["message"]


def main(base_url, task):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
    for _ in range(LOOPS):
        pass
    while True:
        message = ask(base_url, messages)
        messages.append(message)
        if not message.get("tool_calls"):
            return message["content"]
        for call in message["tool_calls"]:
            command = json.loads(call["function"]["arguments"])["command"]
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            result = done.stdout + done.stderr
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
'''

SETTINGS = """
[project]
name = "tiny"
version = "1"

[tool.trae-bench.agents.tiny]
about = "An agent of one tool."
command = "{python} {folder}/agent.py {base_url} {task}"
final-text = "stdout"
"""

SCENARIO = """
name = "two-files"
about = "Two files are written."
task = "Write two files."
metrics = ["cpu"]

[toggles]
vary = []

[[turns]]
text = "The first."
calls = [{ tool = "bash", arguments = { command = "echo one > one; cat one" } }]

[[turns]]
text = "The second."
calls = [{ tool = "bash", arguments = { command = "echo two > two; ls" } }]

[[turns]]
text = "Both are written."
calls = [{ tool = "task_done" }]

[oracle]
final_text = "Both are written"
[oracle.files]
one = "one\\n"
two = "two\\n"
"""


def foreign_repository(folder: Path) -> Path:
    """Create the repository at `folder`, with one commit on `main`."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for name, text in (
        ("agent.py", AGENT),
        ("pyproject.toml", SETTINGS),
        ("two-files.toml", SCENARIO),
    ):
        (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "an agent")
    return folder


def edit(folder: Path, old: str, new: str, name: str = "agent.py") -> None:
    """Replace a text in a file. Raises `AssertionError` if the file does not have it."""
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
