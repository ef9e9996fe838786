"""The executor with real processes and a fake provider without sockets."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.signals import needs
from tests.trae_bench.fakes import ScriptedExecutor
from trae_bench.errors import CannotMeasure
from trae_bench.execution import run_delay
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.experiment import (
    AnswerPlace,
    Arm,
    Command,
    Mode,
    Probe,
    SessionEndpoint,
    Side,
    Trial,
)
from trae_bench.model.sample import RequestLog, Sample, SessionLog
from trae_bench.scenario import (
    Load,
    Normalise,
    Oracle,
    Scenario,
    SubjectSetup,
    ToggleUse,
    Turn,
    WorkspaceFixture,
)

ARM = Arm("off", {})
MIB = 1024 * 1024


class SilentProvider:
    """A fake provider without a socket. The test sets its log."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.open: set[str] = set()
        self.sessions: list[str] = []
        self.scripts: list[str] = []

    def register(self, session: str, script: str, pressure: Sequence[str] = ()) -> str:
        self.open.add(session)
        self.sessions.append(session)
        self.scripts.append(script)
        return f"http://127.0.0.1:9/s/{session}/v1"

    def environ(self, session: str) -> dict[str, str]:
        return {"PROVIDER_SESSION": session}

    def collect(self, session: str) -> SessionLog:
        self.open.remove(session)
        asked = (RequestLog(1.0, 1.5, 1, len(self.body), 10, 200),) if self.body else ()
        return SessionLog(asked, len(asked), self.body)


class Script:
    """A subject that runs a shell or Python script. `{fd}` is its report pipe, `{places}`
    are its sessions' workspaces, `{url}` is the provider of the first one."""

    def __init__(self, text: str, *, reports: bool = False, python: bool = False) -> None:
        self.text = text
        self.reports = reports
        self.python = python

    def adapted(self, trial: Trial, scenario: Scenario) -> Scenario:
        return scenario

    def command(
        self,
        trial: Trial,
        scenario: Scenario,
        endpoints: Sequence[SessionEndpoint],
        home: Path,
        report_fd: int,
    ) -> Command:
        text = self.text.replace("{fd}", str(report_fd)).replace("{side}", trial.side)
        text = text.replace("{places}", " ".join(endpoint.workspace for endpoint in endpoints))
        text = text.replace("{url}", endpoints[0].base_url)
        argv = (sys.executable, "-S", "-c", text) if self.python else ("sh", "-c", text)
        answer: AnswerPlace = "report" if self.reports else "none"
        if scenario.subject.command:
            answer = "output"
        added = {"ADDED": "by the subject"}
        return Command(argv, added, endpoints[0].workspace, answer=answer)


def scenario(**changes: Any) -> Scenario:
    given: dict[str, Any] = {
        "name": "small",
        "about": "",
        "task": "do it",
        "turns": (Turn(text="done"),),
        "toggles": ToggleUse(vary=()),
        "metrics": ("cpu",),
        "timeout_seconds": 30.0,
    }
    return Scenario(**given | changes)


def trial(side: Side = "A", mode: Mode = "serial", pair: int = 1, probe: Probe = "plain") -> Trial:
    return Trial("small", "a/b", mode, pair, side, "AB".index(side), ARM, 0, probe)


