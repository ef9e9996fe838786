"""Runs agent_core as a subject. No other module of trae-bench imports agent_core."""

import ast
import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from trae_bench._util import bounded_io
from trae_bench.errors import CannotMeasure
from trae_bench.metrics import OPT_IN_METRICS
from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport
from trae_bench.scenario import Extras, Protocol, Scenario
from trae_bench.subject.install.environments import Installs

if TYPE_CHECKING:
    from trae_bench.subject.revisions import Revision

PACKAGE = "agent_core"
_RUN_WORKER = "from trae_bench.execution.worker import main; main()"
_RUN_CLI = "import sys; sys.argv[0] = 'agent-core'; from agent_core.cli import main; main()"
"""The code of the `agent-core` script that pip installs."""
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
"""Extra steps in the step limit, so that the script ends the session, not the limit."""


def toggles() -> dict[str, str]:
    """Return the agent's toggles, each with a description of its two sides."""
    from agent_core.toggles import ABOUT

    return dict(ABOUT)


def tools() -> dict[str, frozenset[str]]:
    """Return the argument names of each tool, by tool name and alias."""
    from agent_core.tools import TOOLS

    return {
        name: frozenset(entry.parameters["properties"])
        for entry in TOOLS.values()
        for name in (entry.name, *entry.aliases)
    }


def toggles_at(folder: Path) -> frozenset[str] | None:
    """Return the toggles of the agent in a folder. None if they cannot be read.

    The source is parsed, not imported, because planning must not run untrusted code.
    """
    try:
        tree = ast.parse(bounded_io.whole(folder / PACKAGE / "toggles.py"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Toggles":
            return frozenset(_fields(node)) or None
    return None


def _fields(definition: ast.ClassDef) -> Iterator[str]:
    for node in definition.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="bool")):
                yield name


def extras() -> frozenset[str]:
    """Return the names of the extras of this distribution."""
    from trae_bench.subject.install.requirements import declared

    return declared().extras


def brought(scenario: Scenario, toggles: Mapping[str, bool]) -> dict[str, str]:
    """Return the extras that the agent needs to run a scenario, each with its module.

    Toggles that are not listed are on.
    """
    if not scenario.subject.has_session:
        return {}
    needed = {"yaml": "yaml"} if scenario.subject.format == "yaml" else {}
    if not toggles.get("native_client", True):
        from agent_core.sdks import SDKS

        sdk = SDKS[_PROVIDERS[scenario.provider.protocol]]
        needed[sdk.extra] = sdk.module
    return needed


class AgentCoreSubject:
    """Runs agent_core in a fresh interpreter with the toggles of the trial's arm.

    `installs` has the environments of scenarios that measure an install. The arm of a revision
    runs only the agent from that revision. The worker comes from this release, through a link
    in `scratch`, so that this release's agent cannot be imported.
    """

    def __init__(
        self,
        installs: Installs | None = None,
        revisions: Mapping[str, "Revision"] = MappingProxyType({}),
        scratch: Path | None = None,
    ) -> None:
        self._python_path = _folders_to_add()
        self._installs = installs or Installs()
        self._revisions = revisions
        self._worker_path = _worker_alone(scratch) if revisions and scratch else ""

    def adapted(self, trial: Trial, scenario: Scenario) -> Scenario:
        """Return the scenario as it is: its calls are those of this agent's tools."""
        return scenario

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        if scenario.subject.install is not None:
            inventory = self._installs.command(_extras(trial, scenario), home, report_fd)
            return Command(argv=inventory, env={}, cwd=endpoints[0].workspace, answer="report")
        arguments = scenario.subject.command
        if arguments:
            argv: tuple[str, ...] = (_RUN_CLI, *_filled(arguments, trial.arm.toggles))
        else:
            config = _write_config(scenario, endpoints[0].base_url, home)
            work = _work(trial, scenario, endpoints, config) | {"report_fd": report_fd}
            path = home / "work.json"
            path.write_text(json.dumps(work), encoding="utf-8")
            argv = (_RUN_WORKER, str(path))
        python, folders = self._python(trial.arm.revision)
        return Command(
            # -P: a module in the workspace must not shadow an import.
            argv=(python, "-P", "-c", *argv),
            env={"PYTHONPATH": folders} if folders else {},
            cwd=endpoints[0].workspace,
            answer="output" if arguments else "report",
        )

    def _python(self, revision: str | None) -> tuple[str, str]:
        """Return the interpreter and its PYTHONPATH."""
        if revision is None:
            return sys.executable, self._python_path
        checkout = self._revisions.get(revision)
        if checkout is None:
            raise CannotMeasure(f"no revision {revision!r} is checked out; start a new run")
        return checkout.python, os.pathsep.join((str(checkout.folder), self._worker_path))

    async def perform(
        self, trial: Trial, scenario: Scenario, endpoint: SessionEndpoint, home: Path
    ) -> ChildReport:
        """Run one session in this process."""
        from agent_core.build import run_task
        from agent_core.toggles import Toggles

        outcome = await run_task(
            scenario.task.replace("{workspace}", endpoint.workspace),
            config=_write_config(scenario, endpoint.base_url, home),
            workspace=Path(endpoint.workspace),
            trajectory=home / "trajectory.json",
            toggles=Toggles(**trial.arm.toggles),
        )
        return ChildReport(
            success=outcome.success,
            final_text=outcome.final_text,
            steps=outcome.steps,
            error=outcome.error,
        )


