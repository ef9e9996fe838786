"""Runs a plan and writes the run file.

`planner.py` makes the plan. This module opens the journal, starts the provider and the executor,
runs the scheduler, and writes the run file whatever ended the run.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import randbits

import msgspec
from msgspec import UNSET, Struct

from trae_bench._util import code_version, cpu_affinity, host_facts
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.design.plan import revision_arms
from trae_bench.errors import AnswersDiffer, BadRunFile, BenchError, CannotMeasure, UsageError
from trae_bench.execution import process_events, run_delay
from trae_bench.execution.executor_router import ExecutorRouter
from trae_bench.execution.host_lock import HostLock
from trae_bench.execution.in_process import InProcessExecutor
from trae_bench.execution.ports import Executor, Subject
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Equal, Trial
from trae_bench.model.presets import is_claimed
from trae_bench.model.run import (
    FORMAT,
    VERSION,
    AgentUsed,
    Header,
    Resumed,
    RevisionId,
    RevisionPair,
    RunFile,
)
from trae_bench.prompt import Accounting
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.run import price_file
from trae_bench.run.agents import AgentRevisions, PreparedAgents, prepare, require_same, script_for
from trae_bench.run.gate_base import GateBase
from trae_bench.run.planner import Plan, RunRequest, digest, for_cells, plan, scenario_of
from trae_bench.run.scheduler import Ending, Listener, Scheduler
from trae_bench.run.scratch import scratch_folder
from trae_bench.run.settings import find_agents_here
from trae_bench.scenario import Scenario
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.metric_rules import rule_of
from trae_bench.stats.noise import noise_floor
from trae_bench.storage.journal import Contents, Journal, read_journal, whole_pairs
from trae_bench.storage.run_file import read_run, write_run
from trae_bench.storage.seal import sealed
from trae_bench.subject.agent_core import PACKAGE, AgentCoreSubject
from trae_bench.subject.agents.catalog import is_name
from trae_bench.subject.command import CommandSubject, scenario_for
from trae_bench.subject.install.environments import Installs, provide
from trae_bench.subject.revisions import Repository, Revision, with_interpreters
from trae_bench.verdicts.gate import bias_message, remedy_for_variation

Say = Callable[[str], None]
"""Prints one sentence that is not a result."""

RESULTS = Path("trae-bench-results")
CHECKED_AT_ONCE = 2
"""Runs that check the answers of head at once, if there are as many cores."""
JOURNAL_ENDING = ".journal.jsonl"
PRICES, PRICE_FILE = "prices", "price file"
"""Facts of a run with the metric `cost`: date and digest of the prices; their file, if they are
not those that ship."""


class Result(Struct, frozen=True):
    """The result of a run, and its files."""

    run: RunFile
    run_file: Path
    journal: Path
    error: BenchError | None
    """Why the run stopped early, or why it has no usable result."""
    written: bool = True
    """The run file was written. If not, the samples are only in the journal, and `run_file` may be
    an older file."""

    @property
    def claimed(self) -> bool:
        return is_claimed(self.run.header)


def read_result(run_file: Path) -> Result:
    """The result of an earlier run. Raises `BadRunFile`."""
    return Result(read_run(run_file), run_file, journal_of(run_file), None)


# -- running ----------------------------------------------------------------------------


def start(request: RunRequest, out: Path | None, *, force: bool, bench: "Bench") -> Result:
    """Run a new plan. Raises `BenchError` if it cannot start."""
    planned = plan(request)
    for reason in planned.left_out:
        bench.say(f"left out: {reason}")
    if out is None or out.is_relative_to(RESULTS):
        _make_results_folder()
    run_file = out or RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}-{request.profile}.json"
    if run_file.suffix != ".json":
        # The journal's name is derived from it, and --resume derives it back.
        raise UsageError(f"{run_file}: the name of a run file must end in .json")
    if run_file.exists() and not force:
        raise UsageError(f"{run_file} exists; name another file with --out, or give --force")
    prices: Mapping[str, str] = {}
    if any("cost" in used.metrics for used in planned.used.values()):
        prices = bench.read_prices(request.price_file, request.compare)
    with bench.lock():
        installed = {**bench.install(planned.scenarios), **prices}
        agents = bench.prepare_agents(planned, request.equal)
        revisions = _revisions(planned, bench)
        header = _header(request, planned, installed, revisions, agents)
        with Journal.create(journal_of(run_file), header, force=force) as journal:
            return bench.measure(header, planned.scenarios, journal, run_file)


def _make_results_folder() -> None:
    """Keep new results out of the user's repository: they would count as changes of head."""
    if not RESULTS.exists():
        with suppress(OSError):  # The journal says why nothing can be written here.
            RESULTS.mkdir()
            (RESULTS / ".gitignore").write_text("*\n")


