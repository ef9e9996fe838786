# mypy: ignore-errors
import sys

from inspect_ai import Task, eval
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.tool import tool
from inspect_ai.util import subprocess


@tool
def bash():
    async def execute(command: str) -> str:
        """Run a shell command.
        Args:
            command: The command."""
        done = await subprocess(["bash", "-c", command])
        return done.stdout + done.stderr

    return execute


log = eval(Task([Sample(sys.argv[1])], solver=react(tools=[bash()])), max_retries=0)[0]
print(log.samples[0].output.completion if log.samples else log.error)  # noqa: T201
sys.exit(log.status != "success")
