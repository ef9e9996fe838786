"""Are the memory of a tree and the record of its processes right, and what do they cost?

    python -m tests.studies.session_cost --repetitions 20

Memory: planted trees of processes allocate known amounts. `cgroup peak` is the peak that the
kernel counts for the trial's cgroup, less what it held before; it needs a memory controller of
version 1 whose groups this process may create. All sizes are MiB, medians and ranges.

    together     a process with 50 MiB has three children with 40 MiB each, at the same time
    in turn      the same, one after another
    forked       a process with 50 MiB forks three children that allocate nothing
    shared       the same, with 40 MiB of shared memory beside the 50
    briefly      a process with 50 MiB allocates 40 more and frees them at once
    file         a process with 50 MiB writes a file of 100 MiB, in each repetition the same file

Costs: CPU time (ms) of programs whose processes are recorded, less that of programs that run
unrecorded, with the 95 % interval of the mean. `switches` gives up its core 1000 times and sleeps
200 times.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median

from tests.studies.harness import make_parser, markdown_table, mean, print_progress, write_raw
from tests.trae_bench.execution.test_tree_memory import MIB, PLANT
from trae_bench.execution.launcher_client import Job, LauncherClient
from trae_bench.execution.run_delay import Group

PLANTED = {
    "together": 50 + 3 * 40,
    "in turn": 50 + 40,
    "forked": 50,
    "shared": 50 + 40,
    "briefly": 50 + 40,
    "file": 50,
}
PROGRAMS = {
    "nothing": "pass",
    "computing": "for _ in range(1000000): pass",
    "switches": "import time\nfor _ in range(1000): time.sleep(0)\n"
    "for _ in range(200): time.sleep(0.0001)",
    "processes": "import os\nfor _ in range(50):\n"
    " os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
}
_CONTROLLER = Path("/sys/fs/cgroup/memory")


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """Create a cgroup with the memory controller. None if that is not possible."""
    own = Path("/proc/self/cgroup").read_text().partition(":memory:")[2].partition("\n")[0]
    folder = _CONTROLLER / own.lstrip("/") / f"trae-bench-study-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        folder.rmdir()


class Study:
    """Runs programs below one launcher."""

    def __init__(self, launcher: LauncherClient, folder: Path) -> None:
        self._launcher = launcher
        self._folder = folder
        (folder / "plant.py").write_text(PLANT)

    def memory(self, how: str, group: Path | None) -> tuple[float, float, float]:
        """Return peak_tree, peak_rss and the cgroup's peak of a plant, in MiB (NaN: unknown)."""
        place, before = None, 0
        if group is not None:
            place = Group(f"{group}/cgroup.procs", f"{group.parent}/cgroup.procs", ())
            (group / "memory.max_usage_in_bytes").write_text("0")
            before = int((group / "memory.usage_in_bytes").read_text())
        argv = (str(self._folder / "plant.py"), how, "50", "40")
        (result,) = self._launcher.run([self._job(argv, place)], 60.0, "memory")
        assert result.failure is None
        peak = float("nan")
        if group is not None:
            peak = (int((group / "memory.max_usage_in_bytes").read_text()) - before) / MIB
        return (result.peak_tree or 0) / MIB, (result.max_rss or 0) / MIB, peak

    def costs(self, program: str, repetitions: int, random: Random) -> list[float]:
        """Return the differences of CPU time (ms), recorded less not recorded."""
        job, found = self._job(("-c", program), None), []
        for _ in range(repetitions):
            cpu = {}
            for watch in random.sample(("nothing", "processes"), 2):
                recorded = watch == "processes"
                (result,) = self._launcher.run([job], 60.0, "processes" if recorded else "nothing")
                cpu[recorded] = 1000 * result.cpu
            found.append(cpu[True] - cpu[False])
        return found

    def _job(self, argv: Sequence[str], group: Group | None) -> Job:
        return Job(
            argv=(sys.executable, "-I", "-S", *argv),
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            cwd=str(self._folder),
            log=str(self._folder / "log"),
            cores=(max(os.sched_getaffinity(0)),),
            group=group,
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "session_cost")
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args(argv)
    launcher, random = LauncherClient(), Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, memory_group() as group:
        study = Study(launcher, Path(folder))
        memory = {}
        for how in PLANTED:
            print_progress(how)
            memory[how] = [study.memory(how, group) for _ in range(options.repetitions)]
        costs = {}
        for name, program in PROGRAMS.items():
            print_progress(name)
            costs[name] = study.costs(program, options.repetitions, random)
        launcher.close()
    write_raw(options, memory=memory, costs=costs)
    head = ("tree", "planted", "peak_tree", "range", "peak_rss", "cgroup peak", "range")
    print(markdown_table(head, (_memory_row(how, found) for how, found in memory.items())))
    print()
    rows = []
    for name, found in costs.items():
        cost = mean(found)
        rows.append((name, f"{cost.value:+.3f}", f"[{cost.low:+.3f} {cost.high:+.3f}]"))
    print(markdown_table(("program", "CPU time", "interval"), rows))


def _memory_row(how: str, found: Sequence[tuple[float, float, float]]) -> tuple[object, ...]:
    tree, largest, peak = zip(*found, strict=True)
    cells = (*_figures(tree), _figures(largest)[0], *_figures(peak))
    return (how, PLANTED[how], *cells)


def _figures(sizes: Sequence[float]) -> tuple[str, str]:
    """Return the median and the range of some sizes."""
    return f"{median(sizes):.1f}", f"{min(sizes):.1f} to {max(sizes):.1f}"


if __name__ == "__main__":
    main()