def _revisions(planned: Plan, bench: "Bench") -> RevisionPair | None:
    """The two revisions, ready to run, and the scenarios that only head can run."""
    if planned.checkouts is None:
        return None
    pair = planned.checkouts.pair
    for note in planned.checkouts.notes:
        bench.say(note)
    if planned.agents:
        own = bench.agents.have_own_environments
    else:
        own = bench.prepare_revisions(planned.checkouts.base, planned.checkouts.head)
    new = bench.only_in_head(planned, pair)
    for name, problem in new.items():
        bench.say(f"{name} is new, the base cannot run it: {problem.splitlines()[0]}")
    return msgspec.structs.replace(pair, own_environments=own, new=new)


def _header(
    request: RunRequest,
    planned: Plan,
    installed: Mapping[str, str],
    revisions: RevisionPair | None,
    agents: dict[str, AgentUsed] | msgspec.UnsetType,
) -> Header:
    new = () if revisions is None else revisions.new
    names = (name for used in planned.used.values() for name in used.metrics)
    return Header(
        format=FORMAT,
        version=VERSION,
        created=now(),
        command=request.command,
        profile=request.profile,
        seed=randbits(32) if request.seed is None else request.seed,
        limits=planned.limits,
        scenarios=planned.used,
        cells=tuple(cell for cell in planned.cells if cell.scenario not in new),
        metrics={name: planned.metrics[name] for name in names},
        rules={metric.mode: rule_of(metric) for metric in METRICS.values()},
        machine=_machine(),
        code=dict(code_version.code_state()),
        versions={**code_version.versions(), **installed},
        design=request.design,
        filters=request.filters,
        revisions=revisions,
        agents=agents,
    )


def _machine() -> dict[str, host_facts.Fact | None]:
    """The facts of this host, how net times are measured, and how processes are recorded."""
    delay = "none" if run_delay.unavailable() else run_delay.METHOD
    processes = "none" if process_events.unavailable() else process_events.METHOD
    return {**host_facts.fingerprint(), "net_times": delay, "processes": processes}


def resume(
    journal_file: Path,
    request: RunRequest,
    out: Path | None,
    *,
    bench: "Bench",
    trusted: bool = False,
) -> Result:
    """Resume an interrupted run. Only its budget can change.

    A command line or a file of an agent that the journal names runs only if it is `trusted`.
    Raises `BenchError`.
    """
    # Check first, before waiting for the lock; another process may still write until then.
    read_journal(journal_file)
    with bench.lock():
        contents = read_journal(journal_file)
        header = contents.header
        if not trusted:
            _refuse_commands(journal_file, header)
        base = _base_of(header)
        scenarios = _same_scenarios(journal_file, header, base)
        prices: Mapping[str, str] = {}
        if PRICES in header.versions:
            prices = bench.read_prices(str(header.versions.get(PRICE_FILE, "")), base)
        _same_state(journal_file, header, {**bench.install(scenarios), **prices})
        if header.agents:
            _same_agents(journal_file, header, bench)
        elif header.revisions is not None:
            _same_revisions(journal_file, header.revisions, bench)
        if request.budget is not None:
            limits = msgspec.structs.replace(header.limits, budget=request.budget)
            header = msgspec.structs.replace(header, limits=limits)
        run_file = out or run_of(journal_file)
        if run_file.exists() and not _is_of(run_file, header):
            raise UsageError(f"{run_file} exists and is of another run; name another with --out")
        if contents.dropped:
            bench.say("the journal ends within a pair; the pair is measured again")
        with Journal.reopen(journal_file, contents, Resumed(now(), request.command)) as journal:
            return bench.measure(header, scenarios, journal, run_file, contents)


def journal_of(run_file: Path) -> Path:
    return run_file.with_name(run_file.name.removesuffix(".json") + JOURNAL_ENDING)


