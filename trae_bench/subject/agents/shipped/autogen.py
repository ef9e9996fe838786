# mypy: ignore-errors
import asyncio
import os
import subprocess
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient


def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


info = ModelInfo(
    vision=False, function_calling=True, json_output=True, family="any", structured_output=True
)
model = OpenAIChatCompletionClient(model=os.environ["MODEL"], model_info=info, max_retries=0)
agent = AssistantAgent("agent", model, tools=[bash], max_tool_iterations=10_000)
print(asyncio.run(agent.run(task=sys.argv[1])).messages[-1].content)  # noqa: T201
