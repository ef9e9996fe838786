# mypy: ignore-errors
import os
import subprocess
import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits

provider = OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0))
agent = Agent(OpenAIResponsesModel(os.environ["MODEL"], provider=provider))


@agent.tool_plain
def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


result = agent.run_sync(sys.argv[1], usage_limits=UsageLimits(request_limit=None))
print(result.output)  # noqa: T201
