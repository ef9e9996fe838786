"""Runs each trial in a fresh process.

`SubprocessExecutor` prepares folders and sessions, lets the launcher run the subject, and
builds a `Sample` from the result. All work of the harness happens before the spawn or after
the exit.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec

from trae_bench._util.bounded_io import last_bytes
from trae_bench._util.child_env import environment
from trae_bench._util.child_output import last_words, printable
from trae_bench._util.keys import without_keys
from trae_bench.execution import callgrind
from trae_bench.execution.launcher_client import REPORT_FD, Job, LauncherClient, Watch
from trae_bench.execution.pair_difference import PairMemory
from trae_bench.execution.ports import Provider, Subject
from trae_bench.execution.run_delay import Group, PressureGroups, with_delays
from trae_bench.execution.trial_result import (
    SessionCheck,
    TrialResult,
    TrialSetup,
    agent_error,
    build_sample,
    check_sessions,
    went_well,
    with_session_problem,
)
from trae_bench.execution.workspace import create_home, lay_out, remove, room_for_trials
from trae_bench.execution.written_files import Stamps, stamps, written_files
from trae_bench.model.experiment import SessionEndpoint, Trial
from trae_bench.model.sample import (
    AgentAnswer,
    ChildReport,
    ProcessResult,
    Sample,
    SessionAnswer,
    Status,
    WrittenFiles,
)
from trae_bench.scenario import Scenario

FILE_LIMIT = 256 * 1024 * 1024
"""Maximum bytes per output file."""
MIN_MEMORY = 64 * 1024 * 1024
"""Smallest memory limit (bytes). Even an empty agent needs more."""
MAX_STEPS = 10**9
"""Maximum steps in a report. A larger number is an invalid report."""
MAX_PRINTED = 1024 * 1024
"""Bytes at the end of an output that are read."""
COUNTS = "callgrind.out"
"""File in a trial's folder for callgrind's instruction counts."""
_OUT_OF_MEMORY = re.compile(
    "MemoryError|bad_alloc|ENOMEM|cannot allocate memory|out of memory", re.IGNORECASE
)

ScriptT = TypeVar("ScriptT")
_Prepared = tuple[TrialSetup, Job]


class SubprocessExecutor(Generic[ScriptT]):
    """An `Executor` that starts each trial as a process. The two of a duet run concurrently.

    script        builds the provider's script from a scenario and the session's workspace
    scratch       a folder that only this executor uses
    duet_core     the core that both sides of a duet share; without it they are not pinned, and
                  their times are not comparable as a duet's
    timeout       seconds per trial, in place of the scenario's own
    memory_limit  bytes of data memory per process (`RLIMIT_DATA` on Linux); reserved address
                  space is not counted, because some runtimes need it; without a limit, the
                  kernel's out-of-memory killer selects the trial first
    file_limit    maximum bytes per file that a trial writes, its log included
    keep          folder that receives the folders of trials that are not correct, or of all
                  trials with `keep_all`

    If a scenario asks for several runs in one home, the sample is the last run, or the first
    that failed. A trial that crashes, hangs or writes an invalid report gives a `Sample` that
    says so. Raises `CannotMeasure` or `ProviderDown` if no further trial can run.
    """

    def __init__(
        self,
        subject: Subject,
        provider: Provider[ScriptT],
        scenarios: Mapping[str, Scenario],
        *,
        script: Callable[[Scenario, Path], ScriptT],
        scratch: Path,
        duet_core: int | None = None,
        timeout: float | None = None,
        memory_limit: int | None = None,
        file_limit: int = FILE_LIMIT,
        keep: Path | None = None,
        keep_all: bool = False,
    ) -> None:
        if memory_limit is not None and memory_limit < MIN_MEMORY:
            raise ValueError(f"a memory limit of {memory_limit} bytes is below {MIN_MEMORY}")
        self._subject = subject
        self._provider = provider
        self._scenarios = scenarios
        self._script = script
        self._scratch = scratch.resolve()
        self._duet_core = duet_core
        self._timeout = timeout
        self._limits = {"RLIMIT_FSIZE": file_limit}
        if memory_limit is not None:
            self._limits["RLIMIT_DATA"] = memory_limit
        self._keep = keep
        self._keep_all = keep_all
        self._launcher = LauncherClient()
        self._pressure = PressureGroups(0 if duet_core is None else 2)
        self._sessions = 0
        self._memory = PairMemory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the launcher, which kills every running trial."""
        self._launcher.close()
        self._pressure.close()

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """Run one serial trial, or the two of a duet in the order of their slots."""
        with room_for_trials(str(self._scratch)):
            return self._run(trials)

    def _run(self, trials: Sequence[Trial]) -> list[Sample]:
        prepared = [self._prepare(trial, slot) for slot, trial in enumerate(trials)]
        setups = [setup for setup, _ in prepared]
        seconds = self._seconds(setups)
        try:
            results = self._play(prepared, seconds)
            for _ in range(1, max(setup.scenario.subject.runs for setup in setups)):
                if all(map(went_well, results)):
                    for setup, job in prepared:
                        self._renew_workspaces(setup, job.group)
                    results = self._play(prepared, seconds)
            checks = check_sessions(results, self._launcher, seconds, self._limits)
            return [self._sample(*pair) for pair in zip(results, checks, strict=True)]
        finally:
            for setup in setups:
                remove(setup.folder)

    def _play(self, prepared: Sequence[_Prepared], seconds: float) -> list[TrialResult]:
        setups = [setup for setup, _ in prepared]
        before = [_stamps(setup) for setup in setups]
        probed = any(setup.trial.probe == "tree" for setup in setups)
        watch: Watch = "memory" if probed else "processes"
        processes = self._launcher.run([job for _, job in prepared], seconds, watch)
        return [
            self._result(setup, process, written_files(stamps, _stamps(setup)))
            for setup, process, stamps in zip(setups, processes, before, strict=True)
        ]

    def _seconds(self, setups: Sequence[TrialSetup]) -> float:
        if self._timeout is not None:
            return self._timeout
        return max(
            setup.scenario.timeout_seconds
            * (callgrind.SLOWDOWN if setup.trial.probe == "callgrind" else 1)
            for setup in setups
        )

    # -- before the spawn

    def _prepare(self, trial: Trial, slot: int) -> _Prepared:
        scenario = self._subject.adapted(trial, self._scenarios[trial.scenario])
        self._sessions += 1
        # All names have one length: a longer path would cost its side memory and time.
        name = f"{self._sessions:07}"
        folder = self._scratch / f"{slot}"
        remove(folder)
        home = create_home(folder)
        sessions, workspaces = _session_places(scenario, name, folder / "workspace")
        group = self._group(trial, slot)
        urls = self._open_sessions(scenario, sessions, workspaces, group) or ("",)
        endpoints = tuple(map(SessionEndpoint, urls, map(str, workspaces)))
        command = self._subject.command(trial, scenario, endpoints, home, REPORT_FD)
        argv = command.argv
        if trial.probe == "callgrind":
            argv = callgrind.wrapped(argv, folder / COUNTS)
        job = Job(
            argv=argv,
            env=environment(home) | self._provider_environ(sessions) | command.env,
            cwd=command.cwd,
            log=str(folder / "log"),
            cores=self._cores(trial),
            limits=self._limits,
            group=group,
            stdin=command.stdin,
        )
        setup = TrialSetup(
            trial, scenario, sessions, endpoints, folder, command.answer, command.equal
        )
        return setup, job

    def _renew_workspaces(self, setup: TrialSetup, group: Group | None) -> None:
        """Prepare another run with fresh workspaces, in the same home, at the same addresses."""
        workspaces = [Path(endpoint.workspace) for endpoint in setup.endpoints]
        for workspace in workspaces:
            remove(workspace)
        self._open_sessions(setup.scenario, setup.sessions, workspaces, group)

    def _open_sessions(
        self,
        scenario: Scenario,
        sessions: Sequence[str],
        workspaces: Sequence[Path],
        group: Group | None,
    ) -> tuple[str, ...]:
        """Create the workspaces, register the sessions and return their base URLs."""
        # Requests of several sessions come too fast for the kernel to count the time between.
        pressure = group.levels if group is not None and len(sessions) == 1 else ()
        for workspace in workspaces:
            workspace.mkdir(parents=True)
            lay_out(scenario.workspace, workspace)
        return tuple(
            self._provider.register(session, self._script(scenario, workspace), pressure)
            for session, workspace in zip(sessions, workspaces, strict=False)
        )

    def _provider_environ(self, sessions: Sequence[str]) -> dict[str, str]:
        # It is the same for all sessions of one scenario.
        return self._provider.environ(sessions[0]) if sessions else {}

    def _cores(self, trial: Trial) -> tuple[int, ...]:
        # A serial trial may use every core, as in normal use.
        if trial.mode == "serial" or self._duet_core is None:
            return ()
        return (self._duet_core,)

    def _group(self, trial: Trial, slot: int) -> Group | None:
        """The cgroup of a pinned trial; None if it has no core of its own to wait for."""
        groups = self._pressure.groups
        return groups[slot] if self._cores(trial) and slot < len(groups) else None

    # -- after the exit

    def _result(
        self, setup: TrialSetup, process: ProcessResult, files: WrittenFiles | None
    ) -> TrialResult:
        collected = map(self._provider.collect, setup.sessions)
        logs = tuple(with_delays(log, process) for log in collected)
        report: ChildReport | None = None
        answers: tuple[AgentAnswer | None, ...] = (None,) * len(setup.endpoints)
        status: Status = "ok"
        if (problem := process.failure) is not None:
            status = "timeout" if process.timed_out else "failed"
        elif setup.answer == "output":
            answer = SessionAnswer(True, _printed(setup.folder / "log"))
            answers = (answer,) * len(setup.endpoints)
        elif setup.answer == "report":
            report, problem = _read_report(process, len(setup.endpoints))
            report = _with_instructions(report, setup.folder / COUNTS)
            if report is None:
                status = "garbage"
            elif report.error is not None:
                status, problem = "failed", agent_error(report.error)
            else:
                answers = report.sessions or (report,)
        if problem is not None:
            # An agent may print a key that `pass-env` names.
            output = without_keys(last_words(setup.folder / "log"))
            problem += self._memory_hint(problem + output)
            problem = with_session_problem(problem, logs) + output
        return TrialResult(setup, process, logs, report, answers, status, problem, files)

    def _memory_hint(self, text: str) -> str:
        """Return the memory limit, if the text says that memory ran out."""
        limit = self._limits.get("RLIMIT_DATA")
        if limit is None or not _OUT_OF_MEMORY.search(text):
            return ""
        return f" (the memory limit per process is {limit / 1e9:.3g} GB)"

    def _sample(self, result: TrialResult, checks: Sequence[SessionCheck]) -> Sample:
        """Build the sample. Move the trial's folder to `keep`, if it is to be kept."""
        sample = build_sample(result, checks, self._memory)
        if self._keep is None or (sample.correct and not self._keep_all):
            return sample
        kind = sample.mode if sample.probe == "plain" else f"{sample.mode}-{sample.probe}"
        name = f"{sample.scenario}-{sample.contrast}-{sample.pair}-{sample.side}-{kind}"
        target = self._keep / re.sub(r"[^\w.-]+", "_", name)
        remove(target)
        self._keep.mkdir(parents=True, exist_ok=True)
        shutil.move(result.setup.folder, target)
        if sample.problem is None:
            return sample
        return msgspec.structs.replace(sample, problem=f"{sample.problem}\nkept in {target}")


