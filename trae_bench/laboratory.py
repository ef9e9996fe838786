"""Puts the parts of a run together: from a wish to a run file.

The command line says what is wished for and shows what came of it; in between, here, the
scenarios are read, cells planned, the journal opened, the provider and the executor started
and the session run.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from secrets import randbits
from types import MappingProxyType

import msgspec
from msgspec import Struct

from trae_bench import callgrind, machine
from trae_bench.compare import comparisons, noise_floor, rule_of
from trae_bench.design import contrasts, is_fixed
from trae_bench.errors import AnswersDiffer, BadRunFile, BenchError, CannotMeasure, UsageError
from trae_bench.executors import FreshProcess
from trae_bench.in_process import Divided, InProcess
from trae_bench.lock import HostLock
from trae_bench.meters import METRICS
from trae_bench.plan import Cell, cells
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.scenario import Scenario, check, find, load, split
from trae_bench.session import Ending, Executor, Limits, Listener, Session, target
from trae_bench.store import (
    Contents,
    Header,
    Journal,
    Resumed,
    RunFile,
    ScenarioUsed,
    digest,
    now,
    read_journal,
    read_run,
    sealed,
    write_run,
)
from trae_bench.subject.reference import ReferenceSubject, toggles

Say = Callable[[str], None]
"""Tells the user one sentence that is not a result."""

RESULTS = Path("trae-bench-results")
JOURNAL_ENDING = ".journal.jsonl"


class Profile(Struct, frozen=True):
    """A kind of run: how long, how sure."""

    about: str
    scenarios: tuple[str, ...]
    budget: float | None
    """Seconds."""
    pairs: int | None
    noise_pairs: int
    claimed: bool = True
    """Verdicts may be claimed."""


FIXED_PAIRS = 8
"""Of each contrast in a two-level design, where none are asked for. Every effect is made from
many contrasts, so this is as good as many times as much."""

DEFAULT_SCENARIOS = ("bugfix", "fan-out")
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "smoke": Profile("2 pairs each, no verdicts", DEFAULT_SCENARIOS, 120.0, 2, 2, False),
        "quick": Profile("at most 4:30 minutes", DEFAULT_SCENARIOS, 270.0, None, 8),
        "full": Profile("until every question has its answer", DEFAULT_SCENARIOS, None, None, 24),
    }
)


class Wish(Struct, frozen=True, kw_only=True):
    """What the user asked for; None is the profile's own."""

    command: str
    """The command line as typed."""
    scenarios: tuple[str, ...] = ()
    toggles: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    profile: str = "quick"
    design: str = "add-one"
    budget: float | None = None
    pairs: int | None = None
    precision: float | None = None
    """Half-width of an interval (a fraction) at which a comparison ends."""
    seed: int | None = None


class Plan(Struct, frozen=True):
    """What will be run."""

    scenarios: dict[str, Scenario]
    used: dict[str, ScenarioUsed]
    cells: tuple[Cell, ...]
    limits: Limits
    left_out: tuple[str, ...] = ()
    """Scenarios that cannot feel any of the toggles asked for."""

    def pairs_of(self, cell: Cell) -> int:
        """Pairs that are run at most, the warming one included."""
        return target(cell, self.limits, METRICS) + 1

    @property
    def most_pairs(self) -> int:
        """Pairs of all cells, if no verdict comes before the last look."""
        return sum(map(self.pairs_of, self.cells))


class Result(Struct, frozen=True):
    """What a run left."""

    run: RunFile
    run_file: Path
    journal: Path
    error: BenchError | None
    """Why it ended before its time, or why it shows nothing."""

    @property
    def claimed(self) -> bool:
        profile = PROFILES.get(self.run.header.profile)
        return profile is None or profile.claimed


# -- planning ---------------------------------------------------------------------------


def unknown(kind: str, name: str, known: Collection[str]) -> UsageError:
    """Names what is not known, and the nearest names that are."""
    near = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return UsageError(f"no {kind} {name!r}; {hint}")


def plan(wish: Wish) -> Plan:
    """Read the scenarios and lay out the cells. Raises `UsageError`, `ScenarioError`."""
    profile = PROFILES[wish.profile]
    for name in wish.toggles:
        if name not in toggles():
            raise unknown("toggle", name, toggles())
    for name in wish.metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    asked = {name: _scenario(name) for name in wish.scenarios or profile.scenarios}
    found: dict[str, Scenario] = {}
    used: dict[str, ScenarioUsed] = {}
    planned: list[Cell] = []
    left_out: list[str] = []
    for name, original in asked.items():
        if original.name in found:
            raise UsageError(f"scenario {original.name!r} is asked for twice")
        scenario = _measuring(original, wish.metrics)
        compared = contrasts(scenario, only=wish.toggles, design=wish.design)
        of_scenario = cells(scenario, compared, METRICS)
        if not of_scenario:
            left_out.append(original.name)
            continue
        found[scenario.name] = scenario
        used[scenario.name] = ScenarioUsed(asked=name, digest=digest(original))
        planned += of_scenario
    if not planned:
        raise UsageError(_nothing_to_compare(asked.values()))
    return Plan(found, used, tuple(planned), _limits(wish, profile), tuple(left_out))