def run_of(journal_file: Path) -> Path:
    return journal_file.with_name(journal_file.name.removesuffix(JOURNAL_ENDING) + ".json")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _base_of(header: Header) -> GateBase | None:
    if header.revisions is None:
        return None
    repository = Repository.around(Path.cwd(), "" if header.agents else PACKAGE)
    commit = repository.commit(header.revisions.base.commit)
    return GateBase(repository, commit, header.revisions.requested)


def _same_scenarios(
    journal_file: Path, header: Header, base: GateBase | None
) -> dict[str, Scenario]:
    found = {}
    for name, used in header.scenarios.items():
        try:
            scenario = scenario_of(used.requested, base)
        except UsageError as error:
            raise UsageError(
                f"{journal_file}: {error}; the journal names it relative to the folder where the "
                "run started: resume from there"
            ) from None
        if digest(scenario) != used.digest:
            raise UsageError(
                f"{journal_file}: scenario {name!r} has changed since this run started; "
                f"restore {used.requested} or start a new run"
            )
        found[name] = for_cells(scenario, header.cells)
    return found


def _same_state(journal_file: Path, header: Header, installed: Mapping[str, str]) -> None:
    """Refuse to mix samples of two machines, commits or sets of packages in one run."""
    before = (header.machine, {"commit": header.code.get("commit")}, header.versions)
    here: tuple[Mapping[str, object], ...] = (
        _machine(),
        code_version.code_state(),
        {**code_version.versions(), **installed},
    )
    for old, new in zip(before, here, strict=True):
        for name, value in old.items():
            if name not in host_facts.CHANGING and new.get(name) != value:
                raise UsageError(
                    f"{journal_file}: {name} was {value!r} when this run started and is "
                    f"{new.get(name)!r} now; restore that, or start a new run"
                )
    # Journals of earlier releases have no digest of the files.
    if header.code.get("tree") not in (None, here[1].get("tree")):
        raise UsageError(
            f"{journal_file}: files of agent_core or trae_bench have changed since this run "
            "started; restore them, or start a new run"
        )


def _described(revision: RevisionId) -> str:
    changes = " with uncommitted changes" if revision.modified else ""
    return f"{revision.commit[:12]}{changes}"


def _refuse_commands(journal_file: Path, header: Header) -> None:
    """Raises `UsageError` if the journal names a command, which its author chose."""
    for name, agent in (header.agents or {}).items():
        if not is_name(agent.requested):
            raise UsageError(
                f"{journal_file}: the agent {name} is {agent.requested!r}, and it starts "
                f"{shlex.join(agent.command)}; read the command, then give --trust to run it"
            )


def _same_agents(journal_file: Path, header: Header, bench: "Bench") -> None:
    """Prepare the agents of a run that is resumed. Raises `UsageError` if they have changed."""
    found = find_agents_here([agent.requested for agent in (header.agents or {}).values()])
    revisions = None
    if header.revisions is not None:
        repository = Repository.around(Path.cwd())
        base, head = _unchanged(journal_file, header.revisions, repository)
        revisions = AgentRevisions(repository.top, base, head)
    equal = next(iter((header.agents or {}).values())).equal
    bench.agents = prepare(found, revisions, equal, bench.say)
    require_same(journal_file, header, bench.agents)


def _same_revisions(journal_file: Path, pair: RevisionPair, bench: "Bench") -> None:
    repository = Repository.around(Path.cwd(), PACKAGE)
    bench.prepare_revisions(*_unchanged(journal_file, pair, repository))


def _unchanged(
    journal_file: Path, pair: RevisionPair, repository: Repository
) -> tuple[Revision, Revision]:
    """Check out base and head again. Raises `UsageError` if head has changed."""
    base = repository.at(repository.commit(pair.base.commit))
    head = repository.head()
    if head.name != pair.head.name:
        before, after = _described(pair.head), _described(head)
        if before == after:
            after = f"{head.commit[:12]} with other uncommitted changes"
        raise UsageError(
            f"{journal_file}: head was {before} when this run started and is {after} now; "
            "restore that, or start a new run"
        )
    return base, head


def _is_of(run_file: Path, header: Header) -> bool:
    try:
        there = read_run(run_file).header
    except BadRunFile:
        return False
    return (there.created, there.seed) == (header.created, header.seed)


def scratch_of(run_file: Path) -> Path:
    """The folder that keeps the folders of all trials, if they are kept."""
    return run_file.with_suffix(".scratch")