Make = Callable[..., SubprocessExecutor[str]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Build executors and close them."""
    made: list[SubprocessExecutor[str]] = []

    def build(
        subject: Any, *, small: Scenario | None = None, **options: Any
    ) -> SubprocessExecutor[str]:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        made.append(
            SubprocessExecutor(
                subject,
                options.pop("provider", SilentProvider()),
                {"small": small or scenario()},
                script=lambda scenario, workspace: f"{scenario.name} in {workspace.name}",
                scratch=scratch,
                **options,
            )
        )
        return made[-1]

    yield build
    for executor in made:
        executor.close()
    # No folder of a trial may remain.
    assert not list((tmp_path / "scratch").glob("*"))


def run_one(executor: SubprocessExecutor[str], **given: Any) -> Sample:
    (sample,) = executor.run([trial(**given)])
    return sample


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not state.startswith("Z")


def gone(pids: list[int], patience: float = 10.0) -> bool:
    end = time.monotonic() + patience
    while any(alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def written_pids(file: Path, count: int) -> list[int]:
    """Wait for process ids that a child writes to a file."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pids = file.read_text().split() if file.exists() else []
        if len(pids) >= count:
            return [int(pid) for pid in pids]
        time.sleep(0.01)
    raise AssertionError(f"no {count} process ids in {file}")


# -- success


def test_a_good_trial_is_measured(make: Make) -> None:
    busy = "import os; sum(range(3_000_000)); os.write(1, b'x' * 5000); bytearray(60 << 20)"
    executor = make(Script(busy, python=True))
    before = time.monotonic()
    sample = run_one(executor)
    assert (sample.status, sample.correct, sample.problem) == ("ok", True, None)
    assert (sample.exit_status, sample.side, sample.slot, sample.arm) == (0, "A", 0, "off")
    assert before <= sample.started <= time.monotonic()
    assert sample.pid > 0
    figures = sample.metrics
    assert figures["cpu"] == pytest.approx(figures["cpu_user"] + figures["cpu_system"])
    assert figures["cpu"] > 0
    assert 0 < figures["wall"] < time.monotonic() - before
    assert 60 * MIB < figures["peak_rss"] < 150 * MIB
    assert figures["bytes_written"] == 5000
    assert figures["write_syscalls"] == 1
    assert figures["minor_faults"] > 60 * MIB / 4096 / 600  # huge pages at most
    assert figures["requests"] == 0


def test_a_grandchild_that_was_waited_for_is_counted(make: Make) -> None:
    busy = f"{shlex.quote(sys.executable)} -S -c 'import os; os.write(1, b\"y\" * 7000)'; true"
    sample = run_one(make(Script(busy)))
    assert sample.metrics["bytes_written"] == 7000


def test_peak_memory_excludes_the_parents(make: Make) -> None:
    ballast = bytearray(300 * MIB)
    ballast[::4096] = b"x" * len(ballast[::4096])
    sample = run_one(make(Script("bytearray(40 << 20)", python=True)))
    assert ballast
    # After a direct spawn, Linux would report the 300 MB of this process.
    assert 40 * MIB < sample.metrics["peak_rss"] < 120 * MIB


def test_peak_memory_below_the_launchers_is_left_out(make: Make) -> None:
    sample = run_one(make(Script("exit 0")))
    assert sample.status == "ok"
    assert "peak_rss" not in sample.metrics


def test_a_report_carries_counters_and_the_final_text(make: Make) -> None:
    said = '{"success": true, "final_text": "all done", "steps": 4, "counters": {"agent_rss": 7}}'
    subject = Script(f"echo '{said}' >&{{fd}}", reports=True)
    sample = run_one(make(subject, small=scenario(oracle=Oracle(final_text="all done"))))
    assert sample.correct
    assert sample.metrics["agent_rss"] == 7
    sample = run_one(make(subject, small=scenario(oracle=Oracle(final_text="finished"))))
    assert (sample.status, sample.correct) == ("ok", False)
    assert "final text" in str(sample.problem)


# -- failures


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo first; echo last >&2; exit 3", ["exit status 3", "first", "last"]),
        ("kill -SEGV $$", ["killed by SIGSEGV"]),
        (r"printf 'a\377b \033[31mred\033[0m \033]0;title\007\001!\rx'; exit 1", ["a\ufffdb red"]),
        ("i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 1", ["line 99"]),
    ],
)
def test_a_crash_is_a_failed_sample_with_the_last_lines(
    make: Make, text: str, words: list[str]
) -> None:
    sample = run_one(make(Script(text)))
    assert (sample.status, sample.correct, sample.metrics) == ("failed", False, {})
    for word in words:
        assert word in str(sample.problem)
    assert all(character.isprintable() or character == "\n" for character in str(sample.problem))
    assert "line 1\n" not in str(sample.problem)


def test_a_command_that_does_not_exist(make: Make) -> None:
    class Nowhere(Script):
        def command(self, *given: Any) -> Command:
            return Command(("/no/such/agent",), {}, given[2][0].workspace)

    sample = run_one(make(Nowhere("")))
    assert (sample.status, sample.exit_status, sample.pid) == ("failed", None, 0)
    assert "cannot start /no/such/agent" in str(sample.problem)


