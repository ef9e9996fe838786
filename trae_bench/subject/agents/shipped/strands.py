# mypy: ignore-errors
import os
import subprocess
import sys

from strands import Agent, tool
from strands.models.openai import OpenAIModel


@tool
def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


model = OpenAIModel(client_args={"max_retries": 0}, model_id=os.environ["MODEL"])
agent = Agent(model=model, tools=[bash], retry_strategy=None)
agent(sys.argv[1])  # It prints the replies itself.