def _stamps(setup: TrialSetup) -> Stamps | None:
    """Return the stamps of the files in the trial's home folder and workspaces."""
    return stamps(setup.home, setup.folder / "workspace")


def _session_places(
    scenario: Scenario, name: str, root: Path
) -> tuple[tuple[str, ...], list[Path]]:
    """Return the names of the sessions at the provider, and a workspace for each.

    A scenario without a session (a plain command, an install) still has one workspace.
    """
    if not scenario.subject.has_session:
        return (), [root]
    if scenario.load.sessions == 1:
        return (name,), [root]
    numbers = [f"{number:05}" for number in range(1, scenario.load.sessions + 1)]
    return tuple(f"{name}-{number}" for number in numbers), [root / number for number in numbers]


def _read_report(process: ProcessResult, sessions: int) -> tuple[ChildReport | None, str | None]:
    """Decode a child's report. Return either the report or the problem."""
    if process.report_cut:
        return None, "the report is too long"
    if not process.report:
        return None, "the process exited without a report"
    try:
        report = msgspec.json.decode(process.report.encode("latin-1"), type=ChildReport)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"invalid report: {error}"
    if not 0 <= report.steps <= MAX_STEPS:
        return None, f"invalid report: {report.steps} steps"
    reported = len(report.sessions) or 1
    if reported != sessions:
        return None, f"invalid report: it covers {reported} of {sessions} sessions"
    return report, None


def _with_instructions(report: ChildReport | None, counts: Path) -> ChildReport | None:
    """Add callgrind's count to the child's own counters."""
    count = callgrind.instructions(counts)
    if report is None or count is None:
        return report
    return msgspec.structs.replace(report, counters=report.counters | {"instructions": count})


def _printed(log: Path) -> str:
    # The end: an agent may print its whole session before its answer.
    return printable(last_bytes(log, MAX_PRINTED))
