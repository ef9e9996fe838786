"""agent_core with several sessions in one process, called as the floors are.

Every toggle is on, and every session is recorded, beside its workspace.
"""

import asyncio
import sys
from pathlib import Path

from agent_core.build import run_task
from agent_core.config import ProviderSettings, Settings
from agent_core.toggles import Toggles

_MAX_STEPS = 1000
_ENTRY = ProviderSettings(api_key="a-key-that-stands-nowhere-else", model="scripted", max_retries=0)
_SETTINGS = Settings(max_steps=_MAX_STEPS, model_providers={"openai": _ENTRY})


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
    await asyncio.gather(*(_session(*each) for each in sessions))


def main() -> None:
    """The first session warms the process up; the others run side by side."""
    asyncio.run(_all(list(zip(sys.argv[2::2], sys.argv[3::2], strict=True))))
