"""From a request to a plan: scenarios, revisions, cells and limits.

The plan is complete before anything runs, so `--dry-run` shows all of it.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct

from trae_bench._util import cpu_affinity
from trae_bench.design.contrasts import is_fixed
from trae_bench.design.plan import planned_cells
from trae_bench.errors import UsageError
from trae_bench.execution import callgrind, run_delay
from trae_bench.metrics import (
    AGENT_METRICS,
    GATE_METRICS,
    METRICS,
    NET_METRICS,
    PROCESS_METRICS,
    REPORTED_METRICS,
    metrics_for_host,
    plain_metric,
)
from trae_bench.model.aliases import OLD_METRIC_NAMES, current_metric
from trae_bench.model.experiment import Cell, Equal, Limits, Metric
from trae_bench.model.presets import PROFILES, Profile
from trae_bench.model.run import RevisionId, RevisionPair, RunFile, ScenarioUsed
from trae_bench.run.gate_base import GateBase
from trae_bench.run.settings import Settings, apply
from trae_bench.scenario import ALL, Scenario, check, every_scenario, find, load, split
from trae_bench.stats.head_runs import WANTED
from trae_bench.stats.stopping import target
from trae_bench.subject.agent_core import PACKAGE, brought, extras, toggles, toggles_at, tools
from trae_bench.subject.agents.catalog import FoundAgent
from trae_bench.subject.agents.entry import AgentEntry
from trae_bench.subject.command import unplayable
from trae_bench.subject.revisions import Revision, require_python, same_code, same_files

FIXED_PAIRS = 8
"""Default pairs of each contrast in a two-level design. Each effect is estimated from many
contrasts, so 8 pairs give as much precision as many more would for a single contrast."""


class RunRequest(Struct, frozen=True, kw_only=True):
    """What the user asks for. None stands for the profile's own value."""

    command: str
    """The command line as typed."""
    scenarios: tuple[str, ...] = ()
    toggles: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    """Patterns of comparisons; see `design.cells.only`. None stands for all comparisons."""
    profile: str = "quick"
    design: str = "add-one"
    budget: float | None = None
    pairs: int | None = None
    precision: float | None = None
    """Half-width of an interval (a fraction) at which a comparison stops."""
    seed: int | None = None
    settings: Settings = Settings()
    """Of the base, if two revisions are compared."""
    compare: GateBase | None = None
    """The base revision to compare the working tree with. None compares toggles instead."""
    head: str | None = None
    """The commit that is compared with the base. None stands for the working tree."""
    stored: RunFile | None = None
    """A stored run that the results are compared with afterwards."""
    agents: dict[str, FoundAgent] = {}
    """The agents to compare, the baseline first; with `compare`, the one whose revisions are
    compared. None stands for agent_core."""
    equal: Equal | None = None
    """What both sides must have equal; None for what the entries say."""
    prices: Path | None = None
    """A file of prices; None for that of the settings, or the one that ships."""

    @property
    def price_file(self) -> str:
        """The name of the file of prices; empty for the one that ships."""
        return str(self.prices or self.settings.prices or "")


class Checkouts(Struct, frozen=True):
    """Two revisions to compare, each checked out into a folder."""

    top: Path
    """The root of the repository."""
    base: Revision
    head: Revision
    requested: str
    """The base as the user named it."""
    base_toggles: frozenset[str] | None
    """The toggles that the base has; None if it does not list them."""
    notes: tuple[str, ...] = ()
    """Sentences for the report: what head changes without effect, and equal sides."""

    @property
    def pair(self) -> RevisionPair:
        """The two revisions as a run file stores them."""
        notes = self.notes or msgspec.UNSET
        return RevisionPair(_id(self.base), _id(self.head), self.requested, notes=notes)

    def held_by_base(self, hold: Mapping[str, bool]) -> dict[str, bool]:
        """The toggles of a scenario that the base can hold: those that it has."""
        known = self.base_toggles
        return {name: on for name, on in hold.items() if known is None or name in known}