@pytest.mark.parametrize(
    "said",
    [
        "true",
        "echo not json",
        "printf '\\377\\376'",
        'echo \'{"success": "yes", "final_text": "", "steps": 1}\'',
        'echo \'{"success": true, "final_text": "", "steps": -1}\'',
        'echo \'{"success": true, "final_text": "", "steps": 9999999999999999999999999999}\'',
        'echo \'{"success": true, "final_text": "", "steps": 1} {}\'',
        "head -c 3000000 /dev/zero",
    ],
)
def test_an_invalid_report_is_garbage(make: Make, said: str) -> None:
    sample = run_one(make(Script(f"({said}) >&{{fd}} 2>/dev/null; exit 0", reports=True)))
    assert sample.status == "garbage"
    assert sample.problem
    assert not sample.correct


def test_an_endless_report_is_cut_off(make: Make) -> None:
    sample = run_one(make(Script("exec cat /dev/zero >&{fd}", reports=True)))
    assert sample.status == "failed"
    assert "SIGPIPE" in str(sample.problem)


def test_a_subject_that_gave_up_has_failed(make: Make) -> None:
    said = '{"success": false, "final_text": "", "steps": 1, "error": "no model"}'
    sample = run_one(make(Script(f"echo '{said}' >&{{fd}}", reports=True)))
    assert sample.status == "failed"
    assert "no model" in str(sample.problem)


