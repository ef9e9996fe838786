# mypy: ignore-errors
import asyncio
import json
import sys
from pathlib import Path

from agent_core.build import run_task

work = json.loads(Path(sys.argv[2]).read_text())
limit = asyncio.Semaphore(work["concurrency"])


async def session(base_url, task, workspace, **_):
    async with limit:
        place, record = Path(workspace), Path(f"{workspace}.json")
        config = {"config": Path(sys.argv[1]), "base_url": base_url}
        print(await run_task(task, workspace=place, trajectory=record, **config))  # noqa: T201


async def main():
    await asyncio.gather(*(session(**one) for one in work["sessions"]))


asyncio.run(main())