def _limits(wish: Wish, profile: Profile) -> Limits:
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


def _scenario(asked: str) -> Scenario:
    path = find(asked)
    scenario = load(path, split(asked)[1])
    check(scenario, toggles=toggles(), metrics=METRICS, source=path)
    return scenario


def _measuring(scenario: Scenario, metrics: Sequence[str]) -> Scenario:
    """The scenario with these metrics in place of its own, where any are named."""
    wanted = tuple(dict.fromkeys(metrics)) or scenario.metrics
    for name in wanted:
        if METRICS[name].probe == "callgrind" and not callgrind.available():
            raise UsageError(f"{name} needs valgrind, which is not on the PATH: install it")
    return msgspec.structs.replace(scenario, metrics=wanted)


def _nothing_to_compare(scenarios: Collection[Scenario]) -> str:
    told = "; ".join(f"{s.name} can feel {', '.join(s.toggles.vary)}" for s in scenarios)
    return f"nothing to compare: {told}"


# -- running ----------------------------------------------------------------------------


def start(wish: Wish, out: Path | None, *, force: bool, bench: "Bench") -> Result:
    """A new run. Raises `BenchError` where it could not begin."""
    planned = plan(wish)
    for name in planned.left_out:
        bench.say(f"{name} cannot feel {', '.join(wish.toggles)}: left out")
    run_file = out or RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}-{wish.profile}.json"
    if run_file.suffix != ".json":
        # The journal's name is made from it, and a resumed run goes back from that.
        raise UsageError(f"{run_file}: the name of a run file ends in .json")
    if run_file.exists() and not force:
        raise UsageError(f"{run_file} exists; name another file with --out, or give --force")
    with bench.lock():
        header = _header(wish, planned)
        if force:
            journal_of(run_file).unlink(missing_ok=True)
        with Journal.create(journal_of(run_file), header) as journal:
            return bench.measure(header, planned.scenarios, journal, run_file)


def _header(wish: Wish, planned: Plan) -> Header:
    return Header(
        created=now(),
        command=wish.command,
        profile=wish.profile,
        seed=randbits(32) if wish.seed is None else wish.seed,
        budget=planned.limits.budget,
        pairs=planned.limits.pairs,
        noise_pairs=planned.limits.noise_pairs,
        scenarios=planned.used,
        cells=planned.cells,
        metrics={name: METRICS[name] for cell in planned.cells for name in cell.metrics},
        rules={metric.mode: rule_of(metric) for metric in METRICS.values()},
        machine=dict(machine.fingerprint()),
        code=dict(machine.code_state()),
        versions=dict(machine.versions()),
        design=wish.design,
        precision=wish.precision,
    )


def resume(journal_file: Path, wish: Wish, out: Path | None, *, bench: "Bench") -> Result:
    """Go on with a run that was interrupted. Raises `BenchError` where it cannot be.

    Only the budget can be another one than before.
    """
    with bench.lock():
        # Only now: until the lock was free, another may have been writing to it.
        contents = read_journal(journal_file)
        header = contents.header
        scenarios = _same_scenarios(journal_file, header)
        _same_state(journal_file, header)
        if wish.budget is not None:
            header = msgspec.structs.replace(header, budget=wish.budget)
        run_file = out or run_of(journal_file)
        if run_file.exists() and not _is_of(run_file, header):
            raise UsageError(f"{run_file} exists and is another run's; name another with --out")
        if contents.dropped:
            bench.say("the journal ends within a pair, which is measured again")
        with Journal.reopen(journal_file, contents, Resumed(now(), wish.command)) as journal:
            return bench.measure(header, scenarios, journal, run_file, contents)


def journal_of(run_file: Path) -> Path:
    return run_file.with_name(run_file.name.removesuffix(".json") + JOURNAL_ENDING)


def run_of(journal_file: Path) -> Path:
    return journal_file.with_name(journal_file.name.removesuffix(JOURNAL_ENDING) + ".json")


def _same_scenarios(journal_file: Path, header: Header) -> dict[str, Scenario]:
    found = {}
    for name, used in header.scenarios.items():
        scenario = _scenario(used.asked)
        if digest(scenario) != used.digest:
            raise UsageError(
                f"{journal_file}: scenario {name!r} is not what it was when this run began; "
                f"restore {used.asked} or start a new run"
            )
        metrics = [m for cell in header.cells if cell.scenario == name for m in cell.metrics]
        found[name] = _measuring(scenario, metrics)
    return found


def _same_state(journal_file: Path, header: Header) -> None:
    """Samples of two machines, commits or sets of packages are not mixed in one run."""
    before = (header.machine, {"commit": header.code.get("commit")}, header.versions)
    here = (machine.fingerprint(), machine.code_state(), machine.versions())
    for old, new in zip(before, here, strict=True):
        for name, value in old.items():
            if name not in machine.CHANGING and new.get(name) != value:
                raise UsageError(
                    f"{journal_file}: {name} was {value!r} when this run began and is "
                    f"{new.get(name)!r} now; go back to that, or start a new run"
                )