def _id(revision: Revision) -> RevisionId:
    return RevisionId(revision.name, revision.commit, revision.modified)


class Plan(Struct, frozen=True):
    """What a run will do."""

    scenarios: dict[str, Scenario]
    used: dict[str, ScenarioUsed]
    cells: tuple[Cell, ...]
    limits: Limits
    metrics: Mapping[str, Metric]
    """All metrics, with the thresholds of the settings."""
    left_out: tuple[str, ...] = ()
    """One sentence for each requested scenario or toggle that is not run, with the reason."""
    checkouts: Checkouts | None = None
    agents: dict[str, FoundAgent] = {}

    def pairs_of(self, cell: Cell) -> int:
        """The maximum number of pairs of a cell, including the warm-up pair."""
        return target(cell, self.limits, self.metrics) + 1

    @property
    def max_pairs(self) -> int:
        """Pairs of all cells if no verdict stops one early, without confirmation pairs."""
        return sum(self.pairs_of(cell) for cell in self.cells if not cell.confirms)


def unknown(kind: str, name: str, known: Collection[str]) -> UsageError:
    """The error for an unknown name. It suggests the nearest known names."""
    near = get_close_matches(name, known, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return UsageError(f"no {kind} {name!r}; {hint}")


def plan(request: RunRequest) -> Plan:
    """Read the scenarios, check out the revisions if any, and generate the cells.

    Raises `UsageError` and `ScenarioError` for a bad request, `CannotMeasure` if a revision
    cannot be checked out.
    """
    _require_known("toggle", request.toggles, toggles())
    _require_compatible(request)
    _require_known("metric", [current_metric(name) for name in request.metrics], METRICS)
    profile = PROFILES[request.profile]
    names = request.scenarios or request.settings.scenarios or profile.scenarios
    requested = _requested(names, request.compare)
    excluded = {
        name: reason for name, one in requested.items() if (reason := _reason_to_skip(one, request))
    }
    playable = {name: one for name, one in requested.items() if name not in excluded}
    if request.stored is not None:
        _require_overlap([one.name for one in playable.values()], request.stored)
    checkouts = _checkouts(request, list(requested))
    metrics = apply(request.settings, metrics_for_host(pinned=bool(cpu_affinity.cores())))
    limits = _limits(request, profile)
    used = {
        scenario.name: _used(name, scenario, request, checkouts)
        for name, scenario in playable.items()
    }
    cells = planned_cells(
        used,
        metrics,
        limits,
        design=request.design,
        filters=request.filters,
        revisions=None if checkouts is None else checkouts.pair,
        agents=tuple(request.agents),
    )
    if not cells:
        raise UsageError(f"nothing to compare: {'; '.join(excluded.values())}")
    planned = {cell.scenario for cell in cells}
    ignored = filter(None, (_unvaried(one, request) for one in playable.values()))
    return Plan(
        scenarios={
            one.name: for_cells(one, cells) for one in playable.values() if one.name in planned
        },
        used={name: scenario for name, scenario in used.items() if name in planned},
        cells=tuple(cells),
        limits=limits,
        metrics=metrics,
        left_out=(*excluded.values(), *ignored, *_replaced(playable.values(), request)),
        checkouts=checkouts,
        agents=request.agents,
    )


def _used(
    name: str, scenario: Scenario, request: RunRequest, checkouts: Checkouts | None
) -> ScenarioUsed:
    """What the cells of a scenario are generated from. `name` is what the user asked for."""
    own: Iterable[str] = agent_metrics(scenario) if request.agents else scenario.metrics
    if checkouts is not None:
        own = (GATE_METRICS.get(name, name) for name in own)
    own = own if _delay_problem() is None else map(plain_metric, own)
    metrics = with_metrics(scenario, request.metrics or tuple(dict.fromkeys(own))).metrics
    vary, hold = scenario.toggles.vary, scenario.toggles.hold
    if request.agents:
        return ScenarioUsed(name, digest(scenario), metrics, (), {}, {} if checkouts else None)
    if checkouts is not None:
        # Both revisions run with their own defaults, except for what the scenario holds.
        baseline = checkouts.held_by_base(hold)
        return ScenarioUsed(name, digest(scenario), metrics, (), baseline, dict(hold))
    varied = tuple(name for name in vary if not request.toggles or name in request.toggles)
    baseline = {**dict.fromkeys(vary, False), **hold}
    return ScenarioUsed(name, digest(scenario), metrics, varied, baseline)


def agent_metrics(scenario: Scenario) -> tuple[str, ...]:
    """The metrics of a scenario that need no report of the agent, and those of every agent."""
    own = (name for name in scenario.metrics if name not in REPORTED_METRICS)
    return tuple(dict.fromkeys((*AGENT_METRICS, *own)))


def _delay_problem() -> str | None:
    """Why net times cannot be measured on this host; None if they can."""
    if not cpu_affinity.cores():
        return "processes cannot be pinned to a core"
    return run_delay.unavailable()


def _replaced(scenarios: Iterable[Scenario], request: RunRequest) -> Iterator[str]:
    """A sentence if the scenarios' net times are replaced by the plain ones."""
    named = sorted({name for one in scenarios for name in one.metrics} & NET_METRICS)
    if named and not request.metrics and (problem := _delay_problem()) is not None:
        yield f"{', '.join(named)}: {problem}; the plain times are measured in serial pairs instead"


def _require_known(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _require_compatible(request: RunRequest) -> None:
    """Raises `UsageError` for toggles or designs together with revisions or agents."""
    of_toggles = request.toggles or request.design != "add-one"
    if request.agents and of_toggles:
        raise UsageError(
            "--agent compares agents, which have no toggles; remove --toggle and --design, or "
            "remove --agent"
        )
    if request.compare is not None and of_toggles:
        raise UsageError(
            "--compare runs both revisions with their defaults; remove --toggle and --design, or "
            "remove --compare"
        )
    if request.compare is not None and len(request.agents) > 1:
        raise UsageError("--compare compares two revisions of one agent; give one --agent")


def _require_overlap(names: Collection[str], stored: RunFile) -> None:
    """Raises `UsageError` before the first pair if the stored run has none of the scenarios."""
    available = stored.header.scenarios
    if names and available.keys().isdisjoint(names):
        raise UsageError(
            f"nothing to compare: the stored run has {', '.join(available)}, and none of these is "
            "requested"
        )


def _requested(names: Sequence[str], base: GateBase | None) -> dict[str, Scenario]:
    """Scenarios by the name that the user gave. Raises `UsageError` for a duplicate."""
    expanded = (name for argument in names for name in _expanded(argument))
    requested = {name: scenario_of(name, base) for name in expanded}
    seen: dict[str, str] = {}
    for name, scenario in requested.items():
        if (before := seen.setdefault(scenario.name, name)) != name:
            raise UsageError(
                f"scenario {scenario.name!r} is requested twice, as {before} and as {name}; remove "
                "one"
            )
    return requested


def _expanded(argument: str) -> list[str]:
    return [scenario.name for scenario in every_scenario()] if argument == ALL else [argument]


# -- what cannot be compared ------------------------------------------------------------


def _reason_to_skip(scenario: Scenario, request: RunRequest) -> str:
    """Why this scenario has nothing to compare; empty if it has."""
    if request.agents:
        reasons = (unplayable(scenario, *one) for one in _entries(request))
        return next(filter(None, reasons), "")
    # Revisions run with their defaults: the scenario's toggles are not varied.
    return _without_sides(scenario, request) or lacking(scenario, varied=request.compare is None)


def _entries(request: RunRequest) -> Iterator[tuple[str, AgentEntry]]:
    return ((name, found.entry) for name, found in request.agents.items())


def _without_sides(scenario: Scenario, request: RunRequest) -> str:
    if request.compare is None:
        if not scenario.toggles.vary:
            return f"{scenario.name} varies no toggle"
        if not request.toggles or set(request.toggles) & set(scenario.toggles.vary):
            return ""
        return _unvaried(scenario, request)
    if scenario.provider.transport == "respx":
        return f"{scenario.name} runs in the process of trae-bench, which has only one revision"
    if scenario.subject.install is not None:
        return f"{scenario.name} measures installed packages, not a revision"
    return ""


def _unvaried(scenario: Scenario, request: RunRequest) -> str:
    """The requested toggles that this scenario does not exercise; empty if it exercises all."""
    varied = scenario.toggles.vary
    ignored = [name for name in request.toggles if name not in varied]
    if not ignored:
        return ""
    return f"{scenario.name} does not exercise {', '.join(ignored)}, only {', '.join(varied)}"


def lacking(scenario: Scenario, *, varied: bool = True) -> str:
    """What must be installed before this scenario can be played; empty if nothing is missing."""
    absent = missing(scenario, varied=varied)
    if not absent:
        return ""
    return (
        f"{scenario.name} needs packages that are not installed ({', '.join(absent.values())}); "
        f"pip install 'trae-bench[{','.join(absent)}]'"
    )


def missing(scenario: Scenario, *, varied: bool = True) -> dict[str, str]:
    """The extras that this scenario needs and that are missing, each with its absent module.

    `varied` tells whether its toggles are off on at least one side.
    """
    if scenario.subject.install is not None:
        # It creates its own environments.
        return {}
    off = dict.fromkeys(scenario.toggles.vary if varied else (), False) | scenario.toggles.hold
    needed = {
        **({"tls": "trustme"} if scenario.provider.tls else {}),
        **({"mock": "respx"} if scenario.provider.transport == "respx" else {}),
        **brought(scenario, off),
    }
    return {extra: module for extra, module in needed.items() if not _is_installed(module)}


def _is_installed(module: str) -> bool:
    # For `google.genai` this imports the namespace `google`, which may itself be missing.
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# -- revisions --------------------------------------------------------------------------


EXPLICIT_HEAD = ("HEAD", "@")
"""Bases that ask for a comparison of equal sides."""


def _checkouts(request: RunRequest, scenarios: Sequence[str]) -> Checkouts | None:
    if (source := request.compare) is None:
        return None
    base = source.repository.at(source.commit)
    head = source.repository.head() if request.head is None else source.repository.at(request.head)
    if base == head and source.requested not in EXPLICIT_HEAD:
        raise UsageError(
            f"nothing to compare: the working tree equals {source.requested}; name a base, for "
            "example --compare HEAD~1, or --compare HEAD to measure equal sides"
        )
    notes = [*source.notes, *_scenario_notes(scenarios, source)]
    if request.agents:
        same, what = same_files(base, head), "files"
    else:
        require_python(base, "base")
        require_python(head, "head")
        same, what = same_code(base, head, PACKAGE), PACKAGE
    if same:
        notes.append(f"base and head have the same {what}: this run compares equal sides")
    return Checkouts(
        source.repository.top, base, head, source.requested, toggles_at(base.folder), tuple(notes)
    )


def _scenario_notes(names: Sequence[str], base: GateBase) -> Iterator[str]:
    """One sentence for each scenario file that differs between base and head."""
    for name in names:
        if (of_base := base.scenario(name)) is None:
            if split(name)[0].endswith(".toml"):
                yield f"the base has no scenario file {name}; head's file is used"
            continue
        try:
            same = digest(load(find(name), split(name)[1])) == digest(of_base)
        except UsageError:
            same = False
        if not same:
            yield f"head changes the scenario file {name}; the base's file is used"


# -- limits -----------------------------------------------------------------------------


def _limits(request: RunRequest, profile: Profile) -> Limits:
    fixed = is_fixed(request.design)
    if fixed and request.precision is not None:
        raise UsageError(
            f"--precision does not work with --design {request.design}, whose contrasts all take "
            "the same number of pairs; use --pairs"
        )
    limits = profile.limits
    pairs = limits.pairs if request.pairs is None else request.pairs
    alone = len(request.agents) == 1 and request.compare is None
    return Limits(
        budget=limits.budget if request.budget is None else request.budget,
        pairs=FIXED_PAIRS if fixed and pairs is None else pairs,
        # The figures of a single agent come from its A/A pairs.
        noise_pairs=pairs or FIXED_PAIRS if alone else limits.noise_pairs,
        fixed=fixed,
        precision=request.precision,
        checked=WANTED if request.compare is not None and profile.claimed else UNSET,
    )


# -- scenarios --------------------------------------------------------------------------


def scenario_of(name: str, base: GateBase | None = None) -> Scenario:
    """Load a scenario by its name or file; a file of the base from there.

    Raises `UsageError` and `ScenarioError`.
    """
    scenario = None if base is None else base.scenario(name)
    if scenario is None:
        path = find(name)
        scenario = load(path, split(name)[1])
    else:
        path = Path(name)
    check_names(scenario, path)
    return msgspec.structs.replace(scenario, metrics=_current(scenario.metrics))


def _current(metrics: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(current_metric, metrics)))


def digest(scenario: Scenario) -> str:
    """SHA-256 of a scenario's content."""
    return hashlib.sha256(msgspec.json.encode(scenario, order="sorted")).hexdigest()


def check_names(scenario: Scenario, source: Path) -> None:
    """Check the names in a scenario: tools, toggles, metrics and extras.

    `source` is its file. Raises `ScenarioError`.
    """
    check(
        scenario,
        tools=tools(),
        toggles=toggles(),
        metrics=[*METRICS, *OLD_METRIC_NAMES],
        extras=extras(),
        source=source,
    )


def with_metrics(scenario: Scenario, metrics: Sequence[str]) -> Scenario:
    """The scenario with these metrics instead of its own; unchanged if `metrics` is empty."""
    wanted = _current(metrics) or scenario.metrics
    # A journal may name a metric that this release does not have.
    _require_known("metric", wanted, METRICS)
    for name in wanted:
        _require_available(name)
    needs_cgroup = sorted(NET_METRICS.intersection(wanted))
    if needs_cgroup and (problem := _delay_problem()) is not None:
        raise UsageError(
            f"{', '.join(needs_cgroup)}: {problem}; remove the metric, or run as root or under "
            "systemd-run --user --scope"
        )
    found = msgspec.structs.replace(scenario, metrics=wanted)
    check(found)
    return found


def _require_available(metric: str) -> None:
    """Raises `UsageError` if this host cannot take the metric."""
    # Commands that only list import this module.
    from trae_bench.execution import process_events, tree_memory

    probe = METRICS[metric].probe
    if probe == "callgrind" and not callgrind.available():
        raise UsageError(f"{metric} needs valgrind, which is not on the PATH: install it")
    if probe == "tree" and (problem := tree_memory.unavailable()) is not None:
        raise UsageError(f"{metric}: {problem}; remove the metric")
    if metric in PROCESS_METRICS and (problem := process_events.unavailable()) is not None:
        raise UsageError(
            f"{metric}: {problem}; remove the metric, or run as root, or set "
            "kernel.perf_event_paranoid to 0"
        )


def for_cells(scenario: Scenario, cells: Sequence[Cell]) -> Scenario:
    """The scenario with the metrics that its cells take."""
    own = (cell.metrics for cell in cells if cell.scenario == scenario.name)
    return with_metrics(scenario, [name for metrics in own for name in metrics])
