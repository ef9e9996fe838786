# mypy: ignore-errors
import os
import subprocess
import sys

from agno.agent import Agent
from agno.models.openai import OpenAIResponses
from agno.run import RunStatus


def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


model = OpenAIResponses(id=os.environ["MODEL"], max_retries=0)
run = Agent(model=model, tools=[bash], telemetry=False).run(sys.argv[1])
print(run.content)  # noqa: T201
sys.exit(run.status != RunStatus.completed)
