# mypy: ignore-errors
import os
import subprocess
import sys

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI


def bash(command: str) -> str:
    """Run a shell command."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    return done.stdout + done.stderr


agent = create_agent(ChatOpenAI(model=os.environ["MODEL"], max_retries=0), [bash])
task = {"messages": [{"role": "user", "content": sys.argv[1]}]}
result = agent.invoke(task, {"recursion_limit": 100_000})
print(result["messages"][-1].text)  # noqa: T201