def _extras(trial: Trial, scenario: Scenario) -> tuple[str, ...]:
    if trial.arm.revision is not None:
        raise CannotMeasure(
            f"{scenario.name} measures the install of this checkout, not of a revision; leave it "
            "out when you compare revisions"
        )
    install = scenario.subject.install or Extras()
    (toggle,) = scenario.toggles.vary
    return install.on if trial.arm.toggles[toggle] else install.off


def _work(
    trial: Trial, scenario: Scenario, endpoints: Sequence[SessionEndpoint], config: Path
) -> dict[str, object]:
    """Return the work file of the worker without `report_fd`; see `worker.py`."""
    load = scenario.load
    return {
        "entry": "agent_core.build:run_task",
        "arguments": {"config": str(config), "toggles": trial.arm.toggles},
        "types": _TYPES,
        "sessions": [
            {
                "task": scenario.task.replace("{workspace}", endpoint.workspace),
                "base_url": endpoint.base_url,
                "workspace": endpoint.workspace,
                "trajectory": str(config.with_name(f"trajectory-{number:04}.json")),
            }
            for number, endpoint in enumerate(endpoints, 1)
        ],
        "concurrency": load.concurrency,
        "interval": 1 / load.sessions_per_second if load.sessions_per_second else 0.0,
        "probe": trial.probe,
        "heartbeat": trial.mode == "serial" and not OPT_IN_METRICS.isdisjoint(scenario.metrics),
    }


def _filled(arguments: Sequence[str], toggles: Mapping[str, bool]) -> Iterator[str]:
    """Replace `{toggles}` by the options that set them."""
    for argument in arguments:
        if argument == "{toggles}":
            for name, on in toggles.items():
                yield from ("--toggle", f"{name}={'on' if on else 'off'}")
        else:
            yield argument


def _write_config(scenario: Scenario, base_url: str, home: Path) -> Path:
    config = _config(scenario, base_url)
    path = home / f"config.{scenario.subject.format}"
    text = json.dumps(config, indent=2) if path.suffix == ".json" else "\n".join(_yaml(config))
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _yaml(table: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Yield lines of block-style YAML. The JSON of a scalar is valid YAML."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _yaml(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {json.dumps(value)}"


def _config(scenario: Scenario, base_url: str) -> dict[str, object]:
    provider = _PROVIDERS[scenario.provider.protocol]
    scripted = {
        "api_key": "key-to-nothing",
        "model": "scripted",
        "base_url": base_url,
        "protocol": scenario.provider.protocol,
        # A failed request must fail the trial, unless the scenario injects faults.
        "max_retries": len(scenario.provider.faults),
        "stream": scenario.provider.stream,
    }
    others = {
        f"model-{number:04}": {
            "provider": provider,
            "api_key": f"another-key-{number:04}",
            "model": f"another-model-{number:04}",
            "max_tokens": 8192,
            "temperature": 0.5,
            "top_p": 0.9,
            "parallel_tool_calls": True,
            "max_retries": 10,
        }
        for number in range(2, scenario.subject.models + 1)
    }
    return {
        "default_provider": provider,
        "max_steps": sum(turn.repeat for turn in scenario.turns) + _SPARE_STEPS,
        "model_providers": {provider: scripted, **others},
    }


def _worker_alone(scratch: Path) -> str:
    """Create a folder from which only this package can be imported."""
    folder = scratch / "worker"
    folder.mkdir()
    (folder / "trae_bench").symlink_to(Path(__file__).resolve().parents[1])
    return str(folder)


def _folders_to_add() -> str:
    """Return the folders that PYTHONPATH needs to import the packages from a checkout.

    Raises `CannotMeasure` if agent_core or trae_bench is not installed.
    """
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    folders: list[str] = []
    for package in ("trae_bench", "agent_core"):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise CannotMeasure(f"the package {package} is not installed; install trae-bench again")
        folder = Path(spec.submodule_search_locations[0]).resolve().parent
        if folder not in installed and str(folder) not in folders:
            folders.append(str(folder))
    return os.pathsep.join(folders)
