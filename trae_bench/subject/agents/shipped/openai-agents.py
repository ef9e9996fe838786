# mypy: ignore-errors
import os
import subprocess
import sys

from agents import Agent, Runner, function_tool, set_default_openai_client
from openai import AsyncOpenAI


@function_tool
def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


set_default_openai_client(AsyncOpenAI(max_retries=0))
agent = Agent(name="agent", model=os.environ["MODEL"], tools=[bash])
print(Runner.run_sync(agent, sys.argv[1], max_turns=10_000).final_output)  # noqa: T201
