"""From a wish to a plan: which scenarios, which arms, which cells, and how long.

Nothing is run here. Where revisions are compared, both are laid out, so that the plan can name
them.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from trae_bench._util import host_facts
from trae_bench.design.cells import cells, confirming, only
from trae_bench.design.contrasts import NOISE_FLOOR, contrasts, is_fixed
from trae_bench.errors import UsageError
from trae_bench.execution import callgrind
from trae_bench.metrics import METRICS, taken
from trae_bench.model.experiment import Arm, Cell, Contrast, Limits, Metric
from trae_bench.model.presets import PROFILES, Profile
from trae_bench.model.run import Compared, RunFile, ScenarioUsed
from trae_bench.run.settings import Settings, apply
from trae_bench.scenario import ALL, Scenario, catalogue, check, every_scenario, find, load, split
from trae_bench.stats.stopping import target
from trae_bench.storage.run_file import digest
from trae_bench.subject.agent_core import PACKAGE, brought, extras, toggles, toggles_at, tools
from trae_bench.subject.revisions import Repository, Revision

FIXED_PAIRS = 8
"""Of each contrast in a two-level design, where none are asked for. Every effect is made from
many contrasts, so this is as good as many times as much."""


class RunRequest(Struct, frozen=True, kw_only=True):
    """What the user asked for; None is the profile's own."""

    command: str
    """The command line as typed."""
    scenarios: tuple[str, ...] = ()
    toggles: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    """Patterns of comparisons, as `plan.only` takes them; none is for all."""
    profile: str = "quick"
    design: str = "add-one"
    budget: float | None = None
    pairs: int | None = None
    precision: float | None = None
    """Half-width of an interval (a fraction) at which a comparison ends."""
    seed: int | None = None
    settings: Settings = Settings()
    compare: str | None = None
    """The base that the working tree is compared with; empty for where it left the default
    branch, None for no base: then toggles are compared."""
    stored: RunFile | None = None
    """A stored run that the figures of this one are compared with afterwards."""


HEAD = "head"
"""Name of the contrast between two revisions, and of its side B."""


class Sides(Struct, frozen=True):
    """Two revisions that are compared, laid out."""

    base: Revision
    head: Revision
    said: str
    """What the base was asked for as."""
    base_toggles: frozenset[str] | None
    """Those that the base knows; None where it does not tell."""

    def arms(self, scenario: Scenario) -> tuple[Arm, Arm]:
        """Both as their users get them: each with its own defaults, but for what the scenario
        holds. What the base does not know it cannot hold."""
        hold, known = scenario.toggles.hold, self.base_toggles
        of_base = {name: on for name, on in hold.items() if known is None or name in known}
        return Arm("base", of_base, self.base.name), Arm(HEAD, hold, self.head.name)

    @property
    def compared(self) -> Compared:
        return Compared(
            base=self.base.name,
            base_commit=self.base.commit,
            said=self.said,
            head=self.head.name,
            head_commit=self.head.commit,
            changed=self.head.changed,
        )


class Plan(Struct, frozen=True):
    """What will be run."""

    scenarios: dict[str, Scenario]
    used: dict[str, ScenarioUsed]
    cells: tuple[Cell, ...]
    limits: Limits
    metrics: Mapping[str, Metric]
    """All that are known, with the thresholds of the settings."""
    left_out: tuple[str, ...] = ()
    """Why a scenario, or a toggle of those that are asked for, is not run, one sentence each."""
    sides: Sides | None = None

    def pairs_of(self, cell: Cell) -> int:
        """Pairs that are run at most, the warming one included."""
        return target(cell, self.limits, self.metrics) + 1

    @property
    def most_pairs(self) -> int:
        """Pairs of all cells, if no verdict comes before the last look. Those that would confirm
        a regression are left out."""
        return sum(self.pairs_of(cell) for cell in self.cells if not cell.confirms)


