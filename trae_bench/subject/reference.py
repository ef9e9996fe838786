"""agent_core as a subject. The only module of the laboratory that knows its name."""

import json
import os
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from trae_bench.errors import CannotMeasure
from trae_bench.meters import ASKED_FOR
from trae_bench.records import Command, Trial
from trae_bench.scenario import Protocol, Scenario

_RUN_WORKER = "from trae_bench.worker import main; main()"
_TYPES = {
    "config": "pathlib:Path",
    "workspace": "pathlib:Path",
    "trajectory": "pathlib:Path",
    "toggles": "agent_core.toggles:Toggles",
}
_PROVIDERS: dict[Protocol, str] = {
    "openai_chat": "openai",
    "openai_responses": "openai",
    "anthropic_messages": "anthropic",
    "gemini": "google",
    "ollama_chat": "ollama",
}
_SPARE_STEPS = 5
"""Steps beyond the script's turns, so that it is the script that ends a session."""


def toggles() -> dict[str, str]:
    """The agent's optimisations by name, each with what stands on its two sides."""
    from agent_core.toggles import ABOUT

    return dict(ABOUT)


class ReferenceSubject:
    """Runs agent_core in a fresh interpreter, with the toggles of the trial's arm."""

    reports = True

    def __init__(self) -> None:
        self._python_path = _folders_to_add()

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        base_url: str,
        home: Path,
        workspace: Path,
        report_fd: int,
    ) -> Command:
        config, work = home / "config.json", home / "work.json"
        config.write_text(json.dumps(_config(scenario, base_url)), encoding="utf-8")
        watched = trial.mode == "serial" and not ASKED_FOR.isdisjoint(scenario.metrics)
        errand = {
            "entry": "agent_core.build:run_task",
            "arguments": {
                "task": scenario.task.replace("{workspace}", str(workspace)),
                "config": str(config),
                "workspace": str(workspace),
                "trajectory": str(home / "trajectory.json"),
                "toggles": trial.arm.toggles,
            },
            "types": _TYPES,
            "report_fd": report_fd,
            "heartbeat": watched,
        }
        work.write_text(json.dumps(errand), encoding="utf-8")
        return Command(
            # -P: a module of the workspace must not take the place of one of ours.
            argv=(sys.executable, "-P", "-c", _RUN_WORKER, str(work)),
            env={"PYTHONPATH": self._python_path} if self._python_path else {},
            cwd=str(workspace),
        )


def _config(scenario: Scenario, base_url: str) -> dict[str, object]:
    provider = _PROVIDERS[scenario.provider.protocol]
    return {
        "default_provider": provider,
        "max_steps": sum(turn.repeat for turn in scenario.turns) + _SPARE_STEPS,
        "model_providers": {
            provider: {
                "api_key": "scripted",
                "model": "scripted",
                "base_url": base_url,
                "protocol": scenario.provider.protocol,
                # A failed request is to be seen, not repeated in silence.
                "max_retries": 0,
            }
        },
    }


def _folders_to_add() -> str:
    """Where the packages lie, if a fresh interpreter would not find them: in a checkout.

    Raises `CannotMeasure` where agent_core is not there at all.
    """
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    found = []
    for package in ("trae_bench", "agent_core"):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CannotMeasure(f"the package {package} is not installed; install trae-bench again")
        folder = Path(spec.submodule_search_locations[0]).resolve().parent
        if folder not in installed and str(folder) not in found:
            found.append(str(folder))
    return os.pathsep.join(found)