def _is_of(run_file: Path, header: Header) -> bool:
    try:
        there = read_run(run_file).header
    except BadRunFile:
        return False
    return (there.created, there.seed) == (header.created, header.seed)


class Bench:
    """What runs are made on: lock, provider, executor, clock."""

    def __init__(
        self, say: Say, listener: Listener | None = None, *, keep_scratch: bool = False
    ) -> None:
        self.say = say
        self.listener = listener
        self._keep_scratch = keep_scratch

    def lock(self) -> HostLock:
        return HostLock(self.say)

    @contextmanager
    def executor(
        self, scenarios: Mapping[str, Scenario], keep: Path | None = None
    ) -> Iterator[Executor]:
        """Runs trials in fresh processes, against a provider of its own; those of scenarios
        whose transport is respx, in this one.

        The folders of all trials go to `keep`, where it is given.
        """
        subject = ReferenceSubject()
        with (
            _scratch() as scratch,
            Loopback(pin=machine.provider_core()) as provider,
            FreshProcess(
                subject,
                provider,
                scenarios,
                script=expand,
                scratch=scratch,
                duet_core=machine.duet_core(),
                keep=keep,
                keep_all=keep is not None,
            ) as executor,
            _and_in_process(executor, subject, scenarios, scratch / "in-process") as both,
        ):
            yield both

    def measure(
        self,
        header: Header,
        scenarios: Mapping[str, Scenario],
        journal: Journal,
        run_file: Path,
        earlier: Contents | None = None,
    ) -> Result:
        """Run the session and write the run file, whatever ended it."""
        limits = limits_of(header)
        keep = run_file.with_suffix(".scratch") if self._keep_scratch else None
        with self.executor(scenarios, keep) as executor:
            session = Session(
                header.cells,
                header.metrics,
                executor=executor,
                sink=journal,
                clock=time.monotonic,
                seed=header.seed,
                limits=limits,
                listener=self.listener,
            )
            if earlier is None:
                ending = session.run()
            else:
                ending = session.run(earlier.samples, earlier.spent)
        # The journal has the samples; those of a long run need not be in memory twice.
        ending = msgspec.structs.replace(ending, samples=())
        del session, earlier
        run = conclude(header, read_journal(journal.path), ending)
        error = ending.error or nothing_shown(run) or untrusted(run)
        try:
            # Only a run of this journal can be there: both callers have looked.
            write_run(run_file, run, force=True)
        except CannotMeasure as problem:
            error = ending.error or problem
        return Result(run, run_file, journal.path, error)


def limits_of(header: Header) -> Limits:
    """What a run was, or is, allowed."""
    return Limits(
        budget=header.budget,
        pairs=header.pairs,
        noise_pairs=header.noise_pairs,
        fixed=is_fixed(header.design),
        precision=header.precision,
    )


def conclude(header: Header, contents: Contents, ending: Ending) -> RunFile:
    """The run file of a journal."""
    rows = comparisons(contents.samples, header.cells, header.metrics)
    run = RunFile(
        header=header,
        stopped=ending.stopped,
        elapsed=ending.elapsed,
        noise=tuple(noise_floor(rows, header.metrics)),
        comparisons=tuple(rows),
        samples=contents.samples,
        resumed=contents.resumed,
    )
    return sealed(run)


def nothing_shown(run: RunFile) -> BenchError | None:
    """Why this run has nothing to say, where it has not; an interrupted one is excused."""
    if run.stopped == "interrupted":
        return None
    for row in run.comparisons:
        if not row.pairs.measured and row.pairs.answers_differ:
            return AnswersDiffer(
                f"{row.scenario}, {row.contrast}: the two sides gave different answers in every "
                f"pair ({row.pairs.reasons[0]}); a toggle must not change the answer"
            )
    if any(row.pairs.measured for row in run.comparisons):
        return None
    reasons = [reason for row in run.comparisons for reason in row.pairs.reasons]
    return CannotMeasure(f"no pair could be measured: {reasons[0] if reasons else 'no time'}")


def untrusted(run: RunFile) -> BenchError | None:
    """Why a metric of this run cannot be judged at all: its equal sides do not come out equal."""
    for floor in run.noise:
        if floor.standing == "sides differ":
            off = math.expm1(min(floor.mean, 700))
            return CannotMeasure(
                f"{floor.scenario}, {floor.metric}: in {floor.pairs} A/A pairs B is {off:+.1%} off "
                "A, though both are the same; no verdict on it can be trusted, see "
                "`trae-bench doctor`"
            )
    return None


@contextmanager
def _and_in_process(
    usual: Executor, subject: ReferenceSubject, scenarios: Mapping[str, Scenario], scratch: Path
) -> Iterator[Executor]:
    mocked = {name for name, one in scenarios.items() if one.provider.transport == "respx"}
    if not mocked:
        yield usual
        return
    # An extra, and slow to import.
    from trae_bench.provider.respx_mock import RespxProvider

    with RespxProvider() as provider:
        here = InProcess(subject, provider, scenarios, script=expand, scratch=scratch)
        yield Divided(usual, here, mocked)


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="trae-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