def unknown(kind: str, name: str, known: Collection[str]) -> UsageError:
    """Names what is not known, and the nearest names that are."""
    near = get_close_matches(name, known, cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return UsageError(f"no {kind} {name!r}; {hint}")


def plan(wish: RunRequest) -> Plan:
    """Read the scenarios and lay out the cells, and the revisions where some are compared.

    Raises `UsageError`, `ScenarioError`; `CannotMeasure` where a revision cannot be laid out.
    """
    _hold_to("toggle", wish.toggles, toggles())
    _hold_to("metric", wish.metrics, METRICS)
    profile = PROFILES[wish.profile]
    asked = _asked(wish.scenarios or wish.settings.scenarios or profile.scenarios)
    left_out = {name: why for name, one in asked.items() if (why := _out_of_reach(one, wish))}
    felt = {name: one for name, one in asked.items() if name not in left_out}
    if wish.stored is not None:
        _hold_to_stored([one.name for one in felt.values()], wish.stored)
    sides, metrics = _sides(wish), apply(wish.settings, taken(pinned=bool(host_facts.cores())))
    planned = [
        cell
        for scenario in felt.values()
        for cell in _cells(with_metrics(scenario, wish.metrics), wish, sides, metrics)
    ]
    if not planned:
        raise UsageError(f"nothing to compare: {'; '.join(left_out.values())}")
    if wish.only:
        planned = only(planned, wish.only)
    if sides is not None:
        compared = [cell for cell in planned if cell.contrast.name != NOISE_FLOOR]
        planned += map(confirming, compared)
    limits = _limits(wish, profile)
    if not limits.noise_pairs:
        planned = [cell for cell in planned if cell.contrast.name != NOISE_FLOOR]
    named = {cell.scenario for cell in planned}
    kept = {name: scenario for name, scenario in asked.items() if scenario.name in named}
    return Plan(
        scenarios={one.name: for_cells(one, planned) for one in kept.values()},
        used={one.name: ScenarioUsed(name, digest(one)) for name, one in kept.items()},
        cells=tuple(planned),
        limits=limits,
        metrics=metrics,
        left_out=(*left_out.values(), *filter(None, (_unfelt(one, wish) for one in felt.values()))),
        sides=sides,
    )


def _hold_to(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def _hold_to_stored(names: Collection[str], stored: RunFile) -> None:
    """Raises `UsageError` before the first pair where none could be held to the stored run."""
    there = stored.header.scenarios
    if names and there.keys().isdisjoint(names):
        raise UsageError(
            f"nothing to compare: the stored run is of {', '.join(there)}, and none of these is "
            "asked for"
        )


def _asked(names: Sequence[str]) -> dict[str, Scenario]:
    """Scenarios by what they were asked for as. Raises `UsageError` where one is meant twice."""
    asked = {name: scenario_of(name) for each in names for name in _named(each)}
    seen: dict[str, str] = {}
    for said, scenario in asked.items():
        if (before := seen.setdefault(scenario.name, said)) != said:
            raise UsageError(
                f"scenario {scenario.name!r} is asked for twice, as {before} and as {said}; leave "
                "one out"
            )
    return asked


def _out_of_reach(scenario: Scenario, wish: RunRequest) -> str:
    """Why there is nothing to compare on this scenario; empty where there is."""
    # Revisions have the defaults of their users, whatever the scenario could vary.
    return _without_sides(scenario, wish) or lacking(scenario, varied=wish.compare is None)


def _without_sides(scenario: Scenario, wish: RunRequest) -> str:
    if wish.compare is None:
        if not scenario.toggles.vary:
            return f"{scenario.name} varies no toggle"
        if not wish.toggles or set(wish.toggles) & set(scenario.toggles.vary):
            return ""
        return _unfelt(scenario, wish)
    if scenario.provider.transport == "respx":
        return f"{scenario.name} runs in the bench's own process, which has one revision only"
    if scenario.subject.install is not None:
        return f"{scenario.name} weighs what is installed, not what a revision does"
    return ""


def _unfelt(scenario: Scenario, wish: RunRequest) -> str:
    """Which of the toggles that are asked for this scenario cannot feel; empty where it can all."""
    can = scenario.toggles.vary
    lost = [name for name in wish.toggles if name not in can]
    return f"{scenario.name} cannot feel {', '.join(lost)}, only {', '.join(can)}" if lost else ""


def lacking(scenario: Scenario, *, varied: bool = True) -> str:
    """What has to be installed before this scenario can be played; empty where all is there."""
    lost = missing(scenario, varied=varied)
    if not lost:
        return ""
    return (
        f"{scenario.name} needs what is not installed here ({', '.join(lost.values())}); "
        f"pip install 'trae-bench[{','.join(lost)}]'"
    )


def missing(scenario: Scenario, *, varied: bool = True) -> dict[str, str]:
    """The extras that this scenario needs and that are not here, each with the module it lacks.

    `varied` is for the toggles that it can feel being off on one side at least.
    """
    if scenario.subject.install is not None:
        # It makes environments of its own.
        return {}
    off = dict.fromkeys(scenario.toggles.vary if varied else (), False) | scenario.toggles.hold
    needed = {
        **({"tls": "trustme"} if scenario.provider.tls else {}),
        **({"mock": "respx"} if scenario.provider.transport == "respx" else {}),
        **brought(scenario, off),
    }
    return {extra: module for extra, module in needed.items() if not _is_there(module)}


def _is_there(module: str) -> bool:
    # For `google.genai` this imports `google`, an empty namespace, which may be missing itself.
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _cells(
    scenario: Scenario, wish: RunRequest, sides: Sides | None, metrics: Mapping[str, Metric]
) -> list[Cell]:
    if sides is None:
        compared = contrasts(scenario, only=wish.toggles, design=wish.design)
        return cells(scenario, compared, metrics)
    return cells(scenario, _revisions(scenario, sides), metrics)


def _revisions(scenario: Scenario, sides: Sides) -> list[Contrast]:
    base, head = sides.arms(scenario)
    return [
        # Base: noise that a change brings in must not take its own metric out of the gate.
        Contrast(scenario.name, NOISE_FLOOR, base, base),
        Contrast(scenario.name, HEAD, base, head),
    ]


def _sides(wish: RunRequest) -> Sides | None:
    if wish.compare is None:
        return None
    if wish.toggles or wish.design != "add-one":
        raise UsageError(
            "--compare takes both revisions as their users get them; leave --toggle and --design "
            "out, or leave --compare out"
        )
    repository = Repository.around(Path.cwd(), PACKAGE)
    commit, said = _base(repository, wish.compare, wish.settings.default_branch)
    base, head = repository.at(commit), repository.head()
    if not wish.compare and base == head:
        raise UsageError(
            f"nothing to compare: the working tree is {said}, without a change; name a base, such "
            "as --compare HEAD~1"
        )
    return Sides(base, head, said, toggles_at(base.folder))


def _base(repository: Repository, asked: str, branch: str | None) -> tuple[str, str]:
    """The commit to compare with, and what to call it."""
    if not asked:
        commit, found = repository.merge_base(branch)
        return commit, f"the merge base with {found}"
    named = split(asked)[0]
    if not repository.has(asked) and (named in catalogue() or Path(named).suffix == ".toml"):
        raise UsageError(
            f"{asked!r} is a scenario, no commit; name scenarios first (run {asked} --compare), or "
            "write --compare=REF"
        )
    return repository.commit(asked), asked


def _limits(wish: RunRequest, profile: Profile) -> Limits:
    fixed = is_fixed(wish.design)
    if fixed and wish.precision is not None:
        raise UsageError(
            f"--repeat-until cannot go with --design {wish.design}, whose contrasts all take the "
            "same number of pairs; set it with --pairs"
        )
    pairs = profile.pairs if wish.pairs is None else wish.pairs
    return Limits(
        budget=profile.budget if wish.budget is None else wish.budget,
        pairs=FIXED_PAIRS if fixed and pairs is None else pairs,
        noise_pairs=profile.noise_pairs,
        fixed=fixed,
        precision=wish.precision,
    )


def _named(asked: str) -> list[str]:
    return [scenario.name for scenario in every_scenario()] if asked == ALL else [asked]


def scenario_of(asked: str) -> Scenario:
    """A scenario by its name or file. Raises `UsageError`, `ScenarioError`."""
    path = find(asked)
    scenario = load(path, split(asked)[1])
    check_names(scenario, path)
    return scenario


def check_names(scenario: Scenario, source: Path) -> None:
    """Hold the names in a scenario to those that the agent and this laboratory know.

    `source` is the file it came from. Raises `ScenarioError`.
    """
    check(
        scenario,
        tools=tools(),
        toggles=toggles(),
        metrics=METRICS,
        extras=extras(),
        source=source,
    )


def with_metrics(scenario: Scenario, metrics: Sequence[str]) -> Scenario:
    """The scenario with these metrics in place of its own, where any are named."""
    wanted = tuple(dict.fromkeys(metrics)) or scenario.metrics
    # A journal may name what this release does not measure.
    _hold_to("metric", wanted, METRICS)
    for name in wanted:
        if METRICS[name].probe == "callgrind" and not callgrind.available():
            raise UsageError(f"{name} needs valgrind, which is not on the PATH: install it")
    found = msgspec.structs.replace(scenario, metrics=wanted)
    check(found)
    return found


def for_cells(scenario: Scenario, cells: Sequence[Cell]) -> Scenario:
    """The scenario with the metrics that some cells, its own among them, take of it."""
    of_it = (cell.metrics for cell in cells if cell.scenario == scenario.name)
    return with_metrics(scenario, [name for metrics in of_it for name in metrics])