class Bench:
    """The resources that a run needs: lock, provider and executor."""

    def __init__(
        self, say: Say, listener: Listener | None = None, *, keep_scratch: bool = False
    ) -> None:
        self.say = say
        self.listener = listener
        self._keep_scratch = keep_scratch
        self._installs = Installs()
        self._revisions: dict[str, Revision] = {}
        self.agents = PreparedAgents({}, {})
        self._accounting = Accounting()

    def lock(self) -> HostLock:
        return HostLock(self.say)

    def read_prices(self, name: str, base: GateBase | None) -> dict[str, str]:
        """Use a file of prices for the cost of sessions. Facts for the header.

        Raises `UsageError`.
        """
        found = price_file.for_run(name, base)
        self._accounting = Accounting(found.table)
        return {PRICES: found.label, **({PRICE_FILE: name} if name else {})}

    def install(self, scenarios: Mapping[str, Scenario]) -> dict[str, str]:
        """Create the environments whose size these scenarios measure. Facts for the header.

        Raises `CannotMeasure` if no environment can be created.
        """
        weighed = [one.subject.install for one in scenarios.values() if one.subject.install]
        wanted = dict.fromkeys(side for extras in weighed for side in (extras.on, extras.off))
        self._installs = provide(tuple(wanted), self.say) if wanted else Installs()
        return self._installs.facts

    def prepare_agents(
        self, planned: Plan, equal: Equal | None
    ) -> dict[str, AgentUsed] | msgspec.UnsetType:
        """Prepare the agents of a plan, and return them for the header; UNSET for agent_core.

        Raises `UsageError` and `CannotMeasure`.
        """
        if not planned.agents:
            return msgspec.UNSET
        revisions = None
        if (pair := planned.checkouts) is not None:
            revisions = AgentRevisions(pair.top, pair.base, pair.head)
        self.agents = prepare(planned.agents, revisions, equal, self.say)
        if revisions is None:
            for scenario in planned.scenarios.values():
                for agent in self.agents.by_key.values():
                    # Raises now, rather than after the pairs of other agents.
                    scenario_for(scenario, agent)
        return self.agents.used

    def prepare_revisions(self, base: Revision, head: Revision) -> bool:
        """Prepare two revisions. Return whether each has its own environment.

        Raises `CannotMeasure`.
        """
        pair = with_interpreters(base, head, PACKAGE, self.say)
        self._revisions = {revision.name: revision for revision in pair}
        return pair[0].python != sys.executable

    def only_in_head(self, planned: Plan, pair: RevisionPair) -> dict[str, str]:
        """Scenarios that head can run and the base cannot, each with the error of the base.

        One trial of each tells. A scenario that neither can run is left to the run to report.
        """
        found = {}
        with self.executor(planned.scenarios) as executor:
            for name, used in planned.used.items():
                base, head = revision_arms(used, pair, tuple(planned.agents))
                # Twice, so that one failure by chance does not exclude a scenario from the gate.
                problem = _failure_of(executor, name, base) and _failure_of(executor, name, base)
                if problem and not _failure_of(executor, name, head):
                    found[name] = problem
        return found

    @contextmanager
    def executor(
        self, scenarios: Mapping[str, Scenario], keep: Path | None = None
    ) -> Iterator[Executor]:
        """An executor: trials run in fresh processes, except that respx scenarios run in this one.

        The folders of all trials go to `keep`, if it is given.
        """
        with (
            scratch_folder() as scratch,
            Loopback(pin=cpu_affinity.provider_core(), accounting=self._accounting) as provider,
            SubprocessExecutor(
                self._subject(scratch),
                provider,
                scenarios,
                script=script_for(self.agents.by_key.values()),
                scratch=scratch,
                duet_core=cpu_affinity.duet_core(),
                memory_limit=host_facts.process_memory_limit(),
                keep=keep,
                keep_all=keep is not None,
            ) as executor,
            _and_in_process(executor, scenarios, scratch / "in-process") as both,
        ):
            yield both

    def _subject(self, scratch: Path) -> Subject:
        if self.agents.by_key:
            return CommandSubject(self.agents.by_key, equal=self.agents.equal)
        return AgentCoreSubject(self._installs, self._revisions, scratch)

    def measure(
        self,
        header: Header,
        scenarios: Mapping[str, Scenario],
        journal: Journal,
        run_file: Path,
        earlier: Contents | None = None,
    ) -> Result:
        """Measure and write the run file, whatever ended the run."""
        keep = scratch_of(run_file) if self._keep_scratch else None
        with self.executor(scenarios, keep) as executor:
            scheduler = Scheduler(
                header.cells,
                header.metrics,
                executor=executor,
                sink=journal,
                clock=time.monotonic,
                seed=header.seed,
                limits=header.limits,
                listener=self.listener,
                at_once=min(CHECKED_AT_ONCE, max(1, len(cpu_affinity.cores()))),
            )
            ending = (
                scheduler.run()
                if earlier is None
                else scheduler.run(earlier.samples, earlier.spent, earlier.checks)
            )
        if header.code.get("tree") not in (None, code_version.code_state().get("tree")):
            self.say(
                "files of agent_core or trae_bench changed during this run; its samples may come "
                "from both states"
            )
        before = () if earlier is None else earlier.resumed
        resumed = () if journal.resumed is None else (*before, journal.resumed)
        run = conclude(header, ending, resumed)
        error = ending.error
        if header.revisions is None:
            error = error or nothing_shown(run) or untrusted(run)
        try:
            # Only a run file of this journal can exist: both callers have checked.
            run = write_run(run_file, run, force=True)
        except CannotMeasure as problem:
            return Result(sealed(run), run_file, journal.path, ending.error or problem, False)
        return Result(run, run_file, journal.path, error)


