"""Run several sessions of agent_core in one process, with the command line of the floors.

Every toggle is on. The trajectory of each session is written next to its workspace.
"""

import asyncio
import sys
from pathlib import Path

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.toggles import Toggles

_MAX_STEPS = 1000
_PROVIDER = ProviderSettings(api_key="a-unique-test-key", model="scripted", max_retries=0)
_SETTINGS = Settings(max_steps=_MAX_STEPS, model_providers={"openai": _PROVIDER})


async def _session(base_url: str, workspace: str) -> None:
    outcome = await run_task(
        "Look at the file.",
        workspace=Path(workspace),
        trajectory=Path(f"{workspace}.json"),
        settings=_SETTINGS,
        base_url=base_url,
        toggles=Toggles(),
    )
    if not outcome.success:
        raise SystemExit(f"the session ended with {outcome.stop}: {outcome.error}")


async def _all(sessions: list[tuple[str, str]]) -> None:
    await _session(*sessions.pop(0))
    await asyncio.gather(*(_session(*session) for session in sessions))


def main() -> None:
    """Run the first session as a warm-up, then the others concurrently."""
    asyncio.run(_all(list(zip(sys.argv[2::2], sys.argv[3::2], strict=True))))
