# mypy: ignore-errors
import os
import subprocess
import sys

from smolagents import OpenAIModel, ToolCallingAgent, tool


@tool
def bash(command: str) -> str:
    """Run a shell command.

    Args:
        command: The shell command.
    """
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


model = OpenAIModel(os.environ["MODEL"], client_kwargs={"max_retries": 0}, retry=False)
print(ToolCallingAgent([bash], model, max_steps=10_000).run(sys.argv[1]))  # noqa: T201