def test_a_hanging_trial_is_killed_with_all_that_it_started(make: Make, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hang = f"""
        sleep 1000 & echo $! >>{pids}
        setsid sh -c 'echo $$ >>{pids}; sleep 1001 & echo $! >>{pids}; wait' &
        echo $$ >>{pids}
        echo waiting
        wait
    """
    sample = run_one(make(Script(hang), timeout=2.0))
    assert sample.status == "timeout"
    assert "killed after" in str(sample.problem)
    assert "waiting" in str(sample.problem)
    started = written_pids(pids, 4)
    assert not [pid for pid in started if alive(pid)]


def test_leftover_processes_are_killed_before_the_next_trial(make: Make, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    leave = f"""
        sleep 1000 & echo $! >>{pids}
        setsid sh -c 'echo $$ >>{pids}; exec sleep 1001' &
        while [ $(wc -l <{pids}) -lt 2 ]; do sleep 0.01; done
    """
    executor = make(Script(leave))
    sample = run_one(executor)
    assert sample.status == "ok"
    assert not [pid for pid in written_pids(pids, 2) if alive(pid)]


@pytest.mark.parametrize("left", ["sleep 1000", "setsid sleep 1000"])
def test_leftover_processes_of_one_side_are_killed(make: Make, tmp_path: Path, left: str) -> None:
    """Side B waits until the processes that side A left are killed."""
    pid = tmp_path / "pid"
    text = f"""
        [ {{side}} = A ] && {{ {left} & echo $! >{pid}.new; mv {pid}.new {pid}; exit; }}
        while [ ! -e {pid} ]; do sleep 0.01; done
        while grep -q '^State:.[^Z]' /proc/$(cat {pid})/status; do sleep 0.01; done
    """
    executor = make(Script(text), timeout=10.0)
    one, other = executor.run([trial("A", "duet"), trial("B", "duet")])
    assert (one.status, other.status) == ("ok", "ok")


def test_output_is_limited_by_the_file_limit(make: Make) -> None:
    sample = run_one(make(Script("exec yes"), file_limit=MIB))
    assert sample.status == "failed"
    assert "SIGXFSZ" in str(sample.problem)
    assert len(str(sample.problem)) < 4000


def test_memory_is_limited_by_the_memory_limit(make: Make) -> None:
    sample = run_one(make(Script("bytearray(200 << 20)", python=True), memory_limit=128 * MIB))
    assert sample.status == "failed"
    assert "MemoryError" in str(sample.problem)
    assert "the memory limit per process is 0.134 GB" in str(sample.problem)


def test_reserved_address_space_is_not_limited(make: Make) -> None:
    """Some runtimes reserve gigabytes."""
    aside = "import mmap; mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)"
    sample = run_one(make(Script(aside, python=True), memory_limit=128 * MIB))
    assert sample.status == "ok", sample.problem


def test_the_launcher_restores_its_own_state(make: Make, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    executor = make(
        Script("echo $PPID >>$HOME/dump"),
        memory_limit=256 * MIB,
        duet_core=core,
        keep=tmp_path / "keep",
        keep_all=True,
    )
    seen = []
    for _ in range(4):
        executor.run([trial(mode="duet")])
        launcher = (tmp_path / "keep/small-a_b-1-A-duet/home/dump").read_text().strip()
        process = Path("/proc") / launcher
        assert (process / "cwd").readlink() == Path("/")
        for name in ("RLIMIT_DATA", "RLIMIT_FSIZE"):
            limit = getattr(resource, name)
            assert resource.prlimit(int(launcher), limit) == resource.getrlimit(limit)
        assert os.sched_getaffinity(int(launcher)) == os.sched_getaffinity(0)
        # Ctrl-C at a terminal must not reach it: trae-bench decides what to stop.
        assert os.getsid(int(launcher)) != os.getsid(0)
        mine = len(list(Path("/proc/self/fd").iterdir()))
        seen.append((launcher, len(list((process / "fd").iterdir())), mine))
    # One launcher for all trials, and no additional open file per trial.
    assert len(set(seen)) == 1


def test_a_tiny_memory_limit_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="memory limit"):
        make(Script("true"), memory_limit=MIB)
    make(Script("true")).run([trial()])


# -- the environment


def dump(make: Make, tmp_path: Path, text: str, trials: list[Trial], **options: Any) -> list[str]:
    """Return what each child wrote to `$HOME/dump`."""
    keep = tmp_path / "keep"
    executor = make(Script(text), keep=keep, keep_all=True, **options)
    samples = executor.run(trials)
    assert [sample.status for sample in samples] == ["ok"] * len(trials), samples[0].problem
    return [
        (keep / f"small-a_b-{one.pair}-{one.side}-{one.mode}" / "home/dump").read_text()
        for one in trials
    ]


def test_nothing_of_the_users_environment_reaches_a_trial(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "PYTHONPATH", "PYTHONHASHSEED", "TRAE_CONFIG"):
        monkeypatch.setenv(name, "secret")
    (text,) = dump(make, tmp_path, "env >$HOME/dump", [trial()])
    found = dict(line.split("=", 1) for line in text.splitlines())
    assert "secret" not in text
    assert found["PYTHONHASHSEED"] == "0"
    assert found["LC_ALL"] == "C.UTF-8"
    assert found["ADDED"] == "by the subject"
    assert found["PROVIDER_SESSION"] == "0000001"
    scratch = str((tmp_path / "scratch").resolve())
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        assert found[name].startswith(scratch)
    known = {"PWD", "OLDPWD", "SHLVL", "_", "PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "ADDED"}
    known.add("PROVIDER_SESSION")
    allowed = ("PYTHON", "LC_", "HOME", "TMPDIR", "TZ", "XDG_", "LD_LIBRARY_PATH")
    assert [name for name in found if name not in known and not name.startswith(allowed)] == []


def test_both_sides_get_folders_and_addresses_of_one_length(make: Make, tmp_path: Path) -> None:
    provider = SilentProvider()
    two = [trial("A", "duet"), trial("B", "duet")]
    one, other = dump(make, tmp_path, "env | wc -c >$HOME/dump", two, provider=provider)
    assert one == other
    assert provider.scripts == ["small in workspace"] * 2
    assert len(provider.sessions) == 2
    assert len({len(session) for session in provider.sessions}) == 1
    assert not provider.open


def test_a_child_starts_with_clean_descriptors_and_signals(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = "import os, signal; print(sorted(os.listdir('/proc/self/fd')))"
    ignored = "grep SigIgn /proc/self/status >>$HOME/dump"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        text = f"{shlex.quote(sys.executable)} -S -c {shlex.quote(look)} >$HOME/dump; {ignored}"
        (found,) = dump(make, tmp_path, text, [trial()])
    finally:
        signal.signal(signal.SIGINT, before)
    # 4 is the listed folder.
    assert found.splitlines()[0] == "['0', '1', '2', '3', '4']"
    # glibc reserves 32 and 33.
    assert int(found.split()[-1], 16) & 0x7FFFFFFF == 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity here")
def test_a_duet_shares_one_core_and_a_serial_trial_has_all(make: Make, tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    look = "grep Cpus_allowed_list /proc/self/status | cut -f2 >$HOME/dump"
    two = [trial("B", "duet"), trial("A", "duet")]
    assert dump(make, tmp_path, look, two, duet_core=core) == [f"{core}\n"] * 2
    (serial,) = dump(make, tmp_path, look, [trial()], duet_core=core)
    mine = Path("/proc/self/status").read_text().partition("Cpus_allowed_list:\t")[2]
    assert serial == mine.partition("\n")[0] + "\n"


def test_a_duet_runs_at_the_same_time_in_the_order_of_its_slots(make: Make, tmp_path: Path) -> None:
    """Each side waits for the other. Run in sequence, both would time out."""
    meet = f"""
        touch {tmp_path}/{{side}}
        while [ ! -e {tmp_path}/A ] || [ ! -e {tmp_path}/B ]; do sleep 0.01; done
    """
    one, other = make(Script(meet)).run([trial("B", "duet"), trial("A", "duet")])
    assert (one.side, other.side) == ("B", "A")
    assert one.status == other.status == "ok"
    assert one.started < other.started


def test_a_duet_measures_net_time(make: Make) -> None:
    if (problem := run_delay.unavailable()) is not None:
        pytest.skip(problem)
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    executor = make(Script(busy, python=True), duet_core=max(os.sched_getaffinity(0)))
    for sample in executor.run([trial("B", "duet"), trial("A", "duet")]):
        found = sample.metrics
        assert found["wall_net"] < 0.85 * found["wall"]
        assert found["wall_net"] == pytest.approx(found["cpu"], abs=0.05)
    # The kernel's figure is a mean over the cores, so it means nothing if there are several.
    assert "wall_net" not in run_one(executor).metrics


def test_a_duet_without_a_cgroup_is_still_measured(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_delay, "own_cgroup", lambda: None)
    executor = make(Script("true"), duet_core=max(os.sched_getaffinity(0)))
    for sample in executor.run([trial("B", "duet"), trial("A", "duet")]):
        assert sample.status == "ok"
        assert "wall_net" not in sample.metrics


def test_one_side_of_a_duet_may_fail_alone(make: Make) -> None:
    text = "[ {side} = A ] || exit 7"
    one, other = make(Script(text)).run([trial("A", "duet"), trial("B", "duet")])
    assert (one.status, other.status, other.exit_status) == ("ok", "failed", 7)


# -- the answer


def test_the_oracle_runs_in_the_workspace_after_the_digest(make: Make) -> None:
    small = scenario(
        workspace=WorkspaceFixture(files={"sub/a.txt": "one\n"}),
        oracle=Oracle(command="touch litter; grep -q two sub/a.txt", files={"b": "B"}),
    )
    good = run_one(make(Script("echo two >>sub/a.txt; printf B >b"), small=small))
    assert good.correct
    again = run_one(make(Script("printf B >b; echo two >>sub/a.txt"), small=small))
    assert again.workspace == good.workspace
    wrong = run_one(make(Script("echo three >>sub/a.txt; printf B >b"), small=small))
    assert (wrong.status, wrong.correct) == ("ok", False)
    assert wrong.workspace != good.workspace
    assert "oracle: exit status 1 (touch litter; grep -q two sub/a.txt)" in str(wrong.problem)
    missing = run_one(make(Script("true"), small=small))
    assert "oracle: b" in str(missing.problem)


def test_an_oracle_that_hangs_is_killed(make: Make) -> None:
    small = scenario(oracle=Oracle(command="echo thinking; sleep 1000"))
    sample = run_one(make(Script("true"), small=small, timeout=1.0))
    assert (sample.status, sample.correct) == ("ok", False)
    assert "oracle: killed after" in str(sample.problem)
    assert "thinking" in str(sample.problem)


def test_the_same_answer_has_the_same_digests(make: Make) -> None:
    small = scenario(normalise=(Normalise(r"in \d+\.\d+s", "in Xs"),))
    write = "echo $PWD >where; echo passed in {t}s >log"

    def digests(text: str, provider: SilentProvider) -> tuple[str, str]:
        sample = run_one(make(Script(text), small=small, provider=provider))
        return sample.transcript, sample.workspace

    asked = SilentProvider(b'{"messages": ["passed in 0.31s"], "model": "m"}')
    asked_again = SilentProvider(b'{"model": "m", "messages": ["passed in 0.29s"]}')
    asked_else = SilentProvider(b'{"model": "m", "messages": ["failed in 0.29s"]}')
    one = digests(write.replace("{t}", "1.5"), asked)
    assert digests(write.replace("{t}", "2.25"), asked_again) == one
    assert digests(write.replace("{t}", "2.25"), asked_else)[0] != one[0]
    assert digests(write.replace("{t}", "many "), asked)[1] != one[1]


# -- interruption


def test_folders_of_incorrect_trials_are_kept(make: Make, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    sample = run_one(make(Script("echo why >note; exit 1"), keep=keep))
    folder = keep / "small-a_b-1-A-serial"
    assert (folder / "workspace/note").read_text() == "why\n"
    assert str(folder) in str(sample.problem)
    run_one(make(Script("exit 0"), keep=keep), pair=2)
    assert [path.name for path in keep.iterdir()] == [folder.name]


def test_ctrl_c_kills_the_trials_and_the_executor_can_continue(make: Make, tmp_path: Path) -> None:
    needs(signal.SIGINT)
    pids = tmp_path / "pids"
    executor = make(Script(f"[ -e {pids} ] && exit; echo $$ >{pids}; sleep 1000"))

    main = threading.get_ident()

    def interrupt() -> None:
        written_pids(pids, 1)
        # To the waiting thread: a signal to this one would not wake it.
        signal.pthread_kill(main, signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        run_one(executor)
    waiting.join()
    assert not alive(written_pids(pids, 1)[0])
    assert run_one(executor).status == "ok"


BENCH = """
import sys
import threading
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.trae_bench.execution.test_subprocess_executor import *
SubprocessExecutor(
    Script("echo $$ >>{pids}; setsid sh -c 'echo $$ >>{pids}; exec sleep 1000' & wait"),
    SilentProvider(),
    {{"small": scenario()}},
    script=lambda scenario, workspace: "",
    scratch=Path({scratch!r}),
).run([trial()])
"""


def test_no_child_survives_a_sigkill_of_trae_bench(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    pids, scratch = tmp_path / "pids", tmp_path / "scratch"
    text = BENCH.format(root=root, pids=pids, scratch=str(scratch))
    with subprocess.Popen([sys.executable, "-c", text]) as bench:
        started = written_pids(pids, 2)
        bench.kill()
    assert gone(started)


def test_a_dead_launcher_raises_and_leaves_no_child(make: Make, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # After half a second, the launcher has sent the process ids.
    executor = make(Script(f"echo $$ >{pids}; sleep 0.5; kill -9 $PPID; sleep 1000"))
    with pytest.raises(CannotMeasure, match="has died"):
        run_one(executor)
    assert gone(written_pids(pids, 1))


def test_a_folder_without_permissions_is_removed(make: Make, tmp_path: Path) -> None:
    executor = make(Script("mkdir -p deep/er; touch deep/er/file; chmod 0 deep/er deep"))
    assert run_one(executor).status == "ok"
    assert not list((tmp_path / "scratch").iterdir())


# -- the scripted executor


def test_the_scripted_executor_starts_no_process() -> None:
    whole = Sample("small", "a/b", "serial", 1, "B", 1, "off", "timeout", 0.0, None, 0)
    twin = ScriptedExecutor(lambda trial: {"cpu": 2.0} if trial.side == "A" else whole)
    first, second = twin.run([trial("A"), trial("B")])
    assert (first.metrics, first.status, first.correct) == ({"cpu": 2.0}, "ok", True)
    assert second is whole
    assert twin.batches == [(trial("A"), trial("B"))]


# -- several sessions, several runs, and no session at all


THREE = Load(sessions=3, concurrency=2)


def told(*texts: str, success: bool = True) -> str:
    """Return a shell command that reports sessions with these final texts."""
    sessions = [{"success": success, "final_text": text} for text in texts]
    report = {"success": success, "final_text": texts[0], "steps": 1, "sessions": sessions}
    return f"echo '{json.dumps(report)}' >&{{fd}}"


def test_each_session_has_its_own_workspace_and_oracle(make: Make) -> None:
    provider = SilentProvider(b"{}")
    oracle = Oracle(command="test -e made", files={"given": "text"}, final_text="done")
    three = scenario(load=THREE, oracle=oracle, workspace=WorkspaceFixture({"given": "text"}))
    work = "for place in {places}; do touch $place/made; done; " + told("1 done", "done", "done 3")
    executor = make(Script(work, reports=True), small=three, provider=provider)
    sample = run_one(executor)
    assert sample.correct, sample.problem
    assert sample.metrics["correct_results"] == 1
    assert sample.metrics["requests"] == 3
    assert provider.sessions == ["0000001-00001", "0000001-00002", "0000001-00003"]
    assert provider.scripts == ["small in 00001", "small in 00002", "small in 00003"]
    assert not provider.open


def test_the_number_of_wrong_sessions_is_reported(make: Make) -> None:
    three = scenario(load=THREE, oracle=Oracle(command="test -e made", final_text="done"))
    work = "set -- {places}; touch $1/made $2/made; " + told("done", "lost", "done")
    sample = run_one(make(Script(work, reports=True), small=three))
    assert (sample.status, sample.correct) == ("ok", False)
    assert sample.metrics["correct_results"] == pytest.approx(1 / 3)
    assert "2 of 3 sessions are wrong, the first: oracle: the final text" in str(sample.problem)


def test_a_report_without_all_sessions_is_garbage(make: Make) -> None:
    sample = run_one(make(Script(told("a", "b"), reports=True), small=scenario(load=THREE)))
    assert sample.status == "garbage"
    assert "it covers 2 of 3 sessions" in str(sample.problem)


@pytest.mark.parametrize("differing", ["text", "file", "nothing"])
def test_a_difference_in_one_of_several_sessions_is_detected(make: Make, differing: str) -> None:
    def work(one: str) -> str:
        texts = ("a", one if differing == "text" else "b", "c")
        return f"set -- {{places}}; echo {one} >$3/{differing}.log; {told(*texts)}"

    fixture = WorkspaceFixture(ignore=("text.log", "nothing.log"))
    three = scenario(load=THREE, workspace=fixture)
    samples = [run_one(make(Script(work(one), reports=True), small=three)) for one in "xy"]
    assert (samples[0].transcript == samples[1].transcript) == (differing != "text")
    assert (samples[0].workspace == samples[1].workspace) == (differing != "file")


def test_a_second_run_has_the_same_home_and_a_fresh_workspace(make: Make) -> None:
    provider = SilentProvider()
    warm = scenario(subject=SubjectSetup(runs=3), workspace=WorkspaceFixture({"given": "1"}))
    work = 'echo run >>"$HOME/runs"; test ! -e left; touch left; rm given; wc -l <"$HOME/runs"'
    counted = f"{work} >lines"
    oracle = Oracle(command='test "$(cat lines)" -eq 3')
    warm = msgspec.structs.replace(warm, oracle=oracle)
    sample = run_one(make(Script(counted), small=warm, provider=provider))
    assert sample.correct, sample.problem
    assert provider.sessions == ["0000001"] * 3
    assert not provider.open


def test_a_failed_first_run_fails_the_trial(make: Make) -> None:
    warm = scenario(subject=SubjectSetup(runs=2))
    sample = run_one(make(Script('mkdir "$HOME/once" && exit 7'), small=warm))
    assert (sample.status, sample.exit_status) == ("failed", 7)


def test_command_is_judged_by_its_output(make: Make) -> None:
    provider = SilentProvider()
    plain = scenario(
        turns=(), subject=SubjectSetup(command=("--help",)), oracle=Oracle(final_text="Usage: it")
    )
    subject = Script("echo Usage: it", reports=True)
    sample = run_one(make(subject, small=plain, provider=provider))
    assert sample.correct, sample.problem
    assert not provider.sessions
    assert "requests" in sample.metrics
    assert "provider_cpu" not in sample.metrics
    other = run_one(make(Script("echo Usage: it all", reports=True), small=plain))
    assert other.correct
    assert other.transcript != sample.transcript
    wrong = run_one(make(Script("echo Error", reports=True), small=plain))
    assert not wrong.correct
