"""agent_core as a subject. The only module of the laboratory that knows its name."""

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
from trae_bench.metrics import ASKED_FOR
from trae_bench.model.experiment import Command, SessionEndpoint, Trial
from trae_bench.model.sample import ChildReport
from trae_bench.scenario import Extras, Protocol, Scenario
from trae_bench.subject.install.environments import Installs

if TYPE_CHECKING:
    from trae_bench.subject.revisions import Revision

PACKAGE = "agent_core"
_RUN_WORKER = "from trae_bench.execution.worker import main; main()"
_RUN_CLI = "import sys; sys.argv[0] = 'agent-core'; from agent_core.cli import main; main()"
"""What the script does that pip installs under the name `agent-core`."""
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


def tools() -> dict[str, frozenset[str]]:
    """The agent's tools by every name of theirs, each with the names of its arguments."""
    from agent_core.tools import TOOLS

    return {
        name: frozenset(entry.parameters["properties"])
        for entry in TOOLS.values()
        for name in (entry.name, *entry.aliases)
    }


def toggles_at(folder: Path) -> frozenset[str] | None:
    """Names of the toggles that the agent in this folder knows; None where it does not tell.

    They are read, not asked for: a plan runs nothing of what a stranger may have written.
    """
    try:
        tree = ast.parse(bounded_io.whole(folder / PACKAGE / "toggles.py"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Toggles":
            return frozenset(_fields(node)) or None
    return None


def _fields(of: ast.ClassDef) -> Iterator[str]:
    for node in of.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="bool")):
                yield name


def extras() -> frozenset[str]:
    """The names of its optional dependencies."""
    from trae_bench.subject.install.requirements import declared

    return declared().extras


def brought(scenario: Scenario, toggles: Mapping[str, bool]) -> dict[str, str]:
    """The extras without which the agent cannot play a scenario with these toggles, each with the
    module that it brings; toggles that are not named are on."""
    if not scenario.subject.has_session:
        return {}
    needed = {"yaml": "yaml"} if scenario.subject.format == "yaml" else {}
    if not toggles.get("native_client", True):
        from agent_core.dynamic_imports import SDKS

        sdk = SDKS[_PROVIDERS[scenario.provider.protocol]]
        needed[sdk.extra] = sdk.module
    return needed


class AgentCoreSubject:
    """Runs agent_core in a fresh interpreter, with the toggles of the trial's arm.

    `installs` has what the scenarios need that weigh an install. An arm of a revision runs
    the agent that lies at its place, and nothing else of that revision: the worker is this
    release's own, put into `scratch` alone, so that no agent beside it can be imported.
    """

    reports = True

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

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        seats: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        if scenario.subject.install is not None:
            weigh = self._installs.command(_extras(trial, scenario), home, report_fd)
            return Command(argv=weigh, env={}, cwd=seats[0].workspace)
        work = scenario.subject.command
        if work:
            argv: tuple[str, ...] = (_RUN_CLI, *_filled(work, trial.arm.toggles))
        else:
            config = _write_config(scenario, seats[0].base_url, home)
            errand = _errand(trial, scenario, seats, config) | {"report_fd": report_fd}
            path = home / "work.json"
            path.write_text(json.dumps(errand), encoding="utf-8")
            argv = (_RUN_WORKER, str(path))
        python, folders = self._python(trial.arm.revision)
        return Command(
            # -P: a module of the workspace must not take the place of one of ours.
            argv=(python, "-P", "-c", *argv),
            env={"PYTHONPATH": folders} if folders else {},
            cwd=seats[0].workspace,
        )

    def _python(self, revision: str | None) -> tuple[str, str]:
        """The interpreter, and its PYTHONPATH."""
        if revision is None:
            return sys.executable, self._python_path
        found = self._revisions.get(revision)
        if found is None:
            raise CannotMeasure(f"no revision {revision!r} is checked out; start a new run")
        return found.python, os.pathsep.join((str(found.folder), self._worker_path))

    async def perform(
        self, trial: Trial, scenario: Scenario, seat: SessionEndpoint, home: Path
    ) -> ChildReport:
        """One session in this process; see `in_process.Subject`."""
        from agent_core.build import run_task
        from agent_core.toggles import Toggles

        outcome = await run_task(
            scenario.task.replace("{workspace}", seat.workspace),
            config=_write_config(scenario, seat.base_url, home),
            workspace=Path(seat.workspace),
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
            f"{scenario.name} weighs what this checkout needs, which is no revision's; leave it "
            "out where revisions are compared"
        )
    install = scenario.subject.install or Extras()
    (toggle,) = scenario.toggles.vary
    return install.on if trial.arm.toggles[toggle] else install.off


def _errand(
    trial: Trial, scenario: Scenario, seats: Sequence[SessionEndpoint], config: Path
) -> dict[str, object]:
    """What the worker is to do, but for where it reports; see `worker.py`."""
    load = scenario.load
    return {
        "entry": "agent_core.build:run_task",
        "arguments": {"config": str(config), "toggles": trial.arm.toggles},
        "types": _TYPES,
        "sessions": [
            {
                "task": scenario.task.replace("{workspace}", seat.workspace),
                "base_url": seat.base_url,
                "workspace": seat.workspace,
                "trajectory": str(config.with_name(f"trajectory-{number:04}.json")),
            }
            for number, seat in enumerate(seats, 1)
        ],
        "concurrency": load.concurrency,
        "interval": 1 / load.sessions_per_second if load.sessions_per_second else 0.0,
        "probe": trial.probe,
        "heartbeat": trial.mode == "serial" and not ASKED_FOR.isdisjoint(scenario.metrics),
    }


def _filled(arguments: Sequence[str], toggles: Mapping[str, bool]) -> Iterator[str]:
    """`{toggles}` becomes the options that set the arm's."""
    for argument in arguments:
        if argument == "{toggles}":
            for name, on in toggles.items():
                yield from ("--toggle", f"{name}={'on' if on else 'off'}")
        else:
            yield argument


# -- the config file --------------------------------------------------------------------


def _write_config(scenario: Scenario, base_url: str, home: Path) -> Path:
    config = _config(scenario, base_url)
    path = home / f"config.{scenario.subject.format}"
    text = json.dumps(config, indent=2) if path.suffix == ".json" else "\n".join(_yaml(config))
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _yaml(table: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Lines as a person would write them; a scalar's JSON is its YAML, too."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _yaml(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {json.dumps(value)}"


def _config(scenario: Scenario, base_url: str) -> dict[str, object]:
    provider = _PROVIDERS[scenario.provider.protocol]
    used = {
        "api_key": "key-to-nothing",
        "model": "scripted",
        "base_url": base_url,
        "protocol": scenario.provider.protocol,
        # A failed request is to be seen, not repeated in silence, unless failing is the point.
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
        "model_providers": {provider: used, **others},
    }


def _worker_alone(scratch: Path) -> str:
    """A folder in which only this package can be found."""
    folder = scratch / "worker"
    folder.mkdir()
    (folder / "trae_bench").symlink_to(Path(__file__).resolve().parents[1])
    return str(folder)


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