def conclude(header: Header, ending: Ending, resumed: tuple[Resumed, ...] = ()) -> RunFile:
    """The run of these samples, without a seal."""
    samples = whole_pairs(ending.samples)
    rows = comparisons(samples, header.cells, header.metrics)
    return RunFile(
        header=header,
        stopped=ending.stopped,
        elapsed=ending.elapsed,
        noise=tuple(noise_floor(rows, header.metrics)),
        comparisons=tuple(rows),
        samples=samples,
        resumed=resumed,
        checks=ending.checks or UNSET,
    )


def nothing_shown(run: RunFile) -> BenchError | None:
    """The error of a run that has a comparison without a measured pair; None if interrupted."""
    if run.stopped == "interrupted":
        return None
    for row in run.comparisons:
        if not row.pairs.measured and row.pairs.answers_differ:
            remedy = "a toggle must not change the answer"
            if row.contrast == NOISE_FLOOR:
                remedy = remedy_for_variation(run)
            return AnswersDiffer(
                f"{row.scenario}, {row.contrast}: the two sides gave different answers in every "
                f"pair ({row.pairs.reasons[0]}); {remedy}"
            )
    for row in run.comparisons:
        if not row.pairs.measured and row.pairs.not_measured:
            return CannotMeasure(
                f"{row.scenario}, {row.contrast}: no pair could be measured: {row.pairs.reasons[0]}"
            )
    if any(row.pairs.measured for row in run.comparisons):
        return None
    return CannotMeasure(
        f"no pair could be measured in {run.elapsed:.0f} s; give a longer --budget"
    )


def untrusted(run: RunFile) -> BenchError | None:
    """The error of a run in which the A/A sides of a metric differ."""
    for floor in run.noise:
        if floor.reliability == "sides differ":
            return CannotMeasure(
                f"{bias_message(floor)}; no verdict on it can be trusted, see `trae-bench doctor`"
            )
    return None


@contextmanager
def _and_in_process(
    usual: Executor, scenarios: Mapping[str, Scenario], scratch: Path
) -> Iterator[Executor]:
    mocked = {name for name, one in scenarios.items() if one.provider.transport == "respx"}
    if not mocked:
        yield usual
        return
    # An extra, and slow to import.
    from trae_bench.provider.respx_mock import RespxProvider

    with RespxProvider() as provider:
        here = InProcessExecutor(
            AgentCoreSubject(), provider, scenarios, script=expand, scratch=scratch
        )
        yield ExecutorRouter(usual, here, mocked)


def _failure_of(executor: Executor, scenario: str, arm: Arm) -> str:
    """Why a revision cannot run a scenario; empty if it can."""
    trial = Trial(scenario, "only head?", "serial", 0, "A", 0, arm, 0)
    (sample,) = executor.run([trial])
    if sample.status == "ok" and sample.correct:
        return ""
    return sample.problem or sample.status
